//! What is told of a drawing while it is made.

use crate::{
    Result,
    autoregress::Logits,
    pixels::{self, Alpha},
    values::{Image, ImageTokens, Latent, PixelTensor, TextEmbedding, TokenIds},
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
    /// Of the ways that draw codes, before any `Start`: a row of a grid, of all pictures that are drawn side by side.
    Tokens {
        /// The picture that is shown, which is the best so far.
        image: usize,
        count: usize,
        stage: Stage,
        /// Rows of the grid that are drawn, from 1, and in all.
        row: usize,
        rows: usize,
        /// What that picture has of the grid.
        tokens: &'a ImageTokens,
        /// Guided logits of the first picture that is drawn here, of each draw of the row.
        logits: &'a [Logits],
        /// Of models whose codes can be shown before the picture is drawn to them.
        preview: Option<Preview<'a>>,
    },
    Step {
        image: usize,
        count: usize,
        step: usize,
        steps: usize,
        x_t: &'a Latent,
        preview: Preview<'a>,
    },
    /// A candidate's score, once its steps are done; `picture` is what was scored: of beam search a layout, else the whole picture.
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

/// What is being drawn.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum Stage {
    /// The coarse grid of codes: a small picture.
    Layout,
    /// The fine grid of codes.
    Detail,
    /// The picture, from noise.
    Denoise,
}

impl Stage {
    pub fn name(self) -> &'static str {
        match self {
            Self::Layout => "layout",
            Self::Detail => "detail",
            Self::Denoise => "denoise",
        }
    }
}

/// A cheap look at what the model would draw if it stopped here, of an animation at its first frame; costs nothing until asked for.
pub struct Preview<'a> {
    decode: Box<dyn FnOnce() -> Result<PixelTensor> + 'a>,
    alpha: Alpha,
}

impl<'a> Preview<'a> {
    /// `decode` gives `[1, C, H', W']`.
    pub(super) fn new(alpha: Alpha, decode: impl FnOnce() -> Result<PixelTensor> + 'a) -> Self {
        Self { decode: Box::new(decode), alpha }
    }

    /// By the model's preview decoder; without one, a picture of half the size, by averaging the latent two by two before
    /// decoding: a quarter of the work.
    ///
    /// # Errors
    /// `DeviceLost` or `OutOfMemory` from the device.
    pub async fn image(self) -> Result<Image> {
        let alpha = self.alpha;
        pixels::read_image(self.pixels()?, alpha).await
    }

    /// The same, on its device: `[1, C, H', W']`.
    pub(super) fn pixels(self) -> Result<PixelTensor> {
        (self.decode)()
    }
}
