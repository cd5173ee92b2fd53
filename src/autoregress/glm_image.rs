//! GLM-Image's language model as it draws pictures from text (transformers `GlmImageForConditionalGeneration`): the codes of a
//! small grid, then those of a large one, each told its row and column.

use burn::tensor::{Device, Int, Tensor, TensorData};

use crate::{
    Error, Result,
    layers::{Activation, Embedding, Gate, HalfRotary, Linear, RmsNorm, gated, multi_head_attention},
    values::{ImageTokens, read},
    weights::{Config, Params},
};

/// What a place that must not be looked at adds to attention scores.
const HIDDEN: f32 = -1e9;
/// A token's place in time, and its row and column.
const AXES: usize = 3;

/// The numbers of `config.json` that change what is drawn.
#[derive(Clone, Debug)]
pub struct GlmImageConfig {
    pub vocab_size: usize,
    pub hidden_size: usize,
    pub intermediate_size: usize,
    pub num_hidden_layers: usize,
    pub num_attention_heads: usize,
    pub num_key_value_heads: usize,
    pub head_dim: usize,
    pub max_position_embeddings: usize,
    /// How many tokens are drawn from: those of pictures, and a few that stand around them.
    pub vision_vocab_size: usize,
    /// How many of them are codes of a picture, from 0.
    pub codes: usize,
    /// Begins a picture.
    pub image_start_token_id: i64,
    rms_norm_eps: f64,
    hidden_act: Activation,
    attention_bias: bool,
    /// What one place turns each pair of features by, and along which axis.
    turns: Vec<(f32, usize)>,
}

impl GlmImageConfig {
    /// The vision tower's part is left alone.
    ///
    /// # Errors
    /// `BadModel` for a value that is out of range or asks for what this version cannot do.
    pub fn read(config: &Config) -> Result<Self> {
        let part = |key: &str| {
            let part = config.object(key)?;
            part.ok_or_else(|| Error::bad_model(format!("{} lacks `{key}`, which every GLM-Image has", config.file())))
        };
        let (text, vq) = (part("text_config")?, part("vq_config")?);
        let hidden_size = text.count("hidden_size", 4096)?;
        let heads = text.count("num_attention_heads", 32)?;
        let kv_heads = text.count("num_key_value_heads", 2)?;
        if !heads.is_multiple_of(kv_heads) {
            return Err(text.wrong("num_key_value_heads", &format!("it must divide `num_attention_heads`, {heads}")));
        }
        let head_dim = text.count("head_dim", (hidden_size / heads).max(1))?;
        let hidden_act = text.str("hidden_act", "silu")?;
        let this = Self {
            vocab_size: text.count("vocab_size", 168_064)?,
            hidden_size,
            intermediate_size: text.count("intermediate_size", 13696)?,
            num_hidden_layers: text.count("num_hidden_layers", 40)?,
            num_attention_heads: heads,
            num_key_value_heads: kv_heads,
            head_dim,
            max_position_embeddings: text.count("max_position_embeddings", 131_072)?,
            vision_vocab_size: text.count("vision_vocab_size", 16512)?,
            codes: vq.count("num_embeddings", 16384)?,
            image_start_token_id: config.usize("image_start_token_id", 16384)? as i64,
            rms_norm_eps: text.f64("rms_norm_eps", 1e-5)?,
            hidden_act: Activation::from_name(hidden_act)
                .ok_or_else(|| text.wrong("hidden_act", &format!("this version knows {}", Activation::NAMES)))?,
            attention_bias: text.bool("attention_bias", true)?,
            turns: turns(&text, head_dim)?,
        };
        if this.codes > this.vision_vocab_size.min(this.vocab_size) {
            return Err(vq.wrong("num_embeddings", &format!("only {} tokens are drawn from", this.vision_vocab_size)));
        }
        Ok(this)
    }

    /// How many features of a head are turned.
    fn turned(&self) -> usize {
        2 * self.turns.len()
    }
}

/// `theta^(-2 i / d)` for the first `d` features of a head, whose pairs are dealt out to the axes.
fn turns(text: &Config, head_dim: usize) -> Result<Vec<(f32, usize)>> {
    let rope = text.object("rope_parameters")?;
    let (mut theta, mut share, mut sections) = (10000.0, 1.0, vec![8, 12, 12]);
    if let Some(rope) = &rope {
        rope.only("rope_type", "default")?;
        theta = rope.f64("rope_theta", theta)?;
        share = rope.f64("partial_rotary_factor", share)?;
        sections = rope.opt_usizes("mrope_section")?.unwrap_or(sections);
    }
    let pairs = (head_dim as f64 * share) as usize / 2;
    let width = (2 * pairs) as f64;
    if !(1..=head_dim / 2).contains(&pairs) || sections.iter().sum::<usize>() != pairs {
        let right = format!("`mrope_section` must deal out {pairs} pairs of features; it is {sections:?}");
        return Err(text.wrong("rope_parameters", &right));
    }
    let axes = sections.iter().enumerate().flat_map(|(i, count)| vec![i % AXES; *count]);
    Ok(axes.enumerate().map(|(i, axis)| (theta.powf((2 * i) as f64 / width).recip() as f32, axis)).collect())
}

/// The language model, its head, and nothing of what looks at pictures.
pub struct GlmImage {
    embed_tokens: Embedding,
    layers: Vec<Layer>,
    norm: RmsNorm,
    lm_head: Linear,
    device: Device,
    config: GlmImageConfig,
}

struct Layer {
    /// Before and after attention, then before and after the perceptron.
    norms: [RmsNorm; 4],
    /// Queries, keys and values side by side.
    qkv: Linear,
    out: Linear,
    /// What gates, then what is gated.
    gate_up: Linear,
    down: Linear,
}

impl GlmImage {
    /// `params` is the whole class's.
    ///
    /// # Errors
    /// `BadModel` where a tensor is missing or has another shape than the config says.
    pub fn load(params: &Params, config: GlmImageConfig) -> Result<Self> {
        let language = params.at("model.language_model");
        let d = config.hidden_size;
        let layers = (0..config.num_hidden_layers).map(|i| Layer::load(&language.at(&format!("layers.{i}")), &config));
        Ok(Self {
            embed_tokens: Embedding::load(&language.at("embed_tokens"), config.vocab_size, d)?,
            layers: layers.collect::<Result<_>>()?,
            norm: RmsNorm::load(&language.at("norm"), d, config.rms_norm_eps)?,
            lm_head: Linear::load_with(&params.at("lm_head"), d, config.vision_vocab_size, false)?,
            device: params.device().clone(),
            config,
        })
    }

    pub fn config(&self) -> &GlmImageConfig {
        &self.config
    }

    /// How many values are in memory while a picture of so many `places` is drawn behind `tokens` of a prompt.
    pub fn live_values(&self, tokens: usize, places: usize) -> u64 {
        let config = &self.config;
        let [layers, kv_heads, head_dim, heads] =
            [config.num_hidden_layers, config.num_key_value_heads, config.head_dim, config.num_attention_heads]
                .map(|count| count as u64);
        let [tokens, places, widths] =
            [tokens, places, config.hidden_size + config.intermediate_size].map(|count| count as u64);
        2 * layers * kv_heads * head_dim * (tokens + places) + tokens * (4 * widths + 2 * heads * tokens)
    }
}

impl Layer {
    fn load(params: &Params, config: &GlmImageConfig) -> Result<Self> {
        let GlmImageConfig { hidden_size: d, intermediate_size, head_dim, attention_bias, rms_norm_eps, .. } = *config;
        let (attention, mlp) = (params.at("self_attn"), params.at("mlp"));
        let [heads, kv_heads] = [config.num_attention_heads, config.num_key_value_heads].map(|n| n * head_dim);
        let [q, k, v] = ["q_proj", "k_proj", "v_proj"].map(|name| attention.at(name));
        let norm = |name: &str| RmsNorm::load(&params.at(name), d, rms_norm_eps);
        Ok(Self {
            norms: [
                norm("input_layernorm")?,
                norm("post_self_attn_layernorm")?,
                norm("post_attention_layernorm")?,
                norm("post_mlp_layernorm")?,
            ],
            qkv: Linear::load_side_by_side(&[(&q, heads), (&k, kv_heads), (&v, kv_heads)], d, attention_bias)?,
            out: Linear::load_with(&attention.at("o_proj"), heads, d, false)?,
            gate_up: Linear::load_with(&mlp.at("gate_up_proj"), d, 2 * intermediate_size, false)?,
            down: Linear::load_with(&mlp.at("down_proj"), intermediate_size, d, false)?,
        })
    }

    /// `[1, T, D] -> [1, T, D]`; `seen` are the keys and values of the tokens before, `[1, T', key heads * d]` each, and then of
    /// these, too. Their heads are few, so that making them longer costs little beside the weights.
    fn forward(
        &self,
        x: Tensor<3>,
        rotary: &HalfRotary,
        bias: Option<Tensor<4>>,
        seen: &mut Option<[Tensor<3>; 2]>,
        config: &GlmImageConfig,
    ) -> Tensor<3> {
        let [_, t, _] = x.dims();
        let GlmImageConfig { num_attention_heads: heads, num_key_value_heads: kv_heads, head_dim: d, .. } = *config;
        let [before_attention, after_attention, before_mlp, after_mlp] = &self.norms;
        let qkv = before_attention.forward_to(&self.qkv, x.clone());
        let (qk, value) =
            (qkv.clone().narrow(2, 0, (heads + kv_heads) * d), qkv.narrow(2, (heads + kv_heads) * d, kv_heads * d));
        // [1, T, heads * d] -> [1, heads, T, d]
        let qk: Tensor<4> = qk.reshape([1, t, heads + kv_heads, d]).swap_dims(1, 2);
        let turned = config.turned();
        let first = rotary.forward(qk.clone().narrow(3, 0, turned));
        let qk = if turned == d { first } else { Tensor::cat(vec![first, qk.narrow(3, turned, d - turned)], 3) };
        let key = qk.clone().narrow(1, heads, kv_heads).swap_dims(1, 2).reshape([1, t, kv_heads * d]);
        let new = match seen.take() {
            Some([keys, values]) => [Tensor::cat(vec![keys, key], 1), Tensor::cat(vec![values, value], 1)],
            None => [key, value],
        };
        let [key, value] = seen.insert(new).clone();
        // Query heads that share keys stand below each other: [1, heads, T, d] -> [1, group * T, kv_heads * d]
        let group = heads / kv_heads;
        let query = qk.narrow(1, 0, heads).reshape([1, kv_heads, group * t, d]).swap_dims(1, 2);
        let query = query.reshape([1, group * t, kv_heads * d]);
        let bias = bias.map(|bias| bias.repeat_dim(2, group));
        let attended = multi_head_attention(query, key, value, kv_heads, bias, None);
        // [1, group * T, kv_heads * d] -> [1, T, kv_heads, group, d] -> [1, T, heads * d]
        let attended: Tensor<5> = attended.reshape([1, group, t, kv_heads, d]).permute([0, 2, 3, 1, 4]);
        let x = x + after_attention.forward(self.out.forward(attended.reshape([1, t, heads * d])));
        let h = before_mlp.forward_to(&self.gate_up, x.clone());
        x + after_mlp.forward(self.down.forward(gated(h, config.hidden_act, Gate::First)))
    }
}

/// A picture on its way: its codes are drawn one after the other. To cancel, stop calling.
pub struct GlmImageRun<'a> {
    model: &'a GlmImage,
    /// Height and width in places, in the order in which they are drawn.
    grids: [[usize; 2]; 2],
    /// Of the tokens whose logits are asked for next: all of the prompt's, or one.
    next: Vec<i64>,
    /// How many tokens the prompt has.
    prompt: usize,
    seen: Vec<Option<[Tensor<3>; 2]>>,
    codes: Vec<u32>,
}

impl<'a> GlmImageRun<'a> {
    /// `prompt` ends with the token that begins a picture, whose `grids` are a small one and a large one, `[height, width]` each.
    ///
    /// # Errors
    /// `BadModel` where the tokenizer is not this model's; `BadInput` where prompt and picture have more tokens than the model
    /// has places.
    pub fn new(model: &'a GlmImage, prompt: &[i64], grids: [[usize; 2]; 2]) -> Result<Self> {
        let config = &model.config;
        let known = 0..config.vocab_size as i64;
        if prompt.last() != Some(&config.image_start_token_id) || prompt.iter().any(|id| !known.contains(id)) {
            return Err(Error::bad_model(format!(
                "the tokenizer does not end the prompt with the token {} that begins a picture, or gives ids beyond {}: it is not \
                 this model's",
                config.image_start_token_id, config.vocab_size
            )));
        }
        let places: usize = grids.iter().map(|[h, w]| h * w).sum();
        if prompt.len() + places > config.max_position_embeddings {
            return Err(Error::bad_input(format!(
                "prompt and picture have {} tokens, but the model has {} places; shorten the prompt or make the picture smaller",
                prompt.len() + places,
                config.max_position_embeddings
            )));
        }
        Ok(Self {
            model,
            grids,
            next: prompt.to_vec(),
            prompt: prompt.len(),
            seen: model.layers.iter().map(|_| None).collect(),
            codes: Vec::with_capacity(places),
        })
    }

    /// The logits of the codes that may stand at the next place, to be followed by a [`push`](Self::push); there is no end
    /// before the grids are full.
    ///
    /// # Errors
    /// `DeviceLost` or `OutOfMemory` from the device.
    pub async fn logits(&mut self) -> Result<Vec<f32>> {
        let (model, t) = (self.model, self.next.len());
        let ids = Tensor::<2, Int>::from_data(TensorData::new(self.next.clone(), [1, t]), &model.device);
        let mut x = model.embed_tokens.forward(ids);
        let rotary = self.rotary();
        let bias = (t > 1).then(|| {
            let hidden = |i: usize| if i % t > i / t { HIDDEN } else { 0.0 };
            Tensor::from_data(TensorData::new((0..t * t).map(hidden).collect(), [1, 1, t, t]), &model.device)
        });
        for (layer, seen) in model.layers.iter().zip(&mut self.seen) {
            x = layer.forward(x, &rotary, bias.clone(), seen, &model.config);
        }
        let last = model.norm.forward(x.narrow(1, t - 1, 1));
        read(model.lm_head.forward(last).narrow(2, 0, model.config.codes)).await
    }

    /// Makes `code` that of the place whose logits were asked for last.
    pub fn push(&mut self, code: u32) {
        self.codes.push(code);
        self.next = vec![i64::from(code)];
    }

    /// What is drawn of a grid by now, 0 being the small one.
    pub fn tokens(&self, grid: usize) -> ImageTokens {
        let [[h, w], _] = self.grids;
        let [rows, columns] = self.grids[grid];
        let codes = self.codes.iter().skip(if grid == 0 { 0 } else { h * w }).take(rows * columns);
        ImageTokens { grid: self.grids[grid], codes: codes.copied().collect(), residual: Vec::new() }
    }

    /// Whether every place has a code.
    pub fn is_done(&self) -> bool {
        self.codes.len() >= self.grids.iter().map(|[h, w]| h * w).sum()
    }

    /// How the next tokens are turned.
    fn rotary(&self) -> HalfRotary {
        let places: Vec<[usize; AXES]> = match self.codes.len().checked_sub(1) {
            None => (0..self.prompt).map(|place| [place; AXES]).collect(),
            Some(code) => vec![self.place(code)],
        };
        let turns = &self.model.config.turns;
        let angles = places.iter().flat_map(|place| turns.iter().map(|(turn, axis)| place[*axis] as f32 * turn));
        HalfRotary::new(&angles.collect::<Vec<_>>(), turns.len(), &self.model.device)
    }

    /// Where a code stands: a grid begins behind all rows and columns of what is before it.
    fn place(&self, code: usize) -> [usize; AXES] {
        let [[h, w], [_, columns]] = self.grids;
        match code.checked_sub(h * w) {
            None => [self.prompt, self.prompt + code / w, self.prompt + code % w],
            Some(code) => {
                let start = self.prompt + h.max(w);
                [start, start + code / columns, start + code % columns]
            }
        }
    }
}
