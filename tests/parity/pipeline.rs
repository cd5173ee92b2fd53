use std::path::Path;

use inkbloom::pipeline::{Event, Generated, Request, TextToImage, read};

use crate::support::*;

/// Everything the command line's `--dump` would write.
pub struct Dump {
    pub values: Values,
    pub generated: Generated,
}

/// The request of a fixture, starting from its noise.
pub fn request(case: &Path, reference: &Values) -> Request {
    let request = json(&case.join("request.json"));
    let number = |key: &str| Some(request[key].as_u64().unwrap() as usize);
    Request {
        prompt: request["prompt"].as_str().unwrap().to_owned(),
        negative_prompt: request["negative_prompt"].as_str().unwrap().to_owned(),
        steps: number("steps"),
        guidance: Some(request["guidance"].as_f64().unwrap() as f32),
        width: number("width"),
        height: number("height"),
        noise: Some(reference["noise"].1.clone()),
        ..Default::default()
    }
}

pub fn run(model: &TextToImage, request: &Request) -> Dump {
    let mut values = Values::new();
    let mut put = |name: String, numbers: Vec<f32>| values.insert(name, (vec![numbers.len()], numbers));
    let generated = pollster::block_on(model.generate(request, async |event| {
        match event {
            Event::Text { tokens, embedding } => {
                put("input_ids".into(), tokens.ids.iter().map(|id| *id as f32).collect());
                put("text_embedding".into(), read(embedding.hidden.clone()).await?);
            }
            Event::Start { noise, x_t, .. } => {
                put("noise".into(), read(noise.clone()).await?);
                put("latent.0".into(), read(x_t.clone()).await?);
            }
            Event::Step { step, x_t, .. } => {
                put(format!("latent.{step}"), read(x_t.clone()).await?);
            }
            Event::Decoded { pixels, .. } => {
                put("image".into(), read(pixels.clone()).await?);
            }
        }
        Ok(())
    }))
    .unwrap();
    Dump { values, generated }
}

#[test]
fn end_to_end_every_intermediate_is_the_references() {
    for case in text_to_image_cases() {
        let (files, weights) = load_model(&case);
        let model = TextToImage::load(&files, &weights).unwrap();
        let reference = tensors(&case.join("reference.safetensors"));
        let dump = run(&model, &request(&case, &reference));
        for name in reference.keys().filter(|name| *name != "attention_mask") {
            let (_, ours) =
                dump.values.get(name).unwrap_or_else(|| panic!("{}: we do not give `{name}`", case.display()));
            assert_close(&case, name, ours, &reference, TOLERANCE);
        }
        let size = json(&case.join("request.json"));
        assert_eq!(dump.generated.images[0].width as u64, size["width"].as_u64().unwrap());
        assert_eq!(dump.generated.images[0].height as u64, size["height"].as_u64().unwrap());
    }
}

#[test]
fn the_same_seed_draws_the_same_bytes_and_another_seed_does_not() {
    let (files, weights) = load_model(&fixture("pipeline/sticker_tiny"));
    let model = TextToImage::load(&files, &weights).unwrap();
    let draw = |seed, count| {
        run(
            &model,
            &Request { prompt: "a red apple".into(), seed, count: Some(count), steps: Some(2), ..Default::default() },
        )
        .generated
    };
    let (first, again, other) = (draw(3, 2), draw(3, 2), draw(4, 1));
    assert_eq!(first.images, again.images);
    assert_ne!(first.images[0], first.images[1]);
    // Picture i of a count has the seed + i.
    assert_eq!(first.images[1], other.images[0]);
}

#[test]
fn an_error_from_the_observer_ends_the_drawing() {
    let (files, weights) = load_model(&fixture("pipeline/sticker_tiny"));
    let model = TextToImage::load(&files, &weights).unwrap();
    let mut steps = 0;
    let request = Request { prompt: "a red apple".into(), steps: Some(9), ..Default::default() };
    let result = pollster::block_on(model.generate(&request, async |event| {
        if let Event::Step { step, .. } = event {
            steps = step;
            if step == 2 {
                return Err(inkbloom::Error::aborted());
            }
        }
        Ok(())
    }));
    assert_eq!(result.unwrap_err().code, inkbloom::Code::Aborted);
    assert_eq!(steps, 2);
}

#[test]
fn a_preview_is_half_the_size() {
    let (files, weights) = load_model(&fixture("pipeline/sticker_tiny"));
    let model = TextToImage::load(&files, &weights).unwrap();
    let request = Request { prompt: "a red apple".into(), steps: Some(2), ..Default::default() };
    let mut previews = Vec::new();
    pollster::block_on(model.generate(&request, async |event| {
        if let Event::Step { preview, .. } = event {
            previews.push(preview.image().await?);
        }
        Ok(())
    }))
    .unwrap();
    assert_eq!(previews.iter().map(|p| (p.width, p.height)).collect::<Vec<_>>(), [(16, 16); 2]);
}

#[test]
fn bad_requests_are_refused_in_words() {
    let (files, weights) = load_model(&fixture("pipeline/sticker_tiny"));
    let model = TextToImage::load(&files, &weights).unwrap();
    let good = || Request { prompt: "a red apple".into(), ..Default::default() };
    let refused: [(Request, &str); 11] = [
        (Request { prompt: "  \n".into(), ..good() }, "empty"),
        (Request { prompt: "x".repeat(20_001), ..good() }, "at most 20000"),
        (Request { negative_prompt: "x".repeat(20_001), ..good() }, "negative prompt"),
        (Request { steps: Some(0), ..good() }, "from 1 to 1000"),
        (Request { steps: Some(1001), ..good() }, "from 1 to 1000"),
        (Request { guidance: Some(f32::NAN), ..good() }, "guidance"),
        (Request { guidance: Some(-1.0), ..good() }, "guidance"),
        (Request { width: Some(0), ..good() }, "width"),
        (Request { width: Some(33), ..good() }, "multiple of 16"),
        (Request { height: Some(1 << 20), ..good() }, "height"),
        (Request { noise: Some(vec![0.0; 3]), ..good() }, "noise"),
    ];
    for (request, expected) in refused {
        let error = model.plan(&request).unwrap_err();
        assert_eq!(error.code, inkbloom::Code::BadInput);
        assert!(error.message.contains(expected), "{error}");
    }
    let plan = model.plan(&Request { width: Some(64), ..good() }).unwrap();
    assert!(plan.warnings[0].contains("trained for 32 x 32"), "{:?}", plan.warnings);
    let long = run(&model, &Request { prompt: "apple ".repeat(100), steps: Some(1), ..good() });
    assert!(
        long.generated.warnings.iter().any(|warning| warning.contains("102 tokens")),
        "{:?}",
        long.generated.warnings
    );
}

#[test]
fn what_the_model_cannot_do_is_named_with_file_key_and_value() {
    let (files, _) = load_model(&fixture("pipeline/sticker_tiny"));
    let refused = |edit: fn(&mut inkbloom::weights::ModelFiles)| {
        let mut files = files.clone();
        edit(&mut files);
        let error = inkbloom::pipeline::required_params(&files, &burn::tensor::Device::flex()).unwrap_err();
        assert_eq!(error.code, inkbloom::Code::BadModel);
        error.message
    };
    type Edit = fn(&mut inkbloom::weights::ModelFiles);
    let edits: [([&str; 3], Edit); 9] = [
        (["model_index.json", "_class_name", "FluxPipeline"], |f| f.model_index["_class_name"] = "FluxPipeline".into()),
        (["model_index.json", "text_encoder", "T9Model"], |f| f.model_index["text_encoder"][1] = "T9Model".into()),
        (["transformer/config.json", "attention_type", "gated"], |f| {
            f.configs.get_mut("transformer").unwrap()["attention_type"] = "gated".into()
        }),
        (["transformer/config.json", "in_channels", "5"], |f| {
            f.configs.get_mut("transformer").unwrap()["in_channels"] = 5.into()
        }),
        (["transformer/config.json", "rope", "true"], |f| {
            f.configs.get_mut("transformer").unwrap()["rope"] = true.into()
        }),
        (["vae/config.json", "upsample_fn", "bicubic"], |f| {
            f.configs.get_mut("vae").unwrap()["upsample_fn"] = "bicubic".into()
        }),
        (["scheduler/scheduler_config.json", "use_dynamic_shifting", "true"], |f| {
            f.configs.get_mut("scheduler").unwrap()["use_dynamic_shifting"] = true.into()
        }),
        (["text_encoder/config.json", "hidden_act", "snake"], |f| {
            f.configs.get_mut("text_encoder").unwrap()["hidden_act"] = "snake".into()
        }),
        (["model_index.json", "alpha", "none"], |f| f.model_index["alpha"] = "none".into()),
    ];
    for (expected, edit) in edits {
        let message = refused(edit);
        assert!(expected.iter().all(|word| message.contains(word)), "{message}");
    }
}
