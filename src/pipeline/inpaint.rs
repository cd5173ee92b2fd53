//! Below a mask: what it spares stays (diffusers' `StableDiffusionInpaintPipeline` and `FluxInpaintPipeline`).
//!
//! Networks trained for it are told mask and masked picture; for all others what is spared is put back after each step.

use burn::tensor::{Device, Tensor, TensorData};

use super::start::Start;
use crate::{
    denoise::Blend,
    values::{Image, Latent, PixelTensor},
};

/// Each pixel: 1 where the picture is drawn anew, 0 where it stays.
pub fn redraw(mask: &Image) -> Vec<f32> {
    mask.rgba
        .chunks_exact(4)
        .map(|pixel| {
            // ITU-R 601 luma, as PIL rounds it.
            let [r, g, b] = [0, 1, 2].map(|channel| u32::from(pixel[channel]));
            let luma = (r * 19595 + g * 38470 + b * 7471 + 0x8000) >> 16;
            if luma >= 128 { 1.0 } else { 0.0 }
        })
        .collect()
}

/// The mask over latent positions, each taking its upper left pixel: `[1, 1, h / factor, w / factor]`.
pub fn latent_mask(mask: &Image, factor: usize, device: &Device) -> Tensor<4> {
    let redraw = redraw(mask);
    let (h, w) = (mask.height / factor, mask.width / factor);
    let values: Vec<f32> = (0..h * w).map(|i| redraw[i / w * factor * mask.width + i % w * factor]).collect();
    Tensor::from_data(TensorData::new(values, [1, 1, h, w]), device)
}

/// The picture with what is to be drawn anew greyed out, `[1, C, H, W]`.
pub fn masked(pixels: PixelTensor, mask: &Image) -> PixelTensor {
    let [_, _, height, width] = pixels.dims();
    let keep: Vec<f32> = redraw(mask).into_iter().map(|redraw| 1.0 - redraw).collect();
    pixels.clone() * Tensor::from_data(TensorData::new(keep, [1, 1, height, width]), &pixels.device())
}

/// Makes a run that starts anywhere keep to the mask, `[1, 1, h, w]`: `known` is the encoded picture, `noise` unit noise,
/// `masked` the encoded masked picture for networks that want it.
pub fn below(mask: Tensor<4>, start: Start, known: Latent, noise: Latent, masked: Option<Latent>) -> Start {
    match masked {
        Some(masked) => Start { extra: Some(Tensor::cat(vec![mask, masked], 1)), ..start },
        None => Start { blend: Some(Blend { mask, known, noise }), ..start },
    }
}
