use inkbloom::prompt::{Tokenizer, TokenizerFiles};
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
    let merges = std::fs::read_to_string(fixture("prompt/clip/merges.txt")).unwrap();
    let vocabulary = Some((json(&fixture("prompt/clip/vocab.json")), merges));
    let whole = TokenizerFiles { vocabulary, ..Default::default() }.assemble("tokenizer").unwrap().unwrap();
    assert_ids("clip", &whole.tokenizer);
    assert_eq!(whole.config["pad_token"], "<|endoftext|>");
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

/// Learnt words, from whichever files name them.
#[test]
fn learnt_words_are_the_references_ids() {
    let expected = json(&fixture("prompt/learnt/cases.json"));
    let max_tokens = expected["max_text_tokens"].as_u64().unwrap() as usize;
    let merges = std::fs::read_to_string(fixture("prompt/clip/merges.txt")).unwrap();
    let vocabulary = json(&fixture("prompt/clip/vocab.json"));
    let cases = expected["cases"].as_array().unwrap();
    assert!(cases.len() >= 15);
    for case in cases {
        let given = |file: &str| case["files"].get(file).cloned();
        let whole = given("tokenizer.json").map(|words| {
            let mut whole = json(&fixture("prompt/clip/tokenizer.json"));
            let added = whole["added_tokens"].as_array_mut().unwrap();
            for (i, word) in words.as_array().unwrap().iter().enumerate() {
                added.push(word.clone());
                added.last_mut().unwrap()["id"] = (vocabulary.as_object().unwrap().len() + i).into();
            }
            whole
        });
        let files = TokenizerFiles {
            vocabulary: whole.is_none().then(|| (vocabulary.clone(), merges.clone())),
            tokenizer: whole,
            config: given("tokenizer_config.json"),
            special_tokens_map: given("special_tokens_map.json"),
            added_tokens: given("added_tokens.json"),
            extra_tokens: Vec::new(),
        };
        let whole = files.assemble("tokenizer").unwrap().unwrap();
        let pad = &whole.config["pad_token"];
        let pad = pad.as_str().or_else(|| pad["content"].as_str());
        let tokenizer = Tokenizer::from_json(&whole.tokenizer.to_string(), max_tokens, pad, "tokenizer.json").unwrap();
        for row in case["prompts"].as_array().unwrap() {
            let prompt = row["prompt"].as_str().unwrap();
            let ids: Vec<i64> = row["input_ids"].as_array().unwrap().iter().map(|id| id.as_i64().unwrap()).collect();
            assert_eq!(tokenizer.encode(prompt).unwrap().ids, ids, "{}: {prompt:?}", case["name"]);
        }
    }
}

#[test]
fn files_of_another_kind_are_named() {
    let assemble = |files: TokenizerFiles| {
        let vocabulary = Some((serde_json::json!({"a": 0}), "a b".to_owned()));
        TokenizerFiles { vocabulary, ..files }.assemble("m/tokenizer").err().unwrap().message
    };
    for (files, words) in [
        (TokenizerFiles { config: Some(Value::from(1)), ..Default::default() }, "m/tokenizer/tokenizer_config.json"),
        (
            TokenizerFiles { added_tokens: Some(Value::from("x")), ..Default::default() },
            "m/tokenizer/added_tokens.json",
        ),
        (
            TokenizerFiles { added_tokens: Some(serde_json::json!({"<x>": -1})), ..Default::default() },
            "\"<x>\" stands at -1",
        ),
        (
            TokenizerFiles {
                config: Some(serde_json::json!({"added_tokens_decoder": {"five": "<x>"}})),
                ..Default::default()
            },
            "added_tokens_decoder",
        ),
        (TokenizerFiles { tokenizer: Some(Value::from(7)), ..Default::default() }, "no `model`"),
    ] {
        let message = assemble(files);
        assert!(message.contains(words), "{message}");
    }
    assert!(TokenizerFiles::default().assemble("tokenizer").unwrap().is_none());
}

/// Lengths that the file itself names are not what counts, and may be any.
#[test]
fn absurd_lengths_allocate_nothing() {
    let mut absurd = json(&fixture("prompt/clip/tokenizer.json"));
    absurd["padding"] = serde_json::json!({
        "strategy": {"Fixed": 1u64 << 53}, "direction": "Right", "pad_to_multiple_of": 1u64 << 53,
        "pad_id": 1278, "pad_type_id": 0, "pad_token": "<|endoftext|>",
    });
    absurd["truncation"] =
        serde_json::json!({"direction": "Right", "max_length": 1, "strategy": "LongestFirst", "stride": 1u64 << 53});
    assert_ids("clip", &absurd);
}
