//! Flow matching by Heun's method: a step ahead, then again with the mean of both slopes
//! (diffusers `FlowMatchHeunDiscreteScheduler`).

use super::{
    Extra, Run, Schedule, Scheduler, Step, Term,
    flow_match_euler::step,
    training::{linspace, shifted},
};
use crate::{Result, weights::Config};

/// The keys of the class in diffusers.
pub const KEYS: &[&[&str]] = &[&["num_train_timesteps", "shift"]];

/// The numbers of its config that change the arithmetic.
pub struct FlowMatchHeun {
    num_train_timesteps: usize,
    shift: f64,
}

impl FlowMatchHeun {
    /// # Errors
    /// `BadModel` for a value that is out of range.
    pub fn read(config: &Config) -> Result<Self> {
        let this =
            Self { num_train_timesteps: config.count("num_train_timesteps", 1000)?, shift: config.f64("shift", 1.0)? };
        if this.shift <= 0.0 {
            return Err(config.wrong("shift", "it must be above 0"));
        }
        Ok(this)
    }
}

impl Scheduler for FlowMatchHeun {
    /// `begin` counts calls of the model: an even one is the second of its step.
    fn lay_out(&self, &Run { steps, begin, churn, .. }: &Run) -> Result<Schedule> {
        let smallest = shifted(1.0 / self.num_train_timesteps as f64, self.shift);
        let mut sigmas: Vec<f64> =
            linspace(1.0, smallest, steps).into_iter().map(|sigma| shifted(sigma, self.shift)).collect();
        sigmas.push(0.0);
        let mut calls: Vec<Step> = Vec::new();
        for pair in sigmas.windows(2) {
            let (sigma, next) = (pair[0], pair[1]);
            // The reference lets the model see x_t as it was, and adds the noise only then.
            let (raised, noise) = churn.map_or((sigma, 0.0), |churn| churn.raise(sigma, 2 * steps - 1));
            let (along, slope) = (next - raised, sigma / raised);
            let ahead = vec![(Term::X(0), 1.0), (Term::Noise, noise), (Term::Output(0), along * slope)];
            calls.push(step(sigma, self.num_train_timesteps, ahead));
            if next > 0.0 {
                // What was reached, with half of the first slope taken back for half of the second.
                let half = along / 2.0;
                let corrected = vec![(Term::X(0), 1.0), (Term::Output(1), -half * slope), (Term::Output(0), half)];
                calls.push(step(next, self.num_train_timesteps, corrected));
            }
        }
        Ok(Schedule { steps: calls.split_off(begin.min(calls.len())), init_noise_sigma: 1.0 })
    }

    fn order(&self) -> usize {
        2
    }

    fn has(&self, extra: Extra) -> bool {
        extra == Extra::Churn
    }
}
