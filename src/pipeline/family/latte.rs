//! T5 and Latte.

use super::{
    networks,
    page::{Defaults, EncoderSlot, Family, Network},
    pixart::PixArt,
};
use crate::{
    Result,
    text::Encoding,
    values::TextEmbedding,
    weights::{ModelFiles, Tensors},
};

pub struct Latte;

impl Family for Latte {
    fn classes(&self) -> &'static [(&'static str, Defaults)] {
        const { &[("LattePipeline", Defaults::new(50, 7.5, 120).animated(16))] }
    }

    fn encoders(&self) -> &'static [EncoderSlot] {
        PixArt.encoders()
    }

    /// The network looks at as many tokens as the prompt has, of the negative prompt, too, whatever that one's length.
    fn join(&self, encodings: &[Encoding]) -> TextEmbedding {
        let text = encodings[0].masked();
        let [n, _, _] = text.hidden.dims();
        let prompts = text.last().attention_mask.map(|mask| mask.repeat_dim(0, n));
        TextEmbedding { attention_mask: prompts, ..text }
    }

    fn network(&self, files: &ModelFiles, tensors: &Tensors) -> Result<Network> {
        networks::latte(files, tensors)
    }

    fn prompt(&self, prompt: &str) -> String {
        PixArt.prompt(prompt)
    }

    fn animates(&self) -> bool {
        true
    }
}
