use std::path::Path;

use burn::tensor::Device;
use inkbloom::{
    Result,
    autoencoder::janus_vq::{JanusVq, JanusVqConfig},
    autoregress::{
        janus::{Janus, JanusConfig, JanusRun, JanusTokens},
        sample::Sampling,
    },
    pipeline::{
        Request,
        janus::{self, JanusEvent},
    },
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

/// The folder as transformers publishes it.
fn pipeline(case: &Path) -> (janus::Janus, Values) {
    let mut files = ModelFiles::default();
    for (component, file) in [
        (janus::MODEL, "config.json"),
        (janus::GENERATION, "generation_config.json"),
        (janus::TOKENIZER, "tokenizer_config.json"),
    ] {
        files.configs.insert(component.to_owned(), json(&case.join(file)));
    }
    files.tokenizers.insert(janus::TOKENIZER.to_owned(), json(&case.join("tokenizer.json")));
    let weights = Tensors::new(&Device::flex());
    load_weights(case, "model/", &weights);
    let listed = janus::Janus::required_params(&files, &Device::flex()).unwrap();
    assert!(listed.iter().any(|param| param.name == "model/model.generation_head.vision_head.weight"));
    assert!(listed.iter().all(|param| !param.name.contains("vision_model")), "the vision tower is not fetched");
    (janus::Janus::load(&files, &weights).unwrap(), tensors(&case.join("reference.safetensors")))
}

#[test]
fn janus_end_to_end_is_the_references() {
    for case in cases("autoregress", "janus_", 2) {
        let (model, reference) = pipeline(&case);
        let prompt = json(&case.join("request.json"))["prompt"].as_str().unwrap().to_owned();
        let greedy = Request { prompt: prompt.clone(), temperature: Some(0.0), ..Default::default() };
        let injected = Request {
            prompt,
            tokens: reference["tokens"].1.iter().map(|token| [*token as u32, 0]).collect(),
            ..Default::default()
        };
        for request in [greedy, injected] {
            let (mut logits, mut codes, mut image) = (Vec::new(), Vec::new(), Vec::new());
            let note = async |event: JanusEvent<'_>| -> Result<()> {
                match event {
                    JanusEvent::Text { ids } => {
                        let ids: Vec<f32> = ids.iter().map(|id| *id as f32).collect();
                        assert_eq!(ids, reference["input_ids"].1);
                    }
                    JanusEvent::Tokens { tokens, logits: row, .. } => {
                        codes = tokens.codes.iter().map(|code| *code as f32).collect();
                        logits.extend(row.iter().flat_map(|draw| draw.values.clone()));
                    }
                    JanusEvent::Decoded { pixels, .. } => image = read(pixels.clone()).await?,
                }
                Ok(())
            };
            let generated = pollster::block_on(model.generate(&request, note)).unwrap();
            assert_eq!(codes, reference["tokens"].1, "{}", case.display());
            assert_close(&case, "logits", &logits, &reference, TOLERANCE);
            assert_close(&case, "decoded", &image, &reference, 5e-4);
            assert_eq!([generated.images[0].width, generated.images[0].height], [model.size(); 2]);
        }
    }
}

#[test]
fn janus_says_what_it_cannot_do() {
    let (model, _) = pipeline(&fixture("autoregress/janus_one_level"));
    let refused = |request: Request| {
        pollster::block_on(model.generate(&request, async |_| Ok(()))).err().map(|error| error.message).unwrap()
    };
    let request = Request { prompt: "a cat".to_owned(), ..Default::default() };
    assert!(refused(Request { steps: Some(4), ..request.clone() }).contains("no steps"));
    assert!(refused(Request { candidates: Some(4), ..request.clone() }).contains("no scorer"));
    assert!(refused(Request { width: Some(512), ..request.clone() }).contains("no side of 512"));
    assert!(refused(Request { tokens: vec![[32, 0]], ..request.clone() }).contains("the token 32"));
    assert!(refused(Request { top_p: Some(0.0), ..request.clone() }).contains("top-p"));
    assert!(refused(Request { prompt: "cat ".repeat(60), ..request.clone() }).contains("shorten it"));
    // The same seed draws the same tokens, and another draws others.
    let drawn = |seed| {
        let mut codes = Vec::new();
        let request = Request { seed, ..request.clone() };
        let note = async |event: JanusEvent<'_>| -> Result<()> {
            if let JanusEvent::Tokens { tokens, .. } = event {
                codes = tokens.codes.clone();
            }
            Ok(())
        };
        pollster::block_on(model.generate(&request, note)).unwrap();
        codes
    };
    assert_eq!(drawn(1), drawn(1));
    assert_ne!(drawn(1), drawn(2));
}
