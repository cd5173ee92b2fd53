//! Our own: BERT, PixArt, flow matching the way of diffusers' `FluxPipeline`.

use super::{
    networks,
    page::{Defaults, EncoderSlot, Family, Network, skipped_rounded_down},
};
use crate::{
    Result,
    denoise::schedule::Grid,
    text::Encoding,
    values::TextEmbedding,
    weights::{ModelFiles, Tensors},
};

pub struct Sticker;

impl Family for Sticker {
    fn classes(&self) -> &'static [(&'static str, Defaults)] {
        const { &[("InkbloomPipeline", Defaults::new(20, 1.0, 77))] }
    }

    fn encoders(&self) -> &'static [EncoderSlot] {
        const { &[EncoderSlot::new("text_encoder", "tokenizer", &["BertModel"])] }
    }

    fn join(&self, encodings: &[Encoding]) -> TextEmbedding {
        encodings[0].masked()
    }

    fn network(&self, files: &ModelFiles, tensors: &Tensors) -> Result<Network> {
        networks::pixart(files, tensors, "transformer")
    }

    /// What `model_index.json` says, whatever the tokenizer holds.
    fn max_text_tokens(&self, _own: Option<usize>, default: usize) -> usize {
        default
    }

    fn guides(&self, scale: f32) -> bool {
        scale != 1.0
    }

    fn grid(&self) -> Grid {
        Grid::Flux
    }

    fn skipped_steps(&self, steps: usize, strength: f64) -> usize {
        skipped_rounded_down(steps, strength)
    }

    fn draws_encoding(&self) -> bool {
        false
    }
}
