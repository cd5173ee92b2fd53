//! A tile of a product, kept in registers from its first number to its last.

use macerator::{Scalar, Simd, Vector, vload_unaligned, vstore_unaligned};

/// Rows of a tile. With [`WIDTH`] columns they fill the registers of AVX2 (16 of 8 values) and of NEON (32 of 4); of
/// WebAssembly's 16 of 4 an engine keeps some for itself, and six rows are slower there than four.
pub const ROWS: usize = if cfg!(target_arch = "wasm32") { 4 } else { 6 };
/// Columns of a tile.
pub const WIDTH: usize = if cfg!(target_arch = "wasm32") { 8 } else { 16 };

/// What sums begin with.
#[derive(Clone, Copy)]
pub enum Start<'a> {
    Zero,
    /// One number for each row.
    Rows(&'a [f32]),
    /// One for each column.
    Columns(&'a [f32; WIDTH]),
}

/// The factors of a block of the product, as many rows as there are.
#[derive(Clone, Copy)]
pub struct Factors<'a> {
    /// Rows of `depth` values, one after the other.
    pub a: &'a [f32],
    pub rows: usize,
    pub depth: usize,
    /// `[depth, WIDTH]`.
    pub b: &'a [f32],
    pub start: Start<'a>,
}

/// Writes `columns` (at most [`WIDTH`]) of each row of the product to `out`, rows `out_stride` apart.
///
/// # Safety
/// `out` must be valid for what is written.
#[inline(always)]
pub unsafe fn block<S: Simd>(factors: Factors, columns: usize, out: *mut f32, out_stride: usize) {
    let Factors { a, rows: m, depth, b, start } = factors;
    assert!(a.len() >= m * depth && b.len() == depth * WIDTH && columns <= WIDTH);
    assert!(if let Start::Rows(values) = start { values.len() == m } else { true });
    // SAFETY: the caller's, and the lengths that are checked here.
    unsafe {
        match WIDTH / S::lanes32() {
            1 => rows::<S, 1>(factors, columns, out, out_stride),
            2 => rows::<S, 2>(factors, columns, out, out_stride),
            4 => rows::<S, 4>(factors, columns, out, out_stride),
            // Single values, where there are no vectors.
            _ => rows::<S, WIDTH>(factors, columns, out, out_stride),
        }
    }
}

#[inline(always)]
unsafe fn rows<S: Simd, const V: usize>(factors: Factors, columns: usize, out: *mut f32, out_stride: usize) {
    let Factors { a, rows, depth, start, .. } = factors;
    for first in (0..rows).step_by(ROWS) {
        let rows = ROWS.min(rows - first);
        let start = match start {
            Start::Rows(values) => Start::Rows(&values[first..first + rows]),
            other => other,
        };
        let part = Factors { a: &a[first * depth..], start, ..factors };
        // SAFETY: the caller's; `part` is some of the rows.
        unsafe {
            let out = out.add(first * out_stride);
            match rows {
                1 => tile::<S, 1, V>(part, columns, out, out_stride),
                2 => tile::<S, 2, V>(part, columns, out, out_stride),
                3 => tile::<S, 3, V>(part, columns, out, out_stride),
                4 => tile::<S, 4, V>(part, columns, out, out_stride),
                5 => tile::<S, 5, V>(part, columns, out, out_stride),
                _ => tile::<S, ROWS, V>(part, columns, out, out_stride),
            }
        }
    }
}

#[inline(always)]
unsafe fn tile<S: Simd, const M: usize, const V: usize>(
    factors: Factors,
    columns: usize,
    out: *mut f32,
    out_stride: usize,
) {
    let Factors { a, depth, b, start, .. } = factors;
    let lanes = WIDTH / V;
    let zero: Vector<S, f32> = 0f32.splat();
    let mut sums = [[zero; V]; M];
    // SAFETY: reads are within the slices by the caller's promise; what is stored is `columns` values of `M` rows.
    unsafe {
        match start {
            Start::Zero => {}
            Start::Rows(values) => {
                for (row, value) in sums.iter_mut().zip(values) {
                    *row = [value.splat(); V];
                }
            }
            Start::Columns(values) => {
                for row in &mut sums {
                    for (v, sum) in row.iter_mut().enumerate() {
                        *sum = vload_unaligned(values.as_ptr().add(v * lanes));
                    }
                }
            }
        }
        for i in 0..depth {
            let mut row = [zero; V];
            for (v, values) in row.iter_mut().enumerate() {
                *values = vload_unaligned(b.as_ptr().add(i * WIDTH + v * lanes));
            }
            for (m, sums) in sums.iter_mut().enumerate() {
                let factor: Vector<S, f32> = (*a.get_unchecked(m * depth + i)).splat();
                for (sum, values) in sums.iter_mut().zip(row) {
                    *sum = factor.mul_add(values, *sum);
                }
            }
        }
        for (m, sums) in sums.iter().enumerate() {
            let out = out.add(m * out_stride);
            if columns == WIDTH {
                for (v, sum) in sums.iter().enumerate() {
                    vstore_unaligned(out.add(v * lanes), *sum);
                }
            } else {
                let mut whole = [0f32; WIDTH];
                for (v, sum) in sums.iter().enumerate() {
                    vstore_unaligned(whole.as_mut_ptr().add(v * lanes), *sum);
                }
                out.copy_from_nonoverlapping(whole.as_ptr(), columns);
            }
        }
    }
}

/// A vector of `from`, `at` and after it.
#[inline(always)]
pub fn load<S: Simd>(from: &[f32], at: usize) -> Vector<S, f32> {
    let values = &from[at..at + S::lanes32()];
    // SAFETY: as many values as a vector has.
    unsafe { vload_unaligned(values.as_ptr()) }
}

/// Puts a vector into `to`, at `at` and after it.
#[inline(always)]
pub fn store<S: Simd>(value: Vector<S, f32>, to: &mut [f32], at: usize) {
    let to = &mut to[at..at + S::lanes32()];
    // SAFETY: as many values as a vector has.
    unsafe { vstore_unaligned(to.as_mut_ptr(), value) }
}
