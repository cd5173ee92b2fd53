//! Consistency steps: to `x_0` and back with fresh noise (diffusers `LCMScheduler`; Luo et al., arXiv 2310.04378).

use super::{
    Extra, Run, Schedule, Scheduler, Step, Term,
    training::{CLIP, Defaults, SPACED, THRESHOLDING, TRAINED, Training, noised},
};
use crate::{Error, Result, weights::Config};

/// The keys of the class in diffusers.
pub const KEYS: &[&[&str]] = &[
    TRAINED,
    SPACED,
    THRESHOLDING,
    CLIP,
    &["original_inference_steps", "set_alpha_to_one", "timestep_scaling", "rescale_betas_zero_snr"],
];

/// The numbers of its config that change the arithmetic.
pub struct Lcm {
    training: Training,
    original_steps: usize,
    timestep_scaling: f64,
    clip: Option<f64>,
}

/// The steps of distillation that a config names, and those of a run among them.
///
/// # Errors
/// `BadModel` where there are more than training steps.
pub(super) fn read_original_steps(config: &Config, training: &Training) -> Result<usize> {
    let original_steps = config.count("original_inference_steps", 50)?;
    if original_steps > training.count() {
        return Err(config.wrong("original_inference_steps", &format!("there are {} training steps", training.count())));
    }
    Ok(original_steps)
}

/// `steps` of the steps of distillation, from the noisiest of the share `strength` on.
///
/// # Errors
/// `BadInput` where there are fewer.
pub(super) fn timesteps(training: &Training, original_steps: usize, strength: f64, steps: usize) -> Result<Vec<f64>> {
    let stride = training.count() / original_steps;
    let among = (original_steps as f64 * strength) as usize;
    if steps > among {
        let at = if strength == 1.0 { String::new() } else { format!(" at a strength of {strength}") };
        return Err(Error::bad_input(format!(
            "{steps} steps cannot be taken; this scheduler takes at most {among}{at}"
        )));
    }
    Ok((0..steps).map(|i| ((among - i * among / steps) * stride - 1) as f64).collect())
}

impl Lcm {
    /// # Errors
    /// `BadModel` for an option that this version cannot honour.
    pub fn read(config: &Config) -> Result<Self> {
        // The reference spaces its own way, and every step it takes lies above 0.
        config.ignore(&["timestep_spacing", "steps_offset", "set_alpha_to_one"]);
        let training = Training::read(config, &Defaults::CONSISTENCY)?;
        Ok(Self {
            original_steps: read_original_steps(config, &training)?,
            timestep_scaling: config.f64("timestep_scaling", 10.0)?,
            clip: Training::clip(config, false)?,
            training,
        })
    }
}

impl Scheduler for Lcm {
    fn lay_out(&self, &Run { steps, begin, strength, .. }: &Run) -> Result<Schedule> {
        const SIGMA_DATA: f64 = 0.5;
        let training = &self.training;
        let timesteps = timesteps(training, self.original_steps, strength, steps)?;
        let step = |i: usize| {
            let alpha = training.alpha(timesteps[i], 1.0);
            let scaled = timesteps[i] * self.timestep_scaling;
            let square = scaled * scaled + SIGMA_DATA * SIGMA_DATA;
            let (skip, out) = (SIGMA_DATA * SIGMA_DATA / square, scaled / square.sqrt());
            // Nothing is added after the last step.
            let next = timesteps.get(i + 1).map_or(noised(1.0), |next| noised(training.alpha(*next, 1.0)));
            Step {
                timestep: timesteps[i] as f32,
                input_scale: 1.0,
                x_0: training.x_0(alpha),
                clip: self.clip,
                noised: noised(alpha),
                corrected: Vec::new(),
                next: vec![(Term::X0(0), next.x_0 * out), (Term::X(0), next.x_0 * skip), (Term::Noise, next.noise)],
            }
        };
        Ok(Schedule { steps: (begin..steps).map(step).collect(), init_noise_sigma: 1.0 })
    }

    fn has(&self, extra: Extra) -> bool {
        extra == Extra::Strength
    }
}
