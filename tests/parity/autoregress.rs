use std::{collections::BTreeMap, path::Path};

use burn::tensor::Device;
use inkbloom::{
    Code, Error,
    autoencoder::codebook::{Codebook, CodebookConfig},
    autoregress::{Asked, Autoregressive, AutoregressiveConfig, Logits, Run, sample::Sampling},
    pipeline::{
        CODEBOOK, Event, Generated, MemoryBudget, MemoryPlan, Pipeline, Request, Search, Stage, Way, memory_needs,
    },
    values::{ImageTokens, TextEmbedding, read},
    weights::{Config, Tensors},
};

use crate::support::*;

fn load(case: &Path) -> Autoregressive {
    let config = json(&case.join("config.json"));
    let weights = Tensors::new(&Device::flex());
    load_weights(case, "", &weights);
    let config = AutoregressiveConfig::read(&Config::new("config.json", &config).unwrap()).unwrap();
    Autoregressive::from_params(&weights.params(""), config).unwrap()
}

/// Row `i` of a fixture's texts.
fn text(reference: &Values, i: usize) -> TextEmbedding {
    TextEmbedding {
        hidden: tensor::<3>(reference, "encoder_hidden_states").narrow(0, i, 1),
        attention_mask: Some(tensor::<2>(reference, "encoder_attention_mask").narrow(0, i, 1)),
        pooled: None,
    }
}

fn pairs((shape, values): &(Vec<usize>, Vec<f32>), row: usize) -> Vec<[u32; 2]> {
    let pairs: Vec<_> = values.chunks_exact(2).map(|pair| [pair[0] as u32, pair[1] as u32]).collect();
    let places = shape[shape.len() - 2];
    pairs[row * places..][..places].to_vec()
}

fn asked(model: &Autoregressive, tokens: Vec<[u32; 2]>) -> Asked {
    let config = model.config();
    Asked { sampling: config.sampling, guidance: config.guidance.clone(), tokens, gumbel: BTreeMap::new() }
}

/// All rows that are left.
fn finish(run: &mut Run) -> Vec<Logits> {
    let mut logits = Vec::new();
    while let Some(row) = pollster::block_on(run.row()).unwrap() {
        logits.extend(row.logits);
    }
    logits
}

/// The reference has no cache; ours goes place by place.
#[test]
fn teacher_forced_logits_with_the_cache_are_the_references_without() {
    for case in cases("autoregress", "autoregressive", 3) {
        let model = load(&case);
        let reference = tensors(&case.join("reference.safetensors"));
        let (config, grids) = (model.config(), model.config().grids.len());
        for row in 0..2 {
            let codes = pairs(&reference["codes"], row);
            let asked = asked(&model, codes.clone());
            let mut run = Run::new(&model, &text(&reference, row), &asked, &[0], grids).unwrap();
            let logits: BTreeMap<_, _> = finish(&mut run).into_iter().map(|noted| (noted.draw, noted.values)).collect();
            let shown = codes.iter().filter(|[first, _]| *first != 0).count();
            assert_eq!(logits.len(), codes.len() + shown);
            for (draw, ours) in logits {
                let (name, count) = [("first_logits", config.codes[0]), ("residual_logits", config.codes[1])][draw % 2];
                let place = row * codes.len() + draw / 2;
                let theirs = reference[name].1[place * count..][..count].to_vec();
                let expected = Values::from([(name.to_owned(), (vec![count], theirs))]);
                assert_close(&case, name, &ours, &expected, TOLERANCE);
            }
            assert_eq!(run.tokens(0, 0).codes.len(), config.coarse_places());
            let drawn: Vec<_> = (0..grids).flat_map(|grid| run.tokens(0, grid).codes).collect();
            assert_eq!(drawn, codes.iter().map(|[first, _]| *first).collect::<Vec<_>>());
        }
    }
}

#[test]
fn pictures_side_by_side_are_those_drawn_alone_and_branches_go_on_from_their_parents() {
    let case = fixture("autoregress/autoregressive_grouped");
    let model = load(&case);
    let reference = tensors(&case.join("reference.safetensors"));
    // Both texts: the first stands for the empty prompt.
    let text = TextEmbedding {
        hidden: tensor(&reference, "encoder_hidden_states"),
        attention_mask: Some(tensor(&reference, "encoder_attention_mask")),
        pooled: None,
    };
    let asked = asked(&model, Vec::new());
    let all = |run: &Run, i| [run.tokens(i, 0), run.tokens(i, 1)];
    let alone = |seed: u64| {
        let mut run = Run::new(&model, &text, &asked, &[seed], 2).unwrap();
        finish(&mut run);
        (all(&run, 0), run.hypotheses()[0].mutual_information)
    };
    let mut run = Run::new(&model, &text, &asked, &[5, 6, 7], 2).unwrap();
    for _ in 0..model.config().grids[0] {
        pollster::block_on(run.row()).unwrap();
    }
    let coarse: Vec<_> = (0..3).map(|i| run.tokens(i, 0)).collect();
    finish(&mut run);
    for (i, seed) in [5, 6, 7].into_iter().enumerate() {
        let (tokens, mutual_information) = alone(seed);
        assert_eq!(all(&run, i), tokens);
        assert!((run.hypotheses()[i].mutual_information - mutual_information).abs() < 1e-3);
        assert!(mutual_information != 0.0);
    }
    assert!(run.tokens(0, 0) != run.tokens(1, 0) && run.tokens(1, 0) != run.tokens(2, 0));

    // Seed 7's coarse grid goes on with the noise of 5, and that of 5 with the noise of 6.
    let mut run = Run::new(&model, &text, &asked, &[5, 6, 7], 2).unwrap();
    for _ in 0..model.config().grids[0] {
        pollster::block_on(run.row()).unwrap();
    }
    run.branch(&[2, 0]);
    let logits = finish(&mut run);
    assert_eq!([run.tokens(0, 0), run.tokens(1, 0)], [coarse[2].clone(), coarse[0].clone()]);
    let codes = |tokens: &ImageTokens| -> Vec<[u32; 2]> {
        tokens.codes.iter().zip(&tokens.residual).map(|(a, b)| [*a, *b]).collect()
    };
    let forced = Asked { tokens: codes(&coarse[2]), ..asked.clone() };
    let mut again = Run::new(&model, &text, &forced, &[5], 2).unwrap();
    let expected = finish(&mut again);
    assert_eq!(all(&run, 0), all(&again, 0));
    for ours in logits {
        let theirs = expected.iter().find(|noted| noted.draw == ours.draw).unwrap();
        assert!(relative_error(&ours.values, &theirs.values) < TOLERANCE);
    }
}

#[test]
fn codebooks_decode_as_the_reference() {
    for name in ["codebook", "codebook_decoder"] {
        let case = fixture(&format!("autoencoder/{name}"));
        let config = json(&case.join("config.json"));
        let weights = Tensors::new(&Device::flex());
        load_weights(&case, "", &weights);
        let config = CodebookConfig::read(&Config::new("config.json", &config).unwrap()).unwrap();
        let codebook = Codebook::from_params(&weights.params(""), config).unwrap();
        let reference = tensors(&case.join("reference.safetensors"));
        let (mut layout, mut decoded) = (Vec::new(), Vec::new());
        for row in 0..2 {
            let (codes, residual) = pairs(&reference["codes"], row).into_iter().map(|[a, b]| (a, b)).unzip();
            let tokens = ImageTokens { grid: [4, 4], codes, residual };
            layout.extend(numbers(codebook.layout(&tokens)));
            decoded.extend(numbers(codebook.decode(&tokens)));
        }
        assert_close(&case, "layout", &layout, &reference, TOLERANCE);
        assert_close(&case, "decoded", &decoded, &reference, TOLERANCE);
    }
}

/// A whole tiny model, and the request that its reference was drawn for.
fn tiny() -> (Pipeline, Request, Values) {
    let case = fixture("pipeline/tokens_tiny");
    let (files, weights) = load_model(&case);
    let reference = tensors(&case.join("reference.safetensors"));
    let run = json(&case.join("request.json"));
    let noise = |name: &String| name.strip_prefix("gumbel.").map(|draw| draw.parse().unwrap());
    let request = Request {
        prompt: run["prompt"].as_str().unwrap().to_owned(),
        way: Some(Way::Tokens),
        temperature: run["temperature"].as_f64(),
        top_k: run["top_k"].as_u64().map(|n| n as usize),
        top_p: run["top_p"].as_f64(),
        gumbel: reference.iter().filter_map(|(name, (_, values))| Some((noise(name)?, values.clone()))).collect(),
        ..Default::default()
    };
    (Pipeline::load(&files, &weights).unwrap(), request, reference)
}

/// What a drawing told: numbers by the names of `--dump`, and the stages of its rows and steps.
#[derive(Default)]
struct Told {
    values: Values,
    rows: Vec<(Stage, usize, usize)>,
    candidates: Vec<(u64, f32)>,
    previews: Vec<usize>,
}

fn draw(model: &mut Pipeline, request: &Request) -> (Generated, Told) {
    let mut told = Told::default();
    let generated = pollster::block_on(model.generate(request, async |event| {
        let mut put =
            |name: &str, numbers: Vec<f32>| told.values.insert(name.to_owned(), (vec![numbers.len()], numbers));
        match event {
            Event::Text { tokens, embedding } => {
                put("input_ids", tokens[0].ids.iter().map(|id| *id as f32).collect());
                put("text_embedding", read(embedding.hidden.clone()).await?);
            }
            Event::Tokens { stage, row, rows, tokens, logits, preview, .. } => {
                let name = if stage == Stage::Layout { "tokens.coarse" } else { "tokens.fine" };
                let pairs = tokens.codes.iter().zip(&tokens.residual).flat_map(|(a, b)| [*a as f32, *b as f32]);
                put(name, pairs.collect());
                logits.iter().for_each(|noted| {
                    put(&format!("logits.{}", noted.draw), noted.values.clone());
                });
                told.rows.push((stage, row, rows));
                told.previews.push(preview.unwrap().image().await?.width);
            }
            Event::Start { x_t, .. } => {
                put("latent.0", read(x_t.clone()).await?);
            }
            Event::Step { step, x_t, .. } => {
                put(&format!("latent.{step}"), read(x_t.clone()).await?);
            }
            Event::Candidate { seed, score, .. } => told.candidates.push((seed, score)),
            Event::Decoded { pixels, .. } => {
                put("image", read(pixels.clone()).await?);
            }
        }
        Ok(())
    }));
    (generated.unwrap(), told)
}

/// Over a full run.
const RUN_TOLERANCE: f64 = 5e-4;

fn assert_run(told: &Told, reference: &Values, given: &[&str]) {
    let case = fixture("pipeline/tokens_tiny");
    for name in reference.keys().filter(|name| !given.iter().any(|given| name.starts_with(given))) {
        let (_, ours) = told.values.get(name).unwrap_or_else(|| panic!("we do not give `{name}`"));
        assert_close(&case, name, ours, reference, RUN_TOLERANCE);
    }
}

#[test]
fn tokens_end_to_end_every_intermediate_is_the_references() {
    let (mut model, request, reference) = tiny();
    let (generated, told) = draw(&mut model, &request);
    assert_run(&told, &reference, &["gumbel"]);
    assert_eq!((generated.images[0].width, generated.seeds.as_slice()), (32, &[0][..]));
    let (layout, detail) = ((1..=2).map(|row| (Stage::Layout, row, 2)), (1..=4).map(|row| (Stage::Detail, row, 4)));
    assert_eq!(told.rows, layout.chain(detail).collect::<Vec<_>>());
    // The small picture whole, then the large one at half its size.
    assert_eq!(told.previews, [16; 6]);

    // Its codes given, the same picture comes of no noise at all.
    let codes = ["tokens.coarse", "tokens.fine"].iter().flat_map(|name| pairs(&reference[*name], 0)).collect();
    let (given, _) = draw(&mut model, &Request { tokens: codes, gumbel: BTreeMap::new(), ..request });
    assert_eq!(given.images, generated.images);
}

#[test]
fn the_hybrid_end_to_end_every_intermediate_is_the_references() {
    let (mut model, request, _) = tiny();
    let reference = tensors(&fixture("pipeline/tokens_tiny/hybrid.safetensors"));
    let noise = Some(reference["noise"].1.clone());
    let (_, told) = draw(&mut model, &Request { way: Some(Way::Hybrid), noise, ..request });
    assert_run(&told, &reference, &["attention_mask", "noise"]);
    assert_eq!(told.rows.len(), 2);
    assert!(told.values.contains_key("latent.3") && !told.values.contains_key("latent.4"));
}

#[test]
fn the_same_seed_draws_the_same_tokens_and_candidates_can_be_drawn_alone() {
    let (mut model, request, _) = tiny();
    let request = Request { gumbel: BTreeMap::new(), seed: 3, ..request };
    for way in [Way::Tokens, Way::Hybrid] {
        let request = Request { way: Some(way), ..request.clone() };
        let (first, _) = draw(&mut model, &request);
        assert_eq!(draw(&mut model, &request).0.images, first.images);
        assert!(draw(&mut model, &Request { seed: 4, ..request.clone() }).0.images != first.images);

        let several = Request { candidates: Some(5), count: Some(2), ..request.clone() };
        let (chosen, told) = draw(&mut model, &several);
        assert_eq!(told.candidates.iter().map(|(seed, _)| *seed).collect::<Vec<_>>(), [3, 4, 5, 6, 7]);
        let most = told.candidates.iter().max_by(|(_, a), (_, b)| a.total_cmp(b)).unwrap();
        assert_eq!((chosen.seeds[0], chosen.scores[0]), *most);
        assert!(chosen.images.len() == 2 && chosen.scores[0] >= chosen.scores[1]);
        let (alone, _) = draw(&mut model, &Request { seed: chosen.seeds[0], ..request });
        assert_eq!(alone.images[0], chosen.images[0]);
    }
}

#[test]
fn beam_search_draws_its_beams_to_the_end() {
    let (mut model, request, _) = tiny();
    let (search, beams) = (Some(Search::Beam), Some(2));
    let request = Request { gumbel: BTreeMap::new(), candidates: Some(6), search, beams, ..request };
    for way in [Way::Tokens, Way::Hybrid] {
        let request = Request { way: Some(way), count: Some(2), ..request.clone() };
        let (found, told) = draw(&mut model, &request);
        assert_eq!((told.candidates.len(), found.images.len(), found.seeds.clone()), (6, 2, vec![0, 0]));
        assert!(found.scores[0] >= found.scores[1]);
        assert_eq!(draw(&mut model, &request).0.images, found.images);
    }
}

#[test]
fn what_cannot_be_drawn_as_codes_is_refused_in_words() {
    let (model, request, _) = tiny();
    let refused = |model: &Pipeline, request: &Request, words: &str| {
        let error: Error = model.plan(request).unwrap_err();
        assert!(error.code == Code::BadInput && error.message.contains(words), "{error}");
    };
    let some = |change: &dyn Fn(&mut Request)| {
        let mut request = request.clone();
        change(&mut request);
        request
    };
    refused(&model, &some(&|r| r.width = Some(64)), "draws 32 x 32 pixels, the grid that it was trained for");
    refused(&model, &some(&|r| r.search = Some(Search::Beam)), "say how many");
    refused(&model, &some(&|r| r.beams = Some(2)), "search beam");
    let beams = |beams: usize| {
        move |r: &mut Request| {
            (r.search, r.candidates, r.beams) = (Some(Search::Beam), Some(4), Some(beams));
        }
    };
    refused(&model, &some(&beams(5)), "5 beams of 4 candidates");
    let diffusion = some(&|r| {
        beams(2)(r);
        r.way = Some(Way::Diffusion);
    });
    refused(&model, &diffusion, "beam search needs codes");
    refused(&model, &some(&|r| r.temperature = Some(-1.0)), "temperature -1");
    refused(&model, &some(&|r| r.top_p = Some(0.0)), "top p 0");
    refused(&model, &some(&|r| r.tokens = vec![[12, 0]]), "another tokenizer");
    refused(&model, &some(&|r| r.gumbel = BTreeMap::from([(1, vec![0.0; 12])])), "Gumbel noise 1 has 12 values");

    let (files, weights) = load_model(&fixture("pipeline/sticker_tiny"));
    let plain = Pipeline::load(&files, &weights).unwrap();
    refused(
        &plain,
        &some(&|r| r.gumbel = BTreeMap::new()),
        "this model cannot draw in the way tokens; it knows diffusion",
    );
    assert_eq!(plain.info().ways, [Way::Diffusion]);
    assert_eq!(model.info().ways, Way::ALL);

    let (mut files, weights) = load_model(&fixture("pipeline/tokens_tiny"));
    let needs = memory_needs(&files).unwrap();
    let budget = |room| MemoryBudget { bytes: needs.text + needs.other + room, ..Default::default() };
    let model = model.with_memory(MemoryPlan::new(&needs, budget(300_000)));
    model.plan(&some(&beams(2))).unwrap();
    let many = some(&|r| {
        beams(2)(r);
        r.candidates = Some(500);
    });
    refused(&model, &many, "to draw 500 pictures as codes side by side takes about");
    // Without beams they are drawn in turns.
    let turns = model.plan(&Request { search: None, beams: None, ..many }).unwrap();
    assert!((1..16).contains(&turns.codes.unwrap().side_by_side));
    let model = model.with_memory(MemoryPlan::new(&needs, budget(0)));
    refused(&model, &request, "leave the way of drawing out");

    files.configs.get_mut(CODEBOOK).unwrap()["grids"] = serde_json::json!([2, 8]);
    let error = Pipeline::load(&files, &weights).err().unwrap();
    assert!(error.message.contains("this model's tokenizer was made for the grids [2, 8]"), "{error}");
}

#[test]
fn greedy_codes_need_no_noise() {
    let (mut model, request, _) = tiny();
    let greedy = Request { temperature: Some(0.0), gumbel: BTreeMap::new(), ..request };
    let (first, _) = draw(&mut model, &greedy);
    assert_eq!(draw(&mut model, &Request { seed: 9, ..greedy }).0.images, first.images);
    let sampling = Sampling { temperature: 0.0, top_k: 0, top_p: 1.0 };
    assert_eq!(sampling.draw(&[0.5, 2.0, 2.0], &[]), 1);
}
