//! Classifier-free guidance (Ho and Salimans, arXiv 2207.12598).

use burn::tensor::Tensor;

use super::{Condition, Denoiser};
use crate::{Result, values::Latent};

/// Skip-layer guidance: early in a run, a further call without some layers tells what the prediction is pushed away from
/// (diffusers' `skip_guidance_layers`, after Stability AI's Stable Diffusion 3.5 medium).
#[derive(Clone, Debug, PartialEq)]
pub struct SkipLayers {
    /// From 0.
    pub layers: Vec<usize>,
    pub scale: f32,
    /// It acts in the steps strictly between these shares of them all.
    pub start: f64,
    pub stop: f64,
}

impl SkipLayers {
    /// With diffusers' defaults.
    pub fn new(layers: Vec<usize>) -> Self {
        Self { layers, scale: 2.8, start: 0.01, stop: 0.2 }
    }

    /// Whether it acts in `step`, from 0, of `steps`.
    pub fn acts(&self, step: usize, steps: usize) -> bool {
        let [step, steps] = [step, steps].map(|count| count as f64);
        step > steps * self.start && step < steps * self.stop
    }
}

impl std::str::FromStr for SkipLayers {
    type Err = String;

    /// The layers, with commas between them.
    fn from_str(text: &str) -> std::result::Result<Self, Self::Err> {
        let layers = text.split(',').map(|layer| layer.trim().parse()).collect::<std::result::Result<_, _>>();
        layers.map(Self::new).map_err(|_| "write whole numbers with commas between them, for example 7,8,9".to_owned())
    }
}

/// A prompt's embedding and, where it guides, the negative prompt's: `v_neg + g (v_pos - v_neg)`.
pub struct Guidance {
    scale: f32,
    condition: Condition,
    /// With the steps of the run.
    skip: Option<(SkipLayers, usize)>,
}

impl Guidance {
    /// `condition.text` holds the negative prompt's embedding and the positive's (`N` = 2), or the positive's
    /// alone (`N` = 1), which is then not guided.
    pub fn new(scale: f32, condition: Condition) -> Self {
        Self { scale, condition, skip: None }
    }

    /// Guides by skipped layers, too, in a run of `steps` steps.
    pub fn with_skip_layers(self, skip: SkipLayers, steps: usize) -> Self {
        Self { skip: Some((skip, steps)), ..self }
    }

    /// The guided prediction for one picture, `[1, C, H, W]` in and out; both prompts go through in one batch. `step`
    /// counts from 0.
    ///
    /// # Errors
    /// Those of the denoiser.
    pub fn predict(&self, denoiser: &dyn Denoiser, x_t: Latent, timestep: f32, step: usize) -> Result<Latent> {
        let [_, channels, _, _] = x_t.dims();
        let x_t = match &self.condition.extra {
            Some(extra) => Tensor::cat(vec![x_t, extra.clone()], 1),
            None => x_t,
        };
        let [n, _, _] = self.condition.text.hidden.dims();
        let output = denoiser.predict(x_t.clone().repeat_dim(0, n), &vec![timestep; n], &self.condition)?;
        // Models that learnt their variance too give it as a second half, which no solver here uses.
        let output = output.narrow(1, 0, channels);
        if n == 1 {
            return Ok(output);
        }
        let (negative, positive) = (output.clone().narrow(0, 0, 1), output.narrow(0, 1, 1));
        let guided = negative.clone() + (positive.clone() - negative) * self.scale;
        let acts = |(skip, steps): &&(SkipLayers, usize)| skip.acts(step, *steps);
        let Some((skip, _)) = self.skip.as_ref().filter(acts) else { return Ok(guided) };
        let without =
            Condition { text: self.condition.text.last(), skip_layers: skip.layers.clone(), ..self.condition.clone() };
        let skipped = denoiser.predict(x_t, &[timestep], &without)?.narrow(1, 0, channels);
        Ok(guided + (positive - skipped) * skip.scale)
    }
}
