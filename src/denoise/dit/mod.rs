//! Diffusion Transformers, one file per family.

pub mod flux;
mod joint;
pub mod latte;
pub mod pixart;
pub mod sd3;
