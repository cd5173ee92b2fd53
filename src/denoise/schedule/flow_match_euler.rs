//! Flow matching by Euler steps (diffusers `FlowMatchEulerDiscreteScheduler`; Esser et al., arXiv 2403.03206).
//!
//! `x_t = (1 - sigma) x_0 + sigma noise`; the model predicts the velocity `noise - x_0`.

use super::{
    Grid, Mix, Noised, Run, Schedule, Scheduler, Step, Term,
    training::{CURVES, Curve, linspace, shifted},
};
use crate::{Error, Result, weights::Config};

/// The keys of the class in diffusers.
pub const KEYS: &[&[&str]] = &[
    CURVES,
    &["num_train_timesteps", "shift", "use_dynamic_shifting", "base_shift", "max_shift", "base_image_seq_len"],
    &["max_image_seq_len", "invert_sigmas", "shift_terminal", "time_shift_type", "stochastic_sampling"],
];

/// The numbers of its config that change the arithmetic.
pub struct FlowMatchEuler {
    num_train_timesteps: usize,
    shift: Shift,
    shift_terminal: Option<f64>,
    curve: Curve,
    stochastic: bool,
    grid: Grid,
}

/// How far sigmas are shifted towards noise.
enum Shift {
    Fixed(f64),
    /// Further for larger pictures: in proportion to how many patches they have, through two given points.
    Dynamic {
        per_patch: f64,
        at_none: f64,
        exponential: bool,
    },
    /// The same in proportion to the root of how many patches they have.
    Root {
        per_root: f64,
        at_none: f64,
        exponential: bool,
    },
}

impl Shift {
    fn read(config: &Config, grid: Grid) -> Result<Self> {
        if !config.bool("use_dynamic_shifting", false)? {
            // These act only with it.
            config.ignore(&["base_shift", "max_shift", "base_image_seq_len", "max_image_seq_len", "time_shift_type"]);
            let shift = config.f64("shift", 1.0)?;
            return if shift > 0.0 { Ok(Self::Fixed(shift)) } else { Err(config.wrong("shift", "it must be above 0")) };
        }
        config.ignore(&["shift"]);
        let base = config.count("base_image_seq_len", 256)? as f64;
        let exponential = match config.str("time_shift_type", "exponential")? {
            "exponential" => true,
            "linear" => false,
            _ => return Err(config.wrong("time_shift_type", "this version knows exponential and linear")),
        };
        if grid == Grid::Glm {
            config.ignore(&["max_image_seq_len"]);
            let [at_none, most] = [config.f64("base_shift", 0.25)?, config.f64("max_shift", 0.75)?];
            return Ok(Self::Root { per_root: most / base.sqrt(), at_none, exponential });
        }
        let patches = config.usize("max_image_seq_len", 4096)? as f64 - base;
        if patches <= 0.0 {
            return Err(config.wrong("max_image_seq_len", "it must be more than `base_image_seq_len`"));
        }
        let base_shift = config.f64("base_shift", 0.5)?;
        let per_patch = (config.f64("max_shift", 1.15)? - base_shift) / patches;
        Ok(Self::Dynamic { per_patch, at_none: base_shift - per_patch * base, exponential })
    }

    /// # Errors
    /// `BadInput` for a picture so small or large that its sigmas would not lie between 0 and 1.
    fn at(&self, patches: usize) -> Result<f64> {
        let patches = patches as f64;
        let (mu, exponential) = match *self {
            Self::Fixed(shift) => (shift, false),
            Self::Dynamic { per_patch, at_none, exponential } => (per_patch * patches + at_none, exponential),
            Self::Root { per_root, at_none, exponential } => (per_root * patches.sqrt() + at_none, exponential),
        };
        let shift = if exponential { mu.exp() } else { mu };
        if !(shift > 0.0 && shift.is_finite()) {
            return Err(Error::bad_input(format!(
                "this model's scheduler has no shift for a picture of {patches} patches ({shift}); give another size"
            )));
        }
        Ok(shift)
    }
}

impl FlowMatchEuler {
    /// # Errors
    /// `BadModel` for an option that this version cannot honour.
    pub fn read(config: &Config, grid: Grid) -> Result<Self> {
        config.only("invert_sigmas", false)?;
        let this = Self {
            num_train_timesteps: config.count("num_train_timesteps", 1000)?,
            shift: Shift::read(config, grid)?,
            shift_terminal: config.opt_f64("shift_terminal")?.filter(|terminal| *terminal != 0.0),
            curve: Curve::read(config)?,
            stochastic: config.bool("stochastic_sampling", false)?,
            grid,
        };
        if this.shift_terminal.is_some_and(|terminal| !(0.0..1.0).contains(&terminal)) {
            return Err(config.wrong("shift_terminal", "it must lie between 0 and 1"));
        }
        Ok(this)
    }

    /// `steps + 1` sigmas, the last 0.
    fn sigmas(&self, steps: usize, patches: usize) -> Result<Vec<f64>> {
        let shift = self.shift.at(patches)?;
        let trained = 1.0 / self.num_train_timesteps as f64;
        let smallest = match (self.grid, &self.shift) {
            // The reference shifts the ends of training, and then everything between them again.
            (Grid::Trained, Shift::Fixed(_)) => shifted(trained, shift),
            (Grid::Trained, _) => trained,
            (Grid::Flux, _) => 1.0 / steps as f64,
            (Grid::Glm, _) => 0.0,
        };
        let unshifted = match self.grid {
            Grid::Glm => self.whole_timesteps(steps).map(|timestep| timestep * trained).collect(),
            _ => linspace(1.0, smallest, steps),
        };
        let mut sigmas: Vec<f64> = unshifted.into_iter().map(|sigma| shifted(sigma, shift)).collect();
        // One step has nothing between its ends to stretch, and diffusers would divide by zero.
        if let (Some(terminal), true) = (self.shift_terminal, steps > 1) {
            let stretch = (1.0 - sigmas[steps - 1]) / (1.0 - terminal);
            sigmas.iter_mut().for_each(|sigma| *sigma = 1.0 - (1.0 - *sigma) / stretch);
        }
        if let Some(curved) = self.curve.between(sigmas[0], sigmas[steps - 1], steps) {
            sigmas = curved;
        }
        sigmas.push(0.0);
        Ok(sigmas)
    }

    /// `linspace(T, 1, steps + 1)` without the last, cut to whole numbers.
    fn whole_timesteps(&self, steps: usize) -> impl Iterator<Item = f64> {
        linspace(self.num_train_timesteps as f64, 1.0, steps + 1).into_iter().take(steps).map(f64::trunc)
    }
}

/// A call of the model at `sigma`, and what follows.
pub(super) fn step(sigma: f64, num_train_timesteps: usize, next: Vec<(Term, f64)>) -> Step {
    Step {
        timestep: sigma as f32 * num_train_timesteps as f32,
        input_scale: 1.0,
        x_0: Mix { x: 1.0, output: -sigma },
        clip: None,
        noised: Noised { x_0: 1.0 - sigma, noise: sigma },
        corrected: Vec::new(),
        next,
    }
}

impl Scheduler for FlowMatchEuler {
    fn lay_out(&self, &Run { steps, begin, patches, .. }: &Run) -> Result<Schedule> {
        let sigmas = self.sigmas(steps, patches)?;
        let step = |pair: &[f64]| {
            let (sigma, next) = (pair[0], pair[1]);
            let terms = match self.stochastic {
                true => vec![(Term::X0(0), 1.0 - next), (Term::Noise, next)],
                false => vec![(Term::X(0), 1.0), (Term::Output(0), next - sigma)],
            };
            step(sigma, self.num_train_timesteps, terms)
        };
        let mut all: Vec<Step> = sigmas.windows(2).map(step).collect();
        if self.grid == Grid::Glm {
            let told = self.whole_timesteps(steps).map(|timestep| timestep as f32 - 1.0);
            all.iter_mut().zip(told).for_each(|(step, told)| step.timestep = told);
        }
        Ok(Schedule { steps: all.split_off(begin), init_noise_sigma: 1.0 })
    }
}
