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
