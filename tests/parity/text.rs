use burn::tensor::Device;
use inkbloom::{
    text::{
        bert::{Bert, BertConfig},
        clip::{ClipText, ClipTextConfig},
        t5::{T5, T5Config},
    },
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
        let prompts = prompts(&reference);
        let embedding = bert.forward(&prompts).unwrap();
        assert_close(&case, "last_hidden_state", &numbers(embedding.hidden), &reference, TOLERANCE);
    }
}

/// The fixture's batch; without a mask every token counts.
pub fn prompts(reference: &Values) -> Vec<TokenIds> {
    let (shape, ids) = &reference["input_ids"];
    let whole = |values: &[f32]| values.iter().map(|v| *v as i64).collect::<Vec<_>>();
    let mask = reference.get("attention_mask").map_or(vec![1; ids.len()], |(_, mask)| whole(mask));
    ids.chunks(shape[1])
        .zip(mask.chunks(shape[1]))
        .map(|(ids, mask)| TokenIds { ids: whole(ids), attention_mask: mask.to_vec(), truncated_from: None })
        .collect()
}

#[test]
fn clip_gives_the_references_states_and_pooled_text() {
    for case in cases("text", "clip_", 5) {
        let config = json(&case.join("config.json"));
        let weights = Tensors::new(&Device::flex());
        load_weights(&case, "", &weights);
        let reference = tensors(&case.join("reference.safetensors"));
        let projected = config["architectures"][0] == "CLIPTextModelWithProjection";
        let mut config = ClipTextConfig::read(&Config::new("config.json", &config).unwrap(), projected).unwrap();
        config.use_attention_mask = reference.contains_key("attention_mask");
        let output = ClipText::load(&weights.params(""), config).unwrap().forward(&prompts(&reference)).unwrap();
        assert_close(&case, "last_hidden_state", &numbers(output.last_hidden_state), &reference, TOLERANCE);
        assert_close(&case, "hidden_states.-2", &numbers(output.penultimate), &reference, TOLERANCE);
        let pooled = if projected { "text_embeds" } else { "pooler_output" };
        assert_close(&case, pooled, &numbers(output.pooled), &reference, TOLERANCE);
    }
}

#[test]
fn t5_gives_the_references_last_hidden_state() {
    for case in cases("text", "t5_", 4) {
        let config = json(&case.join("config.json"));
        let weights = Tensors::new(&Device::flex());
        load_weights(&case, "", &weights);
        let config = T5Config::read(&Config::new("config.json", &config).unwrap()).unwrap();
        let reference = tensors(&case.join("reference.safetensors"));
        let embedding = T5::load(&weights.params(""), config).unwrap().forward(&prompts(&reference)).unwrap();
        assert_close(&case, "last_hidden_state", &numbers(embedding.hidden), &reference, TOLERANCE);
    }
}
