//! Stable Diffusion 3 and 3.5: two CLIPs and, where it is there, T5; a transformer in which picture and text attend to
//! each other.

use burn::tensor::Tensor;

use super::page::{Defaults, EncoderSlot, Family, Network, skipped_rounded_down};
use crate::{
    Result,
    denoise::dit::sd3::{Sd3 as Transformer, Sd3Config},
    text::Encoding,
    values::TextEmbedding,
    weights::{ModelFiles, Tensors},
};

pub struct Sd3;

const CLIP: [&str; 1] = ["CLIPTextModelWithProjection"];

const fn clip(component: &'static str, tokenizer: &'static str) -> EncoderSlot {
    EncoderSlot { own_length: true, ..EncoderSlot::new(component, tokenizer, &CLIP) }
}

/// The width of T5's states.
fn text_width(files: &ModelFiles) -> Result<usize> {
    Ok(Sd3Config::read(&files.config("transformer")?)?.joint_attention_dim)
}

impl Family for Sd3 {
    fn classes(&self) -> &'static [(&'static str, Defaults)] {
        const {
            &[
                ("StableDiffusion3Pipeline", Defaults::new(28, 7.0, 256)),
                ("StableDiffusion3Img2ImgPipeline", Defaults::new(50, 7.0, 256)),
                ("StableDiffusion3InpaintPipeline", Defaults::new(50, 7.0, 256)),
            ]
        }
    }

    fn encoders(&self) -> &'static [EncoderSlot] {
        const {
            &[
                clip("text_encoder", "tokenizer"),
                clip("text_encoder_2", "tokenizer_2"),
                EncoderSlot {
                    reads_padding: true,
                    zeros: Some(text_width),
                    ..EncoderSlot::new("text_encoder_3", "tokenizer_3", &["T5EncoderModel"])
                },
            ]
        }
    }

    /// The CLIPs' states before the last layer side by side, filled up with zeros to T5's width; then T5's tokens. The
    /// pooled text is both CLIPs'.
    fn join(&self, encodings: &[Encoding]) -> TextEmbedding {
        let t5 = encodings[2].hidden.clone();
        let mut clips: Vec<_> = encodings.iter().filter_map(|encoding| encoding.penultimate.clone()).collect();
        let [n, tokens, _] = encodings[0].hidden.dims();
        let [_, _, width] = t5.dims();
        clips.push(Tensor::zeros([n, tokens, width], &t5.device()));
        let clips = Tensor::cat(clips, 2).narrow(2, 0, width);
        TextEmbedding {
            hidden: Tensor::cat(vec![clips, t5], 1),
            attention_mask: None,
            pooled: Some(Tensor::cat(encodings.iter().filter_map(|encoding| encoding.pooled.clone()).collect(), 1)),
        }
    }

    fn network(&self, files: &ModelFiles, tensors: &Tensors) -> Result<Network> {
        let component = "transformer";
        if files.class(component)? != "SD3Transformer2DModel" {
            return Err(files.unknown_class(component, "SD3Transformer2DModel"));
        }
        let config = Sd3Config::read(&files.config(component)?)?;
        Ok(Network {
            component,
            in_channels: config.in_channels,
            out_channels: config.out_channels,
            patch: config.patch_size,
            sample_size: Some([config.sample_size; 2]),
            told_guidance: false,
            largest: Some(config.pos_embed_max_size * config.patch_size),
            layers: config.num_layers,
            denoiser: Box::new(Transformer::load(&tensors.params("transformer/"), config)?),
        })
    }

    /// T5's alone; what CLIP's tokenizer holds is its own affair.
    fn max_text_tokens(&self, _own: Option<usize>, default: usize) -> usize {
        default
    }

    fn skipped_steps(&self, steps: usize, strength: f64) -> usize {
        skipped_rounded_down(steps, strength)
    }
}
