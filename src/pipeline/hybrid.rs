//! Drawing by both: a coarse grid of codes lays the picture out, and diffusion draws it.

use super::{
    codes::{self, Asking},
    diffusion::Drawing,
    event::Event,
    finish::{Drawn, Finish},
    model::Model,
    request::{Generated, Request, Way},
};
use crate::{Result, layers::resize_nearest};

/// Draws what `request` asks for.
///
/// # Errors
/// Those of [`Pipeline::generate`](super::Pipeline::generate).
pub async fn draw(
    model: &mut Model,
    request: &Request,
    mut on_event: impl AsyncFnMut(Event<'_>) -> Result<()>,
) -> Result<Generated> {
    let Asking { plan, codes, text } = codes::read(model, request, &mut on_event).await?;
    let prompt = text.last();
    let finish = Finish { model, request, plan: &plan, prompt: &prompt };
    let (_, codebook) = finish.model.codes()?;
    let layouts = codes::draw(&finish, &codes, &text, 1, &mut on_event).await?;
    let network = finish.model.denoises(Way::Hybrid)?;
    let drawing = Drawing::new(&finish, network, if plan.guides.is_some() { text } else { prompt.clone() })?;
    let [_, h, w] = finish.model.latent_shape(plan.width, plan.height);
    let count = layouts.len();
    let mut drawn = Vec::with_capacity(count);
    for (i, layout) in layouts.into_iter().enumerate() {
        let latent = resize_nearest(codebook.layout(&layout.tokens[0]), [h, w]);
        let latent = drawing.denoise([i, count], finish.seed(layout.image), Some(latent), &mut on_event).await?;
        let seen = codes::see(&finish, &codes, layout.image, &latent, &mut on_event).await?;
        drawn.push(Drawn::new(layout.seed, latent, seen));
        finish.keep_best(&mut drawn);
    }
    finish.decode(drawn, &mut on_event).await
}
