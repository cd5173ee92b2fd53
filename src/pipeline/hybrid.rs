//! Drawing by both: a coarse grid of codes lays the picture out, and diffusion draws it.

use super::{
    codes,
    diffusion::Drawing,
    event::Event,
    finish::{Drawn, Finish},
    model::Model,
    plan,
    request::{Generated, Request, Way},
    text::Encoded,
};
use crate::{Error, Result, layers::resize_nearest};

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
    let Some(of_codes) = plan.codes.clone() else { return Err(Error::bad_input("this way draws no codes")) };
    let Encoded { tokens, embedding: text, warnings } =
        model.read_text(&request.prompt, &request.negative_prompt, true).await?;
    plan.warnings.extend(warnings);
    let prompt = text.last();
    on_event(Event::Text { tokens: &tokens, embedding: &prompt }).await?;

    let finish = Finish { model, request, plan: &plan, prompt: &prompt };
    let (_, codebook) = finish.model.codes()?;
    let layouts = codes::draw(&finish, &of_codes, &text, 1, &mut on_event).await?;
    let network = finish.model.denoises(Way::Hybrid)?;
    let drawing = Drawing::new(&finish, network, if plan.guides.is_some() { text } else { prompt.clone() })?;
    let [_, h, w] = finish.model.latent_shape(plan.width, plan.height);
    let count = layouts.len();
    let mut drawn = Vec::with_capacity(count);
    for (i, layout) in layouts.into_iter().enumerate() {
        let latent = resize_nearest(codebook.decode(&layout.tokens[0]), [h, w]);
        let latent = drawing.denoise([i, count], finish.seed(layout.image), Some(latent), &mut on_event).await?;
        let preview = finish.preview(latent.clone());
        let score = match (plan.candidates, of_codes.beams) {
            (None, _) => None,
            // Each candidate was told of when it was chosen.
            (_, Some(_)) => Some(finish.score(preview).await?.0),
            (Some(count), _) => Some(finish.candidate([i, count], preview, &mut on_event).await?),
        };
        drawn.push(Drawn { seed: layout.seed, latent, score });
    }
    finish.decode(drawn, &mut on_event).await
}
