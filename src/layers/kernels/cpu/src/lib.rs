//! What the CPU device spends its time with: dense layers, convolutions and attention, as products of small [tiles](tile) that
//! stay in registers, and what is bent and added after them. A package of its own, for it is compiled for speed where the rest
//! is compiled for size, and knows slices only.
//!
//! A product is `out[m, n] = start + sum over i of a[m, i] b[i, n]`. For a dense layer `a` are the rows of its input and `b` is
//! a panel of its weights; for a convolution `a` are its weights and `b` is what a tile of places sees of the picture.

mod attention;
mod convolution;
mod convolve;
mod curve;
mod dense;
mod finish;
mod patches;
mod tile;
mod winograd;

pub use attention::{Attention, Rows};
pub use convolution::Convolution;
pub use convolve::convolve;
pub use curve::Curve;
pub use dense::{PANEL, dense};
pub use finish::Finish;

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

impl Out {
    /// From `at` on.
    ///
    /// # Safety
    /// There must be so many values.
    unsafe fn at(&self, at: usize) -> *mut f32 {
        // SAFETY: the caller's.
        unsafe { self.0.add(at) }
    }
}

/// About 20 microseconds of one core.
#[cfg(not(target_arch = "wasm32"))]
const WORTH_WAKING: usize = 1 << 19;
