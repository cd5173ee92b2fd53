use std::path::Path;

use burn::tensor::Device;
use inkbloom::{
    pipeline::{Churn, Event, Generated, JANUS, Pipeline, Request, SkipLayers},
    values::{Image, read},
    weights::{Tensors, list_params},
};

use crate::support::*;

/// Everything the command line's `--dump` would write.
pub struct Dump {
    pub values: Values,
    pub generated: Generated,
}

/// The request of a fixture, on its noise.
pub fn request(case: &Path, reference: &Values) -> Request {
    let request = json(&case.join("request.json"));
    let number = |key: &str| Some(request[key].as_u64().unwrap() as usize);
    let drawn = |name: &str| reference.get(name).map(|(_, values)| values.clone());
    let noise = drawn("noise").unwrap();
    // Where the reference drew nothing for the encoder, it took the mean.
    let frames = request["frames"].as_u64().map(|frames| frames as usize);
    let encode_noise = drawn("encode_noise").unwrap_or_else(|| vec![0.0; noise.len() / frames.unwrap_or(1)]);
    let steps = request["steps"].as_u64().unwrap() as usize;
    Request {
        prompt: request["prompt"].as_str().unwrap().to_owned(),
        negative_prompt: request["negative_prompt"].as_str().unwrap_or_default().to_owned(),
        steps: Some(steps),
        guidance: Some(request["guidance"].as_f64().unwrap() as f32),
        true_guidance: request["true_guidance"].as_f64().map(|scale| scale as f32),
        skip_layers: request["skip_layers"].as_object().map(|skip| SkipLayers {
            layers: serde_json::from_value(skip["layers"].clone()).unwrap(),
            scale: skip["scale"].as_f64().unwrap() as f32,
            start: skip["start"].as_f64().unwrap(),
            stop: skip["stop"].as_f64().unwrap(),
        }),
        width: number("width"),
        height: number("height"),
        init: request["init"].as_str().map(|name| picture(&case.join(name))),
        mask: request["mask"].as_str().map(|name| picture(&case.join(name))),
        strength: request["strength"].as_f64(),
        frames,
        eta: request["eta"].as_f64(),
        step_noise: (0..steps).map_while(|i| drawn(&format!("step_noise.{i}"))).collect(),
        encode_noise: Some(encode_noise),
        noise: Some(noise),
        ..Default::default()
    }
}

/// A PNG of any kind as straight RGBA8.
pub fn picture(path: &Path) -> Image {
    let picture = image::open(path).unwrap_or_else(|error| panic!("{}: {error}", path.display())).to_rgba8();
    Image { width: picture.width() as usize, height: picture.height() as usize, rgba: picture.into_raw() }
}

pub fn run(model: &mut Pipeline, request: &Request) -> Dump {
    let mut values = Values::new();
    let mut put = |name: String, numbers: Vec<f32>| values.insert(name, (vec![numbers.len()], numbers));
    // The frames of the last picture.
    let mut image = Vec::new();
    let generated = pollster::block_on(model.generate(request, async |event| {
        match event {
            Event::Text { tokens, embedding } => {
                for (name, tokens) in ["input_ids", "input_ids_2", "input_ids_3"].into_iter().zip(tokens) {
                    put(name.into(), tokens.ids.iter().map(|id| *id as f32).collect());
                }
                put("text_embedding".into(), read(embedding.hidden.clone()).await?);
                if let Some(pooled) = &embedding.pooled {
                    put("pooled_embedding".into(), read(pooled.clone()).await?);
                }
            }
            Event::Start { noise, x_t, .. } => {
                put("noise".into(), read(noise.clone()).await?);
                put("latent.0".into(), read(x_t.clone()).await?);
            }
            Event::Step { step, x_t, .. } => {
                put(format!("latent.{step}"), read(x_t.clone()).await?);
            }
            Event::Candidate { .. } | Event::Tokens { .. } => {}
            Event::Decoded { frame, pixels, .. } => {
                if frame == 0 {
                    image.clear();
                }
                image.extend(read(pixels.clone()).await?);
            }
        }
        Ok(())
    }))
    .unwrap();
    put("image".into(), image);
    Dump { values, generated }
}

/// Over a full run.
const RUN_TOLERANCE: f64 = 5e-4;

/// Every intermediate of every pipeline, but the mask (part of the text), the draws, and the network's first input, which
/// `latent.0` and the result pin down.
fn end_to_end(prefix: &str, least: usize) {
    for case in cases("pipeline", prefix, least) {
        let (files, weights) = load_model(&case);
        let mut model = Pipeline::load(&files, &weights).unwrap();
        let reference = tensors(&case.join("reference.safetensors"));
        let dump = run(&mut model, &request(&case, &reference));
        let given = ["attention_mask", "step_noise", "encode_noise", "model_input", "preview"];
        for name in reference.keys().filter(|name| !given.iter().any(|given| name.starts_with(given))) {
            let (_, ours) =
                dump.values.get(name).unwrap_or_else(|| panic!("{}: we do not give `{name}`", case.display()));
            assert_close(&case, name, ours, &reference, RUN_TOLERANCE);
        }
        let latents = |values: &Values| values.keys().filter(|name| name.starts_with("latent.")).count();
        assert_eq!(latents(&dump.values), latents(&reference), "{}", case.display());
        let size = json(&case.join("request.json"));
        assert_eq!(dump.generated.images[0].width as u64, size["width"].as_u64().unwrap());
        assert_eq!(dump.generated.images[0].height as u64, size["height"].as_u64().unwrap());
    }
}

#[test]
fn inkbloom_end_to_end_every_intermediate_is_the_references() {
    end_to_end("sticker_", 6);
}

#[test]
fn stable_diffusion_end_to_end_every_intermediate_is_the_references() {
    end_to_end("sd15_", 7);
    end_to_end("sd21_", 1);
    end_to_end("sd_turbo", 1);
    end_to_end("lcm_", 1);
}

#[test]
fn stable_diffusion_xl_end_to_end_every_intermediate_is_the_references() {
    end_to_end("sdxl_", 5);
}

#[test]
fn pixart_end_to_end_every_intermediate_is_the_references() {
    end_to_end("pixart_", 2);
}

#[test]
fn stable_diffusion_3_end_to_end_every_intermediate_is_the_references() {
    end_to_end("sd3_", 5);
}

#[test]
fn flux_end_to_end_every_intermediate_is_the_references() {
    end_to_end("flux_", 6);
}

#[test]
fn animations_end_to_end_every_intermediate_is_the_references() {
    end_to_end("animatediff_", 3);
    end_to_end("latte_", 1);
}

#[test]
fn the_same_seed_draws_the_same_bytes_and_another_seed_does_not() {
    let (files, weights) = load_model(&fixture("pipeline/sticker_tiny"));
    let mut model = Pipeline::load(&files, &weights).unwrap();
    let mut draw = |seed, count| {
        run(
            &mut model,
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
    let mut model = Pipeline::load(&files, &weights).unwrap();
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
    let mut model = Pipeline::load(&files, &weights).unwrap();
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

/// Whatever each step predicts, by a decoder that is not the model's own.
#[test]
fn a_preview_decoder_draws_the_references_previews() {
    for (case, size) in [("sd15_preview", 40 * 32), ("sd3_text", 48 * 32), ("flux_guided", 48 * 32)] {
        previews(&fixture("pipeline").join(case), size);
    }
    let (mut files, _) = load_model(&fixture("pipeline/sd15_preview"));
    files.configs.get_mut("preview_vae").unwrap()["latent_channels"] = 8.into();
    let error = inkbloom::pipeline::required_params(&files).unwrap_err();
    assert!(error.message.contains("preview_vae/config.json: `latent_channels` is 8"), "{error}");
}

fn previews(case: &Path, size: usize) {
    let (files, weights) = load_model(case);
    let mut model = Pipeline::load(&files, &weights).unwrap();
    let reference = tensors(&case.join("reference.safetensors"));
    let mut compared = 0;
    let mut steps = 0;
    pollster::block_on(model.generate(&request(case, &reference), async |event| {
        if let Event::Step { step, preview, .. } = event {
            let Image { width, height, rgba } = preview.image().await?;
            steps = step;
            let (shape, values) = &reference[&format!("preview.{step}")];
            assert_eq!([1, 3, height, width], shape.as_slice());
            let positions = width * height;
            for (i, byte) in rgba
                .chunks_exact(4)
                .enumerate()
                .flat_map(|(i, pixel)| (0..3).map(move |c| (c * positions + i, pixel[c])))
            {
                let expected = ((values[i] + 1.0) * 127.5).clamp(0.0, 255.0);
                // Half a level is rounding, and a little more what floats differ by.
                assert!((f32::from(byte) - expected).abs() < 0.51, "step {step}: {byte} for {expected}");
                compared += 1;
            }
        }
        Ok(())
    }))
    .unwrap();
    assert!(steps >= 3);
    assert_eq!(compared, steps * 3 * size);
}

#[test]
fn bad_requests_are_refused_in_words() {
    let (files, weights) = load_model(&fixture("pipeline/sticker_tiny"));
    let mut model = Pipeline::load(&files, &weights).unwrap();
    let good = || Request { prompt: "a red apple".into(), ..Default::default() };
    let refused: [(Request, &str); 13] = [
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
        (Request { eta: Some(0.5), ..good() }, "no eta; leave it out, or take the scheduler ddim or tcd"),
        (Request { churn: Some(Churn::new(1.0)), ..good() }, "no churn"),
    ];
    for (request, expected) in refused {
        let error = model.plan(&request).unwrap_err();
        assert_eq!(error.code, inkbloom::Code::BadInput);
        assert!(error.message.contains(expected), "{error}");
    }
    let plan = model.plan(&Request { width: Some(64), ..good() }).unwrap();
    assert!(plan.warnings[0].contains("trained for 32 x 32"), "{:?}", plan.warnings);
    let long = run(&mut model, &Request { prompt: "apple ".repeat(100), steps: Some(1), ..good() });
    assert!(
        long.generated.warnings.iter().any(|warning| warning.contains("102 tokens")),
        "{:?}",
        long.generated.warnings
    );
}

#[test]
fn what_the_model_cannot_do_is_named_with_file_key_and_value() {
    let (files, _) = load_model(&fixture("pipeline/sticker_tiny"));
    let refused = |edit: fn(&mut inkbloom::weights::ModelFiles), expected: [&str; 3]| {
        let mut files = files.clone();
        edit(&mut files);
        let taken = inkbloom::pipeline::required_params(&files);
        let error = taken.err().unwrap_or_else(|| panic!("{expected:?} was not refused"));
        assert_eq!(error.code, inkbloom::Code::BadModel);
        error.message
    };
    type Edit = fn(&mut inkbloom::weights::ModelFiles);
    let edits: [([&str; 3], Edit); 7] = [
        (["model_index.json", "_class_name", "SanaPipeline"], |f| f.model_index["_class_name"] = "SanaPipeline".into()),
        (["model_index.json", "text_encoder", "T9Model"], |f| f.model_index["text_encoder"][1] = "T9Model".into()),
        (["transformer/config.json", "attention_type", "gated"], |f| {
            f.configs.get_mut("transformer").unwrap()["attention_type"] = "gated".into()
        }),
        (["transformer/config.json", "in_channels", "5"], |f| {
            f.configs.get_mut("transformer").unwrap()["in_channels"] = 5.into()
        }),
        (["vae/config.json", "upsample_fn", "bicubic"], |f| {
            f.configs.get_mut("vae").unwrap()["upsample_fn"] = "bicubic".into()
        }),
        (["text_encoder/config.json", "hidden_act", "snake"], |f| {
            f.configs.get_mut("text_encoder").unwrap()["hidden_act"] = "snake".into()
        }),
        (["model_index.json", "alpha", "none"], |f| f.model_index["alpha"] = "none".into()),
    ];
    for (expected, edit) in edits {
        let message = refused(edit, expected);
        assert!(expected.iter().all(|word| message.contains(word)), "{message}");
    }
    // A request may take another scheduler than the model's own, so that is told of, and refused when it is to draw.
    let mut files = files.clone();
    files.configs.get_mut("scheduler").unwrap()["invert_sigmas"] = true.into();
    let (_, model) = list_params(&Device::flex(), |tensors| Pipeline::load(&files, tensors)).unwrap();
    let request = |scheduler: Option<&str>| Request {
        prompt: "a crown".into(),
        scheduler: scheduler.map(str::to_owned),
        ..Default::default()
    };
    let message = model.plan(&request(None)).unwrap_err().message;
    assert!(message.contains("scheduler/scheduler_config.json: `invert_sigmas` is true"), "{message}");
    assert_eq!(files.notes.list(), [message]);
    assert!(model.plan(&request(Some("flow-heun"))).unwrap().warnings.is_empty());
}

/// What diffusers' `__call__` assumes, of every class of diffusers that this version runs.
#[test]
fn every_class_has_the_references_defaults() {
    let reference = json(&fixture("pipeline/defaults.json"));
    let (mut files, _) = load_model(&fixture("pipeline/sd15_text"));
    files.model_index["_class_name"] = "X".into();
    let error = inkbloom::pipeline::required_params(&files).unwrap_err().message;
    let classes: Vec<&str> = error.split_once("this version runs ").unwrap().1.split(", ").collect();
    assert_eq!(classes.len(), 2 + reference.as_object().unwrap().len(), "{classes:?}");
    for class in classes.into_iter().filter(|class| !["InkbloomPipeline", JANUS].contains(class)) {
        let case = match class {
            _ if class.starts_with("StableDiffusionXL") => "sdxl_text",
            _ if class.starts_with("StableDiffusion3") => "sd3_text",
            "FluxFillPipeline" => "flux_fill",
            _ if class.starts_with("Flux") => "flux_guided",
            _ if class.starts_with("PixArt") => "pixart_sigma",
            "LattePipeline" => "latte_ddim",
            "GlmImagePipeline" => "glm_image",
            _ => "sd15_text",
        };
        let (mut files, weights) = load_model(&fixture("pipeline").join(case));
        files.model_index["_class_name"] = class.into();
        let expected = &reference[class];
        if !expected["max_sequence_length"].is_null() {
            // The tiny tokenizer's own limit would hide the class's.
            files.configs.get_mut("tokenizer").unwrap()["model_max_length"] = 512.into();
            files.model_index["max_text_tokens"] = serde_json::Value::Null;
        }
        let model = Pipeline::load(&files, &weights).unwrap();
        let info = model.info();
        assert_eq!(info.default_steps as u64, expected["num_inference_steps"].as_u64().unwrap(), "{class}");
        assert_eq!(f64::from(info.default_guidance), expected["guidance_scale"].as_f64().unwrap(), "{class}");
        if let Some(frames) = expected["num_frames"].as_u64() {
            assert_eq!(info.default_frames as u64, frames, "{class}");
        }
        if let Some(most) = expected["max_sequence_length"].as_u64() {
            assert_eq!(info.max_text_tokens as u64, most, "{class}");
        }
    }
}

/// diffusers' `calculate_shift` over the patches that the network sees.
#[test]
fn dynamic_shifting_follows_the_pictures_size() {
    let (mut files, weights) = load_model(&fixture("pipeline/sticker_tiny"));
    files.configs.get_mut("scheduler").unwrap()["use_dynamic_shifting"] = true.into();
    let model = Pipeline::load(&files, &weights).unwrap();
    let second = |side| {
        let request = Request {
            prompt: "a red apple".into(),
            steps: Some(2),
            width: Some(side),
            height: Some(side),
            ..Default::default()
        };
        f64::from(model.plan(&request).unwrap().schedule.steps[1].timestep)
    };
    let shifted = |patches: f64| 1000.0 / (1.0 + (-(patches - 256.0) * 0.65 / 3840.0 - 0.5f64).exp());
    // 16 pixels to a patch.
    assert!((second(32) - shifted(4.0)).abs() < 1e-3, "{}", second(32));
    assert!((second(128) - shifted(64.0)).abs() < 1e-3, "{}", second(128));
}

fn flat(width: usize, height: usize, pixel: [u8; 4]) -> Image {
    Image { width, height, rgba: pixel.repeat(width * height) }
}

#[test]
fn bad_pictures_masks_strengths_and_schedulers_are_refused_in_words() {
    let (files, weights) = load_model(&fixture("pipeline/sd15_img2img"));
    let model = Pipeline::load(&files, &weights).unwrap();
    let [grey, white, black] = [127, 255, 0].map(|value| flat(32, 32, [value, value, value, 255]));
    let good = || Request { prompt: "a crown".into(), init: Some(grey.clone()), ..Default::default() };
    let refused: [(Request, &str); 12] = [
        (Request { strength: Some(0.0), ..good() }, "above 0"),
        (Request { strength: Some(1.01), ..good() }, "up to 1"),
        (Request { strength: Some(f64::NAN), ..good() }, "strength"),
        (Request { strength: Some(0.1), steps: Some(5), ..good() }, "none of 5 steps"),
        (Request { strength: Some(0.5), init: None, ..good() }, "init picture"),
        (Request { mask: Some(white.clone()), init: None, ..good() }, "init picture"),
        (Request { mask: Some(flat(32, 40, [255; 4])), ..good() }, "the mask is 32 x 40"),
        (Request { mask: Some(black), ..good() }, "no white pixel"),
        (Request { width: Some(40), ..good() }, "the init picture is 32 x 32"),
        (
            Request { init: Some(flat(30, 32, [0; 4])), ..good() },
            "the width of 30 pixels cannot be drawn; give a multiple of 4",
        ),
        (Request { scheduler: Some("flow-euler".into()), ..good() }, "not trained for the scheduler flow-euler"),
        (Request { scheduler: Some("best".into()), ..good() }, "euler-a"),
    ];
    for (request, expected) in refused {
        let error = model.plan(&request).unwrap_err();
        assert_eq!(error.code, inkbloom::Code::BadInput);
        assert!(error.message.contains(expected), "{error} lacks {expected}");
    }
    let plan = model.plan(&Request { mask: Some(white), ..good() }).unwrap();
    assert_eq!(plan.strength, 1.0);
    let plan = model.plan(&Request { steps: Some(10), ..good() }).unwrap();
    assert_eq!((plan.strength, plan.schedule.steps.len()), (0.8, 8));
    let plan = model.plan(&Request { init: Some(flat(32, 32, [9, 9, 9, 100])), ..good() }).unwrap();
    assert!(plan.warnings.iter().any(|warning| warning.contains("over white")), "{:?}", plan.warnings);

    let (files, weights) = load_model(&fixture("pipeline/sd15_inpaint_9"));
    let model = Pipeline::load(&files, &weights).unwrap();
    for init in [None, Some(grey.clone())] {
        let error = model.plan(&Request { init, ..good() }).unwrap_err();
        assert!(error.message.contains("only repaints"), "{error}");
    }
}

/// Every scheduler draws with a model that was trained on noise, from a prompt and from a picture.
#[test]
fn another_scheduler_draws_too() {
    let (files, weights) = load_model(&fixture("pipeline/sd15_text"));
    let mut model = Pipeline::load(&files, &weights).unwrap();
    let mut seen = Vec::new();
    for scheduler in [
        "ddpm",
        "ddim",
        "dpm++",
        "dpm++-single",
        "unipc",
        "deis",
        "euler",
        "euler-a",
        "heun",
        "lms",
        "dpm2",
        "kdpm2-a",
        "pndm",
        "lcm",
        "tcd",
        "EulerDiscreteScheduler",
    ] {
        for init in [None, Some(flat(32, 32, [200, 40, 90, 255]))] {
            let request = Request {
                prompt: "a cat".into(),
                steps: Some(5),
                scheduler: Some(scheduler.into()),
                width: Some(32),
                height: Some(32),
                init,
                ..Default::default()
            };
            let images = run(&mut model, &request).generated.images;
            assert_eq!(
                images,
                run(&mut model, &request).generated.images,
                "{scheduler}: the same seed, another picture"
            );
            seen.push(images);
        }
    }
    // Two pictures of each: the class that comes last is the seventh by its short name.
    assert_eq!(seen[12], seen[30], "a class is its short name's scheduler");
    assert!(seen[..30].iter().enumerate().all(|(i, images)| !seen[..i].contains(images)), "two draw the same");
}

#[test]
fn a_tokenizer_of_another_model_is_refused_in_words() {
    let (mut files, weights) = load_model(&fixture("pipeline/sd15_text"));
    files.tokenizers.get_mut("tokenizer").unwrap()["model"]["vocab"]["a</w>"] = 60_000.into();
    let mut model = Pipeline::load(&files, &weights).unwrap();
    let request = Request { prompt: "a cat".into(), steps: Some(1), ..Default::default() };
    let error = pollster::block_on(model.generate(&request, async |_| Ok(()))).unwrap_err();
    assert!(error.message.contains("not its tokenizer"), "{error}");
}

#[test]
fn what_steers_stable_diffusion_3_and_flux_is_checked_and_told() {
    let load = |case: &str| {
        let (files, weights) = load_model(&fixture("pipeline").join(case));
        Pipeline::load(&files, &weights).unwrap()
    };
    let good = || Request { prompt: "a cat".into(), width: Some(32), height: Some(32), ..Default::default() };
    let negative = || Request { negative_prompt: "rain".into(), ..good() };
    let skip = |layers: &[usize]| Some(SkipLayers::new(layers.to_vec()));
    let [sd3, flux, schnell, classic, lcm] =
        ["sd3_text", "flux_guided", "flux_plain", "sd15_text", "sd15_lcm"].map(load);

    let refused: [(&Pipeline, Request, &str); 10] = [
        (&sd3, Request { true_guidance: Some(2.0), ..negative() }, "no true guidance"),
        (&classic, Request { true_guidance: Some(2.0), ..negative() }, "no true guidance"),
        (&flux, Request { true_guidance: Some(101.0), ..negative() }, "the true guidance 101"),
        (&flux, Request { true_guidance: Some(f32::NAN), ..negative() }, "the true guidance NaN"),
        (&flux, Request { skip_layers: skip(&[0]), ..good() }, "cannot skip layers"),
        (&classic, Request { skip_layers: skip(&[0]), ..good() }, "cannot skip layers"),
        (
            &sd3,
            Request { skip_layers: skip(&[1, 2]), ..good() },
            "no layer 2 to skip; this model has the layers 0 to 1",
        ),
        (&sd3, Request { skip_layers: skip(&[1]), guidance: Some(1.0), ..good() }, "guidance above 1"),
        (
            &sd3,
            Request { skip_layers: skip(&[1]).map(|skip| SkipLayers { stop: 1.5, ..skip }), ..good() },
            "shares of the steps",
        ),
        // 24 x 2 positions of 4 pixels.
        (&sd3, Request { width: Some(200), ..good() }, "table of positions ends at 192 pixels"),
    ];
    for (model, request, expected) in refused {
        let error = model.plan(&request).unwrap_err();
        assert_eq!(error.code, inkbloom::Code::BadInput);
        assert!(error.message.contains(expected), "{error} lacks {expected}");
    }

    // The plan's scale, and what is said of what does not act.
    let told: [(&Pipeline, Request, Option<f32>, &str); 10] = [
        (&sd3, negative(), Some(7.0), ""),
        (&sd3, Request { guidance: Some(1.0), ..negative() }, None, "give a guidance above 1"),
        (&flux, good(), None, ""),
        (&flux, negative(), None, "give a true guidance above 1"),
        (&flux, Request { true_guidance: Some(1.0), ..negative() }, None, "give a true guidance above 1"),
        (&flux, Request { true_guidance: Some(2.5), ..negative() }, Some(2.5), ""),
        (&flux, Request { true_guidance: Some(2.5), ..good() }, None, "there is no negative prompt"),
        (&schnell, Request { guidance: Some(3.0), ..good() }, None, "not trained to be told one"),
        (&classic, Request { guidance: Some(0.5), ..negative() }, None, "give a guidance above 1"),
        (&lcm, negative(), None, "never shown one"),
    ];
    let plan = |steps| sd3.plan(&Request { skip_layers: skip(&[1]), steps: Some(steps), ..good() }).unwrap().warnings;
    let skipped = |steps| plan(steps).iter().any(|warning| warning.contains("no layer is skipped"));
    assert_eq!([5, 6, 28].map(skipped), [true, false, false]);
    for (model, request, guides, expected) in told {
        let plan = model.plan(&request).unwrap();
        assert_eq!(plan.guides, guides, "{expected}");
        let mut warnings = plan.warnings;
        warnings.retain(|warning| warning.contains("not used"));
        assert_eq!(warnings.len(), usize::from(!expected.is_empty()), "{warnings:?} for {expected}");
        assert!(warnings.iter().all(|warning| warning.contains(expected)), "{warnings:?} for {expected}");
    }
}

#[test]
fn cousins_and_missing_encoders_are_named_with_what_runs() {
    let refused = |case: &str, edit: &dyn Fn(&mut inkbloom::weights::ModelFiles), expected: &[&str]| {
        let (mut files, _) = load_model(&fixture("pipeline").join(case));
        edit(&mut files);
        let error = inkbloom::pipeline::required_params(&files).unwrap_err();
        assert_eq!(error.code, inkbloom::Code::BadModel);
        assert!(expected.iter().all(|word| error.message.contains(word)), "{error} lacks {expected:?}");
    };
    for class in ["Flux2KleinPipeline", "QwenImagePipeline", "ZImagePipeline", "FluxKontextPipeline"] {
        let edit = |files: &mut inkbloom::weights::ModelFiles| files.model_index["_class_name"] = class.into();
        refused("flux_guided", &edit, &["`_class_name`", class, "FluxFillPipeline", "StableDiffusion3Pipeline"]);
    }
    let of_transformer = |files: &mut inkbloom::weights::ModelFiles| {
        files.model_index["transformer"][1] = "Flux2Transformer2DModel".into()
    };
    refused(
        "flux_guided",
        &of_transformer,
        &["`transformer`", "Flux2Transformer2DModel", "knows FluxTransformer2DModel"],
    );
    refused("sd3_text", &of_transformer, &["`transformer`", "Flux2Transformer2DModel", "knows SD3Transformer2DModel"]);
    // One of more channels than latents have, which fills nothing.
    let wide = |files: &mut inkbloom::weights::ModelFiles| {
        files.configs.get_mut("transformer").unwrap()["in_channels"] = 32.into();
        files.configs.get_mut("transformer").unwrap()["out_channels"] = 16.into();
    };
    refused("flux_guided", &wide, &["`in_channels` is 32", "inpainting takes 24; the network takes 8"]);
    for (case, component) in
        [("sd3_text", "text_encoder_2"), ("sd3_text", "text_encoder"), ("flux_plain", "text_encoder_2")]
    {
        let without = |files: &mut inkbloom::weights::ModelFiles| {
            files.model_index[component] = serde_json::json!([null, null]);
        };
        refused(case, &without, &[component, "names no class"]);
    }
}

/// Weights that a half-precision path would turn into infinity and then into a black picture: each is itself a good
/// f16, but what they make is not. Everything here is computed in f32, whatever the weights were stored as.
#[test]
fn weights_that_overflow_f16_still_draw() {
    const LARGEST_F16: f32 = 65504.0;
    let case = fixture("pipeline/pixart_sigma");
    let (files, _) = load_model(&case);
    let reference = tensors(&case.join("reference.safetensors"));
    // T5's perceptron and the autoencoder's first convolution, where the published models do overflow.
    let weights = Tensors::new(&Device::flex());
    for component in ["text_encoder", "transformer", "vae"] {
        let file = if component == "text_encoder" { "model" } else { "diffusion_pytorch_model" };
        for (name, (shape, mut values)) in tensors(&case.join(component).join(format!("{file}.safetensors"))) {
            if name.contains("DenseReluDense.w") || name == "decoder.conv_in.weight" {
                let largest = values.iter().fold(0f32, |max, v| max.max(v.abs()));
                values.iter_mut().for_each(|v| *v = half::f16::from_f32(*v * 30_000.0 / largest).to_f32());
                assert!(values.iter().all(|v| v.is_finite()));
            }
            weights.insert(&format!("{component}/{name}"), &shape, values);
        }
    }
    // A naive path does overflow: one term alone of the convolution, before any norm.
    let mut latents = reference.iter().filter(|(name, _)| name.starts_with("latent."));
    let latent = latents.next_back().unwrap().1.1.iter().fold(0f32, |max, v| max.max(v.abs()));
    assert!(latent / 0.13025 * 30_000.0 > LARGEST_F16, "{latent}");

    let mut model = Pipeline::load(&files, &weights).unwrap();
    let dump = run(&mut model, &request(&case, &reference));
    assert!(dump.values.values().all(|(_, values)| values.iter().all(|v| v.is_finite())));
    let image = &dump.generated.images[0];
    let colour = image.rgba[..4].to_vec();
    assert!(image.rgba.chunks_exact(4).any(|pixel| pixel != colour), "one colour all over");
}

/// A small autoencoder sees only a few positions around, so away from seams tiles change nothing.
#[test]
fn tiles_decode_to_the_whole_picture_away_from_seams() {
    let (files, weights) = load_model(&fixture("pipeline/sticker_straight"));
    let mut model = Pipeline::load(&files, &weights).unwrap();
    let request = |tile| Request {
        prompt: "a red apple".into(),
        steps: Some(1),
        width: Some(128),
        height: Some(128),
        tile,
        ..Default::default()
    };
    let mut image = |tile| run(&mut model, &request(tile)).values.remove("image").unwrap().1;
    let (whole, tiled) = (image(None), image(Some(64)));
    assert_eq!(whole.len(), tiled.len());
    assert_eq!(whole, image(Some(128)));
    // The second tile begins 32 pixels in, and the first one's own edge is 48 away: further than the decoder looks.
    let corner =
        |values: &[f32]| -> Vec<f32> { (0..16).flat_map(|y| values[y * 128..y * 128 + 16].to_vec()).collect() };
    assert!(relative_error(&corner(&tiled), &corner(&whole)) < 1e-5);
    let seams = relative_error(&tiled, &whole);
    println!("tiles differ by {seams:.1e} over the whole picture");
    assert!(seams < 0.1, "{seams}");
    let error = model.plan(&request(Some(8))).unwrap_err();
    assert!(error.message.contains("at least"), "{error}");
}

/// Configs as people have them on their disks, which say less and more than what diffusers writes today.
#[test]
fn published_configs_are_read_as_diffusers_reads_them() {
    let (files, weights) = load_model(&fixture("pipeline/sd15_text"));
    let (mut older, again) = load_model(&fixture("pipeline/sd15_text"));
    older.configs.get_mut("vae").unwrap().as_object_mut().unwrap().remove("scaling_factor");
    // Stable Diffusion 1.5's own.
    older.configs.insert(
        "scheduler".into(),
        serde_json::json!({
            "_class_name": "PNDMScheduler", "_diffusers_version": "0.6.0", "beta_end": 0.012,
            "beta_schedule": "scaled_linear", "beta_start": 0.00085, "num_train_timesteps": 1000,
            "set_alpha_to_one": false, "skip_prk_steps": true, "steps_offset": 1, "trained_betas": null,
            "clip_sample": false,
        }),
    );
    let request =
        Request { prompt: "a cat".into(), steps: Some(3), width: Some(32), height: Some(32), ..Default::default() };
    let draw = |files, weights| run(&mut Pipeline::load(files, weights).unwrap(), &request).generated.images;
    assert_eq!(draw(&files, &weights), draw(&older, &again));
}
