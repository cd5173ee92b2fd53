//! Janus' image tokenizer (transformers `JanusVQVAE`; the architecture of VQGAN, Esser et al., arXiv 2012.09841).

use burn::tensor::Tensor;

use super::{quantizer::Quantizer, shape::map_per_position};
use crate::{
    Result,
    layers::{Activation, Conv2d, GroupNorm, ResnetBlock2D, ResnetOptions, multi_head_attention, upsample_nearest_2x},
    values::{ImageTokens, Latent, PixelTensor},
    weights::{Config, Params},
};

/// Fixed in the reference.
const EPS: f64 = 1e-6;
const GROUPS: usize = 32;

/// The numbers of a config's `vq_config` that change the arithmetic.
#[derive(Clone, Debug)]
pub struct JanusVqConfig {
    pub num_embeddings: usize,
    pub embed_dim: usize,
    pub latent_channels: usize,
    pub in_channels: usize,
    pub out_channels: usize,
    pub num_res_blocks: usize,
    /// The width of each level, fine to coarse.
    pub widths: Vec<usize>,
    /// What the encoder widens pictures to first.
    base_channels: usize,
}

impl JanusVqConfig {
    /// # Errors
    /// `BadModel` for a value that is out of range or asks for what this version cannot do.
    pub fn read(config: &Config) -> Result<Self> {
        config.only("double_latent", false)?;
        let base_channels = config.count("base_channels", 128)?;
        let multipliers = config.counts("channel_multiplier", &[1, 1, 2, 2, 4])?;
        let widths: Vec<_> = multipliers.iter().map(|multiplier| multiplier.saturating_mul(base_channels)).collect();
        if !base_channels.is_multiple_of(GROUPS) {
            return Err(config.wrong("base_channels", &format!("it must be a multiple of {GROUPS}")));
        }
        Ok(Self {
            num_embeddings: config.count("num_embeddings", 16384)?,
            embed_dim: config.count("embed_dim", 8)?,
            latent_channels: config.count("latent_channels", 256)?,
            in_channels: config.count("in_channels", 3)?,
            out_channels: config.count("out_channels", 3)?,
            num_res_blocks: config.count("num_res_blocks", 2)?,
            widths,
            base_channels,
        })
    }

    /// Pixels for each place, a side.
    pub fn factor(&self) -> usize {
        1 << (self.widths.len() - 1)
    }

    /// How many values the decoder's largest feature map has for each place.
    pub fn map_per_place(&self) -> usize {
        map_per_position(self.widths.iter().rev().copied())
    }
}

/// `JanusVQVAE`, both ways.
pub struct JanusVq {
    encoder: Half,
    quant_conv: Conv2d,
    quantizer: Quantizer,
    post_quant_conv: Conv2d,
    decoder: Half,
}

/// Encoder or decoder: the middle comes last or first, and levels halve the sides or double them.
struct Half {
    conv_in: Conv2d,
    levels: Vec<Level>,
    mid: (ResnetBlock2D, Attention, ResnetBlock2D),
    mid_first: bool,
    norm_out: GroupNorm,
    conv_out: Conv2d,
}

struct Level {
    blocks: Vec<(ResnetBlock2D, Option<Attention>)>,
    resample: Option<Conv2d>,
}

/// Every position looks at every other, with one head as wide as the feature map is deep.
struct Attention {
    norm: GroupNorm,
    q: Conv2d,
    k: Conv2d,
    v: Conv2d,
    out: Conv2d,
}

impl JanusVq {
    /// # Errors
    /// `BadModel` where a tensor is missing or has another shape than the config says.
    pub fn load(params: &Params, config: &JanusVqConfig) -> Result<Self> {
        let JanusVqConfig { num_embeddings, embed_dim, latent_channels, .. } = *config;
        Ok(Self {
            encoder: Half::encoder(&params.at("encoder"), config)?,
            quant_conv: Conv2d::load(&params.at("quant_conv"), latent_channels, embed_dim, 1)?,
            quantizer: Quantizer::load(&params.at("quantize"), num_embeddings, embed_dim)?,
            post_quant_conv: Conv2d::load(&params.at("post_quant_conv"), embed_dim, latent_channels, 1)?,
            decoder: Half::decoder(&params.at("decoder"), config)?,
        })
    }

    /// What is to be quantised: `[N, C, H, W]` in -1..1 -> `[N, embed_dim, H / factor, W / factor]`.
    pub fn encode(&self, pixels: PixelTensor) -> Latent {
        self.quant_conv.forward(self.encoder.forward(pixels))
    }

    /// The nearest codes of what [`encode`](Self::encode) gives, a grid for each picture.
    ///
    /// # Errors
    /// `DeviceLost` or `OutOfMemory` from the device.
    pub async fn codes(&self, latent: Latent) -> Result<Vec<ImageTokens>> {
        self.quantizer.codes(latent).await
    }

    /// The picture of a grid of codes, `[1, C, h * factor, w * factor]`, nominally in -1..1. Vectors are given the length 1
    /// here, and here alone.
    ///
    /// # Errors
    /// `BadInput` for codes that the tokenizer has not, or a grid that is not full.
    pub fn decode(&self, tokens: &ImageTokens) -> Result<PixelTensor> {
        Ok(self.decoder.forward(self.post_quant_conv.forward(self.quantizer.vectors(tokens, true)?)))
    }
}

fn resnet(params: &Params, c_in: usize, c_out: usize) -> Result<ResnetBlock2D> {
    ResnetBlock2D::load(params, c_in, c_out, ResnetOptions::new(GROUPS, EPS, Activation::Silu))
}

impl Half {
    fn encoder(params: &Params, config: &JanusVqConfig) -> Result<Self> {
        let (widths, coarsest) = (&config.widths, config.widths.len() - 1);
        let levels = widths.iter().enumerate().map(|(i, &width)| {
            let level = params.at(&format!("down.{i}"));
            let c_in = if i == 0 { config.base_channels } else { widths[i - 1] };
            // The reference pads right and bottom by one, then convolves with no padding.
            let resample = (i < coarsest)
                .then(|| Conv2d::load_with(&level.at("downsample.conv"), width, width, 3, 2, [0, 1], true));
            Ok(Level {
                blocks: blocks(&level, c_in, width, config.num_res_blocks, i == coarsest)?,
                resample: resample.transpose()?,
            })
        });
        let levels = levels.collect::<Result<_>>()?;
        let ends = [config.in_channels, config.base_channels, widths[coarsest], config.latent_channels];
        Self::load(params, levels, widths[coarsest], false, ends)
    }

    fn decoder(params: &Params, config: &JanusVqConfig) -> Result<Self> {
        let widths: Vec<usize> = config.widths.iter().rev().copied().collect();
        let finest = widths.len() - 1;
        let levels = widths.iter().enumerate().map(|(i, &width)| {
            let level = params.at(&format!("up.{i}"));
            let resample = (i < finest).then(|| Conv2d::load(&level.at("upsample.conv"), width, width, 3));
            Ok(Level {
                blocks: blocks(&level, widths[i.saturating_sub(1)], width, config.num_res_blocks + 1, i == 0)?,
                resample: resample.transpose()?,
            })
        });
        let levels = levels.collect::<Result<_>>()?;
        let ends = [config.latent_channels, widths[0], widths[finest], config.out_channels];
        Self::load(params, levels, widths[0], true, ends)
    }

    /// `ends` are the channels before and after the first convolution, and the last.
    fn load(params: &Params, levels: Vec<Level>, mid: usize, mid_first: bool, ends: [usize; 4]) -> Result<Self> {
        let at = |name: &str| params.at(&format!("mid.{name}"));
        Ok(Self {
            conv_in: Conv2d::load(&params.at("conv_in"), ends[0], ends[1], 3)?,
            levels,
            mid: (
                resnet(&at("block_1"), mid, mid)?,
                Attention::load(&at("attn_1"), mid)?,
                resnet(&at("block_2"), mid, mid)?,
            ),
            mid_first,
            norm_out: GroupNorm::load(&params.at("norm_out"), ends[2], GROUPS, EPS)?,
            conv_out: Conv2d::load(&params.at("conv_out"), ends[2], ends[3], 3)?,
        })
    }

    fn forward(&self, x: Tensor<4>) -> Tensor<4> {
        let mid = |x| self.mid.2.forward(self.mid.1.forward(self.mid.0.forward(x)));
        let x = self.conv_in.forward(x);
        let x = if self.mid_first { mid(x) } else { x };
        let x = self.levels.iter().fold(x, |x, level| {
            let x = level.blocks.iter().fold(x, |x, (resnet, attention)| {
                attention.iter().fold(resnet.forward(x), |x, attention| attention.forward(x))
            });
            level
                .resample
                .iter()
                .fold(x, |x, conv| conv.forward(if self.mid_first { upsample_nearest_2x(x) } else { x }))
        });
        let x = if self.mid_first { x } else { mid(x) };
        self.conv_out.forward(Activation::Silu.forward(self.norm_out.forward(x)))
    }
}

fn blocks(
    level: &Params,
    c_in: usize,
    c_out: usize,
    count: usize,
    attends: bool,
) -> Result<Vec<(ResnetBlock2D, Option<Attention>)>> {
    (0..count)
        .map(|i| {
            let c_in = if i == 0 { c_in } else { c_out };
            let attention = attends.then(|| Attention::load(&level.at(&format!("attn.{i}")), c_out));
            Ok((resnet(&level.at(&format!("block.{i}")), c_in, c_out)?, attention.transpose()?))
        })
        .collect()
}

impl Attention {
    fn load(params: &Params, width: usize) -> Result<Self> {
        let conv = |name: &str| Conv2d::load(&params.at(name), width, width, 1);
        Ok(Self {
            norm: GroupNorm::load(&params.at("norm"), width, GROUPS, EPS)?,
            q: conv("q")?,
            k: conv("k")?,
            v: conv("v")?,
            out: conv("proj_out")?,
        })
    }

    /// `[N, C, H, W] -> [N, C, H, W]`.
    fn forward(&self, x: Tensor<4>) -> Tensor<4> {
        let [n, c, h, w] = x.dims();
        let normed = self.norm.forward(x.clone());
        // [N, C, H, W] -> [N, H * W, C]
        let [q, k, v] = [&self.q, &self.k, &self.v].map(|conv| {
            let tokens: Tensor<3> = conv.forward(normed.clone()).reshape([n, c, h * w]);
            tokens.swap_dims(1, 2)
        });
        let attended = multi_head_attention(q, k, v, 1, None, None);
        x + self.out.forward(attended.swap_dims(1, 2).reshape([n, c, h, w]))
    }
}
