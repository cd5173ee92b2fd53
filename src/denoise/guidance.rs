//! Classifier-free guidance (Ho and Salimans, arXiv 2207.12598).

use super::{Condition, Denoiser, Prepared};
use crate::{Result, values::Latent, weights::join};

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

/// A network in a run whose predictions are guided: `v_neg + g (v_pos - v_neg)`.
pub struct Guidance<'a> {
    scale: f32,
    /// One for all prompts, or one for each where they take turns.
    networks: Vec<Prepared<'a>>,
    /// 2 with a negative prompt, or 1.
    prompts: usize,
    skip: Option<Skip<'a>>,
}

/// The network without some layers, for the positive prompt alone.
struct Skip<'a> {
    network: Prepared<'a>,
    layers: SkipLayers,
    /// Of the run.
    steps: usize,
}

impl<'a> Guidance<'a> {
    /// `condition.text` holds the negative prompt's embedding and the positive's (`N` = 2), or the positive's
    /// alone (`N` = 1), which is then not guided. With `turns` they go through one after the other, in half the memory.
    /// `skip` guides by skipped layers, too, in a run of so many steps. The rest is as [`Denoiser::prepare`] has it.
    ///
    /// # Errors
    /// Those of the denoiser.
    pub fn new(
        denoiser: &'a dyn Denoiser,
        condition: &Condition,
        scale: f32,
        turns: bool,
        skip: Option<(&SkipLayers, usize)>,
        timesteps: &[f32],
        latent: [usize; 2],
    ) -> Result<Self> {
        let [prompts, _, _] = condition.text.hidden.dims();
        let skip = skip.map(|(skip, steps)| {
            let without =
                Condition { text: condition.text.last(), skip_layers: skip.layers.clone(), ..condition.clone() };
            Ok(Skip { network: denoiser.prepare(&without, timesteps, latent)?, layers: skip.clone(), steps })
        });
        let texts = if turns { condition.text.rows() } else { vec![condition.text.clone()] };
        let networks =
            texts.into_iter().map(|text| denoiser.prepare(&Condition { text, ..condition.clone() }, timesteps, latent));
        Ok(Self { scale, networks: networks.collect::<Result<_>>()?, prompts, skip: skip.transpose()? })
    }

    /// The guided prediction for one picture, `[frames, C, H, W]` in and out, at a step, from 0.
    ///
    /// # Errors
    /// Those of the denoiser.
    pub fn predict(&self, x_t: Latent, step: usize) -> Result<Latent> {
        let [frames, _, _, _] = x_t.dims();
        let together = self.prompts / self.networks.len();
        // burn would copy a single one, too.
        let rows = if together == 1 { x_t.clone() } else { x_t.clone().repeat_dim(0, together) };
        let outputs = self.networks.iter().map(|network| network(rows.clone(), step));
        let output = join(outputs.collect::<Result<_>>()?);
        if self.prompts == 1 {
            return Ok(output);
        }
        let (negative, positive) = (output.clone().narrow(0, 0, frames), output.narrow(0, frames, frames));
        let guided = negative.clone() + (positive.clone() - negative) * self.scale;
        let acts = |skip: &&Skip| skip.layers.acts(step, skip.steps);
        let Some(skip) = self.skip.as_ref().filter(acts) else { return Ok(guided) };
        let skipped = (skip.network)(x_t, step)?;
        Ok(guided + (positive - skipped) * skip.layers.scale)
    }
}
