//! [`Latent`] <-> [`PixelTensor`]: one file per family, and what they share.

pub mod dc;
pub mod kl;
mod tiles;
pub mod tiny;

use burn::tensor::{Device, Tensor, TensorData};

use crate::{
    Error, Result,
    values::{Latent, PixelTensor},
    weights::{Config, ModelFiles, Tensors},
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

/// What the rest of a pipeline must know of an autoencoder.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub struct AutoencoderShape {
    /// Channels of pictures: 3 or 4.
    pub pixel_channels: usize,
    pub latent_channels: usize,
    /// Pixels per latent position, along each side.
    pub factor: usize,
    /// How many values the decoder's largest feature map has for each latent position.
    pub map_per_position: usize,
}

/// [`AutoencoderShape::map_per_position`] of a decoder whose stages, coarse to fine, have these widths and each double
/// the sides: a stage's first layers may still be as wide as the one before.
fn map_per_position(widths: impl Iterator<Item = usize>) -> usize {
    let mut before = 0;
    let values =
        widths.enumerate().map(|(level, width)| width.max(std::mem::replace(&mut before, width)) << (2 * level));
    values.max().unwrap_or(0)
}

impl Autoencoder {
    /// Loads a component as the class that `model_index.json` names.
    ///
    /// # Errors
    /// `BadModel` for an unknown class, an option that cannot be honoured, or tensors that do not fit.
    pub fn load(tensors: &Tensors, files: &ModelFiles, component: &str) -> Result<Self> {
        let params = &tensors.params(&format!("{component}/"));
        let config = files.config(component)?;
        let class = files.class(component)?;
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
            other => {
                return Err(Error::bad_model(format!(
                    "model_index.json: `{component}` is of the class {other}; this version knows AutoencoderTiny, AutoencoderKL and AutoencoderDC"
                )));
            }
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
    /// distribution it gives the mean, or with unit `noise` `[N, latent_channels, h, w]` a draw.
    pub fn encode(&self, pixels: PixelTensor, noise: Option<Latent>) -> Latent {
        let z = match &self.family {
            Family::Dc(dc) => dc.encode(pixels),
            Family::Kl(kl) => kl.encode(pixels, noise),
            Family::Tiny(tiny) => tiny.encode(pixels),
        };
        self.scaling.to_denoiser(z)
    }
}

/// Between the autoencoder's scale and the denoiser's: per channel `z = latent * std / scaling + mean` where
/// the config has `latents_mean` and `latents_std`, else `z = latent / scaling + shift` (diffusers' pipelines).
struct LatentScaling {
    scale: Tensor<4>,
    shift: Tensor<4>,
}

impl LatentScaling {
    fn read(config: &Config, class: &str, device: &Device) -> Result<Self> {
        // What diffusers assumes of each class; the oldest files of this one do not say it.
        let default = if class == "AutoencoderKL" { 0.18215 } else { 1.0 };
        let scaling_factor = config.f64("scaling_factor", default)? as f32;
        let shift_factor = config.f64("shift_factor", 0.0)? as f32;
        if scaling_factor == 0.0 {
            return Err(config.wrong("scaling_factor", "it must not be 0"));
        }
        let (scale, shift) = match (config.opt_f32s("latents_mean")?, config.opt_f32s("latents_std")?) {
            (Some(mean), Some(std)) if mean.len() == std.len() => {
                (std.iter().map(|std| std / scaling_factor).collect(), mean)
            }
            (None, None) => (vec![1.0 / scaling_factor], vec![shift_factor]),
            _ => {
                return Err(
                    config.wrong("latents_mean", "it and `latents_std` must be given together, with as many values")
                );
            }
        };
        let tensor = |values: Vec<f32>| {
            let channels = values.len();
            Tensor::from_data(TensorData::new(values, [1, channels, 1, 1]), device)
        };
        Ok(Self { scale: tensor(scale), shift: tensor(shift) })
    }

    /// The number of channels that mean and deviation are given for, if any.
    fn channels(&self) -> Option<usize> {
        Some(self.scale.dims()[1]).filter(|channels| *channels > 1)
    }

    fn to_autoencoder(&self, latent: Latent) -> Latent {
        latent * self.scale.clone() + self.shift.clone()
    }

    fn to_denoiser(&self, z: Latent) -> Latent {
        (z - self.shift.clone()) / self.scale.clone()
    }
}
