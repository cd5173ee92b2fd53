//! From latents to pictures: previews, scores, the best of the candidates, decoding.

use burn::tensor::{module, ops::AvgPoolOptions};

use super::{
    event::{Event, Preview},
    model::Model,
    request::{Generated, Plan, Request},
};
use crate::{
    Result, pixels,
    values::{Animation, Image, ImageTokens, Latent, TextEmbedding, read},
};

/// What all pictures of a request share.
pub struct Finish<'a> {
    pub model: &'a Model,
    pub request: &'a Request,
    pub plan: &'a Plan,
    /// The prompt alone.
    pub prompt: &'a TextEmbedding,
}

/// A picture that is drawn, but not decoded.
pub struct Drawn {
    pub seed: u64,
    /// `[frames, C, h, w]`.
    pub latent: Latent,
    /// The scorer's word, where something chooses.
    pub score: Option<f32>,
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

    /// The scorer's word on candidate `image`, and what it saw, by `preview`.
    ///
    /// # Errors
    /// Those of the scorer, and of the device.
    pub async fn score(&self, preview: Preview<'_>) -> Result<(f32, Image)> {
        let pixels = preview.pixels()?;
        let score = read(self.model.scorer()?.forward(pixels.clone(), self.prompt)?).await?[0];
        Ok((score, pixels::read_image(pixels, self.model.info.alpha).await?))
    }

    /// The same, told as an event, of which candidate `image` of `count` is.
    ///
    /// # Errors
    /// Those of [`score`](Self::score), and whatever `on_event` gives.
    pub async fn candidate(
        &self,
        [image, count]: [usize; 2],
        preview: Preview<'_>,
        on_event: &mut impl AsyncFnMut(Event<'_>) -> Result<()>,
    ) -> Result<f32> {
        let (score, picture) = self.score(preview).await?;
        let seed = self.seed(image);
        on_event(Event::Candidate { image, count, seed, score, picture: &picture }).await?;
        Ok(score)
    }

    /// What is given back, of candidates the best first: a picture each, or an animation with its first frame as the
    /// picture. Frames are decoded one at a time.
    ///
    /// # Errors
    /// Those of the device, and whatever `on_event` gives.
    pub async fn decode(
        &self,
        mut drawn: Vec<Drawn>,
        on_event: &mut impl AsyncFnMut(Event<'_>) -> Result<()>,
    ) -> Result<Generated> {
        let mut generated = Generated { warnings: self.plan.warnings.clone(), ..Default::default() };
        drawn.sort_by(|a, b| b.score.unwrap_or_default().total_cmp(&a.score.unwrap_or_default()));
        for (image, Drawn { seed, latent, score }) in drawn.into_iter().take(self.plan.count).enumerate() {
            let mut frames = Vec::with_capacity(self.plan.frames);
            for frame in 0..self.plan.frames {
                let latent = latent.clone().narrow(0, frame, 1);
                frames.push(self.frame([image, frame], latent, on_event).await?);
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

    async fn frame(
        &self,
        [image, frame]: [usize; 2],
        latent: Latent,
        on_event: &mut impl AsyncFnMut(Event<'_>) -> Result<()>,
    ) -> Result<Image> {
        let alpha = self.model.info.alpha;
        let pixels = match self.plan.tile {
            Some(tile) => self.model.autoencoder.decode_tiled(latent, tile),
            None => self.model.autoencoder.decode(latent),
        };
        on_event(Event::Decoded { image, frame, pixels: &pixels }).await?;
        let drawn = pixels::read_image(pixels, alpha).await?;
        Ok(match (&self.request.init, &self.request.mask) {
            (Some(init), Some(mask)) => pixels::keep_spared(&drawn, init, mask, alpha),
            _ => drawn,
        })
    }
}
