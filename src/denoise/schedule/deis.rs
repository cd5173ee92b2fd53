//! DEIS: the predicted noise as a polynomial in the logarithm of rho, integrated exactly (diffusers `DEISMultistepScheduler`;
//! Zhang and Chen, arXiv 2204.13902).

use super::{
    Run, Schedule, Scheduler, Term,
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
    &["solver_order", "algorithm_type", "solver_type", "lower_order_final"],
];

/// The numbers of its config that change the arithmetic.
pub struct Deis {
    path: Path,
    order: usize,
    lower_order_final: bool,
}

impl Deis {
    /// # Errors
    /// `BadModel` for an option that this version cannot honour.
    pub fn read(config: &Config) -> Result<Self> {
        // diffusers takes the names of its other solvers for these.
        match config.str("algorithm_type", "deis")? {
            "deis" | "dpmsolver" | "dpmsolver++" => {}
            _ => return Err(config.wrong("algorithm_type", "this version knows deis")),
        }
        match config.str("solver_type", "logrho")? {
            "logrho" | "midpoint" | "heun" | "bh1" | "bh2" => {}
            _ => return Err(config.wrong("solver_type", "this version knows logrho")),
        }
        let order = config.count("solver_order", 2)?;
        if order > 3 {
            return Err(config.wrong("solver_order", "this version knows 1, 2 and 3"));
        }
        let lower_order_final = config.bool("lower_order_final", true)?;
        Ok(Self { path: Path::read(config, &[Curve::Plain])?, order, lower_order_final })
    }

    /// The weights of a step to `sigmas[i + 1]`, of an order that as many earlier predictions as it needs allow.
    fn terms(&self, sigmas: &[f64], i: usize, order: usize) -> Vec<(Term, f64)> {
        let (to, from) = (self.path.point(sigmas[i + 1]), self.path.point(sigmas[i]));
        // The logarithm of rho = sigma / alpha is minus lambda. With u counted from this step's beginning, the integral
        // over rho of a polynomial p(u) is rho (p - p' + p'').
        let u: Vec<f64> = (0..order).map(|back| from.lambda - self.path.point(sigmas[i - back]).lambda).collect();
        let (rho, end) = (from.sigma / from.alpha, from.lambda - to.lambda);
        let mut terms = vec![(Term::X(0), to.alpha / from.alpha)];
        for back in 0..order {
            let others: Vec<f64> = (0..order).filter(|other| *other != back).map(|other| u[other]).collect();
            let scale: f64 = others.iter().map(|other| u[back] - other).product();
            let integral = |at: f64| {
                let (value, slope, bend) = match others.as_slice() {
                    [a, b] => ((at - a) * (at - b), 2.0 * at - a - b, 2.0),
                    [a] => (at - a, 1.0, 0.0),
                    _ => (1.0, 0.0, 0.0),
                };
                rho * at.exp() * (value - slope + bend)
            };
            let weight = to.alpha * (integral(end) - integral(0.0)) / scale;
            terms.extend(self.path.term(Predicted::Noise, back, sigmas[i - back], weight));
        }
        terms
    }
}

impl Scheduler for Deis {
    fn lay_out(&self, &Run { steps, begin, .. }: &Run) -> Result<Schedule> {
        self.path.training.check(steps)?;
        let grid = self.path.grid(steps);
        // The run ends before all noise is gone; along a curve the last step stays where it is.
        let plain = self.path.flow.is_none() && self.path.curve == Curve::Plain;
        let last = if plain { self.path.smallest() } else { grid.1[steps - 1] };
        let (timesteps, sigmas) = stored(grid, last);
        let short = self.lower_order_final && steps < path::LONG;
        let step = |i: usize| {
            let order = match (i + 1 - begin).min(self.order) {
                _ if short && i + 1 == steps => 1,
                3 if short && i + 2 == steps => 2,
                order => order,
            };
            self.path.step(timesteps[i], sigmas[i], self.terms(&sigmas, i, order))
        };
        Ok(Schedule { steps: (begin..steps).map(step).collect(), init_noise_sigma: 1.0 })
    }
}
