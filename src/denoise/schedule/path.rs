//! What the exponential integrators share (DPM-Solver, DEIS, UniPC): `x_t = alpha x_0 + sigma noise`, with steps in lambda,
//! the logarithm of `alpha / sigma`.

use super::{
    Mix, Noised, Step, Term,
    training::{
        Curve, Defaults, Prediction, Training, exponential, final_sigma_is_zero, interpolate, linspace, shifted,
        sigma_to_timestep,
    },
};
use crate::{Result, weights::Config};

/// Where such a run's steps lie, and what the model says there.
pub struct Path {
    pub training: Training,
    /// The shift, where the path is that of flow matching.
    pub flow: Option<f64>,
    pub curve: Curve,
    pub final_sigma_is_zero: bool,
    pub sigma_min: Option<f64>,
    pub sigma_max: Option<f64>,
    /// Whether the timesteps of curves that have whole ones are rounded, rather than cut off.
    pub rounds: bool,
    lu_lambdas: bool,
    lambda_min_clipped: f64,
}

/// The keys of flow matching that all these classes have.
pub const FLOW: &[&str] = &["use_flow_sigmas", "flow_shift", "use_dynamic_shifting", "time_shift_type"];

/// Runs at least this long do well without lower orders at their end.
pub const LONG: usize = 15;

/// A place on the path.
#[derive(Clone, Copy)]
pub struct Point {
    pub alpha: f64,
    pub sigma: f64,
    pub lambda: f64,
}

/// What a solver weighs: the predicted clean latent, or the predicted noise.
#[derive(Clone, Copy, PartialEq)]
pub enum Predicted {
    X0,
    Noise,
}

impl Path {
    /// `flow_curves` are those that sigmas of flow matching may follow.
    ///
    /// # Errors
    /// `BadModel` for an option that this version cannot honour.
    pub fn read(config: &Config, flow_curves: &[Curve]) -> Result<Self> {
        let shift = config.f64("flow_shift", 1.0)?;
        let flow = config.bool("use_flow_sigmas", false)?.then_some(shift);
        if flow.is_some() {
            config.only("use_dynamic_shifting", false)?;
        }
        // Shifting acts only on sigmas of flow matching, and its type only where it is dynamic.
        config.ignore(&["use_dynamic_shifting", "time_shift_type"]);
        let training = Training::read(config, &Defaults::LINSPACE)?;
        if flow.is_some() != (training.prediction == Prediction::Flow) {
            return Err(
                config.wrong("prediction_type", "it must be flow_prediction just where `use_flow_sigmas` is true")
            );
        }
        let (curve, lu_lambdas) = (Curve::read(config)?, config.bool("use_lu_lambdas", false)?);
        if flow.is_some() && (lu_lambdas || !flow_curves.contains(&curve)) {
            return Err(config.wrong("use_flow_sigmas", "it does not go with sigmas along another curve"));
        }
        let lambda_min_clipped = config.f64("lambda_min_clipped", f64::NEG_INFINITY)?;
        if training.sigmas().first().is_none_or(|smallest| -smallest.ln() < lambda_min_clipped) {
            return Err(config.wrong("lambda_min_clipped", "it leaves out every training step"));
        }
        Ok(Self {
            training,
            flow,
            curve,
            final_sigma_is_zero: final_sigma_is_zero(config)?,
            sigma_min: config.opt_f64("sigma_min")?,
            sigma_max: config.opt_f64("sigma_max")?,
            rounds: true,
            lu_lambdas,
            lambda_min_clipped,
        })
    }

    /// Timesteps and sigmas, as many as steps.
    pub fn grid(&self, steps: usize) -> (Vec<f64>, Vec<f64>) {
        let largest = 1.0 - 1.0 / self.training.count() as f64;
        match self.flow {
            Some(shift) => self.told(along_flow(largest, 0.0, shift, steps)),
            None => self.curved(steps).unwrap_or_else(|| self.plain(steps)),
        }
    }

    /// Sigmas of flow matching with the timesteps that they are told as.
    pub fn told(&self, sigmas: Vec<f64>) -> (Vec<f64>, Vec<f64>) {
        (sigmas.iter().map(|sigma| sigma * self.training.count() as f64).collect(), sigmas)
    }

    /// Along the config's curve, where it names one.
    pub fn curved(&self, steps: usize) -> Option<(Vec<f64>, Vec<f64>)> {
        let trained = self.training.sigmas();
        let first = self.sigma_max.unwrap_or(trained[trained.len() - 1]);
        let last = self.sigma_min.unwrap_or(trained[0]);
        let lu = self.lu_lambdas && self.curve != Curve::Karras;
        let sigmas = if lu { exponential(first, last, steps) } else { self.curve.between(first, last, steps)? };
        let rounds = self.rounds && (lu || self.curve == Curve::Karras);
        let at = |sigma: &f64| {
            let t = sigma_to_timestep(*sigma, &trained);
            if rounds { t.round_ties_even() } else { t }
        };
        Some((sigmas.iter().map(at).collect(), sigmas))
    }

    /// As the timesteps lie.
    pub fn plain(&self, steps: usize) -> (Vec<f64>, Vec<f64>) {
        let trained = self.training.sigmas();
        // lambda is minus the logarithm of these sigmas, and falls.
        let clipped = trained.iter().filter(|sigma| -sigma.ln() < self.lambda_min_clipped).count();
        let mut timesteps = self.training.spaced(self.training.count() - clipped, steps + 1, steps);
        timesteps.truncate(steps);
        timesteps.iter_mut().for_each(|t| *t = t.round_ties_even());
        let sigmas = timesteps.iter().map(|t| interpolate(&trained, *t)).collect();
        (timesteps, sigmas)
    }

    /// The smallest sigma of training.
    pub fn smallest(&self) -> f64 {
        self.training.sigmas()[0]
    }

    pub fn point(&self, sigma: f64) -> Point {
        let (alpha, sigma) = match self.flow {
            Some(_) => (1.0 - sigma, sigma),
            None => (1.0 / (sigma * sigma + 1.0).sqrt(), sigma / (sigma * sigma + 1.0).sqrt()),
        };
        Point { alpha, sigma, lambda: alpha.ln() - sigma.ln() }
    }

    /// `weight` times what was predicted `back` steps ago, at `sigma`.
    pub fn term(&self, predicted: Predicted, back: usize, sigma: f64, weight: f64) -> Vec<(Term, f64)> {
        match predicted {
            Predicted::X0 => vec![(Term::X0(back), weight)],
            Predicted::Noise => {
                let Point { alpha, sigma, .. } = self.point(sigma);
                let Mix { x, output } = self.training.epsilon_at(alpha, sigma);
                vec![(Term::X(back), weight * x), (Term::Output(back), weight * output)]
            }
        }
    }

    pub fn step(&self, timestep: f64, sigma: f64, next: Vec<(Term, f64)>) -> Step {
        let Point { alpha, sigma, .. } = self.point(sigma);
        Step {
            timestep: timestep as f32,
            input_scale: 1.0,
            x_0: self.training.x_0_at(alpha, sigma),
            clip: None,
            noised: Noised { x_0: alpha, noise: sigma },
            corrected: Vec::new(),
            next,
        }
    }
}

/// `steps` shifted sigmas of flow matching from `first` on, before `last`.
pub fn along_flow(first: f64, last: f64, shift: f64, steps: usize) -> Vec<f64> {
    linspace(first, last, steps + 1).into_iter().take(steps).map(|sigma| shifted(sigma, shift)).collect()
}

/// As the reference stores them: timesteps as whole numbers, sigmas as f32, with the one after the last step.
pub fn stored((timesteps, mut sigmas): (Vec<f64>, Vec<f64>), last: f64) -> (Vec<f64>, Vec<f64>) {
    sigmas.push(last);
    (timesteps.into_iter().map(f64::trunc).collect(), sigmas.into_iter().map(|s| f64::from(s as f32)).collect())
}
