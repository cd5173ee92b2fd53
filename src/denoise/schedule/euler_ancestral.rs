//! Euler steps in sigma that go further down and add the difference as fresh noise
//! (diffusers `EulerAncestralDiscreteScheduler`; k-diffusion's `sample_euler_ancestral`).

use super::{
    Noised, Run, Schedule, Scheduler, Step, Term,
    training::{Curve, Defaults, Prediction, SPACED, TRAINED, Training},
};
use crate::{Result, weights::Config};

/// The keys of the class in diffusers.
pub const KEYS: &[&[&str]] = &[TRAINED, SPACED, &["rescale_betas_zero_snr"]];

/// The numbers of its config that change the arithmetic.
pub struct EulerAncestral {
    training: Training,
}

impl EulerAncestral {
    /// # Errors
    /// `BadModel` for an option that this version cannot honour.
    pub fn read(config: &Config) -> Result<Self> {
        let training = Training::read(config, &Defaults::LINSPACE)?;
        if training.prediction == Prediction::Sample {
            return Err(config.wrong("prediction_type", "this scheduler knows epsilon and v_prediction"));
        }
        Ok(Self { training })
    }
}

impl Scheduler for EulerAncestral {
    fn lay_out(&self, &Run { steps, begin, .. }: &Run) -> Result<Schedule> {
        let training = &self.training;
        training.check(steps)?;
        let (timesteps, mut sigmas) = training.discrete(Curve::Plain, steps);
        sigmas.push(0.0);
        let step = |i: usize| {
            let (sigma, next) = (sigmas[i], sigmas[i + 1]);
            let up = next * (1.0 - (next / sigma).powi(2)).sqrt();
            let down = (next * next - up * up).max(0.0).sqrt();
            Step {
                timestep: timesteps[i] as f32,
                input_scale: 1.0 / (sigma * sigma + 1.0).sqrt(),
                x_0: training.x_0_of_sigma(sigma),
                clip: None,
                noised: Noised { x_0: 1.0, noise: sigma },
                corrected: Vec::new(),
                next: vec![(Term::X(0), down / sigma), (Term::X0(0), 1.0 - down / sigma), (Term::Noise, up)],
            }
        };
        Ok(Schedule {
            steps: (begin..steps).map(step).collect(),
            init_noise_sigma: training.init_noise_sigma(sigmas[0]),
        })
    }
}
