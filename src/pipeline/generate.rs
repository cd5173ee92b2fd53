//! The order: prompt, text, noise or picture, steps, pixels.

use burn::tensor::{Tensor, TensorData, module, ops::AvgPoolOptions};

use super::{
    image_to_image, inpaint,
    model::Pipeline,
    request::{Plan, Request},
    text::Encoded,
    text_to_image,
};
use crate::{
    Error, Result,
    denoise::{Blend, Condition, Denoising, FreshNoise, Guidance, noise},
    pixels,
    values::{Image, Latent, PixelTensor, TextEmbedding, TokenIds},
};

/// The stream of a seed's noise that draws the encoding of an init picture; steps count from 1, the start is 0.
const ENCODE_STREAM: u64 = u64::MAX;

/// What happens on the way, in this order: `Text` once; then for every picture `Start`, each `Step`, `Decoded`.
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
    /// The autoencoder's output, `[1, C, H, W]`, before rounding to bytes.
    Decoded {
        image: usize,
        pixels: &'a PixelTensor,
    },
}

/// A cheap look at what the model would draw if it stopped here; costs nothing until asked for.
pub struct Preview<'a> {
    pipeline: &'a Pipeline,
    x_0: Latent,
}

/// Finished pictures.
#[derive(Clone, Debug)]
pub struct Generated {
    pub images: Vec<Image>,
    pub warnings: Vec<String>,
}

/// Where a run begins.
pub struct Start {
    /// `[1, C, h, w]`, what enters the first step.
    pub x_t: Latent,
    /// What is put back after each step.
    pub blend: Option<Blend>,
    /// Further channels that the network is told.
    pub extra: Option<Latent>,
}

impl Pipeline {
    /// Draws. `on_event` is awaited at each [`Event`]; its error ends the drawing, which is how to cancel.
    ///
    /// # Errors
    /// `BadInput` from [`plan`](Self::plan), or where the text encoder is [released](super::MemoryPlan::release_text);
    /// `DeviceLost` or `OutOfMemory` from the device; whatever `on_event` gives.
    pub async fn generate(
        &mut self,
        request: &Request,
        mut on_event: impl AsyncFnMut(Event<'_>) -> Result<()>,
    ) -> Result<Generated> {
        let mut plan = self.plan(request)?;
        let Plan { guidance, width, height, count, .. } = plan;

        let Some(encoder) = &self.text else {
            return Err(Error::bad_input(
                "the text encoder was released to save memory; restore it before drawing again",
            ));
        };
        let encoded = encoder.encode(&request.prompt, &request.negative_prompt, self.guides(guidance))?;
        let Encoded { tokens, embedding: text, warnings } = encoded;
        plan.warnings.extend(warnings);
        on_event(Event::Text { tokens: &tokens, embedding: &last(&text) }).await?;
        if self.memory.release_text {
            // The embedding must be computed before what computes it goes.
            read(text.hidden.clone()).await?;
            self.text = None;
            self.device.memory_cleanup();
        }

        let mut images = Vec::with_capacity(count);
        for image in 0..count {
            let seed = request.seed.wrapping_add(image as u64);
            let noise = self.noise(&request.noise, seed, 0, &plan);
            let Start { x_t, blend, extra } = self.start(request, &noise, seed, &plan);
            let condition = Condition { text: text.clone(), picture: (height, width), guidance, extra };
            let guidance = Guidance::new(guidance, condition);
            let fresh = FreshNoise { seed, given: request.step_noise.clone() };
            let mut run = Denoising::new(self.denoiser.as_ref(), &guidance, &plan.schedule, x_t, fresh, blend);
            on_event(Event::Start { image, noise: &noise, x_t: run.x_t() }).await?;
            while let Some(outcome) = run.step()? {
                let preview = Preview { pipeline: self, x_0: outcome.x_0 };
                let (step, steps) = (outcome.step, plan.schedule.steps.len());
                on_event(Event::Step { image, count, step, steps, x_t: &outcome.x_t, preview }).await?;
            }
            let latent = run.x_t().clone();
            let pixels = match plan.tile {
                Some(tile) => self.autoencoder.decode_tiled(latent, tile),
                None => self.autoencoder.decode(latent),
            };
            on_event(Event::Decoded { image, pixels: &pixels }).await?;
            images.push(self.read_image(pixels).await?);
        }
        Ok(Generated { images, warnings: plan.warnings })
    }

    /// Unit noise of the picture's latent, `[1, C, h, w]`: what was given, or a stream of the seed's.
    fn noise(&self, given: &Option<Vec<f32>>, seed: u64, stream: u64, plan: &Plan) -> Latent {
        let [c, h, w] = self.latent_shape(plan.width, plan.height);
        let values = given.clone().unwrap_or_else(|| noise::normal(seed, stream, c * h * w));
        Tensor::from_data(TensorData::new(values, [1, c, h, w]), &self.device)
    }

    /// Where the run of one picture begins.
    fn start(&self, request: &Request, noise: &Latent, seed: u64, plan: &Plan) -> Start {
        let Some(init) = &request.init else { return text_to_image::start(noise.clone(), &plan.schedule) };
        let encode_noise =
            self.family().draws_encoding().then(|| self.noise(&request.encode_noise, seed, ENCODE_STREAM, plan));
        let encode = |pixels| self.autoencoder.encode(pixels, encode_noise.clone());
        let pixels = pixels::from_image(init, self.info().alpha, &self.device);
        let known = encode(pixels.clone());
        // All anew below a mask starts from noise alone.
        let start = match request.mask.is_some() && plan.strength == 1.0 {
            true => text_to_image::start(noise.clone(), &plan.schedule),
            false => image_to_image::start(known.clone(), noise.clone(), &plan.schedule),
        };
        let Some(mask) = &request.mask else { return start };
        let masked = self.repaints_only().then(|| encode(inpaint::masked(pixels, mask)));
        let mask = inpaint::latent_mask(mask, self.autoencoder.shape().factor, &self.device);
        inpaint::below(mask, start, known, noise.clone(), masked)
    }

    /// `[1, C, H, W]` on the device -> bytes here.
    async fn read_image(&self, pixels: PixelTensor) -> Result<Image> {
        let [_, _, height, width] = pixels.dims();
        pixels::to_image(&read(pixels).await?, width, height, self.info().alpha)
    }
}

/// The last prompt of a batch alone: the positive one.
fn last(text: &TextEmbedding) -> TextEmbedding {
    let [n, _, _] = text.hidden.dims();
    TextEmbedding {
        hidden: text.hidden.clone().narrow(0, n - 1, 1),
        attention_mask: text.attention_mask.clone().map(|mask| mask.narrow(0, n - 1, 1)),
        pooled: text.pooled.clone().map(|pooled| pooled.narrow(0, n - 1, 1)),
    }
}

impl Preview<'_> {
    /// By the model's preview decoder; without one, a picture of half the size, by averaging the latent two by two before
    /// decoding: a quarter of the work.
    ///
    /// # Errors
    /// `DeviceLost` or `OutOfMemory` from the device.
    pub async fn image(self) -> Result<Image> {
        let pixels = match &self.pipeline.preview {
            Some(decoder) => decoder.decode(self.x_0),
            None => self.pipeline.autoencoder.decode(module::avg_pool2d(self.x_0, AvgPoolOptions::new([2, 2]))),
        };
        self.pipeline.read_image(pixels).await
    }
}

/// Reads a tensor back without blocking: a blocking read panics in a browser.
///
/// # Errors
/// `DeviceLost` or `OutOfMemory`, as the device reports it.
pub async fn read<const D: usize>(tensor: Tensor<D>) -> Result<Vec<f32>> {
    let data = tensor.into_data_async().await.map_err(Error::device)?;
    data.try_to_vec::<f32>().map_err(Error::device)
}
