//! Making do with less memory changes where numbers are, not what they are.

use std::path::Path;

use burn::tensor::Device;
use inkbloom::{
    Code, Result,
    pipeline::{MemoryBudget, MemoryPlan, Pipeline, Request, memory_needs, required_params},
    weights::{Kept, Tensors},
};

use crate::{
    pipeline::{request, run},
    stored::psnr,
    support::*,
};

/// One of each family.
const CASES: [&str; 7] =
    ["sticker_straight", "sd15_text", "sdxl_text", "pixart_sigma", "sd3_text", "sd3_without_t5", "flux_guided"];

#[test]
fn weights_in_pieces_give_the_references_numbers() {
    for name in CASES {
        let case = fixture("pipeline").join(name);
        // Small enough that tables, projections and kernels all come in several.
        let (files, weights) = load_model_into(&case, Tensors::new(&Device::flex()).with_max_piece(500));
        let reference = tensors(&case.join("reference.safetensors"));
        let dump = run(&mut Pipeline::load(&files, &weights).unwrap(), &request(&case, &reference));
        for name in ["text_embedding", "image"] {
            assert_close(&case, name, &dump.values[name].1, &reference, 5e-4);
        }
    }
}

#[test]
fn weights_kept_as_f16_draw_nearly_the_same_picture() {
    for name in CASES {
        let case = fixture("pipeline").join(name);
        let reference = tensors(&case.join("reference.safetensors"));
        let draw = |kept| {
            let (files, weights) = load_model_into(&case, Tensors::kept_as(&Device::flex(), kept));
            run(&mut Pipeline::load(&files, &weights).unwrap(), &request(&case, &reference)).values["image"].1.clone()
        };
        let (whole, half) = (draw(Kept::F32), draw(Kept::F16));
        assert_ne!(whole, half, "{name}: nothing was kept as f16");
        let psnr = psnr(&whole, &half);
        println!("{name}: {psnr:.1} dB");
        assert!(psnr > 45.0, "{name}: {psnr:.1} dB");
    }
}

#[test]
fn a_released_text_encoder_is_asked_for_and_comes_back() {
    for (case, encoders) in [("sdxl_text", 2), ("sd3_text", 3), ("flux_guided", 2)] {
        release(&fixture("pipeline").join(case), encoders);
    }
}

fn release(case: &Path, encoders: usize) {
    let (files, weights) = load_model(case);
    let needs = memory_needs(&files).unwrap();
    let budget = MemoryBudget { bytes: needs.text + needs.other, ..Default::default() };
    let memory = MemoryPlan::new(&needs, budget);
    assert!(memory.release_text && memory.kept == Kept::F32);

    let request =
        Request { prompt: "a castle".into(), steps: Some(2), width: Some(32), height: Some(32), ..Default::default() };
    let expected = run(&mut Pipeline::load(&files, &weights).unwrap(), &request).generated.images;
    let (files, weights) = load_model(case);
    let mut model = Pipeline::load(&files, &weights).unwrap().with_memory(memory);
    assert_eq!(run(&mut model, &request).generated.images, expected);
    assert!(!model.has_text());
    let error = pollster::block_on(model.generate(&request, async |_| Ok(()))).unwrap_err();
    assert_eq!(error.code, Code::BadInput);
    assert!(error.message.contains("restore"), "{error}");

    let text = Tensors::new(&Device::flex());
    for component in &["text_encoder", "text_encoder_2", "text_encoder_3"][..encoders] {
        load_weights(&case.join(component), &format!("{component}/"), &text);
    }
    model.restore_text(&files, &text).unwrap();
    assert_eq!(run(&mut model, &request).generated.images, expected);
}

#[test]
fn a_drawing_is_gone_through_without_weights() {
    for (name, kept) in CASES.into_iter().flat_map(|name| [(name, Kept::F32), (name, Kept::F16)]) {
        assert!(rehearse(name, kept).unwrap() >= 3, "{name}: once for the text, the noise and each step");
    }
}

#[test]
fn what_draws_nothing_from_noise_alone_is_not_gone_through() {
    for name in ["sd15_inpaint_9", "glm_image"] {
        assert_eq!(rehearse(name, Kept::F32).unwrap_err().code, Code::BadInput, "{name}");
    }
}

/// How often the drawing paused.
fn rehearse(name: &str, kept: Kept) -> Result<usize> {
    let (files, _) = load_model(&fixture("pipeline").join(name));
    let mut model = Pipeline::load(&files, &Tensors::unwritten(&Device::flex(), kept)).unwrap();
    let mut pauses = 0;
    pollster::block_on(model.rehearse(async || pauses += 1)).map(|()| pauses)
}

#[test]
fn needs_are_the_weights_and_more() {
    for name in CASES {
        let (files, _) = load_model(&fixture("pipeline").join(name));
        let needs = memory_needs(&files).unwrap();
        let params = required_params(&files).unwrap();
        let kept = params.iter().filter(|param| param.computed.is_none());
        let values: usize = kept.map(|param| param.shape.iter().product::<usize>()).sum();
        assert_eq!(needs.text + needs.other, 4 * values as u64, "{name}");
        assert!(needs.text > 0 && needs.denoising > 0 && needs.decoding >= needs.decoding_tile, "{name}: {needs:?}");
    }
}

#[test]
fn a_tight_budget_decodes_in_tiles_and_a_hopeless_one_warns() {
    let (files, weights) = load_model(&fixture("pipeline/sticker_straight"));
    let needs = memory_needs(&files).unwrap();
    let plan = |model: &Pipeline| {
        let request = Request { prompt: "a cat".into(), width: Some(128), height: Some(128), ..Default::default() };
        model.plan(&request).unwrap()
    };
    let model = Pipeline::load(&files, &weights).unwrap();
    assert_eq!(plan(&model).tile, None);
    // Room for a quarter of such a picture.
    let budget = MemoryBudget { largest_tensor: needs.decoding_tile, ..Default::default() };
    let model = model.with_memory(MemoryPlan::new(&needs, budget));
    assert!(plan(&model).tile.is_some_and(|tile| (16..32).contains(&tile)), "{:?}", plan(&model).tile);
    let model = model.with_memory(MemoryPlan::new(&needs, MemoryBudget { bytes: 1000, ..Default::default() }));
    assert!(plan(&model).warnings.iter().any(|warning| warning.contains("more memory")), "{:?}", plan(&model).warnings);
}
