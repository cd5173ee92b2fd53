//! Noise + [`TextEmbedding`](crate::values::TextEmbedding) -> [`Latent`](crate::values::Latent).

pub mod dit;
mod guidance;
pub mod noise;
mod run;
pub mod schedule;
pub mod unet;

pub use guidance::Guidance;
pub use run::{Blend, Condition, Denoiser, Denoising, FreshNoise, StepOutcome};
