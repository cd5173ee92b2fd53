//! Configs are read, never assumed: typed access that notes what was read and refuses what was not.

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
}

impl ModelFiles {
    /// `model_index.json`, of whatever class.
    pub fn index(&self) -> Result<Config<'_>> {
        Config::new("model_index.json", &self.model_index)
    }

    /// The config of `component`.
    ///
    /// # Errors
    /// `BadModel` where the model has no such component.
    pub fn config(&self, component: &str) -> Result<Config<'_>> {
        let file = config_file(component);
        match self.configs.get(component) {
            Some(value) => Config::new(&file, value),
            None => Err(Error::bad_model(format!("the model lacks {file}"))),
        }
    }

    /// The padding token that `tokenizer_config.json` names, a text or an object that holds one.
    pub fn pad_token(&self, tokenizer: &str) -> Option<&str> {
        let token = &self.configs.get(tokenizer)?["pad_token"];
        token.as_str().or_else(|| token["content"].as_str())
    }

    /// The number of tokens that `tokenizer_config.json` says fit.
    pub fn max_tokens(&self, tokenizer: &str) -> Option<usize> {
        self.configs.get(tokenizer)?["model_max_length"].as_u64().map(|max| max as usize)
    }

    /// The class that `model_index.json` names for `component`, e.g. `BertModel`.
    ///
    /// # Errors
    /// `BadModel` where it names none.
    pub fn class(&self, component: &str) -> Result<&str> {
        self.model_index[component][1].as_str().ok_or_else(|| {
            Error::bad_model(format!(
                "model_index.json names no class for `{component}`, which this pipeline needs; it should hold [library, class]"
            ))
        })
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

/// Larger than any size in a real config; what is above it is a mistake, and would not fit 32 bits when multiplied.
const LARGEST: u64 = 1 << 24;

fn whole(value: &Value) -> Option<usize> {
    value.as_u64().filter(|value| *value <= LARGEST).map(|value| value as usize)
}

/// One JSON object, named after its file for error messages.
pub struct Config<'a> {
    file: String,
    map: &'a Map<String, Value>,
    read: RefCell<BTreeSet<String>>,
}

impl<'a> Config<'a> {
    /// # Errors
    /// `BadModel` where `value` is no JSON object.
    pub fn new(file: &str, value: &'a Value) -> Result<Self> {
        let map = value.as_object().ok_or_else(|| Error::bad_model(format!("{file} holds no JSON object")))?;
        Ok(Self { file: file.to_owned(), map, read: RefCell::default() })
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

    /// The value of `key`, where it is present and not null.
    fn get(&self, key: &str) -> Option<&'a Value> {
        self.read.borrow_mut().insert(key.to_owned());
        self.map.get(key).filter(|value| !value.is_null())
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
        self.map.contains_key(key)
    }

    pub fn opt_usize(&self, key: &str) -> Result<Option<usize>> {
        self.get_with(key, "a whole number of at most 16777216", whole)
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

    pub fn bool(&self, key: &str, default: bool) -> Result<bool> {
        Ok(self.opt_bool(key)?.unwrap_or(default))
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
        self.opt_list(key, "a list of whole numbers", whole)
    }

    /// A list of whole numbers of at least 1 each.
    pub fn counts(&self, key: &str, default: &[usize]) -> Result<Vec<usize>> {
        let list = self.opt_usizes(key)?.unwrap_or_else(|| default.to_vec());
        if list.is_empty() || list.contains(&0) {
            return Err(self.wrong(key, "it must be a list of whole numbers of at least 1"));
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
        self.opt_list(key, "a list of lists of whole numbers", |v| v.as_array()?.iter().map(whole).collect())
    }

    /// Pairs of whole numbers.
    pub fn opt_pairs(&self, key: &str) -> Result<Option<Vec<[usize; 2]>>> {
        self.opt_list(key, "a list of pairs of whole numbers", |v| {
            let pair = v.as_array().filter(|pair| pair.len() == 2)?;
            Some([whole(&pair[0])?, whole(&pair[1])?])
        })
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
        self.read.borrow_mut().extend(keys.iter().map(|key| (*key).to_owned()));
    }

    /// Refuses keys that nothing read: an option unknown here may change the arithmetic.
    /// Keys that start with `_` are diffusers' own notes.
    pub fn finish(&self) -> Result<()> {
        let read = self.read.borrow();
        match self.map.iter().find(|(key, value)| !key.starts_with('_') && !value.is_null() && !read.contains(*key)) {
            Some((key, _)) => {
                Err(self.wrong(key, "this version does not know this key, so it cannot promise the right picture"))
            }
            None => Ok(()),
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
        let config = Config::new("vae/config.json", &value).unwrap();
        let message = config.usize("num_layers", 1).unwrap_err().message;
        assert!(
            message.contains("vae/config.json") && message.contains("`num_layers`") && message.contains("two"),
            "{message}"
        );
        assert!(config.count("zero", 1).is_err());
        assert_eq!(config.usize("absent", 7).unwrap(), 7);
        assert!(config.usize("huge", 1).is_err());
        let message = config.finish().unwrap_err().message;
        assert!(message.contains("`extra`"), "{message}");
        config.ignore(&["extra"]);
        assert!(config.finish().is_ok());
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
