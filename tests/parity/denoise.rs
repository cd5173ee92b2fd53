use burn::tensor::Device;
use inkbloom::{
    denoise::{
        dit::pixart::{PixArt, PixArtConfig},
        noise,
        schedule::{Schedule, flow_match_euler::FlowMatchEulerConfig},
    },
    values::TextEmbedding,
    weights::{Config, Tensors},
};

use crate::support::*;

#[test]
fn pixart_gives_the_references_output() {
    for case in cases("denoise", "pixart_", 6) {
        let config = json(&case.join("config.json"));
        let weights = Tensors::new(&Device::flex());
        load_weights(&case, "", &weights);
        let config = PixArtConfig::read(&Config::new("config.json", &config).unwrap()).unwrap();
        let model = PixArt::load(&weights.params(""), config).unwrap();
        let reference = tensors(&case.join("reference.safetensors"));
        let mut ours = Vec::new();
        // One picture at a time, for the sizes that condition some models differ within the fixture's batch.
        for (i, timestep) in reference["timestep"].1.iter().enumerate() {
            let text = TextEmbedding {
                hidden: tensor::<3>(&reference, "encoder_hidden_states").narrow(0, i, 1),
                attention_mask: tensor::<2>(&reference, "encoder_attention_mask").narrow(0, i, 1),
            };
            let picture = match reference.get("resolution") {
                Some((_, sizes)) => (sizes[2 * i] as usize, sizes[2 * i + 1] as usize),
                None => (1, 1),
            };
            let sample = tensor::<4>(&reference, "sample").narrow(0, i, 1);
            ours.extend(numbers(model.forward(sample, &[*timestep], &text, picture).unwrap()));
        }
        assert_close(&case, "output", &ours, &reference, TOLERANCE);
    }
}

/// The two prompts of classifier-free guidance go through as one batch: it must equal one at a time.
#[test]
fn pixart_treats_a_batch_as_its_pictures() {
    let case = fixture("denoise/pixart_sticker");
    let config = json(&case.join("config.json"));
    let weights = Tensors::new(&Device::flex());
    load_weights(&case, "", &weights);
    let config = PixArtConfig::read(&Config::new("config.json", &config).unwrap()).unwrap();
    let model = PixArt::load(&weights.params(""), config).unwrap();
    let reference = tensors(&case.join("reference.safetensors"));
    let text = TextEmbedding {
        hidden: tensor(&reference, "encoder_hidden_states"),
        attention_mask: tensor(&reference, "encoder_attention_mask"),
    };
    let output = model.forward(tensor(&reference, "sample"), &reference["timestep"].1, &text, (1, 1)).unwrap();
    assert_close(&case, "output", &numbers(output), &reference, TOLERANCE);
}

#[test]
fn flow_match_euler_gives_the_references_runs() {
    let fixture = json(&fixture("denoise/flow_match_euler.json"));
    let list = |value: &serde_json::Value| -> Vec<f64> {
        value.as_array().unwrap().iter().map(|v| v.as_f64().unwrap()).collect()
    };
    let (mut compared, mut refused) = (0, 0);
    for run in fixture["runs"].as_array().unwrap() {
        let name = format!("{} in {} steps", run["name"], run["steps"]);
        let config = Config::new("scheduler_config.json", &run["config"]).unwrap();
        if let Some(key) = ["use_beta_sigmas", "invert_sigmas"].into_iter().find(|key| run["config"][key] == true) {
            let error = FlowMatchEulerConfig::read(&config).unwrap_err();
            assert!(error.message.contains(key), "{error}");
            refused += 1;
            continue;
        }
        let schedule = FlowMatchEulerConfig::read(&config).unwrap().schedule(run["steps"].as_u64().unwrap() as usize);
        let close = |ours: f64, reference: f64, what: &str| {
            assert!(
                (ours - reference).abs() <= 2e-6 * (1.0 + reference.abs()),
                "{name}: {what} is {ours}, expected {reference}"
            )
        };
        for (ours, reference) in schedule.sigmas().iter().zip(list(&run["sigmas"])) {
            close(f64::from(*ours), reference, "sigma");
        }
        assert_eq!(schedule.sigmas().len(), run["sigmas"].as_array().unwrap().len(), "{name}");
        let trajectory: Vec<Vec<f64>> = run["trajectory"].as_array().unwrap().iter().map(list).collect();
        let mut x: Vec<f32> = trajectory[0].iter().map(|v| *v as f32).collect();
        for step in 0..schedule.steps() {
            close(f64::from(schedule.timestep(step)), run["timesteps"][step].as_f64().unwrap(), "timestep");
            let update = schedule.update(step);
            // The fixture's stand-in for a model.
            x.iter_mut().for_each(|x| *x = update.x * *x + update.output * (0.3 * *x + 0.1));
            for (ours, reference) in x.iter().zip(&trajectory[step + 1]) {
                assert!(
                    (f64::from(*ours) - reference).abs() < 5e-6,
                    "{name}: x after step {step} is {ours}, expected {reference}"
                );
            }
        }
        compared += 1;
    }
    assert!(compared >= 20 && refused >= 1, "{compared} runs compared, {refused} refused");
}

/// Committed values: whoever changes the generator changes every picture that a seed stands for.
#[test]
fn noise_has_its_committed_values() {
    let expected = json(&fixture("denoise/noise.json"));
    for run in expected["runs"].as_array().unwrap() {
        let seed: u64 = run["seed"].as_str().unwrap().parse().unwrap();
        let values: Vec<f32> =
            run["bits"].as_array().unwrap().iter().map(|v| f32::from_bits(v.as_u64().unwrap() as u32)).collect();
        assert_eq!(noise::normal(seed, run["stream"].as_u64().unwrap(), values.len()), values, "seed {seed}");
    }
}
