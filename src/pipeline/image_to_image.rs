//! From a picture: the run starts part of the way, from the picture with as much noise as belongs there
//! (diffusers' `StableDiffusionImg2ImgPipeline` and `FluxImg2ImgPipeline`; Meng et al., arXiv 2108.01073).

use super::start::Start;
use crate::{denoise::schedule::Schedule, values::Latent};

/// `known` is the encoded picture, `noise` unit noise, both `[1, C, h, w]`.
pub fn start(known: Latent, noise: Latent, schedule: &Schedule) -> Start {
    let x_t = match schedule.steps.first() {
        Some(step) => known * step.noised.x_0 + noise * step.noised.noise,
        None => known,
    };
    Start { x_t, blend: None, extra: None }
}
