//! Animated PNG.

use png::{BitDepth, BlendOp, ColorType, Compression, Encoder};

use super::{check, unwritable};
use crate::{Result, values::Animation};

/// Every frame whole, in place of the one before.
///
/// # Errors
/// `BadInput` for frames that no PNG can hold.
pub fn encode(animation: &Animation) -> Result<Vec<u8>> {
    let [width, height] = check(animation)?;
    let mut bytes = Vec::new();
    let write = |bytes: &mut Vec<u8>| {
        let mut encoder = Encoder::new(bytes, width as u32, height as u32);
        encoder.set_color(ColorType::Rgba);
        encoder.set_depth(BitDepth::Eight);
        encoder.set_compression(Compression::High);
        encoder.set_animated(animation.frames.len() as u32, 0)?;
        encoder.set_frame_delay(animation.frame_ms.min(u16::MAX.into()) as u16, 1000)?;
        encoder.set_blend_op(BlendOp::Source)?;
        let mut writer = encoder.write_header()?;
        for frame in &animation.frames {
            writer.write_image_data(&frame.rgba)?;
        }
        writer.finish()
    };
    write(&mut bytes).map_err(unwritable)?;
    Ok(bytes)
}
