//! Ancestral sampling (diffusers `DDPMScheduler`; Ho et al., arXiv 2006.11239).

use super::{
    Run, Schedule, Scheduler, Step, Term,
    training::{CLIP, Defaults, SPACED, THRESHOLDING, TRAINED, Training, noised},
};
use crate::{Result, weights::Config};

/// The keys of the class in diffusers.
pub const KEYS: &[&[&str]] = &[TRAINED, SPACED, THRESHOLDING, CLIP, &["variance_type", "rescale_betas_zero_snr"]];

/// The numbers of its config that change the arithmetic.
pub struct Ddpm {
    training: Training,
    variance: Variance,
    clip: Option<f64>,
}

/// How much fresh noise a step adds.
enum Variance {
    Small,
    Large,
}

impl Ddpm {
    /// # Errors
    /// `BadModel` for an option that this version cannot honour.
    pub fn read(config: &Config) -> Result<Self> {
        Ok(Self {
            training: Training::read(config, &Defaults::LEADING)?,
            variance: match config.str("variance_type", "fixed_small")? {
                // They differ only in how the reference computes them.
                "fixed_small" | "fixed_small_log" => Variance::Small,
                "fixed_large" => Variance::Large,
                _ => {
                    let known = "this version knows fixed_small, fixed_small_log and fixed_large";
                    return Err(config.wrong("variance_type", known));
                }
            },
            clip: Training::clip(config, true)?,
        })
    }
}

impl Scheduler for Ddpm {
    fn lay_out(&self, &Run { steps, begin, .. }: &Run) -> Result<Schedule> {
        let training = &self.training;
        training.check(steps)?;
        let timesteps: Vec<f64> = training.timesteps(steps).into_iter().map(f64::round_ties_even).collect();
        let step = |i: usize| {
            let t = timesteps[i];
            let alpha = training.alpha(t, 1.0);
            let alpha_next = timesteps.get(i + 1).map_or(1.0, |next| training.alpha(*next, 1.0));
            let beta = 1.0 - alpha / alpha_next;
            let x_0 = alpha_next.sqrt() * beta / (1.0 - alpha);
            let x = (alpha / alpha_next).sqrt() * (1.0 - alpha_next) / (1.0 - alpha);
            let small = ((1.0 - alpha_next) / (1.0 - alpha) * beta).max(1e-20);
            let noise = match self.variance {
                _ if t <= 0.0 => 0.0,
                Variance::Small => small.sqrt(),
                Variance::Large => beta.sqrt(),
            };
            Step {
                timestep: t as f32,
                input_scale: 1.0,
                x_0: training.x_0(alpha),
                clip: self.clip,
                noised: noised(alpha),
                corrected: Vec::new(),
                next: vec![(Term::X0(0), x_0), (Term::X(0), x), (Term::Noise, noise)],
            }
        };
        Ok(Schedule { steps: (begin..steps).map(step).collect(), init_noise_sigma: 1.0 })
    }
}
