//! DPM-Solver++ and the DPM-Solver before it, on earlier predictions (diffusers `DPMSolverMultistepScheduler`; Lu et al.,
//! arXiv 2211.01095).

use super::{
    Run, Schedule, Scheduler, Term,
    dpm_solver::{Algorithm, Integrals},
    path::{self, Path, Predicted, stored},
    training::{CURVES, Curve, SPACED, THRESHOLDING, TRAINED},
};
use crate::{Result, weights::Config};

/// The keys of the class in diffusers.
pub const KEYS: &[&[&str]] = &[
    TRAINED,
    SPACED,
    THRESHOLDING,
    CURVES,
    path::FLOW,
    &["rescale_betas_zero_snr", "solver_order", "algorithm_type", "solver_type", "lower_order_final", "euler_at_final"],
    &["use_lu_lambdas", "final_sigmas_type", "lambda_min_clipped", "variance_type"],
];

/// The numbers of its config that change the arithmetic.
pub struct DpmSolverMultistep {
    path: Path,
    order: usize,
    algorithm: Algorithm,
    lower_order_final: bool,
    euler_at_final: bool,
}

impl DpmSolverMultistep {
    /// # Errors
    /// `BadModel` for an option that this version cannot honour.
    pub fn read(config: &Config) -> Result<Self> {
        // A learnt variance is cut off before any solver sees it.
        config.ignore(&["variance_type"]);
        let mut path = Path::read(config, &[Curve::Plain])?;
        path.rounds = !path.training.cosine;
        let order = config.count("solver_order", 2)?;
        if order > 3 {
            return Err(config.wrong("solver_order", "this version knows 1, 2 and 3"));
        }
        let known = ["dpmsolver++", "sde-dpmsolver++", "dpmsolver", "sde-dpmsolver"];
        let algorithm = Algorithm::read(config, &known, &path)?;
        if order == 3 && algorithm.stochastic && algorithm.predicted == Predicted::Noise {
            return Err(config.wrong("solver_order", "sde-dpmsolver knows 1 and 2"));
        }
        Ok(Self {
            path,
            order,
            algorithm,
            lower_order_final: config.bool("lower_order_final", true)?,
            euler_at_final: config.bool("euler_at_final", false)?,
        })
    }

    /// The weights of a step to `sigmas[i + 1]`, of an order that as many earlier predictions as it needs allow.
    fn terms(&self, sigmas: &[f64], i: usize, order: usize) -> Vec<(Term, f64)> {
        let (to, from) = (self.path.point(sigmas[i + 1]), self.path.point(sigmas[i]));
        let h = to.lambda - from.lambda;
        let Integrals { x, first, second, third, noise } = self.algorithm.integrals(from, to, order);
        let mut weights = [first, 0.0, 0.0];
        if order >= 2 {
            let lambda = |back: usize| self.path.point(sigmas[i - back]).lambda;
            let r_0 = (lambda(0) - lambda(1)) / h;
            // D1_0 = (m0 - m1) / r0
            let difference = |weights: &mut [f64; 3], back: usize, weight: f64| {
                weights[back] += weight;
                weights[back + 1] -= weight;
            };
            if order == 2 {
                difference(&mut weights, 0, second / r_0);
            } else {
                let r_1 = (lambda(1) - lambda(2)) / h;
                // D1 = D1_0 + r0 / (r0 + r1) (D1_0 - D1_1), D2 = (D1_0 - D1_1) / (r0 + r1)
                let across = (second * r_0 + third) / (r_0 + r_1);
                difference(&mut weights, 0, (second + across) / r_0);
                difference(&mut weights, 1, -across / r_1);
            }
        }
        let mut terms = vec![(Term::X(0), x), (Term::Noise, noise)];
        for (back, weight) in weights.into_iter().enumerate().take(order) {
            terms.extend(self.path.term(self.algorithm.predicted, back, sigmas[i - back], weight));
        }
        terms
    }
}

impl Scheduler for DpmSolverMultistep {
    fn lay_out(&self, &Run { steps, begin, .. }: &Run) -> Result<Schedule> {
        self.path.training.check(steps)?;
        let last = if self.path.final_sigma_is_zero { 0.0 } else { self.path.smallest() };
        let (timesteps, sigmas) = stored(self.path.grid(steps), last);
        // Where lambda is clipped, the trailing spacing runs out earlier.
        let steps = timesteps.len();
        let short = self.lower_order_final && steps < path::LONG;
        let step = |i: usize| {
            let last = i + 1 == steps && (self.euler_at_final || short || self.path.final_sigma_is_zero);
            let order = match (i + 1 - begin).min(self.order) {
                _ if last => 1,
                3 if short && i + 2 == steps => 2,
                order => order,
            };
            self.path.step(timesteps[i], sigmas[i], self.terms(&sigmas, i, order))
        };
        Ok(Schedule { steps: (begin..steps).map(step).collect(), init_noise_sigma: 1.0 })
    }
}
