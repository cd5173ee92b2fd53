//! [`TextEmbedding`](crate::values::TextEmbedding) -> [`ImageTokens`](crate::values::ImageTokens), one code after the other.

pub mod glm_image;
pub mod janus;
mod run;
pub mod sample;
pub mod search;
mod transformer;

pub use run::{Asked, CODE_STREAM, Hypothesis, Logits, Row, Run};
pub use transformer::{Autoregressive, AutoregressiveConfig};
