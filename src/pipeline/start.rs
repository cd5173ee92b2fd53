//! Where the run of one picture begins: the one word that its kinds share.

use crate::{denoise::Blend, values::Latent};

/// Where a run begins.
pub struct Start {
    /// `[1, C, h, w]`, what enters the first step.
    pub x_t: Latent,
    /// What is put back after each step.
    pub blend: Option<Blend>,
    /// Further channels that the network is told.
    pub extra: Option<Latent>,
}
