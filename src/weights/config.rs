//! Configs are read, never assumed: typed access that notes what was read, and tells of what was not.

use std::{
    cell::RefCell,
    collections::{BTreeMap, BTreeSet},
};

use serde::{Deserialize, Serialize};
use serde_json::{Map, Value};

use crate::{Error, Result};

/// The JSON side of a model: everything but its tensors.
#[derive(Clone, Debug, Default, Serialize, Deserialize)]
pub struct ModelFiles {
    /// `model_index.json`.
    pub model_index: Value,
    /// Component (`transformer`, `vae`, `text_encoder`, `scheduler`, ...) -> its config.
    pub configs: BTreeMap<String, Value>,
    /// Component (`tokenizer`, ...) -> its `tokenizer.json`.
    pub tokenizers: BTreeMap<String, Value>,
    /// What was passed over in these files, as far as they have been read.
    #[serde(skip)]
    pub notes: Notes,
}

/// Sentences for people about what was read and does not act; each is kept once.
#[derive(Clone, Debug, Default)]
pub struct Notes(RefCell<BTreeSet<String>>);

impl Notes {
    pub fn add(&self, note: String) {
        self.0.borrow_mut().insert(note);
    }

    pub fn list(&self) -> Vec<String> {
        self.0.borrow().iter().cloned().collect()
    }
}

impl ModelFiles {
    /// `model_index.json`, of whatever class.
    pub fn index(&self) -> Result<Config<'_>> {
        Ok(Config::new("model_index.json", &self.model_index)?.noting(&self.notes))
    }

    /// The config of `component`.
    ///
    /// # Errors
    /// `BadModel` where the model has no such component.
    pub fn config(&self, component: &str) -> Result<Config<'_>> {
        let file = config_file(component);
        match self.configs.get(component) {
            Some(value) => Ok(Config::new(&file, value)?.noting(&self.notes)),
            None => Err(Error::bad_model(format!("the model lacks {file}"))),
        }
    }

    /// The padding token that `tokenizer_config.json` names, a text or an object that holds one.
    pub fn pad_token(&self, tokenizer: &str) -> Option<&str> {
        let token = &self.configs.get(tokenizer)?["pad_token"];
        token.as_str().or_else(|| token["content"].as_str())
    }

    /// The number of tokens that `tokenizer_config.json` says fit; transformers writes numbers beyond all bounds where it does
    /// not know.
    pub fn max_tokens(&self, tokenizer: &str) -> Option<usize> {
        let max = self.configs.get(tokenizer)?["model_max_length"].as_u64()?;
        (1..=MOST_TOKENS).contains(&max).then_some(max as usize)
    }

    /// The class that `model_index.json` names for `component`, e.g. `BertModel`; of a Flax class, its twin.
    ///
    /// # Errors
    /// `BadModel` where it names none.
    pub fn class(&self, component: &str) -> Result<&str> {
        let class = self.model_index[component][1].as_str().ok_or_else(|| {
            Error::bad_model(format!(
                "model_index.json names no class for `{component}`, which this pipeline needs; it should hold [library, class]"
            ))
        })?;
        Ok(class.strip_prefix("Flax").unwrap_or(class))
    }

    /// An error about the class of `component`: which one it is, and those that this version `knows`.
    pub fn unknown_class(&self, component: &str, knows: &str) -> Error {
        let class = self.model_index[component][1].as_str().unwrap_or_default();
        Error::bad_model(format!("model_index.json: `{component}` is of the class {class}; this version knows {knows}"))
    }
}

/// Where a diffusers folder keeps the config of `component`.
pub fn config_file(component: &str) -> String {
    match component {
        "scheduler" => "scheduler/scheduler_config.json".to_owned(),
        // Of a folder that is one model of transformers.
        "model" => "config.json".to_owned(),
        "generation" => "generation_config.json".to_owned(),
        "vision_language_generation" => "vision_language_encoder/generation_config.json".to_owned(),
        "processor" => "processor/tokenizer_config.json".to_owned(),
        tokenizer if tokenizer.starts_with("tokenizer") => format!("{tokenizer}/tokenizer_config.json"),
        component => format!("{component}/config.json"),
    }
}

/// Parses JSON as Python writes it: `NaN`, `Infinity` and `-Infinity`, which JSON lacks, are read as null.
///
/// # Errors
/// `BadModel`, naming `file`, where it is not JSON.
pub fn parse_json(text: &str, file: &str) -> Result<Value> {
    let parse = |text: &str| {
        serde_json::from_str(text).map_err(|error| Error::bad_model(format!("{file} is not valid JSON: {error}")))
    };
    if !["NaN", "Infinity"].iter().any(|word| text.contains(word)) {
        return parse(text);
    }
    // Even pieces between quotation marks stand outside of strings; a backslash keeps the next mark inside.
    let mut pieces: Vec<String> = Vec::new();
    let (mut piece, mut escaped) = (String::new(), false);
    for c in text.chars() {
        if c == '"' && !escaped {
            pieces.push(std::mem::take(&mut piece));
        } else {
            piece.push(c);
        }
        escaped = c == '\\' && !escaped;
    }
    pieces.push(piece);
    for outside in pieces.iter_mut().step_by(2) {
        *outside = outside.replace("-Infinity", "null").replace("Infinity", "null").replace("NaN", "null");
    }
    parse(&pieces.join("\""))
}

/// Larger than any size in a published config, the largest of which are vocabularies; what is above it is a mistake, and
/// would not fit 32 bits when multiplied.
const LARGEST: u64 = 1 << 20;
/// The same for how often something is repeated, each time with tensors of its own.
const MOST_LAYERS: u64 = 1 << 10;
/// The same for pixels, or positions of a latent, along a side.
const LARGEST_SIDE: u64 = 1 << 14;
/// The same for the blocks of a network, nearly each of which halves the sides.
const MOST_BLOCKS: usize = 16;
/// More tokens than any text encoder reads.
const MOST_TOKENS: u64 = 1 << 13;

/// The largest whole number that makes sense under `key`.
fn most(key: &str) -> u64 {
    match key {
        _ if key.contains("layers") || key.contains("blocks") => MOST_LAYERS,
        "sample_size" | "sizes" => LARGEST_SIDE,
        "max_text_tokens" => MOST_TOKENS,
        _ => LARGEST,
    }
}

fn whole(key: &str, value: &Value) -> Option<usize> {
    value.as_u64().filter(|value| *value <= most(key)).map(|value| value as usize)
}

/// One JSON object, named after its file for error messages.
pub struct Config<'a> {
    file: String,
    map: &'a Map<String, Value>,
    read: RefCell<BTreeSet<String>>,
    notes: Option<&'a Notes>,
    /// The keys that a class has, in groups; others are as absent. `None` where the reader asks for no others.
    known: Option<&'static [&'static [&'static str]]>,
}

impl<'a> Config<'a> {
    /// # Errors
    /// `BadModel` where `value` is no JSON object.
    pub fn new(file: &str, value: &'a Value) -> Result<Self> {
        let map = value.as_object().ok_or_else(|| Error::bad_model(format!("{file} holds no JSON object")))?;
        Ok(Self { file: file.to_owned(), map, read: RefCell::default(), notes: None, known: None })
    }

    /// The same config, whose notes go to `notes`.
    pub fn noting(self, notes: &'a Notes) -> Self {
        Self { notes: Some(notes), ..self }
    }

    /// The same config as a class reads it that has these keys, in groups, and no others.
    pub fn of_class(self, known: &'static [&'static [&'static str]]) -> Self {
        Self { known: Some(known), ..self }
    }

    /// All of it.
    pub fn value(&self) -> Value {
        Value::Object(self.map.clone())
    }

    /// The name of the file, for messages.
    pub fn file(&self) -> &str {
        &self.file
    }

    /// An error about `key` of this file: what it holds and what would be right.
    pub fn wrong(&self, key: &str, right: &str) -> Error {
        let value = self.map.get(key).map_or_else(|| "missing".to_owned(), Value::to_string);
        Error::bad_model(format!("{}: `{key}` is {value}; {right}", self.file))
    }

    fn knows(&self, key: &str) -> bool {
        self.known.is_none_or(|groups| groups.iter().any(|keys| keys.contains(&key)))
    }

    /// The value of `key`, be it null, where the class at hand has such a key.
    fn stated(&self, key: &str) -> Option<&'a Value> {
        if !self.knows(key) {
            return None;
        }
        self.read.borrow_mut().insert(key.to_owned());
        // diffusers' own note of keys whose value was nothing but the default; it reads them as absent.
        let defaults = self.map.get("_use_default_values").and_then(Value::as_array);
        let default = defaults.is_some_and(|keys| keys.iter().any(|default| default == key));
        self.map.get(key).filter(|_| !default)
    }

    /// The value of `key`, where it is present and not null.
    fn get(&self, key: &str) -> Option<&'a Value> {
        self.stated(key).filter(|value| !value.is_null())
    }

    fn get_with<T>(&self, key: &str, kind: &str, read: impl Fn(&'a Value) -> Option<T>) -> Result<Option<T>> {
        match self.get(key) {
            None => Ok(None),
            Some(value) => match read(value) {
                Some(value) => Ok(Some(value)),
                None => Err(self.wrong(key, &format!("it must be {kind}"))),
            },
        }
    }

    /// Whether `key` stands in the file, be it as null: diffusers tells an explicit null from a default.
    pub fn has(&self, key: &str) -> bool {
        self.stated(key).is_some()
    }

    pub fn opt_usize(&self, key: &str) -> Result<Option<usize>> {
        self.get_with(key, &format!("a whole number of at most {}", most(key)), |value| whole(key, value))
    }

    pub fn usize(&self, key: &str, default: usize) -> Result<usize> {
        Ok(self.opt_usize(key)?.unwrap_or(default))
    }

    /// As [`usize`](Self::usize), refusing 0.
    pub fn count(&self, key: &str, default: usize) -> Result<usize> {
        match self.usize(key, default)? {
            0 => Err(self.wrong(key, "it must be at least 1")),
            value => Ok(value),
        }
    }

    pub fn opt_f64(&self, key: &str) -> Result<Option<f64>> {
        self.get_with(key, "a number", Value::as_f64)
    }

    pub fn f64(&self, key: &str, default: f64) -> Result<f64> {
        Ok(self.opt_f64(key)?.unwrap_or(default))
    }

    pub fn opt_bool(&self, key: &str) -> Result<Option<bool>> {
        self.get_with(key, "true or false", Value::as_bool)
    }

    /// An explicit null is false, as Python takes it.
    pub fn bool(&self, key: &str, default: bool) -> Result<bool> {
        Ok(self.opt_bool(key)?.unwrap_or(default && !self.has(key)))
    }

    pub fn opt_str(&self, key: &str) -> Result<Option<&'a str>> {
        self.get_with(key, "a text", Value::as_str)
    }

    pub fn str(&self, key: &str, default: &'a str) -> Result<&'a str> {
        Ok(self.opt_str(key)?.unwrap_or(default))
    }

    /// A list, each element read by `read`; `kind` says in words what an element is.
    fn opt_list<T>(&self, key: &str, kind: &str, read: impl Fn(&'a Value) -> Option<T>) -> Result<Option<Vec<T>>> {
        self.get_with(key, kind, |v| v.as_array()?.iter().map(&read).collect())
    }

    pub fn opt_usizes(&self, key: &str) -> Result<Option<Vec<usize>>> {
        self.opt_list(key, &format!("a list of whole numbers of at most {}", most(key)), |value| whole(key, value))
    }

    /// A number of at least 1 for each block: at most 16 of them.
    pub fn counts(&self, key: &str, default: &[usize]) -> Result<Vec<usize>> {
        let list = self.opt_usizes(key)?.unwrap_or_else(|| default.to_vec());
        if list.is_empty() || list.contains(&0) {
            return Err(self.wrong(key, "it must be a list of whole numbers of at least 1"));
        }
        if list.len() > MOST_BLOCKS {
            return Err(self.wrong(key, &format!("this version takes at most {MOST_BLOCKS} blocks")));
        }
        Ok(list)
    }

    /// A value for each of `blocks` blocks, given as one for all or as a list.
    fn each<T: Clone>(
        &self,
        key: &str,
        blocks: usize,
        list: impl FnOnce() -> Result<Vec<T>>,
        one: impl FnOnce() -> Result<T>,
    ) -> Result<Vec<T>> {
        let values = match self.get(key) {
            Some(value) if value.is_array() => list()?,
            _ => vec![one()?; blocks],
        };
        if values.len() == blocks { Ok(values) } else { Err(self.wrong(key, &format!("there are {blocks} blocks"))) }
    }

    /// A number of at least 1 for each of `blocks` blocks, given as one for all or as a list.
    pub fn count_each(&self, key: &str, default: usize, blocks: usize) -> Result<Vec<usize>> {
        self.each(key, blocks, || self.counts(key, &[]), || self.count(key, default))
    }

    /// As [`count_each`](Self::count_each), of true or false.
    pub fn bool_each(&self, key: &str, default: bool, blocks: usize) -> Result<Vec<bool>> {
        let list = || Ok(self.opt_list(key, "a list of true and false", Value::as_bool)?.unwrap_or_default());
        self.each(key, blocks, list, || self.bool(key, default))
    }

    /// As [`count_each`](Self::count_each), of texts.
    pub fn str_each(&self, key: &str, default: &'a str, blocks: usize) -> Result<Vec<&'a str>> {
        let list = || Ok(self.opt_strs(key)?.unwrap_or_default());
        self.each(key, blocks, list, || self.str(key, default))
    }

    /// For each of `blocks` blocks whether it is of the second of two classes; `default` says it where the file does
    /// not.
    pub fn second_of_each(
        &self,
        key: &str,
        classes: [&str; 2],
        blocks: usize,
        default: impl Fn(usize) -> bool,
    ) -> Result<Vec<bool>> {
        let Some(types) = self.opt_strs(key)? else { return Ok((0..blocks).map(default).collect()) };
        if types.len() != blocks {
            return Err(self.wrong(key, &format!("`block_out_channels` has {blocks} values")));
        }
        let second = |name: &str| classes.iter().position(|class| *class == name).map(|class| class == 1);
        let known = || self.wrong(key, &format!("this version knows {} and {}", classes[0], classes[1]));
        types.into_iter().map(|name| second(name).ok_or_else(known)).collect()
    }

    pub fn opt_f32s(&self, key: &str) -> Result<Option<Vec<f32>>> {
        self.opt_list(key, "a list of numbers", |v| v.as_f64().map(|v| v as f32))
    }

    pub fn opt_strs(&self, key: &str) -> Result<Option<Vec<&'a str>>> {
        self.opt_list(key, "a list of texts", Value::as_str)
    }

    /// Lists of whole numbers.
    pub fn opt_usize_lists(&self, key: &str) -> Result<Option<Vec<Vec<usize>>>> {
        self.opt_list(key, "a list of lists of whole numbers", |v| {
            v.as_array()?.iter().map(|value| whole(key, value)).collect()
        })
    }

    /// Pairs of whole numbers.
    pub fn opt_pairs(&self, key: &str) -> Result<Option<Vec<[usize; 2]>>> {
        self.opt_list(key, "a list of pairs of whole numbers", |v| {
            let pair = v.as_array().filter(|pair| pair.len() == 2)?;
            Some([whole(key, &pair[0])?, whole(key, &pair[1])?])
        })
    }

    /// Height and width, given as one number for both or as a list of the two.
    pub fn opt_sides(&self, key: &str) -> Result<Option<[usize; 2]>> {
        self.get_with(key, "a whole number, or a list of height and width", |value| match value.as_array() {
            Some(sides) => match sides.as_slice() {
                [height, width] => Some([whole(key, height)?, whole(key, width)?]),
                _ => None,
            },
            None => whole(key, value).map(|side| [side; 2]),
        })
    }

    /// The object under `key`, as a config of its own.
    pub fn object(&self, key: &str) -> Result<Option<Config<'a>>> {
        self.get(key).map(|value| Config::new(&format!("{}: `{key}`", self.file), value)).transpose()
    }

    /// Refuses every value of `key` but the given one (and absence): an option this version cannot honour.
    pub fn only(&self, key: &str, supported: impl Into<Value>) -> Result<()> {
        let supported = supported.into();
        match self.get(key) {
            Some(value) if !same(value, &supported) => {
                Err(self.wrong(key, &format!("this version can do only {supported}")))
            }
            _ => Ok(()),
        }
    }

    /// Refuses every value of `key` but null: an option this version does not have.
    pub fn absent(&self, key: &str) -> Result<()> {
        match self.get(key) {
            Some(_) => Err(self.wrong(key, "this version can do only null")),
            None => Ok(()),
        }
    }

    /// Keys that do not change a forward pass (dropout, training flags, ...).
    pub fn ignore(&self, keys: &[&str]) {
        let known = keys.iter().filter(|key| self.knows(key));
        self.read.borrow_mut().extend(known.map(|key| (*key).to_owned()));
    }

    /// Notes the keys that nothing read: a reader asks for every key that its class has in diffusers, so these are
    /// another's, which act on nothing there either. Null and false ask for nothing anywhere, and keys that start with `_`
    /// are diffusers' own notes.
    pub fn finish(&self, class: &str) {
        let read = self.read.borrow();
        let asks = |value: &Value| !value.is_null() && *value != Value::Bool(false);
        let unread =
            self.map.iter().filter(|(key, value)| !key.starts_with('_') && asks(value) && !read.contains(*key));
        let keys: Vec<String> = unread.map(|(key, _)| format!("`{key}`")).collect();
        if let (Some(notes), false) = (self.notes, keys.is_empty()) {
            notes.add(format!("{}: {class} has no {}; passed over", self.file, keys.join(", ")));
        }
    }
}

/// Equality that takes 1 and 1.0 for the same.
fn same(a: &Value, b: &Value) -> bool {
    match (a.as_f64(), b.as_f64()) {
        (Some(a), Some(b)) => a == b,
        _ => a == b,
    }
}

#[cfg(test)]
mod tests {
    use serde_json::json;

    use super::*;

    #[test]
    fn errors_name_file_key_and_value() {
        let value =
            json!({"num_layers": "two", "extra": 1, "zero": 0, "huge": 1u64 << 40, "_class_name": "X", "absent": null});
        let notes = Notes::default();
        let config = Config::new("vae/config.json", &value).unwrap().noting(&notes);
        let message = config.usize("num_layers", 1).unwrap_err().message;
        assert!(
            message.contains("vae/config.json") && message.contains("`num_layers`") && message.contains("two"),
            "{message}"
        );
        assert!(config.count("zero", 1).is_err());
        assert_eq!(config.usize("absent", 7).unwrap(), 7);
        assert!(config.usize("huge", 1).is_err());
    }

    #[test]
    fn what_nothing_read_is_noted_once() {
        let value = json!({"read": 1, "extra": 1, "more": "x", "absent": null, "off": false, "_class_name": "X",
            "ignored": 2});
        let notes = Notes::default();
        for _ in 0..2 {
            let config = Config::new("vae/config.json", &value).unwrap().noting(&notes);
            config.usize("read", 1).unwrap();
            config.ignore(&["ignored"]);
            config.finish("AutoencoderKL");
        }
        assert_eq!(notes.list(), ["vae/config.json: AutoencoderKL has no `extra`, `more`; passed over"]);
    }

    #[test]
    fn a_class_reads_its_own_keys_alone_and_no_value_that_was_only_a_default() {
        let value = json!({"mine": 1, "theirs": 2, "default": 3, "off": null, "_use_default_values": ["default"]});
        let notes = Notes::default();
        let config = Config::new("c", &value).unwrap().noting(&notes).of_class(&[&["mine", "default"], &["off"]]);
        config.ignore(&["theirs"]);
        assert_eq!(["mine", "theirs", "default"].map(|key| config.usize(key, 7).unwrap()), [1, 7, 7]);
        assert!(config.has("mine") && !config.has("theirs") && !config.has("default"));
        assert!(!config.bool("off", true).unwrap() && config.bool("theirs", true).unwrap());
        config.finish("Mine");
        assert_eq!(notes.list(), ["c: Mine has no `theirs`; passed over"]);
    }

    #[test]
    fn counts_that_no_model_has_are_refused_by_name() {
        let value = json!({"num_layers": 1025, "layers_per_block": [2, 1 << 20], "block_out_channels": vec![8; 17],
            "sample_size": 1 << 15, "hidden_size": 1025, "width": 1u64 << 21, "n": [[1, 1 << 30]]});
        let config = Config::new("c", &value).unwrap();
        let message = config.usize("num_layers", 1).unwrap_err().message;
        assert!(message.contains("c: `num_layers` is 1025") && message.contains("1024"), "{message}");
        assert!(config.counts("layers_per_block", &[]).unwrap_err().message.contains("`layers_per_block`"));
        assert!(config.counts("block_out_channels", &[]).unwrap_err().message.contains("16 blocks"));
        assert!(config.count("sample_size", 1).unwrap_err().message.contains("16384"));
        assert!(config.count("width", 1).unwrap_err().message.contains("1048576"));
        assert!(config.opt_usize_lists("n").is_err());
        assert_eq!(config.usize("hidden_size", 1).unwrap(), 1025);
    }

    #[test]
    fn token_counts_that_no_model_has_are_refused_or_unknown() {
        let index = json!({"max_text_tokens": 8193});
        let message = Config::new("i", &index).unwrap().count("max_text_tokens", 77).unwrap_err().message;
        assert!(message.contains("`max_text_tokens` is 8193") && message.contains("8192"), "{message}");
        let files = |max: Value| ModelFiles {
            configs: BTreeMap::from([("tokenizer".to_owned(), json!({"model_max_length": max}))]),
            ..Default::default()
        };
        assert_eq!(files(json!(77)).max_tokens("tokenizer"), Some(77));
        for unbounded in [json!(1u64 << 53), json!(1e30), json!(0), json!(null)] {
            assert_eq!(files(unbounded).max_tokens("tokenizer"), None);
        }
    }

    #[test]
    fn sides_are_one_number_or_height_and_width() {
        let value = json!({"one": 8, "two": [8, 12], "three": [8, 12, 1], "text": "8", "object": {"key": "x"}});
        let config = Config::new("c", &value).unwrap();
        assert_eq!(config.opt_sides("one").unwrap(), Some([8, 8]));
        assert_eq!(config.opt_sides("two").unwrap(), Some([8, 12]));
        assert_eq!(config.opt_sides("none").unwrap(), None);
        assert!(config.opt_sides("three").is_err() && config.opt_sides("text").is_err());
        let object = config.object("object").unwrap().unwrap();
        assert!(object.usize("key", 1).unwrap_err().message.starts_with("c: `object`: `key` is \"x\""));
        assert!(config.object("none").unwrap().is_none() && config.object("one").is_err());
    }

    #[test]
    fn pythons_infinity_is_null_but_not_inside_a_text() {
        let value = parse_json(r#"{"a": -Infinity, "b": [NaN, 1], "c": "an \"Infinity\" of NaN"}"#, "c.json").unwrap();
        assert_eq!(value, json!({"a": null, "b": [null, 1], "c": "an \"Infinity\" of NaN"}));
        assert!(parse_json("{Infinity", "c.json").unwrap_err().message.contains("c.json"));
    }

    #[test]
    fn only_takes_equal_numbers_of_either_kind() {
        let value = json!({"dropout": 0, "kind": "a"});
        let config = Config::new("c", &value).unwrap();
        assert!(config.only("dropout", 0.0).is_ok());
        assert!(config.only("kind", "b").is_err());
    }
}
