//! What the CPU device spends its time with: dense layers and convolutions, as products of small tiles that stay in
//! registers. A package of its own, for it is compiled for speed where the rest is compiled for size, and knows slices only.
//!
//! Both are `out[m, n] = start + sum over i of a[m, i] b[i, n]`. For a dense layer `a` are the rows of its input and `b` a
//! panel of its weights; for a convolution `a` are its weights and `b` what a place of its kernel sees of the picture,
//! read where it lies: nothing is gathered into patches.

mod convolution;
mod dense;
mod tile;
mod winograd;

pub use convolution::Convolution;
pub use dense::{PANEL, dense};

/// Runs `work` for all numbers below `count`, natively on all cores if it is `operations` multiplications or more in all
/// that are worth waking them for.
fn each(count: usize, operations: usize, work: impl Fn(usize) + Send + Sync) {
    #[cfg(not(target_arch = "wasm32"))]
    if operations >= WORTH_WAKING {
        use rayon::prelude::*;
        return (0..count).into_par_iter().for_each(work);
    }
    let _ = operations;
    (0..count).for_each(work);
}

/// Written to by several at once, each its own part.
struct Out(*mut f32);
// SAFETY: see above.
unsafe impl Sync for Out {}

/// About 20 microseconds of one core.
#[cfg(not(target_arch = "wasm32"))]
const WORTH_WAKING: usize = 1 << 19;
