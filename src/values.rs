//! What the rooms hand each other.

use burn::tensor::Tensor;

use crate::{Error, Result};

/// A prompt as token ids, padded to the model's length.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct TokenIds {
    /// `[T]`, padding included.
    pub ids: Vec<i64>,
    /// `[T]`, 1 for a token of the prompt, 0 for padding.
    pub attention_mask: Vec<i64>,
    /// How many tokens the whole prompt has, when that is more than fit.
    pub truncated_from: Option<usize>,
}

/// What a text encoder says of a prompt.
#[derive(Clone, Debug)]
pub struct TextEmbedding {
    /// `[N, T, D]`, a hidden state of every token.
    pub hidden: Tensor<3>,
    /// `[N, T]`, 1 = keep, 0 = padding; `None` where the denoiser attends to padding too, as CLIP's does.
    pub attention_mask: Option<Tensor<2>>,
    /// `[N, D']`, the whole prompt in one vector, where the denoiser wants it.
    pub pooled: Option<Tensor<2>>,
}

impl TextEmbedding {
    /// The last prompt of a batch alone: the positive one.
    pub fn last(&self) -> Self {
        let [n, _, _] = self.hidden.dims();
        self.row(n - 1)
    }

    /// Each prompt of a batch alone.
    pub fn rows(&self) -> Vec<Self> {
        let [n, _, _] = self.hidden.dims();
        (0..n).map(|i| self.row(i)).collect()
    }

    fn row(&self, i: usize) -> Self {
        Self {
            hidden: self.hidden.clone().narrow(0, i, 1),
            attention_mask: self.attention_mask.clone().map(|mask| mask.narrow(0, i, 1)),
            pooled: self.pooled.clone().map(|pooled| pooled.narrow(0, i, 1)),
        }
    }
}

/// `[N, C, H / f, W / f]`: noise, any `x_t` on the way, or what the autoencoder decodes.
pub type Latent = Tensor<4>;

/// Pixels as an autoencoder gives them: `[N, C, H, W]`, nominally in -1..1, C = 3 (RGB) or 4 (RGBA).
pub type PixelTensor = Tensor<4>;

/// A finished picture: RGBA8, straight alpha, rows from the top.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct Image {
    pub width: usize,
    pub height: usize,
    /// `width * height * 4` bytes.
    pub rgba: Vec<u8>,
}

/// Pictures shown one after the other, again and again.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct Animation {
    /// Of one size.
    pub frames: Vec<Image>,
    /// How long each is shown, in milliseconds.
    pub frame_ms: u32,
}

/// Reads a tensor back without blocking: a blocking read panics in a browser.
///
/// # Errors
/// `DeviceLost` or `OutOfMemory`, as the device reports it.
pub async fn read<const D: usize>(tensor: Tensor<D>) -> Result<Vec<f32>> {
    let data = tensor.into_data_async().await.map_err(Error::device)?;
    data.try_to_vec::<f32>().map_err(Error::device)
}
