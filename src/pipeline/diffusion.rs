//! Drawing by diffusion: prompt, text, noise or picture, steps, pixels.

use burn::tensor::{Tensor, TensorData};

use super::{
    event::Event,
    family::Network,
    finish::{Drawn, Finish},
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
    values::{Latent, TextEmbedding},
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

    let finish = Finish { model, request, plan: &plan, prompt: &prompt };
    let drawing = Drawing::new(&finish, &finish.model.network, text)?;
    let count = plan.candidates.unwrap_or(plan.count);
    let mut drawn = Vec::with_capacity(count);
    for image in 0..count {
        let latent = drawing.denoise([image, count], finish.seed(image), None, &mut on_event).await?;
        let seen = match plan.candidates {
            Some(count) => Some(finish.candidate([image, count], finish.pixels(&latent, 0), &mut on_event).await?),
            None => None,
        };
        drawn.push(Drawn::new(finish.seed(image), latent, seen));
        finish.keep_best(&mut drawn);
    }
    finish.decode(drawn, &mut on_event).await
}

/// A network that is ready to draw the pictures of a request.
pub struct Drawing<'a> {
    finish: &'a Finish<'a>,
    guidance: Guidance<'a>,
}

impl<'a> Drawing<'a> {
    /// `text` is the prompt's, after the negative one where it guides.
    ///
    /// # Errors
    /// Those of the network.
    pub fn new(finish: &'a Finish<'a>, network: &'a Network, text: TextEmbedding) -> Result<Self> {
        let Finish { model, request, plan, .. } = *finish;
        let [_, h, w] = model.latent_shape(plan.width, plan.height);
        let timesteps: Vec<f32> = plan.schedule.steps.iter().map(|step| step.timestep).collect();
        let (picture, guidance) = ((plan.height, plan.width), plan.guidance);
        let condition =
            Condition { text, picture, guidance, frames: plan.frames, skip_layers: Vec::new(), tokens: None };
        let (denoiser, scale) = (network.denoiser.as_ref(), plan.guides.unwrap_or(1.0));
        let skip = request.skip_layers.as_ref().map(|skip| (skip, plan.steps));
        let guidance = Guidance::new(denoiser, &condition, scale, plan.turns, skip, &timesteps, [h, w])?;
        Ok(Self { finish, guidance })
    }

    /// From noise or a picture to the latent that is decoded, `[frames, C, h, w]`; `layout`, of the same shape, is told to
    /// networks that take one.
    ///
    /// # Errors
    /// Those of the network, and whatever `on_event` gives.
    pub async fn denoise(
        &self,
        [image, count]: [usize; 2],
        seed: u64,
        layout: Option<Latent>,
        on_event: &mut impl AsyncFnMut(Event<'_>) -> Result<()>,
    ) -> Result<Latent> {
        let Finish { model, request, plan, .. } = *self.finish;
        let [c, h, w] = model.latent_shape(plan.width, plan.height);
        let noise = request.noise.clone();
        let noise = noise.unwrap_or_else(|| motion::noise(seed, plan.frames, c * h * w, model.shared_noise));
        let noise = Tensor::from_data(TensorData::new(noise, [plan.frames, c, h, w]), &model.device);
        let Start { x_t, blend, extra } = start(model, request, &noise, seed, plan);
        let fresh = FreshNoise { seed, given: request.step_noise.clone() };
        let mut run = Denoising::new(&self.guidance, &plan.schedule, x_t, layout.or(extra), fresh, blend);
        on_event(Event::Start { image, noise: &noise, x_t: run.x_t() }).await?;
        while let Some(outcome) = run.step()? {
            let (step, steps) = (outcome.step, plan.schedule.steps.len());
            let preview = self.finish.preview(outcome.x_0);
            on_event(Event::Step { image, count, step, steps, x_t: &outcome.x_t, preview }).await?;
        }
        Ok(run.x_t().clone())
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
