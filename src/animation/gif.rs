//! GIF: 256 colours, and pixels that are seen or not.

use gif::{DisposalMethod, Encoder, Frame, Repeat};

use super::frames::{check, unwritable};
use crate::{Error, Result, values::Animation};

/// Fainter pixels are not seen.
const SOLID: u8 = 128;
/// Of the search for colours, from 1 (slow and good) to 30.
const SPEED: i32 = 10;

/// One palette for all frames, so that no colour flickers.
///
/// # Errors
/// `BadInput` for frames that no GIF can hold.
pub fn encode(animation: &Animation) -> Result<Vec<u8>> {
    let [width, height] = check(animation)?;
    let count = animation.frames.len();
    // All frames below each other are one picture to the search for colours.
    let sides = [width, height, height * count].map(|side| u16::try_from(side).ok());
    let [Some(width), Some(height), Some(all)] = sides else {
        return Err(Error::bad_input(format!(
            "{count} frames of {width} x {height} are too large for a GIF; give fewer, or save as WebP"
        )));
    };
    let seen = |pixel: &[u8]| if pixel[3] < SOLID { [0; 4] } else { [pixel[0], pixel[1], pixel[2], u8::MAX] };
    let mut rgba: Vec<u8> =
        animation.frames.iter().flat_map(|frame| frame.rgba.chunks_exact(4).flat_map(seen)).collect();
    let whole = Frame::from_rgba_speed(width, all, &mut rgba, SPEED);
    let palette = whole.palette.unwrap_or_default();
    let mut bytes = Vec::new();
    let write = |bytes: &mut Vec<u8>| {
        let mut encoder = Encoder::new(bytes, width, height, &palette)?;
        encoder.set_repeat(Repeat::Infinite)?;
        for indices in whole.buffer.chunks_exact(usize::from(width) * usize::from(height)) {
            encoder.write_frame(&Frame {
                width,
                height,
                // In hundredths of a second.
                delay: (animation.frame_ms as f64 / 10.0).round() as u16,
                dispose: DisposalMethod::Background,
                transparent: whole.transparent,
                buffer: indices.into(),
                ..Frame::default()
            })?;
        }
        encoder.into_inner().map(drop)
    };
    write(&mut bytes).map_err(unwritable)?;
    Ok(bytes)
}
