use burn::tensor::Device;
use inkbloom::{
    autoencoder::{
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
    for case in cases("autoencoder", "kl_", 4) {
        let config = json(&case.join("config.json"));
        if ["kl_attention_blocks", "kl_published_names"].iter().any(|name| case.ends_with(name)) {
            // Layouts that this version refuses: see the next test.
            continue;
        }
        let weights = Tensors::new(&Device::flex());
        load_weights(&case, "", &weights);
        let config = AutoencoderKlConfig::read(&Config::new("config.json", &config).unwrap()).unwrap();
        let model = AutoencoderKl::load(&weights.params(""), &config).unwrap();
        let reference = tensors(&case.join("reference.safetensors"));
        assert_close(&case, "moments", &numbers(model.moments(tensor(&reference, "image"))), &reference, TOLERANCE);
        assert_close(&case, "latent", &numbers(model.encode(tensor(&reference, "image"))), &reference, TOLERANCE);
        assert_close(&case, "decoded", &numbers(model.decode(tensor(&reference, "z"))), &reference, TOLERANCE);
    }
}

/// Attention inside the stages: refused by name, rather than drawn wrong.
#[test]
fn autoencoder_kl_refuses_block_types_it_does_not_know() {
    let config = json(&fixture("autoencoder/kl_attention_blocks/config.json"));
    let error = AutoencoderKlConfig::read(&Config::new("vae/config.json", &config).unwrap()).unwrap_err();
    assert!(error.message.contains("down_block_types") && error.message.contains("AttnDownEncoderBlock2D"), "{error}");
}
