//! What the schedulers share: the noise that a model was trained with, and where a run's steps lie on it.

use super::{Mix, Noised};
use crate::{Error, Result, weights::Config};

/// What the model's output means.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum Prediction {
    Epsilon,
    V,
    Sample,
    /// The velocity of flow matching.
    Flow,
}

/// How timesteps lie on the training steps (Lin et al., arXiv 2305.08891, table 2).
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum Spacing {
    Linspace,
    Leading,
    Trailing,
}

/// The training schedule of a model with discrete steps.
#[derive(Clone, Debug)]
pub struct Training {
    /// The share of the clean latent's variance that is left at each training step.
    pub alphas_cumprod: Vec<f64>,
    pub prediction: Prediction,
    pub spacing: Spacing,
    pub steps_offset: usize,
    /// The betas follow `squaredcos_cap_v2`.
    pub cosine: bool,
}

/// Keys of diffusers' classes: what every one with discrete steps has.
pub const TRAINED: &[&str] =
    &["num_train_timesteps", "beta_start", "beta_end", "beta_schedule", "trained_betas", "prediction_type"];
/// Where timesteps lie.
pub const SPACED: &[&str] = &["timestep_spacing", "steps_offset"];
/// Dynamic thresholding.
pub const THRESHOLDING: &[&str] = &["thresholding", "dynamic_thresholding_ratio", "sample_max_value"];
/// Of [`Curve`].
pub const CURVES: &[&str] = &["use_karras_sigmas", "use_exponential_sigmas", "use_beta_sigmas"];
/// Clipped predictions.
pub const CLIP: &[&str] = &["clip_sample", "clip_sample_range"];

/// How sigmas lie between their ends.
#[derive(Clone, Copy, PartialEq)]
pub enum Curve {
    /// As the timesteps do.
    Plain,
    Karras,
    Exponential,
    Beta,
}

impl Curve {
    /// # Errors
    /// `BadModel` where two are asked for, or one that this version does not know.
    pub fn read(config: &Config) -> Result<Self> {
        let keys = ["use_karras_sigmas", "use_exponential_sigmas", "use_beta_sigmas"];
        let mut asked = Vec::new();
        for (key, curve) in keys.into_iter().zip([Self::Karras, Self::Exponential, Self::Beta]) {
            if config.bool(key, false)? {
                asked.push((key, curve));
            }
        }
        match asked.as_slice() {
            [] => Ok(Self::Plain),
            [(_, curve)] => Ok(*curve),
            [_, (second, _), ..] => Err(config.wrong(second, &format!("only one of {} can be true", keys.join(", ")))),
        }
    }

    /// `points` sigmas from `first` down to `last`; `None` where they lie as the timesteps do.
    pub fn between(self, first: f64, last: f64, points: usize) -> Option<Vec<f64>> {
        match self {
            Self::Plain => None,
            Self::Karras => Some(karras(first, last, points)),
            Self::Exponential => Some(exponential(first, last, points)),
            Self::Beta => Some(beta(first, last, points)),
        }
    }
}

/// What a scheduler class assumes where its config is silent.
pub struct Defaults {
    pub beta_start: f64,
    pub beta_end: f64,
    pub beta_schedule: &'static str,
    pub spacing: &'static str,
}

impl Defaults {
    pub const LEADING: Self = Self { beta_start: 1e-4, beta_end: 0.02, beta_schedule: "linear", spacing: "leading" };
    pub const LINSPACE: Self = Self { spacing: "linspace", ..Self::LEADING };
    pub const CONSISTENCY: Self =
        Self { beta_start: 0.00085, beta_end: 0.012, beta_schedule: "scaled_linear", spacing: "leading" };
    pub const SECOND_ORDER: Self = Self { beta_schedule: "linear", spacing: "linspace", ..Self::CONSISTENCY };
}

impl Training {
    /// # Errors
    /// `BadModel` for a value that this version does not know.
    pub fn read(config: &Config, defaults: &Defaults) -> Result<Self> {
        if config.bool("thresholding", false)? {
            return Err(config
                .wrong("thresholding", "it suits models of pixels, and this version draws in latents; make it false"));
        }
        // These act only with thresholding.
        config.ignore(&["dynamic_thresholding_ratio", "sample_max_value"]);
        let count = config.count("num_train_timesteps", 1000)?;
        if count < 2 {
            return Err(config.wrong("num_train_timesteps", "it must be at least 2"));
        }
        let (start, end) = (config.f64("beta_start", defaults.beta_start)?, config.f64("beta_end", defaults.beta_end)?);
        let schedule = config.str("beta_schedule", defaults.beta_schedule)?;
        // In the reference's f32, to its rounding: what lies at the ends decides timesteps that are rounded down.
        let betas: Vec<f32> = match (config.opt_f32s("trained_betas")?, schedule) {
            (Some(betas), _) if betas.len() == count => betas,
            (Some(_), _) => return Err(config.wrong("trained_betas", &format!("it must hold {count} numbers"))),
            (None, "linear") => linspace_f32(start, end, count),
            (None, "scaled_linear") => {
                linspace_f32(start.sqrt(), end.sqrt(), count).into_iter().map(|root| root * root).collect()
            }
            (None, "squaredcos_cap_v2") => {
                capped_betas(count, |t| ((t + 0.008) / 1.008 * std::f64::consts::FRAC_PI_2).cos().powi(2))
            }
            (None, "laplace") => capped_betas(count, |t| {
                let lambda = -0.5 * (0.5 - t).signum() * (1.0 - 2.0 * (0.5 - t).abs() + 1e-6).ln();
                (lambda.exp() / (1.0 + lambda.exp())).sqrt()
            }),
            (None, "exp") => capped_betas(count, |t| (-12.0 * t).exp()),
            (None, "sigmoid") => linspace_f32(-6.0, 6.0, count)
                .into_iter()
                .map(|x| (end - start) as f32 / (1.0 + (-x).exp()) + start as f32)
                .collect(),
            _ => {
                let known = "this version knows linear, scaled_linear, squaredcos_cap_v2, laplace, exp and sigmoid";
                return Err(config.wrong("beta_schedule", known));
            }
        };
        let mut alphas_cumprod = cumulative(betas.into_iter().map(|beta| 1.0 - beta));
        if config.bool("rescale_betas_zero_snr", false)? {
            rescale_zero_snr(&mut alphas_cumprod);
        }
        Ok(Self {
            alphas_cumprod,
            prediction: match config.str("prediction_type", "epsilon")? {
                "epsilon" => Prediction::Epsilon,
                "v_prediction" => Prediction::V,
                "sample" => Prediction::Sample,
                "flow_prediction" if config.bool("use_flow_sigmas", false)? => Prediction::Flow,
                _ => return Err(config.wrong("prediction_type", "this version knows epsilon, v_prediction and sample")),
            },
            spacing: match config.str("timestep_spacing", defaults.spacing)? {
                "linspace" => Spacing::Linspace,
                "leading" => Spacing::Leading,
                "trailing" => Spacing::Trailing,
                _ => return Err(config.wrong("timestep_spacing", "this version knows linspace, leading and trailing")),
            },
            steps_offset: config.usize("steps_offset", 0)?,
            cosine: schedule == "squaredcos_cap_v2",
        })
    }

    /// The magnitude that `clip_sample` asks predictions to be clipped to.
    ///
    /// # Errors
    /// `BadModel` for values of the wrong kind.
    pub fn clip(config: &Config, default: bool) -> Result<Option<f64>> {
        let range = config.f64("clip_sample_range", 1.0)?;
        Ok(config.bool("clip_sample", default)?.then_some(range))
    }

    /// How many training steps there are.
    pub fn count(&self) -> usize {
        self.alphas_cumprod.len()
    }

    /// # Errors
    /// `BadInput` where there are fewer training steps than a run would take.
    pub fn check(&self, steps: usize) -> Result<()> {
        let offset = if self.spacing == Spacing::Leading { self.steps_offset } else { 0 };
        let most = self.count().saturating_sub(offset);
        if steps > most {
            return Err(Error::bad_input(format!(
                "{steps} steps cannot be taken; this scheduler takes at most {most}"
            )));
        }
        Ok(())
    }

    /// A run's timesteps, from the noisiest on.
    pub fn timesteps(&self, steps: usize) -> Vec<f64> {
        self.spaced(self.count(), steps, steps)
    }

    /// A run's timesteps and sigmas, as the solvers in sigma have them.
    pub fn discrete(&self, curve: Curve, steps: usize) -> (Vec<f64>, Vec<f64>) {
        let trained = self.sigmas();
        let timesteps = self.timesteps(steps);
        let sigmas: Vec<f64> = timesteps.iter().map(|t| interpolate(&trained, *t)).collect();
        match curve.between(sigmas[0], sigmas[sigmas.len() - 1], steps) {
            Some(curved) => (curved.iter().map(|sigma| sigma_to_timestep(*sigma, &trained)).collect(), curved),
            None => (timesteps, sigmas),
        }
    }

    /// The factor on unit noise that gives the first `x_t` of the solvers in sigma, where sigma is `largest`.
    pub fn init_noise_sigma(&self, largest: f64) -> f64 {
        if self.spacing == Spacing::Leading { (largest * largest + 1.0).sqrt() } else { largest }
    }

    /// `points` timesteps below `last`; the trailing spacing knows only `steps`.
    pub fn spaced(&self, last: usize, points: usize, steps: usize) -> Vec<f64> {
        let mut timesteps: Vec<f64> = match self.spacing {
            Spacing::Linspace => linspace(0.0, last as f64 - 1.0, points),
            Spacing::Leading => (0..points).map(|i| (i * (last / points) + self.steps_offset) as f64).collect(),
            Spacing::Trailing => {
                let ratio = self.count() as f64 / steps as f64;
                let length = (last as f64 / ratio).ceil() as usize;
                (0..length).map(|i| (last as f64 - i as f64 * ratio).round_ties_even() - 1.0).rev().collect()
            }
        };
        timesteps.reverse();
        timesteps
    }

    /// `alphas_cumprod` at a timestep, or `after_last` below the first.
    pub fn alpha(&self, timestep: f64, after_last: f64) -> f64 {
        if timestep < 0.0 { after_last } else { self.alphas_cumprod[(timestep as usize).min(self.count() - 1)] }
    }

    /// What `set_alpha_to_one` says of the time after the last step.
    ///
    /// # Errors
    /// `BadModel` for a value of the wrong kind.
    pub fn final_alpha(&self, config: &Config, default: bool) -> Result<f64> {
        Ok(if config.bool("set_alpha_to_one", default)? { 1.0 } else { self.alphas_cumprod[0] })
    }

    /// `sigma = sqrt((1 - alpha) / alpha)` of every training step, in the reference's f32.
    pub fn sigmas(&self) -> Vec<f64> {
        let last = self.count() - 1;
        let alpha = |i: usize| match self.alphas_cumprod[i] {
            // Without signal sigma would be infinite; the reference takes the smallest f16.
            0.0 if i == last => 2f32.powi(-24),
            alpha => alpha as f32,
        };
        (0..=last).map(|i| f64::from(((1.0 - alpha(i)) / alpha(i)).sqrt())).collect()
    }

    /// The predicted `x_0` where `alpha` is left of its variance.
    pub fn x_0(&self, alpha: f64) -> Mix {
        self.x_0_at(alpha.sqrt(), (1.0 - alpha).sqrt())
    }

    /// The predicted `x_0` where `x_t = a x_0 + b epsilon`.
    pub fn x_0_at(&self, a: f64, b: f64) -> Mix {
        match self.prediction {
            Prediction::Epsilon => Mix { x: 1.0 / a, output: -b / a },
            Prediction::V => Mix { x: a, output: -b },
            Prediction::Sample => Mix { x: 0.0, output: 1.0 },
            Prediction::Flow => Mix { x: 1.0, output: -b },
        }
    }

    /// The predicted epsilon where `alpha` is left of the clean latent's variance.
    pub fn epsilon(&self, alpha: f64) -> Mix {
        self.epsilon_at(alpha.sqrt(), (1.0 - alpha).sqrt())
    }

    /// The predicted epsilon where `x_t = a x_0 + b epsilon`.
    pub fn epsilon_at(&self, a: f64, b: f64) -> Mix {
        match self.prediction {
            Prediction::Epsilon => Mix { x: 0.0, output: 1.0 },
            Prediction::V => Mix { x: b, output: a },
            Prediction::Sample => Mix { x: 1.0 / b, output: -a / b },
            Prediction::Flow => Mix { x: 1.0, output: a },
        }
    }

    /// The predicted `x_0` where `x_t = x_0 + sigma epsilon`.
    pub fn x_0_of_sigma(&self, sigma: f64) -> Mix {
        let square = sigma * sigma + 1.0;
        match self.prediction {
            Prediction::Epsilon => Mix { x: 1.0, output: -sigma },
            Prediction::V => Mix { x: 1.0 / square, output: -sigma / square.sqrt() },
            Prediction::Sample => Mix { x: 0.0, output: 1.0 },
            Prediction::Flow => Mix { x: 1.0, output: -sigma },
        }
    }
}

/// What `final_sigmas_type` says.
///
/// # Errors
/// `BadModel` for another value.
pub fn final_sigma_is_zero(config: &Config) -> Result<bool> {
    match config.str("final_sigmas_type", "zero")? {
        "zero" => Ok(true),
        "sigma_min" => Ok(false),
        _ => Err(config.wrong("final_sigmas_type", "this version knows zero and sigma_min")),
    }
}

/// How `x_t` is made where `alpha` is left of the clean latent's variance.
pub fn noised(alpha: f64) -> Noised {
    Noised { x_0: alpha.sqrt(), noise: (1.0 - alpha).sqrt() }
}

/// numpy's `linspace`: `points` values from `start` to `end`, both among them.
pub fn linspace(start: f64, end: f64, points: usize) -> Vec<f64> {
    let last = points.saturating_sub(1).max(1) as f64;
    (0..points).map(|i| start + (end - start) * (i as f64 / last)).collect()
}

/// numpy's `interp` on 0, 1, 2, ...
pub fn interpolate(values: &[f64], at: f64) -> f64 {
    let last = values.len() - 1;
    let low = (at.max(0.0) as usize).min(last);
    let high = (low + 1).min(last);
    values[low] + (values[high] - values[low]) * (at - low as f64).clamp(0.0, 1.0)
}

/// Karras et al., arXiv 2206.00364, equation 5 with rho 7.
fn karras(first: f64, last: f64, points: usize) -> Vec<f64> {
    const RHO: f64 = 7.0;
    linspace(first.powf(1.0 / RHO), last.powf(1.0 / RHO), points).into_iter().map(|root| root.powf(RHO)).collect()
}

/// What flow matching makes of a sigma: `shift sigma / (1 + (shift - 1) sigma)`.
pub fn shifted(sigma: f64, shift: f64) -> f64 {
    shift * sigma / (1.0 + (shift - 1.0) * sigma)
}

/// Evenly spaced logarithms.
pub fn exponential(first: f64, last: f64, points: usize) -> Vec<f64> {
    linspace(first.ln(), last.ln(), points).into_iter().map(f64::exp).collect()
}

/// Spaced by the quantiles of a beta distribution (Lee et al., arXiv 2407.12173).
fn beta(first: f64, last: f64, points: usize) -> Vec<f64> {
    linspace(0.0, 1.0, points).into_iter().map(|share| last + beta_quantile(1.0 - share) * (first - last)).collect()
}

/// Where the distribution function of Beta(0.6, 0.6) reaches `share`.
fn beta_quantile(share: f64) -> f64 {
    const SHAPE: f64 = 0.6;
    // With x = sin(u)^2 the density's singular ends become (sin u cos u)^(2 SHAPE - 1), which is smooth enough for
    // a rule on midpoints; the distribution is symmetric, so its first half says everything.
    let mass = |u: f64| {
        const PARTS: usize = 500;
        let power = 2.0 * SHAPE - 1.0;
        let at = |i: usize| {
            // A change of variable that flattens the power at 0.
            let v = (i as f64 + 0.5) / PARTS as f64;
            let angle = u * v.powi(5);
            (angle.sin() * angle.cos()).powf(power) * 5.0 * v.powi(4) * u
        };
        (0..PARTS).map(at).sum::<f64>() / PARTS as f64
    };
    if share > 0.5 {
        return 1.0 - beta_quantile(1.0 - share);
    }
    let half = mass(std::f64::consts::FRAC_PI_4);
    let (mut low, mut high) = (0.0, std::f64::consts::FRAC_PI_4);
    for _ in 0..48 {
        let middle = (low + high) / 2.0;
        if mass(middle) < 2.0 * share * half { low = middle } else { high = middle }
    }
    low.sin().powi(2)
}

/// The (fractional) training step at which noise is `sigma`; `sigmas` rise.
pub fn sigma_to_timestep(sigma: f64, sigmas: &[f64]) -> f64 {
    let log = sigma.max(1e-10).ln();
    // The reference's table of logarithms is f32, which tells where a sigma of the table itself ends up.
    let known = |i: usize| f64::from(sigmas[i].ln() as f32);
    let low = (0..sigmas.len()).rev().find(|i| log >= known(*i)).unwrap_or(0).min(sigmas.len() - 2);
    let (a, b) = (known(low), known(low + 1));
    low as f64 + ((a - log) / (a - b)).clamp(0.0, 1.0)
}

/// torch's `linspace`: from each end to the middle.
fn linspace_f32(start: f64, end: f64, points: usize) -> Vec<f32> {
    let (start, end, last) = (start as f32, end as f32, points.saturating_sub(1));
    let step = (end - start) / last.max(1) as f32;
    (0..points).map(|i| if i < points / 2 { start + step * i as f32 } else { end - step * (last - i) as f32 }).collect()
}

/// torch's `cumprod`: multiplied in f64, stored in f32.
fn cumulative(alphas: impl Iterator<Item = f32>) -> Vec<f64> {
    alphas
        .scan(1.0, |product, alpha| {
            *product *= f64::from(alpha);
            Some(f64::from(*product as f32))
        })
        .collect()
}

/// The betas under which `alpha_bar` of 0 to 1 is left of the variance.
fn capped_betas(count: usize, alpha_bar: impl Fn(f64) -> f64) -> Vec<f32> {
    const MAX_BETA: f64 = 0.999;
    let at = |i: usize| alpha_bar(i as f64 / count as f64);
    (0..count).map(|i| (1.0 - at(i + 1) / at(i)).min(MAX_BETA) as f32).collect()
}

/// Lin et al., arXiv 2305.08891, algorithm 1: no signal at the last step, the first as it was.
fn rescale_zero_snr(alphas_cumprod: &mut [f64]) {
    let (first, last) = (alphas_cumprod[0].sqrt(), alphas_cumprod[alphas_cumprod.len() - 1].sqrt());
    for alpha in alphas_cumprod {
        *alpha = ((alpha.sqrt() - last) * first / (first - last)).powi(2);
    }
}

#[cfg(test)]
mod tests {
    use serde_json::json;

    use super::*;

    #[test]
    fn alpha_bar_falls_from_one_to_zero() {
        for schedule in ["linear", "scaled_linear", "squaredcos_cap_v2", "sigmoid"] {
            for rescale in [false, true] {
                let value = json!({"beta_schedule": schedule, "rescale_betas_zero_snr": rescale});
                let config = Config::new("c", &value).unwrap();
                let alphas = Training::read(&config, &Defaults::CONSISTENCY).unwrap().alphas_cumprod;
                assert!(alphas.iter().all(|alpha| (0.0..1.0).contains(alpha)), "{schedule}");
                assert!(alphas.windows(2).all(|pair| pair[0] > pair[1]), "{schedule}");
                assert_eq!(alphas[999] == 0.0, rescale, "{schedule}");
            }
        }
    }

    /// diffusers' own numbers at every 37th step.
    #[test]
    fn alpha_bar_is_the_references() {
        let text = include_str!("../../../tests/fixtures/schedule/alphas_cumprod.json");
        let fixture: serde_json::Value = serde_json::from_str(text).unwrap();
        for table in fixture["tables"].as_array().unwrap() {
            let config = Config::new("c", &table["config"]).unwrap();
            let alphas = Training::read(&config, &Defaults::LEADING).unwrap().alphas_cumprod;
            for (index, expected) in
                fixture["indices"].as_array().unwrap().iter().zip(table["alphas_cumprod"].as_array().unwrap())
            {
                let (ours, expected) = (alphas[index.as_u64().unwrap() as usize], expected.as_f64().unwrap());
                assert!((ours - expected).abs() < 2e-5 * expected + 1e-8, "{}: {ours} {expected}", table["config"]);
            }
        }
    }
}
