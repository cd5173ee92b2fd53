//! DPM-Solver++ and the DPM-Solver before it, each step from its own calls of the model (diffusers
//! `DPMSolverSinglestepScheduler`; Lu et al., arXiv 2211.01095).

use super::{
    Run, Schedule, Scheduler, Term,
    dpm_solver::{Algorithm, Integrals},
    path::{self, Path, stored},
    training::{CURVES, Curve, THRESHOLDING, TRAINED},
};
use crate::{Result, weights::Config};

/// The keys of the class in diffusers.
pub const KEYS: &[&[&str]] = &[
    TRAINED,
    THRESHOLDING,
    CURVES,
    path::FLOW,
    &["solver_order", "algorithm_type", "solver_type", "lower_order_final"],
    &["final_sigmas_type", "lambda_min_clipped", "variance_type"],
];

/// The numbers of its config that change the arithmetic.
pub struct DpmSolverSinglestep {
    path: Path,
    order: usize,
    algorithm: Algorithm,
    lower_order_final: bool,
}

impl DpmSolverSinglestep {
    /// # Errors
    /// `BadModel` for an option that this version cannot honour.
    pub fn read(config: &Config) -> Result<Self> {
        // A learnt variance is cut off before any solver sees it.
        config.ignore(&["variance_type"]);
        let path = Path::read(config, &[Curve::Plain])?;
        let order = config.count("solver_order", 2)?;
        if order > 3 {
            return Err(config.wrong("solver_order", "this version knows 1, 2 and 3"));
        }
        Ok(Self {
            algorithm: Algorithm::read(config, &["dpmsolver++", "sde-dpmsolver++", "dpmsolver"], &path)?,
            order,
            lower_order_final: config.bool("lower_order_final", false)?,
            path,
        })
    }

    /// The order of each call, counted from where its step began.
    fn orders(&self, steps: usize) -> Vec<usize> {
        let mut orders: Vec<usize> = (0..steps).map(|i| i % self.order + 1).collect();
        // A last step that is not whole is of a lower order as it is.
        if self.path.final_sigma_is_zero || self.lower_order_final && steps.is_multiple_of(self.order) {
            orders[steps - 1] = 1;
        }
        orders
    }

    /// The weights of a call to `sigmas[i + 1]` from where its step of `order` calls began.
    fn terms(&self, sigmas: &[f64], i: usize, order: usize) -> Vec<(Term, f64)> {
        let first_call = order - 1;
        let (to, from) = (self.path.point(sigmas[i + 1]), self.path.point(sigmas[i - first_call]));
        let Integrals { x, first, second, third, noise } = self.algorithm.integrals(from, to, order);
        // How far along the step the prediction of a call lies.
        let ratio = |back: usize| (self.path.point(sigmas[i - back]).lambda - from.lambda) / (to.lambda - from.lambda);
        let mut weights = [0.0; 3];
        weights[first_call] = first;
        // The difference of a prediction from the step's first.
        let mut difference = |back: usize, weight: f64| {
            weights[back] += weight / ratio(back);
            weights[first_call] -= weight / ratio(back);
        };
        match order {
            1 => {}
            2 => difference(0, second),
            _ if !self.algorithm.heun => difference(0, second),
            _ => {
                // D1 = (r0 D1_0 - r1 D1_1) / (r0 - r1), D2 = 2 (D1_1 - D1_0) / (r0 - r1)
                let (r_0, r_1) = (ratio(0), ratio(1));
                difference(1, (second * r_0 - 2.0 * third) / (r_0 - r_1));
                difference(0, (2.0 * third - second * r_1) / (r_0 - r_1));
            }
        }
        let mut terms = vec![(Term::X(first_call), x), (Term::Noise, noise)];
        for (back, weight) in weights.into_iter().enumerate().take(order) {
            terms.extend(self.path.term(self.algorithm.predicted, back, sigmas[i - back], weight));
        }
        terms
    }
}

impl Scheduler for DpmSolverSinglestep {
    fn lay_out(&self, &Run { steps, begin, .. }: &Run) -> Result<Schedule> {
        self.path.training.check(steps)?;
        let last = if self.path.final_sigma_is_zero { 0.0 } else { self.path.smallest() };
        let (timesteps, sigmas) = stored(self.path.grid(steps), last);
        let orders = self.orders(steps);
        let step = |i: usize| {
            let order = orders[i].min(i + 1 - begin);
            self.path.step(timesteps[i], sigmas[i], self.terms(&sigmas, i, order))
        };
        Ok(Schedule { steps: (begin..steps).map(step).collect(), init_noise_sigma: 1.0 })
    }
}
