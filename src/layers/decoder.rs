//! The layers of decoder-only transformers (transformers `LlamaModel`, `Qwen3Model`; Touvron et al., arXiv 2302.13971),
//! and the cache of keys and values that spares them what they computed before.

use std::f64::consts::TAU;

use burn::tensor::{Device, Int, Tensor, TensorData};

use super::{
    Activation, HalfRotary, Linear, RmsNorm,
    attention::attend,
    kernels::{Gate, MOST_TOKENS, Residual, gated},
};
use crate::{
    Result,
    weights::{Config, Params},
};

/// What a place that must not be looked at adds to attention scores.
const HIDDEN: f32 = -1e9;
/// On a GPU, attention that is written out looks at a multiple of so many places, so that shapes, and with them its kernels,
/// repeat.
const PLACES: usize = 32;

/// Whose layers these are.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum DecoderKind {
    Llama,
    /// Queries and keys are normalised over each head's width.
    Qwen3,
}

/// The numbers of a `config.json` that change the layers' arithmetic.
#[derive(Clone, Debug)]
pub struct DecoderConfig {
    pub vocab_size: usize,
    pub hidden_size: usize,
    pub intermediate_size: usize,
    pub num_hidden_layers: usize,
    pub num_attention_heads: usize,
    pub num_key_value_heads: usize,
    pub head_dim: usize,
    pub max_position_embeddings: usize,
    pub rms_norm_eps: f64,
    pub hidden_act: Activation,
    pub attention_bias: bool,
    pub mlp_bias: bool,
    /// Queries and keys are normalised.
    pub qk_norm: bool,
    /// What one place turns each pair of features by, `head_dim / 2` of them.
    pub frequencies: Vec<f32>,
}

impl DecoderConfig {
    /// Only the keys that change this forward pass are read.
    ///
    /// # Errors
    /// `BadModel` for a value that is out of range or asks for what this version cannot do.
    pub fn read(config: &Config, kind: DecoderKind) -> Result<Self> {
        let qwen = kind == DecoderKind::Qwen3;
        config.only("use_sliding_window", false)?;
        let hidden_size = config.count("hidden_size", 4096)?;
        let heads = config.count("num_attention_heads", 32)?;
        let kv_heads = config.count("num_key_value_heads", heads)?;
        if !heads.is_multiple_of(kv_heads) {
            return Err(config.wrong("num_key_value_heads", &format!("it must divide `num_attention_heads`, {heads}")));
        }
        let head_dim = config.count("head_dim", if qwen { 128 } else { (hidden_size / heads).max(1) })?;
        if !head_dim.is_multiple_of(2) {
            return Err(config.wrong("head_dim", "it must be even"));
        }
        let hidden_act = config.str("hidden_act", "silu")?;
        Ok(Self {
            vocab_size: config.count("vocab_size", if qwen { 151936 } else { 32000 })?,
            hidden_size,
            intermediate_size: config.count("intermediate_size", if qwen { 22016 } else { 11008 })?,
            num_hidden_layers: config.count("num_hidden_layers", 32)?,
            num_attention_heads: heads,
            num_key_value_heads: kv_heads,
            head_dim,
            max_position_embeddings: config.count("max_position_embeddings", if qwen { 32768 } else { 2048 })?,
            rms_norm_eps: config.f64("rms_norm_eps", 1e-6)?,
            hidden_act: Activation::from_name(hidden_act)
                .ok_or_else(|| config.wrong("hidden_act", &format!("this version knows {}", Activation::NAMES)))?,
            attention_bias: config.bool("attention_bias", false)?,
            mlp_bias: !qwen && config.bool("mlp_bias", false)?,
            qk_norm: qwen,
            frequencies: frequencies(config, head_dim)?,
        })
    }
}

/// `theta^(-2 i / d)`, perhaps scaled for places beyond those of the first training (transformers
/// `ROPE_INIT_FUNCTIONS`). transformers 5 calls it all `rope_parameters`, 4 `rope_theta` and `rope_scaling`.
fn frequencies(config: &Config, head_dim: usize) -> Result<Vec<f32>> {
    let theta = config.f64("rope_theta", 10000.0)?;
    let whole = (0..head_dim / 2).map(|i| move |theta: f64| theta.powf((2 * i) as f64 / head_dim as f64).recip());
    let named = match config.object("rope_parameters")? {
        Some(parameters) => Some(parameters),
        None => config.object("rope_scaling")?,
    };
    let Some(named) = named else { return Ok(whole.map(|at| at(theta) as f32).collect()) };
    let theta = named.f64("rope_theta", theta)?;
    let kind = named.str("rope_type", named.str("type", "default")?)?;
    let factor = named.f64("factor", 1.0)?;
    let scale: Box<dyn Fn(f64) -> f64> = match kind {
        "default" => Box::new(|frequency| frequency),
        "linear" => Box::new(move |frequency| frequency / factor),
        "llama3" => {
            let [low, high] = [named.f64("low_freq_factor", 1.0)?, named.f64("high_freq_factor", 4.0)?];
            let trained = named.f64("original_max_position_embeddings", 8192.0)?;
            // Turns that are slow for the first training's length are stretched, quick ones stay, and between it glides.
            Box::new(move |frequency| {
                let kept = ((trained * frequency / TAU - low) / (high - low)).clamp(0.0, 1.0);
                frequency * ((1.0 - kept) / factor + kept)
            })
        }
        _ => return Err(named.wrong("rope_type", "this version knows default, linear and llama3")),
    };
    Ok(whole.map(|at| scale(at(theta)) as f32).collect())
}

/// All layers and the norm after them.
pub struct Decoder {
    layers: Vec<Layer>,
    norm: RmsNorm,
    config: DecoderConfig,
    device: Device,
}

struct Layer {
    attention_norm: RmsNorm,
    /// Queries, keys and values side by side.
    qkv: Linear,
    qk_norm: Option<HeadNorm>,
    out: Linear,
    norm: RmsNorm,
    /// What gates, and what is gated, side by side.
    gate_up: Linear,
    down: Linear,
}

/// Root mean square norms of queries and keys, over each head's width.
struct HeadNorm {
    /// `[1, query heads + key heads, 1, d]`.
    weight: Tensor<4>,
    eps: f64,
}

/// Keys and values of the tokens that a decoder has seen, for a batch of rows.
pub struct KvCache {
    /// Of each layer: keys and values, `[rows, key heads, capacity, d]`. They are moved out to be written to, for burn
    /// writes in place only where nobody else holds the tensor.
    layers: Vec<[Option<Tensor<4>>; 2]>,
    /// `[rows, capacity]`: 0 for what may be looked at. `None` while that is all that is filled, and exactly so much is
    /// looked at.
    bias: Option<Tensor<2>>,
    rows: usize,
    capacity: usize,
    filled: usize,
    /// Whether no more places are looked at than are filled.
    exact: bool,
}

impl Decoder {
    /// `layers.N` and `norm`, as transformers' models call them; embedding and head are the caller's.
    ///
    /// # Errors
    /// `BadModel` where a tensor is missing or has another shape than the config says.
    pub fn load(params: &Params, config: DecoderConfig) -> Result<Self> {
        let layers = (0..config.num_hidden_layers).map(|i| Layer::load(&params.at(&format!("layers.{i}")), &config));
        Ok(Self {
            layers: layers.collect::<Result<_>>()?,
            norm: RmsNorm::load(&params.at("norm"), config.hidden_size, config.rms_norm_eps)?,
            device: params.device().clone(),
            config,
        })
    }

    pub fn config(&self) -> &DecoderConfig {
        &self.config
    }

    pub fn device(&self) -> &Device {
        &self.device
    }

    /// How tokens at the places 0 to `places` are turned.
    pub fn rotary(&self, places: usize) -> HalfRotary {
        let frequencies = &self.config.frequencies;
        let angles: Vec<f32> = (0..places).flat_map(|i| frequencies.iter().map(move |turn| i as f32 * turn)).collect();
        HalfRotary::new(&angles, frequencies.len(), &self.device)
    }

    /// An empty cache of `rows` rows with room for `capacity` tokens each.
    pub fn cache(&self, rows: usize, capacity: usize) -> KvCache {
        let DecoderConfig { num_key_value_heads, head_dim, .. } = self.config;
        let capacity = capacity.next_multiple_of(PLACES);
        let exact = self.device == Device::flex() || capacity <= MOST_TOKENS;
        let empty = || Some(Tensor::zeros([rows, num_key_value_heads, capacity, head_dim], &self.device));
        KvCache {
            layers: self.layers.iter().map(|_| [empty(), empty()]).collect(),
            bias: (!exact).then(|| Tensor::full([rows, capacity], HIDDEN, &self.device)),
            rows,
            capacity,
            filled: 0,
            exact,
        }
    }

    /// How many values such a [`cache`](Self::cache) holds.
    pub fn cache_values(&self, rows: usize, capacity: usize) -> u64 {
        let DecoderConfig { num_key_value_heads, head_dim, .. } = self.config;
        let places = capacity.next_multiple_of(PLACES) as u64;
        (2 * self.layers.len() * num_key_value_heads * head_dim) as u64 * rows as u64 * places
    }

    /// How many values a forward pass holds at once, next to cache and weights, for `tokens` that look at `seen`.
    pub fn live_values(&self, rows: usize, tokens: usize, seen: usize) -> u64 {
        let DecoderConfig { hidden_size, intermediate_size, num_attention_heads, .. } = self.config;
        (rows * tokens) as u64 * (4 * (hidden_size + intermediate_size) + 2 * num_attention_heads * seen) as u64
    }

    /// The next tokens of each row, `x` `[rows, T, D]`, turned as `rotary` says: `[rows, T, D]`, normed. Each looks at
    /// itself and at what stands before it, and the cache grows by T. `mask` `[rows, T]` is 1 for those that may be looked
    /// at, now and later, and 0 for padding; without one, all may.
    ///
    /// # Panics
    /// Where the cache has other rows or no room left: whoever made it knows how many tokens there will be.
    pub fn forward(
        &self,
        x: Tensor<3>,
        rotary: &HalfRotary,
        mask: Option<Tensor<2>>,
        cache: &mut KvCache,
    ) -> Tensor<3> {
        self.forward_with(x, rotary, mask, cache, |_| {})
    }

    /// As [`forward`](Self::forward); `see` is shown what enters each layer, which are transformers' `hidden_states` but for
    /// the last.
    pub fn forward_with(
        &self,
        x: Tensor<3>,
        rotary: &HalfRotary,
        mask: Option<Tensor<2>>,
        cache: &mut KvCache,
        mut see: impl FnMut(&Tensor<3>),
    ) -> Tensor<3> {
        let [_, t, _] = x.dims();
        cache.grow(t, mask);
        let bias = cache.bias(t);
        let mut x = x;
        for (i, layer) in self.layers.iter().enumerate() {
            see(&x);
            x = layer.forward(x, rotary, bias.clone(), cache, i, &self.config);
        }
        self.norm.forward(x)
    }
}

impl Layer {
    fn load(params: &Params, config: &DecoderConfig) -> Result<Self> {
        let DecoderConfig { hidden_size: d, intermediate_size, rms_norm_eps: eps, attention_bias, mlp_bias, .. } =
            *config;
        let (attention, mlp) = (params.at("self_attn"), params.at("mlp"));
        let [heads, kv_heads] = [config.num_attention_heads, config.num_key_value_heads].map(|n| n * config.head_dim);
        let [q, k, v] = ["q_proj", "k_proj", "v_proj"].map(|name| attention.at(name));
        Ok(Self {
            attention_norm: RmsNorm::load(&params.at("input_layernorm"), d, eps)?,
            qkv: Linear::load_side_by_side(&[(&q, heads), (&k, kv_heads), (&v, kv_heads)], d, attention_bias)?,
            qk_norm: config.qk_norm.then(|| HeadNorm::load(&attention, config)).transpose()?,
            out: Linear::load_with(&attention.at("o_proj"), heads, d, attention_bias)?,
            norm: RmsNorm::load(&params.at("post_attention_layernorm"), d, eps)?,
            gate_up: Linear::load_joined(&[mlp.at("gate_proj"), mlp.at("up_proj")], d, intermediate_size, mlp_bias)?,
            down: Linear::load_with(&mlp.at("down_proj"), intermediate_size, d, mlp_bias)?,
        })
    }

    /// `[rows, T, D] -> [rows, T, D]`; keys and values go to the cache's entry `i`.
    fn forward(
        &self,
        x: Tensor<3>,
        rotary: &HalfRotary,
        bias: Option<Tensor<4>>,
        cache: &mut KvCache,
        i: usize,
        config: &DecoderConfig,
    ) -> Tensor<3> {
        let [n, t, _] = x.dims();
        let DecoderConfig { num_attention_heads: heads, num_key_value_heads: kv_heads, head_dim: d, .. } = *config;
        let qkv = self.attention_norm.forward_to(&self.qkv, x.clone());
        // [N, T, (heads + 2 kv_heads) * d] -> [N, heads + 2 kv_heads, T, d]
        let qkv = qkv.reshape([n, t, heads + 2 * kv_heads, d]).swap_dims(1, 2);
        let qkv = self.qk_norm.iter().fold(qkv, |qkv, norm| norm.forward(qkv));
        let [query, key, value] = cache.write(i, qkv, rotary);
        // Query heads that share keys stand below each other: [N, heads, T, d] -> [N, kv_heads, group * T, d]
        let group = heads / kv_heads;
        let query = query.reshape([n, kv_heads, group * t, d]);
        let bias = bias.map(|bias| if t > 1 && group > 1 { bias.repeat_dim(2, group) } else { bias });
        let attended = attend(query, key, value, bias, None);
        // [N, group * T, kv_heads * d] -> [N, T, kv_heads, group, d] -> [N, T, heads * d]
        let attended = match group {
            1 => attended,
            _ => attended.reshape([n, group, t, kv_heads, d]).permute([0, 2, 3, 1, 4]).reshape([n, t, heads * d]),
        };
        let x = self.out.forward_then(attended, None, Some(Residual::new(x)));
        let h = self.norm.forward_to(&self.gate_up, x.clone());
        self.down.forward_then(gated(h, config.hidden_act, Gate::First), None, Some(Residual::new(x)))
    }
}

impl HeadNorm {
    fn load(attention: &Params, config: &DecoderConfig) -> Result<Self> {
        let DecoderConfig { num_attention_heads: heads, num_key_value_heads: kv_heads, head_dim: d, .. } = *config;
        let part = |name: &str, heads: usize| -> Result<Tensor<4>> {
            Ok(attention.at(name).tensor::<1>("weight", [d])?.unsqueeze::<4>().repeat_dim(1, heads))
        };
        let weight = Tensor::cat(vec![part("q_norm", heads)?, part("k_norm", kv_heads)?], 1);
        Ok(Self { weight, eps: config.rms_norm_eps })
    }

    /// `[N, heads + 2 kv_heads, T, d]`, of which values stay what they are.
    fn forward(&self, x: Tensor<4>) -> Tensor<4> {
        let ([_, all, ..], [_, normed, ..]) = (x.dims(), self.weight.dims());
        let (qk, values) = (x.clone().narrow(1, 0, normed), x.narrow(1, normed, all - normed));
        let mean_square = (qk.clone() * qk.clone()).mean_dim(3);
        Tensor::cat(vec![qk / (mean_square + self.eps).sqrt() * self.weight.clone(), values], 1)
    }
}

impl KvCache {
    pub fn rows(&self) -> usize {
        self.rows
    }

    /// How many tokens of each row are in it.
    pub fn filled(&self) -> usize {
        self.filled
    }

    /// How many tokens of each row it has room for.
    pub fn capacity(&self) -> usize {
        self.capacity
    }

    /// Forgets the tokens from place `filled` on.
    pub fn truncate(&mut self, filled: usize) {
        if let Some(bias) = self.bias.take() {
            let forgotten = if self.exact { 0.0 } else { HIDDEN };
            let forgotten = Tensor::full([self.rows, self.capacity - filled], forgotten, &bias.device());
            self.bias = Some(bias.slice_assign([0..self.rows, filled..self.capacity], forgotten));
        }
        self.filled = self.filled.min(filled);
    }

    /// Row i becomes what row `parents[i]` is; there may be more of them than before, or fewer.
    pub fn select(&mut self, parents: &[usize]) {
        let ids: Vec<i64> = parents.iter().map(|parent| *parent as i64).collect();
        let device = self.layers.iter().flatten().flatten().next().map(Tensor::device);
        let Some(device) = device else { return };
        let ids = Tensor::<1, Int>::from_data(TensorData::new(ids, [parents.len()]), &device);
        for half in self.layers.iter_mut().flatten() {
            *half = half.take().map(|tensor| tensor.select(0, ids.clone()));
        }
        self.bias = self.bias.take().map(|bias| bias.select(0, ids));
        self.rows = parents.len();
    }

    /// Makes room for `t` more tokens, of which `mask` says which may be looked at.
    fn grow(&mut self, t: usize, mask: Option<Tensor<2>>) {
        let places = [0..self.rows, self.filled..self.filled + t];
        if self.bias.is_none()
            && let Some(mask) = &mask
        {
            self.bias = Some(Tensor::zeros([self.rows, self.capacity], &mask.device()));
        }
        let new = match mask {
            Some(mask) => Some((mask * -1.0 + 1.0) * HIDDEN),
            // What is not looked at before it is filled is not hidden either.
            None if self.exact => None,
            None => self.bias.as_ref().map(|bias| Tensor::zeros([self.rows, t], &bias.device())),
        };
        if let Some(new) = new {
            self.bias = self.bias.take().map(|bias| bias.slice_assign(places, new));
        }
        self.filled += t;
    }

    /// How many places are looked at.
    fn seen(&self) -> usize {
        if self.exact { self.filled } else { self.filled.next_multiple_of(PLACES) }
    }

    /// What is added to the scores of the last `t` tokens: `[1 or rows, 1, 1 or t, seen]`.
    fn bias(&self, t: usize) -> Option<Tensor<4>> {
        let (rows, seen) = (self.rows, self.seen());
        let padding = self.bias.clone().map(|bias| bias.reshape([rows, 1, 1, self.capacity]).narrow(3, 0, seen));
        if t == 1 {
            return padding;
        }
        let device = self.layers.iter().flatten().flatten().next().map(Tensor::device)?;
        let first = self.filled - t;
        let hidden = |i: usize| if i % seen > first + i / seen { HIDDEN } else { 0.0 };
        let causal: Vec<f32> = (0..t * seen).map(hidden).collect();
        let causal = Tensor::<4>::from_data(TensorData::new(causal, [1, 1, t, seen]), &device);
        let causal = causal.expand([rows, 1, t, seen]);
        Some(padding.into_iter().fold(causal, |causal, padding| causal + padding))
    }

    /// Adds the keys and values of layer `i` to the last tokens', of whose `qkv` `[rows, heads + 2 key heads, T, d]` they are
    /// taken: gives the queries, and all keys and values that are looked at.
    fn write(&mut self, i: usize, qkv: Tensor<4>, rotary: &HalfRotary) -> [Tensor<4>; 3] {
        let ([_, _, t, _], seen) = (qkv.dims(), self.seen());
        let [Some(keys), Some(values)] = self.layers[i].each_mut().map(Option::take) else {
            unreachable!("keys and values are put back below")
        };
        let (query, [keys, values]) = rotary.forward_into(qkv, [keys, values], self.filled - t);
        self.layers[i] = [&keys, &values].map(|half| Some(half.clone()));
        [query, keys.narrow(2, 0, seen), values.narrow(2, 0, seen)]
    }
}
