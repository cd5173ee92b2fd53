//! Trajectory consistency steps (diffusers `TCDScheduler`; Zheng et al., arXiv 2402.19159).

use super::{
    Extra, Run, Schedule, Scheduler, Step, Term,
    lcm::{read_original_steps, timesteps},
    training::{Defaults, Training, noised},
};
use crate::{Result, weights::Config};

/// The share of fresh noise where nothing is said: the default of the class, and the paper's gamma.
const ETA: f64 = 0.3;

/// The numbers of its config that change the arithmetic.
pub struct Tcd {
    training: Training,
    original_steps: usize,
}

impl Tcd {
    /// # Errors
    /// `BadModel` for an option that this version cannot honour.
    pub fn read(config: &Config) -> Result<Self> {
        // The reference reads these but never acts on them.
        config.ignore(&["timestep_spacing", "steps_offset", "set_alpha_to_one", "timestep_scaling"]);
        config.ignore(&["clip_sample", "clip_sample_range"]);
        let training = Training::read(config, &Defaults::CONSISTENCY)?;
        Ok(Self { original_steps: read_original_steps(config, &training)?, training })
    }
}

impl Scheduler for Tcd {
    fn lay_out(&self, &Run { steps, begin, strength, eta, .. }: &Run) -> Result<Schedule> {
        let training = &self.training;
        let timesteps = timesteps(training, self.original_steps, strength, steps)?;
        let eta = eta.unwrap_or(ETA);
        let step = |i: usize| {
            let alpha = training.alpha(timesteps[i], 1.0);
            let next = timesteps.get(i + 1).copied();
            // Down to `s` along the predicted noise, then up to the next step with fresh noise.
            let alpha_s = training.alpha(((1.0 - eta) * next.unwrap_or(0.0)).floor(), 1.0);
            let up = next.map_or(noised(1.0), |next| noised(training.alpha(next, 1.0) / alpha_s));
            let (signal, toward) = (up.x_0 * alpha_s.sqrt(), up.x_0 * (1.0 - alpha_s).sqrt());
            let epsilon = training.epsilon(alpha);
            Step {
                timestep: timesteps[i] as f32,
                input_scale: 1.0,
                x_0: training.x_0(alpha),
                clip: None,
                noised: noised(alpha),
                corrected: Vec::new(),
                next: vec![
                    (Term::X0(0), signal),
                    (Term::X(0), toward * epsilon.x),
                    (Term::Output(0), toward * epsilon.output),
                    (Term::Noise, up.noise),
                ],
            }
        };
        Ok(Schedule { steps: (begin..steps).map(step).collect(), init_noise_sigma: 1.0 })
    }

    fn has(&self, extra: Extra) -> bool {
        matches!(extra, Extra::Eta | Extra::Strength)
    }
}
