//! What a network of this room is, and what it is told.

use super::{Frames, MotionConfig};
use crate::{
    Error, Result,
    values::{Latent, TextEmbedding},
    weights::Params,
};

/// What stays the same for every call of the network in a run.
#[derive(Clone)]
pub struct Condition {
    /// `N` is 1, or 2 with the negative prompt first.
    pub text: TextEmbedding,
    /// (height, width) in pixels.
    pub picture: (usize, usize),
    /// For networks that are told the guidance rather than called twice.
    pub guidance: f32,
    /// How many frames an animation has; 1 is a still. Each prompt's are `x_t`'s `N`, one after the other.
    pub frames: usize,
    /// Layers that are left out, of networks that can.
    pub skip_layers: Vec<usize>,
    /// A token for each patch, rows from the top, of networks that are told them; the negative prompt goes without.
    pub tokens: Option<Vec<u32>>,
}

/// A network that predicts, from `x_t` and text, what its schedule steps along.
pub trait Denoiser {
    /// Computes what stays the same from step to step, for latents of height and width `latent`; `timesteps` has one
    /// for each step.
    ///
    /// # Errors
    /// Where the network cannot take these shapes.
    fn prepare<'a>(&'a self, condition: &Condition, timesteps: &[f32], latent: [usize; 2]) -> Result<Prepared<'a>>;

    /// How many frames it can denoise together; `None` where it knows of none.
    fn frames(&self) -> Option<Frames> {
        None
    }

    /// Puts motion modules between its layers, which leave stills as they are.
    ///
    /// # Errors
    /// `BadModel` where it can have none, where they are for another network, or where tensors do not fit.
    fn add_motion(&mut self, _params: &Params, config: &MotionConfig) -> Result<()> {
        Err(Error::bad_model(format!("{}: motion modules do not go with this model's network", config.file)))
    }

    /// About how many values are in memory at once while it predicts for `n` latents of `h` x `w`, besides its weights.
    fn live_values(&self, n: usize, h: usize, w: usize) -> u64;
}

/// A network in a run: `x_t` `[N * frames, C, H, W]` and the number of its step, from 0, give as many rows with the same channels, or more, of
/// which those after the latent's are left aside. `N` is the condition's.
pub type Prepared<'a> = Box<dyn Fn(Latent, usize) -> Result<Latent> + 'a>;
