//! Decoder-only language models as text encoders (transformers `LlamaForCausalLM`, `Qwen3ForCausalLM` and the models within
//! them): what their layers say of a prompt, without a word of an answer.

use burn::tensor::Tensor;

use super::batch::batch;
use crate::{
    Result,
    layers::{Decoder, DecoderConfig, Embedding},
    values::TokenIds,
    weights::Params,
};

/// `LlamaModel` or `Qwen3Model`.
pub struct Llama {
    embed_tokens: Embedding,
    decoder: Decoder,
}

/// What the layers say of prompts.
pub struct LlamaOutput {
    /// `[N, T, D]`, after the final norm.
    pub last_hidden_state: Tensor<3>,
    /// `[N, T, D]` each: what enters the first layer, the second, and so on.
    pub hidden_states: Vec<Tensor<3>>,
    /// `[N, T]`, 1 = keep, 0 = padding.
    pub attention_mask: Tensor<2>,
}

impl Llama {
    /// `params` is the inner model's: of a class with a head, those below `model`.
    ///
    /// # Errors
    /// `BadModel` where a tensor is missing or has another shape than the config says.
    pub fn load(params: &Params, config: DecoderConfig) -> Result<Self> {
        let embed_tokens = Embedding::load(&params.at("embed_tokens"), config.vocab_size, config.hidden_size)?;
        Ok(Self { embed_tokens, decoder: Decoder::load(params, config)? })
    }

    /// A batch of prompts of equal length, padded at their ends: each token's place is its own in the batch.
    ///
    /// # Errors
    /// `BadModel` where the tokenizer is not this encoder's.
    pub fn forward(&self, prompts: &[TokenIds]) -> Result<LlamaOutput> {
        let config = self.decoder.config();
        let (ids, mask) = batch(prompts, config.vocab_size, config.max_position_embeddings, self.decoder.device())?;
        let [n, t] = ids.dims();
        let mut cache = self.decoder.cache(n, t);
        let mut hidden_states = Vec::with_capacity(config.num_hidden_layers);
        let embedded = self.embed_tokens.forward(ids);
        let see = |hidden: &Tensor<3>| hidden_states.push(hidden.clone());
        let rotary = self.decoder.rotary(t);
        let last_hidden_state = self.decoder.forward_with(embedded, &rotary, Some(mask.clone()), &mut cache, see);
        Ok(LlamaOutput { last_hidden_state, hidden_states, attention_mask: mask })
    }
}
