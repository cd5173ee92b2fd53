//! [`ImageTokens`] -> [`Latent`] by `InkbloomCodebook`, the tokenizer of our own models over the latents of their
//! autoencoder (`tools/train/inkbloom_train/tokens_model.py`).

use burn::tensor::{Int, Tensor, TensorData};

use super::tiny::Block;
use crate::{
    Result,
    layers::{Activation, Conv2d},
    values::{ImageTokens, Latent},
    weights::{Config, ModelFiles, Params, Tensors},
};

/// The numbers of `codebook/config.json`.
#[derive(Clone, Debug)]
pub struct CodebookConfig {
    /// How many first codes there are, and how many second ones.
    pub codes: [usize; 2],
    pub latent_channels: usize,
    /// The sides of the grids that it was trained for.
    pub grids: Vec<usize>,
    pub decoder_channels: usize,
    /// 0 where there is no decoder.
    pub decoder_blocks: usize,
}

impl CodebookConfig {
    /// # Errors
    /// `BadModel` for a value that is out of range.
    pub fn read(config: &Config) -> Result<Self> {
        let codes = config.counts("codes", &[1024, 1024])?;
        let this = Self {
            codes: codes.try_into().map_err(|_| config.wrong("codes", "there must be two counts"))?,
            latent_channels: config.count("latent_channels", 8)?,
            grids: config.counts("grids", &[8, 16])?,
            decoder_channels: config.count("decoder_channels", 64)?,
            decoder_blocks: config.usize("decoder_blocks", 0)?,
        };
        config.finish("InkbloomCodebook");
        Ok(this)
    }
}

/// `InkbloomCodebook`. A place is the sum of its two codes' vectors; first code 0 is what shows nothing.
pub struct Codebook {
    /// `[codes, C]` each.
    embedding: Tensor<2>,
    residual: Tensor<2>,
    decoder: Option<Decoder>,
    config: CodebookConfig,
}

/// What the codes of a whole grid tell of the latent beyond what each stands for.
struct Decoder {
    conv_in: Conv2d,
    blocks: Vec<Block>,
    conv_out: Conv2d,
}

impl Codebook {
    /// Loads a component as the class that `model_index.json` names.
    ///
    /// # Errors
    /// `BadModel` for another class, a config that is wrong, or tensors that do not fit.
    pub fn load(tensors: &Tensors, files: &ModelFiles, component: &str) -> Result<Self> {
        if files.class(component)? != "InkbloomCodebook" {
            return Err(files.unknown_class(component, "InkbloomCodebook"));
        }
        let config = CodebookConfig::read(&files.config(component)?)?;
        Self::from_params(&tensors.params(&format!("{component}/")), config)
    }

    /// # Errors
    /// `BadModel` where a tensor is missing or has another shape than the config says.
    pub fn from_params(params: &Params, config: CodebookConfig) -> Result<Self> {
        let table = |name: &str, codes| params.at(name).tensor("weight", [codes, config.latent_channels]);
        Ok(Self {
            embedding: table("embedding", config.codes[0])?,
            residual: table("residual", config.codes[1])?,
            decoder: (config.decoder_blocks > 0).then(|| Decoder::load(&params.at("decoder"), &config)).transpose()?,
            config,
        })
    }

    pub fn config(&self) -> &CodebookConfig {
        &self.config
    }

    /// The latent `[1, C, h, w]` of a whole grid in the denoiser's scale; places that have no codes yet show nothing. Codes
    /// must be below the tokenizer's counts.
    pub fn decode(&self, tokens: &ImageTokens) -> Latent {
        let layout = self.layout(tokens);
        match &self.decoder {
            Some(decoder) => decoder.forward(layout.clone()) + layout,
            None => layout,
        }
    }

    /// What the codes stand for, each by itself, in the same form.
    pub fn layout(&self, tokens: &ImageTokens) -> Latent {
        let [h, w] = tokens.grid;
        let vectors = |table: &Tensor<2>, codes: &[u32]| {
            let codes = codes.iter().map(|code| i64::from(*code)).chain(std::iter::repeat(0)).take(h * w);
            let ids = TensorData::new(codes.collect::<Vec<_>>(), [h * w]);
            table.clone().select(0, Tensor::<1, Int>::from_data(ids, &table.device()))
        };
        let sum = vectors(&self.embedding, &tokens.codes) + vectors(&self.residual, &tokens.residual);
        // [h * w, C] -> [1, C, h, w]
        sum.transpose().reshape([1, self.config.latent_channels, h, w])
    }
}

impl Decoder {
    fn load(params: &Params, config: &CodebookConfig) -> Result<Self> {
        let (width, channels, last) = (config.decoder_channels, config.latent_channels, config.decoder_blocks + 1);
        let at = |layer: usize| params.at(&layer.to_string());
        Ok(Self {
            conv_in: Conv2d::load(&at(0), channels, width, 3)?,
            blocks: (1..last).map(|layer| Block::load(&at(layer), width, Activation::Relu)).collect::<Result<_>>()?,
            conv_out: Conv2d::load(&at(last), width, channels, 3)?,
        })
    }

    fn forward(&self, layout: Latent) -> Latent {
        let x = self.blocks.iter().fold(self.conv_in.forward(layout), |x, block| block.forward(x));
        self.conv_out.forward(x)
    }
}
