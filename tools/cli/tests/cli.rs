//! The command line as its user meets it.

use std::{
    fs,
    path::{Path, PathBuf},
    process::{Command, Output},
};

fn fixture(name: &str) -> PathBuf {
    Path::new(env!("CARGO_MANIFEST_DIR")).join("../../tests/fixtures/pipeline").join(name)
}

fn run(args: &[&str]) -> Output {
    Command::new(env!("CARGO_BIN_EXE_inkbloom")).args(args).output().unwrap()
}

/// An empty folder that is removed at the end of a test.
struct Scratch(PathBuf);

impl Scratch {
    fn new(name: &str) -> Self {
        let path = std::env::temp_dir().join(format!("inkbloom-cli-{name}-{}", std::process::id()));
        let _ = fs::remove_dir_all(&path);
        fs::create_dir_all(&path).unwrap();
        Self(path)
    }

    fn path(&self, name: &str) -> String {
        self.0.join(name).to_str().unwrap().to_owned()
    }

    /// A copy of a fixture's model.
    fn model(&self, fixture_name: &str) -> PathBuf {
        let to = self.0.join("model");
        copy(&fixture(fixture_name), &to);
        to
    }
}

impl Drop for Scratch {
    fn drop(&mut self) {
        let _ = fs::remove_dir_all(&self.0);
    }
}

fn copy(from: &Path, to: &Path) {
    fs::create_dir_all(to).unwrap();
    for entry in fs::read_dir(from).unwrap() {
        let path = entry.unwrap().path();
        let target = to.join(path.file_name().unwrap());
        if path.is_dir() { copy(&path, &target) } else { fs::copy(&path, &target).map(drop).unwrap() }
    }
}

fn text(path: &Path) -> &str {
    path.to_str().unwrap()
}

/// Fails with one line on stderr that holds every one of `words`, and exit code `code`.
#[track_caller]
fn refused(args: &[&str], code: i32, words: &[&str]) {
    let output = run(args);
    let stderr = String::from_utf8(output.stderr).unwrap();
    let line =
        stderr.lines().find(|line| line.starts_with("inkbloom: ") || line.starts_with("error: ")).unwrap_or_default();
    assert_eq!(output.status.code(), Some(code), "{stderr}");
    assert!(words.iter().all(|word| line.contains(word)), "{line:?} lacks one of {words:?}");
    assert!(!stderr.contains("panicked"), "{stderr}");
    if code == 1 {
        let last = stderr.lines().last().unwrap();
        assert_eq!(last, line, "the error is the last line");
    }
}

#[test]
fn generate_writes_a_picture_and_its_numbers() {
    let scratch = Scratch::new("generate");
    let (out, dump) = (scratch.path("apple.png"), scratch.path("dump.safetensors"));
    let model = fixture("sticker_tiny");
    let base = ["generate", "--model", text(&model), "--prompt", "a red apple", "--steps", "2", "--seed", "7"];
    let output = run(&[&base[..], &["--out", &out, "--dump", &dump]].concat());
    assert!(output.status.success(), "{}", String::from_utf8_lossy(&output.stderr));
    assert!(output.stdout.is_empty(), "results go to files");
    let png = fs::read(&out).unwrap();
    assert_eq!(&png[..8], b"\x89PNG\r\n\x1a\n");
    let numbers = fs::read(&dump).unwrap();
    let header = String::from_utf8_lossy(&numbers[..2000]).into_owned();
    for name in ["input_ids", "text_embedding", "noise", "latent.0", "latent.2", "image"] {
        assert!(header.contains(&format!("\"{name}\"")), "the dump lacks {name}");
    }
    // Starting again from the dumped noise gives the same picture, whatever the seed.
    let again = scratch.path("again.png");
    let output = run(&[
        "generate",
        "--model",
        text(&model),
        "--prompt",
        "a red apple",
        "--steps",
        "2",
        "--noise",
        &dump,
        "--out",
        &again,
    ]);
    assert!(output.status.success(), "{}", String::from_utf8_lossy(&output.stderr));
    assert_eq!(png, fs::read(&again).unwrap());
    // Several pictures are numbered.
    let output = run(&[&base[..], &["--count", "2", "--out", &out]].concat());
    assert!(output.status.success());
    assert_eq!(png, fs::read(scratch.path("apple-0.png")).unwrap());
    assert_ne!(png, fs::read(scratch.path("apple-1.png")).unwrap());
}

#[test]
fn a_converted_bundle_draws_and_its_text_encoder_can_come_later() {
    let scratch = Scratch::new("convert");
    let (bundle, out) = (scratch.path("bundle"), scratch.path("a.png"));
    let from = fixture("sticker_straight");
    assert!(run(&["convert", "--from", text(&from), "--to", &bundle, "--dtype", "q8"]).status.success());
    let manifest = fs::read(scratch.path("bundle/manifest.json")).unwrap();
    let generate = ["generate", "--model", &bundle, "--prompt", "a cat", "--steps", "1", "--out", &out];
    assert!(run(&generate).status.success());
    let picture = fs::read(&out).unwrap();

    // The shards of the text encoder alone, made anew: the same bytes, the same manifest.
    fs::remove_file(scratch.path("bundle/text_encoder-000.bin")).unwrap();
    refused(&generate, 1, &["text_encoder-000.bin", "cannot be read"]);
    let encoder = scratch.0.join("encoder");
    copy(&from.join("text_encoder"), &encoder);
    fs::copy(from.join("tokenizer/tokenizer.json"), encoder.join("tokenizer.json")).unwrap();
    assert!(run(&["convert", "--text-encoder", text(&encoder), "--to", &bundle, "--dtype", "q8"]).status.success());
    assert_eq!(manifest, fs::read(scratch.path("bundle/manifest.json")).unwrap());
    assert!(run(&generate).status.success());
    assert_eq!(picture, fs::read(&out).unwrap());

    let output = run(&["inspect", &bundle]);
    let stdout = String::from_utf8(output.stdout).unwrap();
    assert!(stdout.contains("InkbloomPipeline") && stdout.contains("q8") && stdout.contains("complete"), "{stdout}");

    let mut bytes = fs::read(scratch.path("bundle/vae-000.bin")).unwrap();
    bytes[5] ^= 4;
    fs::write(scratch.path("bundle/vae-000.bin"), bytes).unwrap();
    refused(&generate, 1, &["vae-000.bin", "SHA-256"]);
}

#[test]
fn little_memory_and_a_preview_decoder_change_where_things_are() {
    let scratch = Scratch::new("memory");
    let from = fixture("sd15_preview");
    let (bundle, out) = (scratch.path("bundle"), scratch.path("a.png"));
    // The decoder's folder alone, for a model that has none.
    let model = scratch.model("sd15_text");
    let decoder = scratch.path("taesd");
    copy(&from.join("preview_vae"), Path::new(&decoder));
    let convert = ["convert", "--from", text(&model), "--preview-decoder", &decoder, "--to", &bundle, "--dtype", "f32"];
    assert!(run(&convert).status.success());
    let inspect = String::from_utf8(run(&["inspect", &bundle]).stdout).unwrap();
    for words in ["preview_vae    AutoencoderTiny", "of weights in f32", "more to draw", "complete"] {
        assert!(inspect.contains(words), "{inspect}");
    }
    let draw = |memory: &[&str]| {
        let base =
            ["generate", "--model", &bundle, "--prompt", "a cat", "--steps", "2", "--size", "32x32", "--out", &out];
        let output = run(&[&base[..], memory].concat());
        assert!(output.status.success(), "{}", String::from_utf8_lossy(&output.stderr));
        (fs::read(&out).unwrap(), String::from_utf8(output.stderr).unwrap())
    };
    let (picture, told) = draw(&[]);
    assert!(!told.contains("memory"), "{told}");
    assert_eq!(draw(&["--memory", "1000"]).0, picture);
    // The smallest that can be said holds this model.
    assert!(!draw(&["--memory", "1"]).1.contains("more memory"));
    refused(&["generate", "--model", &bundle, "--prompt", "x", "--memory", "0", "--out", &out], 2, &["--memory"]);
}

#[test]
fn bad_requests_are_one_line_that_says_what_would_be_right() {
    let scratch = Scratch::new("requests");
    let out = scratch.path("x.png");
    let model = fixture("sticker_tiny");
    let with = |extra: &[&'static str]| -> Vec<String> {
        let base = ["generate", "--model", text(&model), "--out", &out];
        base.iter().chain(extra).map(|word| (*word).to_owned()).collect()
    };
    let cases: [(&[&str], i32, &[&str]); 11] = [
        (&["--prompt", ""], 1, &["empty", "what to draw"]),
        (&["--prompt", "x", "--steps", "0"], 1, &["0 steps", "from 1 to 1000"]),
        (&["--prompt", "x", "--size", "30x32"], 1, &["30 pixels", "multiple of 16"]),
        (&["--prompt", "x", "--size", "0x0"], 1, &["width of 0"]),
        (&["--prompt", "x", "--guidance", "nan"], 1, &["guidance"]),
        (&["--prompt", "x", "--count", "0"], 1, &["at least 1"]),
        (&["--prompt", "x", "--device", "gpu"], 1, &["--device cpu"]),
        (&["--prompt", "x", "--noise", "nowhere.safetensors"], 1, &["nowhere.safetensors", "cannot be read"]),
        (&["--prompt", "x", "--size", "big"], 2, &["128x128"]),
        (&["--prompt", "x", "--seed", "18446744073709551616"], 2, &["--seed"]),
        (&["--prompt", "x", "--seed", "-1"], 2, &["-1"]),
    ];
    for (extra, code, words) in cases {
        let args = with(extra);
        refused(&args.iter().map(String::as_str).collect::<Vec<_>>(), code, words);
    }
    refused(
        &["generate", "--model", text(&model), "--prompt", "x", "--out", &scratch.path("no/such/x.png")],
        1,
        &["does not exist"],
    );
}

#[test]
fn bad_models_are_named() {
    let scratch = Scratch::new("models");
    let out = scratch.path("x.png");
    let generate = |model: &str, words: &[&str]| {
        refused(&["generate", "--model", model, "--prompt", "x", "--out", &out], 1, words)
    };
    generate(&scratch.path("nowhere"), &["nowhere", "diffusers folder"]);
    generate(&scratch.path(""), &["model_index.json", "manifest.json"]);

    let model = scratch.model("sticker_tiny");
    let edit = |file: &str, edit: &dyn Fn(String) -> Vec<u8>| {
        let path = model.join(file);
        let before = fs::read(&path).unwrap();
        fs::write(&path, edit(String::from_utf8_lossy(&before).into_owned())).unwrap();
        move |path: PathBuf| fs::write(path, before).unwrap()
    };
    let index = model.join("model_index.json");
    let undo = edit("model_index.json", &|text| text.replace("InkbloomPipeline", "FluxPipeline").into_bytes());
    generate(text(&model), &["_class_name", "FluxPipeline", "InkbloomPipeline"]);
    undo(index.clone());
    let undo = edit("model_index.json", &|_| b"{".to_vec());
    generate(text(&model), &["model_index.json", "not valid JSON"]);
    undo(index);

    let weights = model.join("vae/diffusion_pytorch_model.safetensors");
    let whole = fs::read(&weights).unwrap();
    fs::write(&weights, &whole[..whole.len() - 100]).unwrap();
    generate(text(&model), &["diffusion_pytorch_model.safetensors", "not whole"]);
    fs::write(&weights, b"not safetensors at all").unwrap();
    generate(text(&model), &["diffusion_pytorch_model.safetensors"]);
    fs::remove_file(&weights).unwrap();
    generate(text(&model), &["holds no weights"]);
    fs::write(&weights, whole).unwrap();

    // A tensor of another shape, through the config.
    let undo =
        edit("transformer/config.json", &|text| text.replace("\"num_layers\": ", "\"num_layers\": 1").into_bytes());
    generate(text(&model), &["lack the tensor `transformer/transformer_blocks."]);
    undo(model.join("transformer/config.json"));
    // What is left is told all the same.
    fs::remove_dir_all(model.join("vae")).unwrap();
    let inspect = String::from_utf8(run(&["inspect", text(&model)]).stdout).unwrap();
    assert!(inspect.contains("BertModel") && inspect.contains("MISSING: "), "{inspect}");
}

/// Folders of diffusers' own classes, by way of a bundle, from a prompt, a picture and below a mask.
#[test]
fn classic_folders_convert_and_draw() {
    for (name, dtype) in
        [("sd15_ancestral", "q8"), ("sd15_img2img", "f16"), ("sd15_inpaint_9", "q4"), ("sdxl_text", "q8")]
    {
        let scratch = Scratch::new(name);
        let (from, bundle, out) = (fixture(name), scratch.path("bundle"), scratch.path("a.png"));
        let output = run(&["convert", "--from", text(&from), "--to", &bundle, "--dtype", dtype]);
        assert!(output.status.success(), "{name}: {}", String::from_utf8_lossy(&output.stderr));
        let mut args = vec!["generate", "--model", &bundle, "--prompt", "a cat", "--steps", "4", "--out", &out];
        let (init, mask) = (from.join("init.png"), from.join("mask.png"));
        if init.is_file() {
            args.extend(["--init", text(&init), "--strength", "0.75"]);
        } else {
            args.extend(["--size", "32x32", "--scheduler", "euler"]);
        }
        if mask.is_file() {
            args.extend(["--mask", text(&mask)]);
        }
        let output = run(&args);
        assert!(output.status.success(), "{name}: {}", String::from_utf8_lossy(&output.stderr));
        assert_eq!(&fs::read(&out).unwrap()[..8], b"\x89PNG\r\n\x1a\n");
        for model in [text(&from), &bundle] {
            let output = run(&["inspect", model]);
            let stdout = String::from_utf8_lossy(&output.stdout).into_owned();
            assert!(output.status.success() && stdout.contains("complete") && stdout.contains("unet"), "{stdout}");
        }
    }
}

/// What older folders hold: CLIP's vocabulary and merges, half precision under its own name.
#[test]
fn an_old_folder_draws() {
    let scratch = Scratch::new("old");
    let model = scratch.model("sd15_text");
    let tokenizer: serde_json::Value =
        serde_json::from_slice(&fs::read(model.join("tokenizer/tokenizer.json")).unwrap()).unwrap();
    let merges = tokenizer["model"]["merges"].as_array().unwrap();
    let merges: Vec<String> =
        merges.iter().map(|pair| format!("{} {}", pair[0].as_str().unwrap(), pair[1].as_str().unwrap())).collect();
    fs::write(model.join("tokenizer/vocab.json"), tokenizer["model"]["vocab"].to_string()).unwrap();
    fs::write(model.join("tokenizer/merges.txt"), format!("#version: 0.2\n{}\n", merges.join("\n"))).unwrap();
    let draw = |name: &str| {
        let out = scratch.path(name);
        let args = ["generate", "--model", text(&model), "--prompt", "a red apple", "--steps", "2", "--out", &out];
        let output = run(&args);
        assert!(output.status.success(), "{}", String::from_utf8_lossy(&output.stderr));
        fs::read(&out).unwrap()
    };
    let new = draw("new.png");
    fs::remove_file(model.join("tokenizer/tokenizer.json")).unwrap();
    let weights = model.join("unet/diffusion_pytorch_model.safetensors");
    fs::rename(&weights, model.join("unet/diffusion_pytorch_model.fp16.safetensors")).unwrap();
    assert_eq!(new, draw("old.png"));
    // As Stable Diffusion 2 has it.
    fs::write(model.join("tokenizer/special_tokens_map.json"), r#"{"pad_token": "!"}"#).unwrap();
    assert_ne!(new, draw("padded.png"));
}
