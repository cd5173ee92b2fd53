//! The command line as its user meets it.

mod support;

use std::{
    fs,
    path::{Path, PathBuf},
};

use support::*;

/// The first shard of a component, whatever it holds.
fn shard(bundle: &str, component: &str) -> PathBuf {
    let is_it = |path: &PathBuf| path.file_name().unwrap().to_str().unwrap().starts_with(&format!("{component}-000-"));
    fs::read_dir(bundle).unwrap().map(|entry| entry.unwrap().path()).find(is_it).unwrap()
}

/// Runs what must succeed.
#[track_caller]
fn done(args: &[&str]) {
    let output = run(args);
    assert!(output.status.success(), "{args:?}: {}", String::from_utf8_lossy(&output.stderr));
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
    fs::remove_file(shard(&bundle, "text_encoder")).unwrap();
    refused(&generate, 1, &["text_encoder-000-", "cannot be read"]);
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

    let vae = shard(&bundle, "vae");
    let mut bytes = fs::read(&vae).unwrap();
    bytes[5] ^= 4;
    fs::write(&vae, bytes).unwrap();
    refused(&generate, 1, &["vae-000-", "SHA-256"]);
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
    for words in [
        "preview_vae    AutoencoderTiny",
        "fetched when it is asked for",
        "of weights in f32",
        "more to draw",
        "complete",
    ] {
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

#[cfg(not(feature = "gpu"))]
#[test]
fn a_build_without_a_gpu_says_so() {
    let scratch = Scratch::new("no-gpu");
    let (model, out) = (fixture("sticker_tiny"), scratch.path("x.png"));
    let drawn = ["generate", "--model", text(&model), "--prompt", "x", "--device", "gpu", "--out", &out];
    refused(&drawn, 1, &["--device cpu", "--features gpu"]);
    refused(&["bench", "--model", text(&model), "--device", "gpu"], 1, &["--device cpu"]);
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
        (&["--prompt", "x", "--noise", "nowhere.safetensors"], 1, &["nowhere.safetensors", "cannot be read"]),
        (&["--prompt", "x", "--size", "big"], 2, &["128x128"]),
        (&["--prompt", "x", "--seed", "18446744073709551616"], 2, &["--seed"]),
        (&["--prompt", "x", "--seed", "-2"], 2, &["-2", "-1 for a new one"]),
        (&["--prompt", "x", "--dump", "no/such/d.safetensors"], 1, &["no/such", "does not exist"]),
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
fn pictures_move_and_are_saved_by_their_ending() {
    let scratch = Scratch::new("animate");
    let (still, out) = (scratch.path("apple.png"), scratch.path("apple.webp"));
    let model = fixture("sticker_tiny");
    let base = ["generate", "--model", text(&model), "--prompt", "a red apple", "--steps", "1", "--seed", "7"];
    done(&[&base[..], &["--out", &still]].concat());
    let frames = scratch.path("frames");
    done(
        &[&base[..], &["--motion", "float", "--frames", "8", "--fps", "10", "--frames-dir", &frames, "--out", &out]]
            .concat(),
    );
    let webp = fs::read(&out).unwrap();
    assert_eq!((&webp[..4], &webp[8..16]), (&b"RIFF"[..], &b"WEBPVP8X"[..]));
    assert_eq!(fs::read_dir(&frames).unwrap().count(), 8);
    assert!(Path::new(&frames).join("apple-07.png").is_file());

    // The finished picture alone moves as it does when it is drawn.
    let again = scratch.path("again.webp");
    let animate = ["animate", "--picture", &still, "--motion", "float", "--frames", "8"];
    done(&[&animate[..], &["--fps", "10", "--out", &again]].concat());
    assert!(webp == fs::read(&again).unwrap());
    for (name, begins) in [("a.gif", &b"GIF89a"[..]), ("a.png", b"\x89PNG\r\n\x1a\n"), ("a", b"RIFF")] {
        let path = scratch.path(name);
        done(&[&animate[..], &["--out", &path]].concat());
        assert!(fs::read(&path).unwrap().starts_with(begins), "{name}");
    }
    let sticker = scratch.path("sticker.webp");
    done(&[&animate[..], &["--sticker", "--out", &sticker]].concat());
    let bytes = fs::read(&sticker).unwrap();
    assert!(bytes.len() <= 500_000 && bytes[24..30] == [255, 1, 0, 255, 1, 0], "512 x 512");

    let refuses = |extra: &[&str], name: &str, code: i32, words: &[&str]| {
        let path = scratch.path(name);
        refused(&[&base[..], extra, &["--out", &path]].concat(), code, words);
        assert!(!Path::new(&path).exists(), "{name} was half-written");
    };
    refuses(&["--motion", "spin", "--frames", "0"], "x.webp", 1, &["0 frames", "from 4 to 100"]);
    refuses(&["--motion", "spin", "--frames", "1000"], "x.webp", 1, &["1000 frames", "from 4 to 100"]);
    refuses(&["--motion", "spin", "--fps", "0"], "x.webp", 1, &["frames a second", "from 1 to 50"]);
    refuses(&["--motion", "fly"], "x.webp", 2, &["--motion"]);
    refuses(&["--frames", "0"], "x.webp", 1, &["0 frames cannot be drawn"]);
    refuses(&["--frames", "8"], "x.webp", 1, &["single pictures", "bounce, spin, wobble"]);
    refuses(&["--motion", "spin"], "x.jpg", 1, &["x.jpg", ".webp, .png (APNG) or .gif"]);
    refuses(&["--motion", "spin"], "x.webm", 1, &["x.webm", "not .webm"]);
    refuses(&["--motion", "spin", "--sticker"], "x.gif", 1, &["sticker file is a WebP"]);
    refuses(&["--motion", "spin", "--quality", "0"], "x.webp", 1, &["quality 0", "from 1 to 100"]);
    refuses(&["--sticker"], "x.webp", 1, &["--sticker", "--motion"]);
    refuses(&[], "x.gif", 1, &["x.gif", ".webp"]);
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
    let undo = edit("model_index.json", &|text| text.replace("InkbloomPipeline", "WanPipeline").into_bytes());
    generate(text(&model), &["_class_name", "WanPipeline", "InkbloomPipeline"]);
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

/// Word embeddings are looked up and never multiplied: they may be coarser than what else there is.
#[test]
fn some_tensors_have_a_dtype_of_their_own() {
    let scratch = Scratch::new("dtype-of");
    let (from, bundle) = (scratch.model("sticker_tiny"), scratch.path("bundle"));
    let convert = ["convert", "--from", text(&from), "--to", &bundle];
    let embeddings = ["--dtype-of", "text_encoder/embeddings.word=q4"];
    refused(&[&convert[..], &["--dtype-of", "text_encoder.embeddings=q4"]].concat(), 1, &["begins so", "inspect"]);
    refused(&[&convert[..], &["--dtype-of", "text_encoder"]].concat(), 2, &["= and a dtype"]);
    refused(&[&convert[..], &["--dtype-of", "text_encoder=q5"]].concat(), 2, &["q5", "f32, f16, q8, q4"]);
    assert!(!Path::new(&bundle).exists());
    done(&[&convert[..], &embeddings].concat());
    let manifest: serde_json::Value =
        serde_json::from_slice(&fs::read(Path::new(&bundle).join("manifest.json")).unwrap()).unwrap();
    let tensors = manifest["tensors"].as_array().unwrap();
    let (coarse, rest): (Vec<_>, Vec<_>) = tensors.iter().partition(|tensor| tensor["dtype"] == "q4");
    let names: Vec<_> = coarse.iter().map(|tensor| tensor["name"].as_str().unwrap()).collect();
    assert_eq!(names, ["text_encoder/embeddings.word_embeddings.weight"]);
    assert!(rest.iter().all(|tensor| tensor["dtype"] == "q8" || tensor["dtype"] == "f16"));
    done(&["generate", "--model", &bundle, "--prompt", "a cat", "--steps", "1", "--out", &scratch.path("a.png")]);
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

/// What `model` draws.
#[track_caller]
fn drawn(scratch: &Scratch, model: &str, more: &[&str]) -> Vec<u8> {
    let out = scratch.path("drawn.png");
    let base = ["generate", "--model", model, "--prompt", "A red apple", "--seed", "7", "--steps", "2", "--out", &out];
    done(&[&base[..], more].concat());
    fs::read(&out).unwrap()
}

/// Every family, from a bundle of each stored format: the numbers are the bundle's own, as f32.
#[test]
fn a_bundle_goes_back_to_a_folder_that_draws_the_same_bytes() {
    for (name, dtype, more) in [
        ("sticker_kl_wide", "q8", &[][..]),
        ("sticker_enlarged", "f16", &[]),
        ("sd15_preview", "q8", &["--size", "32x32"]),
        ("sd21_v_prediction", "q4", &["--size", "32x32"]),
        ("sdxl_text", "f16", &["--size", "32x32"]),
        ("pixart_sigma", "q8", &["--size", "48x32"]),
        ("sd3_without_t5", "q8", &["--size", "32x40"]),
        ("flux_guided", "q4", &["--size", "48x32"]),
    ] {
        let scratch = Scratch::new(&format!("back-{name}"));
        let (bundle, folder, again) = (scratch.path("bundle"), scratch.path("folder"), scratch.path("again"));
        done(&["convert", "--from", text(&fixture(name)), "--to", &bundle, "--dtype", dtype, "--license", "MIT"]);
        done(&["convert", "--from", &bundle, "--to", &folder, "--format", "diffusers"]);
        let picture = drawn(&scratch, &bundle, more);
        assert_eq!(picture, drawn(&scratch, &folder, more), "{name}");
        assert_eq!(fs::read_to_string(scratch.path("folder/ATTRIBUTION.md")).unwrap(), "MIT\n");
        // And to a bundle once more.
        done(&["convert", "--from", &folder, "--to", &again, "--dtype", "f32"]);
        assert_eq!(picture, drawn(&scratch, &again, more), "{name}");
    }
    let scratch = Scratch::new("back");
    let (bundle, folder) = (scratch.path("bundle"), scratch.path("folder"));
    done(&["convert", "--from", text(&fixture("sticker_straight")), "--to", &bundle, "--dtype", "f16"]);
    let back = ["convert", "--from", &bundle, "--to", &folder, "--format", "diffusers"];
    // What is stored as f16 loses nothing in f16, and takes half the room.
    done(&back);
    let picture = drawn(&scratch, &folder, &[]);
    let size = || fs::metadata(scratch.path("folder/vae/diffusion_pytorch_model.safetensors")).unwrap().len();
    let f32_size = size();
    done(&[&back[..], &["--dtype", "f16"]].concat());
    assert_eq!(picture, drawn(&scratch, &folder, &[]));
    assert!(size() < f32_size * 6 / 10);

    refused(&[&back[..], &["--dtype", "q8"]].concat(), 1, &["q8", "f32 or f16"]);
    refused(&["convert", "--from", &folder, "--to", &bundle, "--format", "diffusers"], 1, &["--from", "bundle"]);
    refused(&["convert", "--from", &bundle, "--to", &bundle, "--format", "diffusers"], 1, &["is a bundle", "--to"]);
    refused(&["convert", "--from", &bundle, "--to", &folder, "--format", "zip"], 2, &["zip"]);
    let manifest = scratch.path("bundle/manifest.json");
    let outside = fs::read_to_string(&manifest).unwrap().replace("\"scheduler\":{", "\"../../outside\":{");
    fs::write(&manifest, outside).unwrap();
    refused(&back, 1, &["../../outside", "no name of a component"]);
    fs::remove_file(shard(&bundle, "vae")).unwrap();
    refused(&back, 1, &["vae-000-", "cannot be read"]);
}

/// A bundle of version 1, as it was written.
#[test]
fn an_old_bundle_is_brought_up_to_date_in_place() {
    let scratch = Scratch::new("old-bundle");
    let old = Path::new(env!("CARGO_MANIFEST_DIR")).join("../../tests/fixtures/bundle_v1");
    let (bundle, other) = (scratch.path("bundle"), scratch.path("other"));
    copy(&old, Path::new(&bundle));
    let picture = fs::read(old.join("seed-7.png")).unwrap();
    let draw = |model: &str| {
        let out = scratch.path("drawn.png");
        done(&["generate", "--model", model, "--prompt", "a red apple", "--seed", "7", "--steps", "2", "--out", &out]);
        fs::read(&out).unwrap()
    };
    assert_eq!(draw(&bundle), picture);
    refused(&["convert", "--from", &bundle, "--to", &other, "--dtype", "q4"], 1, &["stay as they are", "--dtype"]);
    refused(&["convert", "--from", &bundle, "--to", &other, "--dtype-of", "vae=q4"], 1, &["stay as they are"]);

    done(&["convert", "--from", &bundle, "--to", &other, "--name", "renamed"]);
    done(&["convert", "--from", &bundle, "--to", &bundle]);
    let manifest = fs::read_to_string(scratch.path("bundle/manifest.json")).unwrap();
    assert!(manifest.contains("\"version\":2") && !manifest.contains("vae-000.bin"));
    for model in [&bundle, &other] {
        assert_eq!(draw(model), picture);
        let shards = fs::read_dir(model).unwrap().map(|entry| entry.unwrap().file_name().into_string().unwrap());
        let mut shards: Vec<String> = shards.filter(|name| name.ends_with(".bin")).collect();
        shards.sort();
        // The old names are gone, the bytes are not.
        assert_eq!(shards, ["text_encoder-000-b27d9b81.bin", "transformer-000-62d340b6.bin", "vae-000-a6f57996.bin"]);
    }
    // Once more changes nothing.
    done(&["convert", "--from", &bundle, "--to", &bundle]);
    assert_eq!(fs::read_to_string(scratch.path("bundle/manifest.json")).unwrap(), manifest);
    assert!(fs::read_to_string(scratch.path("other/manifest.json")).unwrap().contains("\"renamed\""));
}

/// Replaces a model's scheduler: its class and its file.
fn set_scheduler(model: &Path, class: &str, file: &str) {
    let path = model.join("model_index.json");
    let mut index: serde_json::Value = serde_json::from_slice(&fs::read(&path).unwrap()).unwrap();
    index["scheduler"] = serde_json::json!(["diffusers", class]);
    fs::write(path, index.to_string()).unwrap();
    fs::write(model.join("scheduler/scheduler_config.json"), file).unwrap();
}

/// As published folders have them.
const TURBO: &str = r#"{"_class_name": "EulerAncestralDiscreteScheduler", "_diffusers_version": "0.24.0.dev0",
    "beta_end": 0.012, "beta_schedule": "scaled_linear", "beta_start": 0.00085, "clip_sample": false,
    "interpolation_type": "linear", "num_train_timesteps": 1000, "prediction_type": "epsilon", "sample_max_value": 1.0,
    "set_alpha_to_one": false, "skip_prk_steps": true, "steps_offset": 1, "timestep_spacing": "trailing",
    "trained_betas": null}"#;
const UNIPC: &str = r#"{"_class_name": "UniPCMultistepScheduler", "_diffusers_version": "0.20.0.dev0", "beta_end": 0.012,
    "beta_schedule": "scaled_linear", "beta_start": 0.00085, "clip_sample": false, "disable_corrector": [],
    "dynamic_thresholding_ratio": 0.995, "lower_order_final": true, "num_train_timesteps": 1000, "predict_x0": true,
    "prediction_type": "epsilon", "sample_max_value": 1.0, "set_alpha_to_one": false, "skip_prk_steps": true,
    "solver_order": 2, "solver_p": null, "solver_type": "bh2", "steps_offset": 1, "thresholding": false,
    "timestep_spacing": "linspace", "trained_betas": null, "use_karras_sigmas": false}"#;
const LMS: &str = r#"{"_class_name": "LMSDiscreteScheduler", "_diffusers_version": "0.4.1", "beta_end": 0.012,
    "beta_schedule": "scaled_linear", "beta_start": 0.00085, "clip_sample": false, "num_train_timesteps": 1000,
    "set_alpha_to_one": false, "timestep_values": null, "tensor_format": "pt", "trained_betas": null}"#;
const BETAS: &str = r#""beta_start": 0.00085, "beta_end": 0.012, "beta_schedule": "scaled_linear", "steps_offset": 1"#;

#[test]
fn keys_of_other_schedulers_are_passed_over_with_a_note() {
    let scratch = Scratch::new("turbo");
    let model = scratch.model("sdxl_text");
    let (out, bundle) = (scratch.path("a.png"), scratch.path("bundle"));
    let draw = |model: &str| {
        let output =
            run(&["generate", "--model", model, "--prompt", "a cat", "--steps", "2", "--size", "32x32", "--out", &out]);
        let stderr = String::from_utf8_lossy(&output.stderr).into_owned();
        assert!(output.status.success(), "{stderr}");
        (fs::read(&out).unwrap(), stderr)
    };
    let note = "note: scheduler/scheduler_config.json: EulerAncestralDiscreteScheduler has no `interpolation_type`, \
                `sample_max_value`, `skip_prk_steps`; passed over";
    set_scheduler(&model, "EulerAncestralDiscreteScheduler", TURBO);
    let (picture, stderr) = draw(text(&model));
    assert!(stderr.contains(note), "{stderr}");
    let inspect = String::from_utf8(run(&["inspect", text(&model)]).stdout).unwrap();
    assert!(inspect.contains(note) && inspect.contains("complete"), "{inspect}");
    let convert = run(&["convert", "--from", text(&model), "--to", &bundle, "--dtype", "f32"]);
    assert!(String::from_utf8_lossy(&convert.stderr).contains(note));
    assert_eq!(draw(&bundle).0, picture);

    let twin = TURBO.replace(r#""interpolation_type": "linear", "#, "").replace(r#""sample_max_value": 1.0,"#, "");
    set_scheduler(&model, "EulerAncestralDiscreteScheduler", &twin.replace(r#""skip_prk_steps": true, "#, ""));
    let (same, stderr) = draw(text(&model));
    assert!(same == picture && !stderr.contains("note: "), "{stderr}");
    // Its own keys are honoured, or refused.
    set_scheduler(&model, "EulerAncestralDiscreteScheduler", &TURBO.replace("trailing", "linspace"));
    assert_ne!(draw(text(&model)).0, picture);
    set_scheduler(&model, "EulerAncestralDiscreteScheduler", &TURBO.replace("trailing", "crooked"));
    refused(
        &["generate", "--model", text(&model), "--prompt", "x", "--out", &out],
        1,
        &["timestep_spacing", "crooked"],
    );

    // The same of networks.
    set_scheduler(&model, "EulerAncestralDiscreteScheduler", TURBO);
    let path = model.join("unet/config.json");
    let unet = fs::read_to_string(&path).unwrap();
    fs::write(&path, unet.replacen('{', r#"{"use_memory_efficient_attention": true, "#, 1)).unwrap();
    let (same, stderr) = draw(text(&model));
    assert!(same == picture, "{stderr}");
    assert!(
        stderr.contains("unet/config.json: UNet2DConditionModel has no `use_memory_efficient_attention`"),
        "{stderr}"
    );
}

#[test]
fn another_scheduler_can_be_taken_whatever_class_the_file_names() {
    let scratch = Scratch::new("class");
    let model = scratch.model("sd15_text");
    let out = scratch.path("a.png");
    let args = |scheduler: &'static str| {
        let mut args = vec!["generate", "--model", text(&model), "--prompt", "a cat", "--steps", "4", "--out", &out];
        args.extend(["--size", "32x32"]);
        args.extend(if scheduler.is_empty() { vec![] } else { vec!["--scheduler", scheduler] });
        args.into_iter().map(str::to_owned).collect::<Vec<_>>()
    };
    let draw = |scheduler: &'static str| {
        let args = args(scheduler);
        let output = run(&args.iter().map(String::as_str).collect::<Vec<_>>());
        let stderr = String::from_utf8_lossy(&output.stderr);
        assert!(output.status.success(), "{scheduler}: {stderr}");
        assert!(scheduler.is_empty() || !stderr.contains("note: "), "{scheduler}: {stderr}");
        fs::read(&out).unwrap()
    };
    let refused = |scheduler: &'static str, words: &[&str]| {
        let args = args(scheduler);
        refused(&args.iter().map(String::as_str).collect::<Vec<_>>(), 1, words);
    };
    set_scheduler(&model, "DPMSolverMultistepScheduler", &format!("{{{BETAS}}}"));
    let dpm = draw("");
    set_scheduler(&model, "EulerDiscreteScheduler", &format!("{{{BETAS}}}"));
    let euler = draw("");
    let deis = format!(
        r#"{{{BETAS}, "algorithm_type": "deis", "solver_type": "logrho", "solver_order": 2,
        "lower_order_final": true, "thresholding": false, "skip_prk_steps": true}}"#
    );
    let mut alone = vec![dpm.clone(), euler.clone()];
    for (class, file) in [
        ("DEISMultistepScheduler", deis.as_str()),
        ("UniPCMultistepScheduler", UNIPC),
        ("LMSDiscreteScheduler", LMS),
        ("HeunDiscreteScheduler", &format!("{{{BETAS}, \"timestep_spacing\": \"linspace\"}}")),
    ] {
        set_scheduler(&model, class, file);
        let own = draw("");
        assert!(!alone.contains(&own), "{class} draws what another does");
        alone.push(own);
        assert!(draw("dpm++") == dpm, "{class} with dpm++");
        assert!(draw("euler") == euler, "{class} with euler");
    }
    // A class that is not known is told of by name, and stands in nobody's way.
    set_scheduler(&model, "SASolverScheduler", &format!("{{{BETAS}, \"predictor_order\": 2}}"));
    refused("", &["SASolverScheduler", "--scheduler", "dpm++"]);
    refused("flow-euler", &["not trained", "unipc"]);
    assert!(draw("dpm++") == dpm);
    let bundle = scratch.path("bundle");
    let convert = run(&["convert", "--from", text(&model), "--to", &bundle]);
    assert!(String::from_utf8_lossy(&convert.stderr).contains("SASolverScheduler"));
    let inspect = String::from_utf8(run(&["inspect", &bundle]).stdout).unwrap();
    assert!(inspect.contains("complete") && inspect.contains("--scheduler"), "{inspect}");

    let merge = LMS.replace(
        r#""clip_sample": false,"#,
        "\n<<<<<<< HEAD\n=======\n\"clip_sample\": false,\n>>>>>>> b45bafccd9d0e0757b70a54c7ebc32ff56ca9ee1\n",
    );
    set_scheduler(&model, "LMSDiscreteScheduler", &merge);
    refused("", &["scheduler_config.json", "in the middle of a Git merge"]);
}

/// Stable Diffusion 3 as people fetch it: without the encoder that is larger than the rest together.
#[test]
fn a_model_can_be_converted_without_what_it_can_do_without() {
    let scratch = Scratch::new("without");
    let model = scratch.model("sd3_text");
    let (bundle, out) = (scratch.path("bundle"), scratch.path("a.png"));
    let convert = ["convert", "--from", text(&model), "--to", &bundle, "--dtype", "f32"];
    let generate = |model: &str, more: &[&str]| {
        let base =
            ["generate", "--model", model, "--prompt", "a cat", "--size", "32x32", "--steps", "6", "--out", &out];
        let output = run(&[&base[..], more].concat());
        assert!(output.status.success(), "{}", String::from_utf8_lossy(&output.stderr));
        fs::read(&out).unwrap()
    };
    let whole = generate(text(&model), &[]);
    let table = "transformer/pos_embed.pos_embed";
    let manifest = || fs::read_to_string(scratch.path("bundle/manifest.json")).unwrap();
    assert!(run(&convert).status.success());
    assert!(!manifest().contains(table), "the table of positions was shipped");
    assert_eq!(generate(&bundle, &[]), whole);

    fs::remove_dir_all(model.join("text_encoder_3")).unwrap();
    fs::remove_dir_all(model.join("tokenizer_3")).unwrap();
    refused(&convert, 1, &["text_encoder_3", "cannot be read"]);
    refused(
        &[&convert[..], &["--without", "text_encoder_9"]].concat(),
        1,
        &["text_encoder_9", "text_encoder_2", "vae"],
    );
    for needed in ["vae", "text_encoder_2"] {
        let both = ["--without", "text_encoder_3", "--without", needed];
        refused(&[&convert[..], &both].concat(), 1, &[needed]);
    }
    assert!(run(&[&convert[..], &["--without", "text_encoder_3"]].concat()).status.success());
    assert!(!manifest().contains("text_encoder_3/"));
    let inspect = String::from_utf8(run(&["inspect", &bundle]).stdout).unwrap();
    assert!(inspect.contains("StableDiffusion3Pipeline") && inspect.contains("complete"), "{inspect}");
    let without = generate(&bundle, &[]);
    assert_ne!(without, whole);
    assert_ne!(generate(&bundle, &["--skip-layers", "0"]), without);
    refused(
        &["generate", "--model", &bundle, "--prompt", "a cat", "--skip-layers", "one", "--out", &out],
        2,
        &["--skip-layers", "7,8,9"],
    );

    // From a bundle, too.
    let bare = scratch.path("bare");
    assert!(run(&["convert", "--from", &bundle, "--without", "preview_vae", "--to", &bare]).status.success());
    assert!(!fs::read_to_string(scratch.path("bare/manifest.json")).unwrap().contains("preview_vae/"));
    assert_eq!(generate(&bare, &[]), without);
}

#[test]
fn a_table_that_no_formula_gives_is_shipped() {
    let scratch = Scratch::new("table");
    let model = scratch.model("sd3_without_t5");
    let (bundle, out) = (scratch.path("bundle"), scratch.path("a.png"));
    // One value of the table changed; the header, and so every place, stays.
    let file = model.join("transformer/diffusion_pytorch_model.safetensors");
    let mut bytes = fs::read(&file).unwrap();
    let header = 8 + u64::from_le_bytes(bytes[..8].try_into().unwrap()) as usize;
    let json: serde_json::Value = serde_json::from_slice(&bytes[8..header]).unwrap();
    let start = json["pos_embed.pos_embed"]["data_offsets"][0].as_u64().unwrap() as usize;
    // In the middle, which every picture sees.
    let place = header + start + 4 * (24 * (24 * 12 + 12));
    bytes[place..place + 4].copy_from_slice(&3f32.to_le_bytes());
    fs::write(&file, bytes).unwrap();

    let draw = |model: &str| {
        let output =
            run(&["generate", "--model", model, "--prompt", "a cat", "--size", "32x32", "--steps", "1", "--out", &out]);
        assert!(output.status.success(), "{}", String::from_utf8_lossy(&output.stderr));
        fs::read(&out).unwrap()
    };
    let changed = draw(text(&model));
    assert_ne!(changed, draw(text(&fixture("sd3_without_t5"))));
    let convert = ["convert", "--from", text(&model), "--to", &bundle, "--dtype", "f32"];
    assert!(run(&convert).status.success());
    assert!(
        fs::read_to_string(scratch.path("bundle/manifest.json")).unwrap().contains("transformer/pos_embed.pos_embed")
    );
    assert_eq!(draw(&bundle), changed);
}

/// What is packed inside of the network is not packed outside of it.
#[test]
fn flux_dumps_unpacked_latents_and_takes_a_true_guidance() {
    let scratch = Scratch::new("flux");
    let model = fixture("flux_guided");
    let (out, dump) = (scratch.path("a.png"), scratch.path("a.safetensors"));
    let base =
        ["generate", "--model", text(&model), "--prompt", "a cat", "--size", "48x32", "--steps", "2", "--out", &out];
    let told = run(&[&base[..], &["--negative-prompt", "rain", "--dump", &dump]].concat());
    assert!(told.status.success());
    assert!(String::from_utf8(told.stderr).unwrap().contains("give a true guidance above 1"));
    let bytes = fs::read(&dump).unwrap();
    let dump = safetensors::SafeTensors::deserialize(&bytes).unwrap();
    for name in ["noise", "latent.0", "latent.2"] {
        assert_eq!(dump.tensor(name).unwrap().shape(), [1, 4, 8, 12], "{name}");
    }
    let plain = fs::read(&out).unwrap();
    let guided = run(&[&base[..], &["--negative-prompt", "rain", "--true-guidance", "4"]].concat());
    assert!(guided.status.success());
    assert!(!String::from_utf8(guided.stderr).unwrap().contains("not used"));
    assert_ne!(fs::read(&out).unwrap(), plain);
}

/// The published models by their configs alone: what they are, what they would need, and what is missing.
#[test]
fn published_configs_of_stable_diffusion_3_and_flux_are_inspected() {
    let shapes = Path::new(env!("CARGO_MANIFEST_DIR")).join("../../tests/fixtures/shapes");
    let shape = |name: &str| -> serde_json::Value {
        serde_json::from_str(&fs::read_to_string(shapes.join(format!("{name}.json"))).unwrap()).unwrap()
    };
    let sd3 = ["text_clip_l_projection", "text_openclip_bigg", "text_t5_xxl"];
    let flux = ["text_clip_l", "text_t5_xxl"];
    let models: [(&str, &str, &str, &str, &[&str]); 6] = [
        ("StableDiffusion3Pipeline", "sd3_inpaint", "transformer_sd3_medium", "vae_sd3", &sd3),
        ("StableDiffusion3Pipeline", "sd3_inpaint", "transformer_sd35_medium", "vae_sd3", &sd3[..2]),
        ("StableDiffusion3Pipeline", "sd3_inpaint", "transformer_sd35_large", "vae_sd3", &sd3),
        ("FluxPipeline", "flux_plain", "transformer_flux_schnell", "vae_flux", &flux),
        ("FluxPipeline", "flux_plain", "transformer_flux_dev", "vae_flux", &flux),
        ("FluxFillPipeline", "flux_plain", "transformer_flux_fill", "vae_flux", &flux),
    ];
    for (class, case, transformer, vae, texts) in models {
        let scratch = Scratch::new(transformer);
        let model = scratch.model(case);
        let mut index: serde_json::Value =
            serde_json::from_str(&fs::read_to_string(model.join("model_index.json")).unwrap()).unwrap();
        index["_class_name"] = class.into();
        if class.starts_with("StableDiffusion3") && texts.len() == 2 {
            index["text_encoder_3"] = serde_json::json!([null, null]);
            index["tokenizer_3"] = serde_json::json!([null, null]);
        }
        fs::write(model.join("model_index.json"), index.to_string()).unwrap();
        let names = ["text_encoder", "text_encoder_2", "text_encoder_3"];
        let components =
            names.into_iter().zip(texts.iter().copied()).chain([("transformer", transformer), ("vae", vae)]);
        let mut parameters = 0;
        for (component, name) in components {
            let folder = model.join(component);
            fs::remove_dir_all(&folder).unwrap();
            fs::create_dir(&folder).unwrap();
            let shape = shape(name);
            parameters += shape["count"].as_u64().unwrap();
            fs::write(folder.join("config.json"), shape["config"].to_string()).unwrap();
        }
        let output = String::from_utf8(run(&["inspect", text(&model)]).stdout).unwrap();
        println!("{transformer}: {output}");
        assert!(output.contains(class) && !output.contains("CANNOT RUN"), "{transformer}: {output}");
        assert!(output.contains("transformer holds no weights"), "{transformer}: {output}");
        // Every parameter, and no table that is computed.
        let mib = format!("{:.1} MiB of weights in f32", (4 * parameters) as f64 / (1 << 20) as f64);
        assert!(output.contains(&mib), "{transformer}: {output} lacks {mib}");
        let to = scratch.path("bundle");
        refused(&["convert", "--from", text(&model), "--to", &to], 1, &["text_encoder holds no weights"]);
    }
}

/// A folder as transformers publishes it: no `model_index.json`, and a tokenizer beside the weights.
#[test]
fn a_janus_folder_draws_and_becomes_a_bundle() {
    let scratch = Scratch::new("janus");
    let model = Path::new(env!("CARGO_MANIFEST_DIR")).join("../../tests/fixtures/autoregress/janus_one_level");
    let draw = |model: &str, more: &[&str]| {
        let base = ["generate", "--model", model, "--prompt", "a red fox and two apple tree"];
        let output = run(&[&base[..], more].concat());
        let told = String::from_utf8(output.stderr).unwrap();
        assert!(output.status.success(), "{told}");
        told
    };
    let [out, dump, again, second, bundle] =
        ["fox.png", "dump.safetensors", "again.png", "second.safetensors", "bundle"].map(|name| scratch.path(name));
    draw(text(&model), &["--seed", "3", "--out", &out, "--dump", &dump]);
    // The tokens that were drawn, injected, make the same picture whatever the seed.
    draw(text(&model), &["--noise", &dump, "--out", &again, "--dump", &second]);
    assert_eq!(fs::read(&out).unwrap(), fs::read(&again).unwrap());
    assert_eq!(fs::read(&dump).unwrap(), fs::read(&second).unwrap());
    let told = draw(text(&model), &["--steps", "4", "--out", &again]);
    assert!(told.contains("the number of steps is not used"), "{told}");

    assert!(run(&["convert", "--from", text(&model), "--to", &bundle, "--dtype", "f32"]).status.success());
    draw(&bundle, &["--seed", "3", "--way", "tokens", "--memory", "64", "--out", &again]);
    assert_eq!(fs::read(&out).unwrap(), fs::read(&again).unwrap());
    let inspect = String::from_utf8(run(&["inspect", &bundle]).stdout).unwrap();
    for words in ["JanusForConditionalGeneration", "ways           tokens", "complete"] {
        assert!(inspect.contains(words), "{inspect}");
    }
    let folder = scratch.path("folder");
    let back = ["convert", "--from", &bundle, "--to", &folder, "--format", "diffusers"];
    refused(&back, 1, &["JanusForConditionalGeneration", "no folder for Python"]);
    refused(
        &["generate", "--model", &bundle, "--prompt", "a cat", "--way", "hybrid", "--out", &out],
        1,
        &["it knows tokens"],
    );
}

/// A folder of three models, whose codes can be injected and whose pictures do not start from others.
#[test]
fn a_glm_image_folder_draws_and_becomes_a_bundle() {
    let scratch = Scratch::new("glm");
    let model = fixture("glm_image");
    let [out, dump, again, bundle] = ["a.png", "dump.safetensors", "b.png", "bundle"].map(|name| scratch.path(name));
    let draw = |model: &str, more: &[&str]| {
        let base = ["generate", "--model", model, "--prompt", "a red sign", "--size", "32x64", "--steps", "2"];
        let output = run(&[&base[..], more].concat());
        assert!(output.status.success(), "{}", String::from_utf8_lossy(&output.stderr));
    };
    draw(text(&model), &["--seed", "3", "--dump", &dump, "--out", &out]);
    // The codes and the noise of a run make its picture, whatever the seed.
    draw(text(&model), &["--noise", &dump, "--out", &again]);
    assert_eq!(fs::read(&out).unwrap(), fs::read(&again).unwrap());
    assert!(run(&["convert", "--from", text(&model), "--to", &bundle, "--dtype", "f32"]).status.success());
    draw(&bundle, &["--seed", "3", "--way", "hybrid", "--out", &again]);
    assert_eq!(fs::read(&out).unwrap(), fs::read(&again).unwrap());
    let inspect = String::from_utf8(run(&["inspect", text(&model)]).stdout).unwrap();
    for words in ["GlmImagePipeline", "GlmImageForConditionalGeneration", "ways           hybrid", "complete"] {
        assert!(inspect.contains(words), "{inspect}");
    }
    let generate = ["generate", "--model", text(&model), "--prompt", "a red sign", "--out", &out];
    for (more, words) in [
        (&["--init", &out][..], "starts from no picture"),
        (&["--size", "48x64"], "multiple of 32"),
        (&["--scheduler", "euler"], "its own scheduler"),
    ] {
        refused(&[&generate[..], more].concat(), 1, &[words]);
    }
    let other = scratch.model("glm_image");
    fs::write(other.join("processor/chat_template.jinja"), "{{ messages[0].content | upper }}").unwrap();
    refused(&["generate", "--model", text(&other), "--prompt", "a cat", "--out", &out], 1, &["chat template"]);
}

fn lora(name: &str) -> PathBuf {
    fixture("../lora").join(name)
}

/// The norm of the difference over that of `theirs`.
fn relative_error(ours: &[f32], theirs: &[f32]) -> f64 {
    assert_eq!(ours.len(), theirs.len());
    let norm = |values: &mut dyn Iterator<Item = f64>| values.map(|value| value * value).sum::<f64>().sqrt();
    norm(&mut ours.iter().zip(theirs).map(|(a, b)| f64::from(a - b))) / norm(&mut theirs.iter().map(|b| f64::from(*b)))
}

#[test]
fn loras_change_a_run_as_they_change_the_references() {
    for name in ["motion", "peft", "joint", "kohya"] {
        let scratch = Scratch::new(&format!("lora-{name}"));
        let case = lora(name);
        let request: serde_json::Value = serde_json::from_slice(&fs::read(case.join("request.json")).unwrap()).unwrap();
        let model = fixture(request["model"].as_str().unwrap());
        let [out, dump] = ["a.webp", "dump.safetensors"].map(|name| scratch.path(name));
        let value = |key: &str| request[key].as_str().map_or_else(|| request[key].to_string(), str::to_owned);
        let size = format!("{}x{}", value("width"), value("height"));
        let options = ["prompt", "negative_prompt", "steps", "guidance"];
        let mut args: Vec<String> =
            ["generate", "--model", text(&model), "--size", &size, "--out", &out, "--dump", &dump]
                .map(str::to_owned)
                .into();
        args.extend(["--noise".to_owned(), case.join("reference.safetensors").to_str().unwrap().to_owned()]);
        args.extend(options.iter().flat_map(|key| [format!("--{}", key.replace('_', "-")), value(key)]));
        if !request["frames"].is_null() {
            args.extend(["--frames".to_owned(), value("frames")]);
        }
        let plain: Vec<&str> = args.iter().map(String::as_str).collect();
        let off = |more: &[&str]| {
            done(&[&plain[..], more].concat());
            let (ours, theirs) = (fs::read(&dump).unwrap(), fs::read(case.join("reference.safetensors")).unwrap());
            let [ours, theirs] = [&ours, &theirs].map(|bytes| safetensors::SafeTensors::deserialize(bytes).unwrap());
            let values = |view: safetensors::tensor::TensorView| -> Vec<f32> {
                view.data().chunks_exact(4).map(|b| f32::from_le_bytes(b.try_into().unwrap())).collect()
            };
            let errors = theirs.iter().map(|(name, view)| {
                (relative_error(&values(ours.tensor(name).unwrap()), &values(view)), name.to_owned())
            });
            errors.max_by(|a, b| a.0.total_cmp(&b.0)).unwrap()
        };
        let with = format!("{}:{}", text(&case), request["scale"]);
        let (error, tensor) = off(&["--lora", &with]);
        assert!(error <= 5e-4, "{name}: `{tensor}` is off by {error:.2e}");
        println!("{name}: at most {error:.1e}");
        assert!(off(&[]).0 > 0.05, "{name}: the LoRA changes nothing");
        // Twice half of it is the whole.
        let half = format!(
            "{}:{}",
            text(&case.join("pytorch_lora_weights.safetensors")),
            request["scale"].as_f64().unwrap() / 2.0
        );
        assert!(off(&["--lora", &half, "--lora", &half]).0 <= 5e-4);

        // Fused into a bundle, it draws the same.
        let bundle = scratch.path("bundle");
        done(&["convert", "--from", text(&model), "--lora", &with, "--dtype", "f32", "--to", &bundle]);
        let before = fs::read(&dump).unwrap();
        args[2] = bundle;
        done(&args.iter().map(String::as_str).collect::<Vec<_>>());
        assert_eq!(fs::read(&dump).unwrap().len(), before.len());
        let error = {
            let read = |bytes: &[u8]| {
                let file = safetensors::SafeTensors::deserialize(bytes).unwrap();
                let image = file.tensor("image").unwrap();
                image.data().chunks_exact(4).map(|b| f32::from_le_bytes(b.try_into().unwrap())).collect::<Vec<f32>>()
            };
            relative_error(&read(&fs::read(&dump).unwrap()), &read(&before))
        };
        assert!(error <= 1e-5, "{name}: the bundle is off by {error:.2e}");
    }
}

#[test]
fn loras_that_do_not_fit_are_named() {
    let scratch = Scratch::new("lora-wrong");
    let (model, motion, bundle) = (fixture("sticker_tiny"), lora("motion"), scratch.path("bundle"));
    done(&["convert", "--from", text(&model), "--to", &bundle]);
    let out = scratch.path("a.png");
    let draw = |model: &str, lora: &str, code: i32, words: &[&str]| {
        refused(&["generate", "--model", model, "--prompt", "x", "--out", &out, "--lora", lora], code, words);
    };
    draw(
        text(&model),
        text(&motion),
        1,
        &["pytorch_lora_weights.safetensors", "`unet.", "changes no weight of this model"],
    );
    draw(text(&model), &scratch.path("none.safetensors"), 1, &["none.safetensors", "cannot be read"]);
    draw(text(&model), &bundle, 1, &["holds 0 .safetensors"]);
    draw(text(&model), text(&model.join("model_index.json:2")), 1, &["model_index.json is a text"]);
    draw(text(&model), &format!("{}:inf", text(&motion)), 2, &["out of range"]);
    draw(&bundle, text(&motion), 1, &["diffusers folder", "--format diffusers"]);
    assert!(!Path::new(&out).exists());
    let other = scratch.path("other");
    refused(&["convert", "--from", &bundle, "--to", &other, "--lora", text(&motion)], 1, &["diffusers folder"]);
    refused(
        &["convert", "--from", &bundle, "--to", &other, "--format", "diffusers", "--lora", text(&motion)],
        1,
        &["convert"],
    );
}
