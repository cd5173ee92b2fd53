//! Heun's method in sigma: a step ahead, then again with the mean of both slopes (diffusers `HeunDiscreteScheduler`; Karras
//! et al., arXiv 2206.00364, algorithm 2 without its noise).

use super::{
    Noised, Run, Schedule, Scheduler, Step, Term,
    training::{CLIP, CURVES, Curve, Defaults, SPACED, TRAINED, Training},
};
use crate::{Result, weights::Config};

/// The keys of the class in diffusers.
pub const KEYS: &[&[&str]] = &[TRAINED, SPACED, CURVES, CLIP];

/// The numbers of its config that change the arithmetic.
pub struct Heun {
    training: Training,
    curve: Curve,
    clip: Option<f64>,
}

impl Heun {
    /// # Errors
    /// `BadModel` for an option that this version cannot honour.
    pub fn read(config: &Config) -> Result<Self> {
        Ok(Self {
            training: Training::read(config, &Defaults::SECOND_ORDER)?,
            curve: Curve::read(config)?,
            clip: Training::clip(config, false)?,
        })
    }
}

impl Scheduler for Heun {
    /// `begin` counts calls of the model, two for each step.
    fn lay_out(&self, &Run { steps, begin, .. }: &Run) -> Result<Schedule> {
        let training = &self.training;
        training.check(steps)?;
        let (timesteps, mut sigmas) = training.discrete(self.curve, steps);
        sigmas.push(0.0);
        let call = |i: usize, next: Vec<(Term, f64)>| Step {
            timestep: timesteps[i] as f32,
            input_scale: 1.0 / (sigmas[i] * sigmas[i] + 1.0).sqrt(),
            x_0: training.x_0_of_sigma(sigmas[i]),
            clip: self.clip,
            noised: Noised { x_0: 1.0, noise: sigmas[i] },
            corrected: Vec::new(),
            next,
        };
        let mut calls = Vec::new();
        for i in 0..steps {
            let (sigma, next) = (sigmas[i], sigmas[i + 1]);
            // The slope is (x_t - x_0) / sigma.
            let along = (next - sigma) / sigma;
            calls.push(call(i, vec![(Term::X(0), 1.0 + along), (Term::X0(0), -along)]));
            if next > 0.0 {
                let (first, second) = (0.5 * along, 0.5 * (next - sigma) / next);
                let terms = vec![
                    (Term::X(1), 1.0 + first),
                    (Term::X0(1), -first),
                    (Term::X(0), second),
                    (Term::X0(0), -second),
                ];
                calls.push(call(i + 1, terms));
            }
        }
        Ok(Schedule {
            steps: calls.split_off(begin.min(calls.len())),
            init_noise_sigma: training.init_noise_sigma(sigmas[0]),
        })
    }

    fn order(&self) -> usize {
        2
    }
}
