//! Noise schedules and the steps of their solvers: plain numbers, one file per algorithm.
//!
//! Every solver here is linear in its tensors but for a clip, so a whole run is told by numbers beforehand
//! ([`Schedule`]), and the loop ([`super::Denoising`]) only applies them.

mod ddim;
mod ddpm;
mod deis;
mod dpm_solver;
mod dpm_solver_multistep;
mod dpm_solver_singlestep;
mod euler;
mod euler_ancestral;
mod flow_match_euler;
mod flow_match_heun;
mod heun;
mod kdpm2;
mod layout;
mod lcm;
mod lms;
mod path;
mod pndm;
mod tcd;
mod training;
mod unipc;

pub use layout::{Churn, Extra, Grid, Mix, Noised, Run, Schedule, Scheduler, Step, Term};

use serde_json::{Value, json};

use crate::{
    Error, Result,
    weights::{
        Config,
        config::{Notes, config_file},
    },
};

/// What the pipeline class around a scheduler does to it.
#[derive(Clone, Copy, Debug)]
pub struct Host {
    pub grid: Grid,
    pub repairs: &'static [Repair],
}

/// What the `__init__` of a pipeline class in diffusers sets right in the config of the scheduler that it is given.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum Repair {
    /// `steps_offset` is 1.
    StepsOffset,
    /// `clip_sample` is false.
    ClipSample,
    /// `skip_prk_steps` is true.
    SkipPrkSteps,
}

impl Repair {
    fn entry(self) -> (&'static str, Value) {
        match self {
            Self::StepsOffset => ("steps_offset", json!(1)),
            Self::ClipSample => ("clip_sample", json!(false)),
            Self::SkipPrkSteps => ("skip_prk_steps", json!(true)),
        }
    }
}

/// A diffusers class that is known here.
struct Class {
    name: &'static str,
    /// What people type; the first is the one that is offered.
    short: &'static [&'static str],
    /// The keys of its `__init__`, in groups. diffusers passes over all others.
    keys: &'static [&'static [&'static str]],
    read: fn(&Config, Grid) -> Result<Box<dyn Scheduler>>,
}

const CLASSES: [Class; 17] = [
    Class {
        name: "DDPMScheduler",
        short: &["ddpm"],
        keys: ddpm::KEYS,
        read: |config, _| Ok(Box::new(ddpm::Ddpm::read(config)?)),
    },
    Class {
        name: "DDIMScheduler",
        short: &["ddim"],
        keys: ddim::KEYS,
        read: |config, _| Ok(Box::new(ddim::Ddim::read(config)?)),
    },
    Class {
        name: "DPMSolverMultistepScheduler",
        short: &["dpm++"],
        keys: dpm_solver_multistep::KEYS,
        read: |config, _| Ok(Box::new(dpm_solver_multistep::DpmSolverMultistep::read(config)?)),
    },
    Class {
        name: "DPMSolverSinglestepScheduler",
        short: &["dpm++-single"],
        keys: dpm_solver_singlestep::KEYS,
        read: |config, _| Ok(Box::new(dpm_solver_singlestep::DpmSolverSinglestep::read(config)?)),
    },
    Class {
        name: "UniPCMultistepScheduler",
        short: &["unipc"],
        keys: unipc::KEYS,
        read: |config, _| Ok(Box::new(unipc::UniPc::read(config)?)),
    },
    Class {
        name: "DEISMultistepScheduler",
        short: &["deis"],
        keys: deis::KEYS,
        read: |config, _| Ok(Box::new(deis::Deis::read(config)?)),
    },
    Class {
        name: "EulerDiscreteScheduler",
        short: &["euler"],
        keys: euler::KEYS,
        read: |config, _| Ok(Box::new(euler::Euler::read(config)?)),
    },
    Class {
        name: "EulerAncestralDiscreteScheduler",
        short: &["euler-a"],
        keys: euler_ancestral::KEYS,
        read: |config, _| Ok(Box::new(euler_ancestral::EulerAncestral::read(config)?)),
    },
    Class {
        name: "HeunDiscreteScheduler",
        short: &["heun"],
        keys: heun::KEYS,
        read: |config, _| Ok(Box::new(heun::Heun::read(config)?)),
    },
    Class {
        name: "LMSDiscreteScheduler",
        short: &["lms"],
        keys: lms::KEYS,
        read: |config, _| Ok(Box::new(lms::Lms::read(config)?)),
    },
    Class {
        name: "KDPM2DiscreteScheduler",
        short: &["kdpm2", "dpm2"],
        keys: kdpm2::KEYS,
        read: |config, _| Ok(Box::new(kdpm2::KDpm2::read(config, false)?)),
    },
    Class {
        name: "KDPM2AncestralDiscreteScheduler",
        short: &["kdpm2-a", "dpm2-a"],
        keys: kdpm2::KEYS,
        read: |config, _| Ok(Box::new(kdpm2::KDpm2::read(config, true)?)),
    },
    Class {
        name: "PNDMScheduler",
        short: &["pndm"],
        keys: pndm::KEYS,
        read: |config, _| Ok(Box::new(pndm::Pndm::read(config)?)),
    },
    Class {
        name: "LCMScheduler",
        short: &["lcm"],
        keys: lcm::KEYS,
        read: |config, _| Ok(Box::new(lcm::Lcm::read(config)?)),
    },
    Class {
        name: "TCDScheduler",
        short: &["tcd"],
        // Those of the class that it was made from.
        keys: lcm::KEYS,
        read: |config, _| Ok(Box::new(tcd::Tcd::read(config)?)),
    },
    Class {
        name: "FlowMatchEulerDiscreteScheduler",
        short: &["flow-euler"],
        keys: flow_match_euler::KEYS,
        read: |config, grid| Ok(Box::new(flow_match_euler::FlowMatchEuler::read(config, grid)?)),
    },
    Class {
        name: "FlowMatchHeunDiscreteScheduler",
        short: &["flow-heun"],
        keys: flow_match_heun::KEYS,
        read: |config, _| Ok(Box::new(flow_match_heun::FlowMatchHeun::read(config)?)),
    },
];

impl Class {
    /// That of a short name or a class name.
    fn find(name: &str) -> Option<&'static Self> {
        CLASSES.iter().find(|class| class.name == name || class.short.contains(&name))
    }

    fn has(&self, key: &str) -> bool {
        self.keys.iter().any(|keys| keys.contains(&key))
    }

    /// Whether it steps along the kind of path that a model was trained on whose own scheduler is of the class `own`,
    /// with the config `file`.
    fn suits(&self, own: &str, file: &Value) -> bool {
        let matches_flow = |class: &str| class.starts_with("FlowMatch");
        let along_flow = file["use_flow_sigmas"] == true && file["prediction_type"] == "flow_prediction";
        if own.starts_with("EDM") {
            // Such models are told sigmas of another kind.
            return false;
        }
        match matches_flow(own) || along_flow {
            true => matches_flow(self.name) || along_flow && self.has("use_flow_sigmas"),
            false => !matches_flow(self.name),
        }
    }
}

/// The short names of those classes that suit such a model.
fn fitting(own: &str, file: &Value) -> String {
    let names: Vec<_> = CLASSES.iter().filter(|class| class.suits(own, file)).map(|class| class.short[0]).collect();
    if names.is_empty() { "none of this version's does".to_owned() } else { names.join(", ") }
}

/// The scheduler of a model: its class is `own`, `file` its config, and what of that does not act goes to `notes`.
///
/// # Errors
/// `BadModel` for an unknown class or an option that this version cannot honour.
pub fn from_config(own: &str, file: &Value, host: &Host, notes: &Notes) -> Result<Box<dyn Scheduler>> {
    let Some(class) = CLASSES.iter().find(|class| class.name == own) else {
        return Err(Error::bad_model(format!(
            "model_index.json: `scheduler` is of the class {own}, which this version does not know; take one that suits \
             the model with --scheduler (`scheduler` in JavaScript): {}",
            fitting(own, file)
        )));
    };
    read(class, file, host, notes, |key| class.has(key))
}

/// Another scheduler on the training schedule of the model's own, as diffusers' `from_config` makes it: `name` is short or
/// a class's. What it does not have of the file is another's, and passed over without a word.
///
/// # Errors
/// `BadInput` for an unknown name, or one that steps along another kind of path than the model was trained on;
/// `BadModel` for an option that this version cannot honour.
pub fn instead(own: &str, name: &str, file: &Value, host: &Host) -> Result<Box<dyn Scheduler>> {
    let class = Class::find(name).ok_or_else(|| {
        let known: Vec<_> = CLASSES.iter().map(|class| class.short[0]).collect();
        Error::bad_input(format!("there is no scheduler \"{name}\"; this version knows {}", known.join(", ")))
    })?;
    if !class.suits(own, file) {
        return Err(Error::bad_input(format!(
            "this model was not trained for the scheduler {name}; those that suit it: {}",
            fitting(own, file)
        )));
    }
    // What was only the default of one class does not go along to another.
    read(class, file, host, &Notes::default(), |_| false)
}

/// `assumed` says of which keys that the file lacks the pipeline class repairs the default.
fn read(
    class: &Class,
    file: &Value,
    host: &Host,
    notes: &Notes,
    assumed: impl Fn(&str) -> bool,
) -> Result<Box<dyn Scheduler>> {
    let mut file = file.clone();
    if let Some(map) = file.as_object_mut() {
        for (key, value) in host.repairs.iter().map(|repair| repair.entry()) {
            if map.contains_key(key) || assumed(key) {
                map.insert(key.to_owned(), value);
            }
        }
    }
    let config = Config::new(&config_file("scheduler"), &file)?.noting(notes).of_class(class.keys);
    let scheduler = (class.read)(&config, host.grid)?;
    config.finish(class.name);
    Ok(scheduler)
}

#[cfg(test)]
mod tests {
    use std::collections::BTreeSet;

    use super::*;

    const HOST: Host = Host { grid: Grid::Trained, repairs: &[] };

    fn scheduler(class: &str, config: &Value) -> Box<dyn Scheduler> {
        from_config(class, config, &HOST, &Notes::default()).unwrap()
    }

    fn configs() -> Vec<(&'static str, Value)> {
        let all = json!({"beta_start": 0.00085, "beta_end": 0.012, "beta_schedule": "scaled_linear",
            "clip_sample": false, "skip_prk_steps": true});
        let with = |more: Value| {
            let mut config = all.clone();
            config.as_object_mut().unwrap().extend(more.as_object().unwrap().clone());
            config
        };
        let mut configs = Vec::new();
        for spacing in ["leading", "trailing", "linspace"] {
            for prediction in ["epsilon", "v_prediction"] {
                let more =
                    json!({"timestep_spacing": spacing, "prediction_type": prediction, "set_alpha_to_one": true});
                for class in CLASSES.iter().filter(|class| class.has("beta_start")) {
                    // PNDM steps by a fixed stride, which only this spacing has, and mixes outputs of several times,
                    // which agree only as noise.
                    if class.name == "PNDMScheduler" && (spacing, prediction) != ("leading", "epsilon") {
                        continue;
                    }
                    configs.push((class.name, with(more.clone())));
                }
            }
        }
        configs.push(("DPMSolverMultistepScheduler", with(json!({"use_karras_sigmas": true, "solver_order": 3}))));
        configs.push(("DPMSolverMultistepScheduler", with(json!({"algorithm_type": "sde-dpmsolver++"}))));
        configs.push(("EulerDiscreteScheduler", with(json!({"use_karras_sigmas": true}))));
        configs.push(("UniPCMultistepScheduler", with(json!({"solver_order": 3, "lower_order_final": false}))));
        configs.push(("UniPCMultistepScheduler", with(json!({"solver_type": "bh1", "use_karras_sigmas": true}))));
        configs.push(("DPMSolverSinglestepScheduler", with(json!({"solver_order": 3, "solver_type": "heun"}))));
        configs.push(("DEISMultistepScheduler", with(json!({"solver_order": 3}))));
        configs.push(("FlowMatchEulerDiscreteScheduler", json!({"shift": 3.0})));
        configs.push(("FlowMatchHeunDiscreteScheduler", json!({"shift": 1.5})));
        configs
    }

    /// A model that always knows `x_0` and says it in the way it was trained to: from any noise, without any fresh
    /// noise, every solver ends at `x_0` (a final training step that is not quite clean aside).
    #[test]
    fn a_perfect_predictor_lands_on_x_0() {
        for (class, config) in configs() {
            // Of these the last step is short of x_0, or without the noise that it counts on.
            let near = [
                "DDPMScheduler",
                "LCMScheduler",
                "TCDScheduler",
                "EulerAncestralDiscreteScheduler",
                "DEISMultistepScheduler",
            ];
            for steps in [2, 5, 20] {
                let schedule = scheduler(class, &config).schedule(&Run::new(steps)).unwrap();
                let (noise, x_0) = (1.3, -0.4);
                let first = schedule.steps[0].noised;
                let mut x = first.x_0 * x_0 + first.noise * noise;
                // x_t, the same corrected, and the output.
                let mut history: Vec<[f64; 3]> = Vec::new();
                for step in &schedule.steps {
                    let output = (x_0 - step.x_0.x * x) / step.x_0.output;
                    history.insert(0, [x, x, output]);
                    let sum = |history: &[[f64; 3]], terms: &[(Term, f64)]| -> f64 {
                        let value = |term| match term {
                            Term::X(back) => history[back][0],
                            Term::Corrected(back) => history[back][1],
                            Term::Output(back) => history[back][2],
                            Term::X0(_) => x_0,
                            Term::Noise => 0.0,
                        };
                        terms.iter().map(|(term, weight)| weight * value(*term)).sum()
                    };
                    if !step.corrected.is_empty() {
                        history[0][1] = sum(&history, &step.corrected);
                    }
                    x = sum(&history, &step.next);
                }
                let slack = if near.contains(&class) { 0.06 } else { 1e-6 };
                assert!((x - x_0).abs() < slack, "{class} in {steps} steps: {x}");
            }
        }
    }

    #[test]
    fn timesteps_never_rise_and_noise_never_grows() {
        for (class, config) in configs() {
            for steps in [1, 3, 8, 30] {
                let schedule = scheduler(class, &config).schedule(&Run::new(steps)).unwrap();
                // On the way to further down this one looks below the next step.
                let falls = class != "KDPM2AncestralDiscreteScheduler";
                for pair in schedule.steps.windows(2) {
                    assert!(!falls || pair[0].timestep >= pair[1].timestep, "{class} {steps}");
                    assert!(pair[0].noised.noise >= pair[1].noised.noise - 1e-12, "{class} {steps}");
                }
            }
        }
    }

    #[test]
    fn the_schedulers_that_a_refusal_names_are_those_that_have_it() {
        for class in &CLASSES {
            let scheduler = scheduler(class.name, &json!({}));
            for extra in [Extra::Eta, Extra::Churn, Extra::Strength] {
                let named = extra.names().1.split(" or ").any(|name| name == class.short[0]);
                assert_eq!(scheduler.has(extra), named, "{} {extra:?}", class.name);
            }
        }
    }

    /// Of every class its signature in diffusers, all of which is read or known not to act.
    #[test]
    fn the_keys_of_a_class_are_the_references() {
        let fixture = include_str!("../../../tests/fixtures/schedule/keys.json");
        let fixture: serde_json::Map<String, Value> = serde_json::from_str(fixture).unwrap();
        assert_eq!(fixture.len(), CLASSES.len());
        for class in &CLASSES {
            let defaults = fixture[class.name].as_object().unwrap();
            let ours: BTreeSet<&str> = class.keys.iter().flat_map(|keys| keys.iter().copied()).collect();
            assert_eq!(ours, defaults.keys().map(String::as_str).collect(), "{}", class.name);
            let notes = Notes::default();
            let mut file = fixture[class.name].clone();
            from_config(class.name, &file, &HOST, &notes).unwrap();
            assert_eq!(notes.list(), [""; 0], "{}", class.name);
            file["surprise"] = json!(1);
            from_config(class.name, &file, &HOST, &notes).unwrap();
            let expected = format!("scheduler/scheduler_config.json: {} has no `surprise`; passed over", class.name);
            assert_eq!(notes.list(), [expected]);
        }
    }

    #[test]
    fn a_scheduler_of_another_kind_is_refused_in_words() {
        let refused =
            |own: &str, name: &str, file: Value| instead(own, name, &file, &HOST).err().map(|error| error.message);
        let message = refused("PNDMScheduler", "flow-euler", json!({})).unwrap();
        assert!(message.contains("not trained") && message.contains("euler-a"), "{message}");
        assert!(refused("PNDMScheduler", "huen", json!({})).unwrap().contains("\"huen\""));
        assert_eq!(refused("NobodysScheduler", "dpm++", json!({})), None);
        assert_eq!(refused("NobodysScheduler", "dpm2-a", json!({})), None);
        assert!(refused("FlowMatchLCMScheduler", "unipc", json!({})).unwrap().contains("flow-euler, flow-heun"));
        assert!(refused("EDMEulerScheduler", "euler", json!({})).unwrap().contains("none"));
        let flow = json!({"use_flow_sigmas": true, "prediction_type": "flow_prediction"});
        assert!(refused("UniPCMultistepScheduler", "euler", flow.clone()).unwrap().contains("dpm++"));
        assert_eq!(refused("UniPCMultistepScheduler", "dpm++", flow), None);
    }

    #[test]
    fn an_unknown_class_names_the_way_out() {
        let message = |class: &str| from_config(class, &json!({}), &HOST, &Notes::default()).err().unwrap().message;
        let discrete = message("CogVideoXDDIMScheduler");
        assert!(discrete.contains("CogVideoXDDIMScheduler") && discrete.contains("--scheduler"), "{discrete}");
        assert!(discrete.contains("dpm++, ") && !discrete.contains("flow-euler"), "{discrete}");
        assert!(message("FlowMatchLCMScheduler").ends_with("flow-euler, flow-heun"));
        // Only its class name is a class.
        assert!(message("dpm++").contains("does not know"));
    }
}
