//! The loop: from noise, step by step, to what the autoencoder decodes.

use super::{
    Guidance,
    dit::pixart::PixArt,
    schedule::{Schedule, Update},
};
use crate::{
    Result,
    values::{Latent, TextEmbedding},
};

/// A network that predicts, from `x_t` and text, what its schedule steps along.
pub trait Denoiser {
    /// `x_t` `[N, C, H, W]`, `timesteps` `[N]`; `picture` is (height, width) in pixels. Gives `[N, C, H, W]`.
    ///
    /// # Errors
    /// Where the network cannot take these shapes.
    fn predict(&self, x_t: Latent, timesteps: &[f32], text: &TextEmbedding, picture: (usize, usize)) -> Result<Latent>;
}

impl Denoiser for PixArt {
    fn predict(&self, x_t: Latent, timesteps: &[f32], text: &TextEmbedding, picture: (usize, usize)) -> Result<Latent> {
        let channels = x_t.dims()[1];
        let output = self.forward(x_t, timesteps, text, picture)?;
        // Models that learnt their variance too give it as a second half, which no solver here uses.
        Ok(output.narrow(1, 0, channels))
    }
}

/// A run in progress: call [`step`](Self::step) until it gives `None`, whenever you like; to cancel, stop calling.
pub struct Denoising<'a> {
    denoiser: &'a dyn Denoiser,
    guidance: &'a Guidance,
    schedule: &'a dyn Schedule,
    picture: (usize, usize),
    x_t: Latent,
    step: usize,
}

/// What one step gave.
pub struct StepOutcome {
    /// Steps done so far, from 1.
    pub step: usize,
    /// After the step.
    pub x_t: Latent,
    /// What the model would draw if it stopped here.
    pub x_0: Latent,
}

impl<'a> Denoising<'a> {
    /// Starts from unit `noise`, `[1, C, H, W]`; `picture` is (height, width) in pixels.
    pub fn new(
        denoiser: &'a dyn Denoiser,
        guidance: &'a Guidance,
        schedule: &'a dyn Schedule,
        noise: Latent,
        picture: (usize, usize),
    ) -> Self {
        let x_t = noise * schedule.init_noise_sigma();
        Self { denoiser, guidance, schedule, picture, x_t, step: 0 }
    }

    /// The latent as it stands: at first the scaled noise, at last what the autoencoder decodes.
    pub fn x_t(&self) -> &Latent {
        &self.x_t
    }

    /// Takes the next step, or gives `None` when all are taken.
    ///
    /// # Errors
    /// Those of the denoiser.
    pub fn step(&mut self) -> Result<Option<StepOutcome>> {
        if self.step == self.schedule.steps() {
            return Ok(None);
        }
        let output =
            self.guidance.predict(self.denoiser, &self.x_t, self.schedule.timestep(self.step), self.picture)?;
        let apply = |Update { x, output: o }: Update| self.x_t.clone() * x + output.clone() * o;
        let x_0 = apply(self.schedule.denoised(self.step));
        let x_t = apply(self.schedule.update(self.step));
        self.x_t = x_t.clone();
        self.step += 1;
        Ok(Some(StepOutcome { step: self.step, x_t, x_0 }))
    }
}
