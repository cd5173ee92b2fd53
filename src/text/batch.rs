//! Prompts as an encoder takes them.

use burn::tensor::{Device, Int, Tensor, TensorData};

use crate::{Error, Result, values::TokenIds};

/// Prompts of equal length as `[N, T]` ids and a `[N, T]` mask (1 = keep), for an encoder of so many tokens and positions.
///
/// # Errors
/// `BadModel` where a token id is beyond the vocabulary, or there are more tokens than positions: the tokenizer is
/// then not this encoder's.
pub fn batch(
    prompts: &[TokenIds],
    vocabulary: usize,
    positions: usize,
    device: &Device,
) -> Result<(Tensor<2, Int>, Tensor<2>)> {
    let n = prompts.len();
    let t = prompts.first().map_or(0, |prompt| prompt.ids.len());
    if t > positions {
        return Err(Error::bad_model(format!(
            "the prompt has {t} tokens, but the text encoder has {positions} positions: lower `max_text_tokens` in model_index.json"
        )));
    }
    if let Some(id) = prompts.iter().flat_map(|prompt| &prompt.ids).find(|id| **id >= vocabulary as i64) {
        return Err(Error::bad_model(format!(
            "the tokenizer gave the id {id}, but the text encoder knows {vocabulary} tokens: this is not its tokenizer"
        )));
    }
    let ids: Vec<i64> = prompts.iter().flat_map(|prompt| prompt.ids.clone()).collect();
    let mask: Vec<f32> = prompts.iter().flat_map(|prompt| &prompt.attention_mask).map(|kept| *kept as f32).collect();
    Ok((
        Tensor::from_data(TensorData::new(ids, [n, t]), device),
        Tensor::from_data(TensorData::new(mask, [n, t]), device),
    ))
}
