//! BERT, the layout of MiniLM and its kin (transformers `BertModel`; Devlin et al., arXiv 1810.04805).

use burn::tensor::Tensor;

use super::batch::batch;
use crate::{
    Result,
    layers::{Activation, Embedding, LayerNorm, Linear, Residual, SelfAttention, mask_to_bias},
    values::{TextEmbedding, TokenIds},
    weights::{Config, Params},
};

/// The numbers of `text_encoder/config.json` that change the arithmetic.
#[derive(Clone, Debug)]
pub struct BertConfig {
    pub vocab_size: usize,
    pub hidden_size: usize,
    pub num_hidden_layers: usize,
    pub num_attention_heads: usize,
    pub intermediate_size: usize,
    pub max_position_embeddings: usize,
    pub type_vocab_size: usize,
    pub layer_norm_eps: f64,
    pub hidden_act: Activation,
}

impl BertConfig {
    /// transformers writes many keys that concern other uses (generation, training); only those that
    /// change this forward pass are read.
    ///
    /// # Errors
    /// `BadModel` for a value that is out of range or asks for what this version cannot do.
    pub fn read(config: &Config) -> Result<Self> {
        config.only("position_embedding_type", "absolute")?;
        config.only("is_decoder", false)?;
        config.only("add_cross_attention", false)?;
        let hidden_size = config.count("hidden_size", 768)?;
        let num_attention_heads = config.count("num_attention_heads", 12)?;
        if !hidden_size.is_multiple_of(num_attention_heads) {
            return Err(config.wrong("num_attention_heads", &format!("it must divide `hidden_size`, {hidden_size}")));
        }
        let hidden_act = config.str("hidden_act", "gelu")?;
        Ok(Self {
            vocab_size: config.count("vocab_size", 30522)?,
            hidden_size,
            num_hidden_layers: config.usize("num_hidden_layers", 12)?,
            num_attention_heads,
            intermediate_size: config.count("intermediate_size", 3072)?,
            max_position_embeddings: config.count("max_position_embeddings", 512)?,
            type_vocab_size: config.count("type_vocab_size", 2)?,
            layer_norm_eps: config.f64("layer_norm_eps", 1e-12)?,
            hidden_act: Activation::from_name(hidden_act)
                .ok_or_else(|| config.wrong("hidden_act", &format!("this version knows {}", Activation::NAMES)))?,
        })
    }
}

/// `BertModel` without its pooler.
pub struct Bert {
    word_embeddings: Embedding,
    /// `[1, max_position_embeddings, D]`.
    position_embeddings: Tensor<3>,
    /// `[1, 1, D]`: every token is of type 0.
    token_type_embedding: Tensor<3>,
    norm: LayerNorm,
    layers: Vec<Layer>,
    config: BertConfig,
}

struct Layer {
    attention: SelfAttention,
    attention_norm: LayerNorm,
    intermediate: Linear,
    output: Linear,
    output_norm: LayerNorm,
}

impl Bert {
    /// # Errors
    /// `BadModel` where a tensor is missing or has another shape than the config says.
    pub fn load(params: &Params, config: BertConfig) -> Result<Self> {
        let BertConfig { hidden_size: d, intermediate_size, layer_norm_eps: eps, .. } = config;
        let embeddings = params.at("embeddings");
        let positions = embeddings.at("position_embeddings").tensor("weight", [config.max_position_embeddings, d])?;
        let types: Tensor<2> = embeddings.at("token_type_embeddings").tensor("weight", [config.type_vocab_size, d])?;
        let layers = (0..config.num_hidden_layers).map(|i| {
            let layer = params.at(&format!("encoder.layer.{i}"));
            let attention = layer.at("attention");
            let names = ["self.query", "self.key", "self.value", "output.dense"];
            let heads = config.num_attention_heads;
            Ok(Layer {
                attention: SelfAttention::load_named(&attention, names, d, heads, d / heads, [true; 2])?,
                attention_norm: LayerNorm::load(&attention.at("output.LayerNorm"), d, eps)?,
                intermediate: Linear::load(&layer.at("intermediate.dense"), d, intermediate_size)?,
                output: Linear::load(&layer.at("output.dense"), intermediate_size, d)?,
                output_norm: LayerNorm::load(&layer.at("output.LayerNorm"), d, eps)?,
            })
        });
        Ok(Self {
            word_embeddings: Embedding::load(&embeddings.at("word_embeddings"), config.vocab_size, d)?,
            position_embeddings: positions.unsqueeze(),
            token_type_embedding: types.narrow(0, 0, 1).unsqueeze(),
            norm: LayerNorm::load(&embeddings.at("LayerNorm"), d, eps)?,
            layers: layers.collect::<Result<_>>()?,
            config,
        })
    }

    /// `last_hidden_state` of a batch of prompts of equal length: `[N, T, D]`.
    ///
    /// # Errors
    /// `BadModel` where a token id is beyond the vocabulary, or there are more tokens than positions:
    /// the tokenizer is then not this encoder's.
    pub fn forward(&self, prompts: &[TokenIds]) -> Result<TextEmbedding> {
        let BertConfig { vocab_size, max_position_embeddings, .. } = self.config;
        let device = self.token_type_embedding.device();
        let (ids, attention_mask) = batch(prompts, vocab_size, max_position_embeddings, &device)?;
        let [_, t] = ids.dims();
        // transformers discards with the most negative float; -1e9 underflows softmax to 0 just the same.
        let bias = mask_to_bias(attention_mask.clone(), -1e9);

        let positions = self.position_embeddings.clone().narrow(1, 0, t);
        let x = self.word_embeddings.forward(ids) + self.token_type_embedding.clone() + positions;
        let mut x = self.norm.forward(x);
        for layer in &self.layers {
            x = layer.forward(x, bias.clone(), &self.config);
        }
        Ok(TextEmbedding { hidden: x, attention_mask: Some(attention_mask), pooled: None })
    }
}

impl Layer {
    /// `[N, T, D] -> [N, T, D]`, normalising after each residual.
    fn forward(&self, x: Tensor<3>, bias: Tensor<4>, config: &BertConfig) -> Tensor<3> {
        let x = self.attention.forward_onto(x.clone(), Some(bias), Residual::new(x));
        let x = self.attention_norm.forward(x);
        let h = self.intermediate.forward_then(x.clone(), Some(config.hidden_act), None);
        self.output_norm.forward(self.output.forward_then(h, None, Some(Residual::new(x))))
    }
}
