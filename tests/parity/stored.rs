//! Stored formats: what a bundle loses, and what a loader refuses.

use std::path::Path;

use burn::tensor::Device;
use inkbloom::{
    Code,
    pipeline::{Event, PREVIEW, Pipeline, Request, required_params},
    values::Image,
    weights::{
        ModelFiles, StoredDtype, Tensors,
        bundle::{FORMAT, Loader, Manifest, Shard, ShardWriter, VERSION},
        canonical, matrix,
    },
};

use crate::{
    pipeline::{request, run},
    support::*,
};

/// A bundle in memory, as `inkbloom convert` lays it out.
fn bundle(case: &Path, dtype: StoredDtype, max_shard: usize) -> (Manifest, Vec<Vec<u8>>) {
    let (files, _) = load_model(case);
    let needed = required_params(&files).unwrap();
    let mut weights = Values::new();
    for component in ["text_encoder", "transformer", "unet", "vae", PREVIEW] {
        let file =
            if component == "text_encoder" { "model.safetensors" } else { "diffusion_pytorch_model.safetensors" };
        let file = case.join(component).join(file);
        if file.is_file() {
            let named = |(name, value)| (canonical(&format!("{component}/{name}")), value);
            weights.extend(tensors(&file).into_iter().map(named));
        }
    }
    let mut writer = ShardWriter::new("all", max_shard);
    let mut shards: Vec<(Shard, Vec<u8>)> = Vec::new();
    for param in needed {
        let (shape, values) = &weights[&param.name];
        assert_eq!(*shape, param.shape);
        let dtype = if shape.len() == 2 || dtype == StoredDtype::F32 { dtype } else { StoredDtype::F16 };
        shards.extend(writer.add(&param.name, shape, dtype, values).unwrap().into_iter().map(|f| (f.shard, f.bytes)));
    }
    let (last, tensors) = writer.finish();
    shards.extend(last.map(|f| (f.shard, f.bytes)));
    let (shards, bytes) = shards.into_iter().unzip();
    let manifest = Manifest {
        format: FORMAT.into(),
        version: VERSION,
        name: "test".into(),
        license: String::new(),
        attribution: String::new(),
        optional: vec![PREVIEW.into()],
        files,
        shards,
        tensors,
    };
    (Manifest::parse(&serde_json::to_string(&manifest).unwrap()).unwrap(), bytes)
}

fn load(manifest: Manifest, bytes: &[Vec<u8>]) -> Pipeline {
    let (manifest, tensors) = push_all(manifest, bytes);
    Pipeline::load(&manifest.files, &tensors).unwrap()
}

fn push_all(manifest: Manifest, bytes: &[Vec<u8>]) -> (Manifest, Tensors) {
    let mut loader = Loader::new(manifest, Tensors::new(&Device::flex()));
    // Any order will do.
    for (i, bytes) in bytes.iter().enumerate().rev() {
        loader.push(i, bytes).unwrap();
    }
    loader.finish().unwrap()
}

/// Peak signal to noise over pixel tensors, in dB; their values span -1..1. (In straight RGBA8 the colour of
/// nearly transparent pixels would drown everything else.)
pub fn psnr(a: &[f32], b: &[f32]) -> f64 {
    let square = a.iter().zip(b).map(|(a, b)| f64::from(a - b).powi(2)).sum::<f64>() / a.len() as f64;
    10.0 * (4.0 / square.max(1e-12)).log10()
}

/// These models are random, which is harder on quantisation than trained weights are.
#[test]
fn a_bundle_draws_nearly_the_picture_of_its_source() {
    for case in text_to_image_cases() {
        let (files, weights) = load_model(&case);
        let reference = tensors(&case.join("reference.safetensors"));
        let request = request(&case, &reference);
        let source = run(&mut Pipeline::load(&files, &weights).unwrap(), &request);
        for (dtype, least) in [(StoredDtype::F32, 90.0), (StoredDtype::F16, 50.0), (StoredDtype::Q8, 30.0)] {
            // Small shards, so that tensors span several.
            let (manifest, bytes) = bundle(&case, dtype, 3000);
            assert!(bytes.len() > 3 && manifest.tensors.iter().any(|tensor| tensor.parts.len() > 1));
            let image = run(&mut load(manifest, &bytes), &request);
            let psnr = psnr(&image.values["image"].1, &source.values["image"].1);
            println!("{}: {dtype:?} {psnr:.1} dB", case.display());
            assert!(psnr >= least, "{}: {dtype:?} gives {psnr:.1} dB, expected {least}", case.display());
        }
    }
}

#[test]
fn the_whole_model_through_q8_still_draws_the_same_for_the_same_seed() {
    let (manifest, bytes) = bundle(&fixture("pipeline/sticker_tiny"), StoredDtype::Q8, 1 << 20);
    let request = Request { prompt: "a red apple".into(), steps: Some(1), ..Default::default() };
    let images = [(); 2].map(|()| run(&mut load(manifest.clone(), &bytes), &request).generated.images);
    assert_eq!(images[0], images[1]);
}

/// Written by the last version that wrote them, with what it drew.
#[test]
fn a_bundle_of_version_1_draws_as_it_did() {
    let folder = fixture("bundle_v1");
    let manifest = Manifest::parse(&std::fs::read_to_string(folder.join("manifest.json")).unwrap()).unwrap();
    assert_eq!(manifest.version, 1);
    let shards = manifest.shards.iter().map(|shard| std::fs::read(folder.join(&shard.file)).unwrap());
    let shards: Vec<Vec<u8>> = shards.collect();
    let request = Request { prompt: "a red apple".into(), seed: 7, steps: Some(2), ..Default::default() };
    // Without optional components, the core is all there is.
    let core = manifest.clone().into_core();
    assert_eq!((core.shards.len(), core.tensors.len()), (manifest.shards.len(), manifest.tensors.len()));
    let drawn = run(&mut load(core, &shards), &request);
    let reference = tensors(&folder.join("seed-7.safetensors"));
    assert_close(&folder, "image", &drawn.values["image"].1, &reference, TOLERANCE);
}

#[test]
fn a_shard_is_named_after_what_it_holds() {
    let names = [0.5, 0.25].map(|value| {
        let mut writer = ShardWriter::new("vae", 1 << 10);
        writer.add("vae/x", &[2, 2], StoredDtype::F32, &[value; 4]).unwrap();
        let (shard, _) = writer.finish();
        let shard = shard.unwrap().shard;
        assert_eq!(shard.file, format!("vae-000-{}.bin", &shard.sha256[..8]));
        shard.file
    });
    assert_ne!(names[0], names[1]);
}

/// The preview of the first step.
fn preview(model: &mut Pipeline) -> Image {
    let request =
        Request { prompt: "a cat".into(), steps: Some(1), width: Some(32), height: Some(32), ..Default::default() };
    let mut seen = None;
    pollster::block_on(model.generate(&request, async |event| {
        if let Event::Step { preview, .. } = event {
            seen = Some(preview.image().await?);
        }
        Ok(())
    }))
    .unwrap();
    seen.unwrap()
}

#[test]
fn an_optional_component_comes_later_and_changes_nothing_else() {
    let (manifest, bytes) = bundle(&fixture("pipeline/sd15_preview"), StoredDtype::F32, 3000);
    let of = |part: &Manifest| -> Vec<Vec<u8>> {
        let index = |shard: &Shard| manifest.shards.iter().position(|other| other == shard).unwrap();
        part.shards.iter().map(|shard| bytes[index(shard)].clone()).collect()
    };
    let mut whole = load(manifest.clone(), &bytes);
    let core = manifest.clone().into_core();
    assert!(core.shards.len() < manifest.shards.len() && !core.has_component(PREVIEW));
    core.check_params(&required_params(&core.files).unwrap()).unwrap();
    let shards = of(&core);
    let mut model = load(core, &shards);
    assert!(whole.has_optional(PREVIEW) && !model.has_optional(PREVIEW));
    // By its own autoencoder, at half the size.
    assert_eq!((preview(&mut whole).width, preview(&mut model).width), (32, 16));

    let mut part = manifest.clone();
    part.retain_components(|component| component == PREVIEW);
    let shards = of(&part);
    let (part, tensors) = push_all(part, &shards);
    model.add_optional(PREVIEW, &part.files, &tensors).unwrap();
    assert!(model.has_optional(PREVIEW));
    assert_eq!(preview(&mut model), preview(&mut whole));
}

#[test]
fn a_flipped_byte_and_a_short_shard_are_refused_and_a_good_one_still_taken() {
    let (manifest, bytes) = bundle(&fixture("pipeline/sticker_tiny"), StoredDtype::F16, 1 << 20);
    let mut loader = Loader::new(manifest, Tensors::new(&Device::flex()));
    let mut flipped = bytes[0].clone();
    flipped[17] ^= 1;
    for wrong in [&flipped, &bytes[0][1..].to_vec()] {
        let error = loader.push(0, wrong).unwrap_err();
        assert_eq!(error.code, Code::CorruptWeights);
        assert!(error.message.contains("all-000-"), "{error}");
    }
    loader.push(0, &bytes[0]).unwrap();
    assert_eq!(loader.push(99, &bytes[0]).unwrap_err().code, Code::BadInput);
}

#[test]
fn finishing_early_names_the_missing_shard() {
    let (manifest, bytes) = bundle(&fixture("pipeline/sticker_tiny"), StoredDtype::F16, 20_000);
    let mut loader = Loader::new(manifest, Tensors::new(&Device::flex()));
    for (i, bytes) in bytes.iter().enumerate().filter(|(i, _)| *i != 1) {
        loader.push(i, bytes).unwrap();
    }
    assert!(loader.finish().err().unwrap().message.contains("all-001-"));
}

#[test]
fn a_bad_manifest_is_refused_with_the_culprits_name() {
    let (manifest, _) = bundle(&fixture("pipeline/sticker_tiny"), StoredDtype::F16, 1 << 20);
    let good = serde_json::to_value(&manifest).unwrap();
    let name = good["tensors"][3]["name"].as_str().unwrap().to_owned();
    let refused = |edit: &dyn Fn(&mut serde_json::Value), expected: &str| {
        let mut value = good.clone();
        edit(&mut value);
        let error = Manifest::parse(&value.to_string()).err().unwrap_or_else(|| panic!("accepted although {expected}"));
        assert_eq!(error.code, Code::BadModel);
        assert!(error.message.contains(expected), "{error} lacks {expected}");
    };
    refused(&|m| m["version"] = (VERSION + 1).into(), "`version` is 3");
    refused(&|m| m["version"] = 0.into(), "`version` is 0");
    refused(&|m| m["format"] = "zip".into(), "`format`");
    refused(&|m| m["tensors"][3]["parts"][0]["offset"] = (1u64 << 40).into(), &name);
    refused(&|m| m["tensors"][3]["parts"][0]["offset"] = u64::MAX.into(), &name);
    refused(&|m| m["tensors"][3]["parts"][0]["offset"] = m["tensors"][2]["parts"][0]["offset"].clone(), "overlap");
    refused(&|m| m["tensors"][3]["parts"][0]["shard"] = 9.into(), &name);
    refused(&|m| m["tensors"][3]["parts"][0]["rows"] = 1.into(), &name);
    refused(&|m| m["tensors"][3]["shape"] = serde_json::json!([u64::MAX, 3]), &name);
    refused(&|m| m["tensors"][3]["shape"] = serde_json::json!([0, 3]), &name);
    refused(&|m| m["tensors"][3]["dtype"] = "q5".into(), "q5");
    refused(&|m| m["tensors"][3]["name"] = m["tensors"][2]["name"].clone(), "twice");
    refused(&|m| m["shards"][0]["size"] = (17u64 << 20).into(), "all-000-");
    refused(&|m| m["shards"][0]["sha256"] = "abc".into(), "sha256");
    refused(&|m| m["shards"] = 1.into(), "manifest.json");
    assert!(Manifest::parse("{").err().unwrap().message.contains("not valid JSON"));

    let needed = required_params(&manifest.files).unwrap();
    manifest.check_params(&needed).unwrap();
    let mut missing = manifest.clone();
    let gone = missing.tensors.remove(5).name;
    assert!(missing.check_params(&needed).unwrap_err().message.contains(&gone));
    let mut reshaped = manifest.clone();
    reshaped.tensors[5].shape.push(1);
    assert!(reshaped.check_params(&needed).unwrap_err().message.contains(&gone));
    let _: &ModelFiles = &manifest.files;
    assert_eq!(matrix(&[3, 4, 5]), (3, 20));
}
