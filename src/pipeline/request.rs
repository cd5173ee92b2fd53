//! The words: what a model says of itself, what can be asked of it, what was planned, and what came of it.

use crate::{
    denoise::schedule::{Churn, Schedule},
    pixels::Alpha,
    values::Image,
};

/// What a model says of itself.
#[derive(Clone, Debug)]
pub struct Info {
    pub alpha: Alpha,
    pub max_text_tokens: usize,
    pub default_steps: usize,
    pub default_guidance: f32,
    /// (width, height) pairs the model was trained for; the first is the default.
    pub sizes: Vec<[usize; 2]>,
    pub styles: Vec<String>,
}

/// What to draw. `None` means the model's default.
#[derive(Clone, Debug, Default)]
pub struct Request {
    pub prompt: String,
    /// What to steer away from; "" is the unconditional prompt.
    pub negative_prompt: String,
    pub seed: u64,
    /// How many pictures; picture `i` has the seed `seed + i`.
    pub count: Option<usize>,
    pub steps: Option<usize>,
    pub guidance: Option<f32>,
    /// In place of the model's own: a short name (`euler-a`) or a diffusers class.
    pub scheduler: Option<String>,
    /// How much fresh noise each step of `ddim` or `tcd` adds: 0 (where nothing is said) to 1.
    pub eta: Option<f64>,
    /// Noise that each step of `euler` or `flow-heun` adds before it goes down.
    pub churn: Option<Churn>,
    /// In pixels; with `init`, its size.
    pub width: Option<usize>,
    pub height: Option<usize>,
    /// The picture to start from. Models without an alpha channel see it over white.
    pub init: Option<Image>,
    /// How much of `init` is drawn anew: above 0, up to 1. By default 0.8, below a mask 1.
    pub strength: Option<f64>,
    /// Of the size of `init`: white where it is drawn anew, black where it stays; what is between counts as the nearer.
    pub mask: Option<Image>,
    /// Decode in overlapping tiles of this many pixels a side, at least 16 latent positions; by default in one piece, or
    /// in the largest tiles that the memory plan has room for.
    pub tile: Option<usize>,
    /// Unit noise `[C, height / factor, width / factor]` in place of the seed's, for every picture.
    pub noise: Option<Vec<f32>>,
    /// The same for the steps of stochastic schedulers, by step; steps beyond take the seed's.
    pub step_noise: Vec<Vec<f32>>,
    /// The same for encoding `init`.
    pub encode_noise: Option<Vec<f32>>,
}

/// A [`Request`] with every default filled in and every value checked.
#[derive(Clone, Debug)]
pub struct Plan {
    pub steps: usize,
    pub guidance: f32,
    pub width: usize,
    pub height: usize,
    pub count: usize,
    /// The side of the tiles of decoding, in latent positions.
    pub tile: Option<usize>,
    /// 1 where nothing is started from.
    pub strength: f64,
    /// The steps that are taken.
    pub schedule: Schedule,
    /// What is not wrong but worth telling.
    pub warnings: Vec<String>,
}

/// Finished pictures.
#[derive(Clone, Debug)]
pub struct Generated {
    pub images: Vec<Image>,
    pub warnings: Vec<String>,
}
