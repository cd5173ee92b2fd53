//! Drawing by diffusion: prompt, text, noise or picture, steps, pixels.

use burn::tensor::{Tensor, TensorData};

use super::{
    event::{Event, Preview},
    image_to_image, inpaint,
    model::Model,
    motion, plan,
    request::{Generated, Plan, Request},
    start::Start,
    text::Encoded,
    text_to_image,
};
use crate::{
    Result,
    denoise::{Blend, Condition, Denoising, FreshNoise, Guidance, noise},
    pixels,
    values::{Animation, Image, Latent, read},
};

/// The stream of a seed's noise that draws the encoding of an init picture; steps count from 1, the start is 0.
const ENCODE_STREAM: u64 = u64::MAX;

/// Draws what `request` asks for.
///
/// # Errors
/// Those of [`Pipeline::generate`](super::Pipeline::generate).
pub async fn draw(
    model: &mut Model,
    request: &Request,
    mut on_event: impl AsyncFnMut(Event<'_>) -> Result<()>,
) -> Result<Generated> {
    let mut plan = plan::plan(model, request)?;
    let Encoded { tokens, embedding: text, warnings } =
        model.read_text(&request.prompt, &request.negative_prompt, plan.guides.is_some()).await?;
    plan.warnings.extend(warnings);
    let prompt = text.last();
    on_event(Event::Text { tokens: &tokens, embedding: &prompt }).await?;

    let model = &*model;
    let [_, h, w] = model.latent_shape(plan.width, plan.height);
    let timesteps: Vec<f32> = plan.schedule.steps.iter().map(|step| step.timestep).collect();
    let (picture, guidance) = ((plan.height, plan.width), plan.guidance);
    let condition = Condition { text, picture, guidance, frames: plan.frames, skip_layers: Vec::new() };
    let (denoiser, scale) = (model.network.denoiser.as_ref(), plan.guides.unwrap_or(1.0));
    let skip = request.skip_layers.as_ref().map(|skip| (skip, plan.steps));
    let guidance = Guidance::new(denoiser, &condition, scale, plan.turns, skip, &timesteps, [h, w])?;
    let drawing = Drawing { model, request, plan: &plan, guidance };
    let mut drawn = Generated { warnings: plan.warnings.clone(), ..Default::default() };
    let Some(candidates) = plan.candidates else {
        for image in 0..plan.count {
            let latent = drawing.denoise(image, plan.count, &mut on_event).await?;
            drawing.finish(image, latent, &mut drawn, &mut on_event).await?;
            drawn.seeds.push(drawing.seed(image));
        }
        return Ok(drawn);
    };
    let mut scored = Vec::with_capacity(candidates);
    for image in 0..candidates {
        let latent = drawing.denoise(image, candidates, &mut on_event).await?;
        let pixels = drawing.preview(latent.clone()).pixels();
        let score = read(model.scorer()?.forward(pixels.clone(), &prompt)?).await?[0];
        let picture = pixels::read_image(pixels, model.info.alpha).await?;
        let (count, seed) = (candidates, drawing.seed(image));
        on_event(Event::Candidate { image, count, seed, score, picture: &picture }).await?;
        scored.push((score, seed, latent));
    }
    scored.sort_by(|(a, ..), (b, ..)| b.total_cmp(a));
    for (image, (score, seed, latent)) in scored.into_iter().take(plan.count).enumerate() {
        drawing.finish(image, latent, &mut drawn, &mut on_event).await?;
        drawn.seeds.push(seed);
        drawn.scores.push(score);
    }
    Ok(drawn)
}

/// What all pictures of a request share.
struct Drawing<'a> {
    model: &'a Model,
    request: &'a Request,
    plan: &'a Plan,
    guidance: Guidance<'a>,
}

impl Drawing<'_> {
    fn seed(&self, image: usize) -> u64 {
        self.request.seed.wrapping_add(image as u64)
    }

    /// From noise or a picture to the latent that is decoded, `[frames, C, h, w]`.
    async fn denoise(
        &self,
        image: usize,
        count: usize,
        on_event: &mut impl AsyncFnMut(Event<'_>) -> Result<()>,
    ) -> Result<Latent> {
        let Self { model, request, plan, .. } = *self;
        let seed = self.seed(image);
        let [c, h, w] = model.latent_shape(plan.width, plan.height);
        let noise = request.noise.clone();
        let noise = noise.unwrap_or_else(|| motion::noise(seed, plan.frames, c * h * w, model.shared_noise));
        let noise = Tensor::from_data(TensorData::new(noise, [plan.frames, c, h, w]), &model.device);
        let Start { x_t, blend, extra } = start(model, request, &noise, seed, plan);
        let fresh = FreshNoise { seed, given: request.step_noise.clone() };
        let mut run = Denoising::new(&self.guidance, &plan.schedule, x_t, extra, fresh, blend);
        on_event(Event::Start { image, noise: &noise, x_t: run.x_t() }).await?;
        while let Some(outcome) = run.step()? {
            let (step, steps) = (outcome.step, plan.schedule.steps.len());
            let preview = self.preview(outcome.x_0);
            on_event(Event::Step { image, count, step, steps, x_t: &outcome.x_t, preview }).await?;
        }
        Ok(run.x_t().clone())
    }

    /// Of the first frame.
    fn preview(&self, x_0: Latent) -> Preview<'_> {
        let (decoder, halved) = self.model.preview_decoder();
        Preview { x_0: x_0.narrow(0, 0, 1), decoder, halved, alpha: self.model.info.alpha }
    }

    /// Adds what a latent decodes to: a picture, or an animation with its first frame as the picture. Frames are decoded one
    /// at a time.
    async fn finish(
        &self,
        image: usize,
        latent: Latent,
        drawn: &mut Generated,
        on_event: &mut impl AsyncFnMut(Event<'_>) -> Result<()>,
    ) -> Result<()> {
        let mut frames = Vec::with_capacity(self.plan.frames);
        for frame in 0..self.plan.frames {
            frames.push(self.decode(image, frame, latent.clone().narrow(0, frame, 1), on_event).await?);
        }
        drawn.images.extend(frames.first().cloned());
        if self.plan.frames > 1 {
            drawn.animations.push(Animation { frames, frame_ms: self.plan.frame_ms });
        }
        Ok(())
    }

    /// A finished frame.
    async fn decode(
        &self,
        image: usize,
        frame: usize,
        latent: Latent,
        on_event: &mut impl AsyncFnMut(Event<'_>) -> Result<()>,
    ) -> Result<Image> {
        let pixels = match self.plan.tile {
            Some(tile) => self.model.autoencoder.decode_tiled(latent, tile),
            None => self.model.autoencoder.decode(latent),
        };
        on_event(Event::Decoded { image, frame, pixels: &pixels }).await?;
        let drawn = pixels::read_image(pixels, self.model.info.alpha).await?;
        Ok(match (&self.request.init, &self.request.mask) {
            (Some(init), Some(mask)) => pixels::keep_spared(&drawn, init, mask, self.model.info.alpha),
            _ => drawn,
        })
    }
}

/// What draws the encoding of an init picture, `[1, C, h, w]`: the noise that was given, or the seed's.
fn encode_noise(model: &Model, given: &Option<Vec<f32>>, seed: u64, plan: &Plan) -> Latent {
    let [c, h, w] = model.latent_shape(plan.width, plan.height);
    let values = given.clone().unwrap_or_else(|| noise::normal(seed, ENCODE_STREAM, c * h * w));
    Tensor::from_data(TensorData::new(values, [1, c, h, w]), &model.device)
}

/// Where the run of one picture begins.
fn start(model: &Model, request: &Request, noise: &Latent, seed: u64, plan: &Plan) -> Start {
    let Some(init) = &request.init else { return text_to_image::start(noise.clone(), &plan.schedule) };
    let encode_noise = model.family.draws_encoding().then(|| encode_noise(model, &request.encode_noise, seed, plan));
    let encode = |pixels| model.autoencoder.encode(pixels, encode_noise.clone());
    let pixels = pixels::from_image(init, model.info.alpha, &model.device);
    let known = encode(pixels.clone());
    // All anew below a mask starts from noise alone.
    let start = match request.mask.is_some() && plan.strength == 1.0 {
        true => text_to_image::start(noise.clone(), &plan.schedule),
        false => image_to_image::start(known.clone(), noise.clone(), &plan.schedule),
    };
    let Some(mask) = &request.mask else { return start };
    let factor = model.autoencoder.shape().factor;
    if model.repaints_only() {
        let masked = encode(inpaint::masked(pixels, mask));
        let told = inpaint::told(mask, masked, factor, model.family.told_mask());
        return Start { extra: Some(told.repeat_dim(0, plan.frames)), ..start };
    }
    let mask = inpaint::latent_mask(mask, factor, &model.device);
    Start { blend: Some(Blend { mask, known, noise: noise.clone() }), ..start }
}
