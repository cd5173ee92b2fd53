//! Text -> [`TokenIds`], by the model's own `tokenizer.json`, or by what older folders hold in its place.

mod clip;
mod files;
mod glyphs;

use std::collections::{BTreeMap, BTreeSet};

pub use files::{Assembled, TokenizerFiles};
pub use glyphs::glyphs;
use tokenizers::{PaddingDirection, PaddingParams, PaddingStrategy, Tokenizer as Inner, TruncationParams};

use crate::{Error, Result, values::TokenIds};

/// A tokenizer that pads and truncates to a fixed number of tokens.
pub struct Tokenizer {
    inner: Inner,
    max_tokens: usize,
    /// Learnt words of several vectors, `<cat>`, `<cat>_1`, ...: the first, and all of them.
    learnt: BTreeMap<String, String>,
}

impl Tokenizer {
    /// `json` is the text of `file` (a `tokenizer.json`); `max_tokens` counts special tokens too; `pad_token` is what
    /// `tokenizer_config.json` says, and goes before what `json` says.
    ///
    /// # Errors
    /// `BadModel` where the file is not a tokenizer, has no padding token, or `max_tokens` leaves no
    /// room for its special tokens.
    pub fn from_json(json: &str, max_tokens: usize, pad_token: Option<&str>, file: &str) -> Result<Self> {
        let wrong = |error: tokenizers::Error| Error::bad_model(format!("{file} is not a usable tokenizer: {error}"));
        let mut inner: Inner = json.parse().map_err(wrong)?;
        // The file's own lengths may be any.
        let padding = inner.get_padding().cloned();
        let side = inner.get_truncation().map(|truncation| truncation.direction).unwrap_or_default();
        inner.with_padding(None).with_truncation(None).map_err(wrong)?;
        let special = inner.encode("", true).map_err(wrong)?;
        let special = special.get_attention_mask().iter().filter(|kept| **kept == 1).count();
        if max_tokens <= special {
            return Err(Error::bad_model(format!(
                "model_index.json: `max_text_tokens` is {max_tokens}, but {file} adds {special} special tokens; it must be larger"
            )));
        }
        let direction = padding.as_ref().map(|padding| padding.direction).unwrap_or(PaddingDirection::Right);
        let padding = match (pad_token, padding.filter(|padding| !padding.pad_token.is_empty())) {
            (None, Some(padding)) => padding,
            (given, _) => {
                let candidates = given.map_or(vec!["[PAD]", "<pad>", "<|endoftext|>"], |token| vec![token]);
                let token = candidates.iter().find(|token| inner.token_to_id(token).is_some()).ok_or_else(|| {
                    Error::bad_model(format!("{file} has no `padding` entry and no token {}", candidates.join(" or ")))
                })?;
                PaddingParams {
                    pad_id: inner.token_to_id(token).unwrap_or(0),
                    pad_token: (*token).to_owned(),
                    direction,
                    ..Default::default()
                }
            }
        };
        let strategy = PaddingStrategy::Fixed(max_tokens);
        inner.with_padding(Some(PaddingParams { strategy, pad_to_multiple_of: None, ..padding }));
        let truncation = TruncationParams { max_length: max_tokens, direction: side, ..Default::default() };
        inner.with_truncation(Some(truncation)).map_err(wrong)?;
        let learnt = learnt_words(&inner);
        Ok(Self { inner, max_tokens, learnt })
    }

    /// The number of tokens of every [`TokenIds`] this gives.
    pub fn max_tokens(&self) -> usize {
        self.max_tokens
    }

    /// The whole text, without padding, for language models that go on from its end.
    ///
    /// # Errors
    /// `BadInput` where it has more tokens than are read.
    pub fn encode_whole(&self, text: &str) -> Result<TokenIds> {
        let tokens = self.encode(text)?;
        if let Some(total) = tokens.truncated_from {
            return Err(Error::bad_input(format!(
                "the prompt has {total} tokens, and this model reads {}; shorten it",
                self.max_tokens
            )));
        }
        let kept = tokens.ids.iter().zip(&tokens.attention_mask).filter(|(_, kept)| **kept == 1);
        let ids: Vec<i64> = kept.map(|(id, _)| *id).collect();
        Ok(TokenIds { attention_mask: vec![1; ids.len()], ids, truncated_from: None })
    }

    /// Encodes `prompt`, with special tokens, padded or truncated to [`max_tokens`](Self::max_tokens). A learnt word of
    /// several vectors stands for all of them (diffusers `TextualInversionLoaderMixin.maybe_convert_prompt`).
    ///
    /// # Errors
    /// `BadInput` where the tokenizer cannot read the text at all.
    pub fn encode(&self, prompt: &str) -> Result<TokenIds> {
        let mut encoding = self.split(prompt)?;
        if !self.learnt.is_empty() {
            let all = std::iter::once(&encoding).chain(encoding.get_overflowing()).flat_map(|e| e.get_tokens());
            let said = self.learnt.iter().filter(|(word, _)| all.clone().any(|token| token == *word));
            encoding = self.split(&said.fold(prompt.to_owned(), |text, (word, whole)| text.replace(word, whole)))?;
        }
        // What was cut off stands in overflowing encodings, each with its own special tokens and padding.
        let tokens = |e: &tokenizers::Encoding| {
            e.get_attention_mask()
                .iter()
                .zip(e.get_special_tokens_mask())
                .filter(|(kept, special)| **kept == 1 && **special == 0)
                .count()
        };
        let overflow: usize = encoding.get_overflowing().iter().map(tokens).sum();
        let special = encoding.get_attention_mask().iter().filter(|kept| **kept == 1).count() - tokens(&encoding);
        Ok(TokenIds {
            ids: encoding.get_ids().iter().map(|id| i64::from(*id)).collect(),
            attention_mask: encoding.get_attention_mask().iter().map(|kept| i64::from(*kept)).collect(),
            truncated_from: (overflow > 0).then(|| tokens(&encoding) + overflow + special),
        })
    }

    fn split(&self, prompt: &str) -> Result<tokenizers::Encoding> {
        self.inner
            .encode(prompt, true)
            .map_err(|error| Error::bad_input(format!("the prompt cannot be split into tokens: {error}")))
    }
}

/// Each added token `w` beside which there is a `w_1`, with `w w_1 w_2 ...`.
fn learnt_words(inner: &Inner) -> BTreeMap<String, String> {
    let added: BTreeSet<String> = inner.get_added_tokens_decoder().into_values().map(|token| token.content).collect();
    let vectors = |word: &String| {
        let rest = (1..).map(|i| format!("{word}_{i}")).take_while(|next| added.contains(next));
        std::iter::once(word.clone()).chain(rest).collect::<Vec<_>>()
    };
    let words = added.iter().map(|word| (word.clone(), vectors(word)));
    words.filter(|(_, vectors)| vectors.len() > 1).map(|(word, vectors)| (word, vectors.join(" "))).collect()
}
