//! What a GPU does in one step where burn takes many, each beside its plain twin: the same function as the CPU device
//! computes it.
//!
//! | function | steps it stands for on a GPU |
//! | --- | --- |
//! | [`layer_norm`] | a layer norm with scale and shift: 10 |
//! | [`rms_norm`] | a root mean square norm with its weight: 6 |
//! | [`softmax`] | attention's scores, scaled and masked: 7 |
//! | [`short_attention`] | all of attention, where few tokens look at few: up to 7 and the copies between |
//! | [`short_dense`] | all of a dense layer, where few rows are multiplied: the norm before, the product, and what follows |
//! | [`rotate_half`] | rotary positions: 6 |
//! | [`turn_and_keep`] | the same, and keys and values into their cache: 3 of these |
//! | [`gated`] | a gated layer's two halves: 4 |
//! | [`finish`] | what follows a product: bias, activation, gate, residual: up to 13 |
//!
//! What the CPU device does by kernels of ours is in [`flex`]; the package [`inkbloom_cpu`], in the folder `cpu`, has them.
//!
//! They are compiled for WebAssembly, and natively with the feature `gpu`; the browser's tests compare every model on
//! both devices with the reference.

mod attention;
mod dense;
mod finish;
pub mod flex;
mod gated;
#[cfg(gpu)]
mod gpu;
mod layer_norm;
mod rms_norm;
mod rotate_half;
mod softmax;
mod turn_and_keep;

pub use attention::{MOST_TOKENS, short_attention};
pub use dense::short_dense;
pub use finish::{Residual, finish};
pub use gated::{Gate, gated};
pub use layer_norm::layer_norm;
pub use rms_norm::rms_norm;
pub use rotate_half::rotate_half;
pub use softmax::softmax;
pub use turn_and_keep::turn_and_keep;
