//! Animated PNG ("Portable Network Graphics Specification, Third Edition", W3C).

use std::io::Write;

use flate2::{Compression, Crc, write::ZlibEncoder};

use super::frames::{check, unwritable};
use crate::{
    Result,
    values::{Animation, Image},
};

const SIGNATURE: &[u8] = b"\x89PNG\r\n\x1a\n";
/// 8 bits, RGBA, and the only ways of compression, filtering and interlacing that there are.
const RGBA8: [u8; 5] = [8, 6, 0, 0, 0];
/// How a frame goes away, and how it comes: it stays until the next takes its place.
const REPLACED: [u8; 2] = [0, 0];
const BYTES: usize = 4;

/// Every frame whole, in place of the one before.
///
/// # Errors
/// `BadInput` where the frames are of several sizes.
pub fn encode(animation: &Animation) -> Result<Vec<u8>> {
    let size = check(animation)?.map(|side| (side as u32).to_be_bytes()).concat();
    let mut file = SIGNATURE.to_vec();
    chunk(&mut file, b"IHDR", &[&size[..], &RGBA8].concat());
    // 0 is for ever.
    chunk(&mut file, b"acTL", &[(animation.frames.len() as u32).to_be_bytes(), [0; 4]].concat());
    let delay = [animation.frame_ms.min(u16::MAX.into()) as u16, 1000].map(u16::to_be_bytes).concat();
    let mut sequence = 0u32;
    let mut next = || {
        sequence += 1;
        (sequence - 1).to_be_bytes()
    };
    for (i, frame) in animation.frames.iter().enumerate() {
        chunk(&mut file, b"fcTL", &[&next()[..], &size, &[0; 8], &delay, &REPLACED].concat());
        let pixels = compressed(frame).map_err(unwritable)?;
        match i {
            0 => chunk(&mut file, b"IDAT", &pixels),
            _ => chunk(&mut file, b"fdAT", &[&next()[..], &pixels].concat()),
        }
    }
    chunk(&mut file, b"IEND", &[]);
    Ok(file)
}

/// Length, name, bytes and their checksum.
fn chunk(file: &mut Vec<u8>, name: &[u8; 4], bytes: &[u8]) {
    file.extend((bytes.len() as u32).to_be_bytes());
    let begin = file.len();
    file.extend(name);
    file.extend(bytes);
    let mut crc = Crc::new();
    crc.update(&file[begin..]);
    file.extend(crc.sum().to_be_bytes());
}

/// The rows of a picture, each behind the filter that leaves the least of it, as the specification advises.
fn compressed(image: &Image) -> std::io::Result<Vec<u8>> {
    let length = BYTES * image.width;
    let mut encoder = ZlibEncoder::new(Vec::new(), Compression::default());
    let mut above = vec![0; length];
    for row in image.rgba.chunks_exact(length) {
        let rows = [0, 1, 2, 3, 4].map(|filter| filtered(filter, row, &above));
        let left = |row: &Vec<u8>| row[1..].iter().map(|value| u64::from((*value as i8).unsigned_abs())).sum::<u64>();
        encoder.write_all(rows.iter().min_by_key(|row| left(row)).map_or(&[], Vec::as_slice))?;
        above.copy_from_slice(row);
    }
    encoder.finish()
}

/// A row less what is foreseen by the pixel to the left (1), above (2), their mean (3), or by Paeth's choice (4).
fn filtered(filter: u8, row: &[u8], above: &[u8]) -> Vec<u8> {
    let foreseen = |i: usize| {
        let behind = |row: &[u8]| i.checked_sub(BYTES).map_or(0, |i| row[i]);
        let (a, b, c) = (behind(row), above[i], behind(above));
        match filter {
            0 => 0,
            1 => a,
            2 => b,
            3 => ((u16::from(a) + u16::from(b)) / 2) as u8,
            _ => {
                let far = |one: u8, other: u8| (i16::from(one) - i16::from(other)).abs();
                let both = (i16::from(a) + i16::from(b) - 2 * i16::from(c)).abs();
                match (far(b, c), far(a, c)) {
                    (pa, pb) if pa <= pb && pa <= both => a,
                    (_, pb) if pb <= both => b,
                    _ => c,
                }
            }
        }
    };
    std::iter::once(filter).chain((0..row.len()).map(|i| row[i].wrapping_sub(foreseen(i)))).collect()
}
