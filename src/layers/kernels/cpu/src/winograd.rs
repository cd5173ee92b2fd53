//! Convolutions by three at stride 1 with fewer multiplications: F(2 x 2, 3 x 3) of Lavin and Gray, "Fast Algorithms for
//! Convolutional Neural Networks" (arXiv 1509.09308). A tile of 2 x 2 places that come out needs 16 products where it would
//! be 36; what is added besides is, by count, about a tenth of them at 48 channels. Tests hold sums to 2e-5 of plain ones.

use macerator::{Scalar, Simd, Vector};

use crate::{
    Convolution, Out, each,
    tile::{Factors, Start, WIDTH, block, load, store},
};

/// Products of a tile.
const POINTS: usize = 16;
/// From so many channels `[in, out]` on transforming is worth while.
const MANY: [usize; 2] = [16, 4];
/// Products of channels up to which their weights, transformed for a call, are worth their room (16 MiB).
const PAIRS: usize = 1 << 18;

/// Whether a convolution of that shape is faster so: its kernel is by three, its rows fill vectors of tiles.
pub fn fits(shape: &Convolution) -> bool {
    let [h_out, w_out] = shape.size();
    let channels = shape.c_in >= MANY[0] && shape.c_out >= MANY[1] && shape.c_in * shape.c_out <= PAIRS;
    shape.kernel == 3 && channels && w_out >= 2 * WIDTH && h_out >= 16
}

/// See [`convolve`](crate::convolve), which has checked the lengths.
pub fn convolve(shape: &Convolution, pictures: &[f32], weights: &[f32], bias: Option<&[f32]>, out: &mut [f32]) {
    let &Convolution { c_in, c_out, height, width, .. } = shape;
    let [h_out, w_out] = shape.size();
    let weights = transformed(weights, c_in * c_out);
    for (picture, out) in pictures.chunks_exact(c_in * height * width).zip(out.chunks_exact_mut(c_out * h_out * w_out))
    {
        let (weights, out) = (&weights[..], Out(out.as_mut_ptr()));
        let bands = h_out.div_ceil(2 * ROWS_AT_ONCE);
        each(bands, h_out * w_out * c_in * c_out, |number| {
            band(shape, picture, weights, bias, &out, number * 2 * ROWS_AT_ONCE);
        });
    }
}

/// Rows of tiles that are computed from the same lines.
const ROWS_AT_ONCE: usize = 2;
/// As many lines.
const LINES: usize = 2 * ROWS_AT_ONCE + 2;

/// `G w G^T` of each of `pairs` kernels: `[POINTS, pairs]`.
fn transformed(weights: &[f32], pairs: usize) -> Vec<f32> {
    let once = |[a, b, c]: [f32; 3]| [a, (a + b + c) / 2.0, (a - b + c) / 2.0, c];
    let mut out = vec![0f32; POINTS * pairs];
    for (pair, w) in weights.chunks_exact(9).enumerate() {
        let rows: [[f32; 4]; 3] = std::array::from_fn(|y| once([w[3 * y], w[3 * y + 1], w[3 * y + 2]]));
        for x in 0..4 {
            for (y, value) in once([rows[0][x], rows[1][x], rows[2][x]]).into_iter().enumerate() {
                out[(4 * y + x) * pairs + pair] = value;
            }
        }
    }
    out
}

/// Some rows of all channels, from `first` on, [`WIDTH`] tiles after the other.
#[macerator::with_simd]
fn band<'a, S: Simd>(
    shape: &Convolution,
    picture: &'a [f32],
    weights: &'a [f32],
    bias: Option<&'a [f32]>,
    out: &Out,
    first: usize,
) {
    let &Convolution { c_in, c_out, padding: [begin, _], .. } = shape;
    let [h_out, w_out] = shape.size();
    // The even places of each line before the odd ones: so neighbouring tiles' lie side by side.
    let half = w_out.div_ceil(2).next_multiple_of(WIDTH) + WIDTH;
    let mut split = vec![0f32; c_in * LINES * 2 * half];
    shape.lines(picture, first, LINES, |c, y, values| {
        let (even, odd) = split[(c * LINES + y) * 2 * half..][..2 * half].split_at_mut(half);
        let (mut even, mut odd) = if begin % 2 == 0 { (even, odd) } else { (odd, &mut even[1..]) };
        (even, odd) = (&mut even[begin / 2..], &mut odd[begin / 2..]);
        let pairs = values.chunks_exact(2);
        if let [last] = pairs.remainder() {
            even[pairs.len()] = *last;
        }
        for ((pair, even), odd) in pairs.zip(even).zip(odd) {
            (*even, *odd) = (pair[0], pair[1]);
        }
    });

    let mut seen = vec![0f32; POINTS * c_in * WIDTH];
    let mut products = vec![0f32; POINTS * c_out * WIDTH];
    for (y, x) in (0..ROWS_AT_ONCE).flat_map(|y| (0..w_out.div_ceil(2)).step_by(WIDTH).map(move |x| (y, x))) {
        let row = first + 2 * y;
        if row >= h_out {
            break;
        }
        for c in 0..c_in {
            let from = &split[(c * LINES + 2 * y) * 2 * half + x..];
            for lane in (0..WIDTH).step_by(S::lanes32()) {
                gather::<S>(&from[lane..], half, &mut seen[c * WIDTH + lane..], c_in * WIDTH);
            }
        }
        let points = weights.chunks_exact(c_in * c_out).zip(seen.chunks_exact(c_in * WIDTH));
        for ((a, b), out) in points.zip(products.chunks_exact_mut(c_out * WIDTH)) {
            let factors = Factors { a, rows: c_out, depth: c_in, b, start: Start::Zero };
            // SAFETY: `out` has WIDTH values for each of the rows.
            unsafe { block::<S>(factors, WIDTH, out.as_mut_ptr(), WIDTH) }
        }
        let columns = (2 * WIDTH).min(w_out - 2 * x);
        for c in 0..c_out {
            let mut places = [[[0f32; WIDTH]; 2]; 2];
            let bias = bias.map_or(0.0, |bias| bias[c]);
            for lane in (0..WIDTH).step_by(S::lanes32()) {
                summed::<S>(&products[c * WIDTH + lane..], c_out * WIDTH, bias, &mut places, lane);
            }
            for (dy, [even, odd]) in places.iter().enumerate().take(h_out - row) {
                let mut line = [0f32; 2 * WIDTH];
                for (pair, (even, odd)) in line.chunks_exact_mut(2).zip(even.iter().zip(odd)) {
                    pair.copy_from_slice(&[*even, *odd]);
                }
                // SAFETY: `out` is as large as `convolve` has checked, and these rows are written here alone.
                unsafe {
                    let out = out.at((c * h_out + row + dy) * w_out + 2 * x);
                    out.copy_from_nonoverlapping(line.as_ptr(), columns);
                }
            }
        }
    }
}

// Below are loops and functions where closures would read better: code is compiled for a processor's vectors only where it is
// inlined into `row`, and closures may not be.

/// `B^T d B` of a vector of tiles' 4 x 4 places, whose even ones are from the begin of `from` on and the odd ones `half` later.
#[inline(always)]
fn gather<S: Simd>(from: &[f32], half: usize, to: &mut [f32], apart: usize) {
    let zero = f32::splat::<S>(0.0);
    let mut rows = [[zero; 4]; 4];
    for (y, row) in rows.iter_mut().enumerate() {
        let even = 2 * y * half;
        let odd = even + half;
        *row = seen([load(from, even), load(from, odd), load(from, even + 1), load(from, odd + 1)]);
    }
    let [a, b, c, d] = rows;
    for (x, (((a, b), c), d)) in a.into_iter().zip(b).zip(c).zip(d).enumerate() {
        let column = seen([a, b, c, d]);
        for (y, value) in column.into_iter().enumerate() {
            store(value, to, (4 * y + x) * apart);
        }
    }
}

/// `B^T d`.
#[inline(always)]
fn seen<S: Simd>([a, b, c, d]: [Vector<S, f32>; 4]) -> [Vector<S, f32>; 4] {
    [a - c, b + c, c - b, b - d]
}

/// `A^T m A` of a vector of tiles' products, `apart` from each other, into places from `lane` on: `[row, even and odd, tile]`.
#[inline(always)]
fn summed<S: Simd>(products: &[f32], apart: usize, bias: f32, places: &mut [[[f32; WIDTH]; 2]; 2], lane: usize) {
    let bias = f32::splat::<S>(bias);
    let mut rows = [[bias; 2]; 4];
    for (y, row) in rows.iter_mut().enumerate() {
        let at = 4 * y * apart;
        let loaded = [
            load(products, at),
            load(products, at + apart),
            load(products, at + 2 * apart),
            load(products, at + 3 * apart),
        ];
        *row = pair(loaded);
    }
    for x in 0..2 {
        let column = pair([rows[0][x], rows[1][x], rows[2][x], rows[3][x]]);
        for (row, value) in places.iter_mut().zip(column) {
            store(value + bias, &mut row[x], lane);
        }
    }
}

/// `A^T m`.
#[inline(always)]
fn pair<S: Simd>([a, b, c, d]: [Vector<S, f32>; 4]) -> [Vector<S, f32>; 2] {
    [a + b + c, b - c - d]
}
