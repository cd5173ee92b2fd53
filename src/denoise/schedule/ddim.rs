//! Steps along predicted noise, of which `eta` is drawn afresh: 0 for none (diffusers `DDIMScheduler`; Song et al., arXiv
//! 2010.02502).

use super::{
    Extra, Run, Schedule, Scheduler, Step, Term,
    training::{CLIP, Defaults, SPACED, THRESHOLDING, TRAINED, Training, noised},
};
use crate::{Result, weights::Config};

/// The keys of the class in diffusers.
pub const KEYS: &[&[&str]] = &[TRAINED, SPACED, THRESHOLDING, CLIP, &["set_alpha_to_one", "rescale_betas_zero_snr"]];

/// The numbers of its config that change the arithmetic.
pub struct Ddim {
    training: Training,
    final_alpha: f64,
    clip: Option<f64>,
}

impl Ddim {
    /// # Errors
    /// `BadModel` for an option that this version cannot honour.
    pub fn read(config: &Config) -> Result<Self> {
        let training = Training::read(config, &Defaults::LEADING)?;
        Ok(Self { final_alpha: training.final_alpha(config, true)?, clip: Training::clip(config, true)?, training })
    }
}

impl Scheduler for Ddim {
    fn lay_out(&self, &Run { steps, begin, eta, .. }: &Run) -> Result<Schedule> {
        let training = &self.training;
        training.check(steps)?;
        let stride = (training.count() / steps) as f64;
        let step = |t: f64| {
            let t = t.round_ties_even();
            let (alpha, alpha_next) = (training.alpha(t, 1.0), training.alpha(t - stride, self.final_alpha));
            let epsilon = training.epsilon(alpha);
            // Formula 16: with an eta of 1 the noise of DDPM's step.
            let variance = (1.0 - alpha_next) / (1.0 - alpha) * (1.0 - alpha / alpha_next);
            let noise = eta.unwrap_or(0.0) * variance.sqrt();
            let toward = (1.0 - alpha_next - noise * noise).max(0.0).sqrt();
            Step {
                timestep: t as f32,
                input_scale: 1.0,
                x_0: training.x_0(alpha),
                clip: self.clip,
                noised: noised(alpha),
                corrected: Vec::new(),
                next: vec![
                    (Term::X0(0), alpha_next.sqrt()),
                    (Term::X(0), toward * epsilon.x),
                    (Term::Output(0), toward * epsilon.output),
                    (Term::Noise, noise),
                ],
            }
        };
        let timesteps = training.timesteps(steps);
        Ok(Schedule { steps: timesteps.into_iter().skip(begin).map(step).collect(), init_noise_sigma: 1.0 })
    }

    fn has(&self, extra: Extra) -> bool {
        extra == Extra::Eta
    }
}
