//! The deep compression autoencoder (diffusers `AutoencoderDC`; Chen et al., arXiv 2410.10733).

use burn::tensor::{Tensor, activation, module, ops::ConvOptions};

use super::shape::{AutoencoderShape, factors, map_per_position};
use crate::{
    Result,
    layers::{Activation, Conv2d, Linear, RmsNorm, upsample_nearest_2x},
    values::{Latent, PixelTensor},
    weights::{Config, Params},
};

/// What the reference fixes: of every norm, and of the linear attention's denominator.
const NORM_EPS: f64 = 1e-5;
const ATTENTION_EPS: f64 = 1e-15;
/// How much wider the inverted bottleneck is than its ends.
const EXPAND: usize = 4;

/// The numbers of `vae/config.json` that change the arithmetic.
#[derive(Clone, Debug)]
pub struct AutoencoderDcConfig {
    pub in_channels: usize,
    pub latent_channels: usize,
    pub attention_head_dim: usize,
    encoder: Vec<StageConfig>,
    decoder: Vec<StageConfig>,
    factor: usize,
    reduction: usize,
    pixel_unshuffle: bool,
    pixel_shuffle: bool,
    encoder_out_shortcut: bool,
    decoder_in_shortcut: bool,
    decoder_conv_act: Activation,
}

#[derive(Clone, Debug)]
struct StageConfig {
    channels: usize,
    layers: usize,
    kind: StageKind,
    batch_norm: bool,
}

#[derive(Clone, Debug)]
enum StageKind {
    Residual(Activation),
    /// With the kernel sizes of its further scales.
    Attention(Vec<usize>),
}

impl AutoencoderDcConfig {
    /// # Errors
    /// `BadModel` for a value that is out of range or asks for what this version cannot do.
    pub fn read(config: &Config) -> Result<Self> {
        // Scaling is read where latents are scaled.
        config.ignore(&["scaling_factor", "shift_factor", "latents_mean", "latents_std", "force_upcast"]);
        let activation = |key: &str, name: &str| {
            Activation::from_name(name)
                .ok_or_else(|| config.wrong(key, &format!("this version knows {}", Activation::NAMES)))
        };
        let head_dim = config.count("attention_head_dim", 32)?;
        let latent_channels = config.count("latent_channels", 32)?;
        let stages = |side: &str, default_layers: &[usize]| -> Result<Vec<StageConfig>> {
            let key = |name: &str| format!("{side}_{name}");
            let channels = config.counts(&key("block_out_channels"), &[128, 256, 512, 512, 1024, 1024])?;
            let n = channels.len();
            let layers = config.opt_usizes(&key("layers_per_block"))?.unwrap_or_else(|| default_layers.to_vec());
            let scales = config.opt_usize_lists(&key("qkv_multiscales"))?;
            let scales = scales.unwrap_or_else(|| vec![vec![], vec![], vec![], vec![5], vec![5], vec![5]]);
            let types = config.str_each(&key("block_types"), "ResBlock", n)?;
            let (act_fns, norms) = match side {
                "decoder" => (
                    config.str_each("decoder_act_fns", "silu", n)?,
                    config.str_each("decoder_norm_types", "rms_norm", n)?,
                ),
                _ => (vec!["silu"; n], vec!["rms_norm"; n]),
            };
            if layers.len() != n || scales.len() != n {
                let right = format!("it, the layers and the multiscales must be as many; there are {n}");
                return Err(config.wrong(&key("block_out_channels"), &right));
            }
            if layers.iter().skip(1).any(|layers| *layers == 0) || n < 2 {
                return Err(config.wrong(&key("layers_per_block"), "only the first stage may have none"));
            }
            let ends = channels[n - 1];
            if !ends.is_multiple_of(latent_channels) {
                let right = format!("the last must be divisible by `latent_channels`, {latent_channels}");
                return Err(config.wrong(&key("block_out_channels"), &right));
            }
            (0..n)
                .map(|i| {
                    let kind = match types[i] {
                        "ResBlock" => StageKind::Residual(activation("decoder_act_fns", act_fns[i])?),
                        "EfficientViTBlock" if channels[i].is_multiple_of(head_dim) => {
                            StageKind::Attention(scales[i].clone())
                        }
                        "EfficientViTBlock" => {
                            let right = format!("it must divide the width of stages that attend, {}", channels[i]);
                            return Err(config.wrong("attention_head_dim", &right));
                        }
                        _ => {
                            let known = "this version knows ResBlock and EfficientViTBlock";
                            return Err(config.wrong(&key("block_types"), known));
                        }
                    };
                    let batch_norm = match norms[i] {
                        "rms_norm" => false,
                        "batch_norm" => true,
                        _ => return Err(config.wrong("decoder_norm_types", "this version knows rms_norm and batch_norm")),
                    };
                    Ok(StageConfig { channels: channels[i], layers: layers[i], kind, batch_norm })
                })
                .collect()
        };
        let encoder = stages("encoder", &[2, 2, 2, 3, 3, 3])?;
        let decoder = stages("decoder", &[3, 3, 3, 3, 3, 3])?;
        let (factor, reduction) = factors(config, "decoder_block_out_channels", encoder.len(), decoder.len(), 2)?;
        let this = Self {
            in_channels: config.count("in_channels", 3)?,
            latent_channels,
            attention_head_dim: head_dim,
            encoder,
            decoder,
            factor,
            reduction,
            pixel_unshuffle: match config.str("downsample_block_type", "pixel_unshuffle")? {
                "pixel_unshuffle" => true,
                "conv" | "Conv" => false,
                _ => return Err(config.wrong("downsample_block_type", "this version knows pixel_unshuffle and Conv")),
            },
            pixel_shuffle: match config.str("upsample_block_type", "pixel_shuffle")? {
                "pixel_shuffle" => true,
                "interpolate" => false,
                _ => {
                    return Err(config.wrong("upsample_block_type", "this version knows pixel_shuffle and interpolate"));
                }
            },
            encoder_out_shortcut: config.bool("encoder_out_shortcut", true)?,
            decoder_in_shortcut: config.bool("decoder_in_shortcut", true)?,
            decoder_conv_act: activation("decoder_conv_act_fn", config.str("decoder_conv_act_fn", "relu")?)?,
        };
        config.finish("AutoencoderDC");
        Ok(this)
    }

    pub fn shape(&self) -> AutoencoderShape {
        AutoencoderShape {
            pixel_channels: self.in_channels,
            latent_channels: self.latent_channels,
            factor: self.factor,
            reduction: self.reduction,
            map_per_position: map_per_position(self.decoder.iter().rev().map(|stage| stage.channels)),
        }
    }
}

/// `AutoencoderDC`, both ways.
pub struct AutoencoderDc {
    encoder_in: EncoderIn,
    down: Vec<(Vec<Block>, Option<Down>)>,
    encoder_out: Conv2d,
    decoder_in: Conv2d,
    /// From the deepest stage on.
    up: Vec<(Option<Up>, Vec<Block>)>,
    norm_out: ChannelNorm,
    decoder_out: DecoderOut,
    config: AutoencoderDcConfig,
}

enum EncoderIn {
    Conv(Conv2d),
    Down(Down),
}

enum DecoderOut {
    Conv(Conv2d),
    Up(Up),
}

/// Half the resolution; what the convolution gives is added to an average over channels.
struct Down {
    conv: Conv2d,
    unshuffle: bool,
    shortcut: bool,
}

/// Twice the resolution; what the convolution gives is added to repeated channels.
struct Up {
    conv: Conv2d,
    shuffle: bool,
    shortcut: bool,
}

enum Block {
    Residual { conv1: Conv2d, conv2: Conv2d, norm: ChannelNorm, activation: Activation },
    Attention { attention: LinearAttention, conv: GatedConv },
}

/// A norm over the channels of a feature map, of one of two kinds.
enum ChannelNorm {
    Rms(RmsNorm),
    /// By the statistics of training: `x scale + shift` for each channel, `[1, C, 1, 1]`.
    Batch {
        scale: Tensor<4>,
        shift: Tensor<4>,
    },
}

/// Attention whose cost grows with the number of positions, not its square (diffusers `SanaMultiscaleLinearAttention`).
struct LinearAttention {
    qkv: [Linear; 3],
    scales: Vec<Multiscale>,
    out: Linear,
    norm: ChannelNorm,
    head_dim: usize,
}

/// A depthwise and a grouped pointwise convolution over query, key and value.
struct Multiscale {
    depthwise: Tensor<4>,
    pointwise: Tensor<4>,
    groups: usize,
}

/// An inverted bottleneck with a gate (diffusers `GLUMBConv`).
struct GatedConv {
    inverted: Conv2d,
    depthwise: Tensor<4>,
    depthwise_bias: Tensor<1>,
    pointwise: Conv2d,
    norm: ChannelNorm,
}

impl AutoencoderDc {
    /// # Errors
    /// `BadModel` where a tensor is missing or has another shape than the config says.
    pub fn load(params: &Params, config: &AutoencoderDcConfig) -> Result<Self> {
        let (encoder, decoder) = (params.at("encoder"), params.at("decoder"));
        let latent = config.latent_channels;
        let blocks = |stage: &Params, first: usize, of: &StageConfig| -> Result<Vec<Block>> {
            (0..of.layers).map(|i| Block::load(&stage.at(&format!("{}", first + i)), of, config)).collect()
        };
        let first = |stages: &[StageConfig]| stages[usize::from(stages[0].layers == 0)].channels;

        let n = config.encoder.len();
        let encoder_first = first(&config.encoder);
        let conv_in = encoder.at("conv_in");
        let encoder_in = match config.encoder[0].layers {
            0 => EncoderIn::Down(Down::load(&conv_in, config.in_channels, encoder_first, false, config)?),
            _ => EncoderIn::Conv(Conv2d::load(&conv_in, config.in_channels, encoder_first, 3)?),
        };
        let down = config.encoder.iter().enumerate().filter(|(_, stage)| stage.layers > 0).map(|(i, stage)| {
            let params = encoder.at(&format!("down_blocks.{i}"));
            let down = (i + 1 < n).then(|| {
                let next = config.encoder[i + 1].channels;
                Down::load(&params.at(&stage.layers.to_string()), stage.channels, next, true, config)
            });
            Ok((blocks(&params, 0, stage)?, down.transpose()?))
        });

        let n = config.decoder.len();
        let decoder_first = first(&config.decoder);
        let conv_out = decoder.at("conv_out");
        let up = config.decoder.iter().enumerate().rev().filter(|(_, stage)| stage.layers > 0).map(|(i, stage)| {
            let params = decoder.at(&format!("up_blocks.{i}"));
            let up = (i + 1 < n)
                .then(|| Up::load(&params.at("0"), config.decoder[i + 1].channels, stage.channels, true, config));
            let up = up.transpose()?;
            Ok((up, blocks(&params, usize::from(i + 1 < n), stage)?))
        });
        Ok(Self {
            encoder_in,
            down: down.collect::<Result<_>>()?,
            encoder_out: Conv2d::load(
                &encoder.at("conv_out"),
                config.encoder[config.encoder.len() - 1].channels,
                latent,
                3,
            )?,
            decoder_in: Conv2d::load(&decoder.at("conv_in"), latent, config.decoder[n - 1].channels, 3)?,
            up: up.collect::<Result<_>>()?,
            norm_out: ChannelNorm::load(&decoder.at("norm_out"), decoder_first, false)?,
            decoder_out: match config.decoder[0].layers {
                0 => DecoderOut::Up(Up::load(&conv_out, decoder_first, config.in_channels, false, config)?),
                _ => DecoderOut::Conv(Conv2d::load(&conv_out, decoder_first, config.in_channels, 3)?),
            },
            config: config.clone(),
        })
    }

    /// `[N, C, H, W]` in -1..1 -> `[N, latent_channels, H / factor, W / factor]`.
    pub fn encode(&self, pixels: PixelTensor) -> Latent {
        let x = match &self.encoder_in {
            EncoderIn::Conv(conv) => conv.forward(pixels),
            EncoderIn::Down(down) => down.forward(pixels),
        };
        let x = self.down.iter().fold(x, |x, (blocks, down)| {
            let x = blocks.iter().fold(x, |x, block| block.forward(x));
            down.iter().fold(x, |x, down| down.forward(x))
        });
        let z = self.encoder_out.forward(x.clone());
        if self.config.encoder_out_shortcut { z + average_groups(x, self.config.latent_channels) } else { z }
    }

    /// `[N, latent_channels, h, w]` -> `[N, C, h * factor, w * factor]`, nominally in -1..1.
    pub fn decode(&self, z: Latent) -> PixelTensor {
        let x = self.decoder_in.forward(z.clone());
        let x = if self.config.decoder_in_shortcut {
            let [_, channels, _, _] = x.dims();
            x + repeat_channels(z, channels)
        } else {
            x
        };
        let x = self.up.iter().fold(x, |x, (up, blocks)| {
            let x = up.iter().fold(x, |x, up| up.forward(x));
            blocks.iter().fold(x, |x, block| block.forward(x))
        });
        let x = self.config.decoder_conv_act.forward(self.norm_out.forward(x));
        match &self.decoder_out {
            DecoderOut::Conv(conv) => conv.forward(x),
            DecoderOut::Up(up) => up.forward(x),
        }
    }
}

impl Down {
    fn load(params: &Params, c_in: usize, c_out: usize, shortcut: bool, config: &AutoencoderDcConfig) -> Result<Self> {
        let unshuffle = config.pixel_unshuffle;
        let (width, stride) = if unshuffle { (c_out / 4, 1) } else { (c_out, 2) };
        let conv = Conv2d::load_with(&params.at("conv"), c_in, width, 3, stride, [1, 1], true)?;
        Ok(Self { conv, unshuffle, shortcut })
    }

    fn forward(&self, x: Tensor<4>) -> Tensor<4> {
        let h = self.conv.forward(x.clone());
        let h = if self.unshuffle { pixel_unshuffle(h) } else { h };
        let [_, channels, _, _] = h.dims();
        if self.shortcut { h + average_groups(pixel_unshuffle(x), channels) } else { h }
    }
}

impl Up {
    fn load(params: &Params, c_in: usize, c_out: usize, shortcut: bool, config: &AutoencoderDcConfig) -> Result<Self> {
        let shuffle = config.pixel_shuffle;
        let conv = Conv2d::load(&params.at("conv"), c_in, if shuffle { 4 * c_out } else { c_out }, 3)?;
        Ok(Self { conv, shuffle, shortcut })
    }

    fn forward(&self, x: Tensor<4>) -> Tensor<4> {
        let h = match self.shuffle {
            true => pixel_shuffle(self.conv.forward(x.clone())),
            false => self.conv.forward(upsample_nearest_2x(x.clone())),
        };
        let [_, channels, _, _] = h.dims();
        if self.shortcut { h + pixel_shuffle(repeat_channels(x, 4 * channels)) } else { h }
    }
}

impl Block {
    fn load(params: &Params, stage: &StageConfig, config: &AutoencoderDcConfig) -> Result<Self> {
        let c = stage.channels;
        Ok(match &stage.kind {
            StageKind::Residual(activation) => Self::Residual {
                conv1: Conv2d::load(&params.at("conv1"), c, c, 3)?,
                conv2: Conv2d::load_with(&params.at("conv2"), c, c, 3, 1, [1, 1], false)?,
                norm: ChannelNorm::load(&params.at("norm"), c, stage.batch_norm)?,
                activation: *activation,
            },
            StageKind::Attention(kernels) => Self::Attention {
                attention: LinearAttention::load(
                    &params.at("attn"),
                    c,
                    kernels,
                    config.attention_head_dim,
                    stage.batch_norm,
                )?,
                conv: GatedConv::load(&params.at("conv_out"), c)?,
            },
        })
    }

    /// `[N, C, H, W] -> [N, C, H, W]`.
    fn forward(&self, x: Tensor<4>) -> Tensor<4> {
        match self {
            Self::Residual { conv1, conv2, norm, activation } => {
                let h = conv2.forward(activation.forward(conv1.forward(x.clone())));
                x + norm.forward(h)
            }
            Self::Attention { attention, conv } => conv.forward(attention.forward(x)),
        }
    }
}

impl ChannelNorm {
    fn load(params: &Params, c: usize, batch: bool) -> Result<Self> {
        if !batch {
            return Ok(Self::Rms(RmsNorm::load_with_bias(params, c, NORM_EPS)?));
        }
        let tensor = |name: &str| params.tensor(name, [c]);
        let (weight, bias, mean, variance): (Tensor<1>, _, _, _) =
            (tensor("weight")?, tensor("bias")?, tensor("running_mean")?, tensor("running_var")?);
        let scale = weight / (variance + NORM_EPS).sqrt();
        let channels = |values: Tensor<1>| values.unsqueeze_dims(&[0, 2, 3]);
        Ok(Self::Batch { shift: channels(bias - mean * scale.clone()), scale: channels(scale) })
    }

    /// `[N, C, H, W] -> [N, C, H, W]`.
    fn forward(&self, x: Tensor<4>) -> Tensor<4> {
        match self {
            Self::Rms(norm) => norm.forward(x.permute([0, 2, 3, 1])).permute([0, 3, 1, 2]),
            Self::Batch { scale, shift } => x * scale.clone() + shift.clone(),
        }
    }
}

impl LinearAttention {
    fn load(params: &Params, c: usize, kernels: &[usize], head_dim: usize, batch_norm: bool) -> Result<Self> {
        let linear = |name: &str| Linear::load_with(&params.at(name), c, c, false);
        let scales = kernels.iter().enumerate().map(|(i, kernel)| {
            let scale = params.at(&format!("to_qkv_multiscale.{i}"));
            let groups = 3 * c / head_dim;
            Ok(Multiscale {
                depthwise: scale.at("proj_in").tensor("weight", [3 * c, 1, *kernel, *kernel])?,
                pointwise: scale.at("proj_out").tensor("weight", [3 * c, head_dim, 1, 1])?,
                groups,
            })
        });
        Ok(Self {
            qkv: [linear("to_q")?, linear("to_k")?, linear("to_v")?],
            scales: scales.collect::<Result<_>>()?,
            out: Linear::load_with(&params.at("to_out"), c * (1 + kernels.len()), c, false)?,
            norm: ChannelNorm::load(&params.at("norm_out"), c, batch_norm)?,
            head_dim,
        })
    }

    /// `[N, C, H, W] -> [N, C, H, W]`.
    fn forward(&self, x: Tensor<4>) -> Tensor<4> {
        let [n, c, height, width] = x.dims();
        // [N, C, H, W] -> [N, H, W, C]; query, key and value side by side -> [N, 3 C, H, W]
        let tokens = x.clone().permute([0, 2, 3, 1]);
        let qkv = Tensor::cat(self.qkv.iter().map(|linear| linear.forward(tokens.clone())).collect(), 3);
        let qkv = qkv.permute([0, 3, 1, 2]);
        let scales = self.scales.iter().map(|scale| scale.forward(qkv.clone()));
        let qkv = Tensor::cat(std::iter::once(qkv.clone()).chain(scales).collect(), 1);
        let (d, positions) = (self.head_dim, height * width);
        let groups = c * (1 + self.scales.len()) / d;
        // [N, groups * 3 d, H, W] -> [N, groups, 3 d, H * W]
        let qkv: Tensor<4> = qkv.reshape([n, groups, 3 * d, positions]);
        let part = |i: usize| qkv.clone().narrow(2, i * d, d);
        let (query, key, value) = (activation::relu(part(0)), activation::relu(part(1)), part(2));
        let attended = if positions > d {
            // With a row of ones below the values, the last row of the result is the denominator.
            let ones = Tensor::ones([n, groups, 1, positions], &x.device());
            let scores = Tensor::cat(vec![value, ones], 2).matmul(key.swap_dims(2, 3));
            let sums = scores.matmul(query);
            sums.clone().narrow(2, 0, d) / (sums.narrow(2, d, 1) + ATTENTION_EPS)
        } else {
            let scores = key.swap_dims(2, 3).matmul(query);
            let total = scores.clone().sum_dim(2) + ATTENTION_EPS;
            value.matmul(scores / total)
        };
        // [N, groups, d, H * W] -> [N, H, W, groups * d] -> [N, H, W, C]
        let out = attended.reshape([n, groups * d, height, width]).permute([0, 2, 3, 1]);
        x + self.norm.forward(self.out.forward(out).permute([0, 3, 1, 2]))
    }
}

impl Multiscale {
    fn forward(&self, qkv: Tensor<4>) -> Tensor<4> {
        let [channels, _, kernel, _] = self.depthwise.dims();
        let h = grouped(qkv, &self.depthwise, None, kernel / 2, channels);
        grouped(h, &self.pointwise, None, 0, self.groups)
    }
}

impl GatedConv {
    fn load(params: &Params, c: usize) -> Result<Self> {
        let hidden = EXPAND * c;
        let depthwise = params.at("conv_depth");
        Ok(Self {
            inverted: Conv2d::load(&params.at("conv_inverted"), c, 2 * hidden, 1)?,
            depthwise: depthwise.tensor("weight", [2 * hidden, 1, 3, 3])?,
            depthwise_bias: depthwise.tensor("bias", [2 * hidden])?,
            pointwise: Conv2d::load_with(&params.at("conv_point"), hidden, c, 1, 1, [0, 0], false)?,
            norm: ChannelNorm::load(&params.at("norm"), c, false)?,
        })
    }

    /// `[N, C, H, W] -> [N, C, H, W]`.
    fn forward(&self, x: Tensor<4>) -> Tensor<4> {
        let h = Activation::Silu.forward(self.inverted.forward(x.clone()));
        let [_, width, _, _] = h.dims();
        let h = grouped(h, &self.depthwise, Some(&self.depthwise_bias), 1, width);
        let gate = Activation::Silu.forward(h.clone().narrow(1, width / 2, width / 2));
        let h = self.pointwise.forward(h.narrow(1, 0, width / 2) * gate);
        x + self.norm.forward(h)
    }
}

/// A convolution in channel groups, at the same size.
fn grouped(x: Tensor<4>, weight: &Tensor<4>, bias: Option<&Tensor<1>>, padding: usize, groups: usize) -> Tensor<4> {
    module::conv2d(x, weight.clone(), bias.cloned(), ConvOptions::new([1, 1], [padding; 2], [1, 1], groups))
}

/// Two by two pixels become four channels: `[N, C, H, W] -> [N, 4 C, H / 2, W / 2]` (`F.pixel_unshuffle`).
fn pixel_unshuffle(x: Tensor<4>) -> Tensor<4> {
    let [n, c, h, w] = x.dims();
    x.reshape([n, c, h / 2, 2, w / 2, 2]).permute([0, 1, 3, 5, 2, 4]).reshape([n, 4 * c, h / 2, w / 2])
}

/// The inverse: `[N, 4 C, H, W] -> [N, C, 2 H, 2 W]` (`F.pixel_shuffle`).
fn pixel_shuffle(x: Tensor<4>) -> Tensor<4> {
    let [n, c, h, w] = x.dims();
    x.reshape([n, c / 4, 2, 2, h, w]).permute([0, 1, 4, 2, 5, 3]).reshape([n, c / 4, 2 * h, 2 * w])
}

/// The mean of each run of channels, so that `channels` are left.
fn average_groups(x: Tensor<4>, channels: usize) -> Tensor<4> {
    let [n, c, h, w] = x.dims();
    x.reshape([n, channels, c / channels, h * w]).mean_dim(2).reshape([n, channels, h, w])
}

/// Each channel several times in a row, so that there are `channels` (`repeat_interleave`).
fn repeat_channels(x: Tensor<4>, channels: usize) -> Tensor<4> {
    let [n, c, h, w] = x.dims();
    x.reshape([n, c, 1, h * w]).repeat_dim(2, channels / c).reshape([n, channels, h, w])
}
