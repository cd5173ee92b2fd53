//! Two CLIPs and a U-Net that is told pooled text and the picture's size.

use burn::tensor::Tensor;

use super::{
    networks,
    page::{Defaults, EncoderSlot, Family, Network},
    stable_diffusion::CLIP,
};
use crate::{
    Result,
    text::Encoding,
    values::TextEmbedding,
    weights::{Config, ModelFiles, Tensors},
};

pub struct StableDiffusionXl;

impl Family for StableDiffusionXl {
    fn classes(&self) -> &'static [(&'static str, Defaults)] {
        const {
            &[
                ("StableDiffusionXLPipeline", Defaults::new(50, 5.0, 77)),
                ("StableDiffusionXLImg2ImgPipeline", Defaults::new(50, 5.0, 77)),
                ("StableDiffusionXLInpaintPipeline", Defaults::new(50, 7.5, 77)),
            ]
        }
    }

    fn encoders(&self) -> &'static [EncoderSlot] {
        const {
            &[
                EncoderSlot::new("text_encoder", "tokenizer", &CLIP),
                EncoderSlot::new("text_encoder_2", "tokenizer_2", &CLIP),
            ]
        }
    }

    /// Both states before the last layer, side by side; the pooled text is the second encoder's.
    fn join(&self, encodings: &[Encoding]) -> TextEmbedding {
        TextEmbedding {
            hidden: Tensor::cat(encodings.iter().filter_map(|encoding| encoding.penultimate.clone()).collect(), 2),
            attention_mask: None,
            pooled: encodings[1].pooled.clone(),
        }
    }

    fn network(&self, files: &ModelFiles, tensors: &Tensors) -> Result<Network> {
        networks::unet(files, tensors, true)
    }

    fn zeros_for_no_negative(&self, index: &Config) -> Result<bool> {
        index.bool("force_zeros_for_empty_prompt", true)
    }
}
