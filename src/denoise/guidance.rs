//! Classifier-free guidance (Ho and Salimans, arXiv 2207.12598).

use burn::tensor::Tensor;

use super::run::Denoiser;
use crate::{
    Result,
    values::{Latent, TextEmbedding},
};

/// A prompt's embedding and, where guidance is not 1, the negative prompt's: `v_neg + g (v_pos - v_neg)`.
pub struct Guidance {
    scale: f32,
    /// Negative then positive; the positive alone where the scale is 1.
    text: TextEmbedding,
}

impl Guidance {
    /// `text` holds the negative prompt's embedding and the positive's (`N` = 2) or, for a scale of 1,
    /// the positive's alone (`N` = 1).
    pub fn new(scale: f32, text: TextEmbedding) -> Self {
        Self { scale, text }
    }

    /// Whether a scale needs the negative prompt at all.
    pub fn needs_negative(scale: f32) -> bool {
        scale != 1.0
    }

    /// The guided prediction for one picture, `[1, C, H, W]` in and out; both prompts go through in one batch.
    ///
    /// # Errors
    /// Those of the denoiser.
    pub fn predict(
        &self,
        denoiser: &dyn Denoiser,
        x_t: &Latent,
        timestep: f32,
        picture: (usize, usize),
    ) -> Result<Latent> {
        if !Self::needs_negative(self.scale) {
            return denoiser.predict(x_t.clone(), &[timestep], &self.text, picture);
        }
        let both = Tensor::cat(vec![x_t.clone(), x_t.clone()], 0);
        let output = denoiser.predict(both, &[timestep; 2], &self.text, picture)?;
        let (negative, positive) = (output.clone().narrow(0, 0, 1), output.narrow(0, 1, 1));
        Ok(negative.clone() + (positive - negative) * self.scale)
    }
}
