//! The vector-quantised autoencoder of diffusers (`VQModel`): pictures as codes, and back.

use super::{
    kl::{AutoencoderKlConfig, Decoder, Encoder},
    quantizer::Quantizer,
};
use crate::{
    Result,
    layers::Conv2d,
    values::{ImageTokens, Latent, PixelTensor},
    weights::{Config, Params},
};

/// The numbers of `config.json` that change the arithmetic.
#[derive(Clone, Debug)]
pub struct VqModelConfig {
    /// Encoder and decoder are [`AutoencoderKl`](super::kl::AutoencoderKl)'s.
    parts: AutoencoderKlConfig,
    pub num_vq_embeddings: usize,
    pub vq_embed_dim: usize,
}

impl VqModelConfig {
    /// # Errors
    /// `BadModel` for a value that is out of range or asks for what this version cannot do.
    pub fn read(config: &Config) -> Result<Self> {
        config.only("norm_type", "group")?;
        // Codes are always looked up here.
        config.ignore(&["lookup_from_codebook", "scaling_factor"]);
        let parts = AutoencoderKlConfig::read_parts(config)?;
        let this = Self {
            num_vq_embeddings: config.count("num_vq_embeddings", 256)?,
            vq_embed_dim: config.count("vq_embed_dim", parts.latent_channels)?,
            parts,
        };
        config.finish("VQModel");
        Ok(this)
    }

    /// Pixels for each place, a side.
    pub fn factor(&self) -> usize {
        self.parts.shape().factor
    }
}

/// `VQModel`, both ways.
pub struct VqModel {
    encoder: Encoder,
    quant_conv: Conv2d,
    quantizer: Quantizer,
    post_quant_conv: Conv2d,
    decoder: Decoder,
}

impl VqModel {
    /// # Errors
    /// `BadModel` where a tensor is missing or has another shape than the config says.
    pub fn load(params: &Params, config: &VqModelConfig) -> Result<Self> {
        let VqModelConfig { parts, num_vq_embeddings, vq_embed_dim } = config;
        let latent = parts.latent_channels;
        Ok(Self {
            encoder: Encoder::load(&params.at("encoder"), parts, latent)?,
            quant_conv: Conv2d::load(&params.at("quant_conv"), latent, *vq_embed_dim, 1)?,
            quantizer: Quantizer::load(&params.at("quantize"), *num_vq_embeddings, *vq_embed_dim)?,
            post_quant_conv: Conv2d::load(&params.at("post_quant_conv"), *vq_embed_dim, latent, 1)?,
            decoder: Decoder::load(&params.at("decoder"), parts)?,
        })
    }

    /// What is to be quantised: `[N, C, H, W]` in -1..1 -> `[N, vq_embed_dim, H / factor, W / factor]`.
    pub fn encode(&self, pixels: PixelTensor) -> Latent {
        self.quant_conv.forward(self.encoder.forward(pixels))
    }

    /// The nearest codes of what [`encode`](Self::encode) gives, a grid for each picture.
    ///
    /// # Errors
    /// `DeviceLost` or `OutOfMemory` from the device.
    pub async fn codes(&self, latent: Latent) -> Result<Vec<ImageTokens>> {
        self.quantizer.codes(latent).await
    }

    /// The picture of a grid of codes, `[1, C, h * factor, w * factor]`, nominally in -1..1.
    ///
    /// # Errors
    /// `BadInput` for codes that the tokenizer has not, or a grid that is not full.
    pub fn decode(&self, tokens: &ImageTokens) -> Result<PixelTensor> {
        Ok(self.decoder.forward(self.post_quant_conv.forward(self.quantizer.vectors(tokens, false)?)))
    }
}
