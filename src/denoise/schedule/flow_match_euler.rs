//! Flow matching by Euler steps (diffusers `FlowMatchEulerDiscreteScheduler`; Esser et al., arXiv 2403.03206).
//!
//! `x_t = (1 - sigma) x_0 + sigma noise`; the model predicts the velocity `noise - x_0`.

use super::{Schedule, Update};
use crate::{Result, weights::Config};

/// The numbers of `scheduler/scheduler_config.json` that change the arithmetic.
#[derive(Clone, Debug)]
pub struct FlowMatchEulerConfig {
    pub num_train_timesteps: f32,
    pub shift: f64,
    pub shift_terminal: Option<f64>,
    pub spacing: Spacing,
}

/// How sigmas lie between the largest and the smallest.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum Spacing {
    /// As given and shifted.
    Plain,
    /// Karras et al., arXiv 2206.00364, with rho = 7.
    Karras,
    Exponential,
}

impl FlowMatchEulerConfig {
    /// # Errors
    /// `BadModel` for an option that this version cannot honour.
    pub fn read(config: &Config) -> Result<Self> {
        config.only("use_dynamic_shifting", false)?;
        config.only("invert_sigmas", false)?;
        config.only("stochastic_sampling", false)?;
        config.only("use_beta_sigmas", false)?;
        // These act only with dynamic shifting.
        config.ignore(&["base_shift", "max_shift", "base_image_seq_len", "max_image_seq_len", "time_shift_type"]);
        let (karras, exponential) =
            (config.bool("use_karras_sigmas", false)?, config.bool("use_exponential_sigmas", false)?);
        let spacing = match (karras, exponential) {
            (true, true) => {
                return Err(config.wrong("use_karras_sigmas", "it and `use_exponential_sigmas` cannot both be true"));
            }
            (true, false) => Spacing::Karras,
            (false, true) => Spacing::Exponential,
            (false, false) => Spacing::Plain,
        };
        let this = Self {
            num_train_timesteps: config.count("num_train_timesteps", 1000)? as f32,
            shift: config.f64("shift", 1.0)?,
            shift_terminal: config.opt_f64("shift_terminal")?.filter(|terminal| *terminal != 0.0),
            spacing,
        };
        if this.shift <= 0.0 {
            return Err(config.wrong("shift", "it must be above 0"));
        }
        if this.shift_terminal.is_some_and(|terminal| !(0.0..1.0).contains(&terminal)) {
            return Err(config.wrong("shift_terminal", "it must lie between 0 and 1"));
        }
        config.finish()?;
        Ok(this)
    }

    /// The schedule of `steps` (at least 1) steps from sigmas `linspace(1, 1 / steps, steps)`, as
    /// diffusers' `FluxPipeline` asks for it.
    pub fn schedule(&self, steps: usize) -> FlowMatchEuler {
        let last = steps.saturating_sub(1).max(1) as f64;
        let end = 1.0 / steps as f64;
        let mut sigmas: Vec<f64> = (0..steps)
            // diffusers rounds the given sigmas to f32 before it computes with them.
            .map(|i| f64::from((1.0 + (end - 1.0) * i as f64 / last) as f32))
            .map(|sigma| self.shift * sigma / (1.0 + (self.shift - 1.0) * sigma))
            .collect();
        // One step has nothing between its ends to stretch, and diffusers would divide by zero.
        if let (Some(terminal), true) = (self.shift_terminal, steps > 1) {
            let stretch = (1.0 - sigmas[steps - 1]) / (1.0 - terminal);
            sigmas.iter_mut().for_each(|sigma| *sigma = 1.0 - (1.0 - *sigma) / stretch);
        }
        let (first, final_sigma) = (sigmas[0], sigmas[steps - 1]);
        let between = |i: usize, a: f64, b: f64| a + (b - a) * i as f64 / last;
        match self.spacing {
            Spacing::Plain => {}
            Spacing::Karras => {
                const RHO: f64 = 7.0;
                let (a, b) = (first.powf(1.0 / RHO), final_sigma.powf(1.0 / RHO));
                sigmas = (0..steps).map(|i| between(i, a, b).powf(RHO)).collect();
            }
            Spacing::Exponential => {
                sigmas = (0..steps).map(|i| between(i, first.ln(), final_sigma.ln()).exp()).collect();
            }
        }
        let mut sigmas: Vec<f32> = sigmas.into_iter().map(|sigma| sigma as f32).collect();
        sigmas.push(0.0);
        FlowMatchEuler { sigmas, num_train_timesteps: self.num_train_timesteps }
    }
}

/// One run's sigmas, from 1 down to a final 0.
#[derive(Clone, Debug)]
pub struct FlowMatchEuler {
    sigmas: Vec<f32>,
    num_train_timesteps: f32,
}

impl FlowMatchEuler {
    /// `steps + 1` sigmas, the last 0.
    pub fn sigmas(&self) -> &[f32] {
        &self.sigmas
    }
}

impl Schedule for FlowMatchEuler {
    fn steps(&self) -> usize {
        self.sigmas.len() - 1
    }

    fn timestep(&self, step: usize) -> f32 {
        self.sigmas[step] * self.num_train_timesteps
    }

    fn init_noise_sigma(&self) -> f32 {
        1.0
    }

    fn update(&self, step: usize) -> Update {
        Update { x: 1.0, output: self.sigmas[step + 1] - self.sigmas[step] }
    }

    fn denoised(&self, step: usize) -> Update {
        Update { x: 1.0, output: -self.sigmas[step] }
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    /// A model that knows the straight line from noise to x_0 lands on x_0, in any number of steps.
    #[test]
    fn a_perfect_predictor_lands_on_x_0() {
        let config =
            |spacing, shift| FlowMatchEulerConfig { num_train_timesteps: 1000.0, shift, shift_terminal: None, spacing };
        for spacing in [Spacing::Plain, Spacing::Karras, Spacing::Exponential] {
            for steps in [1, 2, 3, 7, 50] {
                let schedule = config(spacing, 2.0).schedule(steps);
                assert_eq!(schedule.steps(), steps);
                assert!(schedule.sigmas().windows(2).all(|pair| pair[0] > pair[1]), "{:?}", schedule.sigmas());
                let (noise, x_0) = (1.7f32, -0.4f32);
                let mut x = noise * schedule.init_noise_sigma();
                for step in 0..steps {
                    let update = schedule.update(step);
                    let denoised = schedule.denoised(step);
                    assert!((denoised.x * x + denoised.output * (noise - x_0) - x_0).abs() < 1e-5);
                    x = update.x * x + update.output * (noise - x_0);
                }
                assert!((x - x_0).abs() < 1e-5, "{spacing:?} {steps}: {x}");
            }
        }
    }
}
