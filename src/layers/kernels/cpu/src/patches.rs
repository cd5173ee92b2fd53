//! Convolutions of any kernel, by patches.

use crate::{
    Convolution, Out, each,
    tile::{Factors, ROWS, Start, WIDTH, block, load, store},
};

/// See [`convolve`](crate::convolve), which has checked the lengths.
pub fn convolve(shape: &Convolution, pictures: &[f32], weights: &[f32], bias: Option<&[f32]>, out: &mut [f32]) {
    let &Convolution { c_in, c_out, height, width, .. } = shape;
    let [h_out, w_out] = shape.size();
    let (groups, bands) = (c_out.div_ceil(GROUP), h_out.div_ceil(ROWS_AT_ONCE));
    for (picture, out) in pictures.chunks_exact(c_in * height * width).zip(out.chunks_exact_mut(c_out * h_out * w_out))
    {
        let out = Out(out.as_mut_ptr());
        each(groups * bands, h_out * w_out * weights.len(), |number| {
            band(shape, picture, weights, bias, &out, number / bands * GROUP, number % bands * ROWS_AT_ONCE);
        });
    }
}

/// Channels that are computed together, from patches that are gathered once.
pub const GROUP: usize = 32 * ROWS;
/// Rows that are computed from the same lines.
const ROWS_AT_ONCE: usize = 4;

/// Some rows, from `first` on, of the group from `channel` on, tile by tile: what all places of the kernel see of a tile is
/// gathered, little enough to stay in the nearest cache, and multiplied.
#[macerator::with_simd]
fn band<'a, S: macerator::Simd>(
    shape: &Convolution,
    picture: &'a [f32],
    weights: &'a [f32],
    bias: Option<&'a [f32]>,
    out: &Out,
    channel: usize,
    first: usize,
) {
    let &Convolution { c_in, kernel, width, padding: [begin, end], .. } = shape;
    let [h_out, w_out] = shape.size();
    let (line, count) = (width + begin + end, ROWS_AT_ONCE + kernel - 1);
    // The last tile of a line may look beyond it.
    let mut padded = vec![0f32; c_in * count * line + WIDTH];
    shape.lines(picture, first, count, |c, y, values| {
        padded[(c * count + y) * line + begin..][..width].copy_from_slice(values);
    });

    let depth = c_in * kernel * kernel;
    let rows = GROUP.min(shape.c_out - channel);
    let a = &weights[channel * depth..];
    let start = bias.map_or(Start::Zero, |bias| Start::Rows(&bias[channel..channel + rows]));
    let mut patches = vec![0f32; depth * WIDTH];
    for y in 0..ROWS_AT_ONCE.min(h_out - first) {
        for x in (0..w_out).step_by(WIDTH) {
            let mut tiles = patches.chunks_exact_mut(WIDTH);
            for c in 0..c_in {
                for ky in 0..kernel {
                    let from = (c * count + y + ky) * line + x;
                    for (kx, tile) in tiles.by_ref().take(kernel).enumerate() {
                        for lane in (0..WIDTH).step_by(S::lanes32()) {
                            store::<S>(load(&padded, from + kx + lane), tile, lane);
                        }
                    }
                }
            }
            let factors = Factors { a, rows, depth, b: &patches, start };
            // SAFETY: `out` is as large as `convolve` has checked, and this row of these channels is written here alone.
            unsafe {
                let out = out.at((channel * h_out + first + y) * w_out + x);
                block::<S>(factors, WIDTH.min(w_out - x), out, h_out * w_out);
            }
        }
    }
}
