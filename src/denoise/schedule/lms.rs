//! Linear multi-step in sigma (diffusers `LMSDiscreteScheduler`; k-diffusion's `sample_lms`).

use super::{
    Noised, Run, Schedule, Scheduler, Step, Term,
    training::{CURVES, Curve, Defaults, SPACED, TRAINED, Training},
};
use crate::{Result, weights::Config};

/// The keys of the class in diffusers.
pub const KEYS: &[&[&str]] = &[TRAINED, SPACED, CURVES];

/// Slopes that a step looks back on, its own among them.
const ORDER: usize = 4;

/// The numbers of its config that change the arithmetic.
pub struct Lms {
    training: Training,
    curve: Curve,
}

impl Lms {
    /// # Errors
    /// `BadModel` for an option that this version cannot honour.
    pub fn read(config: &Config) -> Result<Self> {
        Ok(Self { training: Training::read(config, &Defaults::LINSPACE)?, curve: Curve::read(config)? })
    }
}

/// The integral over a step of the polynomial that is 1 at `sigmas[i - back]` and 0 at the other `order` latest.
fn coefficient(sigmas: &[f64], i: usize, order: usize, back: usize) -> f64 {
    let value = |at: f64| -> f64 {
        let others = (0..order).filter(|other| *other != back).map(|other| sigmas[i - other]);
        others.map(|other| (at - other) / (sigmas[i - back] - other)).product()
    };
    // Simpson's rule is exact up to the third power.
    let (first, last) = (sigmas[i], sigmas[i + 1]);
    (last - first) / 6.0 * (value(first) + 4.0 * value(0.5 * (first + last)) + value(last))
}

impl Scheduler for Lms {
    fn lay_out(&self, &Run { steps, begin, .. }: &Run) -> Result<Schedule> {
        let training = &self.training;
        training.check(steps)?;
        let (timesteps, mut sigmas) = training.discrete(self.curve, steps);
        sigmas.push(0.0);
        let step = |i: usize| {
            // A run that begins later is weighed by the reference as if the slopes before were there.
            let order = ORDER.min(i + 1);
            let mut next = vec![(Term::X(0), 1.0)];
            for back in 0..order.min(i + 1 - begin) {
                let weight = coefficient(&sigmas, i, order, back) / sigmas[i - back];
                next.extend([(Term::X(back), weight), (Term::X0(back), -weight)]);
            }
            Step {
                timestep: timesteps[i] as f32,
                input_scale: 1.0 / (sigmas[i] * sigmas[i] + 1.0).sqrt(),
                x_0: training.x_0_of_sigma(sigmas[i]),
                clip: None,
                noised: Noised { x_0: 1.0, noise: sigmas[i] },
                corrected: Vec::new(),
                next,
            }
        };
        Ok(Schedule {
            steps: (begin..steps).map(step).collect(),
            init_noise_sigma: training.init_noise_sigma(sigmas[0]),
        })
    }
}
