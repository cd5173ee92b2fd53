//! UniPC: a predictor, and a corrector that uses each call of the model once more (diffusers `UniPCMultistepScheduler`; Zhao
//! et al., arXiv 2302.04867).

use super::{
    Run, Schedule, Scheduler, Term,
    path::{self, Path, Predicted, along_flow, stored},
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
    &["rescale_betas_zero_snr", "solver_order", "solver_type", "lower_order_final", "predict_x0", "disable_corrector"],
    &["solver_p", "final_sigmas_type", "sigma_min", "sigma_max", "shift_terminal"],
];

/// Equations of more unknowns than this lose too many digits.
const LARGEST_ORDER: usize = 9;

/// The numbers of its config that change the arithmetic.
pub struct UniPc {
    path: Path,
    order: usize,
    predicted: Predicted,
    /// `B(h)` is h itself, rather than `e^h - 1`.
    bh1: bool,
    lower_order_final: bool,
    disable_corrector: Vec<usize>,
    shift_terminal: Option<f64>,
}

impl UniPc {
    /// # Errors
    /// `BadModel` for an option that this version cannot honour.
    pub fn read(config: &Config) -> Result<Self> {
        config.absent("solver_p")?;
        let path = Path::read(config, &[Curve::Plain, Curve::Karras])?;
        let order = config.count("solver_order", 2)?;
        if order > LARGEST_ORDER {
            return Err(config.wrong("solver_order", &format!("this version knows 1 to {LARGEST_ORDER}")));
        }
        let predicted = if config.bool("predict_x0", true)? { Predicted::X0 } else { Predicted::Noise };
        if predicted == Predicted::Noise && path.final_sigma_is_zero {
            return Err(config.wrong("predict_x0", "it must be true where `final_sigmas_type` is zero"));
        }
        if predicted == Predicted::Noise && path.flow.is_some() {
            return Err(config.wrong("predict_x0", "it must be true where `use_flow_sigmas` is"));
        }
        let shift_terminal = config.opt_f64("shift_terminal")?.filter(|terminal| *terminal != 0.0);
        if shift_terminal.is_some_and(|terminal| path.flow.is_none() || !(0.0..1.0).contains(&terminal)) {
            return Err(config.wrong("shift_terminal", "it must lie between 0 and 1, and `use_flow_sigmas` be true"));
        }
        Ok(Self {
            path,
            order,
            predicted,
            bh1: match config.str("solver_type", "bh2")? {
                "bh1" => true,
                // diffusers takes the names of its other solvers for the usual one.
                "bh2" | "midpoint" | "heun" | "logrho" => false,
                _ => return Err(config.wrong("solver_type", "this version knows bh1 and bh2")),
            },
            lower_order_final: config.bool("lower_order_final", true)?,
            disable_corrector: config.opt_usizes("disable_corrector")?.unwrap_or_default(),
            shift_terminal,
        })
    }

    /// Timesteps, and sigmas with the final one.
    fn grid(&self, steps: usize) -> (Vec<f64>, Vec<f64>) {
        let path = &self.path;
        let grid = match (path.flow, path.curved(steps)) {
            (Some(_), Some((_, sigmas))) => path.told(sigmas.into_iter().map(|sigma| sigma / (sigma + 1.0)).collect()),
            (Some(shift), None) => {
                let mut sigmas = along_flow(1.0, 1.0 / path.training.count() as f64, shift, steps);
                if let Some(terminal) = self.shift_terminal {
                    let stretch = (1.0 - sigmas[steps - 1]) / (1.0 - terminal);
                    sigmas.iter_mut().for_each(|sigma| *sigma = 1.0 - (1.0 - *sigma) / stretch);
                }
                // At 1 there would be no signal, and lambda infinite.
                sigmas[0] = sigmas[0].min(1.0 - 1e-6);
                path.told(sigmas)
            }
            (None, Some(grid)) => grid,
            (None, None) => path.plain(steps),
        };
        let last = match path.final_sigma_is_zero {
            true => 0.0,
            false if path.flow.is_none() && path.curve == Curve::Plain => path.smallest(),
            false => grid.1[steps - 1],
        };
        stored(grid, last)
    }

    /// The weights of `x_t`, the corrected one of `back` calls ago, and of predictions that lead from `sigmas[i]` to the
    /// next. The predictor knows `order` predictions up to that of `i`, the corrector also that of `i + 1`, which is the
    /// latest then.
    fn terms(&self, sigmas: &[f64], i: usize, order: usize, corrects: bool) -> Vec<(Term, f64)> {
        let back = usize::from(corrects);
        let (to, from) = (self.path.point(sigmas[i + 1]), self.path.point(sigmas[i]));
        let h = to.lambda - from.lambda;
        let (x, scale, way) = match self.predicted {
            Predicted::X0 => (to.sigma / from.sigma, to.alpha, -h),
            Predicted::Noise => (to.alpha / from.alpha, to.sigma, h),
        };
        let term = |ago: usize, weight: f64| self.path.term(self.predicted, back + ago, sigmas[i - ago], weight);
        // Where the predictions lie along the step, which itself is 1.
        let mut places: Vec<f64> =
            (1..order).map(|ago| (self.path.point(sigmas[i - ago]).lambda - from.lambda) / h).collect();
        if corrects {
            places.push(1.0);
        }
        let b_h = if self.bh1 { way } else { way.exp_m1() };
        let mut first = -scale * way.exp_m1();
        let mut terms = vec![(Term::Corrected(back), x)];
        for (k, (place, rho)) in places.iter().zip(rhos(&places, way, b_h)).enumerate() {
            let weight = -scale * b_h * rho / place;
            first -= weight;
            terms.extend(match corrects && k + 1 == places.len() {
                true => self.path.term(self.predicted, 0, sigmas[i + 1], weight),
                false => term(k + 1, weight),
            });
        }
        terms.extend(term(0, first));
        terms
    }
}

/// What the differences weigh: the solution of `sum over k of place_k^(n - 1) rho_k = b_n`; a single one is one half.
fn rhos(places: &[f64], way: f64, b_h: f64) -> Vec<f64> {
    let n = places.len();
    if n == 1 {
        return vec![0.5];
    }
    // Each row's right side stands at its end.
    let mut rows: Vec<Vec<f64>> = Vec::with_capacity(n);
    let (mut phi, mut factorial) = (way.exp_m1() / way - 1.0, 1.0);
    for power in 0..n {
        let mut row: Vec<f64> = places.iter().map(|place| place.powi(power as i32)).collect();
        row.push(phi * factorial / b_h);
        rows.push(row);
        factorial *= (power + 2) as f64;
        phi = phi / way - 1.0 / factorial;
    }
    for column in 0..n {
        let largest = (column..n).max_by(|a, b| rows[*a][column].abs().total_cmp(&rows[*b][column].abs()));
        rows.swap(column, largest.unwrap_or(column));
        let pivot = rows[column].clone();
        for (_, row) in rows.iter_mut().enumerate().filter(|(i, _)| *i != column) {
            let factor = row[column] / pivot[column];
            row.iter_mut().zip(&pivot).for_each(|(value, pivot)| *value -= factor * pivot);
        }
    }
    rows.iter().enumerate().map(|(i, row)| row[n] / row[i]).collect()
}

impl Scheduler for UniPc {
    fn lay_out(&self, &Run { steps, begin, .. }: &Run) -> Result<Schedule> {
        self.path.training.check(steps)?;
        let (timesteps, sigmas) = self.grid(steps);
        let order = |i: usize| {
            let most = match self.lower_order_final {
                true => self.order.min(steps - i),
                // Where no noise is left there is no way to measure.
                false if sigmas[i + 1] == 0.0 => 1,
                false => self.order,
            };
            most.min(i + 1 - begin)
        };
        let step = |i: usize| {
            let mut step = self.path.step(timesteps[i], sigmas[i], self.terms(&sigmas, i, order(i), false));
            if i > begin && !self.disable_corrector.contains(&(i - 1)) {
                step.corrected = self.terms(&sigmas, i - 1, order(i - 1), true);
            }
            step
        };
        Ok(Schedule { steps: (begin..steps).map(step).collect(), init_noise_sigma: 1.0 })
    }
}
