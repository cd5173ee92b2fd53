use burn::tensor::Device;
use inkbloom::{
    autoencoder::{
        dc::{AutoencoderDc, AutoencoderDcConfig},
        kl::{AutoencoderKl, AutoencoderKlConfig},
        tiny::{AutoencoderTiny, AutoencoderTinyConfig},
        vq_model::{VqModel, VqModelConfig},
    },
    values::ImageTokens,
    weights::{Config, Tensors},
};

use crate::support::*;

#[test]
fn autoencoder_tiny_encodes_and_decodes_as_the_reference() {
    for case in cases("autoencoder", "tiny_", 4) {
        let config = json(&case.join("config.json"));
        let weights = Tensors::new(&Device::flex());
        load_weights(&case, "", &weights);
        let config = AutoencoderTinyConfig::read(&Config::new("config.json", &config).unwrap()).unwrap();
        let model = AutoencoderTiny::load(&weights.params(""), &config).unwrap();
        let reference = tensors(&case.join("reference.safetensors"));
        assert_close(&case, "latent", &numbers(model.encode(tensor(&reference, "image"))), &reference, TOLERANCE);
        assert_close(&case, "decoded", &numbers(model.decode(tensor(&reference, "z"))), &reference, TOLERANCE);
    }
}

#[test]
fn autoencoder_kl_encodes_and_decodes_as_the_reference() {
    for case in cases("autoencoder", "kl_", 8) {
        let config = json(&case.join("config.json"));
        let weights = Tensors::new(&Device::flex());
        load_weights(&case, "", &weights);
        let config = AutoencoderKlConfig::read(&Config::new("config.json", &config).unwrap()).unwrap();
        let model = AutoencoderKl::load(&weights.params(""), &config).unwrap();
        let reference = tensors(&case.join("reference.safetensors"));
        assert_close(&case, "moments", &numbers(model.moments(tensor(&reference, "image"))), &reference, TOLERANCE);
        assert_close(&case, "latent", &numbers(model.encode(tensor(&reference, "image"), None)), &reference, TOLERANCE);
        assert_close(&case, "decoded", &numbers(model.decode(tensor(&reference, "z"))), &reference, TOLERANCE);
    }
}

/// The pipeline's case `sticker_enlarged` is the reference of one that does.
#[test]
fn a_decoder_may_have_more_stages_than_the_encoder_and_not_fewer() {
    let good = json(&fixture("pipeline/sticker_enlarged/vae/config.json"));
    let read = |edit: &dyn Fn(&mut serde_json::Value)| {
        let mut config = good.clone();
        edit(&mut config);
        AutoencoderTinyConfig::read(&Config::new("vae/config.json", &config).unwrap())
    };
    let shape = read(&|_| {}).unwrap().shape();
    assert_eq!((shape.factor, shape.reduction), (8, 2));
    let stages = |side: &str, count: usize| {
        let (widths, blocks) = (format!("{side}_block_out_channels"), format!("num_{side}_blocks"));
        move |config: &mut serde_json::Value| {
            config[&widths] = vec![8; count].into();
            config[&blocks] = vec![1; count].into();
        }
    };
    for edit in [
        &stages("encoder", 5) as &dyn Fn(&mut serde_json::Value),
        &stages("decoder", 2),
        &stages("decoder", 99),
        &|config| config["upsampling_scaling_factor"] = 3.into(),
    ] {
        let error = read(edit).unwrap_err();
        assert!(error.message.contains("`decoder_block_out_channels`"), "{error}");
    }
}

#[test]
fn autoencoder_kl_refuses_block_types_it_does_not_know() {
    let mut config = json(&fixture("autoencoder/kl_attention_blocks/config.json"));
    config["down_block_types"][1] = "SkipDownBlock2D".into();
    let error = AutoencoderKlConfig::read(&Config::new("vae/config.json", &config).unwrap()).unwrap_err();
    assert!(error.message.contains("down_block_types") && error.message.contains("SkipDownBlock2D"), "{error}");
}

#[test]
fn autoencoder_dc_encodes_and_decodes_as_the_reference() {
    for case in cases("autoencoder", "dc_", 3) {
        let config = json(&case.join("config.json"));
        let weights = Tensors::new(&Device::flex());
        load_weights(&case, "", &weights);
        let config = AutoencoderDcConfig::read(&Config::new("config.json", &config).unwrap()).unwrap();
        let model = AutoencoderDc::load(&weights.params(""), &config).unwrap();
        let reference = tensors(&case.join("reference.safetensors"));
        assert_close(&case, "latent", &numbers(model.encode(tensor(&reference, "image"))), &reference, TOLERANCE);
        assert_close(&case, "decoded", &numbers(model.decode(tensor(&reference, "z"))), &reference, TOLERANCE);
    }
}

/// The codes of a fixture, a grid of the latents' size for each picture.
pub fn grids(values: &Values, name: &str, grid: [usize; 2]) -> Vec<ImageTokens> {
    let codes: Vec<u32> = values[name].1.iter().map(|code| *code as u32).collect();
    let grids = codes.chunks(grid[0] * grid[1]);
    grids.map(|codes| ImageTokens { grid, codes: codes.to_vec(), residual: Vec::new() }).collect()
}

#[test]
fn vq_model_encodes_and_decodes_as_the_reference() {
    for case in cases("autoencoder", "vq_", 2) {
        let config = json(&case.join("config.json"));
        let weights = Tensors::new(&Device::flex());
        load_weights(&case, "", &weights);
        let config = VqModelConfig::read(&Config::new("config.json", &config).unwrap()).unwrap();
        let model = VqModel::load(&weights.params(""), &config).unwrap();
        let reference = tensors(&case.join("reference.safetensors"));
        let latents = model.encode(tensor(&reference, "image"));
        let [_, _, h, w] = latents.dims();
        assert_close(&case, "latents", &numbers(latents.clone()), &reference, TOLERANCE);
        let codes = pollster::block_on(model.codes(latents)).unwrap();
        assert_eq!(codes, grids(&reference, "codes", [h, w]));
        let decoded: Vec<f32> = codes.iter().flat_map(|tokens| numbers(model.decode(tokens).unwrap())).collect();
        assert_close(&case, "decoded", &decoded, &reference, TOLERANCE);
        // The class's own `forward` is both.
        assert_close(&case, "sample", &decoded, &reference, TOLERANCE);

        let mut wrong = codes[0].clone();
        wrong.codes[1] = 99;
        assert!(model.decode(&wrong).unwrap_err().message.contains("the token 99"));
        wrong.codes.pop();
        assert!(model.decode(&wrong).unwrap_err().message.contains("tokens"));
    }
}
