//! What a network of this room is, and what it is told.

use crate::{
    Result,
    values::{Latent, TextEmbedding},
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
    /// Layers that are left out, of networks that can.
    pub skip_layers: Vec<usize>,
    /// `[1, C', H, W]`, joined to `x_t` along the channels: mask and masked picture of inpainting networks.
    pub extra: Option<Latent>,
}

/// A network that predicts, from `x_t` and text, what its schedule steps along.
pub trait Denoiser {
    /// `x_t` `[N, C, H, W]` with `condition.extra` already joined, `timesteps` `[N]`. Gives `[N, C, H, W]` or more
    /// channels, of which those after the latent's are left aside.
    ///
    /// # Errors
    /// Where the network cannot take these shapes.
    fn predict(&self, x_t: Latent, timesteps: &[f32], condition: &Condition) -> Result<Latent>;

    /// About how many values are in memory at once while it predicts for `n` latents of `h` x `w`, besides its weights.
    fn live_values(&self, n: usize, h: usize, w: usize) -> u64;
}
