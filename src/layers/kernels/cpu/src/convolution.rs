//! Convolutions at stride 1.

use macerator::Simd;

use crate::{
    Out, each,
    tile::{Factors, ROWS, Start, WIDTH, block, load, store},
    winograd,
};

/// The shape of a convolution with a square kernel at stride 1.
#[derive(Clone, Copy, Debug)]
pub struct Convolution {
    pub c_in: usize,
    pub c_out: usize,
    pub kernel: usize,
    /// Of the picture.
    pub height: usize,
    pub width: usize,
    /// `[top and left, bottom and right]`, of zeros.
    pub padding: [usize; 2],
}

impl Convolution {
    /// `[height, width]` of what comes out.
    pub fn size(&self) -> [usize; 2] {
        [self.height, self.width].map(|side| side + self.padding[0] + self.padding[1] + 1 - self.kernel)
    }

    /// `pictures` `[n, c_in, height, width]` by `weights` `[c_out, c_in, kernel, kernel]` to `out` `[n, c_out, height, width]`
    /// of [`size`](Self::size).
    pub fn apply(&self, pictures: &[f32], weights: &[f32], bias: Option<&[f32]>, out: &mut [f32]) {
        let Self { c_in, c_out, kernel, height, width, .. } = *self;
        let [h_out, w_out] = self.size();
        let values = c_in * height * width;
        assert_eq!(weights.len(), c_out * c_in * kernel * kernel);
        assert!(bias.is_none_or(|bias| bias.len() == c_out));
        assert_eq!(pictures.len() * c_out * h_out * w_out, out.len() * values);

        if winograd::fits(self) {
            return winograd::apply(self, pictures, weights, bias, out);
        }
        let (groups, bands) = (c_out.div_ceil(GROUP), h_out.div_ceil(ROWS_AT_ONCE));
        for (picture, out) in pictures.chunks_exact(values).zip(out.chunks_exact_mut(c_out * h_out * w_out)) {
            let out = Out(out.as_mut_ptr());
            each(groups * bands, h_out * w_out * weights.len(), |number| {
                band(self, picture, weights, bias, &out, number / bands * GROUP, number % bands * ROWS_AT_ONCE);
            });
        }
    }

    /// Calls `place` with the channel, the number of the line and the values of every line of a picture that is among `count`
    /// padded ones from `first` on. What comes out of a few rows depends on as many lines and a few more: gathered for
    /// themselves, they stay near.
    pub(crate) fn lines(
        &self,
        picture: &[f32],
        first: usize,
        count: usize,
        mut place: impl FnMut(usize, usize, &[f32]),
    ) {
        for (c, plane) in picture.chunks_exact(self.height * self.width).enumerate() {
            let shown =
                first.saturating_sub(self.padding[0])..self.height.min((first + count).saturating_sub(self.padding[0]));
            for y in shown {
                place(c, y + self.padding[0] - first, &plane[y * self.width..(y + 1) * self.width]);
            }
        }
    }
}

/// Channels that are computed together, from patches that are gathered once.
const GROUP: usize = 32 * ROWS;
/// Rows that are computed from the same lines.
const ROWS_AT_ONCE: usize = 4;

/// Some rows, from `first` on, of the group from `channel` on, tile by tile: what all places of the kernel see of a tile is
/// gathered, little enough to stay in the nearest cache, and multiplied.
#[macerator::with_simd]
fn band<'a, S: Simd>(
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
            // SAFETY: `out` is as large as `apply` has checked, and this row of these channels is written here alone.
            unsafe {
                let out = out.at((channel * h_out + first + y) * w_out + x);
                block::<S>(factors, WIDTH.min(w_out - x), out, h_out * w_out);
            }
        }
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    fn plain(shape: &Convolution, pictures: &[f32], weights: &[f32], bias: Option<&[f32]>) -> Vec<f32> {
        let &Convolution { c_in, c_out, kernel, height, width, padding: [begin, _] } = shape;
        let [h_out, w_out] = shape.size();
        let mut out = Vec::new();
        for picture in pictures.chunks_exact(c_in * height * width) {
            for place in 0..c_out * h_out * w_out {
                let (o, y, x) = (place / (h_out * w_out), place / w_out % h_out, place % w_out);
                let mut sum = bias.map_or(0.0, |bias| f64::from(bias[o]));
                for step in 0..c_in * kernel * kernel {
                    let (c, ky, kx) = (step / (kernel * kernel), step / kernel % kernel, step % kernel);
                    let (y, x) = ((y + ky).wrapping_sub(begin), (x + kx).wrapping_sub(begin));
                    if y < height && x < width {
                        let weight = weights[o * c_in * kernel * kernel + step];
                        sum += f64::from(weight) * f64::from(picture[(c * height + y) * width + x]);
                    }
                }
                out.push(sum as f32);
            }
        }
        out
    }

    #[test]
    fn both_ways_are_a_convolution() {
        let values = |count: usize, step: f32| (0..count).map(|i| (i as f32 * step).sin()).collect::<Vec<f32>>();
        let mut fitting = 0;
        for (n, c_in, c_out, [height, width], kernel, padding) in [
            (1, 1, 1, [1, 1], 1, [0, 0]),
            (2, 3, 5, [7, 6], 3, [1, 1]),
            (1, 2, 3, [5, 8], 3, [0, 1]),
            (1, 4, 2, [9, 9], 5, [2, 2]),
            (1, 9, GROUP + 1, [3, 2 * WIDTH + 1], 1, [0, 0]),
            (2, 17, 19, [17, 2 * WIDTH + 3], 3, [1, 1]),
            (1, 16, 18, [18, 4 * WIDTH + 2], 3, [1, 1]),
            (1, 16, 16, [21, 3 * WIDTH], 3, [0, 1]),
        ] {
            let shape = Convolution { c_in, c_out, kernel, height, width, padding };
            fitting += usize::from(winograd::fits(&shape));
            let pictures = values(n * c_in * height * width, 0.3);
            let (weights, bias) = (values(c_out * c_in * kernel * kernel, 0.7), values(c_out, 1.1));
            for bias in [None, Some(&bias[..])] {
                let expected = plain(&shape, &pictures, &weights, bias);
                let mut out = vec![f32::NAN; expected.len()];
                shape.apply(&pictures, &weights, bias, &mut out);
                for (at, (value, expected)) in out.iter().zip(&expected).enumerate() {
                    assert!((value - expected).abs() < 2e-5, "{shape:?}: {value} for {expected} at {at}");
                }
            }
        }
        assert_eq!(fitting, 3);
    }
}
