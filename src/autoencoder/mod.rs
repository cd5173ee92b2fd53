//! [`Latent`] <-> [`PixelTensor`]: one file per family, and what they share.

pub mod codebook;
pub mod dc;
pub mod janus_vq;
pub mod kl;
mod quantizer;
mod scaling;
mod shape;
mod tiles;
pub mod tiny;
pub mod vq_model;

use burn::tensor::{module, ops::AvgPoolOptions};
use scaling::LatentScaling;
pub use shape::AutoencoderShape;

use crate::{
    Result,
    values::{Latent, PixelTensor},
    weights::{ModelFiles, Tensors},
};

/// The autoencoder of a model, of whichever family.
pub struct Autoencoder {
    family: Family,
    scaling: LatentScaling,
    shape: AutoencoderShape,
}

enum Family {
    Dc(Box<dc::AutoencoderDc>),
    Kl(kl::AutoencoderKl),
    Tiny(tiny::AutoencoderTiny),
}

impl Autoencoder {
    /// Loads a component as the class that `model_index.json` names.
    ///
    /// # Errors
    /// `BadModel` for an unknown class, an option that cannot be honoured, or tensors that do not fit.
    pub fn load(tensors: &Tensors, files: &ModelFiles, component: &str) -> Result<Self> {
        let params = &tensors.params(&format!("{component}/"));
        let class = files.class(component)?;
        let config = files.config(component)?;
        let scaling = LatentScaling::read(&config, class, params.device())?;
        let (family, shape) = match class {
            "AutoencoderKL" => {
                let config = kl::AutoencoderKlConfig::read(&config)?;
                (Family::Kl(kl::AutoencoderKl::load(params, &config)?), config.shape())
            }
            "AutoencoderTiny" => {
                let config = tiny::AutoencoderTinyConfig::read(&config)?;
                (Family::Tiny(tiny::AutoencoderTiny::load(params, &config)?), config.shape())
            }
            "AutoencoderDC" => {
                let config = dc::AutoencoderDcConfig::read(&config)?;
                (Family::Dc(Box::new(dc::AutoencoderDc::load(params, &config)?)), config.shape())
            }
            _ => return Err(files.unknown_class(component, "AutoencoderTiny, AutoencoderKL and AutoencoderDC")),
        };
        if let Some(channels) = scaling.channels()
            && channels != shape.latent_channels
        {
            return Err(config.wrong(
                "latents_mean",
                &format!("it and `latents_std` must have {} values, one per latent channel", shape.latent_channels),
            ));
        }
        Ok(Self { family, scaling, shape })
    }

    pub fn shape(&self) -> AutoencoderShape {
        self.shape
    }

    /// `[N, latent_channels, h, w]` in the denoiser's scale -> `[N, pixel_channels, h * factor, w * factor]`.
    pub fn decode(&self, latent: Latent) -> PixelTensor {
        let z = self.scaling.to_autoencoder(latent);
        match &self.family {
            Family::Dc(dc) => dc.decode(z),
            Family::Kl(kl) => kl.decode(z),
            Family::Tiny(tiny) => tiny.decode(z),
        }
    }

    /// As [`decode`](Self::decode), in square tiles of `tile` latent positions that overlap by a quarter and fade into
    /// each other: the memory of one tile, whatever the picture's size. Equal to the whole away from seams as far as
    /// layers look; attention and norms over the whole picture see only their tile.
    pub fn decode_tiled(&self, latent: Latent, tile: usize) -> PixelTensor {
        tiles::decode(latent, tile, self.shape.factor, |part| self.decode(part))
    }

    /// The inverse: `[N, pixel_channels, H, W]`, sides divisible by `factor`, to the denoiser's scale. Of a
    /// distribution it gives the mean, or with unit `noise` `[N, latent_channels, h, w]` a draw. A picture that is too
    /// large for the encoder is averaged down.
    pub fn encode(&self, pixels: PixelTensor, noise: Option<Latent>) -> Latent {
        let pixels = match self.shape.reduction {
            1 => pixels,
            reduction => module::avg_pool2d(pixels, AvgPoolOptions::new([reduction; 2])),
        };
        let z = match &self.family {
            Family::Dc(dc) => dc.encode(pixels),
            Family::Kl(kl) => kl.encode(pixels, noise),
            Family::Tiny(tiny) => tiny.encode(pixels),
        };
        self.scaling.to_denoiser(z)
    }
}
