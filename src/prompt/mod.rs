//! Text -> [`TokenIds`], by the model's own `tokenizer.json`.

mod clip;

pub use clip::clip_tokenizer;
use tokenizers::{PaddingParams, PaddingStrategy, Tokenizer as Inner, TruncationParams};

use crate::{Error, Result, values::TokenIds};

/// A tokenizer that pads and truncates to a fixed number of tokens.
pub struct Tokenizer {
    inner: Inner,
    max_tokens: usize,
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
        let special = inner.encode("", true).map_err(wrong)?;
        let special = special.get_attention_mask().iter().filter(|kept| **kept == 1).count();
        if max_tokens <= special {
            return Err(Error::bad_model(format!(
                "model_index.json: `max_text_tokens` is {max_tokens}, but {file} adds {special} special tokens; it must be larger"
            )));
        }
        let padding = match (pad_token, inner.get_padding()) {
            (None, Some(padding)) => padding.clone(),
            (given, _) => {
                let candidates = given.map_or(vec!["[PAD]", "<pad>", "<|endoftext|>"], |token| vec![token]);
                let token = candidates.iter().find(|token| inner.token_to_id(token).is_some()).ok_or_else(|| {
                    Error::bad_model(format!("{file} has no `padding` entry and no token {}", candidates.join(" or ")))
                })?;
                PaddingParams {
                    pad_id: inner.token_to_id(token).unwrap_or(0),
                    pad_token: (*token).to_owned(),
                    ..Default::default()
                }
            }
        };
        inner.with_padding(Some(PaddingParams { strategy: PaddingStrategy::Fixed(max_tokens), ..padding }));
        inner
            .with_truncation(Some(TruncationParams { max_length: max_tokens, ..Default::default() }))
            .map_err(wrong)?;
        Ok(Self { inner, max_tokens })
    }

    /// The number of tokens of every [`TokenIds`] this gives.
    pub fn max_tokens(&self) -> usize {
        self.max_tokens
    }

    /// Encodes `prompt`, with special tokens, padded or truncated to [`max_tokens`](Self::max_tokens).
    ///
    /// # Errors
    /// `BadInput` where the tokenizer cannot read the text at all.
    pub fn encode(&self, prompt: &str) -> Result<TokenIds> {
        let encoding = self
            .inner
            .encode(prompt, true)
            .map_err(|error| Error::bad_input(format!("the prompt cannot be split into tokens: {error}")))?;
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
}
