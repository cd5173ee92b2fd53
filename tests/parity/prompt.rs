use inkbloom::prompt::{Tokenizer, clip_tokenizer};
use serde_json::Value;

use crate::support::*;

/// Reads the prompts of `case` with `tokenizer_json`, padded with the fixture's token where it names one.
fn assert_ids(case: &str, tokenizer_json: &Value) {
    let expected = json(&fixture(&format!("prompt/{case}/prompts.json")));
    let max_tokens = expected["max_text_tokens"].as_u64().unwrap() as usize;
    let pad_token = expected["pad_token_id"].as_u64().map(|id| token(tokenizer_json, id));
    let tokenizer =
        Tokenizer::from_json(&tokenizer_json.to_string(), max_tokens, pad_token.as_deref(), "tokenizer.json").unwrap();
    let prompts = expected["prompts"].as_array().unwrap();
    assert!(prompts.len() >= 15);
    for row in prompts {
        let prompt = row["prompt"].as_str().unwrap();
        let tokens = tokenizer.encode(prompt).unwrap();
        let list = |key: &str| row[key].as_array().unwrap().iter().map(|v| v.as_i64().unwrap()).collect::<Vec<_>>();
        assert_eq!(tokens.ids, list("input_ids"), "{case} {prompt:?}");
        assert_eq!(tokens.attention_mask, list("attention_mask"), "{case} {prompt:?}");
        assert_eq!(tokens.truncated_from.is_some(), row["truncated"].as_bool().unwrap(), "{case} {prompt:?}");
    }
}

/// The token of an id, in a vocabulary that is a map (BPE, WordPiece) or a list (Unigram).
fn token(tokenizer_json: &Value, id: u64) -> String {
    match &tokenizer_json["model"]["vocab"] {
        Value::Array(list) => list[id as usize][0].as_str().unwrap().to_owned(),
        vocabulary => vocabulary.as_object().unwrap().iter().find(|(_, value)| **value == id).unwrap().0.clone(),
    }
}

#[test]
fn prompts_become_the_references_ids() {
    for case in ["word_piece", "clip", "clip_pad_zero", "t5"] {
        assert_ids(case, &json(&fixture(&format!("prompt/{case}/tokenizer.json"))));
    }
}

/// Old folders hold the vocabulary and the merges alone.
#[test]
fn clips_vocabulary_and_merges_make_the_same_tokenizer() {
    let vocabulary = json(&fixture("prompt/clip/vocab.json"));
    let merges = std::fs::read_to_string(fixture("prompt/clip/merges.txt")).unwrap();
    assert_ids("clip", &clip_tokenizer(&vocabulary, &merges));
}

#[test]
fn truncation_counts_the_whole_prompt() {
    let tokenizer = |max| {
        Tokenizer::from_json(&json(&fixture("prompt/word_piece/tokenizer.json")).to_string(), max, None, "t").unwrap()
    };
    let prompt = "red apple and a red apple and a red apple and a red apple";
    let whole = tokenizer(200).encode(prompt).unwrap();
    let length = whole.attention_mask.iter().sum::<i64>() as usize;
    assert_eq!(whole.truncated_from, None);
    assert_eq!(tokenizer(6).encode(prompt).unwrap().truncated_from, Some(length));
    assert_eq!(tokenizer(length).encode(prompt).unwrap().truncated_from, None);
    assert_eq!(tokenizer(length - 1).encode(prompt).unwrap().truncated_from, Some(length));
}

#[test]
fn a_broken_tokenizer_is_named() {
    let error = Tokenizer::from_json("{\"version\": 1}", 8, None, "tokenizer/tokenizer.json").err().unwrap();
    assert!(error.message.contains("tokenizer/tokenizer.json"), "{error}");
}
