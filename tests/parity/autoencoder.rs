use burn::tensor::Device;
use inkbloom::{
    autoencoder::{
        dc::{AutoencoderDc, AutoencoderDcConfig},
        kl::{AutoencoderKl, AutoencoderKlConfig},
        tiny::{AutoencoderTiny, AutoencoderTinyConfig},
    },
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
