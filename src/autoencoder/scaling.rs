//! Latents as the autoencoder has them and as the denoiser does.

use burn::tensor::{Device, Tensor, TensorData};

use crate::{Result, values::Latent, weights::Config};

/// Between the autoencoder's scale and the denoiser's: per channel `z = latent * std / scaling + mean` where
/// the config has `latents_mean` and `latents_std`, else `z = latent / scaling + shift` (diffusers' pipelines).
pub struct LatentScaling {
    scale: Tensor<4>,
    shift: Tensor<4>,
}

impl LatentScaling {
    pub fn read(config: &Config, class: &str, device: &Device) -> Result<Self> {
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
    pub fn channels(&self) -> Option<usize> {
        Some(self.scale.dims()[1]).filter(|channels| *channels > 1)
    }

    pub fn to_autoencoder(&self, latent: Latent) -> Latent {
        latent * self.scale.clone() + self.shift.clone()
    }

    pub fn to_denoiser(&self, z: Latent) -> Latent {
        (z - self.shift.clone()) / self.scale.clone()
    }
}
