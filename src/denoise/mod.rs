//! Noise + [`TextEmbedding`](crate::values::TextEmbedding) -> [`Latent`](crate::values::Latent).

mod denoiser;
pub mod dit;
mod guidance;
mod motion;
pub mod noise;
mod run;
pub mod schedule;
pub mod unet;

pub use denoiser::{Condition, Denoiser, Prepared};
pub use guidance::{Guidance, SkipLayers};
pub use motion::{Frames, MotionConfig, MotionModule, MotionModules};
pub use run::{Blend, Denoising, FreshNoise, StepOutcome};
