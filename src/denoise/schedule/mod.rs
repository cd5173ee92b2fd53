//! Noise schedules and the steps of their solvers: plain numbers, one file per algorithm.
//!
//! Every solver here is linear in its tensors but for a clip, so a whole run is told by numbers beforehand
//! ([`Schedule`]), and the loop ([`super::Denoising`]) only applies them.

mod ddim;
mod ddpm;
mod dpm_solver_multistep;
mod euler;
mod euler_ancestral;
mod flow_match_euler;
mod flow_match_heun;
mod layout;
mod lcm;
mod pndm;
mod tcd;
mod training;

pub use layout::{Churn, Extra, Grid, Mix, Noised, Run, Schedule, Scheduler, Step, Term};

use crate::{Error, Result, weights::Config};

/// The diffusers classes known here, each with the short name that people type.
const CLASSES: [(&str, &str); 10] = [
    ("DDPMScheduler", "ddpm"),
    ("DDIMScheduler", "ddim"),
    ("DPMSolverMultistepScheduler", "dpm++"),
    ("EulerDiscreteScheduler", "euler"),
    ("EulerAncestralDiscreteScheduler", "euler-a"),
    ("PNDMScheduler", "pndm"),
    ("LCMScheduler", "lcm"),
    ("TCDScheduler", "tcd"),
    ("FlowMatchEulerDiscreteScheduler", "flow-euler"),
    ("FlowMatchHeunDiscreteScheduler", "flow-heun"),
];

/// The class that a short name or a class name stands for.
///
/// # Errors
/// `BadInput` naming those that there are.
pub fn class_of(name: &str) -> Result<&'static str> {
    let found = CLASSES.iter().find(|(class, short)| [*class, *short].contains(&name));
    found.map(|(class, _)| *class).ok_or_else(|| {
        let known: Vec<_> = CLASSES.iter().map(|(_, short)| *short).collect();
        Error::bad_input(format!("there is no scheduler \"{name}\"; this version knows {}", known.join(", ")))
    })
}

/// What published configs hold of other classes than their own: people change the class and keep the file, and
/// diffusers leaves such keys aside.
const OF_OTHER_CLASSES: [&str; 8] = [
    "clip_sample",
    "clip_sample_range",
    "set_alpha_to_one",
    "skip_prk_steps",
    "thresholding",
    "dynamic_thresholding_ratio",
    "sample_max_value",
    "variance_type",
];

/// The scheduler that `config` describes, of the class `own` that it was written for.
///
/// # Errors
/// `BadModel` for an unknown class or an option that this version cannot honour.
pub fn from_config(own: &str, config: &Config, grid: Grid) -> Result<Box<dyn Scheduler>> {
    let scheduler = read(own, config, grid)?;
    config.ignore(&OF_OTHER_CLASSES);
    config.finish()?;
    Ok(scheduler)
}

/// Another scheduler on the training schedule of the model's own: `name` is short or a class's. Keys of the
/// config that only `own` knows are left aside, as diffusers does.
///
/// # Errors
/// `BadInput` for an unknown name, or one that steps along another kind of path than the model was trained on.
pub fn instead(own: &str, name: &str, config: &Config, grid: Grid) -> Result<Box<dyn Scheduler>> {
    let class = class_of(name)?;
    let flow = |class: &str| class.starts_with("FlowMatch");
    if flow(class) != flow(own) {
        let fit: Vec<_> =
            CLASSES.iter().filter(|(class, _)| flow(class) == flow(own)).map(|(_, short)| *short).collect();
        return Err(Error::bad_input(format!(
            "this model was not trained for the scheduler {name}; give one of {}",
            fit.join(", ")
        )));
    }
    read(class, config, grid)
}

fn read(class: &str, config: &Config, grid: Grid) -> Result<Box<dyn Scheduler>> {
    Ok(match class {
        "DDPMScheduler" => Box::new(ddpm::Ddpm::read(config)?),
        "DDIMScheduler" => Box::new(ddim::Ddim::read(config)?),
        "DPMSolverMultistepScheduler" => Box::new(dpm_solver_multistep::DpmSolverMultistep::read(config)?),
        "EulerDiscreteScheduler" => Box::new(euler::Euler::read(config)?),
        "EulerAncestralDiscreteScheduler" => Box::new(euler_ancestral::EulerAncestral::read(config)?),
        "PNDMScheduler" => Box::new(pndm::Pndm::read(config)?),
        "LCMScheduler" => Box::new(lcm::Lcm::read(config)?),
        "TCDScheduler" => Box::new(tcd::Tcd::read(config)?),
        "FlowMatchEulerDiscreteScheduler" => Box::new(flow_match_euler::FlowMatchEuler::read(config, grid)?),
        "FlowMatchHeunDiscreteScheduler" => Box::new(flow_match_heun::FlowMatchHeun::read(config)?),
        other => {
            let known: Vec<_> = CLASSES.iter().map(|(class, _)| *class).collect();
            return Err(Error::bad_model(format!(
                "model_index.json: `scheduler` is of the class {other}; this version knows {}",
                known.join(", ")
            )));
        }
    })
}

#[cfg(test)]
mod tests {
    use serde_json::json;

    use super::*;

    fn configs() -> Vec<(&'static str, serde_json::Value)> {
        let all = json!({"beta_start": 0.00085, "beta_end": 0.012, "beta_schedule": "scaled_linear",
            "clip_sample": false, "skip_prk_steps": true});
        let with = |more: serde_json::Value| {
            let mut config = all.clone();
            config.as_object_mut().unwrap().extend(more.as_object().unwrap().clone());
            config
        };
        let mut configs = Vec::new();
        for spacing in ["leading", "trailing", "linspace"] {
            for prediction in ["epsilon", "v_prediction"] {
                let more =
                    json!({"timestep_spacing": spacing, "prediction_type": prediction, "set_alpha_to_one": true});
                for (class, _) in &CLASSES[..8] {
                    // PNDM steps by a fixed stride, which only this spacing has, and mixes outputs of several times,
                    // which agree only as noise.
                    if *class == "PNDMScheduler" && (spacing, prediction) != ("leading", "epsilon") {
                        continue;
                    }
                    configs.push((*class, with(more.clone())));
                }
            }
        }
        configs.push(("DPMSolverMultistepScheduler", with(json!({"use_karras_sigmas": true, "solver_order": 3}))));
        configs.push(("DPMSolverMultistepScheduler", with(json!({"algorithm_type": "sde-dpmsolver++"}))));
        configs.push(("EulerDiscreteScheduler", with(json!({"use_karras_sigmas": true}))));
        configs.push(("FlowMatchEulerDiscreteScheduler", json!({"shift": 3.0})));
        configs.push(("FlowMatchHeunDiscreteScheduler", json!({"shift": 1.5})));
        configs
    }

    /// A model that always knows `x_0` and says it in the way it was trained to: from any noise, without any fresh
    /// noise, every solver ends at `x_0` (a final training step that is not quite clean aside).
    #[test]
    fn a_perfect_predictor_lands_on_x_0() {
        for (class, config) in configs() {
            let stochastic = ["DDPMScheduler", "LCMScheduler", "TCDScheduler", "EulerAncestralDiscreteScheduler"];
            for steps in [2, 5, 20] {
                let config = Config::new("c", &config).unwrap();
                let schedule = read(class, &config, Grid::Trained).unwrap().schedule(&Run::new(steps)).unwrap();
                let (noise, x_0) = (1.3, -0.4);
                let first = schedule.steps[0].noised;
                let mut x = first.x_0 * x_0 + first.noise * noise;
                let mut history: Vec<(f64, f64)> = Vec::new();
                for step in &schedule.steps {
                    let output = (x_0 - step.x_0.x * x) / step.x_0.output;
                    history.insert(0, (x, output));
                    x = step
                        .next
                        .iter()
                        .map(|(term, weight)| match *term {
                            Term::X(back) => weight * history[back].0,
                            Term::Output(back) => weight * history[back].1,
                            Term::X0(_) => weight * x_0,
                            Term::Noise => 0.0,
                        })
                        .sum();
                }
                let slack = if stochastic.contains(&class) { 0.06 } else { 1e-6 };
                assert!((x - x_0).abs() < slack, "{class} in {steps} steps: {x}");
            }
        }
    }

    #[test]
    fn timesteps_never_rise_and_noise_never_grows() {
        for (class, config) in configs() {
            let config = Config::new("c", &config).unwrap();
            for steps in [1, 3, 8, 30] {
                let schedule = read(class, &config, Grid::Trained).unwrap().schedule(&Run::new(steps)).unwrap();
                for pair in schedule.steps.windows(2) {
                    assert!(pair[0].timestep >= pair[1].timestep, "{class} {steps}");
                    assert!(pair[0].noised.noise >= pair[1].noised.noise - 1e-12, "{class} {steps}");
                }
            }
        }
    }

    #[test]
    fn the_schedulers_that_a_refusal_names_are_those_that_have_it() {
        let config = json!({});
        for (class, short) in CLASSES {
            let scheduler = read(class, &Config::new("c", &config).unwrap(), Grid::Trained).unwrap();
            for extra in [Extra::Eta, Extra::Churn, Extra::Strength] {
                let named = extra.names().1.split(" or ").any(|name| name == short);
                assert_eq!(scheduler.has(extra), named, "{class} {extra:?}");
            }
        }
    }

    #[test]
    fn a_scheduler_of_another_kind_is_refused_in_words() {
        let config = json!({});
        let config = Config::new("c", &config).unwrap();
        let message = instead("PNDMScheduler", "flow-euler", &config, Grid::Trained).err().unwrap().message;
        assert!(message.contains("not trained") && message.contains("euler-a"), "{message}");
        assert!(instead("PNDMScheduler", "heun", &config, Grid::Trained).err().unwrap().message.contains("\"heun\""));
        assert!(instead("PNDMScheduler", "dpm++", &config, Grid::Trained).is_ok());
    }
}
