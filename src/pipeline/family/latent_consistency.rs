//! Stable Diffusion, distilled to few steps (Luo et al., arXiv 2310.04378).

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

pub struct LatentConsistency;

impl Family for LatentConsistency {
    fn classes(&self) -> &'static [(&'static str, Defaults)] {
        const {
            &[
                ("LatentConsistencyModelPipeline", Defaults::new(4, 8.5, 77)),
                ("LatentConsistencyModelImg2ImgPipeline", Defaults::new(4, 8.5, 77)),
            ]
        }
    }

    fn encoders(&self) -> &'static [EncoderSlot] {
        StableDiffusion.encoders()
    }

    fn join(&self, encodings: &[Encoding]) -> TextEmbedding {
        StableDiffusion.join(encodings)
    }

    fn network(&self, files: &ModelFiles, tensors: &Tensors) -> Result<Network> {
        networks::unet(files, tensors, false)
    }

    fn spreads_strength(&self) -> bool {
        true
    }
}
