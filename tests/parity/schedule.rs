//! Every scheduler over full runs, through the loop that draws pictures, fed with the reference's noise.

use burn::tensor::{Device, Tensor, TensorData};
use inkbloom::{
    Result,
    denoise::{
        Blend, Condition, Denoiser, Denoising, FreshNoise, Guidance, Prepared,
        schedule::{Churn, Grid, Host, Repair, Run, Schedule, Scheduler, from_config, instead},
    },
    values::{Latent, TextEmbedding},
    weights::config::Notes,
};
use serde_json::Value;

use crate::support::*;

/// Over a full run.
const RUN_TOLERANCE: f64 = 5e-4;

/// A pipeline that leaves its scheduler as it is.
const HOST: Host = Host { grid: Grid::Trained, repairs: &[] };

fn read(class: &str, config: &Value, grid: Grid) -> Result<Box<dyn Scheduler>> {
    from_config(class, config, &Host { grid, ..HOST }, &Notes::default())
}

/// The fixtures' stand-in for a model: `0.3 x + per_timestep t + constant`.
struct Fake {
    per_timestep: f32,
    constant: f32,
}

impl Denoiser for Fake {
    fn prepare<'a>(&'a self, _: &Condition, timesteps: &[f32], _: [usize; 2]) -> Result<Prepared<'a>> {
        let timesteps = timesteps.to_vec();
        Ok(Box::new(move |x_t, step| Ok(x_t * 0.3 + (self.per_timestep * timesteps[step] + self.constant))))
    }

    fn live_values(&self, _: usize, _: usize, _: usize) -> u64 {
        0
    }
}

fn list(value: &Value) -> Vec<f32> {
    value.as_array().unwrap().iter().map(|v| v.as_f64().unwrap() as f32).collect()
}

fn latent(values: Vec<f32>) -> Latent {
    Tensor::from_data(TensorData::new(values, [1, 1, 2, 3]), &Device::flex())
}

/// Every `x_t` of a run.
fn trajectory(
    schedule: &Schedule,
    fake: &Fake,
    start: Vec<f32>,
    noise: Vec<Vec<f32>>,
    blend: Option<Blend>,
) -> Vec<Vec<f32>> {
    let hidden = Tensor::zeros([1, 1, 1], &Device::flex());
    let text = TextEmbedding { hidden, attention_mask: None, pooled: None };
    let condition =
        Condition { text, picture: (16, 24), guidance: 1.0, frames: 1, skip_layers: Vec::new(), tokens: None };
    let timesteps: Vec<f32> = schedule.steps.iter().map(|step| step.timestep).collect();
    let guidance = Guidance::new(fake, &condition, 1.0, false, None, &timesteps, [2, 3]).unwrap();
    let mut xs = vec![start.clone()];
    let fresh = FreshNoise { seed: 0, given: noise };
    let mut run = Denoising::new(&guidance, schedule, latent(start), None, fresh, blend);
    while let Some(outcome) = run.step().unwrap() {
        xs.push(numbers(outcome.x_t));
    }
    xs
}

/// What a fixture's run asks of its scheduler, every key of it.
fn asked(run: &Value) -> Run {
    let number = |key: &str| run[key].as_u64().unwrap() as usize;
    let mut asked = Run { begin: number("begin"), ..Run::new(number("steps")) };
    asked.patches = run["patches"].as_u64().unwrap_or_default() as usize;
    let options = ["step", "set_timesteps"].map(|key| run[key].as_object().unwrap());
    for (key, value) in options.into_iter().flatten() {
        let value = value.as_f64().unwrap();
        let churn = asked.churn.unwrap_or(Churn::new(0.0));
        match key.as_str() {
            "eta" => asked.eta = Some(value),
            "s_churn" => asked.churn = Some(Churn { amount: value, ..churn }),
            "s_noise" => asked.churn = Some(Churn { noise: value, ..churn }),
            "s_tmin" => asked.churn = Some(Churn { tmin: value, ..churn }),
            "s_tmax" => asked.churn = Some(Churn { tmax: value, ..churn }),
            "strength" => asked.strength = value,
            // Ours to compute, from the patches.
            "mu" => assert!(asked.patches > 0),
            key => panic!("{}: nobody reads `{key}`", run["name"]),
        }
    }
    asked
}

fn full_runs(file: &str, least: usize) {
    full_runs_of(file, least, |run| {
        let class = run["config"]["_class_name"].as_str().unwrap();
        read(class, &run["config"], Grid::Trained).unwrap()
    });
}

/// `scheduler` makes that of a fixture's run.
fn full_runs_of(file: &str, least: usize, scheduler: impl Fn(&Value) -> Box<dyn Scheduler>) {
    let fixture = json(&fixture(&format!("schedule/{file}.json")));
    let fake = Fake { per_timestep: 0.0001, constant: 0.0 };
    let (mut compared, mut worst) = (0, 0f64);
    for run in fixture["runs"].as_array().unwrap() {
        let name = format!("{file} {}", run["name"]);
        let asked = asked(run);
        let begin = asked.begin;
        let schedule = scheduler(run).schedule(&asked).unwrap();
        let timesteps: Vec<f32> = schedule.steps.iter().map(|step| step.timestep).collect();
        let expected = list(&run["timesteps"])[begin..].to_vec();
        assert_eq!(timesteps.len(), expected.len(), "{name}");
        let close = timesteps.iter().zip(&expected).all(|(ours, expected)| (ours - expected).abs() < 2e-3);
        assert!(close, "{name}: {timesteps:?}, expected {expected:?}");

        let (x_0, noise) = (list(&fixture["x_0"]), list(&fixture["noise"]));
        let start: Vec<f32> = if begin == 0 {
            noise.iter().map(|noise| (f64::from(*noise) * schedule.init_noise_sigma) as f32).collect()
        } else {
            let noised = schedule.steps[0].noised;
            x_0.iter()
                .zip(&noise)
                .map(|(x, n)| (f64::from(*x) * noised.x_0 + f64::from(*n) * noised.noise) as f32)
                .collect()
        };
        let drawn = run["noise"].as_array().unwrap();
        let drawn = drawn.iter().map(|noise| if noise.is_null() { vec![f32::NAN; 6] } else { list(noise) }).collect();
        let blend = run["mask"].as_array().map(|_| Blend {
            mask: latent(list(&run["mask"])),
            known: latent(x_0.clone()),
            noise: latent(noise.clone()),
        });
        let xs = trajectory(&schedule, &fake, start, drawn, blend);
        let expected: Vec<Vec<f32>> = run["x"].as_array().unwrap().iter().map(list).collect();
        assert_eq!(xs.len(), expected.len(), "{name}");
        for (i, (ours, reference)) in xs.iter().zip(&expected).enumerate() {
            let error = relative_error(ours, reference);
            assert!(error <= RUN_TOLERANCE, "{name}: x after {i} steps is off by {error:.2e}: {ours:?} {reference:?}");
            worst = worst.max(error);
        }
        compared += 1;
    }
    println!("{file}: {compared} runs, at most {worst:.1e} off");
    assert!(compared >= least, "{file}: only {compared} runs compared");
}

#[test]
fn ddpm_runs_as_the_reference() {
    full_runs("ddpm", 16);
}

#[test]
fn ddim_runs_as_the_reference() {
    full_runs("ddim", 19);
}

#[test]
fn dpm_solver_multistep_runs_as_the_reference() {
    full_runs("dpm_solver_multistep", 40);
}

#[test]
fn dpm_solver_singlestep_runs_as_the_reference() {
    full_runs("dpm_solver_singlestep", 39);
}

#[test]
fn unipc_runs_as_the_reference() {
    full_runs("unipc", 39);
}

#[test]
fn deis_runs_as_the_reference() {
    full_runs("deis", 23);
}

#[test]
fn heun_runs_as_the_reference() {
    full_runs("heun", 17);
}

#[test]
fn lms_runs_as_the_reference() {
    full_runs("lms", 16);
}

#[test]
fn kdpm2_runs_as_the_reference() {
    full_runs("kdpm2", 14);
    full_runs("kdpm2_ancestral", 13);
}

#[test]
fn euler_runs_as_the_reference() {
    full_runs("euler", 23);
}

#[test]
fn euler_ancestral_runs_as_the_reference() {
    full_runs("euler_ancestral", 11);
}

#[test]
fn pndm_runs_as_the_reference() {
    full_runs("pndm", 13);
}

#[test]
fn lcm_runs_as_the_reference() {
    full_runs("lcm", 14);
}

#[test]
fn tcd_runs_as_the_reference() {
    full_runs("tcd", 10);
}

#[test]
fn flow_matching_runs_as_the_reference() {
    full_runs("flow_match_euler", 9);
    full_runs("flow_match_heun", 6);
}

/// Files as others saved them: keys of other classes, what pipelines set right, what goes along to another class.
#[test]
fn files_of_others_are_read_as_the_reference_reads_them() {
    full_runs_of("files", 18, |run| {
        let repairs: &[Repair] = match run["pipeline"].as_str().unwrap() {
            "StableDiffusionInpaintPipeline" => &[Repair::StepsOffset, Repair::SkipPrkSteps],
            "StableDiffusionXLPipeline" => &[],
            _ => &[Repair::StepsOffset, Repair::ClipSample],
        };
        let host = Host { repairs, ..HOST };
        let own = run["config"]["_class_name"].as_str().unwrap();
        match run["instead"].as_str() {
            Some(name) => instead(own, name, &run["config"], &host),
            None => from_config(own, &run["config"], &host, &Notes::default()),
        }
        .unwrap()
    });
}

/// As Inkbloom's own pipeline asks for it.
#[test]
fn flow_matching_on_the_flux_grid_runs_as_the_reference() {
    let fixture = json(&fixture("denoise/flow_match_euler.json"));
    let fake = Fake { per_timestep: 0.0, constant: 0.1 };
    let (mut compared, mut refused) = (0, 0);
    for run in fixture["runs"].as_array().unwrap() {
        let name = format!("{} in {} steps", run["name"], run["steps"]);
        let read = read("FlowMatchEulerDiscreteScheduler", &run["config"], Grid::Flux);
        if let Some(key) = ["invert_sigmas"].into_iter().find(|key| run["config"][key] == true) {
            assert!(read.err().unwrap().message.contains(key));
            refused += 1;
            continue;
        }
        let patches = fixture["patches"].as_u64().unwrap() as usize;
        let whole = Run { patches, ..Run::new(run["steps"].as_u64().unwrap() as usize) };
        let schedule = read.unwrap().schedule(&whole).unwrap();
        let timesteps: Vec<f32> = schedule.steps.iter().map(|step| step.timestep).collect();
        assert!(relative_error(&timesteps, &list(&run["timesteps"])) < 1e-6, "{name}: {timesteps:?}");
        let expected: Vec<Vec<f32>> = run["trajectory"].as_array().unwrap().iter().map(list).collect();
        let xs = trajectory(&schedule, &fake, expected[0].clone(), Vec::new(), None);
        for (ours, reference) in xs.iter().zip(&expected) {
            assert!(relative_error(ours, reference) < 1e-5, "{name}");
        }
        compared += 1;
    }
    assert!(compared >= 56 && refused >= 1, "{compared} runs compared, {refused} refused");
}

#[test]
fn what_a_scheduler_cannot_honour_is_named() {
    for (class, value, expected) in [
        ("DDIMScheduler", r#"{"thresholding": true}"#, "thresholding"),
        ("DDPMScheduler", r#"{"variance_type": "learned"}"#, "variance_type"),
        ("EulerDiscreteScheduler", r#"{"beta_schedule": "spiral"}"#, "spiral"),
        ("PNDMScheduler", r#"{"prediction_type": "sample"}"#, "prediction_type"),
        ("DPMSolverMultistepScheduler", r#"{"algorithm_type": "dpmsolver"}"#, "must be sigma_min"),
        ("DPMSolverMultistepScheduler", r#"{"algorithm_type": "unipc"}"#, "algorithm_type"),
        (
            "DPMSolverMultistepScheduler",
            r#"{"algorithm_type": "sde-dpmsolver", "final_sigmas_type": "sigma_min", "solver_order": 3}"#,
            "solver_order",
        ),
        ("DPMSolverSinglestepScheduler", r#"{"algorithm_type": "sde-dpmsolver"}"#, "algorithm_type"),
        ("DPMSolverSinglestepScheduler", r#"{"solver_order": 4}"#, "solver_order"),
        ("UniPCMultistepScheduler", r#"{"solver_p": {}}"#, "solver_p"),
        ("UniPCMultistepScheduler", r#"{"solver_order": 10}"#, "1 to 9"),
        ("UniPCMultistepScheduler", r#"{"predict_x0": false}"#, "predict_x0"),
        ("UniPCMultistepScheduler", r#"{"shift_terminal": 0.1}"#, "shift_terminal"),
        ("UniPCMultistepScheduler", r#"{"solver_type": "bh3"}"#, "bh1 and bh2"),
        ("UniPCMultistepScheduler", r#"{"prediction_type": "flow_prediction"}"#, "prediction_type"),
        (
            "UniPCMultistepScheduler",
            r#"{"prediction_type": "flow_prediction", "use_flow_sigmas": true, "use_beta_sigmas": true}"#,
            "use_flow_sigmas",
        ),
        ("DEISMultistepScheduler", r#"{"algorithm_type": "sde-dpmsolver++"}"#, "algorithm_type"),
        ("DEISMultistepScheduler", r#"{"solver_type": "rhoab"}"#, "solver_type"),
        ("KDPM2DiscreteScheduler", r#"{"prediction_type": "sample"}"#, "prediction_type"),
        ("HeunDiscreteScheduler", r#"{"use_karras_sigmas": true, "use_beta_sigmas": true}"#, "only one"),
        (
            "DPMSolverMultistepScheduler",
            r#"{"use_dynamic_shifting": true, "use_flow_sigmas": true, "prediction_type": "flow_prediction"}"#,
            "use_dynamic_shifting",
        ),
        ("FlowMatchEulerDiscreteScheduler", r#"{"shift": 0.0}"#, "above 0"),
        (
            "FlowMatchEulerDiscreteScheduler",
            r#"{"use_dynamic_shifting": true, "time_shift_type": "cubic"}"#,
            "exponential and linear",
        ),
        (
            "FlowMatchEulerDiscreteScheduler",
            r#"{"use_dynamic_shifting": true, "max_image_seq_len": 256}"#,
            "base_image_seq_len",
        ),
        ("SASolverScheduler", "{}", "SASolverScheduler"),
    ] {
        let value: Value = serde_json::from_str(value).unwrap();
        let message = read(class, &value, Grid::Trained).err().unwrap().message;
        assert!(message.contains(expected), "{message}");
    }
}

#[test]
fn what_a_run_cannot_ask_for_is_said_in_words() {
    let value: Value = serde_json::from_str("{}").unwrap();
    let linear: Value = serde_json::from_str(
        r#"{"use_dynamic_shifting": true, "time_shift_type": "linear", "base_shift": 0.1, "max_shift": 2.0}"#,
    )
    .unwrap();
    let four = || Run::new(4);
    let churn = |amount| Run { churn: Some(Churn::new(amount)), ..four() };
    for (class, value, run, expected) in [
        ("LCMScheduler", &value, Run::new(51), "at most 50"),
        ("LCMScheduler", &value, Run { strength: 0.06, ..four() }, "at most 3 at a strength of 0.06"),
        ("LCMScheduler", &value, Run { eta: Some(0.5), ..four() }, "no eta; leave it out, or take the scheduler ddim"),
        ("DDIMScheduler", &value, Run { eta: Some(1.01), ..four() }, "from 0 to 1"),
        ("TCDScheduler", &value, Run { eta: Some(f64::NAN), ..four() }, "from 0 to 1"),
        ("DDIMScheduler", &value, Run { strength: 0.5, ..four() }, "lcm or tcd"),
        ("FlowMatchEulerDiscreteScheduler", &value, churn(1.0), "no churn"),
        ("EulerDiscreteScheduler", &value, churn(-1.0), "from 0 on"),
        ("EulerDiscreteScheduler", &value, churn(f64::INFINITY), "from 0 on"),
        ("FlowMatchEulerDiscreteScheduler", &linear, Run { patches: 1, ..four() }, "give another size"),
    ] {
        let error = read(class, value, Grid::Trained).unwrap().schedule(&run).unwrap_err();
        assert!(error.message.contains(expected), "{error} lacks {expected}");
        assert_eq!(error.code, inkbloom::Code::BadInput);
    }
}
