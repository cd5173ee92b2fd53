use burn::tensor::Device;
use inkbloom::{
    text::bert::{Bert, BertConfig},
    values::TokenIds,
    weights::{Config, Tensors},
};

use crate::support::*;

#[test]
fn bert_gives_the_references_last_hidden_state() {
    for case in cases("text", "bert_", 3) {
        let config = json(&case.join("config.json"));
        let weights = Tensors::new(&Device::flex());
        load_weights(&case, "", &weights);
        let bert =
            Bert::load(&weights.params(""), BertConfig::read(&Config::new("config.json", &config).unwrap()).unwrap())
                .unwrap();
        let reference = tensors(&case.join("reference.safetensors"));
        let t = reference["input_ids"].0[1];
        let rows = |name: &str| {
            reference[name].1.chunks(t).map(|row| row.iter().map(|v| *v as i64).collect()).collect::<Vec<Vec<i64>>>()
        };
        let prompts: Vec<_> = rows("input_ids")
            .into_iter()
            .zip(rows("attention_mask"))
            .map(|(ids, attention_mask)| TokenIds { ids, attention_mask, truncated_from: None })
            .collect();
        let embedding = bert.forward(&prompts).unwrap();
        assert_close(&case, "last_hidden_state", &numbers(embedding.hidden), &reference, TOLERANCE);
    }
}
