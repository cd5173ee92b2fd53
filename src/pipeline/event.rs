//! What is told of a drawing while it is made.

use burn::tensor::{module, ops::AvgPoolOptions};

use crate::{
    Result,
    autoencoder::Autoencoder,
    pixels::{self, Alpha},
    values::{Image, Latent, PixelTensor, TextEmbedding, TokenIds},
};

/// What happens on the way, in this order: `Text` once; then for every picture `Start`, each `Step`, `Decoded`;
/// with candidates, `Candidate` in the place of `Decoded`, which follows for the best when all are scored.
pub enum Event<'a> {
    Text {
        /// The prompt's, by each tokenizer of the model.
        tokens: &'a [TokenIds],
        /// The prompt's alone, `N` = 1.
        embedding: &'a TextEmbedding,
    },
    /// `noise` is unit noise, `x_t` what enters the first step.
    Start {
        image: usize,
        noise: &'a Latent,
        x_t: &'a Latent,
    },
    Step {
        image: usize,
        count: usize,
        step: usize,
        steps: usize,
        x_t: &'a Latent,
        preview: Preview<'a>,
    },
    /// A candidate's score, once its steps are done; `picture` is what was scored, decoded as previews are.
    Candidate {
        image: usize,
        count: usize,
        seed: u64,
        score: f32,
        picture: &'a Image,
    },
    /// Of each frame of a picture that is given back, and a still has one: the autoencoder's output, `[1, C, H, W]`, before rounding to bytes.
    Decoded {
        image: usize,
        frame: usize,
        pixels: &'a PixelTensor,
    },
}

/// A cheap look at what the model would draw if it stopped here, of an animation at its first frame; costs nothing until asked for.
pub struct Preview<'a> {
    pub(super) x_0: Latent,
    pub(super) decoder: &'a Autoencoder,
    /// Whether `decoder` is the model's own, for which half the size must do.
    pub(super) halved: bool,
    pub(super) alpha: Alpha,
}

impl Preview<'_> {
    /// By the model's preview decoder; without one, a picture of half the size, by averaging the latent two by two before
    /// decoding: a quarter of the work.
    ///
    /// # Errors
    /// `DeviceLost` or `OutOfMemory` from the device.
    pub async fn image(self) -> Result<Image> {
        let alpha = self.alpha;
        pixels::read_image(self.pixels(), alpha).await
    }

    /// The same, on its device: `[1, C, H', W']`.
    pub(super) fn pixels(self) -> PixelTensor {
        let x_0 = if self.halved { module::avg_pool2d(self.x_0, AvgPoolOptions::new([2, 2])) } else { self.x_0 };
        self.decoder.decode(x_0)
    }
}
