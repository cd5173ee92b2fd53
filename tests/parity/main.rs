//! Our numbers against the reference implementations' (tests/fixtures, written by tools/reference).
//! One file per room, then end to end. A missing fixture is a failure.

mod autoencoder;
mod autoregress;
mod configs;
mod default_model;
mod denoise;
mod glm_image;
mod janus;
mod memory;
mod motion;
mod overflow;
mod pipeline;
mod prompt;
mod schedule;
mod score;
mod shapes;
mod stored;
mod support;
mod text;
