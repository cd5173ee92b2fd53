//! Stable Diffusion with motion modules (Guo et al., arXiv 2307.04725).

use super::{
    networks,
    page::{Defaults, EncoderSlot, Family, Network},
    stable_diffusion::StableDiffusion,
};
use crate::{
    Result,
    text::Encoding,
    values::TextEmbedding,
    weights::{ModelFiles, Tensors},
};

pub struct AnimateDiff;

impl Family for AnimateDiff {
    fn classes(&self) -> &'static [(&'static str, Defaults)] {
        const { &[("AnimateDiffPipeline", Defaults::new(50, 7.5, 77).animated(16))] }
    }

    fn encoders(&self) -> &'static [EncoderSlot] {
        StableDiffusion.encoders()
    }

    fn join(&self, encodings: &[Encoding]) -> TextEmbedding {
        StableDiffusion.join(encodings)
    }

    fn network(&self, files: &ModelFiles, tensors: &Tensors) -> Result<Network> {
        networks::unet_motion(files, tensors)
    }

    fn animates(&self) -> bool {
        true
    }
}
