use std::path::Path;

use burn::tensor::Device;
use inkbloom::{
    autoencoder::janus_vq::{JanusVq, JanusVqConfig},
    autoregress::{
        janus::{Janus, JanusConfig, JanusRun, JanusTokens},
        sample::Sampling,
    },
    weights::{Config, Tensors},
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
    (janus, JanusVq::load(&weights.params("model.vqmodel."), &vq).unwrap())
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
