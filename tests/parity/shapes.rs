//! Published models, by name and shape of every parameter: their configs read and their loading code run on
//! placeholders, so that gigabytes need neither be there nor be allocated.

use std::collections::BTreeMap;

use burn::tensor::Device;
use inkbloom::{
    autoencoder::{
        dc::{AutoencoderDc, AutoencoderDcConfig},
        kl::{AutoencoderKl, AutoencoderKlConfig},
        tiny::{AutoencoderTiny, AutoencoderTinyConfig},
    },
    denoise::{
        dit::{
            flux::{Flux, FluxConfig},
            pixart::{PixArt, PixArtConfig},
            sd3::{Sd3, Sd3Config},
        },
        unet::{UNet, UNetConfig},
    },
    text::{
        clip::{ClipText, ClipTextConfig},
        t5::{T5, T5Config},
    },
    weights::{Config, Tensors, canonical, config::Notes, list_params},
};

use crate::support::*;

fn load(class: &str, config: &Config, tensors: &Tensors) -> inkbloom::Result<()> {
    let params = tensors.params("");
    match class {
        "CLIPTextModel" => ClipText::load(&params, ClipTextConfig::read(config, false)?).map(drop),
        "CLIPTextModelWithProjection" => ClipText::load(&params, ClipTextConfig::read(config, true)?).map(drop),
        "T5EncoderModel" => T5::load(&params, T5Config::read(config)?).map(drop),
        "PixArtTransformer2DModel" => PixArt::load(&params, PixArtConfig::read(config)?).map(drop),
        "SD3Transformer2DModel" => Sd3::load(&params, Sd3Config::read(config)?).map(drop),
        "FluxTransformer2DModel" => Flux::load(&params, FluxConfig::read(config)?).map(drop),
        "UNet2DConditionModel" => UNet::load(&params, UNetConfig::read(config)?).map(drop),
        "AutoencoderKL" => AutoencoderKl::load(&params, &AutoencoderKlConfig::read(config)?).map(drop),
        "AutoencoderTiny" => AutoencoderTiny::load(&params, &AutoencoderTinyConfig::read(config)?).map(drop),
        "AutoencoderDC" => AutoencoderDc::load(&params, &AutoencoderDcConfig::read(config)?).map(drop),
        other => panic!("no test for {other}"),
    }
}

#[test]
fn published_models_have_the_parameters_we_ask_for() {
    let mut compared = 0;
    for entry in std::fs::read_dir(fixture("shapes")).unwrap() {
        let path = entry.unwrap().path();
        let model = json(&path);
        let notes = Notes::default();
        let config = Config::new("config.json", &model["config"]).unwrap().noting(&notes);
        let class = model["class"].as_str().unwrap();
        let (ours, ()) = list_params(&Device::flex(), |tensors| load(class, &config, tensors)).unwrap();
        // The config holds every key of its class, and all are read or known not to act.
        assert_eq!(notes.list(), [""; 0], "{}", path.display());
        let ours: BTreeMap<_, _> = ours.into_iter().map(|param| (param.name, param.shape)).collect();
        let expected: BTreeMap<String, Vec<usize>> = model["parameters"]
            .as_object()
            .unwrap()
            .iter()
            .map(|(name, shape)| (canonical(name), serde_json::from_value(shape.clone()).unwrap()))
            .collect();
        for (name, shape) in &expected {
            assert_eq!(ours.get(name), Some(shape), "{}: {name}", path.display());
        }
        for name in ours.keys() {
            assert!(expected.contains_key(name), "{}: we ask for {name}, which is not there", path.display());
        }
        let count: usize = ours.values().map(|shape| shape.iter().product::<usize>()).sum();
        println!("{}: {count} values", path.file_stem().unwrap().display());
        compared += 1;
    }
    assert!(compared >= 19, "only {compared} models");
}
