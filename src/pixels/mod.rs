//! Pixel tensors <-> RGBA8, and what a mask says of pixels.

mod mask;

pub use mask::{Convention, keep_spared, redraw};

use burn::tensor::{Device, Tensor, TensorData};

use crate::{
    Code, Error, Result,
    values::{Image, PixelTensor, read},
    weights::Config,
};

/// What the fourth channel of a pixel tensor means.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum Alpha {
    /// There are three channels; every pixel is opaque.
    None,
    /// RGB is independent of alpha.
    Straight,
    /// RGB has been multiplied by alpha.
    Premultiplied,
}

impl Alpha {
    /// Reads `alpha` from `model_index.json` (`"none"` where it is absent).
    ///
    /// # Errors
    /// `BadModel` for another word, or where the autoencoder has another number of channels.
    pub fn read(index: &Config, pixel_channels: usize) -> Result<Self> {
        let alpha = match index.str("alpha", "none")? {
            "none" => Self::None,
            "straight" => Self::Straight,
            "premultiplied" => Self::Premultiplied,
            _ => return Err(index.wrong("alpha", "it must be \"none\", \"straight\" or \"premultiplied\"")),
        };
        if alpha.channels() != pixel_channels {
            return Err(index.wrong(
                "alpha",
                &format!("that means {} channels, but the autoencoder has {pixel_channels}", alpha.channels()),
            ));
        }
        Ok(alpha)
    }

    pub fn name(self) -> &'static str {
        match self {
            Self::None => "none",
            Self::Straight => "straight",
            Self::Premultiplied => "premultiplied",
        }
    }

    fn channels(self) -> usize {
        if self == Self::None { 3 } else { 4 }
    }
}

/// One picture of an autoencoder, `[1, C, H, W]` on its device -> bytes here.
///
/// # Errors
/// `DeviceLost` or `OutOfMemory` from the device; those of [`to_image`].
pub async fn read_image(pixels: PixelTensor, alpha: Alpha) -> Result<Image> {
    let [_, _, height, width] = pixels.dims();
    to_image(&read(pixels).await?, width, height, alpha)
}

/// One picture's values, `[C, height, width]` in -1..1 (clamped where they overshoot), as straight RGBA8.
///
/// # Errors
/// `BadModel` where a value is not a number: better an error than a black picture.
pub fn to_image(values: &[f32], width: usize, height: usize, alpha: Alpha) -> Result<Image> {
    if let Some(bad) = values.iter().position(|value| !value.is_finite()) {
        return Err(Error::new(
            Code::BadModel,
            format!(
                "the picture's value {bad} is {}: the weights or the device's arithmetic are wrong; try the other device",
                values[bad]
            ),
        ));
    }
    let plane = width * height;
    let mut rgba = Vec::with_capacity(4 * plane);
    for i in 0..plane {
        let unit = |channel: usize| ((values[channel * plane + i] + 1.0) / 2.0).clamp(0.0, 1.0);
        let a = if alpha == Alpha::None { 1.0 } else { unit(3) };
        let byte = |value: f32| (value * 255.0).round() as u8;
        if byte(a) == 0 {
            // The colour of what cannot be seen is noise; zeros compress better and hide nothing.
            rgba.extend([0; 4]);
            continue;
        }
        for channel in 0..3 {
            let value = unit(channel);
            rgba.push(byte(if alpha == Alpha::Premultiplied { (value / a).min(1.0) } else { value }));
        }
        rgba.push(byte(a));
    }
    Ok(Image { width, height, rgba })
}

/// A straight RGBA8 picture as `[1, C, height, width]` in -1..1. Without an alpha channel it is laid over white.
pub fn from_image(image: &Image, alpha: Alpha, device: &Device) -> PixelTensor {
    let plane = image.width * image.height;
    let mut values = vec![0f32; alpha.channels() * plane];
    for (i, pixel) in image.rgba.chunks_exact(4).enumerate() {
        let unit = |channel: usize| f32::from(pixel[channel]) / 255.0;
        let a = unit(3);
        for channel in 0..3 {
            let value = match alpha {
                Alpha::None => unit(channel) * a + 1.0 - a,
                Alpha::Straight => unit(channel),
                Alpha::Premultiplied => unit(channel) * a,
            };
            values[channel * plane + i] = 2.0 * value - 1.0;
        }
        if alpha != Alpha::None {
            values[3 * plane + i] = 2.0 * a - 1.0;
        }
    }
    Tensor::from_data(TensorData::new(values, [1, alpha.channels(), image.height, image.width]), device)
}

#[cfg(test)]
mod tests {
    use super::*;

    const SIZE: (usize, usize) = (3, 2);

    fn picture() -> Image {
        // Opaque, translucent and invisible pixels.
        let rgba =
            vec![255, 0, 0, 255, 0, 255, 0, 128, 0, 0, 0, 0, 10, 20, 30, 255, 200, 100, 50, 64, 255, 255, 255, 255];
        Image { width: SIZE.0, height: SIZE.1, rgba }
    }

    #[test]
    fn straight_and_premultiplied_round_trip() {
        for alpha in [Alpha::Straight, Alpha::Premultiplied] {
            let values = from_image(&picture(), alpha, &Device::flex()).into_data().try_to_vec::<f32>().unwrap();
            let back = to_image(&values, SIZE.0, SIZE.1, alpha).unwrap();
            for (a, b) in picture().rgba.iter().zip(&back.rgba) {
                assert!(a.abs_diff(*b) <= 1, "{alpha:?}: {a} became {b}");
            }
        }
    }

    #[test]
    fn without_alpha_a_picture_lies_on_white() {
        let values = from_image(&picture(), Alpha::None, &Device::flex()).into_data().try_to_vec::<f32>().unwrap();
        let back = to_image(&values, SIZE.0, SIZE.1, Alpha::None).unwrap();
        assert_eq!(back.rgba[8..12], [255; 4]);
        assert_eq!(back.rgba[..4], [255, 0, 0, 255]);
    }

    #[test]
    fn overshoot_is_clamped_and_nan_is_refused() {
        let image = to_image(&[9.0, -9.0, 1.0, 1.0], 1, 1, Alpha::Straight).unwrap();
        assert_eq!(image.rgba, [255, 0, 255, 255]);
        assert_eq!(to_image(&[f32::NAN, 0.0, 0.0], 1, 1, Alpha::None).unwrap_err().code, Code::BadModel);
    }
}
