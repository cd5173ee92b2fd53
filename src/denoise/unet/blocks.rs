//! The parts of a U-Net: residual blocks, each perhaps followed by a transformer, between changes of resolution.

use burn::tensor::Tensor;

use super::config::{AttentionConfig, BlockConfig, MidBlockKind, UNetConfig};
use crate::{
    Result,
    denoise::MotionModule,
    layers::{
        Conv2d, CrossAttention, FeedForward, GroupNorm, KeysValues, LayerNorm, Linear, Residual, ResnetBlock2D,
        ResnetOptions, SelfAttention, resize_nearest,
    },
    weights::Params,
};

/// What the reference fixes whatever `norm_eps` says: of a transformer's group norm, and of its layer norms.
const TRANSFORMER_GROUP_EPS: f64 = 1e-6;
const TRANSFORMER_LAYER_EPS: f64 = 1e-5;

/// What every block is told besides its input.
pub struct Context<'a> {
    /// `[steps * rows, time_dim]`, activated.
    pub time: Tensor<2>,
    /// `[N, T, D]`.
    pub text: &'a Tensor<3>,
    /// `[N, 1, 1, T]`.
    pub text_bias: Option<Tensor<4>>,
}

/// The rows of [`Context::time`] that belong to a step, and how many frames an animation has.
#[derive(Clone, Copy)]
pub struct Moment {
    pub step: usize,
    pub rows: usize,
    pub frames: usize,
}

fn resnet_options(config: &UNetConfig) -> ResnetOptions {
    ResnetOptions {
        time_dim: Some(config.time_embedding_dim),
        scale_shift: config.scale_shift,
        ..ResnetOptions::new(config.norm_num_groups, config.norm_eps, config.act_fn)
    }
}

/// A residual block, the transformer after it, and what of an animation looks over time.
struct Layer {
    resnet: ResnetBlock2D,
    transformer: Option<Transformer>,
    motion: Option<MotionModule>,
}

/// What of a [`Layer`] stays the same from step to step.
pub struct LayerRun {
    /// `[steps * rows, c, 1, 1]`.
    time: Option<Tensor<4>>,
    /// By block of the transformer.
    transformer: Vec<BlockRun>,
}

impl Layer {
    fn load(
        params: &Params,
        i: usize,
        [c_in, c_out]: [usize; 2],
        attention: Option<AttentionConfig>,
        options: ResnetOptions,
        config: &UNetConfig,
    ) -> Result<Self> {
        let transformer = attention
            .map(|attention| Transformer::load(&params.at(&format!("attentions.{i}")), c_out, attention, config));
        Ok(Self {
            resnet: ResnetBlock2D::load(&params.at(&format!("resnets.{i}")), c_in, c_out, options)?,
            transformer: transformer.transpose()?,
            motion: None,
        })
    }

    fn prepare(&self, context: &Context) -> LayerRun {
        let blocks = self.transformer.iter().flat_map(|transformer| &transformer.blocks);
        LayerRun {
            time: self.resnet.prepare(&context.time),
            transformer: blocks.map(|block| block.prepare(context)).collect(),
        }
    }

    fn forward(&self, x: Tensor<4>, run: &LayerRun, at: Moment) -> Tensor<4> {
        let time = run.time.clone().map(|time| time.narrow(0, at.step * at.rows, at.rows));
        let x = self.resnet.forward_at(x, time);
        let x = self.transformer.iter().fold(x, |x, transformer| transformer.forward(x, &run.transformer));
        let motion = self.motion.iter().filter(|_| at.frames > 1);
        motion.fold(x, |x, motion| motion.forward(x, at.frames))
    }
}

/// Puts a module after each of the first layers.
fn add_motion(layers: &mut [Layer], modules: Vec<MotionModule>) {
    layers.iter_mut().zip(modules).for_each(|(layer, module)| layer.motion = Some(module));
}

/// `DownBlock2D` or `CrossAttnDownBlock2D`.
pub struct DownBlock {
    layers: Vec<Layer>,
    downsample: Option<Conv2d>,
}

impl DownBlock {
    pub fn load(params: &Params, c_in: usize, block: &BlockConfig, last: bool, config: &UNetConfig) -> Result<Self> {
        let channels = block.channels;
        let layers = (0..block.layers).map(|i| {
            let widths = [if i == 0 { c_in } else { channels }, channels];
            Layer::load(params, i, widths, block.attention, resnet_options(config), config)
        });
        // Without padding the reference pads right and below.
        let padding = if config.downsample_padding == 0 { [0, 1] } else { [config.downsample_padding; 2] };
        let downsample = (!last)
            .then(|| Conv2d::load_with(&params.at("downsamplers.0.conv"), channels, channels, 3, 2, padding, true));
        Ok(Self { layers: layers.collect::<Result<_>>()?, downsample: downsample.transpose()? })
    }

    pub fn add_motion(&mut self, modules: Vec<MotionModule>) {
        add_motion(&mut self.layers, modules);
    }

    pub fn prepare(&self, context: &Context) -> Vec<LayerRun> {
        self.layers.iter().map(|layer| layer.prepare(context)).collect()
    }

    /// `[N, c_in, H, W] -> [N, c, H / 2, W / 2]` (the last block keeps the size); notes what the way up needs.
    pub fn forward(&self, mut x: Tensor<4>, run: &[LayerRun], at: Moment, skips: &mut Vec<Tensor<4>>) -> Tensor<4> {
        for (layer, run) in self.layers.iter().zip(run) {
            x = layer.forward(x, run, at);
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
            let widths = [from_below + skip, channels];
            Layer::load(params, i, widths, block.attention, resnet_options(config), config)
        });
        let upsample = (!last).then(|| Conv2d::load(&params.at("upsamplers.0.conv"), channels, channels, 3));
        Ok(Self { layers: layers.collect::<Result<_>>()?, upsample: upsample.transpose()? })
    }

    pub fn add_motion(&mut self, modules: Vec<MotionModule>) {
        add_motion(&mut self.layers, modules);
    }

    pub fn prepare(&self, context: &Context) -> Vec<LayerRun> {
        self.layers.iter().map(|layer| layer.prepare(context)).collect()
    }

    /// `[N, c_before, H, W] -> [N, c, 2 H, 2 W]`, or the size of the next skip where that is odd.
    pub fn forward(&self, mut x: Tensor<4>, run: &[LayerRun], at: Moment, skips: &mut Vec<Tensor<4>>) -> Tensor<4> {
        for (layer, run) in self.layers.iter().zip(run) {
            let skip = skips.pop();
            x = layer.forward(Tensor::cat(std::iter::once(x).chain(skip).collect(), 1), run, at);
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
    layers: Vec<Layer>,
}

impl MidBlock {
    /// Without layers where the config wants no such block.
    pub fn load(params: &Params, channels: usize, config: &UNetConfig) -> Result<Self> {
        let options = ResnetOptions { output_scale: config.mid_block_scale_factor, ..resnet_options(config) };
        let attentions: &[_] = match config.mid_block {
            MidBlockKind::None => &[],
            MidBlockKind::Plain => &[None],
            MidBlockKind::CrossAttention(attention) => &[Some(attention), None],
        };
        let layers = attentions.iter().enumerate();
        let layers = layers.map(|(i, attention)| Layer::load(params, i, [channels; 2], *attention, options, config));
        Ok(Self { layers: layers.collect::<Result<_>>()? })
    }

    /// Whether it looks at the text.
    pub fn attends(&self) -> bool {
        self.layers.iter().any(|layer| layer.transformer.is_some())
    }

    /// The module stands after the transformer, before the last residual block.
    pub fn add_motion(&mut self, modules: Vec<MotionModule>) {
        add_motion(&mut self.layers, modules);
    }

    pub fn prepare(&self, context: &Context) -> Vec<LayerRun> {
        self.layers.iter().map(|layer| layer.prepare(context)).collect()
    }

    /// `[N, C, H, W] -> [N, C, H, W]`.
    pub fn forward(&self, x: Tensor<4>, run: &[LayerRun], at: Moment) -> Tensor<4> {
        self.layers.iter().zip(run).fold(x, |x, (layer, run)| layer.forward(x, run, at))
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
    fn forward(&self, x: Tensor<4>, run: &[BlockRun]) -> Tensor<4> {
        let [n, c, h, w] = x.dims();
        // [N, C, H, W] -> [N, H * W, C]
        let to_tokens = |x: Tensor<4>| x.reshape([n, c, h * w]).swap_dims(1, 2);
        let to_map = |x: Tensor<3>| x.swap_dims(1, 2).reshape([n, c, h, w]);
        let normed = self.norm.forward(x.clone());
        let tokens = match &self.proj_in {
            Projection::Linear(linear) => linear.forward(to_tokens(normed)),
            Projection::Conv(conv) => to_tokens(conv.forward(normed)),
        };
        let tokens = self.blocks.iter().zip(run).fold(tokens, |tokens, (block, run)| block.forward(tokens, run));
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
    attn1: FirstAttention,
    norm2: LayerNorm,
    attn2: CrossAttention,
    norm3: LayerNorm,
    ff: FeedForward,
}

/// Of the tokens to each other or, with `only_cross_attention`, to the text.
enum FirstAttention {
    Own(SelfAttention),
    Text(CrossAttention),
}

/// What of a [`TransformerBlock`] stays the same from step to step.
struct BlockRun {
    attn1: Option<KeysValues>,
    attn2: KeysValues,
}

impl TransformerBlock {
    fn load(params: &Params, dim: usize, attention: AttentionConfig, config: &UNetConfig) -> Result<Self> {
        let AttentionConfig { heads, context_dim, only_cross, .. } = attention;
        let norm = |name: &str| LayerNorm::load(&params.at(name), dim, TRANSFORMER_LAYER_EPS);
        let cross = |name: &str| CrossAttention::load(&params.at(name), dim, context_dim, heads, dim / heads, false);
        let own = || SelfAttention::load(&params.at("attn1"), dim, heads, dim / heads, false);
        Ok(Self {
            norm1: norm("norm1")?,
            attn1: if only_cross { FirstAttention::Text(cross("attn1")?) } else { FirstAttention::Own(own()?) },
            norm2: norm("norm2")?,
            attn2: cross("attn2")?,
            norm3: norm("norm3")?,
            ff: FeedForward::load(&params.at("ff"), dim, "geglu", &config.file)?,
        })
    }

    fn prepare(&self, context: &Context) -> BlockRun {
        let attn1 = match &self.attn1 {
            FirstAttention::Own(_) => None,
            // diffusers gives the first attention no mask, even where it looks at the text.
            FirstAttention::Text(attention) => Some(attention.prepare(context.text.clone(), None)),
        };
        BlockRun { attn1, attn2: self.attn2.prepare(context.text.clone(), context.text_bias.clone()) }
    }

    /// `[N, T, D] -> [N, T, D]`.
    fn forward(&self, x: Tensor<3>, run: &BlockRun) -> Tensor<3> {
        let h = self.norm1.forward(x.clone());
        let x = match (&self.attn1, &run.attn1) {
            (FirstAttention::Text(attention), Some(keys_values)) => {
                attention.forward_onto(h, keys_values, Residual::new(x))
            }
            (FirstAttention::Own(attention), _) => attention.forward_onto(h, None, Residual::new(x)),
            (FirstAttention::Text(_), None) => x,
        };
        let x = self.attn2.forward_onto(self.norm2.forward(x.clone()), &run.attn2, Residual::new(x));
        self.ff.forward_onto(self.norm3.forward(x.clone()), Residual::new(x))
    }
}
