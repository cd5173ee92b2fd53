use burn::tensor::{Device, Tensor};
use inkbloom::{
    denoise::{
        dit::{
            flux::{Flux, FluxConfig},
            glm_image::{GlmImage, GlmImageCondition, GlmImageConfig},
            pixart::{PixArt, PixArtConfig},
            sd3::{Sd3, Sd3Config},
        },
        noise,
        unet::{Additions, UNet, UNetConfig},
    },
    values::TextEmbedding,
    weights::{Config, Tensors, list_params},
};

use crate::support::*;

#[test]
fn pixart_gives_the_references_output() {
    for case in cases("denoise", "pixart_", 6) {
        let config = json(&case.join("config.json"));
        let weights = Tensors::new(&Device::flex());
        load_weights(&case, "", &weights);
        let config = PixArtConfig::read(&Config::new("config.json", &config).unwrap()).unwrap();
        let model = PixArt::load(&weights.params(""), config).unwrap();
        let reference = tensors(&case.join("reference.safetensors"));
        let mut ours = Vec::new();
        // One picture at a time, for the sizes that condition some models differ within the fixture's batch.
        for (i, timestep) in reference["timestep"].1.iter().enumerate() {
            let text = TextEmbedding {
                hidden: tensor::<3>(&reference, "encoder_hidden_states").narrow(0, i, 1),
                attention_mask: Some(tensor::<2>(&reference, "encoder_attention_mask").narrow(0, i, 1)),
                pooled: None,
            };
            let picture = match reference.get("resolution") {
                Some((_, sizes)) => (sizes[2 * i] as usize, sizes[2 * i + 1] as usize),
                None => (1, 1),
            };
            let sample = tensor::<4>(&reference, "sample").narrow(0, i, 1);
            ours.extend(numbers(model.forward(sample, &[*timestep], &text, picture).unwrap()));
        }
        assert_close(&case, "output", &ours, &reference, TOLERANCE);
    }
}

/// The two prompts of classifier-free guidance go through as one batch: it must equal one at a time.
#[test]
fn pixart_treats_a_batch_as_its_pictures() {
    let case = fixture("denoise/pixart_sticker");
    let config = json(&case.join("config.json"));
    let weights = Tensors::new(&Device::flex());
    load_weights(&case, "", &weights);
    let config = PixArtConfig::read(&Config::new("config.json", &config).unwrap()).unwrap();
    let model = PixArt::load(&weights.params(""), config).unwrap();
    let reference = tensors(&case.join("reference.safetensors"));
    let text = TextEmbedding {
        hidden: tensor(&reference, "encoder_hidden_states"),
        attention_mask: Some(tensor(&reference, "encoder_attention_mask")),
        pooled: None,
    };
    let output = model.forward(tensor(&reference, "sample"), &reference["timestep"].1, &text, (1, 1)).unwrap();
    assert_close(&case, "output", &numbers(output), &reference, TOLERANCE);
}

/// The text of a fixture whose pooled embedding goes by diffusers' name.
fn text_and_pooled(reference: &Values) -> TextEmbedding {
    TextEmbedding {
        hidden: tensor(reference, "encoder_hidden_states"),
        attention_mask: None,
        pooled: Some(tensor(reference, "pooled_projections")),
    }
}

#[test]
fn sd3_gives_the_references_output() {
    for case in cases("denoise", "sd3_", 3) {
        let config = json(&case.join("config.json"));
        let weights = Tensors::new(&Device::flex());
        load_weights(&case, "", &weights);
        let config = Sd3Config::read(&Config::new("config.json", &config).unwrap()).unwrap();
        let layers = config.num_layers;
        let model = Sd3::load(&weights.params(""), config).unwrap();
        let reference = tensors(&case.join("reference.safetensors"));
        let text = text_and_pooled(&reference);
        let predict =
            |skip: &[usize]| model.forward(tensor(&reference, "sample"), &reference["timestep"].1, &text, skip);
        assert_close(&case, "output", &numbers(predict(&[]).unwrap()), &reference, TOLERANCE);
        if let Some((_, skip)) = reference.get("skip_layers") {
            let skip: Vec<usize> = skip.iter().map(|layer| *layer as usize).collect();
            assert_close(&case, "skipped_output", &numbers(predict(&skip).unwrap()), &reference, TOLERANCE);
        }
        let error = predict(&[layers]).unwrap_err();
        assert!(error.message.contains(&format!("no layer {layers}")), "{error}");
    }
}

/// What a formula gives is not shipped; what none gives is.
#[test]
fn sd3_computes_its_positions_where_it_may() {
    for (case, computable) in [("sd3_plain", true), ("sd3_dual", true), ("sd3_table", false)] {
        let case = fixture("denoise").join(case);
        let config = json(&case.join("config.json"));
        let config = Sd3Config::read(&Config::new("config.json", &config).unwrap()).unwrap();
        let (params, _) =
            list_params(&Device::flex(), |tensors| Sd3::load(&tensors.params(""), config.clone())).unwrap();
        let table = params.into_iter().find(|param| param.computed.is_some()).unwrap();
        assert_eq!(table.name, "pos_embed.pos_embed");
        let stored = tensors(&case.join("diffusion_pytorch_model.safetensors"));
        let (shape, values) = &stored[&table.name];
        assert_eq!(*shape, table.shape);
        let rows = table.computed.unwrap();
        assert_eq!(rows.are(values, shape[2], 1e-5), computable);
        let halves: Vec<f32> = values.iter().map(|v| half::f16::from_f32(*v).to_f32()).collect();
        assert_eq!((rows.are(&halves, shape[2], 1e-5), rows.are(&halves, shape[2], 5e-4)), (false, computable));

        // Without it, the same output.
        let weights = Tensors::new(&Device::flex());
        for (name, (shape, values)) in stored.into_iter().filter(|(name, _)| *name != table.name) {
            weights.insert(&name, &shape, values);
        }
        let model = Sd3::load(&weights.params(""), config).unwrap();
        let reference = tensors(&case.join("reference.safetensors"));
        let text = text_and_pooled(&reference);
        let output =
            numbers(model.forward(tensor(&reference, "sample"), &reference["timestep"].1, &text, &[]).unwrap());
        assert_eq!(relative_error(&output, &reference["output"].1) < TOLERANCE, computable, "{}", case.display());
    }
}

#[test]
fn sd3_refuses_pictures_beyond_its_positions() {
    let case = fixture("denoise/sd3_plain");
    let config = json(&case.join("config.json"));
    let weights = Tensors::new(&Device::flex());
    load_weights(&case, "", &weights);
    let config = Sd3Config::read(&Config::new("config.json", &config).unwrap()).unwrap();
    let model = Sd3::load(&weights.params(""), config).unwrap();
    let text = text_and_pooled(&tensors(&case.join("reference.safetensors")));
    let error = model.forward(Tensor::zeros([2, 4, 18, 8], &Device::flex()), &[1.0; 2], &text, &[]).unwrap_err();
    assert!(error.message.contains("8 x 18") && error.message.contains("up to 16"), "{error}");
}

#[test]
fn flux_gives_the_references_output() {
    for case in cases("denoise", "flux_", 3) {
        let config = json(&case.join("config.json"));
        let weights = Tensors::new(&Device::flex());
        load_weights(&case, "", &weights);
        let config = FluxConfig::read(&Config::new("config.json", &config).unwrap()).unwrap();
        let model = Flux::load(&weights.params(""), config).unwrap();
        let reference = tensors(&case.join("reference.safetensors"));
        let guidance = reference.get("guidance").map_or(0.0, |(_, values)| values[0]);
        let text = text_and_pooled(&reference);
        let output = model.forward(tensor(&reference, "sample"), &reference["timestep"].1, &text, guidance).unwrap();
        assert_close(&case, "output", &numbers(output), &reference, TOLERANCE);
    }
}

#[test]
fn glm_image_gives_the_references_output() {
    for case in cases("denoise", "glm_image_", 2) {
        let config = json(&case.join("config.json"));
        let weights = Tensors::new(&Device::flex());
        load_weights(&case, "", &weights);
        let config = GlmImageConfig::read(&Config::new("config.json", &config).unwrap()).unwrap();
        let model = GlmImage::load(&weights.params(""), config).unwrap();
        let reference = tensors(&case.join("reference.safetensors"));
        let (shape, tokens) = &reference["prior_token_id"];
        let first = tokens[..shape[1]].iter().map(|token| *token as u32).collect();
        let pair = |name: &str| reference[name].1.as_slice().try_into().unwrap();
        let condition = GlmImageCondition {
            glyphs: tensor(&reference, "encoder_hidden_states"),
            mask: None,
            tokens: vec![Some(first), None],
            target_size: pair("target_size"),
            crop_coords: pair("crop_coords"),
        };
        let predict = |condition: &GlmImageCondition| {
            model.forward(tensor(&reference, "sample"), &reference["timestep"].1, condition)
        };
        assert_close(&case, "output", &numbers(predict(&condition).unwrap()), &reference, 5e-4);
        let few = GlmImageCondition { tokens: vec![Some(vec![0]), None], ..condition.clone() };
        assert!(predict(&few).unwrap_err().message.contains("give each patch one"));
        let unknown = GlmImageCondition { tokens: vec![Some(vec![99; shape[1]]), None], ..condition };
        assert!(predict(&unknown).unwrap_err().message.contains("the token 99"));
    }
}

#[test]
fn unet_gives_the_references_output() {
    for case in cases("denoise", "unet_", 12) {
        let config = json(&case.join("config.json"));
        let weights = Tensors::new(&Device::flex());
        load_weights(&case, "", &weights);
        let config = UNetConfig::read(&Config::new("config.json", &config).unwrap()).unwrap();
        let model = UNet::load(&weights.params(""), config).unwrap();
        let reference = tensors(&case.join("reference.safetensors"));
        let has = |name: &str| reference.contains_key(name);
        let text = TextEmbedding {
            hidden: tensor(&reference, "encoder_hidden_states"),
            attention_mask: has("encoder_attention_mask").then(|| tensor(&reference, "encoder_attention_mask")),
            pooled: has("text_embeds").then(|| tensor(&reference, "text_embeds")),
        };
        let additions = Additions {
            timestep_cond: has("timestep_cond").then(|| tensor(&reference, "timestep_cond")),
            time_ids: reference.get("time_ids").map_or(Vec::new(), |(_, ids)| ids.clone()),
        };
        let output = model.forward(tensor(&reference, "sample"), &reference["timestep"].1, &text, additions).unwrap();
        assert_close(&case, "output", &numbers(output), &reference, TOLERANCE);
    }
}

/// Committed values: whoever changes the generator changes every picture that a seed stands for.
#[test]
fn noise_has_its_committed_values() {
    let expected = json(&fixture("denoise/noise.json"));
    for run in expected["runs"].as_array().unwrap() {
        let seed: u64 = run["seed"].as_str().unwrap().parse().unwrap();
        let values: Vec<f32> =
            run["bits"].as_array().unwrap().iter().map(|v| f32::from_bits(v.as_u64().unwrap() as u32)).collect();
        assert_eq!(noise::normal(seed, run["stream"].as_u64().unwrap(), values.len()), values, "seed {seed}");
    }
}
