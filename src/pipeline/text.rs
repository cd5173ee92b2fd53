//! Prompt to [`TextEmbedding`]: the tokenizers and text encoders of a model, of whichever family.

use burn::tensor::{Device, Tensor};

use super::family::{EncoderSlot, Family};
use crate::{
    Error, Result,
    prompt::Tokenizer,
    text::{Encoding, TextEncoder},
    values::{TextEmbedding, TokenIds, read},
    weights::{ModelFiles, Tensors},
};

/// What CLIP's tokenizers hold where no file says so.
const CLIP_TOKENS: usize = 77;

/// A model's way from prompt to embedding.
pub struct TextStage {
    family: &'static dyn Family,
    /// In the family's order.
    readers: Vec<Reader>,
    zeros_for_no_negative: bool,
}

/// A text encoder with its tokenizer, or the zeros that stand in its place.
struct Reader {
    slot: &'static EncoderSlot,
    tokenizer: Option<Tokenizer>,
    /// `None` once it is released.
    encoder: Option<TextEncoder>,
    /// Tokens and width, and where they are to lie.
    zeros: Option<([usize; 2], Device)>,
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
        let readers = family.encoders().iter().map(|slot| Reader::load(files, tensors, slot, max_tokens));
        Ok(Self {
            family,
            readers: readers.collect::<Result<_>>()?,
            zeros_for_no_negative: family.zeros_for_no_negative(&files.index()?)?,
        })
    }

    /// Encodes a prompt, together with the negative one where it `guides`. With a device to `release`, each encoder goes
    /// from there before the next one reads.
    ///
    /// # Errors
    /// `BadInput` where a tokenizer cannot read the text; `BadModel` where it is not its encoder's; `DeviceLost` or
    /// `OutOfMemory` from the device.
    pub async fn encode(
        &mut self,
        prompt: &str,
        negative_prompt: &str,
        guides: bool,
        release: Option<&Device>,
    ) -> Result<Encoded> {
        let zeros = guides && self.zeros_for_no_negative && negative_prompt.is_empty();
        let mut texts = vec![("prompt", self.family.prompt(prompt))];
        if guides && !zeros {
            texts.insert(0, ("negative prompt", self.family.prompt(negative_prompt)));
        }
        // By reader: the negative prompt, where it is encoded, then the prompt.
        let mut batches = Vec::new();
        for reader in &self.readers {
            batches.push(reader.tokenize(&texts)?);
        }
        let warnings = self.cut(&texts, &batches);
        let mut encodings = Vec::new();
        for (reader, batch) in self.readers.iter_mut().zip(&batches) {
            let encoding = reader.read(batch, texts.len())?;
            if let Some(device) = release {
                // What an encoder says must be computed before it goes.
                read(encoding.hidden.clone()).await?;
                reader.encoder = None;
                device.memory_cleanup();
            }
            encodings.push(encoding);
        }
        let mut embedding = self.family.join(&encodings);
        if zeros {
            embedding.hidden = Tensor::cat(vec![embedding.hidden.zeros_like(), embedding.hidden], 0);
            embedding.pooled = embedding.pooled.map(|pooled| Tensor::cat(vec![pooled.zeros_like(), pooled], 0));
        }
        let tokens = batches.into_iter().filter_map(|mut batch| batch.pop()).collect();
        Ok(Encoded { tokens, embedding, warnings })
    }

    /// A warning for each text that is cut even by the tokenizer that holds most.
    fn cut(&self, texts: &[(&str, String)], batches: &[Vec<TokenIds>]) -> Vec<String> {
        let held = |reader: &Reader| reader.tokenizer.as_ref().map_or(0, Tokenizer::max_tokens);
        let most = self.readers.iter().map(held).max().unwrap_or(0);
        let batch = self.readers.iter().position(|reader| held(reader) == most).and_then(|i| batches.get(i));
        let texts = texts.iter().zip(batch.into_iter().flatten());
        let cut = texts.filter_map(|((name, _), tokens)| Some((name, tokens.truncated_from?)));
        cut.map(|(name, total)| {
            format!("the {name} has {total} tokens; this model reads the first {most}, and the rest was left out")
        })
        .collect()
    }
}

impl Reader {
    fn load(files: &ModelFiles, tensors: &Tensors, slot: &'static EncoderSlot, max_tokens: usize) -> Result<Self> {
        if let Some(width) = slot.zeros.filter(|_| files.model_index[slot.component][1].is_null()) {
            let zeros = ([max_tokens, width(files)?], tensors.device().clone());
            return Ok(Self { slot, tokenizer: None, encoder: None, zeros: Some(zeros) });
        }
        let encoder = TextEncoder::load(tensors, files, slot.component, slot.classes)?;
        let file = format!("{}/tokenizer.json", slot.tokenizer);
        let json = files.tokenizers.get(slot.tokenizer);
        let json = json.ok_or_else(|| Error::bad_model(format!("the model lacks {file}")))?;
        let max_tokens =
            if slot.own_length { files.max_tokens(slot.tokenizer).unwrap_or(CLIP_TOKENS) } else { max_tokens };
        let tokenizer = Tokenizer::from_json(&json.to_string(), max_tokens, files.pad_token(slot.tokenizer), &file)?;
        Ok(Self { slot, tokenizer: Some(tokenizer), encoder: Some(encoder), zeros: None })
    }

    fn tokenize(&self, texts: &[(&str, String)]) -> Result<Vec<TokenIds>> {
        let Some(tokenizer) = &self.tokenizer else { return Ok(Vec::new()) };
        texts.iter().map(|(_, text)| tokenizer.encode(text)).collect()
    }

    /// What the encoder says of a `batch` of `n` prompts.
    fn read(&self, batch: &[TokenIds], n: usize) -> Result<Encoding> {
        if let Some(([tokens, width], device)) = &self.zeros {
            let hidden = Tensor::zeros([n, *tokens, *width], device);
            return Ok(Encoding { hidden, attention_mask: None, penultimate: None, pooled: None });
        }
        let encoder = self.encoder.as_ref().ok_or_else(|| released(self.slot.component))?;
        if !self.slot.reads_padding {
            return encoder.forward(batch);
        }
        let unmasked =
            batch.iter().map(|tokens| TokenIds { attention_mask: vec![1; tokens.ids.len()], ..tokens.clone() });
        encoder.forward(&unmasked.collect::<Vec<_>>())
    }
}

/// # Errors
/// Always `BadInput`: `what` is not on the device any more.
pub fn released(what: &str) -> Error {
    Error::bad_input(format!("the {what} was released to save memory; restore it before drawing again"))
}
