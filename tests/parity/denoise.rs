use burn::tensor::Device;
use inkbloom::{
    denoise::{
        dit::pixart::{PixArt, PixArtConfig},
        noise,
        unet::{Additions, UNet, UNetConfig},
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
                attention_mask: Some(tensor::<2>(&reference, "encoder_attention_mask").narrow(0, i, 1)),
                pooled: None,
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
        attention_mask: Some(tensor(&reference, "encoder_attention_mask")),
        pooled: None,
    };
    let output = model.forward(tensor(&reference, "sample"), &reference["timestep"].1, &text, (1, 1)).unwrap();
    assert_close(&case, "output", &numbers(output), &reference, TOLERANCE);
}

#[test]
fn unet_gives_the_references_output() {
    for case in cases("denoise", "unet_", 12) {
        let config = json(&case.join("config.json"));
        let weights = Tensors::new(&Device::flex());
        load_weights(&case, "", &weights);
        let config = UNetConfig::read(&Config::new("config.json", &config).unwrap()).unwrap();
        let model = UNet::load(&weights.params(""), config).unwrap();
        let reference = tensors(&case.join("reference.safetensors"));
        let has = |name: &str| reference.contains_key(name);
        let text = TextEmbedding {
            hidden: tensor(&reference, "encoder_hidden_states"),
            attention_mask: has("encoder_attention_mask").then(|| tensor(&reference, "encoder_attention_mask")),
            pooled: has("text_embeds").then(|| tensor(&reference, "text_embeds")),
        };
        let additions = Additions {
            timestep_cond: has("timestep_cond").then(|| tensor(&reference, "timestep_cond")),
            time_ids: reference.get("time_ids").map_or(Vec::new(), |(_, ids)| ids.clone()),
        };
        let output = model.forward(tensor(&reference, "sample"), &reference["timestep"].1, &text, additions).unwrap();
        assert_close(&case, "output", &numbers(output), &reference, TOLERANCE);
    }
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
