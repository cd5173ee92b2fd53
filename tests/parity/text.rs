use std::path::Path;

use burn::tensor::{Device, Tensor};
use inkbloom::{
    layers::{Decoder, DecoderConfig, DecoderKind},
    text::{
        bert::{Bert, BertConfig},
        clip::{ClipText, ClipTextConfig},
        llama::Llama,
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

fn decoder_config(case: &Path) -> DecoderConfig {
    let config = json(&case.join("config.json"));
    let kind = if config["model_type"] == "qwen3" { DecoderKind::Qwen3 } else { DecoderKind::Llama };
    DecoderConfig::read(&Config::new("config.json", &config).unwrap(), kind).unwrap()
}

fn decoder_cases() -> Vec<std::path::PathBuf> {
    [cases("text", "llama_", 4), cases("text", "qwen3_", 1)].concat()
}

#[test]
fn decoders_give_the_references_states() {
    for case in decoder_cases() {
        let weights = Tensors::new(&Device::flex());
        load_weights(&case, "", &weights);
        let reference = tensors(&case.join("reference.safetensors"));
        let llama = Llama::load(&weights.params("").at("model"), decoder_config(&case)).unwrap();
        let mut output = llama.forward(&prompts(&reference)).unwrap();
        // What stands at padding means nothing, but is the same.
        assert_close(&case, "last_hidden_state", &numbers(output.last_hidden_state), &reference, TOLERANCE);
        let penultimate = output.hidden_states.pop().unwrap();
        assert_close(&case, "hidden_states.-2", &numbers(penultimate), &reference, TOLERANCE);
    }
}

/// Rows that share a prefix, branch from it, and go on token by token, against all of it at once.
#[test]
fn a_decoder_with_its_cache_is_one_without() {
    for case in decoder_cases() {
        let weights = Tensors::new(&Device::flex());
        load_weights(&case, "", &weights);
        let config = decoder_config(&case);
        let (d, n, prefix, steps) = (config.hidden_size, 3, 5, 4);
        let decoder = Decoder::load(&weights.params("").at("model"), config).unwrap();
        let values = |rows: usize, t: usize, step: f32| {
            let values: Vec<f32> = (0..rows * t * d).map(|i| (i as f32 * step).sin()).collect();
            Tensor::<3>::from_data(burn::tensor::TensorData::new(values, [rows, t, d]), &Device::flex())
        };
        let mask = |rows: usize| {
            let row = [1.0, 0.0, 1.0, 1.0, 0.0];
            Tensor::<2>::from_data(burn::tensor::TensorData::new(row.repeat(rows), [rows, prefix]), &Device::flex())
        };
        let (start, rest) = (values(1, prefix, 0.37), values(n, steps, 0.71));
        let rotary = decoder.rotary(prefix + steps);

        let mut whole = decoder.cache(n, prefix + steps);
        let all = Tensor::cat(vec![start.clone().repeat_dim(0, n), rest.clone()], 1);
        let kept = Tensor::cat(vec![mask(n), Tensor::ones([n, steps], &Device::flex())], 1);
        let expected = decoder.forward(all, &rotary, Some(kept), &mut whole).narrow(1, prefix, steps);

        let mut cache = decoder.cache(1, prefix + steps);
        decoder.forward(start, &rotary.at(0, prefix), Some(mask(1)), &mut cache);
        cache.select(&[0, 0, 0]);
        assert_eq!((cache.rows(), cache.filled()), (n, prefix));
        let step = |cache: &mut _, i: usize, rows: &Tensor<3>| {
            decoder.forward(rows.clone().narrow(1, i, 1), &rotary.at(prefix + i, 1), None, cache)
        };
        // A token that is taken back, and rows that change places.
        step(&mut cache, 0, &(rest.clone() * 2.0));
        cache.truncate(prefix);
        let mut ours: Vec<_> = (0..2).map(|i| step(&mut cache, i, &rest)).collect();
        cache.select(&[2, 1, 0]);
        let turned = rest.flip([0]);
        ours.extend((2..steps).map(|i| step(&mut cache, i, &turned).flip([0])));
        let error = relative_error(&numbers(Tensor::cat(ours, 1)), &numbers(expected));
        assert!(error < 1e-5, "{}: {error:.1e}", case.display());
    }
}

#[test]
fn decoders_refuse_what_they_cannot_do() {
    let mut config = json(&fixture("text/llama_plain/config.json"));
    let read = |config: &serde_json::Value| {
        DecoderConfig::read(&Config::new("config.json", config).unwrap(), DecoderKind::Llama)
    };
    config["rope_parameters"] = serde_json::json!({"rope_type": "yarn", "rope_theta": 1e4});
    assert!(read(&config).unwrap_err().message.contains("`rope_type` is \"yarn\""));
    config["rope_parameters"] = serde_json::Value::Null;
    config["num_key_value_heads"] = 3.into();
    assert!(read(&config).unwrap_err().message.contains("`num_key_value_heads`"));
}
