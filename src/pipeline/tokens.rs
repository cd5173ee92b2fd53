//! Drawing by tokens: prompt, text, a coarse grid of codes, a fine one, pixels.

use super::{
    codes,
    event::Event,
    finish::{Drawn, Finish},
    model::Model,
    plan,
    request::{Generated, Request},
    text::Encoded,
};
use crate::{Error, Result};

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
    let mut drawn = Vec::new();
    for coded in codes::draw(&finish, &of_codes, &text, 2, &mut on_event).await? {
        let latent = codebook.decode(&coded.tokens[1]);
        let preview = finish.preview(latent.clone());
        let score = match (plan.candidates, of_codes.beams) {
            (None, _) => None,
            // Each candidate was told of when it was chosen.
            (_, Some(_)) => Some(finish.score(preview).await?.0),
            (Some(count), _) => Some(finish.candidate([coded.image, count], preview, &mut on_event).await?),
        };
        drawn.push(Drawn { seed: coded.seed, latent, score });
    }
    finish.decode(drawn, &mut on_event).await
}
