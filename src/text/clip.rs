//! CLIP's text encoder (transformers `CLIPTextModel`, `CLIPTextModelWithProjection`; Radford et al., arXiv 2103.00020).

use burn::tensor::{Int, Tensor, TensorData};

use super::batch::batch;
use crate::{
    Result,
    layers::{Activation, Embedding, LayerNorm, Linear, Residual, SelfAttention, mask_to_bias},
    values::TokenIds,
    weights::{Config, Params},
};

/// What a place that must not be looked at adds to attention scores.
const HIDDEN: f32 = -1e9;
/// The id that stands for "the place of the highest id" in configs from before transformers 4.31.
const OLD_EOS: usize = 2;

/// The numbers of `text_encoder/config.json` that change the arithmetic.
#[derive(Clone, Debug)]
pub struct ClipTextConfig {
    pub vocab_size: usize,
    pub hidden_size: usize,
    pub intermediate_size: usize,
    pub num_hidden_layers: usize,
    pub num_attention_heads: usize,
    pub max_position_embeddings: usize,
    pub layer_norm_eps: f64,
    pub hidden_act: Activation,
    pub eos_token_id: usize,
    /// The width of the projection, for `CLIPTextModelWithProjection`.
    pub projection_dim: Option<usize>,
    /// Padding is hidden from the other tokens; published models look at it.
    pub use_attention_mask: bool,
}

impl ClipTextConfig {
    /// Only the keys that change this forward pass are read; of the config of a whole CLIP, its `text_config`. `projected` is
    /// whether the class is the one with a projection.
    ///
    /// # Errors
    /// `BadModel` for a value that is out of range or asks for what this version cannot do.
    pub fn read(config: &Config, projected: bool) -> Result<Self> {
        if let Some(text) = config.object("text_config")? {
            return Self::read(&text, projected);
        }
        let hidden_size = config.count("hidden_size", 512)?;
        let num_attention_heads = config.count("num_attention_heads", 8)?;
        if !hidden_size.is_multiple_of(num_attention_heads) {
            return Err(config.wrong("num_attention_heads", &format!("it must divide `hidden_size`, {hidden_size}")));
        }
        let hidden_act = config.str("hidden_act", "quick_gelu")?;
        let projection_dim = config.count("projection_dim", 512)?;
        Ok(Self {
            vocab_size: config.count("vocab_size", 49408)?,
            hidden_size,
            intermediate_size: config.count("intermediate_size", 2048)?,
            num_hidden_layers: config.count("num_hidden_layers", 12)?,
            num_attention_heads,
            max_position_embeddings: config.count("max_position_embeddings", 77)?,
            layer_norm_eps: config.f64("layer_norm_eps", 1e-5)?,
            hidden_act: Activation::from_name(hidden_act)
                .ok_or_else(|| config.wrong("hidden_act", &format!("this version knows {}", Activation::NAMES)))?,
            eos_token_id: config.usize("eos_token_id", 49407)?,
            projection_dim: projected.then_some(projection_dim),
            use_attention_mask: config.bool("use_attention_mask", false)?,
        })
    }
}

/// What CLIP says of prompts.
pub struct ClipOutput {
    /// `[N, T, D]`, after the final norm.
    pub last_hidden_state: Tensor<3>,
    /// `[N, T, D]`, what enters the last layer.
    pub penultimate: Tensor<3>,
    /// `[N, D]` of the end token, or `[N, projection_dim]` where the class projects it.
    pub pooled: Tensor<2>,
}

/// `CLIPTextModel`, with or without a projection.
pub struct ClipText {
    token_embedding: Embedding,
    /// `[1, max_position_embeddings, D]`.
    position_embedding: Tensor<3>,
    layers: Vec<Layer>,
    final_norm: LayerNorm,
    projection: Option<Linear>,
    config: ClipTextConfig,
}

struct Layer {
    norm1: LayerNorm,
    attention: SelfAttention,
    norm2: LayerNorm,
    fc1: Linear,
    fc2: Linear,
}

impl ClipText {
    /// # Errors
    /// `BadModel` where a tensor is missing or has another shape than the config says.
    pub fn load(params: &Params, config: ClipTextConfig) -> Result<Self> {
        let ClipTextConfig { hidden_size: d, intermediate_size, layer_norm_eps: eps, .. } = config;
        let text = params.at("text_model");
        let layers = (0..config.num_hidden_layers).map(|i| {
            let layer = text.at(&format!("encoder.layers.{i}"));
            let names = ["q_proj", "k_proj", "v_proj", "out_proj"];
            let heads = config.num_attention_heads;
            Ok(Layer {
                norm1: LayerNorm::load(&layer.at("layer_norm1"), d, eps)?,
                attention: SelfAttention::load_named(&layer.at("self_attn"), names, d, heads, d / heads, [true; 2])?,
                norm2: LayerNorm::load(&layer.at("layer_norm2"), d, eps)?,
                fc1: Linear::load(&layer.at("mlp.fc1"), d, intermediate_size)?,
                fc2: Linear::load(&layer.at("mlp.fc2"), intermediate_size, d)?,
            })
        });
        let positions: Tensor<2> =
            text.at("embeddings.position_embedding").tensor("weight", [config.max_position_embeddings, d])?;
        let projection =
            config.projection_dim.map(|dim| Linear::load_with(&params.at("text_projection"), d, dim, false));
        Ok(Self {
            token_embedding: Embedding::load(&text.at("embeddings.token_embedding"), config.vocab_size, d)?,
            position_embedding: positions.unsqueeze(),
            layers: layers.collect::<Result<_>>()?,
            final_norm: LayerNorm::load(&text.at("final_layer_norm"), d, eps)?,
            projection: projection.transpose()?,
            config,
        })
    }

    pub fn config(&self) -> &ClipTextConfig {
        &self.config
    }

    /// A batch of prompts of equal length.
    ///
    /// # Errors
    /// `BadModel` where the tokenizer is not this encoder's.
    pub fn forward(&self, prompts: &[TokenIds]) -> Result<ClipOutput> {
        let ClipTextConfig { vocab_size, max_position_embeddings, .. } = self.config;
        let device = self.position_embedding.device();
        let (ids, mask) = batch(prompts, vocab_size, max_position_embeddings, &device)?;
        let [n, t] = ids.dims();
        // A token sees itself and what stands before it.
        let causal: Vec<f32> = (0..t * t).map(|i| if i % t > i / t { HIDDEN } else { 0.0 }).collect();
        let mut bias = Tensor::<4>::from_data(TensorData::new(causal, [1, 1, t, t]), &device);
        if self.config.use_attention_mask {
            bias = bias + mask_to_bias(mask, HIDDEN);
        }
        let bias = bias.expand([n, 1, t, t]);

        let mut x = self.token_embedding.forward(ids) + self.position_embedding.clone().narrow(1, 0, t);
        let mut penultimate = x.clone();
        for layer in &self.layers {
            penultimate = x.clone();
            x = layer.forward(x, bias.clone(), &self.config);
        }
        let last_hidden_state = self.final_norm.forward(x);
        let [_, _, d] = last_hidden_state.dims();
        let ends: Vec<i64> =
            prompts.iter().enumerate().map(|(i, prompt)| (i * t + self.end(&prompt.ids)) as i64).collect();
        let ends = Tensor::<1, Int>::from_data(TensorData::new(ends, [n]), &device);
        let pooled: Tensor<2> = last_hidden_state.clone().reshape([n * t, d]).select(0, ends);
        let pooled = self.projection.iter().fold(pooled, |pooled, projection| projection.forward(pooled));
        Ok(ClipOutput { last_hidden_state, penultimate, pooled })
    }

    /// Where the prompt ends.
    fn end(&self, ids: &[i64]) -> usize {
        let end = match self.config.eos_token_id {
            OLD_EOS => ids.iter().max().copied().unwrap_or(0),
            id => id as i64,
        };
        ids.iter().position(|id| *id == end).unwrap_or(0)
    }
}

impl Layer {
    /// `[N, T, D] -> [N, T, D]`.
    fn forward(&self, x: Tensor<3>, bias: Tensor<4>, config: &ClipTextConfig) -> Tensor<3> {
        let h = self.norm1.forward(x.clone());
        let x = self.attention.forward_onto(h, Some(bias), Residual::new(x));
        let h = self.fc1.forward_then(self.norm2.forward(x.clone()), Some(config.hidden_act), None);
        self.fc2.forward_then(h, None, Some(Residual::new(x)))
    }
}
