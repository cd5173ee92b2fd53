//! From latents to pictures: previews, scores, the best of the candidates, decoding.

use burn::tensor::{module, ops::AvgPoolOptions};

use super::{
    event::{Event, Preview},
    model::Model,
    request::{Generated, Plan, Request},
};
use crate::{
    Result, pixels,
    values::{Animation, Image, ImageTokens, Latent, PixelTensor, TextEmbedding, read},
};

/// What all pictures of a request share.
pub struct Finish<'a> {
    pub model: &'a Model,
    pub request: &'a Request,
    pub plan: &'a Plan,
    /// The prompt alone.
    pub prompt: &'a TextEmbedding,
}

/// As many of the best candidates are not decoded a second time.
const KEPT: usize = 4;

/// A picture that is drawn.
pub struct Drawn {
    seed: u64,
    /// `[frames, C, h, w]`.
    latent: Latent,
    /// The scorer's word, where something chooses.
    score: Option<f32>,
    /// What the scorer saw, unless that is forgotten.
    pixels: Option<PixelTensor>,
}

/// What the scorer saw, a picture or the first frame of an animation, and its word on it.
pub struct Seen {
    pub pixels: PixelTensor,
    pub score: f32,
}

impl Drawn {
    pub fn new(seed: u64, latent: Latent, seen: Option<Seen>) -> Self {
        let (score, pixels) = seen.map(|Seen { score, pixels }| (score, pixels)).unzip();
        Self { seed, latent, score, pixels }
    }
}

impl<'a> Finish<'a> {
    pub fn seed(&self, image: usize) -> u64 {
        self.request.seed.wrapping_add(image as u64)
    }

    /// Of the first frame.
    pub fn preview(&self, x_0: Latent) -> Preview<'a> {
        let (decoder, halved) = self.model.preview_decoder();
        let x_0 = x_0.narrow(0, 0, 1);
        Preview::new(self.model.info.alpha, move || {
            let x_0 = if halved { module::avg_pool2d(x_0, AvgPoolOptions::new([2, 2])) } else { x_0 };
            Ok(decoder.decode(x_0))
        })
    }

    /// A look at a coarse grid of codes: the small picture that it is.
    ///
    /// # Errors
    /// `BadInput` where the model has no codes.
    pub fn preview_layout(&self, layout: &ImageTokens) -> Result<Preview<'a>> {
        let (_, codebook) = self.model.codes()?;
        let ((decoder, _), latent) = (self.model.preview_decoder(), codebook.decode(layout));
        Ok(Preview::new(self.model.info.alpha, move || Ok(decoder.decode(latent))))
    }

    /// The scorer's word on `pixels`, `[1, C, H, W]`.
    ///
    /// # Errors
    /// Those of the scorer, and of the device.
    pub async fn score(&self, pixels: PixelTensor) -> Result<Seen> {
        let score = read(self.model.scorer()?.forward(pixels.clone(), self.prompt)?).await?[0];
        Ok(Seen { pixels, score })
    }

    /// The same, told as an event, of which candidate `image` of `count` is.
    ///
    /// # Errors
    /// Those of [`score`](Self::score), and whatever `on_event` gives.
    pub async fn candidate(
        &self,
        [image, count]: [usize; 2],
        pixels: PixelTensor,
        on_event: &mut impl AsyncFnMut(Event<'_>) -> Result<()>,
    ) -> Result<Seen> {
        let seen = self.score(pixels).await?;
        let picture = pixels::read_image(seen.pixels.clone(), self.model.info.alpha).await?;
        on_event(Event::Candidate { image, count, seed: self.seed(image), score: seen.score, picture: &picture })
            .await?;
        Ok(seen)
    }

    /// Keeps of the candidates so far as many as are given back, the best first, so that the others take no memory.
    pub fn keep_best(&self, drawn: &mut Vec<Drawn>) {
        drawn.sort_by(|a, b| b.score.unwrap_or_default().total_cmp(&a.score.unwrap_or_default()));
        drawn.truncate(self.plan.count);
        drawn.iter_mut().skip(KEPT).for_each(|drawn| drawn.pixels = None);
    }

    /// What is given back: a picture each, or an animation with its first frame as the picture. Frames are decoded one at
    /// a time.
    ///
    /// # Errors
    /// Those of the device, and whatever `on_event` gives.
    pub async fn decode(
        &self,
        drawn: Vec<Drawn>,
        on_event: &mut impl AsyncFnMut(Event<'_>) -> Result<()>,
    ) -> Result<Generated> {
        let mut generated = Generated { warnings: self.plan.warnings.clone(), ..Default::default() };
        for (image, Drawn { seed, latent, score, mut pixels }) in drawn.into_iter().enumerate() {
            let mut frames = Vec::with_capacity(self.plan.frames);
            for frame in 0..self.plan.frames {
                let pixels = pixels.take().unwrap_or_else(|| self.pixels(&latent, frame));
                frames.push(self.frame([image, frame], pixels, on_event).await?);
            }
            generated.images.extend(frames.first().cloned());
            if self.plan.frames > 1 {
                generated.animations.push(Animation { frames, frame_ms: self.plan.frame_ms });
            }
            generated.seeds.push(seed);
            generated.scores.extend(score);
        }
        Ok(generated)
    }

    /// A frame of `latent` in full, `[1, C, H, W]`.
    pub fn pixels(&self, latent: &Latent, frame: usize) -> PixelTensor {
        let latent = latent.clone().narrow(0, frame, 1);
        match self.plan.tile {
            Some(tile) => self.model.autoencoder.decode_tiled(latent, tile),
            None => self.model.autoencoder.decode(latent),
        }
    }

    async fn frame(
        &self,
        [image, frame]: [usize; 2],
        pixels: PixelTensor,
        on_event: &mut impl AsyncFnMut(Event<'_>) -> Result<()>,
    ) -> Result<Image> {
        let alpha = self.model.info.alpha;
        on_event(Event::Decoded { image, frame, pixels: &pixels }).await?;
        let drawn = pixels::read_image(pixels, alpha).await?;
        Ok(match (&self.request.init, &self.request.mask) {
            (Some(init), Some(mask)) => pixels::keep_spared(&drawn, init, mask, alpha),
            _ => drawn,
        })
    }
}
