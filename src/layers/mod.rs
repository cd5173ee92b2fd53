//! Parts that two rooms or more use. Each takes its tensors by name from [`crate::weights::Params`].

mod activation;
mod attention;
mod conv;
mod decoder;
mod embedding;
mod kernels;
mod linear;
mod norm;
mod resnet;
mod rotary;

pub use activation::Activation;
pub use attention::{
    CrossAttention, KeysValues, SelfAttention, Stream, StreamNames, joint_attention, live_scores, mask_to_bias,
    multi_head_attention,
};
pub use conv::{Conv2d, resize_nearest, upsample_nearest_2x};
pub use decoder::{Decoder, DecoderConfig, DecoderKind, KvCache};
pub use embedding::{
    Embedding, PositionTable, TimestepEmbedding, sincos_1d, sincos_2d, timestep_embedding, timestep_embedding_with,
};
pub use kernels::{Gate, Residual, gated};
pub use linear::{FeedForward, LIVE_WIDTHS, Linear};
pub use norm::{AdaLayerNormContinuous, GroupNorm, LayerNorm, Modulation, RmsNorm, modulate};
pub use resnet::{ResnetBlock2D, ResnetOptions};
pub use rotary::{HalfRotary, Rotary};
