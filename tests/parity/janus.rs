use std::path::Path;

use burn::tensor::Device;
use inkbloom::{
    Result,
    autoencoder::janus_vq::{JanusVq, JanusVqConfig},
    autoregress::{
        janus::{Janus, JanusConfig, JanusRun, JanusTokens},
        sample::Sampling,
    },
    pipeline::{Event, JANUS, Pipeline, Request, Way, memory_needs, required_params, ways},
    values::read,
    weights::{Config, ModelFiles, Tensors},
};

use crate::{autoencoder::grids, support::*};

const GREEDY: Sampling = Sampling { temperature: 0.0, top_k: 0, top_p: 1.0 };

fn load(case: &Path) -> (Janus, JanusVq) {
    let config = json(&case.join("config.json"));
    let weights = Tensors::new(&Device::flex());
    load_weights(case, "", &weights);
    let config = Config::new("config.json", &config).unwrap();
    let vq = JanusVqConfig::read(&config.object("vq_config").unwrap().unwrap()).unwrap();
    let janus = Janus::load(&weights.params(""), JanusConfig::read(&config).unwrap()).unwrap();
    (janus, JanusVq::load(&weights.params("").at("model.vqmodel"), &vq).unwrap())
}

/// The prompt, the ids that guidance keeps, and its scale.
fn asked(case: &Path, reference: &Values) -> (Vec<i64>, JanusTokens, f64) {
    let settings = json(&case.join("generation_config.json"));
    let id = |value: &serde_json::Value| value.as_i64().unwrap();
    let tokens = JanusTokens {
        bos: id(&settings["bos_token_id"]),
        boi: id(&settings["generation_kwargs"]["boi_token_id"]),
        pad: id(&settings["pad_token_id"]),
    };
    let prompt = reference["input_ids"].1.iter().map(|id| *id as i64).collect();
    (prompt, tokens, settings["guidance_scale"].as_f64().unwrap())
}

/// The guided logits of every place, and the tokens that follow from them or were given.
fn draw(janus: &Janus, mut run: JanusRun, given: Option<&[f32]>) -> (Vec<f32>, Vec<f32>) {
    let mut all = Vec::new();
    while !run.is_done() {
        let logits = pollster::block_on(run.logits()).unwrap();
        let place = run.tokens().codes.len();
        run.push(given.map_or_else(|| GREEDY.draw(&logits, &[]) as u32, |given| given[place] as u32));
        all.extend(logits.iter().map(|logit| *logit as f32));
    }
    assert_eq!(run.tokens().grid, [janus.config().side; 2]);
    (all, run.tokens().codes.iter().map(|code| *code as f32).collect())
}

#[test]
fn janus_draws_the_references_tokens() {
    for case in cases("autoregress", "janus_", 2) {
        let (janus, _) = load(&case);
        let reference = tensors(&case.join("reference.safetensors"));
        let (prompt, tokens, guidance) = asked(&case, &reference);
        let run = || JanusRun::new(&janus, &prompt, tokens, guidance).unwrap();
        let (logits, drawn) = draw(&janus, run(), None);
        assert_eq!(drawn, reference["tokens"].1, "{}", case.display());
        assert_close(&case, "logits", &logits, &reference, TOLERANCE);
        // Others, which the reference read all at once and without a cache.
        let (logits, _) = draw(&janus, run(), Some(&reference["given_tokens"].1));
        assert_close(&case, "given_logits", &logits, &reference, TOLERANCE);
    }
}

#[test]
fn janus_vqvae_encodes_and_decodes_as_the_reference() {
    for case in cases("autoregress", "janus_", 2) {
        let (janus, vq) = load(&case);
        let side = janus.config().side;
        let reference = tensors(&case.join("reference.safetensors"));
        let latents = vq.encode(tensor(&reference, "image"));
        assert_close(&case, "latents", &numbers(latents.clone()), &reference, TOLERANCE);
        let codes = pollster::block_on(vq.codes(latents)).unwrap();
        assert_eq!(codes, grids(&reference, "codes", [side; 2]));
        let drawn = &grids(&reference, "tokens", [side; 2])[0];
        assert_close(&case, "decoded", &numbers(vq.decode(drawn).unwrap()), &reference, TOLERANCE);
    }
}

#[test]
fn janus_refuses_what_does_not_fit() {
    let case = fixture("autoregress/janus_pro");
    let (janus, _) = load(&case);
    let reference = tensors(&case.join("reference.safetensors"));
    let (prompt, tokens, guidance) = asked(&case, &reference);
    let error = |prompt: &[i64]| JanusRun::new(&janus, prompt, tokens, guidance).err().unwrap().message;
    assert!(error(&[]).contains("no tokens"));
    assert!(error(&[prompt[0], 60]).contains("the id 60"));
    assert!(error(&prompt.repeat(6)).contains("64 places"));
    let mut config = json(&case.join("config.json"));
    config["vision_config"]["num_image_tokens"] = 15.into();
    let error = JanusConfig::read(&Config::new("config.json", &config).unwrap()).unwrap_err();
    assert!(error.message.contains("num_image_tokens") && error.message.contains("4 x 4"), "{error}");
}

/// What the command line makes of the folder that transformers publishes.
fn files(case: &Path) -> ModelFiles {
    let mut files = ModelFiles {
        model_index: serde_json::json!({"_class_name": JANUS, "model": ["transformers", JANUS]}),
        ..Default::default()
    };
    for (component, file) in
        [("model", "config.json"), ("generation", "generation_config.json"), ("tokenizer", "tokenizer_config.json")]
    {
        files.configs.insert(component.to_owned(), json(&case.join(file)));
    }
    files.tokenizers.insert("tokenizer".to_owned(), json(&case.join("tokenizer.json")));
    files
}

fn pipeline(case: &Path) -> (Pipeline, Values) {
    let files = files(case);
    let weights = Tensors::new(&Device::flex());
    load_weights(case, "model/", &weights);
    (Pipeline::load(&files, &weights).unwrap(), tensors(&case.join("reference.safetensors")))
}

/// Codes, logits and pixels of a drawing.
fn drawn(model: &mut Pipeline, request: &Request, expected_ids: Option<&[f32]>) -> [Vec<f32>; 3] {
    let (mut logits, mut codes, mut image, mut rows) = (Vec::new(), Vec::new(), Vec::new(), 0);
    let [size, _] = model.info().sizes[0];
    let note = async |event: Event<'_>| -> Result<()> {
        match event {
            Event::Text { tokens, embedding } => {
                let ids: Vec<f32> = tokens[0].ids.iter().map(|id| *id as f32).collect();
                assert!(expected_ids.is_none_or(|expected| ids == expected));
                assert_eq!(embedding.hidden.dims()[..2], [1, ids.len()]);
            }
            Event::Tokens { tokens, logits: row, preview, .. } => {
                codes = tokens.codes.iter().map(|code| *code as f32).collect();
                logits.extend(row.iter().flat_map(|draw| draw.values.clone()));
                let preview = preview.unwrap().image().await?;
                assert_eq!([preview.width, preview.height], [size; 2]);
                // What is not drawn yet is white.
                rows += 1;
                let white = preview.rgba[4 * size * (size - 1)..].iter().all(|value| *value == 255);
                assert_eq!(white, rows * rows < tokens.grid[0] * tokens.grid[1]);
            }
            Event::Decoded { pixels, .. } => image = read(pixels.clone()).await?,
            _ => panic!("an event of another way"),
        }
        Ok(())
    };
    let generated = pollster::block_on(model.generate(request, note)).unwrap();
    assert_eq!([generated.images[0].width, generated.images[0].height], [size; 2]);
    [codes, logits, image]
}

#[test]
fn janus_end_to_end_is_the_references() {
    for case in cases("autoregress", "janus_", 2) {
        let (mut model, reference) = pipeline(&case);
        let prompt = json(&case.join("request.json"))["prompt"].as_str().unwrap().to_owned();
        let greedy = Request { prompt: prompt.clone(), temperature: Some(0.0), ..Default::default() };
        let injected = Request {
            prompt,
            way: Some(Way::Tokens),
            tokens: reference["tokens"].1.iter().map(|token| [*token as u32, 0]).collect(),
            ..Default::default()
        };
        for request in [greedy, injected] {
            let [codes, logits, image] = drawn(&mut model, &request, Some(&reference["input_ids"].1));
            assert_eq!(codes, reference["tokens"].1, "{}", case.display());
            assert_close(&case, "logits", &logits, &reference, TOLERANCE);
            assert_close(&case, "decoded", &image, &reference, 5e-4);
        }
    }
}

#[test]
fn what_janus_needs_is_known_without_its_weights() {
    let files = files(&fixture("autoregress/janus_pro"));
    assert_eq!(ways(&files).unwrap(), [Way::Tokens]);
    let listed = required_params(&files).unwrap();
    assert!(listed.iter().any(|param| param.name == "model/model.generation_head.vision_head.weight"));
    assert!(listed.iter().all(|param| !param.name.contains("vision_model")), "the vision tower is not fetched");
    let needs = memory_needs(&files).unwrap();
    let values: usize = listed.iter().map(|param| param.shape.iter().product::<usize>()).sum();
    assert_eq!((needs.text, needs.other), (0, 4 * values as u64));
    // Keys and values of two rows, at 48 places of a prompt and 16 of the picture, in two layers of 32 features each.
    assert!(needs.denoising > 4 * 2 * 2 * 2 * 64 * 32, "{needs:?}");
    // The decoder's finest map holds 64 features for each of 2 x 2 pixels.
    assert_eq!(needs.decoding, 3 * 4 * (64 * 4) * 16);
}

#[test]
fn janus_says_what_it_cannot_do() {
    let (mut model, _) = pipeline(&fixture("autoregress/janus_one_level"));
    let request = Request { prompt: "a cat".to_owned(), ..Default::default() };
    let refused = |request: Request| model.plan(&request).unwrap_err().message;
    assert!(refused(Request { way: Some(Way::Diffusion), ..request.clone() }).contains("it knows tokens"));
    assert!(refused(Request { prompt: " ".to_owned(), ..request.clone() }).contains("the prompt is empty"));
    assert!(refused(Request { candidates: Some(4), ..request.clone() }).contains("no scorer"));
    assert!(refused(Request { negative_prompt: "a dog".to_owned(), ..request.clone() }).contains("no negative prompt"));
    assert!(refused(Request { frames: Some(4), ..request.clone() }).contains("single pictures"));
    assert!(refused(Request { count: Some(0), ..request.clone() }).contains("at least 1"));
    assert!(refused(Request { width: Some(512), ..request.clone() }).contains("no side of 512"));
    assert!(refused(Request { tokens: vec![[32, 0]], ..request.clone() }).contains("another tokenizer"));
    assert!(refused(Request { top_p: Some(0.0), ..request.clone() }).contains("top p"));
    assert!(refused(Request { guidance: Some(f32::NAN), ..request.clone() }).contains("guidance"));
    let plan = model.plan(&Request { steps: Some(4), ..request.clone() }).unwrap();
    assert!(plan.warnings[0].contains("number of steps is not used"), "{:?}", plan.warnings);
    let long = Request { prompt: "cat ".repeat(60), ..request.clone() };
    let error = pollster::block_on(model.generate(&long, async |_| Ok(()))).unwrap_err();
    assert!(error.message.contains("shorten it"), "{error}");
    // The same seed draws the same tokens, and another draws others.
    let mut codes = |seed| drawn(&mut model, &Request { seed, ..request.clone() }, None)[0].clone();
    assert_eq!(codes(1), codes(1));
    assert_ne!(codes(1), codes(2));
}
