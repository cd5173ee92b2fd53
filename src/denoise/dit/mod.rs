//! Diffusion Transformers, one file per family.

pub mod flux;
pub mod glm_image;
mod joint;
pub mod latte;
pub mod pixart;
pub mod sd3;
