use std::path::Path;

use burn::tensor::Device;
use inkbloom::{
    denoise::{
        Denoiser, MotionConfig,
        dit::{
            latte::{Latte, LatteConfig},
            pixart::{PixArt, PixArtConfig},
        },
        unet::{Additions, UNet, UNetConfig},
    },
    pipeline::{MemoryBudget, MemoryPlan, Pipeline, Request, memory_needs, required_params},
    values::TextEmbedding,
    weights::{Config, Tensors},
};

use crate::{
    pipeline::{request, run},
    support::*,
};

fn unet_config(folder: &Path) -> serde_json::Value {
    json(&folder.join("config.json"))
}

fn check_unet(case: &Path, model: &UNet) {
    let reference = tensors(&case.join("reference.safetensors"));
    let text =
        TextEmbedding { hidden: tensor(&reference, "encoder_hidden_states"), attention_mask: None, pooled: None };
    let timestep_cond = reference.contains_key("timestep_cond").then(|| tensor(&reference, "timestep_cond"));
    let additions = Additions { timestep_cond, ..Default::default() };
    let output = model.forward(tensor(&reference, "sample"), &reference["timestep"].1, &text, additions).unwrap();
    assert_close(case, "output", &numbers(output), &reference, TOLERANCE);
}

#[test]
fn unet_motion_gives_the_references_output() {
    for case in cases("denoise", "motion_unet", 2) {
        let weights = Tensors::new(&Device::flex());
        load_weights(&case, "", &weights);
        let json = unet_config(&case);
        let (config, motion) = UNetConfig::read_motion(&Config::new("config.json", &json).unwrap()).unwrap();
        let mut model = UNet::load(&weights.params(""), config).unwrap();
        model.add_motion(&weights.params(""), &motion).unwrap();
        check_unet(&case, &model);
    }
}

fn adapter(case: &Path) -> MotionConfig {
    let json = json(&case.join("motion_adapter/config.json"));
    MotionConfig::read(&Config::new("motion_adapter/config.json", &json).unwrap()).unwrap()
}

#[test]
fn an_adapter_beside_a_unet_gives_the_references_output() {
    for case in cases("denoise", "motion_adapter_", 3) {
        let weights = Tensors::new(&Device::flex());
        load_weights(&case.join("unet"), "unet/", &weights);
        let json = unet_config(&case.join("unet"));
        let config = UNetConfig::read(&Config::new("config.json", &json).unwrap()).unwrap();
        let mut model = UNet::load(&weights.params("unet/"), config).unwrap();
        let motion = adapter(&case);
        // A table that the formula gives need not be there.
        let computed = case.ends_with("motion_adapter_v3");
        let folder = case.join("motion_adapter/diffusion_pytorch_model.safetensors");
        let modules = Tensors::new(&Device::flex());
        for (name, (shape, values)) in tensors(&folder) {
            if !(computed && name.ends_with("pos_embed.pe")) {
                modules.insert(&name, &shape, values);
            }
        }
        let mut other = motion.clone();
        other.block_out_channels = vec![8, 32];
        let error = model.add_motion(&modules.params(""), &other).unwrap_err();
        assert!(error.message.contains("[8, 32]") && error.message.contains("[8, 16]"), "{error}");
        model.add_motion(&modules.params(""), &motion).unwrap();
        check_unet(&case, &model);
    }
}

#[test]
fn pixart_with_motion_gives_the_references_output() {
    let case = fixture("denoise/motion_pixart");
    let weights = Tensors::new(&Device::flex());
    load_weights(&case.join("transformer"), "transformer/", &weights);
    load_weights(&case.join("motion_adapter"), "motion_adapter/", &weights);
    let json = json(&case.join("transformer/config.json"));
    let config = PixArtConfig::read(&Config::new("config.json", &json).unwrap()).unwrap();
    let mut model = PixArt::load(&weights.params("transformer/"), config).unwrap();
    let reference = tensors(&case.join("reference.safetensors"));
    let text = TextEmbedding {
        hidden: tensor(&reference, "encoder_hidden_states"),
        attention_mask: Some(tensor(&reference, "encoder_attention_mask")),
        pooled: None,
    };
    let predict = |model: &PixArt, name: &str, frames: usize| {
        let timesteps: Vec<f32> =
            reference["timestep"].1.iter().flat_map(|time| std::iter::repeat_n(*time, frames)).collect();
        numbers(model.forward(tensor(&reference, name), &timesteps, &text, (1, 1)).unwrap())
    };
    let still = predict(&model, "still", 1);
    assert_close(&case, "still_output", &still, &reference, TOLERANCE);
    let motion = adapter(&case);
    let mut wide = motion.clone();
    wide.block_out_channels = vec![32];
    let error = model.add_motion(&weights.params("motion_adapter/"), &wide).unwrap_err();
    assert!(error.message.contains("32 wide, but the transformer 16"), "{error}");
    model.add_motion(&weights.params("motion_adapter/"), &motion).unwrap();
    for frames in [8, 16] {
        let output = predict(&model, &format!("sample.{frames}"), frames);
        assert_close(&case, &format!("output.{frames}"), &output, &reference, TOLERANCE);
    }
    // To the bit.
    assert_eq!(predict(&model, "still", 1), still);
}

#[test]
fn latte_gives_the_references_output() {
    let case = fixture("denoise/motion_latte");
    let weights = Tensors::new(&Device::flex());
    load_weights(&case, "", &weights);
    let json = unet_config(&case);
    let config = LatteConfig::read(&Config::new("config.json", &json).unwrap()).unwrap();
    let model = Latte::load(&weights.params(""), config).unwrap();
    let reference = tensors(&case.join("reference.safetensors"));
    let text =
        TextEmbedding { hidden: tensor(&reference, "encoder_hidden_states"), attention_mask: None, pooled: None };
    for frames in [5, 1] {
        let sample = tensor(&reference, &format!("sample.{frames}"));
        let output = model.forward(sample, reference["timestep"].1[0], &text).unwrap();
        assert_close(&case, &format!("output.{frames}"), &numbers(output), &reference, TOLERANCE);
    }
}

/// Stable Diffusion with an adapter beside it, which a test may leave away.
fn beside(with_adapter: bool) -> Pipeline {
    let (mut files, weights) = load_model(&fixture("pipeline/animatediff_euler"));
    if !with_adapter {
        files.configs.remove("motion_adapter");
    }
    Pipeline::load(&files, &weights).unwrap()
}

fn still() -> Request {
    Request { prompt: "a red apple".into(), width: Some(32), height: Some(32), steps: Some(2), ..Default::default() }
}

#[test]
fn an_adapter_leaves_stills_as_they_are_to_the_byte() {
    let drawn = |with_adapter| run(&mut beside(with_adapter), &still()).generated;
    let (with, without) = (drawn(true), drawn(false));
    assert_eq!(with.images, without.images);
    assert!(with.animations.is_empty());
}

#[test]
fn an_animation_has_its_frames_and_the_same_seed_draws_it_again() {
    let mut model = beside(true);
    let request = Request { frames: Some(3), count: Some(2), ..still() };
    let (first, again) = (run(&mut model, &request).generated, run(&mut model, &request).generated);
    assert_eq!(first.animations, again.animations);
    assert_eq!(first.animations.len(), 2);
    for (animation, image) in first.animations.iter().zip(&first.images) {
        assert_eq!((animation.frames.len(), animation.frame_ms), (3, 125));
        assert_eq!(animation.frames[0], *image);
        assert_ne!(animation.frames[1], *image);
    }
}

#[test]
fn a_picture_to_start_from_is_animated() {
    let mut model = beside(true);
    let init = run(&mut model, &still()).generated.images.remove(0);
    let mut far = |strength| {
        let (init, strength) = (Some(init.clone()), Some(strength));
        let request = Request { init: init.clone(), strength, steps: Some(4), frames: Some(4), ..still() };
        let frame = run(&mut model, &request).generated.animations.remove(0).frames.remove(2);
        frame.rgba.iter().zip(&init.unwrap().rgba).map(|(a, b)| u64::from(a.abs_diff(*b))).sum::<u64>()
    };
    assert!(far(0.3) < far(1.0));
}

#[test]
fn numbers_of_frames_that_cannot_be_are_refused_in_words() {
    let refused = |model: &Pipeline, frames: usize| {
        let error = model.plan(&Request { frames: Some(frames), ..still() }).unwrap_err();
        assert_eq!(error.code, inkbloom::Code::BadInput);
        error.message
    };
    let model = beside(true);
    for frames in [0, 7, 1000] {
        let message = refused(&model, frames);
        assert!(message.starts_with(&format!("{frames} frames")) && message.contains("give 1 to 6"), "{message}");
    }
    assert_eq!(model.plan(&Request { frames: Some(6), ..still() }).unwrap().frames, 6);
    assert!(refused(&beside(false), 2).contains("draws single pictures"));
    let short = Request { frames: Some(2), noise: Some(vec![0.0; 4 * 8 * 8]), ..still() };
    let message = model.plan(&short).unwrap_err().message;
    assert!(
        message.contains("an animation of 2 frames") && message.contains(&format!("{}", 2 * 4 * 8 * 8)),
        "{message}"
    );
}

#[test]
fn adapters_that_do_not_fit_are_refused_in_words() {
    let (files, _) = load_model(&fixture("pipeline/animatediff_euler"));
    let refused = |key: &str, value: serde_json::Value| {
        let mut files = files.clone();
        files.configs.get_mut("motion_adapter").unwrap()[key] = value;
        required_params(&files).unwrap_err().message
    };
    let message = refused("block_out_channels", vec![4, 16].into());
    assert!(message.contains("[4, 16]") && message.contains("made for it"), "{message}");
    let message = refused("conv_in_channels", 9.into());
    assert!(message.contains("motion_adapter/config.json: `conv_in_channels` is 9"), "{message}");
    assert!(refused("motion_num_attention_heads", 3.into()).contains("`motion_num_attention_heads` is 3"));
    // A network that can have none.
    let (mut sd3, _) = load_model(&fixture("pipeline/sd3_text"));
    sd3.configs.insert("motion_adapter".into(), files.configs["motion_adapter"].clone());
    sd3.model_index["motion_adapter"] = files.model_index["motion_adapter"].clone();
    let message = required_params(&sd3).unwrap_err().message;
    assert!(message.contains("do not go with this model's network"), "{message}");
}

/// Where both prompts do not fit, they take turns, and the numbers stay.
#[test]
fn guidance_takes_turns_where_memory_is_short() {
    let case = fixture("pipeline/animatediff_ddim");
    let (files, weights) = load_model(&case);
    let reference = tensors(&case.join("reference.safetensors"));
    let needs = memory_needs(&files).unwrap();
    let mut model = Pipeline::load(&files, &weights).unwrap();
    let request = request(&case, &reference);
    let whole = run(&mut model, &request);
    assert!(!model.plan(&request).unwrap().turns);
    // 5 frames of 8 x 6 take well below what 16 of the model's own size do.
    let bytes = |share: u64| needs.text + needs.other + needs.denoising / share;
    let plan = |share| MemoryPlan::new(&needs, MemoryBudget { bytes: bytes(share), ..Default::default() });
    let share = (1..100).find(|share| {
        let model = Pipeline::load(&files, &load_model(&case).1).unwrap().with_memory(plan(*share));
        model.plan(&request).unwrap().turns
    });
    let mut model = Pipeline::load(&files, &load_model(&case).1).unwrap().with_memory(plan(share.unwrap()));
    let turns = run(&mut model, &request);
    let error = relative_error(&turns.values["image"].1, &whole.values["image"].1);
    assert!(error < TOLERANCE, "{error}");
}
