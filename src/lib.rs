//! Text to picture inside a web page.
//!
//! The modules below stand in the order in which the data meets them:
//!
//! ```text
//! prompt -> TokenIds -> TextEmbedding -> [ noise -> x_t ... x_0 ] -> Latent -> pixels -> canvas / PNG
//! prompt/               text/            denoise/                    autoencoder/  pixels/   animation/
//!                                     -> ImageTokens -------------->
//!                                        autoregress/
//! ```
//!
//! `pipeline` is the only room that knows this order; `layers` and `weights` serve every room; `gpu` opens a GPU;
//! `web` binds the whole to JavaScript. Rooms meet only in [`values`].

pub mod error;
pub mod noise;
pub mod values;

pub mod animation;
pub mod autoencoder;
pub mod autoregress;
pub mod denoise;
pub mod pipeline;
pub mod pixels;
pub mod prompt;
pub mod score;
pub mod text;

pub mod layers;
pub mod weights;

#[cfg(gpu)]
pub mod gpu;
#[cfg(target_arch = "wasm32")]
pub mod web;

pub use error::{Code, Error, Result};
