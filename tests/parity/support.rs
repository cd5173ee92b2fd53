//! Reading fixtures and comparing numbers.

use std::{
    collections::BTreeMap,
    fs,
    path::{Path, PathBuf},
};

use burn::tensor::{Device, Tensor, TensorData};
use inkbloom::weights::{
    ModelFiles, Tensors,
    config::{config_file, parse_json},
    safetensors,
};
use serde_json::Value;

/// f32 on the CPU, against f32 in PyTorch: the sums run in another order, and nothing else differs.
pub const TOLERANCE: f64 = 2e-4;

pub fn fixture(path: &str) -> PathBuf {
    Path::new(env!("CARGO_MANIFEST_DIR")).join("tests/fixtures").join(path)
}

/// The names of the cases in `room` that start with `prefix`; at least `least` of them, or the fixtures are not whole.
pub fn cases(room: &str, prefix: &str, least: usize) -> Vec<PathBuf> {
    let folder = fixture(room);
    let entries = fs::read_dir(&folder).unwrap_or_else(|error| panic!("{}: {error}", folder.display()));
    let mut cases: Vec<_> = entries
        .map(|entry| entry.unwrap().path())
        .filter(|path| path.is_dir() && path.file_name().unwrap().to_str().unwrap().starts_with(prefix))
        .collect();
    cases.sort();
    assert!(
        cases.len() >= least,
        "{}: {} cases named {prefix}*, expected at least {least}",
        folder.display(),
        cases.len()
    );
    cases
}

pub fn json(path: &Path) -> Value {
    let text = fs::read_to_string(path).unwrap_or_else(|error| panic!("{}: {error}", path.display()));
    parse_json(&text, &path.display().to_string()).unwrap()
}

/// Every tensor of a safetensors file: shape and values (integers as f32, which holds every id here exactly).
pub type Values = BTreeMap<String, (Vec<usize>, Vec<f32>)>;

pub fn tensors(path: &Path) -> Values {
    let bytes = fs::read(path).unwrap_or_else(|error| panic!("{}: {error}", path.display()));
    let file = path.display().to_string();
    let length = safetensors::header_len(bytes[..8].try_into().unwrap(), bytes.len() as u64, &file).unwrap();
    let entries = safetensors::read_header(&bytes[..8 + length], bytes.len() as u64, &file).unwrap();
    let read = |entry: safetensors::Entry| {
        let data = &bytes[entry.start..entry.end];
        let values = match format!("{:?}", entry.dtype).as_str() {
            "I64" => data.chunks_exact(8).map(|b| i64::from_le_bytes(b.try_into().unwrap()) as f32).collect(),
            _ => entry.to_f32(data, &file).unwrap(),
        };
        (entry.name, (entry.shape, values))
    };
    entries.into_iter().map(read).collect()
}

/// The weights of one component folder, below `prefix`, on the CPU.
pub fn load_weights(folder: &Path, prefix: &str, into: &Tensors) {
    let mut files = Vec::new();
    for name in ["diffusion_pytorch_model", "model"] {
        let index = folder.join(format!("{name}.safetensors.index.json"));
        if index.exists() {
            files.extend(safetensors::shard_files(&json(&index), "index").unwrap());
        }
        files.extend([format!("{name}.safetensors"), format!("{name}.fp16.safetensors")]);
    }
    let files: Vec<_> = files.into_iter().map(|name| folder.join(name)).filter(|path| path.exists()).collect();
    assert!(!files.is_empty(), "{} holds no weights", folder.display());
    for (name, (shape, values)) in files.iter().flat_map(|file| tensors(file)) {
        into.insert(&format!("{prefix}{name}"), &shape, values);
    }
}

/// The sticker pipelines that draw from a prompt alone.
pub fn text_to_image_cases() -> Vec<PathBuf> {
    let mut cases = cases("pipeline", "sticker_", 3);
    cases.retain(|case| json(&case.join("request.json"))["init"].is_null());
    assert!(cases.len() >= 3);
    cases
}

/// A whole diffusers folder.
pub fn load_model(folder: &Path) -> (ModelFiles, Tensors) {
    load_model_into(folder, Tensors::new(&Device::flex()))
}

pub fn load_model_into(folder: &Path, tensors: Tensors) -> (ModelFiles, Tensors) {
    let mut files = ModelFiles { model_index: json(&folder.join("model_index.json")), ..Default::default() };
    let encoders = ["text_encoder", "text_encoder_2", "text_encoder_3", "vision_language_encoder"];
    let optional = ["preview_vae", "scorer", "codebook", "autoregressive", "hybrid", "motion_adapter"];
    let others = ["transformer", "unet", "vae", "scheduler"].into_iter().chain(optional);
    for component in encoders.into_iter().chain(others) {
        let config = folder.join(config_file(component));
        if config.exists() {
            files.configs.insert(component.to_owned(), json(&config));
            if component != "scheduler" {
                load_weights(&folder.join(component), &format!("{component}/"), &tensors);
            }
        }
    }
    for component in ["tokenizer", "tokenizer_2", "tokenizer_3", "processor"] {
        let tokenizer = folder.join(component).join("tokenizer.json");
        if tokenizer.exists() {
            files.tokenizers.insert(component.to_owned(), json(&tokenizer));
        }
        let config = folder.join(config_file(component));
        if config.exists() {
            files.configs.insert(component.to_owned(), json(&config));
        }
    }
    (files, tensors)
}

/// A named tensor of a fixture, with its rank checked.
pub fn tensor<const D: usize>(values: &Values, name: &str) -> Tensor<D> {
    let (shape, values) = values.get(name).unwrap_or_else(|| panic!("the fixture lacks `{name}`"));
    let shape: [usize; D] = shape.as_slice().try_into().unwrap_or_else(|_| panic!("`{name}` has shape {shape:?}"));
    Tensor::from_data(TensorData::new(values.clone(), shape), &Device::flex())
}

pub fn numbers<const D: usize>(tensor: Tensor<D>) -> Vec<f32> {
    tensor.into_data().try_to_vec().unwrap()
}

/// Norm of the difference over the norm of the reference.
pub fn relative_error(ours: &[f32], reference: &[f32]) -> f64 {
    assert_eq!(ours.len(), reference.len(), "different numbers of values");
    let norm = |values: &mut dyn Iterator<Item = f64>| values.map(|v| v * v).sum::<f64>().sqrt();
    let difference = norm(&mut ours.iter().zip(reference).map(|(a, b)| f64::from(*a) - f64::from(*b)));
    difference / norm(&mut reference.iter().map(|v| f64::from(*v)))
}

/// Fails unless `ours` is within `tolerance` (relative) of the fixture's `name`.
#[track_caller]
pub fn assert_close(case: &Path, name: &str, ours: &[f32], values: &Values, tolerance: f64) {
    let (_, reference) = values.get(name).unwrap_or_else(|| panic!("{}: the fixture lacks `{name}`", case.display()));
    let error = relative_error(ours, reference);
    let case = case.file_name().unwrap().to_str().unwrap();
    // NaN is close to nothing.
    assert!(error <= tolerance, "{case}: `{name}` is off by {error:.2e}, allowed {tolerance:.0e}");
    println!("{case}: `{name}` {error:.1e}");
}

#[test]
#[should_panic(expected = "is off by")]
fn assert_close_fails_on_a_perturbed_input() {
    let reference: Vec<f32> = (0..100).map(|i| i as f32 / 50.0 - 1.0).collect();
    let mut ours = reference.clone();
    ours[13] += 0.01;
    let values = Values::from([("x".to_owned(), (vec![100], reference))]);
    assert_close(Path::new("case"), "x", &ours, &values, TOLERANCE);
}

#[test]
#[should_panic(expected = "is off by")]
fn assert_close_fails_on_nan() {
    let values = Values::from([("x".to_owned(), (vec![1], vec![1.0]))]);
    assert_close(Path::new("case"), "x", &[f32::NAN], &values, TOLERANCE);
}
