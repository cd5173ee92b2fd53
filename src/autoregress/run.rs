//! A run: pictures that are drawn side by side, a row of codes at a time.

use std::{collections::BTreeMap, ops::Range};

use burn::tensor::{Int, Tensor, TensorData};

use super::{
    sample::{self, Sampling},
    transformer::{Autoregressive, Heads},
};
use crate::{
    Result,
    layers::{HalfRotary, KvCache},
    noise,
    values::{ImageTokens, TextEmbedding, read},
};

/// The streams of a seed's noise from here on draw codes: two for each place, the first code's and the second's. Those
/// before are the diffusion's.
pub const CODE_STREAM: u64 = 1 << 32;

/// What stays the same for all pictures of a run.
#[derive(Clone, Debug)]
pub struct Asked {
    pub sampling: Sampling,
    /// Of each grid.
    pub guidance: Vec<f32>,
    /// Codes of the first places in place of drawn ones, first and second.
    pub tokens: Vec<[u32; 2]>,
    /// Gumbel noise in place of the seed's, by draw: place times two, and one more for a second code.
    pub gumbel: BTreeMap<usize, Vec<f32>>,
}

/// A picture on its way.
#[derive(Clone, Debug)]
pub struct Hypothesis {
    /// Of the noise that draws its codes.
    pub seed: u64,
    /// By how much its codes are likelier for the text than for the empty one, in nats; 0 where nothing guides.
    pub mutual_information: f64,
    /// First and second codes of all places so far.
    codes: Vec<[u32; 2]>,
}

/// The guided logits of one draw.
#[derive(Clone, Debug)]
pub struct Logits {
    /// Place times two, and one more for a second code.
    pub draw: usize,
    pub values: Vec<f32>,
}

/// What drawing a row gave.
#[derive(Clone, Debug)]
pub struct Row {
    /// The grid, from 0.
    pub grid: usize,
    /// Rows of the grid that are drawn, from 1, and in all.
    pub row: usize,
    pub rows: usize,
    /// Of the first picture, in the order of its draws.
    pub logits: Vec<Logits>,
}

/// A run in progress: call [`row`](Self::row) until it gives `None`, whenever you like; to cancel, stop calling.
pub struct Run<'a> {
    model: &'a Autoregressive,
    asked: &'a Asked,
    heads: Heads,
    rotary: HalfRotary,
    /// Its rows are the empty prompt's of all pictures, where there is one, then the prompt's.
    cache: KvCache,
    prompts: usize,
    /// The place that all stop before.
    end: usize,
    hypotheses: Vec<Hypothesis>,
    /// `[rows, coarse places, D]`, what fine places are told of the coarse grid.
    layout: Option<Tensor<3>>,
}

impl<'a> Run<'a> {
    /// Draws a picture for each of `seeds`, over the first `grids` grids. `text` holds the empty prompt and the prompt
    /// (`N` = 2), or the prompt alone, which is then not guided.
    ///
    /// # Errors
    /// Those of [`check_text`](Autoregressive::check_text).
    pub fn new(
        model: &'a Autoregressive,
        text: &TextEmbedding,
        asked: &'a Asked,
        seeds: &[u64],
        grids: usize,
    ) -> Result<Self> {
        let config = model.config();
        let [prompts, tokens, width] = text.hidden.dims();
        model.check_text(width, tokens)?;
        let end = if grids == 1 { config.coarse_places() } else { config.places() };
        let rotary = model.decoder.rotary(config.max_text_tokens + end);
        let mut cache = model.decoder.cache(prompts, tokens + end);
        let prefix = model.text_projection.forward(text.hidden.clone());
        model.decoder.forward(prefix, &rotary.at(0, tokens), text.attention_mask.clone(), &mut cache);
        let rows: Vec<usize> = (0..prompts).flat_map(|prompt| vec![prompt; seeds.len()]).collect();
        cache.select(&rows);
        let hypothesis = |seed: &u64| Hypothesis { seed: *seed, mutual_information: 0.0, codes: Vec::new() };
        let hypotheses = seeds.iter().map(hypothesis).collect();
        Ok(Self { model, asked, heads: model.heads(), rotary, cache, prompts, end, hypotheses, layout: None })
    }

    pub fn hypotheses(&self) -> &[Hypothesis] {
        &self.hypotheses
    }

    /// What picture `i` has of a grid by now.
    pub fn tokens(&self, i: usize, grid: usize) -> ImageTokens {
        let config = self.model.config();
        let (side, before) = (config.grids[grid], if grid == 0 { 0 } else { config.coarse_places() });
        let codes = self.hypotheses[i].codes.iter().skip(before).take(side * side);
        let (codes, residual) = codes.map(|[first, second]| (*first, *second)).unzip();
        ImageTokens { grid: [side; 2], codes, residual }
    }

    /// Picture i goes on from what picture `parents[i]` has, with the noise of its own seed, which is the i-th.
    pub fn branch(&mut self, parents: &[usize]) {
        let count = self.hypotheses.len();
        let rows = (0..self.prompts).flat_map(|prompt| parents.iter().map(move |parent| prompt * count + parent));
        self.cache.select(&rows.collect::<Vec<_>>());
        let continued = parents.iter().enumerate().map(|(i, parent)| {
            let seed = self.hypotheses.get(i).map_or(0, |hypothesis| hypothesis.seed);
            Hypothesis { seed, ..self.hypotheses[*parent].clone() }
        });
        self.hypotheses = continued.collect();
        self.layout = None;
    }

    /// Draws the next row of the grid, or gives `None` when all are drawn.
    ///
    /// # Errors
    /// `DeviceLost` or `OutOfMemory` from the device.
    pub async fn row(&mut self) -> Result<Option<Row>> {
        let place = self.hypotheses.first().map_or(self.end, |hypothesis| hypothesis.codes.len());
        if place >= self.end {
            return Ok(None);
        }
        let (grid, row, _) = self.model.config().at(place);
        let side = self.model.config().grids[grid];
        let mut logits = Vec::new();
        for place in place..place + side {
            self.place(grid, place, &mut logits).await?;
        }
        Ok(Some(Row { grid, row: row + 1, rows: side, logits }))
    }

    /// Draws the codes of one place, of all pictures.
    async fn place(&mut self, grid: usize, place: usize, noted: &mut Vec<Logits>) -> Result<()> {
        let (model, config) = (self.model, self.model.config());
        let x = self.input(place);
        let rotary = self.rotary.at(config.max_text_tokens + place, 1);
        let hidden = model.decoder.forward(x, &rotary, None, &mut self.cache);
        let [rows, _, d] = hidden.dims();
        let hidden: Tensor<2> = hidden.reshape([rows, d]);

        let logits = model.first_logits(&self.heads, hidden.clone());
        let given = self.asked.tokens.get(place).copied();
        let all = vec![true; self.hypotheses.len()];
        let first = self.draw(grid, 2 * place, logits, given.map(|[first, _]| first), &all, noted).await?;
        // What shows nothing has no second code.
        let shows: Vec<bool> = first.iter().map(|code| *code != 0).collect();
        let mut second = vec![0; first.len()];
        if shows.contains(&true) {
            let of_rows = first.repeat(self.prompts).into_iter().map(|code| code as usize).collect();
            let logits = model.second_logits(&self.heads, hidden, self.summed([of_rows]));
            second = self.draw(grid, 2 * place + 1, logits, given.map(|[_, second]| second), &shows, noted).await?;
        }
        for ((hypothesis, first), second) in self.hypotheses.iter_mut().zip(first).zip(second) {
            hypothesis.codes.push([first, second]);
        }
        Ok(())
    }

    /// What the transformer is told at a place: the place, what stands before it, and of a fine one what stands in the
    /// coarse place that it lies in. `[rows, 1, D]`.
    fn input(&mut self, place: usize) -> Tensor<3> {
        let config = self.model.config();
        let [first, second] = config.codes;
        let rows = self.prompts * self.hypotheses.len();
        let places = vec![first + second + place; rows];
        let x = match place.checked_sub(1) {
            None => self.summed([places]),
            Some(before) => {
                let [a, b] = self.codes(before..place);
                self.summed([places, a, b])
            }
        };
        let [_, d] = x.dims();
        let x = x.reshape([rows, 1, d]);
        let (1, row, column) = config.at(place) else { return x };
        let Some(projection) = &self.model.coarse_projection else { return x };
        let (coarse, fine) = (config.grids[0], config.grids[1]);
        let places = config.coarse_places();
        let layout = self
            .layout
            .take()
            .unwrap_or_else(|| projection.forward(self.summed(self.codes(0..places))).reshape([rows, places, d]));
        let above = row * coarse / fine * coarse + column * coarse / fine;
        x + self.layout.insert(layout).clone().narrow(1, above, 1)
    }

    /// Where in the table the first codes of `places` stand, and the second ones: those of each row, one after the other.
    fn codes(&self, places: Range<usize>) -> [Vec<usize>; 2] {
        let [first, _] = self.model.config().codes;
        let rows = (0..self.prompts).flat_map(|_| &self.hypotheses);
        let codes = rows.flat_map(|hypothesis| &hypothesis.codes[places.clone()]);
        let (a, b) = codes.map(|[a, b]| (*a as usize, first + *b as usize)).unzip();
        [a, b]
    }

    /// Rows of the table, `[ids, D]`: the sums of those that stand at the same place in each list of `ids`.
    fn summed<const N: usize>(&self, ids: [Vec<usize>; N]) -> Tensor<2> {
        let count = ids[0].len();
        let ids: Vec<i64> = ids.into_iter().flatten().map(|id| id as i64).collect();
        let ids = Tensor::<1, Int>::from_data(TensorData::new(ids, [N * count]), &self.heads.table.device());
        let all = self.heads.table.clone().select(0, ids);
        (1..N).fold(all.clone().narrow(0, 0, count), |sum, i| sum + all.clone().narrow(0, i * count, count))
    }

    /// Draws a code for each picture that is `wanted`, and 0 for the others, from `logits` `[rows, codes]`: `given`, or by
    /// the picture's noise.
    async fn draw(
        &mut self,
        grid: usize,
        draw: usize,
        logits: Tensor<2>,
        given: Option<u32>,
        wanted: &[bool],
        noted: &mut Vec<Logits>,
    ) -> Result<Vec<u32>> {
        let [_, codes] = logits.dims();
        let logits = read(logits).await?;
        let (scale, sampling) = (f64::from(self.asked.guidance[grid]), self.asked.sampling);
        let pictures = self.hypotheses.len();
        let mut drawn = Vec::with_capacity(pictures);
        for (i, (hypothesis, wanted)) in self.hypotheses.iter_mut().zip(wanted).enumerate() {
            if !wanted {
                drawn.push(0);
                continue;
            }
            let of = |prompt: usize| &logits[(prompt * pictures + i) * codes..][..codes];
            let (unguided, conditional) = (of(0), of(self.prompts - 1));
            let guided = sample::guided(unguided, conditional, scale);
            let code = given.map_or_else(
                || match self.asked.gumbel.get(&draw) {
                    Some(noise) => sampling.draw(&guided, noise),
                    None => sampling.draw(&guided, &noise::gumbel(hypothesis.seed, CODE_STREAM + draw as u64, codes)),
                },
                |code| code as usize,
            );
            hypothesis.mutual_information +=
                sample::log_probability(conditional, code) - sample::log_probability(unguided, code);
            if i == 0 {
                noted.push(Logits { draw, values: guided.iter().map(|logit| *logit as f32).collect() });
            }
            drawn.push(code as u32);
        }
        Ok(drawn)
    }
}
