use std::path::Path;

use burn::tensor::Device;
use inkbloom::{
    Result,
    autoregress::glm_image::{GlmImage, GlmImageConfig, GlmImageRun},
    pipeline::{Event, Pipeline, Request, Stage, Way, memory_needs},
    values::read,
    weights::{Config, Tensors},
};
use serde_json::json as value;

use crate::support::*;

fn load(case: &Path) -> GlmImage {
    let config = json(&case.join("config.json"));
    let weights = Tensors::new(&Device::flex());
    load_weights(case, "", &weights);
    let config = GlmImageConfig::read(&Config::new("config.json", &config).unwrap()).unwrap();
    GlmImage::load(&weights.params(""), config).unwrap()
}

#[test]
fn the_language_model_lays_out_as_the_reference() {
    for case in cases("autoregress", "glm_image_", 2) {
        let model = load(&case);
        let reference = tensors(&case.join("reference.safetensors"));
        let numbers = |name: &str| reference[name].1.iter().map(|value| *value as usize).collect::<Vec<_>>();
        let prompt: Vec<i64> = numbers("input_ids").into_iter().map(|id| id as i64).collect();
        let grids = ["small", "large"].map(|name| <[usize; 2]>::try_from(numbers(name)).unwrap());
        let given = numbers("tokens");
        let mut run = GlmImageRun::new(&model, &prompt, grids).unwrap();
        let mut logits = Vec::new();
        for code in &given {
            assert!(!run.is_done());
            logits.extend(pollster::block_on(run.logits()).unwrap());
            run.push(*code as u32);
        }
        assert!(run.is_done());
        assert_close(&case, "logits", &logits, &reference, TOLERANCE);
        let drawn = [0, 1].map(|grid| run.tokens(grid));
        assert_eq!([drawn[0].grid, drawn[1].grid], grids);
        let codes = drawn.iter().flat_map(|tokens| &tokens.codes).map(|code| *code as usize);
        assert_eq!(codes.collect::<Vec<_>>(), given);
    }
}

#[test]
fn the_language_model_refuses_what_does_not_fit() {
    let case = fixture("autoregress/glm_image_half");
    let model = load(&case);
    let start = model.config().image_start_token_id;
    let error = |prompt: &[i64], side| GlmImageRun::new(&model, prompt, [[2, 2], [side, side]]).err().unwrap().message;
    assert!(error(&[], 2).contains("does not end the prompt"));
    assert!(error(&[30, 31], 2).contains("the token 20"));
    assert!(error(&[80, start], 2).contains("beyond 80"));
    assert!(error(&[30, start], 40).contains("1606 tokens"));
    let refused = |key: &str, value: serde_json::Value| {
        let mut config = json(&case.join("config.json"));
        config["text_config"][key] = value;
        GlmImageConfig::read(&Config::new("config.json", &config).unwrap()).unwrap_err().message
    };
    assert!(refused("rope_parameters", value!({"mrope_section": [1, 1, 1]})).contains("4 pairs"));
    assert!(refused("rope_parameters", value!({"rope_type": "yarn"})).contains("rope_type"));
    assert!(refused("num_key_value_heads", value!(3)).contains("must divide"));
    assert!(refused("vision_vocab_size", value!(19)).contains("19 tokens"));
}

/// The fixture's folder, with what the command line makes of its chat template.
fn pipeline() -> (Pipeline, Values) {
    let case = fixture("pipeline/glm_image");
    let (mut files, weights) = load_model(&case);
    files.configs.get_mut("processor").unwrap()["around_prompt"] = value!(["[gMASK]<|user|>\n", ""]);
    let needs = memory_needs(&files).unwrap();
    assert!(needs.text == 0 && needs.other > 0 && needs.denoising > 0);
    (Pipeline::load(&files, &weights).unwrap(), tensors(&case.join("reference.safetensors")))
}

#[test]
fn glm_image_end_to_end_every_intermediate_is_the_references() {
    let case = fixture("pipeline/glm_image");
    let (mut model, reference) = pipeline();
    let asked = json(&case.join("request.json"));
    let number = |key: &str| Some(asked[key].as_u64().unwrap() as usize);
    let request = Request {
        prompt: asked["prompt"].as_str().unwrap().to_owned(),
        width: number("width"),
        height: number("height"),
        steps: number("steps"),
        guidance: Some(asked["guidance"].as_f64().unwrap() as f32),
        noise: Some(reference["noise"].1.clone()),
        tokens: reference["tokens"].1.iter().map(|code| [*code as u32, 0]).collect(),
        ..Default::default()
    };
    let plan = model.plan(&request).unwrap();
    assert_eq!(plan.way, Way::Hybrid);
    let told: Vec<f32> = plan.schedule.steps.iter().map(|step| step.timestep + 1.0).collect();
    assert_eq!(told, reference["timesteps"].1);
    let (mut logits, mut codes) = (Vec::new(), Vec::new());
    let note = async |event: Event<'_>| -> Result<()> {
        match event {
            Event::Text { tokens, embedding } => {
                let ids: Vec<f32> = tokens[0].ids.iter().map(|id| *id as f32).collect();
                assert_eq!(ids, reference["input_ids"].1);
                // Two parts are quoted.
                assert_eq!(tokens.len(), 3);
                assert_close(&case, "glyphs", &read(embedding.hidden.clone()).await?, &reference, TOLERANCE);
            }
            Event::Tokens { stage, row, rows, tokens, logits: noted, preview, .. } => {
                assert!(preview.is_none());
                assert_eq!(tokens.grid, if stage == Stage::Layout { [22, 11] } else { [2, 1] });
                logits.extend(noted.iter().flat_map(|draw| draw.values.clone()));
                if row == rows {
                    codes.extend(tokens.codes.iter().map(|code| *code as f32));
                }
            }
            Event::Step { step, x_t, preview, .. } => {
                assert_close(&case, &format!("latent.{step}"), &read(x_t.clone()).await?, &reference, 5e-4);
                assert_eq!(preview.image().await?.height, 32);
            }
            Event::Decoded { pixels, .. } => {
                assert_close(&case, "image", &read(pixels.clone()).await?, &reference, 5e-4);
            }
            _ => {}
        }
        Ok(())
    };
    let generated = pollster::block_on(model.generate(&request, note)).unwrap();
    assert_eq!(codes, reference["tokens"].1);
    assert_close(&case, "logits", &logits, &reference, TOLERANCE);
    assert_eq!([generated.images[0].width, generated.images[0].height], [32, 64]);
}

#[test]
fn glm_image_says_what_it_cannot_do() {
    let (model, _) = pipeline();
    let request = Request { prompt: "a cat".to_owned(), width: Some(64), height: Some(64), ..Default::default() };
    let refused = |request: Request| model.plan(&request).unwrap_err().message;
    assert!(refused(Request { width: Some(48), ..request.clone() }).contains("a multiple of 32 up to 4096"));
    assert!(refused(Request { way: Some(Way::Tokens), ..request.clone() }).contains("it knows hybrid"));
    assert!(refused(Request { tokens: vec![[20, 0]], ..request.clone() }).contains("another tokenizer"));
    assert!(refused(Request { noise: Some(vec![0.0; 3]), ..request.clone() }).contains("256 values"));
    assert!(refused(Request { steps: Some(0), ..request.clone() }).contains("0 steps"));
    assert!(refused(Request { candidates: Some(2), ..request.clone() }).contains("no scorer"));
}
