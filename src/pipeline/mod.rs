//! The only room that knows the order of the others. One file per kind of generation.

mod text_to_image;

pub use text_to_image::{Event, Generated, Info, Plan, Preview, Request, TextToImage, read, required_params};
