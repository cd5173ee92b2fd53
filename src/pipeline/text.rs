//! Prompt to [`TextEmbedding`]: the tokenizers and text encoders of a model, of whichever family.

use burn::tensor::Tensor;

use super::family::Family;
use crate::{
    Error, Result,
    prompt::Tokenizer,
    text::TextEncoder,
    values::{TextEmbedding, TokenIds},
    weights::{ModelFiles, Tensors},
};

/// A model's way from prompt to embedding.
pub struct TextStage {
    family: &'static dyn Family,
    /// In the family's order.
    encoders: Vec<(Tokenizer, TextEncoder)>,
    zeros_for_no_negative: bool,
}

/// An encoded request.
pub struct Encoded {
    /// Of the prompt, by each tokenizer.
    pub tokens: Vec<TokenIds>,
    /// `N` = 1, or 2 with the negative prompt first.
    pub embedding: TextEmbedding,
    pub warnings: Vec<String>,
}

impl TextStage {
    /// # Errors
    /// `BadModel` for an unknown class, a missing tokenizer, or tensors that do not fit.
    pub fn load(files: &ModelFiles, tensors: &Tensors, family: &'static dyn Family, max_tokens: usize) -> Result<Self> {
        let encoders = family.encoders().iter().map(|slot| {
            let encoder = TextEncoder::load(tensors, files, slot.component, slot.classes)?;
            let file = format!("{}/tokenizer.json", slot.tokenizer);
            let json = files.tokenizers.get(slot.tokenizer);
            let json = json.ok_or_else(|| Error::bad_model(format!("the model lacks {file}")))?;
            let pad_token = files.pad_token(slot.tokenizer);
            Ok((Tokenizer::from_json(&json.to_string(), max_tokens, pad_token, &file)?, encoder))
        });
        Ok(Self {
            family,
            encoders: encoders.collect::<Result<_>>()?,
            zeros_for_no_negative: family.zeros_for_no_negative(&files.index()?)?,
        })
    }

    /// Encodes a prompt, together with the negative one where it `guides`.
    ///
    /// # Errors
    /// `BadInput` where a tokenizer cannot read the text; `BadModel` where it is not its encoder's.
    pub fn encode(&self, prompt: &str, negative_prompt: &str, guides: bool) -> Result<Encoded> {
        let mut warnings = Vec::new();
        let zeros = guides && self.zeros_for_no_negative && negative_prompt.is_empty();
        // By tokenizer: the negative prompt, where it is encoded, then the prompt.
        let mut batches = Vec::new();
        for (i, (tokenizer, _)) in self.encoders.iter().enumerate() {
            let mut batch = Vec::new();
            for (name, text, wanted) in
                [("negative prompt", negative_prompt, guides && !zeros), ("prompt", prompt, true)]
            {
                if !wanted {
                    continue;
                }
                let tokens = tokenizer.encode(&self.family.prompt(text))?;
                if let (0, Some(total)) = (i, tokens.truncated_from) {
                    warnings.push(format!(
                        "the {name} has {total} tokens; this model reads the first {}, and the rest was left out",
                        tokenizer.max_tokens()
                    ));
                }
                batch.push(tokens);
            }
            batches.push(batch);
        }
        let encodings = self.encoders.iter().zip(&batches).map(|((_, encoder), batch)| encoder.forward(batch));
        let mut embedding = self.family.join(&encodings.collect::<Result<Vec<_>>>()?);
        if zeros {
            embedding.hidden = Tensor::cat(vec![embedding.hidden.zeros_like(), embedding.hidden], 0);
            embedding.pooled = embedding.pooled.map(|pooled| Tensor::cat(vec![pooled.zeros_like(), pooled], 0));
        }
        let tokens = batches.into_iter().filter_map(|mut batch| batch.pop()).collect();
        Ok(Encoded { tokens, embedding, warnings })
    }
}
