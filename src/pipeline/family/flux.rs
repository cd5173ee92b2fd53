//! Flux.1: T5 for the tokens, CLIP for the pooled text, and a transformer of packed latents that may be told the guidance.

use super::page::{Defaults, EncoderSlot, Family, Network, ToldMask, skipped_rounded_down};
use crate::{
    Result,
    denoise::{
        dit::flux::{Flux as Transformer, FluxConfig, PATCH},
        schedule::Grid,
    },
    text::Encoding,
    values::TextEmbedding,
    weights::{ModelFiles, Tensors},
};

pub struct Flux;

/// The latent's side in training: no config says it.
const SAMPLE_SIZE: usize = 128;

impl Family for Flux {
    fn classes(&self) -> &'static [(&'static str, Defaults)] {
        const {
            &[
                ("FluxPipeline", Defaults::new(28, 3.5, 512)),
                ("FluxImg2ImgPipeline", Defaults::new(28, 7.0, 512)),
                ("FluxInpaintPipeline", Defaults::new(28, 7.0, 512)),
                ("FluxFillPipeline", Defaults::new(50, 30.0, 512)),
            ]
        }
    }

    fn encoders(&self) -> &'static [EncoderSlot] {
        const {
            &[
                EncoderSlot { own_length: true, ..EncoderSlot::new("text_encoder", "tokenizer", &["CLIPTextModel"]) },
                EncoderSlot {
                    reads_padding: true,
                    ..EncoderSlot::new("text_encoder_2", "tokenizer_2", &["T5EncoderModel"])
                },
            ]
        }
    }

    fn join(&self, encodings: &[Encoding]) -> TextEmbedding {
        let [clip, t5] = [&encodings[0], &encodings[1]];
        TextEmbedding { hidden: t5.hidden.clone(), attention_mask: None, pooled: clip.pooled.clone() }
    }

    fn network(&self, files: &ModelFiles, tensors: &Tensors) -> Result<Network> {
        let component = "transformer";
        if files.class(component)? != "FluxTransformer2DModel" {
            return Err(files.unknown_class(component, "FluxTransformer2DModel"));
        }
        let config = FluxConfig::read(&files.config(component)?)?;
        let [in_channels, out_channels] = config.latent_channels();
        Ok(Network {
            component,
            in_channels,
            out_channels,
            patch: PATCH,
            sample_size: Some([SAMPLE_SIZE; 2]),
            told_guidance: config.guidance_embeds,
            largest: None,
            layers: 0,
            denoiser: Box::new(Transformer::load(&tensors.params("transformer/"), config)?),
        })
    }

    /// T5's alone; what CLIP's tokenizer holds is its own affair.
    fn max_text_tokens(&self, _own: Option<usize>, default: usize) -> usize {
        default
    }

    fn true_guidance(&self) -> bool {
        true
    }

    fn told_mask(&self) -> ToldMask {
        ToldMask::Pixels
    }

    fn grid(&self) -> Grid {
        Grid::Flux
    }

    fn skipped_steps(&self, steps: usize, strength: f64) -> usize {
        skipped_rounded_down(steps, strength)
    }
}
