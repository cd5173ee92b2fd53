//! From a prompt alone: the run starts from noise.

use super::start::Start;
use crate::{denoise::schedule::Schedule, values::Latent};

/// `noise` is unit noise, `[1, C, h, w]`.
pub fn start(noise: Latent, schedule: &Schedule) -> Start {
    Start { x_t: noise * schedule.init_noise_sigma, blend: None, extra: None }
}
