//! Diffusion Transformers, one file per family.

pub mod pixart;
