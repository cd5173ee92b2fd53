//! Janus' language model as it draws pictures (transformers `JanusForConditionalGeneration.generate` with
//! `generation_mode="image"`; Chen et al., arXiv 2501.17811).

use burn::tensor::{Int, Tensor, TensorData};

use super::sample;
use crate::{
    Error, Result,
    layers::{Activation, Decoder, DecoderConfig, DecoderKind, Embedding, HalfRotary, KvCache, Linear},
    values::{ImageTokens, TextEmbedding, read},
    weights::{Config, Params},
};

/// The numbers of `config.json` that change what is drawn.
#[derive(Clone, Debug)]
pub struct JanusConfig {
    pub text: DecoderConfig,
    /// How many codes pictures are made of, and how wide each is.
    pub num_embeddings: usize,
    pub embed_dim: usize,
    projection_dim: usize,
    image_token_embed_dim: usize,
    num_hidden_layers: usize,
    hidden_act: Activation,
    /// Places of a picture, a side.
    pub side: usize,
}

impl JanusConfig {
    /// The vision tower's part is read for nothing but the grid.
    ///
    /// # Errors
    /// `BadModel` for a value that is out of range or asks for what this version cannot do.
    pub fn read(config: &Config) -> Result<Self> {
        let part = |key: &str| {
            config
                .object(key)?
                .ok_or_else(|| Error::bad_model(format!("config.json lacks `{key}`, which every Janus has")))
        };
        let (text, vq, vision) = (part("text_config")?, part("vq_config")?, part("vision_config")?);
        text.only("model_type", "llama")?;
        let text = DecoderConfig::read(&text, DecoderKind::Llama)?;
        let [image, patch] = [vision.count("image_size", 384)?, vision.count("patch_size", 16)?];
        let side = image / patch;
        let tokens = vision.count("num_image_tokens", 576)?;
        if side * side != tokens {
            return Err(vision.wrong("num_image_tokens", &format!("a picture has {side} x {side} places")));
        }
        let width = vq.count("projection_dim", 2048)?;
        if width != text.hidden_size {
            return Err(vq.wrong("projection_dim", &format!("the language model is {} wide", text.hidden_size)));
        }
        let hidden_act = vq.str("hidden_act", "gelu")?;
        Ok(Self {
            num_embeddings: vq.count("num_embeddings", 16384)?,
            embed_dim: vq.count("embed_dim", 8)?,
            projection_dim: width,
            image_token_embed_dim: vq.count("image_token_embed_dim", 2048)?,
            num_hidden_layers: vq.count("num_hidden_layers", 2)?,
            hidden_act: Activation::from_name(hidden_act)
                .ok_or_else(|| vq.wrong("hidden_act", &format!("this version knows {}", Activation::NAMES)))?,
            text,
            side,
        })
    }
}

/// The language model with what makes codes of its states, and its input of codes.
pub struct Janus {
    embed_tokens: Embedding,
    decoder: Decoder,
    generation_embeddings: Embedding,
    /// Dense layers with an activation between them.
    aligner: Vec<Linear>,
    proj_out: Linear,
    vision_head: Linear,
    config: JanusConfig,
}

impl Janus {
    /// `params` is the whole class's; the vision tower, the tokenizer of pictures and the language head are left alone.
    ///
    /// # Errors
    /// `BadModel` where a tensor is missing or has another shape than the config says.
    pub fn load(params: &Params, config: JanusConfig) -> Result<Self> {
        let model = params.at("model");
        let (language, aligner, head) =
            (model.at("language_model"), model.at("generation_aligner"), model.at("generation_head"));
        let width = config.projection_dim;
        let first = Linear::load(&aligner.at("fc1"), config.embed_dim, width);
        let others = (1..config.num_hidden_layers)
            .map(|i| Linear::load(&aligner.at(&format!("hidden_layers.{}", i - 1)), width, width));
        let tokens = language.at("embed_tokens");
        Ok(Self {
            embed_tokens: Embedding::load(&tokens, config.text.vocab_size, config.text.hidden_size)?,
            decoder: Decoder::load(&language, config.text.clone())?,
            generation_embeddings: Embedding::load(
                &model.at("generation_embeddings"),
                config.num_embeddings,
                config.embed_dim,
            )?,
            aligner: std::iter::once(first).chain(others).collect::<Result<_>>()?,
            proj_out: Linear::load(&head.at("proj_out"), config.image_token_embed_dim, width)?,
            vision_head: Linear::load(&head.at("vision_head"), width, config.num_embeddings)?,
            config,
        })
    }

    pub fn config(&self) -> &JanusConfig {
        &self.config
    }

    /// How many values are in memory while a picture is drawn behind `tokens` of a prompt.
    pub fn live_values(&self, tokens: usize) -> u64 {
        let seen = tokens + self.config.side.pow(2);
        self.decoder.cache_values(2, seen) + self.decoder.live_values(2, tokens, tokens)
    }

    /// What the language model is told of codes `[rows, 1]`: `[rows, 1, D]`.
    fn embed_codes(&self, codes: Tensor<2, Int>) -> Tensor<3> {
        let mut layers = self.aligner.iter();
        let x = self.generation_embeddings.forward(codes);
        let x = layers.next().map_or_else(|| x.clone(), |first| first.forward(x.clone()));
        layers.fold(x, |x, layer| layer.forward(self.config.hidden_act.forward(x)))
    }
}

/// The ids that the reference leaves in the prompt that it guides away from; the others become padding.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub struct JanusTokens {
    pub bos: i64,
    /// Begins a picture.
    pub boi: i64,
    pub pad: i64,
}

/// A picture on its way: its codes are drawn one after the other. To cancel, stop calling.
pub struct JanusRun<'a> {
    model: &'a Janus,
    guidance: f64,
    rotary: HalfRotary,
    /// One row, or the prompt's and that of the empty prompt.
    cache: KvCache,
    rows: usize,
    /// What the next token of each row is, or, at first, all of the prompt's.
    next: Tensor<3>,
    codes: Vec<u32>,
}

impl<'a> JanusRun<'a> {
    /// `prompt` ends where a picture begins. Scales above 1 guide.
    ///
    /// # Errors
    /// `BadInput` for an empty prompt, `BadModel` where the tokenizer is not this model's or the prompt and the picture have more
    /// tokens than the model has places.
    pub fn new(model: &'a Janus, prompt: &[i64], tokens: JanusTokens, guidance: f64) -> Result<Self> {
        let JanusConfig { text, side, .. } = &model.config;
        if prompt.is_empty() {
            return Err(Error::bad_input("the prompt has no tokens"));
        }
        let total = prompt.len() + side * side;
        if total > text.max_position_embeddings {
            return Err(Error::bad_model(format!(
                "prompt and picture have {total} tokens, but the model has {} places",
                text.max_position_embeddings
            )));
        }
        let known = 0..text.vocab_size as i64;
        if let Some(id) = prompt.iter().chain([&tokens.pad]).find(|id| !known.contains(*id)) {
            return Err(Error::bad_model(format!(
                "the tokenizer gave the id {id}, but the model knows {} tokens: this is not its tokenizer",
                text.vocab_size
            )));
        }
        let mut ids = prompt.to_vec();
        let rows = if guidance > 1.0 { 2 } else { 1 };
        if rows == 2 {
            ids.extend(prompt.iter().map(|id| if [tokens.bos, tokens.boi].contains(id) { *id } else { tokens.pad }));
        }
        let ids = Tensor::from_data(TensorData::new(ids, [rows, prompt.len()]), model.decoder.device());
        Ok(Self {
            model,
            guidance,
            rotary: model.decoder.rotary(total),
            cache: model.decoder.cache(rows, total),
            rows,
            next: model.embed_tokens.forward(ids),
            codes: Vec::with_capacity(side * side),
        })
    }

    /// The guided logits of the next place, to be followed by a [`push`](Self::push).
    ///
    /// # Errors
    /// `DeviceLost` or `OutOfMemory` from the device.
    pub async fn logits(&mut self) -> Result<Vec<f64>> {
        let [rows, t, d] = self.next.dims();
        let rotary = self.rotary.at(self.cache.filled(), t);
        let hidden = self.model.decoder.forward(self.next.clone(), &rotary, None, &mut self.cache);
        let last: Tensor<2> = hidden.narrow(1, t - 1, 1).reshape([rows, d]);
        let head = self.model.proj_out.forward_then(last, Some(self.model.config.hidden_act), None);
        let logits = read(self.model.vision_head.forward(head)).await?;
        let (conditional, unguided) = logits.split_at(self.model.config.num_embeddings);
        Ok(match self.rows {
            1 => conditional.iter().map(|logit| f64::from(*logit)).collect(),
            _ => sample::guided(unguided, conditional, self.guidance),
        })
    }

    /// Makes `code` that of the place whose logits were asked for last.
    pub fn push(&mut self, code: u32) {
        self.codes.push(code);
        let codes = TensorData::new(vec![i64::from(code); self.rows], [self.rows, 1]);
        self.next = self.model.embed_codes(Tensor::from_data(codes, self.model.decoder.device()));
    }

    /// What is drawn by now.
    pub fn tokens(&self) -> ImageTokens {
        ImageTokens { grid: [self.model.config.side; 2], codes: self.codes.clone(), residual: Vec::new() }
    }

    /// The prompt as the language model is told it, until the first code is pushed: `N` = 1.
    pub fn prompt(&self) -> TextEmbedding {
        TextEmbedding { hidden: self.next.clone().narrow(0, 0, 1), attention_mask: None, pooled: None }
    }

    /// Whether every place has a code.
    pub fn is_done(&self) -> bool {
        self.codes.len() >= self.model.config.side.pow(2)
    }
}
