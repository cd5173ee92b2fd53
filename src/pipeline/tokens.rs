//! Drawing by tokens: prompt, text, a coarse grid of codes, a fine one, pixels.

use super::{
    codes::{self, Asking},
    event::Event,
    finish::{Drawn, Finish},
    model::Model,
    request::{Generated, Request},
};
use crate::Result;

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
    let finish = Finish { model, request, plan: &plan, prompt: &text.last() };
    let (_, codebook) = finish.model.codes()?;
    let mut drawn = Vec::new();
    for coded in codes::draw(&finish, &codes, &text, 2, &mut on_event).await? {
        let latent = codebook.decode(&coded.tokens[1]);
        let seen = codes::see(&finish, &codes, coded.image, &latent, &mut on_event).await?;
        drawn.push(Drawn::new(coded.seed, latent, seen));
        finish.keep_best(&mut drawn);
    }
    finish.decode(drawn, &mut on_event).await
}
