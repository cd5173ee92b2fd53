//! CLIP and a U-Net.

use super::{
    networks,
    page::{Defaults, EncoderSlot, Family, Network},
};
use crate::{
    Result,
    denoise::schedule::Repair,
    text::Encoding,
    values::TextEmbedding,
    weights::{ModelFiles, Tensors},
};

pub struct StableDiffusion;

/// CLIP, with or without a projection, which this family does not use.
pub(super) const CLIP: [&str; 2] = ["CLIPTextModel", "CLIPTextModelWithProjection"];

impl Family for StableDiffusion {
    fn classes(&self) -> &'static [(&'static str, Defaults)] {
        const {
            &[
                ("StableDiffusionPipeline", Defaults::new(50, 7.5, 77)),
                ("StableDiffusionImg2ImgPipeline", Defaults::new(50, 7.5, 77)),
                ("StableDiffusionInpaintPipeline", Defaults::new(50, 7.5, 77)),
            ]
        }
    }

    fn encoders(&self) -> &'static [EncoderSlot] {
        const { &[EncoderSlot::new("text_encoder", "tokenizer", &CLIP)] }
    }

    /// The network attends to padding, too.
    fn join(&self, encodings: &[Encoding]) -> TextEmbedding {
        TextEmbedding { hidden: encodings[0].hidden.clone(), attention_mask: None, pooled: None }
    }

    fn network(&self, files: &ModelFiles, tensors: &Tensors) -> Result<Network> {
        networks::unet(files, tensors, false)
    }

    fn scheduler_repairs(&self, class: &str) -> &'static [Repair] {
        match class {
            "StableDiffusionInpaintPipeline" => &[Repair::StepsOffset, Repair::SkipPrkSteps],
            _ => &[Repair::StepsOffset, Repair::ClipSample],
        }
    }
}
