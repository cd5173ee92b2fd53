//! What both DPM-Solvers share: the integrals of one step (Lu et al., arXiv 2206.00927 and 2211.01095).

use super::path::{Path, Point, Predicted};
use crate::{Result, weights::Config};

/// `algorithm_type` and `solver_type`.
pub struct Algorithm {
    pub predicted: Predicted,
    pub stochastic: bool,
    pub heun: bool,
}

/// What weighs `x_t`, the prediction, its first two differences and fresh noise.
pub struct Integrals {
    pub x: f64,
    pub first: f64,
    pub second: f64,
    pub third: f64,
    pub noise: f64,
}

impl Algorithm {
    /// `known` are the algorithms of the class.
    ///
    /// # Errors
    /// `BadModel` for an option that this version cannot honour.
    pub fn read(config: &Config, known: &[&str], path: &Path) -> Result<Self> {
        // diffusers takes the names of its other solvers for the nearest of these.
        let algorithm = match config.str("algorithm_type", "dpmsolver++")? {
            "deis" => "dpmsolver++",
            name if known.contains(&name) => name,
            _ => return Err(config.wrong("algorithm_type", &format!("this version knows {}", known.join(", ")))),
        };
        let predicted = if algorithm.ends_with("++") { Predicted::X0 } else { Predicted::Noise };
        if predicted == Predicted::Noise && path.final_sigma_is_zero {
            return Err(config.wrong("final_sigmas_type", &format!("it must be sigma_min for {algorithm}")));
        }
        Ok(Self {
            predicted,
            stochastic: algorithm.starts_with("sde-"),
            heun: match config.str("solver_type", "midpoint")? {
                "midpoint" | "logrho" | "bh1" | "bh2" => false,
                "heun" => true,
                _ => return Err(config.wrong("solver_type", "this version knows midpoint and heun")),
            },
        })
    }

    /// Of a step of `order` between two places.
    pub fn integrals(&self, from: Point, to: Point, order: usize) -> Integrals {
        let h = to.lambda - from.lambda;
        // Both predictions are integrated alike, from either end; noise doubles the way, or else the weight.
        let (x, scale, way) = match (self.predicted, self.stochastic) {
            (Predicted::X0, false) => (to.sigma / from.sigma, to.alpha, -h),
            (Predicted::X0, true) => (to.sigma / from.sigma * (-h).exp(), to.alpha, -2.0 * h),
            (Predicted::Noise, false) => (to.alpha / from.alpha, to.sigma, h),
            (Predicted::Noise, true) => (to.alpha / from.alpha, 2.0 * to.sigma, h),
        };
        let grown = way.exp_m1();
        let first = -scale * grown;
        let noise = match (self.predicted, self.stochastic) {
            (_, false) => 0.0,
            (Predicted::X0, true) => to.sigma * (-grown).max(0.0).sqrt(),
            (Predicted::Noise, true) => to.sigma * (2.0 * h).exp_m1().max(0.0).sqrt(),
        };
        // The way is infinite only in steps of the first order.
        let second = if self.heun || order == 3 { -scale * (grown / way - 1.0) } else { 0.5 * first };
        // The reference's sign of one half differs with noise.
        let half = if self.stochastic { -0.5 } else { 0.5 };
        let third = -scale * ((grown - way) / (way * way) - half);
        Integrals { x, first, second, third, noise }
    }
}
