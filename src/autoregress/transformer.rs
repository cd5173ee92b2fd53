//! The transformer that writes pictures as codes: `InkbloomAutoregressive`, a `LlamaForCausalLM` with tied head whose
//! vocabulary is the tokenizer's codes and the places of a coarse and a fine grid (`tools/train/inkbloom_train/tokens_model.py`).

use burn::tensor::Tensor;

use super::sample::Sampling;
use crate::{
    Error, Result,
    layers::{Activation, Decoder, DecoderConfig, DecoderKind, Linear},
    weights::{Config, ModelFiles, Params, Tensors, Weight},
};

/// More codes or places than this no tokenizer has.
const MOST: usize = 1 << 20;

/// The numbers of `autoregressive/config.json`.
#[derive(Clone, Debug)]
pub struct AutoregressiveConfig {
    pub decoder: DecoderConfig,
    /// How many first codes there are, and how many second ones.
    pub codes: [usize; 2],
    /// The sides of the coarse grid and of the fine one; a model that only lays out has the first alone.
    pub grids: Vec<usize>,
    pub text_embed_dim: usize,
    pub max_text_tokens: usize,
    /// Of each grid.
    pub guidance: Vec<f32>,
    pub sampling: Sampling,
}

impl AutoregressiveConfig {
    /// # Errors
    /// `BadModel` for a value that is out of range or asks for what this version cannot do.
    pub fn read(config: &Config) -> Result<Self> {
        config.only("tie_word_embeddings", true)?;
        let codes = config.counts("codes", &[1024, 1024])?;
        let codes: [usize; 2] = codes.try_into().map_err(|_| config.wrong("codes", "there must be two counts"))?;
        let grids = config.counts("grids", &[8, 16])?;
        if !(1..=2).contains(&grids.len()) || grids.iter().any(|side| side * side > MOST) {
            return Err(config.wrong("grids", "this version knows a coarse grid, or a coarse and a fine one"));
        }
        if !grids[grids.len() - 1].is_multiple_of(grids[0]) {
            return Err(config.wrong("grids", "the fine grid's side must be a multiple of the coarse one's"));
        }
        let guidance = config.opt_f32s("guidance")?.unwrap_or_else(|| vec![3.0, 1.5][..grids.len()].to_vec());
        if guidance.len() != grids.len() || guidance.iter().any(|scale| !scale.is_finite()) {
            return Err(config.wrong("guidance", "there must be a number for each of `grids`"));
        }
        let this = Self {
            decoder: DecoderConfig::read(config, DecoderKind::Llama)?,
            codes,
            grids,
            text_embed_dim: config.count("text_embed_dim", 384)?,
            max_text_tokens: config.count("max_text_tokens", 32)?,
            guidance,
            sampling: Sampling {
                temperature: config.f64("temperature", 1.0)?,
                top_k: config.usize("top_k", 0)?,
                top_p: config.f64("top_p", 1.0)?,
            },
        };
        let rows = this.codes.iter().sum::<usize>() + this.places();
        if this.decoder.vocab_size != rows {
            return Err(config.wrong("vocab_size", &format!("`codes` and the places of `grids` are {rows}")));
        }
        if !(this.sampling.temperature >= 0.0 && this.sampling.top_p > 0.0) {
            return Err(config.wrong("temperature", "it must be 0 or more, and `top_p` more than 0"));
        }
        Ok(this)
    }

    /// How many places the coarse grid has.
    pub fn coarse_places(&self) -> usize {
        self.grids[0].pow(2)
    }

    /// How many places all grids have.
    pub fn places(&self) -> usize {
        self.grids.iter().map(|side| side.pow(2)).sum()
    }

    /// The grid that a place is in, and its row and column there.
    pub(super) fn at(&self, place: usize) -> (usize, usize, usize) {
        let coarse = self.coarse_places();
        match place.checked_sub(coarse) {
            None => (0, place / self.grids[0], place % self.grids[0]),
            Some(place) => (1, place / self.grids[1], place % self.grids[1]),
        }
    }
}

/// `InkbloomAutoregressive`.
pub struct Autoregressive {
    pub(super) decoder: Decoder,
    /// Rows for first codes, second codes and places: `[vocabulary, D]`. It is the head, too.
    table: Weight<2>,
    pub(super) text_projection: Linear,
    /// Tells a fine place what stands in the coarse one that it lies in.
    pub(super) coarse_projection: Option<Linear>,
    residual_head: [Linear; 2],
    config: AutoregressiveConfig,
}

/// What a run takes from the table, laid out for it.
pub(super) struct Heads {
    /// `[vocabulary, D]`.
    pub table: Tensor<2>,
    /// To first codes' logits and to second ones'.
    first: Linear,
    second: Linear,
}

impl Autoregressive {
    /// Loads a component as the class that `model_index.json` names.
    ///
    /// # Errors
    /// `BadModel` for another class, an option that cannot be honoured, or tensors that do not fit.
    pub fn load(tensors: &Tensors, files: &ModelFiles, component: &str) -> Result<Self> {
        if files.class(component)? != "InkbloomAutoregressive" {
            return Err(files.unknown_class(component, "InkbloomAutoregressive"));
        }
        let config = AutoregressiveConfig::read(&files.config(component)?)?;
        Self::from_params(&tensors.params(&format!("{component}/")), config)
    }

    /// # Errors
    /// `BadModel` where a tensor is missing or has another shape than the config says.
    pub fn from_params(params: &Params, config: AutoregressiveConfig) -> Result<Self> {
        let (model, residual) = (params.at("model"), params.at("residual_head"));
        let d = config.decoder.hidden_size;
        let coarse = (config.grids.len() > 1)
            .then(|| Linear::load_with(&params.at("coarse_projection"), d, d, false))
            .transpose()?;
        Ok(Self {
            table: model.at("embed_tokens").weight("weight", [config.decoder.vocab_size, d])?,
            decoder: Decoder::load(&model, config.decoder.clone())?,
            text_projection: Linear::load(&params.at("text_projection"), config.text_embed_dim, d)?,
            coarse_projection: coarse,
            residual_head: [
                Linear::load(&residual.at("linear_1"), 2 * d, d)?,
                Linear::load(&residual.at("linear_2"), d, d)?,
            ],
            config,
        })
    }

    pub fn config(&self) -> &AutoregressiveConfig {
        &self.config
    }

    /// # Errors
    /// `BadModel` where the text encoder's vectors, or how many it gives, are not those of the config.
    pub fn check_text(&self, width: usize, tokens: usize) -> Result<()> {
        let AutoregressiveConfig { text_embed_dim, max_text_tokens, .. } = self.config;
        if (width, tokens) == (text_embed_dim, max_text_tokens.min(tokens)) {
            return Ok(());
        }
        Err(Error::bad_model(format!(
            "autoregressive/config.json is for {max_text_tokens} text vectors of {text_embed_dim}, but this model's text encoder gives {tokens} of {width}"
        )))
    }

    /// How many values are in memory for `pictures` that are drawn side by side up to a place, each for `prompts` prompts:
    /// what they have seen, and what a step takes.
    pub fn live_values(&self, pictures: usize, prompts: usize, places: usize) -> u64 {
        let (rows, seen) = (pictures * prompts, self.config.max_text_tokens + places);
        // Branching copies the rows of a layer before it lets go of the old ones.
        self.decoder.cache_values(rows, seen)
            + 2 * self.decoder.live_values(rows, 1, seen)
            + self.decoder.live_values(prompts, self.config.max_text_tokens, self.config.max_text_tokens)
    }

    pub(super) fn heads(&self) -> Heads {
        let table = self.table.whole();
        let [first, second] = self.config.codes;
        let head = |start, count| Linear::tied(table.clone().narrow(0, start, count));
        Heads { first: head(0, first), second: head(first, second), table }
    }

    /// Hidden states `[N, D]` to the first code's logits, `[N, codes]`.
    pub(super) fn first_logits(&self, heads: &Heads, hidden: Tensor<2>) -> Tensor<2> {
        heads.first.forward(hidden)
    }

    /// Hidden states `[N, D]` and the rows of their first codes `[N, D]` to the second code's logits, `[N, codes]`.
    pub(super) fn second_logits(&self, heads: &Heads, hidden: Tensor<2>, first: Tensor<2>) -> Tensor<2> {
        let [linear_1, linear_2] = &self.residual_head;
        let inner = linear_1.forward_then(Tensor::cat(vec![hidden, first], 1), Some(Activation::Silu), None);
        heads.second.forward(linear_2.forward(inner))
    }
}
