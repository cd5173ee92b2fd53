//! A tokenizer from the files of its folder, of whatever age (transformers `PreTrainedTokenizerBase._from_pretrained`,
//! `TokenizersBackend` and `CLIPTokenizer`).

use serde_json::{Map, Value, json};

use super::clip::clip_tokenizer;
use crate::{Error, Result};

/// The special tokens that have names, in the order in which they are added.
const NAMED: [&str; 7] = ["bos_token", "eos_token", "unk_token", "sep_token", "pad_token", "cls_token", "mask_token"];
/// What CLIP's and T5's classes call theirs where no file says so.
const CLIP_TOKENS: [(&str, &str); 4] = [
    ("bos_token", "<|startoftext|>"),
    ("eos_token", "<|endoftext|>"),
    ("unk_token", "<|endoftext|>"),
    ("pad_token", "<|endoftext|>"),
];
const T5_TOKENS: [(&str, &str); 3] = [("eos_token", "</s>"), ("unk_token", "<unk>"), ("pad_token", "<pad>")];

/// The files of a tokenizer's folder, each where it is there.
#[derive(Clone, Debug, Default)]
pub struct TokenizerFiles {
    /// `tokenizer.json`.
    pub tokenizer: Option<Value>,
    /// `vocab.json` and `merges.txt`, for CLIP without a `tokenizer.json`.
    pub vocabulary: Option<(Value, String)>,
    /// `tokenizer_config.json`.
    pub config: Option<Value>,
    /// `special_tokens_map.json`, from before transformers 5.
    pub special_tokens_map: Option<Value>,
    /// `added_tokens.json`, from before transformers 4.34.
    pub added_tokens: Option<Value>,
    /// Tokens that are no part of running text where the config names none: a SentencePiece model's own.
    pub extra_tokens: Vec<Value>,
}

/// A tokenizer in one piece.
#[derive(Clone, Debug)]
pub struct Assembled {
    /// As `tokenizer.json`, with every added token in it.
    pub tokenizer: Value,
    /// As `tokenizer_config.json`, after the older files had their say.
    pub config: Value,
}

impl TokenizerFiles {
    /// `folder` is what messages call the place of these files. `None` where they hold no vocabulary.
    ///
    /// # Errors
    /// `BadModel` naming the file that is not what its name says.
    pub fn assemble(self, folder: &str) -> Result<Option<Assembled>> {
        let mut config = object(self.config, folder, "tokenizer_config.json")?;
        let mut tokenizer = match (self.tokenizer, self.vocabulary) {
            (Some(json), _) => json,
            (None, Some((vocabulary, merges))) => clip_tokenizer(vocabulary, merge_lines(&merges)),
            (None, None) => return Ok(None),
        };
        if !tokenizer["model"].is_object() {
            return Err(Error::bad_model(format!("{folder}/tokenizer.json has no `model`; it is no tokenizer")));
        }
        let clip = tokenizer["model"]["end_of_word_suffix"] == "</w>";
        let mut extra = listed(&config, "extra_special_tokens");
        if extra.is_empty() {
            extra = listed(&config, "additional_special_tokens");
        }

        // By place: a decoder in the config says it all; without one the older files are read.
        let mut added: Vec<(u64, Token)> = Vec::new();
        let mut late = Vec::new();
        if let Some(decoder) = config.get("added_tokens_decoder") {
            for (place, token) in decoder.as_object().into_iter().flatten() {
                let read = place.parse().ok().zip(Token::read(token));
                added.push(read.ok_or_else(|| {
                    Error::bad_model(format!(
                        "{folder}/tokenizer_config.json: `added_tokens_decoder` has \"{place}\": {token}; a number and a token's content are expected"
                    ))
                })?);
            }
        } else {
            let map = object(self.special_tokens_map, folder, "special_tokens_map.json")?;
            for (key, value) in &map {
                match key.as_str() {
                    "extra_special_tokens" => extra.extend(listed(&map, key).into_iter().map(Token::special)),
                    // Not special yet for the words below.
                    "additional_special_tokens" => late = listed(&map, key),
                    _ => {
                        // A token of this file is special whatever it says.
                        let token = Token::read(value).map_or(Value::Null, |token| token.special().json());
                        config.insert(key.clone(), token);
                    }
                }
            }
            let named = NAMED.iter().filter_map(|key| Token::read(config.get(*key)?));
            let special: Vec<String> = named.chain(extra.iter().cloned()).map(|token| token.content).collect();
            for (content, place) in object(self.added_tokens, folder, "added_tokens.json")? {
                let place = place.as_u64().ok_or_else(|| {
                    Error::bad_model(format!(
                        "{folder}/added_tokens.json: \"{content}\" stands at {place}; it must be a whole number"
                    ))
                })?;
                let is_special = special.contains(&content);
                added.push((place, Token { special: is_special, normalized: !is_special, ..Token::plain(&content) }));
            }
            for token in tokenizer["added_tokens"].as_array().into_iter().flatten() {
                if let Some((place, token)) = token["id"].as_u64().zip(Token::read(token)) {
                    added.retain(|(other, _)| *other != place);
                    added.push((place, token));
                }
            }
        }
        added.sort_by_key(|(place, _)| *place);

        let defaults: &[(&str, &str)] = match (&tokenizer["model"]["type"], clip) {
            (_, true) => &CLIP_TOKENS,
            (kind, _) if kind == "Unigram" => &T5_TOKENS,
            _ => &[],
        };
        for (key, content) in defaults {
            config.entry(*key).or_insert_with(|| json!(content));
        }
        let mut named: Vec<Token> = NAMED.iter().filter_map(|key| Token::read(config.get(*key)?)).collect();
        let own = config
            .iter()
            .filter(|(key, value)| key.ends_with("_token") && !NAMED.contains(&key.as_str()) && value.is_string());
        named.extend(own.filter_map(|(_, value)| Token::read(value)));
        if extra.is_empty() {
            extra = late;
        }
        if extra.is_empty() {
            extra = self.extra_tokens.iter().filter_map(Token::read).collect();
        }

        if clip {
            let merges = tokenizer["model"]["merges"].take();
            tokenizer = clip_tokenizer(tokenizer["model"]["vocab"].take(), merges);
        }
        let is_named = |token: &Token| named.iter().any(|named| named.content == token.content);
        let mut vocabulary = Vocabulary::new(&tokenizer["model"]["vocab"]);
        for token in added.into_iter().map(|(_, token)| token).chain(named.iter().cloned()).chain(extra) {
            let special = token.special || is_named(&token);
            vocabulary.add(Token { special, ..token });
        }
        let [begin, end, unknown] = ["bos_token", "eos_token", "unk_token"].map(|key| {
            let content = config.get(key).and_then(Token::read).map(|token| token.content);
            content.map(|content| json!([content, vocabulary.id(&content)])).unwrap_or_default()
        });
        let added: Vec<Value> = vocabulary.added.into_iter().map(|(id, token)| token.with_id(id)).collect();
        tokenizer["added_tokens"] = added.into();
        if clip {
            tokenizer["model"]["unk_token"] = unknown[0].clone();
            tokenizer["post_processor"]["cls"] = begin;
            tokenizer["post_processor"]["sep"] = end;
        }
        // Sides are the config's affair; so are lengths, and both padding and truncation are set anew with them.
        let left = |key: &str| config.get(key).is_some_and(|side| side == "left");
        tokenizer["padding"] = match left("padding_side") {
            true => {
                json!({"strategy": "BatchLongest", "direction": "Left", "pad_to_multiple_of": null, "pad_id": 0, "pad_type_id": 0, "pad_token": ""})
            }
            false => Value::Null,
        };
        tokenizer["truncation"] = match left("truncation_side") {
            true => json!({"direction": "Left", "max_length": 1, "strategy": "LongestFirst", "stride": 0}),
            false => Value::Null,
        };
        Ok(Some(Assembled { tokenizer, config: Value::Object(config) }))
    }
}

/// The pairs of `merges.txt`, whose first line says which version of the format this is.
fn merge_lines(text: &str) -> Value {
    text.lines().filter(|line| !line.starts_with("#version") && !line.trim().is_empty()).collect()
}

fn object(value: Option<Value>, folder: &str, file: &str) -> Result<Map<String, Value>> {
    match value {
        None => Ok(Map::new()),
        Some(Value::Object(map)) => Ok(map),
        Some(_) => Err(Error::bad_model(format!("{folder}/{file} holds no JSON object"))),
    }
}

/// The tokens that `key` lists, with or without names.
fn listed(map: &Map<String, Value>, key: &str) -> Vec<Token> {
    match map.get(key) {
        Some(Value::Array(list)) => list.iter().filter_map(Token::read).collect(),
        Some(Value::Object(named)) => named.values().filter_map(Token::read).collect(),
        _ => Vec::new(),
    }
}

/// A token that is found in the text before the model cuts it up (`AddedToken`).
#[derive(Clone, Debug, PartialEq, Eq)]
struct Token {
    content: String,
    /// Only between characters that are no part of a word.
    single_word: bool,
    /// With the white space to its left, to its right.
    lstrip: bool,
    rstrip: bool,
    /// Looked for in the text as the normalizer leaves it.
    normalized: bool,
    special: bool,
}

impl Token {
    fn plain(content: &str) -> Self {
        Self {
            content: content.to_owned(),
            single_word: false,
            lstrip: false,
            rstrip: false,
            normalized: true,
            special: false,
        }
    }

    /// A text is a special token, an object says itself what it is.
    fn read(value: &Value) -> Option<Self> {
        if let Some(content) = value.as_str() {
            return Some(Self { normalized: false, special: true, ..Self::plain(content) });
        }
        let flag = |key: &str| value[key].as_bool();
        let special = flag("special").unwrap_or(false);
        Some(Self {
            content: value["content"].as_str()?.to_owned(),
            single_word: flag("single_word").unwrap_or(false),
            lstrip: flag("lstrip").unwrap_or(false),
            rstrip: flag("rstrip").unwrap_or(false),
            normalized: flag("normalized").unwrap_or(!special),
            special,
        })
    }

    fn special(self) -> Self {
        Self { special: true, ..self }
    }

    fn json(self) -> Value {
        json!({
            "content": self.content, "single_word": self.single_word, "lstrip": self.lstrip, "rstrip": self.rstrip,
            "normalized": self.normalized, "special": self.special,
        })
    }

    fn with_id(self, id: usize) -> Value {
        let mut json = self.json();
        json["id"] = json!(id);
        json
    }
}

/// A model's vocabulary and what is added to it.
struct Vocabulary<'a> {
    /// A map of ids (BPE, WordPiece), or a list of pieces and scores (Unigram).
    model: &'a Value,
    added: Vec<(usize, Token)>,
    /// The id of the next token that the model does not have.
    next: usize,
}

impl<'a> Vocabulary<'a> {
    fn new(model: &'a Value) -> Self {
        let next = model.as_array().map(Vec::len).or_else(|| model.as_object().map(Map::len)).unwrap_or(0);
        Self { model, added: Vec::new(), next }
    }

    fn id(&self, content: &str) -> Option<usize> {
        let added = self.added.iter().find(|(_, token)| token.content == content).map(|(id, _)| *id);
        added.or_else(|| match self.model {
            Value::Array(pieces) => pieces.iter().position(|piece| piece[0] == content),
            vocabulary => vocabulary[content].as_u64().map(|id| id as usize),
        })
    }

    /// The first of a content counts. One that the model does not have goes behind all others, whatever its file says of
    /// its place.
    fn add(&mut self, token: Token) {
        if token.content.is_empty() || self.added.iter().any(|(_, other)| other.content == token.content) {
            return;
        }
        let id = self.id(&token.content).unwrap_or(self.next);
        self.next += usize::from(id == self.next);
        self.added.push((id, token));
    }
}
