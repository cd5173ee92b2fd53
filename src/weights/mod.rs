//! Bytes -> named tensors on a device. Nothing here knows a model.
//!
//! [`safetensors`] and [`bundle`] are the two ways in; both fill a [`Tensors`], from which the rooms
//! take what they need through [`Params`]. [`config`] reads the JSON beside the weights.

pub mod bundle;
pub mod config;
mod dtype;
pub mod lora;
mod names;
mod params;
pub mod safetensors;

pub use config::{Config, ModelFiles};
pub use dtype::{StoredDtype, matrix};
pub use names::canonical;
pub use params::{ComputedRows, Kept, MAX_PIECE_BYTES, ParamShape, Params, Tensors, Weight, in_f32, join, list_params};
