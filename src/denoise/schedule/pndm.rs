//! Pseudo linear multi-step (diffusers `PNDMScheduler`; Liu et al., arXiv 2202.09778).

use super::{
    Run, Schedule, Scheduler, Step, Term,
    training::{Defaults, Prediction, SPACED, TRAINED, Training, noised},
};
use crate::{Error, Result, weights::Config};

/// The keys of the class in diffusers.
pub const KEYS: &[&[&str]] = &[TRAINED, SPACED, &["skip_prk_steps", "set_alpha_to_one"]];

/// The numbers of its config that change the arithmetic.
pub struct Pndm {
    training: Training,
    final_alpha: f64,
    /// Start with the linear multi-step method at once, as latent diffusion does.
    skip_prk_steps: bool,
}

/// Steps that the Runge-Kutta method takes first, with four calls of the model each.
const RUNGE_KUTTA_STEPS: usize = 3;

impl Pndm {
    /// # Errors
    /// `BadModel` for an option that this version cannot honour.
    pub fn read(config: &Config) -> Result<Self> {
        let training = Training::read(config, &Defaults::LEADING)?;
        if training.prediction == Prediction::Sample {
            return Err(config.wrong("prediction_type", "this scheduler knows epsilon and v_prediction"));
        }
        Ok(Self {
            final_alpha: training.final_alpha(config, false)?,
            skip_prk_steps: config.bool("skip_prk_steps", false)?,
            training,
        })
    }

    /// Formula 9 of the paper: from `t` to `next` on the sample of `back` steps ago, along the weighted outputs.
    fn transfer(&self, told: f64, t: f64, next: f64, back: usize, outputs: &[(usize, f64)]) -> Step {
        let training = &self.training;
        let (a, b) = (training.alpha(t, self.final_alpha), training.alpha(next, self.final_alpha));
        let scale = (b / a).sqrt();
        let along = -(b - a) / (a * (1.0 - b).sqrt() + (a * (1.0 - a) * b).sqrt());
        // The weighted outputs are one prediction, whose epsilon it is.
        let epsilon = training.epsilon(a);
        let mut terms = vec![(Term::X(back), scale + along * epsilon.x)];
        terms.extend(outputs.iter().map(|(back, weight)| (Term::Output(*back), along * epsilon.output * weight)));
        let alpha_now = training.alpha(told, self.final_alpha);
        Step {
            timestep: told as f32,
            input_scale: 1.0,
            x_0: training.x_0(alpha_now),
            clip: None,
            noised: noised(alpha_now),
            corrected: Vec::new(),
            next: terms,
        }
    }

    /// Weights of the linear multi-step method for as many outputs as there are, by steps back.
    fn weights(outputs: &[usize]) -> Vec<(usize, f64)> {
        let weights: &[f64] = match outputs.len() {
            1 => &[1.0],
            2 => &[1.5, -0.5],
            3 => &[23.0 / 12.0, -16.0 / 12.0, 5.0 / 12.0],
            _ => &[55.0 / 24.0, -59.0 / 24.0, 37.0 / 24.0, -9.0 / 24.0],
        };
        outputs.iter().copied().zip(weights.iter().copied()).collect()
    }
}

impl Scheduler for Pndm {
    /// The model is called once more than there are steps, or nine times more with the Runge-Kutta start.
    fn lay_out(&self, &Run { steps, begin, .. }: &Run) -> Result<Schedule> {
        let training = &self.training;
        training.check(steps)?;
        let stride = (training.count() / steps) as f64;
        let spaced: Vec<f64> = training.timesteps(steps).into_iter().map(f64::round_ties_even).collect();
        let mut calls: Vec<Step> = Vec::new();
        // Call numbers of the outputs that the linear multi-step method looks back on, the latest first.
        let mut kept: Vec<usize> = Vec::new();
        let mut rest = Vec::new();
        if self.skip_prk_steps {
            // The second timestep stands there twice.
            rest.extend(spaced.iter().take(2).copied());
            rest.extend(spaced.iter().skip(1).copied());
            rest.drain(..begin.min(rest.len()));
        } else {
            if begin > 0 || steps <= RUNGE_KUTTA_STEPS {
                return Err(Error::bad_input(
                    "scheduler/scheduler_config.json: with `skip_prk_steps` false this scheduler takes at least 4 steps, from the first on",
                ));
            }
            let half = (training.count() / steps / 2) as f64;
            for pair in spaced.windows(2).take(RUNGE_KUTTA_STEPS) {
                let (t, next) = (pair[0], pair[1]);
                let middle = next + half;
                kept.insert(0, calls.len());
                calls.push(self.transfer(t, t, t - half, 0, &[(0, 1.0)]));
                calls.push(self.transfer(middle, t, middle, 1, &[(0, 1.0)]));
                calls.push(self.transfer(middle, t, middle - half, 2, &[(0, 1.0)]));
                let weights = [(3, 1.0 / 6.0), (2, 1.0 / 3.0), (1, 1.0 / 3.0), (0, 1.0 / 6.0)];
                calls.push(self.transfer(next, t, next, 3, &weights));
            }
            rest.extend(spaced.iter().skip(RUNGE_KUTTA_STEPS).copied());
        }
        for (i, t) in rest.into_iter().enumerate() {
            let now = calls.len();
            if self.skip_prk_steps && i == 1 {
                // The first step again, along the mean of both slopes.
                calls.push(self.transfer(t, t + stride, t, 1, &[(0, 0.5), (1, 0.5)]));
                continue;
            }
            kept.insert(0, now);
            kept.truncate(4);
            let back: Vec<usize> = kept.iter().map(|call| now - call).collect();
            calls.push(self.transfer(t, t, t - stride, 0, &Self::weights(&back)));
        }
        Ok(Schedule { steps: calls, init_noise_sigma: 1.0 })
    }
}
