//! Noise schedules and the steps of their solvers: plain numbers, one file per algorithm.
//!
//! Every solver here is linear in its tensors, so a step is told by its coefficients, and the loop
//! ([`super::Denoising`]) applies them.

pub mod flow_match_euler;

/// One step: `x_next = x * x_t + output * model_output`.
#[derive(Clone, Copy, Debug, PartialEq)]
pub struct Update {
    pub x: f32,
    pub output: f32,
}

/// The steps of one run, from noise to picture.
pub trait Schedule {
    /// How many steps there are.
    fn steps(&self) -> usize;

    /// What the denoiser is told at `step`: sigma or t, times 1000.
    fn timestep(&self, step: usize) -> f32;

    /// The factor on unit noise that gives the `x_t` of the first step.
    fn init_noise_sigma(&self) -> f32;

    /// From `x_t` to the next.
    fn update(&self, step: usize) -> Update;

    /// From `x_t` to the predicted `x_0`, for previews.
    fn denoised(&self, step: usize) -> Update;
}
