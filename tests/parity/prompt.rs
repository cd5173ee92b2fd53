use inkbloom::prompt::Tokenizer;

use crate::support::*;

#[test]
fn prompts_become_the_references_ids() {
    let case = fixture("prompt/word_piece");
    let expected = json(&case.join("prompts.json"));
    let max_tokens = expected["max_text_tokens"].as_u64().unwrap() as usize;
    let tokenizer =
        Tokenizer::from_json(&json(&case.join("tokenizer.json")).to_string(), max_tokens, "tokenizer.json").unwrap();
    let prompts = expected["prompts"].as_array().unwrap();
    assert!(prompts.len() >= 15);
    for row in prompts {
        let prompt = row["prompt"].as_str().unwrap();
        let tokens = tokenizer.encode(prompt).unwrap();
        let list = |key: &str| row[key].as_array().unwrap().iter().map(|v| v.as_i64().unwrap()).collect::<Vec<_>>();
        assert_eq!(tokens.ids, list("input_ids"), "{prompt:?}");
        assert_eq!(tokens.attention_mask, list("attention_mask"), "{prompt:?}");
        assert_eq!(tokens.truncated_from.is_some(), row["truncated"].as_bool().unwrap(), "{prompt:?}");
    }
}

#[test]
fn truncation_counts_the_whole_prompt() {
    let tokenizer =
        |max| Tokenizer::from_json(&json(&fixture("prompt/word_piece/tokenizer.json")).to_string(), max, "t").unwrap();
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
    let error = Tokenizer::from_json("{\"version\": 1}", 8, "tokenizer/tokenizer.json").err().unwrap();
    assert!(error.message.contains("tokenizer/tokenizer.json"), "{error}");
}
