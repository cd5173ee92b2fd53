//! Euler steps in sigma (diffusers `EulerDiscreteScheduler`; Karras et al., arXiv 2206.00364, algorithm 2 without its second
//! order).

use super::{
    Extra, Noised, Run, Schedule, Scheduler, Step, Term,
    training::{
        CURVES, Curve, Defaults, Prediction, SPACED, TRAINED, Training, exponential, final_sigma_is_zero, interpolate,
        sigma_to_timestep,
    },
};
use crate::{Result, weights::Config};

/// The keys of the class in diffusers.
pub const KEYS: &[&[&str]] = &[
    TRAINED,
    SPACED,
    CURVES,
    &["rescale_betas_zero_snr", "interpolation_type", "timestep_type", "sigma_min", "sigma_max", "final_sigmas_type"],
];

/// The numbers of its config that change the arithmetic.
pub struct Euler {
    training: Training,
    curve: Curve,
    log_linear: bool,
    /// The model is told `ln(sigma) / 4`.
    continuous: bool,
    sigma_min: Option<f64>,
    sigma_max: Option<f64>,
    final_sigma_is_zero: bool,
}

impl Euler {
    /// # Errors
    /// `BadModel` for an option that this version cannot honour.
    pub fn read(config: &Config) -> Result<Self> {
        let training = Training::read(config, &Defaults::LINSPACE)?;
        let continuous = match config.str("timestep_type", "discrete")? {
            "discrete" => false,
            // diffusers does so only for this prediction.
            "continuous" => training.prediction == Prediction::V,
            _ => return Err(config.wrong("timestep_type", "this version knows discrete and continuous")),
        };
        Ok(Self {
            training,
            curve: Curve::read(config)?,
            log_linear: match config.str("interpolation_type", "linear")? {
                "linear" => false,
                "log_linear" => true,
                _ => return Err(config.wrong("interpolation_type", "this version knows linear and log_linear")),
            },
            continuous,
            sigma_min: config.opt_f64("sigma_min")?,
            sigma_max: config.opt_f64("sigma_max")?,
            final_sigma_is_zero: final_sigma_is_zero(config)?,
        })
    }
}

impl Scheduler for Euler {
    fn lay_out(&self, &Run { steps, begin, churn, .. }: &Run) -> Result<Schedule> {
        let training = &self.training;
        training.check(steps)?;
        let trained = training.sigmas();
        let mut timesteps = training.timesteps(steps);
        let mut sigmas: Vec<f64> = match self.log_linear {
            false => timesteps.iter().map(|t| interpolate(&trained, *t)).collect(),
            true => exponential(trained[trained.len() - 1], trained[0], steps + 1),
        };
        let first = self.sigma_max.unwrap_or(sigmas[0]);
        let last = self.sigma_min.unwrap_or(sigmas[sigmas.len() - 1]);
        if let Some(curved) = self.curve.between(first, last, steps) {
            timesteps = curved.iter().map(|sigma| sigma_to_timestep(*sigma, &trained)).collect();
            sigmas = curved;
        }
        sigmas.push(if self.final_sigma_is_zero { 0.0 } else { trained[0] });
        if self.continuous {
            timesteps = sigmas[..steps].iter().map(|sigma| 0.25 * sigma.ln()).collect();
        }
        let step = |i: usize| {
            let (sigma, next) = (sigmas[i], sigmas[i + 1]);
            // The reference lets the model see x_t as it was, and adds the noise only then.
            let (raised, noise) = churn.map_or((sigma, 0.0), |churn| churn.raise(sigma, steps));
            let x_0 = training.x_0_of_sigma(if training.prediction == Prediction::Epsilon { raised } else { sigma });
            let kept = next / raised;
            let x = kept + (1.0 - kept) * x_0.x;
            Step {
                timestep: timesteps[i] as f32,
                input_scale: 1.0 / (sigma * sigma + 1.0).sqrt(),
                x_0: training.x_0_of_sigma(sigma),
                clip: None,
                noised: Noised { x_0: 1.0, noise: sigma },
                corrected: Vec::new(),
                next: vec![(Term::X(0), x), (Term::Output(0), (1.0 - kept) * x_0.output), (Term::Noise, x * noise)],
            }
        };
        Ok(Schedule {
            steps: (begin..steps).map(step).collect(),
            init_noise_sigma: training.init_noise_sigma(sigmas[0]),
        })
    }

    fn has(&self, extra: Extra) -> bool {
        extra == Extra::Churn
    }
}
