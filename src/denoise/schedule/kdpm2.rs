//! The midpoint method in sigma, on logarithms, and its form that goes further down and adds the difference as fresh noise
//! (diffusers `KDPM2DiscreteScheduler` and `KDPM2AncestralDiscreteScheduler`; k-diffusion's `sample_dpm_2` and
//! `sample_dpm_2_ancestral`, after algorithm 2 of Karras et al., arXiv 2206.00364).

use super::{
    Noised, Run, Schedule, Scheduler, Step, Term,
    training::{CURVES, Curve, Defaults, Prediction, SPACED, TRAINED, Training, sigma_to_timestep},
};
use crate::{Result, weights::Config};

/// The keys of the classes in diffusers.
pub const KEYS: &[&[&str]] = &[TRAINED, SPACED, CURVES];

/// The numbers of its config that change the arithmetic.
pub struct KDpm2 {
    training: Training,
    curve: Curve,
    ancestral: bool,
}

impl KDpm2 {
    /// # Errors
    /// `BadModel` for an option that this version cannot honour.
    pub fn read(config: &Config, ancestral: bool) -> Result<Self> {
        let training = Training::read(config, &Defaults::SECOND_ORDER)?;
        if training.prediction == Prediction::Sample {
            return Err(config.wrong("prediction_type", "this scheduler knows epsilon and v_prediction"));
        }
        Ok(Self { training, curve: Curve::read(config)?, ancestral })
    }
}

impl Scheduler for KDpm2 {
    /// `begin` counts calls of the model, two for each step.
    fn lay_out(&self, &Run { steps, begin, .. }: &Run) -> Result<Schedule> {
        let training = &self.training;
        training.check(steps)?;
        let trained = training.sigmas();
        let (mut timesteps, mut sigmas) = training.discrete(self.curve, steps);
        if self.curve == Curve::Karras {
            timesteps.iter_mut().for_each(|t| *t = t.round_ties_even());
        }
        sigmas.push(0.0);
        // The model looks at `at`; where the run would take a picture up, the reference says `noised`.
        let call = |timestep: f64, at: f64, noised: f64, next: Vec<(Term, f64)>| Step {
            timestep: timestep as f32,
            input_scale: 1.0 / (at * at + 1.0).sqrt(),
            x_0: training.x_0_of_sigma(at),
            clip: None,
            noised: Noised { x_0: 1.0, noise: noised },
            corrected: Vec::new(),
            next,
        };
        let mut calls = Vec::new();
        for i in 0..steps {
            let (sigma, next) = (sigmas[i], sigmas[i + 1]);
            let up = if self.ancestral { next * (1.0 - (next / sigma).powi(2)).max(0.0).sqrt() } else { 0.0 };
            let down = (next * next - up * up).max(0.0).sqrt();
            let middle = (sigma * down).sqrt();
            // The slope is (x_t - x_0) / sigma.
            let along = (middle - sigma) / sigma;
            calls.push(call(timesteps[i], sigma, sigma, vec![(Term::X(0), 1.0 + along), (Term::X0(0), -along)]));
            if next > 0.0 {
                let along = (down - sigma) / middle;
                let terms = vec![(Term::X(1), 1.0), (Term::X(0), along), (Term::X0(0), -along), (Term::Noise, up)];
                calls.push(call(sigma_to_timestep(middle, &trained), middle, next, terms));
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
