//! Codes of the pictures that a request asks for, of however many candidates.

use super::{
    event::{Event, Stage},
    finish::{Finish, Seen},
    model::Model,
    plan,
    request::{CodesPlan, Plan, Request},
    text::Encoded,
};
use crate::{
    Error, Result,
    autoregress::{Asked, Run, search},
    layers::resize_nearest,
    values::{ImageTokens, Latent, TextEmbedding},
};

/// A request for codes, checked and read.
pub struct Asking {
    pub plan: Plan,
    pub codes: CodesPlan,
    /// The negative prompt's, then the prompt's.
    pub text: TextEmbedding,
}

/// Plans a request of a way that draws codes, reads its prompts and tells of them.
///
/// # Errors
/// Those of the plan and of the text encoders, and whatever `on_event` gives.
pub async fn read(
    model: &mut Model,
    request: &Request,
    on_event: &mut impl AsyncFnMut(Event<'_>) -> Result<()>,
) -> Result<Asking> {
    let mut plan = plan::plan(model, request)?;
    let Some(codes) = plan.codes.clone() else { return Err(Error::bad_input("this way draws no codes")) };
    let Encoded { tokens, embedding: text, warnings } =
        model.read_text(&request.prompt, &request.negative_prompt, true).await?;
    plan.warnings.extend(warnings);
    on_event(Event::Text { tokens: &tokens, embedding: &text.last() }).await?;
    Ok(Asking { plan, codes, text })
}

/// The scorer's word on a picture, where something chooses: told as an event, but of what beam search told of before.
///
/// # Errors
/// Those of the scorer, and whatever `on_event` gives.
pub async fn see(
    finish: &Finish<'_>,
    codes: &CodesPlan,
    image: usize,
    latent: &Latent,
    on_event: &mut impl AsyncFnMut(Event<'_>) -> Result<()>,
) -> Result<Option<Seen>> {
    Ok(match (finish.plan.candidates, codes.beams) {
        (None, _) => None,
        (_, Some(_)) => Some(finish.score(finish.pixels(latent, 0)).await?),
        (Some(count), _) => Some(finish.candidate([image, count], finish.pixels(latent, 0), on_event).await?),
    })
}

/// The codes of one picture.
pub struct Coded {
    /// Which candidate it is, or which picture.
    pub image: usize,
    pub seed: u64,
    /// Of each grid, the coarse one first.
    pub tokens: Vec<ImageTokens>,
}

/// Draws the first `grids` grids of all pictures or candidates, of which beam search leaves some. `text` is the prompt's,
/// after the negative one.
///
/// # Errors
/// Those of the device, and whatever `on_event` gives.
pub async fn draw(
    finish: &Finish<'_>,
    codes: &CodesPlan,
    text: &TextEmbedding,
    grids: usize,
    on_event: &mut impl AsyncFnMut(Event<'_>) -> Result<()>,
) -> Result<Vec<Coded>> {
    let Finish { model, request, plan, .. } = *finish;
    let (autoregressive, _) = model.codes()?;
    let asked = Asked {
        sampling: codes.sampling,
        guidance: codes.guidance.clone(),
        tokens: request.tokens.clone(),
        gumbel: request.gumbel.clone(),
    };
    // Beams are ranked by what the text adds, whether it guides or not.
    let guided = codes.beams.is_some() || codes.guidance[..grids].iter().any(|scale| *scale != 1.0);
    let text = if guided { text.clone() } else { text.last() };
    let count = plan.candidates.unwrap_or(plan.count);
    let images: Vec<usize> = (0..count).collect();
    let mut drawn = Vec::with_capacity(count);
    for images in images.chunks(codes.side_by_side) {
        let seeds: Vec<u64> = images.iter().map(|image| finish.seed(*image)).collect();
        let run = Run::new(autoregressive, &text, &asked, &seeds, grids)?;
        let batch = Batch { finish, run, first: images[0], count };
        drawn.extend(match codes.beams {
            Some(beams) => batch.search(beams, grids, on_event).await?,
            None => batch.draw(grids, on_event).await?,
        });
    }
    Ok(drawn)
}

/// Pictures that are drawn side by side.
struct Batch<'a> {
    finish: &'a Finish<'a>,
    run: Run<'a>,
    /// Which candidate the first of them is, and of how many.
    first: usize,
    count: usize,
}

impl Batch<'_> {
    async fn draw(
        mut self,
        grids: usize,
        on_event: &mut impl AsyncFnMut(Event<'_>) -> Result<()>,
    ) -> Result<Vec<Coded>> {
        while self.row(on_event).await?.is_some() {}
        let pictures = self.run.hypotheses().iter().enumerate();
        let coded = pictures.map(|(i, hypothesis)| Coded {
            image: self.first + i,
            seed: hypothesis.seed,
            tokens: (0..grids).map(|grid| self.run.tokens(i, grid)).collect(),
        });
        Ok(coded.collect())
    }

    /// Beam search; see [`search`].
    async fn search(
        mut self,
        beams: usize,
        grids: usize,
        on_event: &mut impl AsyncFnMut(Event<'_>) -> Result<()>,
    ) -> Result<Vec<Coded>> {
        let drawn = self.count;
        while let Some([row, rows]) = self.row(on_event).await? {
            if let Some(kept) = search::kept_after(row, rows, drawn, beams) {
                let best = search::best(&self.mutual_information(), kept);
                self.run.branch(&search::branch(&best, drawn));
            }
            if row == rows {
                break;
            }
        }
        let mut verdicts = Vec::with_capacity(drawn);
        for (i, mutual_information) in self.mutual_information().into_iter().enumerate() {
            let layout = self.run.tokens(i, 0);
            let pixels = self.finish.preview_layout(&layout)?.pixels()?;
            let Seen { score, .. } = self.finish.candidate([i, drawn], pixels, on_event).await?;
            verdicts.push(search::verdict(score, mutual_information, layout.codes.len()));
        }
        self.run.branch(&search::best(&verdicts, beams));
        let seed = self.finish.request.seed;
        let coded = self.draw(grids, on_event).await?;
        // None of them is drawn by its own seed alone.
        Ok(coded.into_iter().map(|coded| Coded { seed, ..coded }).collect())
    }

    fn mutual_information(&self) -> Vec<f64> {
        self.run.hypotheses().iter().map(|hypothesis| hypothesis.mutual_information).collect()
    }

    /// Draws a row and tells of it: gives which one it was, from 1, and of how many.
    async fn row(&mut self, on_event: &mut impl AsyncFnMut(Event<'_>) -> Result<()>) -> Result<Option<[usize; 2]>> {
        let Some(drawn) = self.run.row().await? else { return Ok(None) };
        let shown = search::best(&self.mutual_information(), 1)[0];
        let tokens = self.run.tokens(shown, drawn.grid);
        let (stage, preview) = match drawn.grid {
            0 => (Stage::Layout, self.finish.preview_layout(&tokens)?),
            _ => (Stage::Detail, self.finish.preview(unfinished(self.finish, &tokens, &self.run.tokens(shown, 0))?)),
        };
        on_event(Event::Tokens {
            image: self.first + shown,
            count: self.count,
            stage,
            row: drawn.row,
            rows: drawn.rows,
            tokens: &tokens,
            logits: &drawn.logits,
            preview: Some(preview),
        })
        .await?;
        Ok(Some([drawn.row, drawn.rows]))
    }
}

/// The latent of a fine grid whose lower rows are still those of the coarse one.
fn unfinished(finish: &Finish, fine: &ImageTokens, coarse: &ImageTokens) -> Result<Latent> {
    let (_, codebook) = finish.model.codes()?;
    let [h, w] = fine.grid;
    let done = fine.codes.len() / w;
    if done == h {
        return Ok(codebook.decode(fine));
    }
    let rest = resize_nearest(codebook.layout(coarse), fine.grid).narrow(2, done, h - done);
    Ok(burn::tensor::Tensor::cat(vec![codebook.layout(fine).narrow(2, 0, done), rest], 2))
}
