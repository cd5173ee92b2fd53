//! DPM-Solver++ (diffusers `DPMSolverMultistepScheduler`; Lu et al., arXiv 2211.01095).

use super::{
    Noised, Run, Schedule, Scheduler, Step, Term,
    training::{
        Curve, Defaults, Prediction, Training, exponential, final_sigma_is_zero, interpolate, linspace, shifted,
        sigma_to_timestep,
    },
};
use crate::{Result, weights::Config};

/// The numbers of its config that change the arithmetic.
pub struct DpmSolverMultistep {
    training: Training,
    /// The shift, where the path is that of flow matching.
    flow: Option<f64>,
    order: usize,
    stochastic: bool,
    heun: bool,
    lower_order_final: bool,
    euler_at_final: bool,
    curve: Curve,
    lu_lambdas: bool,
    final_sigma_is_zero: bool,
    lambda_min_clipped: f64,
}

impl DpmSolverMultistep {
    /// # Errors
    /// `BadModel` for an option that this version cannot honour.
    pub fn read(config: &Config) -> Result<Self> {
        config.only("use_dynamic_shifting", false)?;
        // It acts only with dynamic shifting; a learnt variance is cut off before any solver sees it.
        config.ignore(&["time_shift_type", "variance_type"]);
        let shift = config.f64("flow_shift", 1.0)?;
        let flow = config.bool("use_flow_sigmas", false)?.then_some(shift);
        let training = Training::read(config, &Defaults::LINSPACE)?;
        if flow.is_some() != (training.prediction == Prediction::Flow) {
            return Err(
                config.wrong("prediction_type", "it must be flow_prediction just where `use_flow_sigmas` is true")
            );
        }
        let order = config.count("solver_order", 2)?;
        if order > 3 {
            return Err(config.wrong("solver_order", "this version knows 1, 2 and 3"));
        }
        Ok(Self {
            training,
            flow,
            order,
            stochastic: match config.str("algorithm_type", "dpmsolver++")? {
                "dpmsolver++" => false,
                "sde-dpmsolver++" => true,
                _ => return Err(config.wrong("algorithm_type", "this version knows dpmsolver++ and sde-dpmsolver++")),
            },
            heun: match config.str("solver_type", "midpoint")? {
                "midpoint" => false,
                "heun" => true,
                _ => return Err(config.wrong("solver_type", "this version knows midpoint and heun")),
            },
            lower_order_final: config.bool("lower_order_final", true)?,
            euler_at_final: config.bool("euler_at_final", false)?,
            curve: Curve::read(config)?,
            lu_lambdas: config.bool("use_lu_lambdas", false)?,
            final_sigma_is_zero: final_sigma_is_zero(config)?,
            lambda_min_clipped: config.f64("lambda_min_clipped", f64::NEG_INFINITY)?,
        })
    }

    /// Timesteps, and sigmas with the final one.
    fn grid(&self, steps: usize) -> (Vec<f64>, Vec<f64>) {
        let training = &self.training;
        let trained = training.sigmas();
        let (first, last) = (trained[trained.len() - 1], trained[0]);
        let round = |t: f64| if training.cosine { t } else { t.round_ties_even() };
        let at = |sigma: &f64| sigma_to_timestep(*sigma, &trained);
        let (timesteps, mut sigmas): (Vec<f64>, Vec<f64>) = if let Some(shift) = self.flow {
            let mut sigmas: Vec<f64> = linspace(1.0, 1.0 / training.count() as f64, steps + 1)
                .into_iter()
                .map(|alpha| shifted(1.0 - alpha, shift))
                .collect();
            sigmas.reverse();
            sigmas.truncate(steps);
            (sigmas.iter().map(|sigma| sigma * training.count() as f64).collect(), sigmas)
        } else if self.lu_lambdas && self.curve == Curve::Plain {
            let sigmas = exponential(first, last, steps);
            (sigmas.iter().map(|sigma| round(at(sigma))).collect(), sigmas)
        } else if let Some(sigmas) = self.curve.between(first, last, steps) {
            let round = |t| if self.curve == Curve::Karras { round(t) } else { t };
            (sigmas.iter().map(|sigma| round(at(sigma))).collect(), sigmas)
        } else {
            // lambda = ln(alpha / sigma) is minus the logarithm of these sigmas, and falls.
            let clipped = trained.iter().filter(|sigma| -sigma.ln() < self.lambda_min_clipped).count();
            let mut timesteps = training.spaced(training.count() - clipped, steps + 1, steps);
            timesteps.truncate(steps);
            timesteps.iter_mut().for_each(|t| *t = t.round_ties_even());
            let sigmas = timesteps.iter().map(|t| interpolate(&trained, *t)).collect();
            (timesteps, sigmas)
        };
        sigmas.push(if self.final_sigma_is_zero { 0.0 } else { last });
        // The reference stores sigmas as f32 and timesteps as integers.
        (timesteps.into_iter().map(f64::trunc).collect(), sigmas.into_iter().map(|s| f64::from(s as f32)).collect())
    }

    /// `(alpha, sigma, lambda)`: `x_t = alpha x_0 + sigma noise`, and half the logarithm of their ratio's square.
    fn point(&self, sigma: f64) -> (f64, f64, f64) {
        let (alpha, sigma) = match self.flow {
            Some(_) => (1.0 - sigma, sigma),
            None => (1.0 / (sigma * sigma + 1.0).sqrt(), sigma / (sigma * sigma + 1.0).sqrt()),
        };
        (alpha, sigma, alpha.ln() - sigma.ln())
    }

    /// The weights of a step to `sigmas[i + 1]`, of an order that as many earlier predictions as it needs allow.
    fn terms(&self, sigmas: &[f64], i: usize, order: usize) -> Vec<(Term, f64)> {
        let (alpha, sigma, lambda) = self.point(sigmas[i + 1]);
        let (_, sigma_0, lambda_0) = self.point(sigmas[i]);
        let h = lambda - lambda_0;
        // Both algorithms weigh the predicted x_0 and its first two differences alike, with h doubled by noise.
        let k = if self.stochastic { 2.0 * h } else { h };
        let decay = (-k).exp();
        let x = sigma / sigma_0 * if self.stochastic { (-h).exp() } else { 1.0 };
        let noise = if self.stochastic { sigma * (1.0 - decay).max(0.0).sqrt() } else { 0.0 };
        let first = alpha * (1.0 - decay);
        // The integral's next weights; h is infinite only in steps of the first order.
        let second = if self.heun || order == 3 { alpha * ((decay - 1.0) / k + 1.0) } else { 0.5 * first };
        let mut x_0 = [first, 0.0, 0.0];
        if order >= 2 {
            let h_0 = lambda_0 - self.point(sigmas[i - 1]).2;
            let r_0 = h_0 / h;
            // D1_0 = (m0 - m1) / r0
            let difference = |x_0: &mut [f64; 3], back: usize, weight: f64| {
                x_0[back] += weight;
                x_0[back + 1] -= weight;
            };
            if order == 2 {
                difference(&mut x_0, 0, second / r_0);
            } else {
                let h_1 = self.point(sigmas[i - 1]).2 - self.point(sigmas[i - 2]).2;
                let r_1 = h_1 / h;
                let third = match self.stochastic {
                    true => alpha * ((1.0 - decay - k) / (k * k) - 0.5),
                    false => -alpha * ((decay - 1.0 + h) / (h * h) - 0.5),
                };
                // D1 = D1_0 + r0 / (r0 + r1) (D1_0 - D1_1), D2 = (D1_0 - D1_1) / (r0 + r1)
                let across = (second * r_0 + third) / (r_0 + r_1);
                difference(&mut x_0, 0, (second + across) / r_0);
                difference(&mut x_0, 1, -across / r_1);
            }
        }
        let mut terms = vec![(Term::X(0), x), (Term::Noise, noise)];
        terms.extend(x_0.iter().take(order).enumerate().map(|(back, weight)| (Term::X0(back), *weight)));
        terms
    }
}

impl Scheduler for DpmSolverMultistep {
    fn lay_out(&self, &Run { steps, begin, .. }: &Run) -> Result<Schedule> {
        /// Runs at least this long do well without lower orders at their end.
        const LONG: usize = 15;
        self.training.check(steps)?;
        let (timesteps, sigmas) = self.grid(steps);
        let short = self.lower_order_final && steps < LONG;
        let step = |i: usize| {
            let last = i + 1 == steps && (self.euler_at_final || short || self.final_sigma_is_zero);
            let order = match (i + 1 - begin).min(self.order) {
                _ if last => 1,
                3 if short && i + 2 == steps => 2,
                order => order,
            };
            let (alpha, sigma, _) = self.point(sigmas[i]);
            Step {
                timestep: timesteps[i] as f32,
                input_scale: 1.0,
                x_0: self.training.x_0_at(alpha, sigma),
                clip: None,
                noised: Noised { x_0: alpha, noise: sigma },
                next: self.terms(&sigmas, i, order),
            }
        };
        Ok(Schedule { steps: (begin..steps).map(step).collect(), init_noise_sigma: 1.0 })
    }
}
