//! T5's tokenizer from its SentencePiece model, `spiece.model` (transformers `T5Tokenizer` and `T5Converter`).

use std::{fs, path::Path};

use base64::{Engine, prelude::BASE64_STANDARD};
use inkbloom::{Error, Result};
use prost::Message;
use serde_json::{Value, json};

use crate::{files::unreadable, sniff};

/// What T5 ends a text with.
const END: &str = "</s>";
/// The id that T5's class has for what no piece spells.
const UNKNOWN: usize = 2;
/// Places to fill in, `<extra_id_0>` and so on, where the config says no number; and the most that make sense.
const EXTRA_IDS: u64 = 100;
const MOST_EXTRA_IDS: u64 = 10_000;

/// Values of `ModelProto.SentencePiece.Type` and `TrainerSpec.ModelType`.
const CONTROL: i32 = 3;
const USER_DEFINED: i32 = 4;
const UNIGRAM: i32 = 1;

/// The parts of `sentencepiece_model.proto` that are read.
#[derive(Clone, PartialEq, Message)]
struct Model {
    #[prost(message, repeated, tag = "1")]
    pieces: Vec<Piece>,
    #[prost(message, optional, tag = "2")]
    trainer_spec: Option<TrainerSpec>,
    #[prost(message, optional, tag = "3")]
    normalizer_spec: Option<NormalizerSpec>,
}

#[derive(Clone, PartialEq, Message)]
struct Piece {
    #[prost(string, tag = "1")]
    piece: String,
    #[prost(float, tag = "2")]
    score: f32,
    /// 1 is ordinary.
    #[prost(int32, tag = "3", default = "1")]
    r#type: i32,
}

#[derive(Clone, PartialEq, Message)]
struct TrainerSpec {
    #[prost(int32, tag = "3", default = "1")]
    model_type: i32,
}

#[derive(Clone, PartialEq, Message)]
struct NormalizerSpec {
    #[prost(bytes = "vec", tag = "2")]
    precompiled_charsmap: Vec<u8>,
}

/// The `tokenizer.json` of the model at `path`, and the tokens that it counts as no part of running text; `config` is
/// `tokenizer_config.json`.
///
/// # Errors
/// `BadModel` where it is no T5's.
pub fn read(path: &Path, config: &Value) -> Result<(Value, Vec<Value>)> {
    let bytes = fs::read(path).map_err(|error| unreadable(path, &error))?;
    sniff::explained(path, sniff::Expected::Bytes, || convert(&bytes, config, &path.display().to_string()))
}

fn convert(bytes: &[u8], config: &Value, file: &str) -> Result<(Value, Vec<Value>)> {
    let wrong = |why: &str| {
        Error::bad_model(format!(
            "{file} {why}; fetch it again, or write a tokenizer.json beside it: in Python, `AutoTokenizer.from_pretrained(\"FOLDER\").save_pretrained(\"FOLDER\")` of transformers"
        ))
    };
    let model = Model::decode(bytes).map_err(|error| wrong(&format!("is not a SentencePiece model ({error})")))?;
    if model.trainer_spec.is_some_and(|spec| spec.model_type != UNIGRAM) {
        return Err(wrong("is not a unigram model, so not T5's"));
    }
    let end = model.pieces.iter().position(|piece| piece.piece == END);
    let (Some(end), true) = (end, model.pieces.len() > UNKNOWN) else {
        return Err(wrong(&format!("has {} pieces and no {END}, so it is not T5's or not whole", model.pieces.len())));
    };
    let extra_ids = match &config["extra_ids"] {
        Value::Null => EXTRA_IDS,
        value => value.as_u64().filter(|count| *count <= MOST_EXTRA_IDS).ok_or_else(|| {
            Error::bad_model(format!(
                "{file}: the `extra_ids` of tokenizer_config.json are {value}; they must be at most {MOST_EXTRA_IDS}"
            ))
        })?,
    };

    let of_type = |kind: i32, special: bool| {
        let pieces = model.pieces.iter().filter(|piece| piece.r#type == kind).map(|piece| &piece.piece);
        pieces.map(|piece| json!({"content": piece, "normalized": false, "special": special})).collect::<Vec<_>>()
    };
    let extra_id = |i: u64| format!("<extra_id_{i}>");
    let extra = [of_type(CONTROL, true), of_type(USER_DEFINED, false)].concat();
    let extra = extra.into_iter().chain((0..extra_ids).map(|i| json!(extra_id(i)))).collect();

    let charsmap = model.normalizer_spec.map(|spec| spec.precompiled_charsmap).unwrap_or_default();
    let normalizer = match charsmap.is_empty() {
        true => Value::Null,
        false => json!({"type": "Precompiled", "precompiled_charsmap": BASE64_STANDARD.encode(charsmap)}),
    };
    // The extra ids stand behind all pieces, the last of them first.
    let pieces = model.pieces.iter().map(|piece| json!([piece.piece, f64::from(piece.score)]));
    let vocabulary: Vec<Value> = pieces.chain((0..extra_ids).rev().map(|i| json!([extra_id(i), 0.0]))).collect();
    let metaspace = json!({"type": "Metaspace", "replacement": "▁", "prepend_scheme": "always", "split": true});
    let end_token = json!({"SpecialToken": {"id": END, "type_id": 0}});
    let text = |id: &str| json!({"Sequence": {"id": id, "type_id": 0}});
    let tokenizer = json!({
        "version": "1.0",
        "truncation": null,
        "padding": null,
        "added_tokens": [],
        "normalizer": normalizer,
        "pre_tokenizer": {"type": "Sequence", "pretokenizers": [{"type": "WhitespaceSplit"}, metaspace]},
        "post_processor": {
            "type": "TemplateProcessing",
            "single": [text("A"), end_token],
            "pair": [text("A"), end_token, text("B"), end_token],
            "special_tokens": {END: {"id": END, "ids": [end], "tokens": [END]}},
        },
        "decoder": metaspace,
        "model": {"type": "Unigram", "unk_id": UNKNOWN, "vocab": vocabulary, "byte_fallback": false},
    });
    Ok((tokenizer, extra))
}

#[cfg(test)]
mod tests {
    use inkbloom::prompt::{Tokenizer, TokenizerFiles};

    use super::*;

    fn fixture(name: &str) -> std::path::PathBuf {
        Path::new(env!("CARGO_MANIFEST_DIR")).join("../../tests/fixtures/prompt/spiece").join(name)
    }

    #[test]
    fn a_sentencepiece_model_gives_the_references_ids() {
        let expected = crate::files::read_json(&fixture("cases.json")).unwrap();
        let max_tokens = expected["max_text_tokens"].as_u64().unwrap() as usize;
        for case in expected["cases"].as_array().unwrap() {
            let (tokenizer, extra_tokens) = read(&fixture("spiece.model"), &case["config"]).unwrap();
            let config = Some(case["config"].clone());
            let files = TokenizerFiles { tokenizer: Some(tokenizer), config, extra_tokens, ..Default::default() };
            let whole = files.assemble("tokenizer").unwrap().unwrap().tokenizer.to_string();
            let tokenizer = Tokenizer::from_json(&whole, max_tokens, Some("<pad>"), "tokenizer.json").unwrap();
            for row in case["prompts"].as_array().unwrap() {
                let prompt = row["prompt"].as_str().unwrap();
                let list = |key: &str| row[key].as_array().unwrap().iter().map(|v| v.as_i64().unwrap()).collect();
                let (ids, mask): (Vec<i64>, Vec<i64>) = (list("input_ids"), list("attention_mask"));
                let tokens = tokenizer.encode(prompt).unwrap();
                assert_eq!(tokens.ids, ids, "{prompt:?}");
                assert_eq!(tokens.attention_mask, mask, "{prompt:?}");
            }
        }
    }

    #[test]
    fn what_is_no_t5_says_how_to_help_it() {
        let whole = fs::read(fixture("spiece.model")).unwrap();
        let message = |bytes: &[u8], config: Value| convert(bytes, &config, "spiece.model").unwrap_err().message;
        for (bytes, words) in [
            (&b"\x0a\x0e\x0a\x05<pad>\x15\x00\x00\x00\x00\x18\x03"[..], "no </s>"),
            (&whole[..whole.len() / 2], "not a SentencePiece model"),
            (b"\xff\xff\xff", "not a SentencePiece model"),
            (b"", "no </s>"),
        ] {
            let message = message(bytes, Value::Null);
            assert!(message.contains(words) && message.contains("tokenizer.json"), "{message}");
        }
        assert!(message(&whole, json!({"extra_ids": 1u64 << 53})).contains("`extra_ids`"));
    }
}
