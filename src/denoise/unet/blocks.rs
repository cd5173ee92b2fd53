//! The parts of a U-Net: residual blocks, each perhaps followed by a transformer, between changes of resolution.

use burn::tensor::Tensor;

use super::config::{AttentionConfig, BlockConfig, MidBlockKind, UNetConfig};
use crate::{
    Result,
    layers::{
        Attention, Conv2d, FeedForward, GroupNorm, LayerNorm, Linear, ResnetBlock2D, ResnetOptions, resize_nearest,
    },
    weights::Params,
};

/// What the reference fixes whatever `norm_eps` says: of a transformer's group norm, and of its layer norms.
const TRANSFORMER_GROUP_EPS: f64 = 1e-6;
const TRANSFORMER_LAYER_EPS: f64 = 1e-5;

/// What every block is told besides its input.
pub struct Context<'a> {
    /// `[N, time_dim]`, activated.
    pub time: Tensor<2>,
    /// `[N, T, D]`.
    pub text: &'a Tensor<3>,
    /// `[N, 1, 1, T]`.
    pub text_bias: Option<Tensor<4>>,
}

fn resnet_options(config: &UNetConfig) -> ResnetOptions {
    ResnetOptions {
        time_dim: Some(config.time_embedding_dim),
        scale_shift: config.scale_shift,
        ..ResnetOptions::new(config.norm_num_groups, config.norm_eps, config.act_fn)
    }
}

/// A residual block and the transformer after it.
struct Layer {
    resnet: ResnetBlock2D,
    transformer: Option<Transformer>,
}

impl Layer {
    fn load(params: &Params, i: usize, c_in: usize, block: &BlockConfig, config: &UNetConfig) -> Result<Self> {
        let transformer = block.attention.map(|attention| {
            Transformer::load(&params.at(&format!("attentions.{i}")), block.channels, attention, config)
        });
        Ok(Self {
            resnet: ResnetBlock2D::load(
                &params.at(&format!("resnets.{i}")),
                c_in,
                block.channels,
                resnet_options(config),
            )?,
            transformer: transformer.transpose()?,
        })
    }

    fn forward(&self, x: Tensor<4>, context: &Context) -> Tensor<4> {
        let x = self.resnet.forward_at(x, &context.time);
        self.transformer.iter().fold(x, |x, transformer| transformer.forward(x, context))
    }
}

/// `DownBlock2D` or `CrossAttnDownBlock2D`.
pub struct DownBlock {
    layers: Vec<Layer>,
    downsample: Option<Conv2d>,
}

impl DownBlock {
    pub fn load(params: &Params, c_in: usize, block: &BlockConfig, last: bool, config: &UNetConfig) -> Result<Self> {
        let channels = block.channels;
        let layers =
            (0..block.layers).map(|i| Layer::load(params, i, if i == 0 { c_in } else { channels }, block, config));
        // Without padding the reference pads right and below.
        let padding = if config.downsample_padding == 0 { [0, 1] } else { [config.downsample_padding; 2] };
        let downsample = (!last)
            .then(|| Conv2d::load_with(&params.at("downsamplers.0.conv"), channels, channels, 3, 2, padding, true));
        Ok(Self { layers: layers.collect::<Result<_>>()?, downsample: downsample.transpose()? })
    }

    /// `[N, c_in, H, W] -> [N, c, H / 2, W / 2]` (the last block keeps the size); notes what the way up needs.
    pub fn forward(&self, mut x: Tensor<4>, context: &Context, skips: &mut Vec<Tensor<4>>) -> Tensor<4> {
        for layer in &self.layers {
            x = layer.forward(x, context);
            skips.push(x.clone());
        }
        if let Some(conv) = &self.downsample {
            x = conv.forward(x);
            skips.push(x.clone());
        }
        x
    }
}

/// `UpBlock2D` or `CrossAttnUpBlock2D`.
pub struct UpBlock {
    layers: Vec<Layer>,
    upsample: Option<Conv2d>,
}

impl UpBlock {
    /// `c_before` is what the block below gives, `c_after` the width of the block above.
    pub fn load(
        params: &Params,
        c_before: usize,
        c_after: usize,
        block: &BlockConfig,
        last: bool,
        config: &UNetConfig,
    ) -> Result<Self> {
        let channels = block.channels;
        let layers = (0..=block.layers).map(|i| {
            let from_below = if i == 0 { c_before } else { channels };
            let skip = if i == block.layers { c_after } else { channels };
            Layer::load(params, i, from_below + skip, block, config)
        });
        let upsample = (!last).then(|| Conv2d::load(&params.at("upsamplers.0.conv"), channels, channels, 3));
        Ok(Self { layers: layers.collect::<Result<_>>()?, upsample: upsample.transpose()? })
    }

    /// `[N, c_before, H, W] -> [N, c, 2 H, 2 W]`, or the size of the next skip where that is odd.
    pub fn forward(&self, mut x: Tensor<4>, context: &Context, skips: &mut Vec<Tensor<4>>) -> Tensor<4> {
        for layer in &self.layers {
            let skip = skips.pop();
            x = layer.forward(Tensor::cat(std::iter::once(x).chain(skip).collect(), 1), context);
        }
        match (&self.upsample, skips.last()) {
            (Some(conv), Some(next)) => {
                let [_, _, height, width] = next.dims();
                conv.forward(resize_nearest(x, [height, width]))
            }
            _ => x,
        }
    }
}

/// `UNetMidBlock2D` or `UNetMidBlock2DCrossAttn`.
pub struct MidBlock {
    first: ResnetBlock2D,
    rest: Option<(Transformer, ResnetBlock2D)>,
}

impl MidBlock {
    pub fn load(params: &Params, channels: usize, config: &UNetConfig) -> Result<Option<Self>> {
        let options = ResnetOptions { output_scale: config.mid_block_scale_factor, ..resnet_options(config) };
        let resnet = |name: &str| ResnetBlock2D::load(&params.at(name), channels, channels, options);
        let rest = match config.mid_block {
            MidBlockKind::None => return Ok(None),
            MidBlockKind::Plain => None,
            MidBlockKind::CrossAttention(attention) => {
                let transformer = Transformer::load(&params.at("attentions.0"), channels, attention, config)?;
                Some((transformer, resnet("resnets.1")?))
            }
        };
        Ok(Some(Self { first: resnet("resnets.0")?, rest }))
    }

    /// `[N, C, H, W] -> [N, C, H, W]`.
    pub fn forward(&self, x: Tensor<4>, context: &Context) -> Tensor<4> {
        let x = self.first.forward_at(x, &context.time);
        match &self.rest {
            Some((transformer, resnet)) => resnet.forward_at(transformer.forward(x, context), &context.time),
            None => x,
        }
    }
}

/// diffusers `Transformer2DModel` over a feature map.
struct Transformer {
    norm: GroupNorm,
    proj_in: Projection,
    blocks: Vec<TransformerBlock>,
    proj_out: Projection,
}

/// The same arithmetic; files differ in the weight's shape.
enum Projection {
    Linear(Linear),
    Conv(Conv2d),
}

impl Projection {
    fn load(params: &Params, channels: usize, config: &UNetConfig) -> Result<Self> {
        Ok(match config.use_linear_projection {
            true => Self::Linear(Linear::load(params, channels, channels)?),
            false => Self::Conv(Conv2d::load(params, channels, channels, 1)?),
        })
    }
}

impl Transformer {
    fn load(params: &Params, channels: usize, attention: AttentionConfig, config: &UNetConfig) -> Result<Self> {
        let blocks = (0..attention.depth).map(|i| {
            TransformerBlock::load(&params.at(&format!("transformer_blocks.{i}")), channels, attention, config)
        });
        Ok(Self {
            norm: GroupNorm::load(&params.at("norm"), channels, config.norm_num_groups, TRANSFORMER_GROUP_EPS)?,
            proj_in: Projection::load(&params.at("proj_in"), channels, config)?,
            blocks: blocks.collect::<Result<_>>()?,
            proj_out: Projection::load(&params.at("proj_out"), channels, config)?,
        })
    }

    /// `[N, C, H, W] -> [N, C, H, W]`.
    fn forward(&self, x: Tensor<4>, context: &Context) -> Tensor<4> {
        let [n, c, h, w] = x.dims();
        // [N, C, H, W] -> [N, H * W, C]
        let to_tokens = |x: Tensor<4>| x.reshape([n, c, h * w]).swap_dims(1, 2);
        let to_map = |x: Tensor<3>| x.swap_dims(1, 2).reshape([n, c, h, w]);
        let normed = self.norm.forward(x.clone());
        let tokens = match &self.proj_in {
            Projection::Linear(linear) => linear.forward(to_tokens(normed)),
            Projection::Conv(conv) => to_tokens(conv.forward(normed)),
        };
        let tokens = self.blocks.iter().fold(tokens, |tokens, block| block.forward(tokens, context));
        let out = match &self.proj_out {
            Projection::Linear(linear) => to_map(linear.forward(tokens)),
            Projection::Conv(conv) => conv.forward(to_map(tokens)),
        };
        x + out
    }
}

/// diffusers `BasicTransformerBlock`.
struct TransformerBlock {
    norm1: LayerNorm,
    attn1: Attention,
    norm2: LayerNorm,
    attn2: Attention,
    norm3: LayerNorm,
    ff: FeedForward,
    only_cross: bool,
}

impl TransformerBlock {
    fn load(params: &Params, dim: usize, attention: AttentionConfig, config: &UNetConfig) -> Result<Self> {
        let AttentionConfig { heads, context_dim, only_cross, .. } = attention;
        let norm = |name: &str| LayerNorm::load(&params.at(name), dim, TRANSFORMER_LAYER_EPS);
        let attention =
            |name: &str, from: usize| Attention::load(&params.at(name), dim, from, heads, dim / heads, false);
        Ok(Self {
            norm1: norm("norm1")?,
            attn1: attention("attn1", if only_cross { context_dim } else { dim })?,
            norm2: norm("norm2")?,
            attn2: attention("attn2", context_dim)?,
            norm3: norm("norm3")?,
            ff: FeedForward::load(&params.at("ff"), dim, "geglu", &config.file)?,
            only_cross,
        })
    }

    /// `[N, T, D] -> [N, T, D]`.
    fn forward(&self, x: Tensor<3>, context: &Context) -> Tensor<3> {
        let h = self.norm1.forward(x.clone());
        // diffusers gives the first attention no mask, even where it looks at the text.
        let keys = if self.only_cross { context.text.clone() } else { h.clone() };
        let x = x + self.attn1.forward(h, keys, None);
        let h = self.norm2.forward(x.clone());
        let x = x + self.attn2.forward(h, context.text.clone(), context.text_bias.clone());
        x.clone() + self.ff.forward(self.norm3.forward(x))
    }
}
