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
mod lcm;
mod pndm;
mod tcd;
mod training;

use crate::{Error, Result, weights::Config};

/// `x` times `x_t` plus `output` times the model's output.
#[derive(Clone, Copy, Debug, PartialEq)]
pub struct Mix {
    pub x: f64,
    pub output: f64,
}

/// `x_0` times a clean latent plus `noise` times unit noise: how noisy latents come about.
#[derive(Clone, Copy, Debug, PartialEq)]
pub struct Noised {
    pub x_0: f64,
    pub noise: f64,
}

/// What a weight of [`Step::next`] multiplies; the number says how many steps back, 0 being this one.
#[derive(Clone, Copy, Debug, PartialEq)]
pub enum Term {
    /// The latent that the step began with.
    X(usize),
    /// What the model gave.
    Output(usize),
    /// The predicted clean latent, clipped where the step clips.
    X0(usize),
    /// Fresh unit noise.
    Noise,
}

impl Term {
    /// How many steps back it looks.
    pub fn back(self) -> usize {
        match self {
            Self::X(back) | Self::Output(back) | Self::X0(back) => back,
            Self::Noise => 0,
        }
    }
}

/// One call of the model and what follows from it.
#[derive(Clone, Debug, PartialEq)]
pub struct Step {
    /// What the model is told: a training step, or sigma times 1000.
    pub timestep: f32,
    /// The factor on `x_t` before the model sees it.
    pub input_scale: f64,
    /// The predicted `x_0`.
    pub x_0: Mix,
    /// The magnitude that the predicted `x_0` is clipped to.
    pub clip: Option<f64>,
    /// How an `x_t` at the beginning of this step is made from a clean latent.
    pub noised: Noised,
    /// The next `x_t`, as a weighted sum.
    pub next: Vec<(Term, f64)>,
}

/// The steps of one run.
#[derive(Clone, Debug, PartialEq)]
pub struct Schedule {
    pub steps: Vec<Step>,
    /// The factor on unit noise that gives the `x_t` of a whole run's first step.
    pub init_noise_sigma: f64,
}

impl Schedule {
    /// How many steps back any step looks.
    pub fn reach(&self) -> usize {
        self.steps.iter().flat_map(|step| &step.next).map(|(term, _)| term.back()).max().unwrap_or(0)
    }
}

/// What one run asks of a scheduler.
#[derive(Clone, Debug, PartialEq)]
pub struct Run {
    pub steps: usize,
    /// How many calls of the model are left out at the beginning, as picture to picture does.
    pub begin: usize,
    /// The share of the steps of distillation, from the cleanest on, that the run is spread over: how consistency models
    /// go from picture to picture.
    pub strength: f64,
    /// How many patches of the latent the network sees; a shift that follows the picture's size goes by it.
    pub patches: usize,
    /// The share of fresh noise in each step, 0 to 1; `None` is the scheduler's own.
    pub eta: Option<f64>,
    pub churn: Option<Churn>,
}

impl Run {
    /// A whole run of `steps` steps that asks for nothing else.
    pub fn new(steps: usize) -> Self {
        Self { steps, begin: 0, strength: 1.0, patches: 0, eta: None, churn: None }
    }

    /// # Errors
    /// `BadInput` for what is out of range or what `scheduler` does not have.
    fn check(&self, scheduler: &(impl Scheduler + ?Sized)) -> Result<()> {
        let asked = [
            (Extra::Eta, self.eta.is_some()),
            (Extra::Churn, self.churn.is_some()),
            (Extra::Strength, self.strength != 1.0),
        ];
        if let Some((extra, _)) = asked.into_iter().find(|(extra, asked)| *asked && !scheduler.has(*extra)) {
            let (name, with) = extra.names();
            return Err(Error::bad_input(format!(
                "this scheduler has no {name}; leave it out, or take the scheduler {with}"
            )));
        }
        if let Some(eta) = self.eta.filter(|eta| !(0.0..=1.0).contains(eta)) {
            return Err(Error::bad_input(format!("the eta {eta} is out of range; give a number from 0 to 1")));
        }
        if let Some(Churn { amount, noise, .. }) = self.churn
            && !(amount >= 0.0 && amount.is_finite() && noise.is_finite())
        {
            return Err(Error::bad_input(format!(
                "the churn {amount} with noise {noise} is out of range; give a number from 0 on, 1 for the noise"
            )));
        }
        Ok(())
    }
}

/// What only some schedulers can be asked for.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum Extra {
    Eta,
    Churn,
    Strength,
}

impl Extra {
    /// What people call it, and the schedulers that have it.
    fn names(self) -> (&'static str, &'static str) {
        match self {
            Self::Eta => ("eta", "ddim or tcd"),
            Self::Churn => ("churn", "euler or flow-heun"),
            Self::Strength => ("strength of its own", "lcm or tcd"),
        }
    }
}

/// Noise that is added before a step, which then goes down from where that leads (Karras et al., arXiv 2206.00364,
/// algorithm 2); in diffusers the names start with `s_`.
#[derive(Clone, Copy, Debug, PartialEq)]
pub struct Churn {
    /// Spread over the run's steps, of which none takes more than brings sigma to its square root of two.
    pub amount: f64,
    /// The factor on the noise.
    pub noise: f64,
    /// Steps from smaller sigmas are left alone.
    pub tmin: f64,
    /// Steps from larger sigmas are left alone.
    pub tmax: f64,
}

impl Churn {
    /// So much, at all sigmas.
    pub fn new(amount: f64) -> Self {
        Self { amount, noise: 1.0, tmin: 0.0, tmax: f64::INFINITY }
    }

    /// The sigma that a step from `sigma`, one of `calls`, goes down from, and the weight of the noise that leads there.
    fn raise(self, sigma: f64, calls: usize) -> (f64, f64) {
        if !(self.tmin..=self.tmax).contains(&sigma) {
            return (sigma, 0.0);
        }
        let gamma = (self.amount / calls as f64).min(std::f64::consts::SQRT_2 - 1.0);
        let raised = sigma * (gamma + 1.0);
        (raised, self.noise * (raised * raised - sigma * sigma).sqrt())
    }
}

/// A scheduler as its config describes it, ready to lay out runs.
pub trait Scheduler {
    /// The steps of `run`, whose options are in range.
    ///
    /// # Errors
    /// `BadInput` where so many steps cannot be taken.
    fn lay_out(&self, run: &Run) -> Result<Schedule>;

    /// The steps of `run`.
    ///
    /// # Errors
    /// `BadInput` for options that are out of range or that this scheduler does not have, and for more steps than can
    /// be taken.
    fn schedule(&self, run: &Run) -> Result<Schedule> {
        run.check(self)?;
        self.lay_out(run)
    }

    /// Calls of the model for each step.
    fn order(&self) -> usize {
        1
    }

    /// Whether a run can ask for `extra`.
    fn has(&self, _extra: Extra) -> bool {
        false
    }
}

/// Where the sigmas of flow matching lie before they are shifted.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum Grid {
    /// Evenly between the largest and the smallest of training, as diffusers does when told only a number of steps.
    Trained,
    /// `linspace(1, 1 / N, N)`, as diffusers' `FluxPipeline` asks for.
    Flux,
}

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
