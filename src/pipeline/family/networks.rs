//! Denoisers that several families have.

use super::page::Network;
use crate::{
    Error, Result,
    denoise::{
        Denoiser,
        dit::{
            latte::{Latte, LatteConfig},
            pixart::{PixArt, PixArtConfig},
        },
        unet::{UNet, UNetConfig},
    },
    weights::{ModelFiles, Tensors, config::config_file},
};

/// `PixArtTransformer2DModel`.
///
/// # Errors
/// `BadModel` for another class, an option that cannot be honoured, or tensors that do not fit.
pub fn pixart(files: &ModelFiles, tensors: &Tensors) -> Result<Network> {
    let component = "transformer";
    // The latter is the class's name from before diffusers 0.30.
    if !["PixArtTransformer2DModel", "Transformer2DModel"].contains(&files.class(component)?) {
        return Err(files.unknown_class(component, "PixArtTransformer2DModel"));
    }
    let config = PixArtConfig::read(&files.config(component)?)?;
    Ok(Network {
        component,
        in_channels: config.in_channels,
        out_channels: config.out_channels,
        patch: config.patch_size,
        sample_size: Some([config.sample_size; 2]),
        told_guidance: false,
        largest: None,
        layers: 0,
        denoiser: Box::new(PixArt::load(&tensors.params("transformer/"), config)?),
    })
}

/// `UNet2DConditionModel`, told pooled text and the picture's size or not.
///
/// # Errors
/// `BadModel` for another class, an option that cannot be honoured, or tensors that do not fit.
pub fn unet(files: &ModelFiles, tensors: &Tensors, told_pooled: bool) -> Result<Network> {
    let component = "unet";
    if files.class(component)? != "UNet2DConditionModel" {
        return Err(files.unknown_class(component, "UNet2DConditionModel"));
    }
    let config = UNetConfig::read(&files.config(component)?)?;
    if told_pooled != config.pooled_dim().is_some() {
        return Err(Error::bad_model(format!(
            "{}: `addition_embed_type` does not go with the pipeline that model_index.json names",
            config_file(component)
        )));
    }
    let unet = UNet::load(&tensors.params("unet/"), config.clone())?;
    Ok(described(&config, Box::new(unet)))
}

/// `UNetMotionModel`, which has its motion modules, or a `UNet2DConditionModel` for a motion adapter beside it.
///
/// # Errors
/// `BadModel` for another class, an option that cannot be honoured, or tensors that do not fit.
pub fn unet_motion(files: &ModelFiles, tensors: &Tensors) -> Result<Network> {
    let component = "unet";
    match files.class(component)? {
        "UNetMotionModel" => {
            let (config, motion) = UNetConfig::read_motion(&files.config(component)?)?;
            let params = tensors.params("unet/");
            let mut unet = UNet::load(&params, config.clone())?;
            unet.add_motion(&params, &motion)?;
            Ok(described(&config, Box::new(unet)))
        }
        "UNet2DConditionModel" => unet(files, tensors, false),
        _ => Err(files.unknown_class(component, "UNetMotionModel and UNet2DConditionModel")),
    }
}

fn described(config: &UNetConfig, denoiser: Box<dyn Denoiser>) -> Network {
    Network {
        component: "unet",
        in_channels: config.in_channels,
        out_channels: config.out_channels,
        patch: 1,
        sample_size: config.sample_size,
        told_guidance: config.time_cond_proj_dim.is_some(),
        largest: None,
        layers: 0,
        denoiser,
    }
}

/// `LatteTransformer3DModel`.
///
/// # Errors
/// `BadModel` for another class, an option that cannot be honoured, or tensors that do not fit.
pub fn latte(files: &ModelFiles, tensors: &Tensors) -> Result<Network> {
    let component = "transformer";
    if files.class(component)? != "LatteTransformer3DModel" {
        return Err(files.unknown_class(component, "LatteTransformer3DModel"));
    }
    let config = LatteConfig::read(&files.config(component)?)?;
    let still = &config.still;
    Ok(Network {
        component,
        in_channels: still.in_channels,
        out_channels: still.out_channels,
        patch: still.patch_size,
        sample_size: Some([still.sample_size; 2]),
        told_guidance: false,
        largest: None,
        layers: 0,
        denoiser: Box::new(Latte::load(&tensors.params("transformer/"), config)?),
    })
}
