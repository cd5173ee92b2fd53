//! What a GPU does in one step where burn takes many, each beside its plain twin: the same function as the CPU device
//! computes it.
//!
//! | function | steps it stands for on a GPU |
//! | --- | --- |
//! | [`layer_norm`] | a layer norm with scale and shift: 10 |
//! | [`softmax`] | attention's scores, scaled and masked: 7 |
//! | [`finish`] | what follows a product: bias, activation, gate, residual: up to 13 |
//!
//! What the CPU device does by kernels of ours is in [`flex`]; the package [`inkbloom_cpu`], in the folder `cpu`, has them.
//!
//! They are compiled for WebAssembly, and natively with the feature `gpu`; the browser's tests compare every model on
//! both devices with the reference.

mod finish;
pub mod flex;
#[cfg(gpu)]
mod gpu;
mod layer_norm;
mod softmax;

pub use finish::{Residual, finish};
pub use layer_norm::layer_norm;
pub use softmax::softmax;
