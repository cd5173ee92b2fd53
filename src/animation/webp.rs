//! Animated WebP: still ones in a common container (RFC 9649, "WebP Image Format").

use image_webp::{ColorType, WebPEncoder};

use super::frames::{check, unwritable};
use crate::{
    Error, Result,
    values::{Animation, Image},
};

/// Flags of `VP8X`.
const HAS_ALPHA: u8 = 1 << 4;
const IS_ANIMATION: u8 = 1 << 1;
/// Flags of `ANMF`: in place of what was there, and cleared afterwards. Safari shows rubbish when frames blend.
const NO_BLEND: u8 = 1 << 1;
const CLEARED: u8 = 1;
/// A still file's chunks that are its picture.
const PICTURE: [&[u8]; 3] = [b"ALPH", b"VP8 ", b"VP8L"];
/// So much better than colours is alpha kept: of a soft picture it is most of the file, but a coarse edge shows.
const ALPHA_ABOVE: f32 = 25.0;

/// What an encoder of stills is asked for, each from 1 to 100; alpha of 100 loses nothing.
#[derive(Clone, Copy, Debug, PartialEq)]
pub struct Quality {
    pub colour: f32,
    pub alpha: f32,
}

impl From<f32> for Quality {
    fn from(colour: f32) -> Self {
        Self { colour, alpha: (colour + ALPHA_ABOVE).min(100.0) }
    }
}

/// A still WebP without loss.
///
/// # Errors
/// `BadInput` for a side above 16384 pixels.
pub fn lossless(image: &Image) -> Result<Vec<u8>> {
    let mut bytes = Vec::new();
    let encoder = WebPEncoder::new(&mut bytes);
    encoder.encode(&image.rgba, image.width as u32, image.height as u32, ColorType::Rgba8).map_err(unwritable)?;
    Ok(bytes)
}

/// Every frame by `still`, whole, in place of the one before.
///
/// # Errors
/// What `still` gives; `BadInput` where that is no WebP.
pub async fn encode(
    animation: &Animation,
    quality: Quality,
    still: &mut impl AsyncFnMut(&Image, Quality) -> Result<Vec<u8>>,
) -> Result<Vec<u8>> {
    let [width, height] = check(animation)?;
    let size = [u24(width - 1), u24(height - 1)].concat();
    let mut body = b"WEBP".to_vec();
    chunk(&mut body, b"VP8X", &[&[HAS_ALPHA | IS_ANIMATION, 0, 0, 0], &size[..]].concat());
    // A background of nothing, again and again.
    chunk(&mut body, b"ANIM", &[0; 6]);
    for frame in &animation.frames {
        let mut held = [&u24(0)[..], &u24(0), &size, &u24(animation.frame_ms as usize)].concat();
        held.push(NO_BLEND | CLEARED);
        held.extend(picture(&still(frame, quality).await?)?);
        chunk(&mut body, b"ANMF", &held);
    }
    let mut file = Vec::with_capacity(body.len() + 8);
    chunk(&mut file, b"RIFF", &body);
    Ok(file)
}

fn u24(value: usize) -> [u8; 3] {
    let [a, b, c, ..] = (value as u32).to_le_bytes();
    [a, b, c]
}

/// Name, length and bytes, filled up to an even number.
fn chunk(file: &mut Vec<u8>, name: &[u8; 4], bytes: &[u8]) {
    file.extend(name);
    file.extend((bytes.len() as u32).to_le_bytes());
    file.extend(bytes);
    if bytes.len() % 2 == 1 {
        file.push(0);
    }
}

/// The chunks of a still WebP that are its picture.
fn picture(still: &[u8]) -> Result<Vec<u8>> {
    let wrong = || Error::bad_input("the encoder of still pictures gave no WebP");
    let mut rest =
        still.get(12..).filter(|_| still.starts_with(b"RIFF") && still[8..12] == *b"WEBP").ok_or_else(wrong)?;
    let mut found = Vec::new();
    while rest.len() >= 8 {
        let length = u32::from_le_bytes([rest[4], rest[5], rest[6], rest[7]]) as usize;
        let end = 8 + length + length % 2;
        let (one, others) = rest.split_at_checked(end).ok_or_else(wrong)?;
        if PICTURE.contains(&&one[..4]) {
            found.extend(one);
        }
        rest = others;
    }
    if found.is_empty() { Err(wrong()) } else { Ok(found) }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn only_the_picture_of_a_still_file_is_kept() {
        let mut body = b"WEBP".to_vec();
        for (name, bytes) in
            [(b"VP8X", &[0; 10][..]), (b"ICCP", b"odd"), (b"ALPH", b"abc"), (b"VP8 ", b"de"), (b"EXIF", b"f")]
        {
            chunk(&mut body, name, bytes);
        }
        let mut still = Vec::new();
        chunk(&mut still, b"RIFF", &body);
        assert_eq!(picture(&still).unwrap(), b"ALPH\x03\0\0\0abc\0VP8 \x02\0\0\0de");
        assert!(picture(&still[..still.len() - 1]).is_err());
        assert!(picture(b"GIF89a").is_err());
        assert!(picture(b"").is_err());
    }
}
