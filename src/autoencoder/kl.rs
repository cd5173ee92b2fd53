//! The KL autoencoder of latent diffusion (diffusers `AutoencoderKL`; Rombach et al., arXiv 2112.10752).

use burn::tensor::Tensor;

use super::shape::{AutoencoderShape, factors, map_per_position};
use crate::{
    Result,
    layers::{Activation, Conv2d, GroupNorm, ResnetBlock2D, ResnetOptions, SelfAttention, upsample_nearest_2x},
    values::{Latent, PixelTensor},
    weights::{Config, Params},
};

/// diffusers fixes the epsilon of every norm in this family.
const EPS: f64 = 1e-6;

/// The numbers of `vae/config.json` that change the arithmetic.
#[derive(Clone, Debug)]
pub struct AutoencoderKlConfig {
    pub in_channels: usize,
    pub out_channels: usize,
    pub latent_channels: usize,
    pub block_out_channels: Vec<usize>,
    /// Whether each stage of the encoder, and of the decoder, attends after each residual block.
    pub down_attention: Vec<bool>,
    pub up_attention: Vec<bool>,
    pub layers_per_block: usize,
    pub norm_num_groups: usize,
    pub act_fn: Activation,
    pub mid_block_add_attention: bool,
    pub use_quant_conv: bool,
    pub use_post_quant_conv: bool,
    factor: usize,
}

impl AutoencoderKlConfig {
    /// # Errors
    /// `BadModel` for a value that is out of range or asks for what this version cannot do.
    pub fn read(config: &Config) -> Result<Self> {
        let this = Self::read_parts(config)?;
        config.finish("AutoencoderKL");
        Ok(this)
    }

    /// As [`read`](Self::read), for a class that has these parts and more.
    pub(super) fn read_parts(config: &Config) -> Result<Self> {
        // `sample_size` only guides tiling; all arithmetic here is f32, so nothing needs upcasting; scaling
        // and means are read where latents are scaled.
        config.ignore(&[
            "sample_size",
            "force_upcast",
            "scaling_factor",
            "shift_factor",
            "latents_mean",
            "latents_std",
        ]);
        let act_fn = config.str("act_fn", "silu")?;
        let block_out_channels = config.counts("block_out_channels", &[64])?;
        let stages = block_out_channels.len();
        let (factor, _) = factors(config, "block_out_channels", stages, stages, 2)?;
        let this = Self {
            down_attention: config.second_of_each(
                "down_block_types",
                ["DownEncoderBlock2D", "AttnDownEncoderBlock2D"],
                stages,
                |_| false,
            )?,
            up_attention: config.second_of_each(
                "up_block_types",
                ["UpDecoderBlock2D", "AttnUpDecoderBlock2D"],
                stages,
                |_| false,
            )?,
            in_channels: config.count("in_channels", 3)?,
            out_channels: config.count("out_channels", 3)?,
            latent_channels: config.count("latent_channels", 4)?,
            block_out_channels,
            layers_per_block: config.count("layers_per_block", 1)?,
            norm_num_groups: config.count("norm_num_groups", 32)?,
            act_fn: Activation::from_name(act_fn)
                .ok_or_else(|| config.wrong("act_fn", &format!("this version knows {}", Activation::NAMES)))?,
            mid_block_add_attention: config.bool("mid_block_add_attention", true)?,
            use_quant_conv: config.bool("use_quant_conv", true)?,
            use_post_quant_conv: config.bool("use_post_quant_conv", true)?,
            factor,
        };
        if let Some(width) = this.block_out_channels.iter().find(|width| !width.is_multiple_of(this.norm_num_groups)) {
            return Err(config.wrong(
                "norm_num_groups",
                &format!("it must divide every value of `block_out_channels`, and {width} is one"),
            ));
        }
        if this.in_channels != this.out_channels {
            return Err(config.wrong("out_channels", &format!("it must equal `in_channels`, {}", this.in_channels)));
        }
        Ok(this)
    }

    pub fn shape(&self) -> AutoencoderShape {
        AutoencoderShape {
            pixel_channels: self.out_channels,
            latent_channels: self.latent_channels,
            factor: self.factor,
            reduction: 1,
            map_per_position: map_per_position(self.block_out_channels.iter().rev().copied()),
        }
    }
}

/// `AutoencoderKL`, both ways.
pub struct AutoencoderKl {
    encoder: Encoder,
    decoder: Decoder,
    quant_conv: Option<Conv2d>,
    post_quant_conv: Option<Conv2d>,
    latent_channels: usize,
}

/// diffusers `Encoder`.
pub(super) struct Encoder {
    conv_in: Conv2d,
    down: Vec<Stage>,
    mid: MidBlock,
    out: Output,
}

/// diffusers `Decoder`.
pub(super) struct Decoder {
    conv_in: Conv2d,
    mid: MidBlock,
    up: Vec<Stage>,
    out: Output,
}

/// Residual blocks, each perhaps followed by attention, then a change of resolution on all but the last stage.
struct Stage {
    blocks: Vec<(ResnetBlock2D, Option<PixelAttention>)>,
    resample: Option<Conv2d>,
}

struct MidBlock {
    resnets: [ResnetBlock2D; 2],
    attention: Option<PixelAttention>,
}

/// Every position looks at every other, with one head as wide as the feature map is deep.
struct PixelAttention {
    norm: GroupNorm,
    attention: SelfAttention,
}

struct Output {
    norm: GroupNorm,
    conv: Conv2d,
    activation: Activation,
}

impl AutoencoderKl {
    /// # Errors
    /// `BadModel` where a tensor is missing or has another shape than the config says.
    pub fn load(params: &Params, config: &AutoencoderKlConfig) -> Result<Self> {
        let latent = config.latent_channels;
        let one_by_one = |name: &str, channels: usize| Conv2d::load(&params.at(name), channels, channels, 1);
        Ok(Self {
            encoder: Encoder::load(&params.at("encoder"), config, 2 * latent)?,
            decoder: Decoder::load(&params.at("decoder"), config)?,
            quant_conv: config.use_quant_conv.then(|| one_by_one("quant_conv", 2 * latent)).transpose()?,
            post_quant_conv: config.use_post_quant_conv.then(|| one_by_one("post_quant_conv", latent)).transpose()?,
            latent_channels: latent,
        })
    }

    /// The mean of the posterior, or with unit `noise` a draw from it: `[N, C, H, W]` in -1..1 ->
    /// `[N, latent_channels, H / factor, W / factor]`.
    pub fn encode(&self, pixels: PixelTensor, noise: Option<Latent>) -> Latent {
        let moments = self.moments(pixels);
        let mean = moments.clone().narrow(1, 0, self.latent_channels);
        match noise {
            // diffusers bounds the logarithm of the variance so.
            Some(noise) => {
                let log_variance = moments.narrow(1, self.latent_channels, self.latent_channels).clamp(-30.0, 20.0);
                mean + (log_variance * 0.5).exp() * noise
            }
            None => mean,
        }
    }

    /// Mean, then log-variance: `[N, 2 * latent_channels, H / factor, W / factor]`.
    pub fn moments(&self, pixels: PixelTensor) -> Tensor<4> {
        let moments = self.encoder.forward(pixels);
        self.quant_conv.iter().fold(moments, |x, conv| conv.forward(x))
    }

    /// `[N, latent_channels, h, w]` -> `[N, C, h * factor, w * factor]`, nominally in -1..1.
    pub fn decode(&self, z: Latent) -> PixelTensor {
        let z = self.post_quant_conv.iter().fold(z, |x, conv| conv.forward(x));
        self.decoder.forward(z)
    }
}

impl Encoder {
    /// Gives `c_out` channels.
    pub(super) fn load(params: &Params, config: &AutoencoderKlConfig, c_out: usize) -> Result<Self> {
        let widths = &config.block_out_channels;
        let (first, last) = (widths[0], widths[widths.len() - 1]);
        let down = widths.iter().enumerate().map(|(i, &width)| {
            let stage = params.at(&format!("down_blocks.{i}"));
            // The reference pads right and bottom by one, then convolves with no padding.
            let resample = (i + 1 < widths.len())
                .then(|| Conv2d::load_with(&stage.at("downsamplers.0.conv"), width, width, 3, 2, [0, 1], true));
            let (c_in, attends) = (widths[i.saturating_sub(1)], config.down_attention[i]);
            Ok(Stage {
                blocks: load_blocks(&stage, c_in, width, config.layers_per_block, attends, config)?,
                resample: resample.transpose()?,
            })
        });
        Ok(Self {
            conv_in: Conv2d::load(&params.at("conv_in"), config.in_channels, first, 3)?,
            down: down.collect::<Result<_>>()?,
            mid: MidBlock::load(&params.at("mid_block"), last, config)?,
            out: Output::load(params, last, c_out, config)?,
        })
    }

    pub(super) fn forward(&self, x: Tensor<4>) -> Tensor<4> {
        let x = self.down.iter().fold(self.conv_in.forward(x), |x, stage| {
            let x = stage.forward(x);
            stage.resample.iter().fold(x, |x, conv| conv.forward(x))
        });
        self.out.forward(self.mid.forward(x))
    }
}

impl Decoder {
    pub(super) fn load(params: &Params, config: &AutoencoderKlConfig) -> Result<Self> {
        let widths: Vec<usize> = config.block_out_channels.iter().rev().copied().collect();
        let (first, last) = (widths[0], widths[widths.len() - 1]);
        let up = widths.iter().enumerate().map(|(i, &width)| {
            let stage = params.at(&format!("up_blocks.{i}"));
            let resample =
                (i + 1 < widths.len()).then(|| Conv2d::load(&stage.at("upsamplers.0.conv"), width, width, 3));
            let (c_in, attends) = (widths[i.saturating_sub(1)], config.up_attention[i]);
            Ok(Stage {
                blocks: load_blocks(&stage, c_in, width, config.layers_per_block + 1, attends, config)?,
                resample: resample.transpose()?,
            })
        });
        Ok(Self {
            conv_in: Conv2d::load(&params.at("conv_in"), config.latent_channels, first, 3)?,
            mid: MidBlock::load(&params.at("mid_block"), first, config)?,
            up: up.collect::<Result<_>>()?,
            out: Output::load(params, last, config.out_channels, config)?,
        })
    }

    pub(super) fn forward(&self, z: Tensor<4>) -> Tensor<4> {
        let x = self.mid.forward(self.conv_in.forward(z));
        let x = self.up.iter().fold(x, |x, stage| {
            let x = stage.forward(x);
            stage.resample.iter().fold(x, |x, conv| conv.forward(upsample_nearest_2x(x)))
        });
        self.out.forward(x)
    }
}

fn load_blocks(
    stage: &Params,
    c_in: usize,
    c_out: usize,
    count: usize,
    attends: bool,
    config: &AutoencoderKlConfig,
) -> Result<Vec<(ResnetBlock2D, Option<PixelAttention>)>> {
    let options = ResnetOptions::new(config.norm_num_groups, EPS, config.act_fn);
    (0..count)
        .map(|i| {
            let c_in = if i == 0 { c_in } else { c_out };
            let resnet = ResnetBlock2D::load(&stage.at(&format!("resnets.{i}")), c_in, c_out, options)?;
            let attention = attends.then(|| PixelAttention::load(&stage.at(&format!("attentions.{i}")), c_out, config));
            Ok((resnet, attention.transpose()?))
        })
        .collect()
}

impl Stage {
    /// The blocks, at one resolution: `[N, c_in, H, W] -> [N, c_out, H, W]`.
    fn forward(&self, x: Tensor<4>) -> Tensor<4> {
        self.blocks.iter().fold(x, |x, (resnet, attention)| {
            let x = resnet.forward(x);
            attention.iter().fold(x, |x, attention| attention.forward(x))
        })
    }
}

impl PixelAttention {
    fn load(params: &Params, width: usize, config: &AutoencoderKlConfig) -> Result<Self> {
        Ok(Self {
            norm: GroupNorm::load(&params.at("group_norm"), width, config.norm_num_groups, EPS)?,
            attention: SelfAttention::load(params, width, 1, width, true)?,
        })
    }

    /// `[N, C, H, W] -> [N, C, H, W]`.
    fn forward(&self, x: Tensor<4>) -> Tensor<4> {
        let [n, c, h, w] = x.dims();
        // [N, C, H, W] -> [N, H * W, C]
        let tokens: Tensor<3> = self.norm.forward(x.clone()).reshape([n, c, h * w]).swap_dims(1, 2);
        let attended = self.attention.forward(tokens, None);
        x + attended.swap_dims(1, 2).reshape([n, c, h, w])
    }
}

impl MidBlock {
    fn load(params: &Params, width: usize, config: &AutoencoderKlConfig) -> Result<Self> {
        let options = ResnetOptions::new(config.norm_num_groups, EPS, config.act_fn);
        let resnet = |name: &str| ResnetBlock2D::load(&params.at(name), width, width, options);
        let attention =
            config.mid_block_add_attention.then(|| PixelAttention::load(&params.at("attentions.0"), width, config));
        Ok(Self { resnets: [resnet("resnets.0")?, resnet("resnets.1")?], attention: attention.transpose()? })
    }

    /// `[N, C, H, W] -> [N, C, H, W]`.
    fn forward(&self, x: Tensor<4>) -> Tensor<4> {
        let x = self.resnets[0].forward(x);
        let x = self.attention.iter().fold(x, |x, attention| attention.forward(x));
        self.resnets[1].forward(x)
    }
}

impl Output {
    fn load(params: &Params, width: usize, c_out: usize, config: &AutoencoderKlConfig) -> Result<Self> {
        Ok(Self {
            norm: GroupNorm::load(&params.at("conv_norm_out"), width, config.norm_num_groups, EPS)?,
            conv: Conv2d::load(&params.at("conv_out"), width, c_out, 3)?,
            // diffusers writes SiLU here whatever `act_fn` says.
            activation: Activation::Silu,
        })
    }

    fn forward(&self, x: Tensor<4>) -> Tensor<4> {
        self.conv.forward(self.activation.forward(self.norm.forward(x)))
    }
}
