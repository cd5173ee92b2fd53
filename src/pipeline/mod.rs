//! The only room that knows the order of the others.
//!
//! [`Pipeline`] is a loaded model of any class that this version runs; `text_to_image`, `image_to_image` and `inpaint`
//! hold where each kind of generation starts; the rest is what they share.

mod family;
mod generate;
mod image_to_image;
mod inpaint;
mod memory;
mod model;
mod request;
mod text;
mod text_to_image;

pub use crate::denoise::schedule::Churn;
pub use generate::{Event, Generated, Preview, read};
pub use memory::{MemoryBudget, MemoryNeeds, MemoryPlan};
pub use model::{PREVIEW, Pipeline, required_params};
pub use request::{Info, Plan, Request};
