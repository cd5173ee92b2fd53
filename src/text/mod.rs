//! [`TokenIds`](crate::values::TokenIds) -> [`TextEmbedding`](crate::values::TextEmbedding): one file per family.

pub mod bert;
