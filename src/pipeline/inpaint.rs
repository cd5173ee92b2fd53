//! Below a mask: what it spares stays (diffusers' `StableDiffusionInpaintPipeline` and `FluxInpaintPipeline`).
//!
//! Networks trained for it are told mask and masked picture; for all others what is spared is put back after each step.

use burn::tensor::{Device, Tensor, TensorData};

use super::family::ToldMask;
use crate::{
    pixels::redraw,
    values::{Image, Latent, PixelTensor},
};

/// The mask over latent positions, each taking its upper left pixel: `[1, 1, h / factor, w / factor]`.
pub fn latent_mask(mask: &Image, factor: usize, device: &Device) -> Tensor<4> {
    pixel_mask(mask, factor, device).narrow(1, 0, 1)
}

/// The mask over latent positions, with a channel for each of a position's pixels: `[1, factor^2, h / factor, w / factor]`.
fn pixel_mask(mask: &Image, factor: usize, device: &Device) -> Tensor<4> {
    let (h, w) = (mask.height / factor, mask.width / factor);
    let redraw: Tensor<6> = Tensor::from_data(TensorData::new(redraw(mask), [1, 1, h, factor, w, factor]), device);
    // [1, 1, h, factor, w, factor] -> [1, factor, factor, 1, h, w] -> [1, factor^2, h, w]
    redraw.permute([0, 3, 5, 1, 2, 4]).reshape([1, factor * factor, h, w])
}

/// The picture with what is to be drawn anew greyed out, `[1, C, H, W]`.
pub fn masked(pixels: PixelTensor, mask: &Image) -> PixelTensor {
    let [_, _, height, width] = pixels.dims();
    let keep: Vec<f32> = redraw(mask).into_iter().map(|redraw| 1.0 - redraw).collect();
    pixels.clone() * Tensor::from_data(TensorData::new(keep, [1, 1, height, width]), &pixels.device())
}

/// What a network that repaints is told besides the latent, where `masked` is the encoded masked picture.
pub fn told(mask: &Image, masked: Latent, factor: usize, told_mask: ToldMask) -> Latent {
    let device = masked.device();
    let parts = match told_mask {
        ToldMask::Positions => vec![latent_mask(mask, factor, &device), masked],
        ToldMask::Pixels => vec![masked, pixel_mask(mask, factor, &device)],
    };
    Tensor::cat(parts, 1)
}
