//! T5 and PixArt.

use super::{
    networks,
    page::{Defaults, EncoderSlot, Family, Network},
};
use crate::{
    Result,
    text::Encoding,
    values::TextEmbedding,
    weights::{ModelFiles, Tensors},
};

pub struct PixArt;

impl Family for PixArt {
    fn classes(&self) -> &'static [(&'static str, Defaults)] {
        const {
            &[
                ("PixArtSigmaPipeline", Defaults::new(20, 4.5, 300)),
                ("PixArtAlphaPipeline", Defaults::new(20, 4.5, 120)),
            ]
        }
    }

    fn encoders(&self) -> &'static [EncoderSlot] {
        const { &[EncoderSlot::new("text_encoder", "tokenizer", &["T5EncoderModel"])] }
    }

    fn join(&self, encodings: &[Encoding]) -> TextEmbedding {
        encodings[0].masked()
    }

    fn network(&self, files: &ModelFiles, tensors: &Tensors) -> Result<Network> {
        networks::pixart(files, tensors, "transformer")
    }

    fn prompt(&self, prompt: &str) -> String {
        prompt.to_lowercase().trim().to_owned()
    }
}
