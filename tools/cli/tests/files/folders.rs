//! Model folders. Most have a twin that the reference reads as the same model: the same seed must give the same bytes.

use std::{collections::BTreeMap, fs, path::Path};

use safetensors::{Dtype, SafeTensors, serialize_to_file, tensor::TensorView};
use serde_json::{Value, json};

use crate::support::*;

type Weights = BTreeMap<String, (Dtype, Vec<usize>, Vec<u8>)>;

fn read_weights(path: &Path) -> Weights {
    let bytes = fs::read(path).unwrap();
    let file = SafeTensors::deserialize(&bytes).unwrap();
    let tensors = file.tensors().into_iter();
    tensors.map(|(name, t)| (name, (t.dtype(), t.shape().to_vec(), t.data().to_vec()))).collect()
}

fn write_weights<'a>(path: &Path, weights: impl IntoIterator<Item = (&'a String, &'a (Dtype, Vec<usize>, Vec<u8>))>) {
    let views = weights
        .into_iter()
        .map(|(name, (dtype, shape, bytes))| (name.clone(), TensorView::new(*dtype, shape.clone(), bytes).unwrap()));
    serialize_to_file(views.collect::<Vec<_>>(), None, path).unwrap();
}

fn half(weights: Weights) -> Weights {
    let halve = |(dtype, shape, bytes): (Dtype, Vec<usize>, Vec<u8>)| {
        assert_eq!(dtype, Dtype::F32);
        let value = |b: &[u8]| half::f16::from_f32(f32::from_le_bytes([b[0], b[1], b[2], b[3]]));
        (Dtype::F16, shape, bytes.chunks_exact(4).flat_map(|b| value(b).to_le_bytes()).collect())
    };
    weights.into_iter().map(|(name, tensor)| (name, halve(tensor))).collect()
}

fn json_file(path: &Path) -> Value {
    serde_json::from_slice(&fs::read(path).unwrap()).unwrap()
}

fn edit(path: &Path, edit: impl FnOnce(&mut Value)) {
    let mut value = json_file(path);
    edit(&mut value);
    fs::write(path, value.to_string()).unwrap();
}

/// The picture's bytes and what was said on the way.
#[track_caller]
fn draw(scratch: &Scratch, model: &Path, more: &[&str]) -> (Vec<u8>, String) {
    let out = scratch.path("out.png");
    let base = ["generate", "--model", text(model), "--prompt", "a photo of <sks>", "--steps", "1", "--out", &out];
    let output = run(&[&base[..], more].concat());
    let said = String::from_utf8(output.stderr).unwrap();
    assert!(output.status.success(), "{said}");
    (fs::read(out).unwrap(), said)
}

/// Far below the size that the tiny PixArt was made for.
const SMALL: [&str; 2] = ["--size", "32x32"];

fn size_of(png: &[u8]) -> (u32, u32) {
    let side = |at: usize| u32::from_be_bytes(png[at..at + 4].try_into().unwrap());
    (side(16), side(20))
}

#[track_caller]
fn refused_model(model: &str, words: &[&str]) {
    let out = std::env::temp_dir().join("inkbloom-never.png");
    refused(&["generate", "--model", model, "--prompt", "x", "--out", text(&out)], 1, words);
}

#[test]
fn what_is_called_weights_is_named_for_what_it_is() {
    let scratch = Scratch::new("not-weights");
    let model = scratch.model("sd15_text");
    let weights = model.join("unet/diffusion_pytorch_model.safetensors");
    let whole = fs::read(&weights).unwrap();
    let pointer = "version https://git-lfs.github.com/spec/v1\noid sha256:abab\nsize 3438167534\n";
    let page = "<!doctype html>\n<title>Access to this model is restricted</title>\n".repeat(20);
    let pickle = [&b"PK\x03\x04\x00\x00\x08\x08"[..], &[0; 4096]].concat();
    for (bytes, words) in [
        (pointer.as_bytes(), ["Git LFS pointer", "git lfs pull"]),
        (page.as_bytes(), ["web page", "fetch it again"]),
        (&pickle, ["PyTorch pickle", "save_pretrained"]),
        (b"Entry not found", ["Entry not found", "fetch it again"]),
        (b"", ["empty", "fetch it again"]),
    ] {
        fs::write(&weights, bytes).unwrap();
        refused_model(text(&model), &[words[0], words[1], "unet", "diffusion_pytorch_model.safetensors"]);
    }
    fs::remove_file(&weights).unwrap();
    fs::write(model.join("unet/diffusion_pytorch_model.bin"), &pickle).unwrap();
    refused_model(text(&model), &["diffusion_pytorch_model.bin", "pickle", "save_pretrained"]);
    fs::remove_file(model.join("unet/diffusion_pytorch_model.bin")).unwrap();
    refused_model(text(&model), &["unet", "holds no weights", "diffusion_pytorch_model.safetensors"]);
    fs::write(&weights, &whole).unwrap();

    // So is what is called JSON.
    for (file, bytes, words) in [
        ("vae/config.json", pointer, "Git LFS pointer"),
        ("tokenizer/tokenizer.json", pointer, "Git LFS pointer"),
        ("model_index.json", page.as_str(), "web page"),
        ("scheduler/scheduler_config.json", "{\n<<<<<<< HEAD\n", "Git merge"),
        ("unet/config.json", "{\"sample_size\": }", "not valid JSON"),
    ] {
        let path = model.join(file);
        let before = fs::read(&path).unwrap();
        fs::write(&path, bytes).unwrap();
        refused_model(text(&model), &[words, file]);
        fs::write(&path, before).unwrap();
    }
    draw(&scratch, &model, &[]);
}

#[test]
fn a_sample_size_is_what_diffusers_takes_it_for() {
    let scratch = Scratch::new("sample-size");
    let model = scratch.model("sd15_text");
    let config = model.join("unet/config.json");
    let with = |version: &str, size: Value| {
        edit(&config, |config| {
            config["_diffusers_version"] = version.into();
            config["sample_size"] = size;
        });
        draw(&scratch, &model, &[]).0
    };
    let twin = with("0.42.1", json!(64));
    assert_eq!(size_of(&twin), (256, 256));
    assert_eq!(with("0.8.0.dev0", json!(32)), twin);
    assert_eq!(size_of(&with("0.10.2", json!(32))), (128, 128));
    // Height, then width.
    assert_eq!(size_of(&with("0.42.1", json!([8, 12]))), (48, 32));
    edit(&config, |config| config["sample_size"] = json!([8, 12, 1]));
    refused_model(text(&model), &["unet/config.json", "`sample_size`", "height and width"]);
}

/// With CLIP's files in place of `tokenizer.json`.
pub fn old_tokenizer(folder: &Path) {
    let whole = json_file(&folder.join("tokenizer.json"));
    let pair = |pair: &Value| format!("{} {}", pair[0].as_str().unwrap(), pair[1].as_str().unwrap());
    let merges: Vec<String> = whole["model"]["merges"].as_array().unwrap().iter().map(pair).collect();
    fs::write(folder.join("vocab.json"), whole["model"]["vocab"].to_string()).unwrap();
    fs::write(folder.join("merges.txt"), format!("#version: 0.2\n{}\n", merges.join("\n"))).unwrap();
    fs::remove_file(folder.join("tokenizer.json")).unwrap();
}

#[test]
fn a_learnt_word_is_one_token_with_a_row_of_its_own() {
    let scratch = Scratch::new("learnt");
    let model = scratch.model("sd15_text");
    let plain = draw(&scratch, &model, &[]).0;
    let path = model.join("text_encoder/model.safetensors");
    let mut weights = read_weights(&path);
    let key = weights.keys().find(|key| key.ends_with("token_embedding.weight")).unwrap().clone();
    let (_, shape, rows) = weights.get_mut(&key).unwrap();
    let n = shape[0];
    shape[0] += 1;
    rows.extend((0..shape[1]).flat_map(|i| if i % 2 == 1 { 3f32 } else { -3.0 }.to_le_bytes()));
    write_weights(&path, &weights);
    edit(&model.join("text_encoder/config.json"), |config| config["vocab_size"] = json!(n + 1));
    old_tokenizer(&model.join("tokenizer"));
    let (added, config) = (model.join("tokenizer/added_tokens.json"), model.join("tokenizer/tokenizer_config.json"));
    let dump = scratch.path("dump.safetensors");
    let learnt = || {
        let picture = draw(&scratch, &model, &["--dump", &dump]).0;
        let numbers = read_weights(Path::new(&dump));
        let ids: Vec<i64> =
            numbers["input_ids"].2.chunks_exact(8).map(|b| i64::from_le_bytes(b.try_into().unwrap())).collect();
        (picture, ids)
    };

    fs::write(&added, json!({"<sks>": n}).to_string()).unwrap();
    let (picture, ids) = learnt();
    assert_eq!(ids[..8], [1277, 320, 79, 874, 529, 515, 1279, 1278]);
    assert_ne!(picture, plain);
    // As transformers writes it since 4.34.
    fs::remove_file(&added).unwrap();
    let token = json!({
        "content": "<sks>", "lstrip": false, "normalized": false, "rstrip": false, "single_word": false, "special": true
    });
    edit(&config, |config| config["added_tokens_decoder"] = json!({n.to_string(): token}));
    assert_eq!(learnt(), (picture.clone(), ids));
    // A bundle has it, too.
    let bundle = scratch.path("bundle");
    assert!(run(&["convert", "--from", text(&model), "--to", &bundle, "--dtype", "f32"]).status.success());
    assert_eq!(draw(&scratch, Path::new(&bundle), &[]).0, picture);
    // A word that the text encoder has no row for.
    edit(&config, |config| config["added_tokens_decoder"][(n + 1).to_string()] = json!({"content": "photo"}));
    let out = scratch.path("x.png");
    let generate = ["generate", "--model", text(&model), "--prompt", "a photo", "--out", &out];
    refused(&generate, 1, &["the id 1280", "1280 tokens"]);
}

#[test]
fn the_first_choice_that_is_whole_is_read() {
    let scratch = Scratch::new("variants");
    let model = scratch.model("pixart_alpha");
    let folder = model.join("text_encoder");
    let weights = half(read_weights(&folder.join("model.safetensors")));
    write_weights(&folder.join("model.safetensors"), &weights);
    let twin = draw(&scratch, &model, &SMALL).0;

    // Both indexes, but the half-precision shards alone.
    fs::remove_file(folder.join("model.safetensors")).unwrap();
    let (first, second): (Vec<_>, Vec<_>) = weights.iter().enumerate().partition(|(i, _)| i % 2 == 0);
    let mut maps = [json!({}), json!({})];
    for (i, part) in [first, second].into_iter().enumerate() {
        let name = |stem: &str| format!("{stem}-0000{}-of-00002.safetensors", i + 1);
        for (_, (key, _)) in &part {
            maps[0][key.as_str()] = name("model").into();
            maps[1][key.as_str()] = name("model.fp16").into();
        }
        write_weights(&folder.join(name("model.fp16")), part.into_iter().map(|(_, tensor)| tensor));
    }
    let [full, halves] = maps.map(|map| json!({"metadata": {"total_size": 1}, "weight_map": map}).to_string());
    fs::write(folder.join("model.safetensors.index.json"), full).unwrap();
    fs::write(folder.join("model.safetensors.index.fp16.json"), &halves).unwrap();
    let (picture, said) = draw(&scratch, &model, &SMALL);
    assert_eq!(picture, twin);
    assert!(said.contains("note: ") && said.contains("model-00001-of-00002.safetensors, which is not there"), "{said}");
    // Under the name that diffusers once gave an index; a pointer in place of the full precision.
    fs::rename(folder.join("model.safetensors.index.fp16.json"), folder.join("model.safetensors.fp16.index.json"))
        .unwrap();
    fs::write(folder.join("model.safetensors"), "version https://git-lfs.github.com/spec/v1\n").unwrap();
    assert_eq!(draw(&scratch, &model, &SMALL).0, twin);
    let inspect = String::from_utf8(run(&["inspect", text(&model)]).stdout).unwrap();
    assert!(inspect.contains("NOTE: ") && inspect.contains("complete"), "{inspect}");
    // None of them whole: the first choice is the one that is told of.
    fs::remove_file(folder.join("model.fp16-00002-of-00002.safetensors")).unwrap();
    refused_model(text(&model), &["model.safetensors is a Git LFS pointer"]);

    // diffusers reads an index before a single file, transformers after it.
    let folder = model.join("transformer");
    let single = folder.join("diffusion_pytorch_model.safetensors");
    let weights = read_weights(&single);
    let shard = "diffusion_pytorch_model-00001-of-00001.safetensors";
    write_weights(&folder.join(shard), &weights);
    let map: serde_json::Map<String, Value> = weights.keys().map(|key| (key.clone(), shard.into())).collect();
    let index = json!({"metadata": {}, "weight_map": map});
    fs::write(folder.join("diffusion_pytorch_model.safetensors.index.json"), index.to_string()).unwrap();
    let mut other = weights.clone();
    other.values_mut().for_each(|(_, _, bytes)| bytes.fill(0));
    write_weights(&single, &other);
    copy(&fixture("pixart_alpha").join("text_encoder"), &model.join("text_encoder"));
    let from_index = draw(&scratch, &model, &SMALL).0;
    assert_eq!(from_index, draw(&scratch, &fixture("pixart_alpha"), &SMALL).0);
}

#[test]
fn t5_reads_its_sentencepiece_model() {
    let scratch = Scratch::new("spiece");
    let model = scratch.model("pixart_alpha");
    let folder = model.join("tokenizer");
    let spiece = fixture("../prompt/spiece/spiece.model");
    // The same words by way of the tokenizer.json that it amounts to.
    fs::remove_file(folder.join("tokenizer.json")).unwrap();
    fs::copy(&spiece, folder.join("spiece.model")).unwrap();
    let dump = scratch.path("dump.safetensors");
    draw(&scratch, &model, &[&SMALL[..], &["--dump", &dump]].concat());
    let expected = json_file(&fixture("../prompt/spiece/cases.json"));
    let row = |prompt: &str| {
        let rows = expected["cases"][1]["prompts"].as_array().unwrap();
        rows.iter().find(|row| row["prompt"] == prompt).unwrap()["input_ids"].clone()
    };
    assert_eq!(row("")[0], 1);
    // "a photo of <sks>" ends with </s>, and then padding.
    let ids = &read_weights(Path::new(&dump))["input_ids"].2;
    let ids: Vec<i64> = ids.chunks_exact(8).map(|b| i64::from_le_bytes(b.try_into().unwrap())).collect();
    let end = ids.iter().position(|id| *id == 1).unwrap();
    assert!(end > 3 && ids[end + 1..].iter().all(|id| *id == 0), "{ids:?}");
    fs::write(folder.join("spiece.model"), b"\x0a\x0e\x0a\x05<pad>\x15\x00\x00\x00\x00\x18\x03").unwrap();
    refused_model(text(&model), &["spiece.model", "no </s>", "tokenizer.json", "save_pretrained"]);
    fs::remove_file(folder.join("spiece.model")).unwrap();
    refused_model(text(&model), &["tokenizer"]);
}

#[test]
fn a_models_folder_is_found_where_people_point() {
    let scratch = Scratch::new("locate");
    let model = scratch.model("sd15_text");
    let twin = draw(&scratch, &model, &[]).0;
    let repository = scratch.0.join("hub/models--someone--tiny");
    let snapshot = repository.join("snapshots/0123456789abcdef");
    copy(&model, &snapshot);
    fs::create_dir_all(repository.join("refs")).unwrap();
    fs::write(repository.join("refs/main"), "0123456789abcdef").unwrap();
    for path in [&repository, &snapshot, &repository.join("snapshots"), &model.join("model_index.json")] {
        assert_eq!(draw(&scratch, path, &[]).0, twin, "{path:?}");
    }
    // Which of several says refs/main; without it, none is guessed.
    fs::create_dir_all(repository.join("snapshots/0000")).unwrap();
    assert_eq!(draw(&scratch, &repository, &[]).0, twin);
    fs::write(repository.join("refs/main"), "../../..").unwrap();
    refused_model(text(&repository), &["2 versions", "0000"]);

    refused_model(&scratch.path("hub"), &["cache of models", "models--someone--tiny"]);
    refused_model(text(&model.join("unet")), &["one component", "folder above"]);
    refused_model(&scratch.path(""), &["give that", "model"]);
    refused_model("stabilityai/sd-turbo", &["hf download stabilityai/sd-turbo --local-dir sd-turbo"]);
    let file = scratch.0.join("files/v1-5-pruned.safetensors");
    fs::create_dir_all(file.parent().unwrap()).unwrap();
    fs::write(&file, "x").unwrap();
    for path in [text(&file), &scratch.path("files")] {
        refused_model(path, &["v1-5-pruned.safetensors", "single file", "from_single_file"]);
    }
    fs::write(scratch.path("files/readme.txt"), "x").unwrap();
    refused_model(&scratch.path("files/readme.txt"), &["is a file"]);
}

#[test]
fn what_a_whole_clip_has_besides_is_passed_over() {
    let scratch = Scratch::new("text-config");
    let model = scratch.model("sd15_text");
    let twin = draw(&scratch, &model, &[]).0;
    edit(&model.join("text_encoder/config.json"), |config| {
        let mut text = config.take();
        text["model_type"] = "clip_text_model".into();
        *config = json!({
            "architectures": ["CLIPModel"], "model_type": "clip", "projection_dim": 99, "hidden_size": 7,
            "text_config": text, "text_config_dict": null, "vision_config": {"hidden_size": 32}
        });
    });
    let path = model.join("text_encoder/model.safetensors");
    let mut weights = read_weights(&path);
    weights.insert("logit_scale".to_owned(), (Dtype::F32, vec![], 4.6f32.to_le_bytes().to_vec()));
    weights.insert("text_model.embeddings.position_ids".to_owned(), (Dtype::I64, vec![1, 2], vec![0; 16]));
    weights.insert("visual_projection.weight".to_owned(), (Dtype::F32, vec![0, 4], vec![]));
    weights.insert("step".to_owned(), (Dtype::BOOL, vec![1], vec![1]));
    write_weights(&path, &weights);
    assert_eq!(draw(&scratch, &model, &[]).0, twin);
    let inspect = String::from_utf8(run(&["inspect", text(&model)]).stdout).unwrap();
    assert!(inspect.contains("complete"), "{inspect}");
}

/// The files of a repository that a download line of the documentation asks for; each pattern has an option of its own, for
/// `hf` takes any further word for a file's name.
fn fetched(line: &str, files: &[&str]) -> Vec<String> {
    let words: Vec<&str> = line.split_whitespace().collect();
    let named = words.iter().position(|word| word.starts_with("--")).unwrap();
    let options: Vec<(&str, &str)> =
        words[named..].chunks(2).map(|pair| (pair[0], pair[1].trim_matches('"'))).collect();
    assert!(options.iter().all(|(option, value)| option.starts_with("--") && !value.starts_with("--")), "{line}");
    let matches = |pattern: &str, file: &str| {
        let (mut rest, mut parts) = (file, pattern.split('*'));
        rest = match rest.strip_prefix(parts.next().unwrap()) {
            Some(rest) => rest,
            None => return false,
        };
        let parts: Vec<&str> = parts.collect();
        for part in &parts {
            match rest.find(part) {
                Some(at) => rest = &rest[at + part.len()..],
                None => return false,
            }
        }
        rest.is_empty() || parts.last().is_some_and(|last| file.ends_with(last))
    };
    let any = |option: &str, file: &str| options.iter().any(|(name, value)| *name == option && matches(value, file));
    let wanted = |file: &&&str| any("--include", file) && !any("--exclude", file);
    files.iter().filter(wanted).map(|file| (*file).to_owned()).collect()
}

/// Each download line fetches what the loader reads of a folder laid out as the published ones are.
#[test]
fn the_documented_downloads_are_enough() {
    let guide = fs::read_to_string(Path::new(env!("CARGO_MANIFEST_DIR")).join("../../docs/MODELS.md")).unwrap();
    let guide = guide.replace("\\\n", " ");
    let line = |repository: &str| guide.lines().find(|l| l.contains(&format!("hf download {repository}"))).unwrap();
    for (repository, name, half) in [
        ("stable-diffusion-v1-5/stable-diffusion-v1-5", "sd15_text", true),
        ("stabilityai/stable-diffusion-xl-base-1.0", "sdxl_text", true),
        ("SimianLuo/LCM_Dreamshaper_v7", "sd15_lcm", false),
        ("PixArt-alpha/PixArt-Sigma-XL-2-1024-MS", "pixart_sigma", false),
    ] {
        let scratch = Scratch::new(&format!("download-{name}"));
        let model = scratch.model(name);
        for tokenizer in ["tokenizer", "tokenizer_2"].map(|folder| model.join(folder)) {
            if name.starts_with("pixart") && tokenizer.is_dir() {
                fs::remove_file(tokenizer.join("tokenizer.json")).unwrap();
                fs::copy(fixture("../prompt/spiece/spiece.model"), tokenizer.join("spiece.model")).unwrap();
            } else if tokenizer.is_dir() {
                old_tokenizer(&tokenizer);
            }
        }
        let mut files = Vec::new();
        for component in fs::read_dir(&model).unwrap().map(|entry| entry.unwrap().path()) {
            for path in if component.is_dir() { fs::read_dir(&component).unwrap() } else { continue } {
                let path = path.unwrap().path();
                // Published in full and in half precision.
                if half && path.extension().is_some_and(|ending| ending == "safetensors") {
                    fs::copy(&path, path.with_extension("fp16.safetensors")).unwrap();
                    files.push(path.with_extension("fp16.safetensors"));
                }
                files.push(path);
            }
        }
        let relative = |path: &Path| path.strip_prefix(&model).unwrap().to_str().unwrap().replace('\\', "/");
        let names: Vec<String> = files.iter().map(|path| relative(path)).collect();
        let wanted = fetched(line(repository), &names.iter().map(String::as_str).collect::<Vec<_>>());
        for (path, name) in files.iter().zip(&names) {
            if !wanted.contains(name) {
                fs::remove_file(path).unwrap();
            }
        }
        // Nothing twice.
        let weights = wanted.iter().filter(|name| name.ends_with(".safetensors")).count();
        assert_eq!(
            weights,
            names.iter().filter(|name| name.ends_with(".safetensors")).count() / (1 + usize::from(half))
        );
        let inspect = String::from_utf8(run(&["inspect", text(&model)]).stdout).unwrap();
        assert!(inspect.contains("complete"), "{repository}: {inspect}");
    }
}
