//! What a schedule is, whatever lays it out: a run as numbers, what can be asked of it, and who answers.

use crate::{Error, Result};

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
    /// The same after [`Step::corrected`].
    Corrected(usize),
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
            Self::X(back) | Self::Corrected(back) | Self::Output(back) | Self::X0(back) => back,
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
    /// What [`Term::Corrected`] stands for once the model has been called, as a weighted sum; empty where it is `x_t`.
    pub corrected: Vec<(Term, f64)>,
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
        let terms = self.steps.iter().flat_map(|step| step.corrected.iter().chain(&step.next));
        terms.map(|(term, _)| term.back()).max().unwrap_or(0)
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
    pub(super) fn names(self) -> (&'static str, &'static str) {
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
    pub(super) fn raise(self, sigma: f64, calls: usize) -> (f64, f64) {
        if !(self.tmin..=self.tmax).contains(&sigma) {
            return (sigma, 0.0);
        }
        let gamma = (self.amount / calls as f64).min(std::f64::consts::SQRT_2 - 1.0);
        let raised = sigma * (gamma + 1.0);
        (raised, self.noise * (raised * raised - sigma * sigma).sqrt())
    }
}

impl std::str::FromStr for Churn {
    type Err = std::num::ParseFloatError;

    /// The amount.
    fn from_str(text: &str) -> std::result::Result<Self, Self::Err> {
        text.parse().map(Self::new)
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
    /// Whole timesteps, of which the network is told the one before, whatever they are shifted to; further for larger pictures by
    /// the root of how many patches they have (diffusers' `GlmImagePipeline`).
    Glm,
}
