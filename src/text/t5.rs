//! T5's encoder (transformers `T5EncoderModel`; Raffel et al., arXiv 1910.10683).

use burn::tensor::{Device, Int, Tensor, TensorData};

use super::batch::batch;
use crate::{
    Result,
    layers::{Activation, Embedding, Linear, RmsNorm, SelfAttention, mask_to_bias},
    values::{TextEmbedding, TokenIds},
    weights::{Config, Params},
};

/// What padding adds to attention scores.
const HIDDEN: f32 = -1e9;

/// The numbers of `text_encoder/config.json` that change the arithmetic.
#[derive(Clone, Debug)]
pub struct T5Config {
    pub vocab_size: usize,
    pub d_model: usize,
    pub d_kv: usize,
    pub d_ff: usize,
    pub num_layers: usize,
    pub num_heads: usize,
    pub relative_attention_num_buckets: usize,
    pub relative_attention_max_distance: usize,
    pub layer_norm_epsilon: f64,
    pub act: Activation,
    /// The perceptron's first layer is gated by a second one.
    pub gated: bool,
}

impl T5Config {
    /// Only the keys that change this forward pass are read.
    ///
    /// # Errors
    /// `BadModel` for a value that is out of range or asks for what this version cannot do.
    pub fn read(config: &Config) -> Result<Self> {
        let feed_forward = config.str("feed_forward_proj", "relu")?;
        let gated = feed_forward.starts_with("gated-");
        let act = match feed_forward {
            // transformers keeps the old name for the tanh form.
            "gated-gelu" => Some(Activation::GeluTanh),
            name => Activation::from_name(name.trim_start_matches("gated-")),
        };
        let right = || format!("this version knows {} and those with gated- before them", Activation::NAMES);
        let buckets = config.count("relative_attention_num_buckets", 32)?;
        if !buckets.is_multiple_of(4) {
            return Err(config.wrong("relative_attention_num_buckets", "it must be divisible by 4"));
        }
        Ok(Self {
            vocab_size: config.count("vocab_size", 32128)?,
            d_model: config.count("d_model", 512)?,
            d_kv: config.count("d_kv", 64)?,
            d_ff: config.count("d_ff", 2048)?,
            num_layers: config.count("num_layers", 6)?,
            num_heads: config.count("num_heads", 8)?,
            relative_attention_num_buckets: buckets,
            relative_attention_max_distance: config.count("relative_attention_max_distance", 128)?,
            layer_norm_epsilon: config.f64("layer_norm_epsilon", 1e-6)?,
            act: act.ok_or_else(|| config.wrong("feed_forward_proj", &right()))?,
            gated,
        })
    }
}

/// `T5EncoderModel`.
pub struct T5 {
    shared: Embedding,
    /// `[buckets, heads]`: what a distance adds to the scores, in every layer.
    relative_attention_bias: Embedding,
    blocks: Vec<Block>,
    final_norm: RmsNorm,
    config: T5Config,
    device: Device,
}

struct Block {
    attention_norm: RmsNorm,
    attention: SelfAttention,
    norm: RmsNorm,
    wi: Linear,
    gate: Option<Linear>,
    wo: Linear,
}

impl T5 {
    /// # Errors
    /// `BadModel` where a tensor is missing or has another shape than the config says.
    pub fn load(params: &Params, config: T5Config) -> Result<Self> {
        let T5Config { d_model: d, d_ff, layer_norm_epsilon: eps, .. } = config;
        let encoder = params.at("encoder");
        let bias = encoder.at("block.0.layer.0.SelfAttention.relative_attention_bias");
        let blocks = (0..config.num_layers).map(|i| {
            let attention = encoder.at(&format!("block.{i}.layer.0"));
            let dense = encoder.at(&format!("block.{i}.layer.1"));
            let linear = |params: Params, d_in, d_out| Linear::load_with(&params, d_in, d_out, false);
            let gate = config.gated.then(|| linear(dense.at("DenseReluDense.wi_1"), d, d_ff));
            Ok(Block {
                attention_norm: RmsNorm::load(&attention.at("layer_norm"), d, eps)?,
                // T5 does not scale its scores.
                attention: SelfAttention::load_named(
                    &attention.at("SelfAttention"),
                    ["q", "k", "v", "o"],
                    d,
                    config.num_heads,
                    config.d_kv,
                    [false; 2],
                )?
                .with_scale(1.0),
                norm: RmsNorm::load(&dense.at("layer_norm"), d, eps)?,
                wi: linear(dense.at(if config.gated { "DenseReluDense.wi_0" } else { "DenseReluDense.wi" }), d, d_ff)?,
                gate: gate.transpose()?,
                wo: linear(dense.at("DenseReluDense.wo"), d_ff, d)?,
            })
        });
        Ok(Self {
            shared: Embedding::load(&params.at("shared"), config.vocab_size, d)?,
            relative_attention_bias: Embedding::load(&bias, config.relative_attention_num_buckets, config.num_heads)?,
            blocks: blocks.collect::<Result<_>>()?,
            final_norm: RmsNorm::load(&encoder.at("final_layer_norm"), d, eps)?,
            device: params.device().clone(),
            config,
        })
    }

    /// `last_hidden_state` of a batch of prompts of equal length: `[N, T, D]`.
    ///
    /// # Errors
    /// `BadModel` where the tokenizer is not this encoder's.
    pub fn forward(&self, prompts: &[TokenIds]) -> Result<TextEmbedding> {
        let (ids, attention_mask) = batch(prompts, self.config.vocab_size, usize::MAX, &self.device)?;
        let [_, t] = ids.dims();
        // [1, heads, T, T] + [N, 1, 1, T]
        let bias = self.position_bias(t) + mask_to_bias(attention_mask.clone(), HIDDEN);
        let mut x = self.shared.forward(ids);
        for block in &self.blocks {
            x = block.forward(x, bias.clone(), &self.config);
        }
        Ok(TextEmbedding { hidden: self.final_norm.forward(x), attention_mask: Some(attention_mask), pooled: None })
    }

    /// What the distance between query and key adds to each head's scores: `[1, heads, T, T]`.
    fn position_bias(&self, t: usize) -> Tensor<4> {
        let buckets = (0..t * t).map(|i| bucket((i % t) as i64 - (i / t) as i64, &self.config)).collect::<Vec<_>>();
        let buckets = Tensor::<2, Int>::from_data(TensorData::new(buckets, [t, t]), &self.device);
        // [T, T] -> [T, T, heads] -> [heads, T, T]
        self.relative_attention_bias.forward(buckets).permute([2, 0, 1]).unsqueeze()
    }
}

/// Half of the buckets are for keys after the query; of each half, one half is exact and the other logarithmic.
fn bucket(distance: i64, config: &T5Config) -> i64 {
    let half = config.relative_attention_num_buckets / 2;
    let exact = half / 2;
    let after = if distance > 0 { half as i64 } else { 0 };
    let distance = distance.unsigned_abs() as usize;
    if distance < exact {
        return after + distance as i64;
    }
    // In f32, as the reference has it: these are rounded down.
    let range = (config.relative_attention_max_distance as f64 / exact as f64).ln() as f32;
    let far = (distance as f32 / exact as f32).ln() / range * (half - exact) as f32;
    after + (exact + far as usize).min(half - 1) as i64
}

impl Block {
    /// `[N, T, D] -> [N, T, D]`.
    fn forward(&self, x: Tensor<3>, bias: Tensor<4>, config: &T5Config) -> Tensor<3> {
        let h = self.attention_norm.forward(x.clone());
        let x = x + self.attention.forward(h, Some(bias));
        let h = self.norm.forward(x.clone());
        let activated = config.act.forward(self.wi.forward(h.clone()));
        let widened = match &self.gate {
            Some(gate) => activated * gate.forward(h),
            None => activated,
        };
        x + self.wo.forward(widened)
    }
}
