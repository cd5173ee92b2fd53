//! Classifier-free guidance (Ho and Salimans, arXiv 2207.12598).

use burn::tensor::Tensor;

use super::{Condition, Denoiser};
use crate::{Result, values::Latent};

/// A prompt's embedding and, where it guides, the negative prompt's: `v_neg + g (v_pos - v_neg)`.
pub struct Guidance {
    scale: f32,
    condition: Condition,
}

impl Guidance {
    /// `condition.text` holds the negative prompt's embedding and the positive's (`N` = 2), or the positive's
    /// alone (`N` = 1), which is then not guided.
    pub fn new(scale: f32, condition: Condition) -> Self {
        Self { scale, condition }
    }

    /// The guided prediction for one picture, `[1, C, H, W]` in and out; both prompts go through in one batch.
    ///
    /// # Errors
    /// Those of the denoiser.
    pub fn predict(&self, denoiser: &dyn Denoiser, x_t: Latent, timestep: f32) -> Result<Latent> {
        let [_, channels, _, _] = x_t.dims();
        let x_t = match &self.condition.extra {
            Some(extra) => Tensor::cat(vec![x_t, extra.clone()], 1),
            None => x_t,
        };
        let [n, _, _] = self.condition.text.hidden.dims();
        let output = denoiser.predict(x_t.repeat_dim(0, n), &vec![timestep; n], &self.condition)?;
        // Models that learnt their variance too give it as a second half, which no solver here uses.
        let output = output.narrow(1, 0, channels);
        if n == 1 {
            return Ok(output);
        }
        let (negative, positive) = (output.clone().narrow(0, 0, 1), output.narrow(0, 1, 1));
        Ok(negative.clone() + (positive - negative) * self.scale)
    }
}
