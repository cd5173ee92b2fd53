//! Weights that are good f16 numbers and that PyTorch in f16 cannot compute with: it gives infinity, then NaN, then a
//! black picture. Ours are stored as f16, kept on the device as f32 or f16, computed with in f32, and compared with the
//! reference's f32.

use std::path::{Path, PathBuf};

use burn::tensor::Device;
use inkbloom::{
    autoencoder::kl::{AutoencoderKl, AutoencoderKlConfig},
    text::{
        clip::{ClipText, ClipTextConfig},
        t5::{T5, T5Config},
    },
    weights::{Config, Kept, StoredDtype, Tensors},
};
use serde_json::Value;

use crate::{support::*, text::prompts};

/// A fixture, its config, its weights as a bundle's f16 gives them back, and its reference.
fn open(name: &str, weights: &str, kept: Kept) -> (PathBuf, Value, Tensors, Values) {
    let case = fixture("overflow").join(name);
    let loaded = Tensors::kept_as(&Device::flex(), kept);
    for (name, (shape, values)) in tensors(&case.join(weights)) {
        let bytes = StoredDtype::F16.encode(&values, values.len());
        let stored = StoredDtype::F16.decode(&bytes, 1, values.len());
        assert_eq!(stored, values, "{name} is not stored as f16");
        loaded.insert(&name, &shape, stored);
    }
    let reference = tensors(&case.join("reference.safetensors"));
    (case.clone(), json(&case.join("config.json")), loaded, reference)
}

/// The reference lost `name` to f16, and ours is the reference's f32.
#[track_caller]
fn survives(case: &Path, name: &str, ours: &[f32], reference: &Values) {
    let (_, lost) = &reference[&format!("lost_in_f16.{name}")];
    assert!(lost[0] > 0.0 && lost[1] == ours.len() as f32, "{}: {name} did not overflow", case.display());
    assert!(ours.iter().all(|v| v.is_finite()), "{}: {name} is not finite", case.display());
    assert_close(case, name, ours, reference, TOLERANCE);
}

#[test]
fn t5s_perceptron_survives_f16_weights() {
    for kept in [Kept::F32, Kept::F16] {
        let (case, config, weights, reference) = open("t5", "model.safetensors", kept);
        let config = T5Config::read(&Config::new("config.json", &config).unwrap()).unwrap();
        let embedding = T5::load(&weights.params(""), config).unwrap().forward(&prompts(&reference)).unwrap();
        survives(&case, "last_hidden_state", &numbers(embedding.hidden), &reference);
    }
}

#[test]
fn attention_survives_f16_weights() {
    for kept in [Kept::F32, Kept::F16] {
        let (case, config, weights, reference) = open("clip", "model.safetensors", kept);
        let config = ClipTextConfig::read(&Config::new("config.json", &config).unwrap(), false).unwrap();
        let output = ClipText::load(&weights.params(""), config).unwrap().forward(&prompts(&reference)).unwrap();
        survives(&case, "last_hidden_state", &numbers(output.last_hidden_state), &reference);
    }
}

#[test]
fn the_autoencoder_survives_f16_weights() {
    for kept in [Kept::F32, Kept::F16] {
        let (case, config, weights, reference) = open("kl", "diffusion_pytorch_model.safetensors", kept);
        let config = AutoencoderKlConfig::read(&Config::new("config.json", &config).unwrap()).unwrap();
        let model = AutoencoderKl::load(&weights.params(""), &config).unwrap();
        survives(&case, "latent", &numbers(model.encode(tensor(&reference, "image"), None)), &reference);
        survives(&case, "decoded", &numbers(model.decode(tensor(&reference, "z"))), &reference);
    }
}
