//! What a family says of itself on its page.

use crate::{
    Result,
    denoise::{
        Denoiser,
        schedule::{Grid, Repair},
    },
    text::Encoding,
    values::TextEmbedding,
    weights::{Config, ModelFiles, Tensors},
};

/// What a pipeline class assumes where neither request nor model says anything.
#[derive(Clone, Copy, Debug)]
pub struct Defaults {
    pub steps: usize,
    pub guidance: f64,
    pub max_text_tokens: usize,
    pub frames: usize,
}

impl Defaults {
    pub const fn new(steps: usize, guidance: f64, max_text_tokens: usize) -> Self {
        Self { steps, guidance, max_text_tokens, frames: 1 }
    }

    /// The same with more frames than a still's.
    pub const fn animated(self, frames: usize) -> Self {
        Self { frames, ..self }
    }
}

/// A text encoder of a family.
pub struct EncoderSlot {
    pub component: &'static str,
    pub tokenizer: &'static str,
    /// The transformers classes that may stand there.
    pub classes: &'static [&'static str],
    /// It reads as many tokens as its tokenizer holds, whatever the model's `max_text_tokens`.
    pub own_length: bool,
    /// It looks at padding as at any other token.
    pub reads_padding: bool,
    /// A model may do without: zeros of this width then stand in the place of what it says.
    pub zeros: Option<fn(&ModelFiles) -> Result<usize>>,
}

impl EncoderSlot {
    pub const fn new(component: &'static str, tokenizer: &'static str, classes: &'static [&'static str]) -> Self {
        Self { component, tokenizer, classes, own_length: false, reads_padding: false, zeros: None }
    }
}

/// How a network that repaints is told the mask.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum ToldMask {
    /// One channel before the masked picture's: each position's upper left pixel.
    Positions,
    /// After the masked picture's, a channel for each pixel of a position.
    Pixels,
}

impl ToldMask {
    /// How many channels that is, of latents with `factor` pixels a side to a position.
    pub fn channels(self, factor: usize) -> usize {
        match self {
            Self::Positions => 1,
            Self::Pixels => factor * factor,
        }
    }
}

/// A denoiser, and what a pipeline must know of it.
pub struct Network {
    pub denoiser: Box<dyn Denoiser>,
    pub component: &'static str,
    pub in_channels: usize,
    pub out_channels: usize,
    /// Latent sides must be multiples of this.
    pub patch: usize,
    /// The latent's height and width in training.
    pub sample_size: Option<[usize; 2]>,
    /// It is told the guidance and so never called twice for it.
    pub told_guidance: bool,
    /// Latent sides can be no more than this.
    pub largest: Option<usize>,
    /// How many layers there are to be left out by skip-layer guidance; 0 where that cannot be.
    pub layers: usize,
}

/// What sets pipelines apart. Whether a class was written for text, picture to picture or inpainting makes no difference:
/// each model does what its network can. What is not said here is as in diffusers' classic pipelines.
pub trait Family: Sync {
    /// The classes of `model_index.json`, with the defaults of diffusers' `__call__`.
    fn classes(&self) -> &'static [(&'static str, Defaults)];

    /// The text encoders, at least one.
    fn encoders(&self) -> &'static [EncoderSlot];

    /// What the encoders say of the same prompts, one encoding of each in their order, as the network takes it.
    fn join(&self, encodings: &[Encoding]) -> TextEmbedding;

    /// The denoiser, as the class that `model_index.json` names.
    ///
    /// # Errors
    /// `BadModel` for an unknown class, an option that cannot be honoured, or tensors that do not fit.
    fn network(&self, files: &ModelFiles, tensors: &Tensors) -> Result<Network>;

    /// The prompt as the reference reads it.
    fn prompt(&self, prompt: &str) -> String {
        prompt.to_owned()
    }

    /// How many tokens a prompt has where the model does not say: `own` is what its tokenizer holds, `default` the class's.
    fn max_text_tokens(&self, own: Option<usize>, default: usize) -> usize {
        own.map_or(default, |own| own.min(default))
    }

    /// Whether no negative prompt is all zeros rather than the encoding of "".
    ///
    /// # Errors
    /// `BadModel` for a value in `index` that is none.
    fn zeros_for_no_negative(&self, _index: &Config) -> Result<bool> {
        Ok(false)
    }

    /// Whether a request's guidance is nothing but told to the network, and its true guidance is what guides.
    fn true_guidance(&self) -> bool {
        false
    }

    /// How a network that repaints is told the mask.
    fn told_mask(&self) -> ToldMask {
        ToldMask::Positions
    }

    /// Whether a guidance scale needs the negative prompt.
    fn guides(&self, scale: f32) -> bool {
        scale > 1.0
    }

    fn grid(&self) -> Grid {
        Grid::Trained
    }

    /// What diffusers' class of that name sets right in its scheduler's config.
    fn scheduler_repairs(&self, _class: &str) -> &'static [Repair] {
        &[]
    }

    /// How many of `steps` steps picture to picture leaves out at `strength`, as the reference rounds.
    fn skipped_steps(&self, steps: usize, strength: f64) -> usize {
        steps - (steps as f64 * strength).min(steps as f64) as usize
    }

    /// Whether picture to picture spreads all its steps below `strength`, where the scheduler can, and leaves out none.
    fn spreads_strength(&self) -> bool {
        false
    }

    /// Whether it draws an animation where nothing is said of frames.
    fn animates(&self) -> bool {
        false
    }

    /// Whether an encoded picture is drawn from the autoencoder's distribution rather than its mean.
    fn draws_encoding(&self) -> bool {
        true
    }
}

/// [`Family::skipped_steps`] as diffusers' flow matching pipelines round.
pub fn skipped_rounded_down(steps: usize, strength: f64) -> usize {
    (steps as f64 - (steps as f64 * strength).min(steps as f64)) as usize
}
