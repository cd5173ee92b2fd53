use burn::tensor::Device;
use inkbloom::{
    Code,
    denoise::noise,
    pipeline::{Event, Generated, Keep, Pipeline, Request, SCORER},
    score::{Scorer, ScorerConfig},
    values::TextEmbedding,
    weights::{Config, Tensors, list_params},
};
use serde_json::json;

use crate::support::*;

#[test]
fn the_scorer_scores_as_the_reference() {
    for case in cases("score", "scorer_", 3) {
        let config = json(&case.join("config.json"));
        let weights = Tensors::new(&Device::flex());
        load_weights(&case, "", &weights);
        let config = ScorerConfig::read(&Config::new("config.json", &config).unwrap()).unwrap();
        let scorer = Scorer::from_params(&weights.params(""), config).unwrap();
        let reference = tensors(&case.join("reference.safetensors"));
        let text = TextEmbedding {
            hidden: tensor(&reference, "encoder_hidden_states"),
            attention_mask: Some(tensor(&reference, "encoder_attention_mask")),
            pooled: None,
        };
        let scores = scorer.forward(tensor(&reference, "sample"), &text).unwrap();
        assert_close(&case, "output", &numbers(scores), &reference, TOLERANCE);
    }
}

/// `sticker_tiny` with a scorer of random weights.
fn model_that_chooses() -> Pipeline {
    let (mut files, weights) = load_model(&fixture("pipeline/sticker_tiny"));
    let text_embed_dim = files.configs["text_encoder"]["hidden_size"].clone();
    files.model_index[SCORER] = json!(["inkbloom", "InkbloomScorer"]);
    let config = json!({"sample_size": 8, "block_out_channels": [8, 12], "norm_num_groups": 4,
        "text_embed_dim": text_embed_dim, "projection_dim": 6});
    files.configs.insert(SCORER.to_owned(), config);
    let (params, _) = list_params(&Device::flex(), |tensors| Scorer::load(tensors, &files, SCORER)).unwrap();
    for (i, param) in params.iter().enumerate() {
        weights.insert(&param.name, &param.shape, noise::normal(7, i as u64, param.shape.iter().product()));
    }
    Pipeline::load(&files, &weights).unwrap()
}

fn draw(model: &mut Pipeline, request: &Request) -> (Generated, Vec<(u64, f32)>) {
    let mut told = Vec::new();
    let generated = pollster::block_on(model.generate(request, async |event| {
        if let Event::Candidate { seed, score, picture, .. } = event {
            assert_eq!((picture.width, picture.height), (32, 32));
            told.push((seed, score));
        }
        Ok(())
    }));
    (generated.unwrap(), told)
}

#[test]
fn the_best_candidates_come_back_best_first() {
    let mut model = model_that_chooses();
    let request = Request {
        prompt: "a cat".into(),
        seed: 5,
        steps: Some(1),
        width: Some(32),
        height: Some(32),
        candidates: Some(6),
        count: Some(2),
        ..Default::default()
    };
    let (chosen, mut told) = draw(&mut model, &request);
    assert_eq!(told.iter().map(|(seed, _)| *seed).collect::<Vec<_>>(), [5, 6, 7, 8, 9, 10]);
    told.sort_by(|(_, a), (_, b)| b.total_cmp(a));
    let expected: (Vec<u64>, Vec<f32>) = told.iter().copied().unzip();
    assert!(expected.1[0] > expected.1[5] + 1e-3, "the scores are all the same: {:?}", expected.1);
    assert_eq!((&chosen.seeds[..], &chosen.scores[..]), (&expected.0[..2], &expected.1[..2]));
    // Of all of them the last are decoded a second time, for few pictures are kept.
    let (all, _) = draw(&mut model, &Request { keep: Some(Keep::All), ..request.clone() });
    assert_eq!((all.images.len(), &all.seeds, &all.scores), (6, &expected.0, &expected.1));
    let drawn = [chosen, all].map(|drawn| drawn.images.into_iter().zip(drawn.seeds));
    for (image, seed) in &drawn.into_iter().flatten().collect::<Vec<_>>() {
        let alone = Request { seed: *seed, candidates: None, count: None, ..request.clone() };
        let (alone, told) = draw(&mut model, &alone);
        assert_eq!((&alone.images[0], &alone.seeds[..]), (image, &[*seed][..]));
        assert!(told.is_empty() && alone.scores.is_empty());
    }
}

#[test]
fn candidates_that_cannot_be_chosen_from_are_refused_in_words() {
    let refused = |model: &Pipeline, request: Request, words: &str| {
        let request = Request { prompt: "a cat".into(), width: Some(32), height: Some(32), ..request };
        let error = model.plan(&request).unwrap_err();
        assert!(error.code == Code::BadInput && error.message.contains(words), "{error}");
    };
    let some = |candidates, count| Request { candidates: Some(candidates), count: Some(count), ..Default::default() };
    let model = model_that_chooses();
    refused(&model, some(2, 3), "2 candidates are fewer than the 3 pictures");
    refused(&model, some(5000, 1), "5000 candidates are too many");
    refused(&model, Request { keep: Some(Keep::All), ..Default::default() }, "say how many");
    // It is six times 8 high, and its width no multiple of 6.
    let odd = Request { height: Some(48), ..some(2, 1) };
    let error = model.plan(&Request { prompt: "a cat".into(), width: Some(32), ..odd }).unwrap_err();
    assert!(error.message.contains("the scorer cannot look at 32 x 48 pixels"), "{error}");
    let (files, weights) = load_model(&fixture("pipeline/sticker_tiny"));
    refused(&Pipeline::load(&files, &weights).unwrap(), some(2, 1), "this model has no scorer");
}
