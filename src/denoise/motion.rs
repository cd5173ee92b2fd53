//! Denoising over time as well as space: modules between a network's layers, in which each place looks at itself in all
//! frames of its animation (AnimateDiff; Guo et al., arXiv 2307.04725; diffusers `MotionAdapter`).
//!
//! An animation is a latent whose `N` is its frames, `[frames, C, H, W]`; with the negative prompt before it, `N` is twice
//! that, animation by animation.

use burn::tensor::{Tensor, TensorData};

use crate::{
    Error, Result,
    layers::{FeedForward, GroupNorm, LayerNorm, Linear, SelfAttention},
    weights::{Config, Params},
};

/// What the reference fixes: of a module's group norm, and of its layer norms.
const GROUP_EPS: f64 = 1e-6;
const LAYER_EPS: f64 = 1e-5;
/// As many places are looked at in one go: few enough for a device's memory, enough to keep it busy.
const PLACES: usize = 4096;

/// How many frames can be denoised together.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum Frames {
    /// Any number up to this many, each with a position of its own.
    UpTo(usize),
    /// The positions are a circle, and frames stand on it at equal distances, so that the first follows the last; their number
    /// divides this one.
    Circle(usize),
}

impl Frames {
    /// The largest number.
    pub fn most(self) -> usize {
        match self {
            Self::UpTo(most) | Self::Circle(most) => most,
        }
    }

    pub fn takes(self, frames: usize) -> bool {
        match self {
            Self::UpTo(most) => (1..=most).contains(&frames),
            Self::Circle(most) => frames > 0 && most.is_multiple_of(frames),
        }
    }

    /// The numbers in words: what may stand after "give".
    pub fn words(self) -> String {
        match self {
            Self::UpTo(most) => format!("1 to {most}"),
            Self::Circle(most) => {
                let numbers: Vec<_> =
                    (1..=most).filter(|frames| self.takes(*frames)).map(|frames| frames.to_string()).collect();
                format!("one of {}", numbers.join(", "))
            }
        }
    }

    /// The positions of so many frames.
    fn places(self, frames: usize) -> impl Iterator<Item = usize> {
        let step = if let Self::Circle(most) = self { most / frames } else { 1 };
        (0..frames).map(move |frame| frame * step)
    }

    /// The rows of a table of positions `[most, D]` that so many frames take: `[frames, D]`.
    pub fn rows(self, table: Tensor<2>, frames: usize) -> Tensor<2> {
        let [_, d] = table.dims();
        match self {
            Self::UpTo(_) => table.narrow(0, 0, frames),
            Self::Circle(most) => table.reshape([frames, most / frames, d]).narrow(1, 0, 1).reshape([frames, d]),
        }
    }
}

/// The numbers of `motion_adapter/config.json`, or those that a `UNetMotionModel` says of its motion modules; lists have one
/// value for each block on the way down.
#[derive(Clone, Debug)]
pub struct MotionConfig {
    pub block_out_channels: Vec<usize>,
    pub layers_per_block: Vec<usize>,
    pub transformer_layers: Vec<usize>,
    pub num_attention_heads: Vec<usize>,
    pub norm_num_groups: usize,
    /// The layers of the module in the middle, where there is one.
    pub mid_block: Option<usize>,
    pub frames: Frames,
    pub(super) file: String,
}

impl MotionConfig {
    /// Of a `MotionAdapter`.
    ///
    /// # Errors
    /// `BadModel` for a value that is out of range or asks for what this version cannot do.
    pub fn read(config: &Config) -> Result<Self> {
        // PIA's further channels of the network's input.
        config.absent("conv_in_channels")?;
        config.only("motion_mid_block_layers_per_block", 1)?;
        let widths = config.counts("block_out_channels", &[320, 640, 1280, 1280])?;
        let n = widths.len();
        let positions = config.count("motion_max_seq_length", 32)?;
        let mid = config.bool("use_motion_mid_block", true)?;
        let this = Self {
            layers_per_block: config.count_each("motion_layers_per_block", 2, n)?,
            transformer_layers: config.count_each("motion_transformer_layers_per_block", 1, n)?,
            num_attention_heads: config.count_each("motion_num_attention_heads", 8, n)?,
            norm_num_groups: config.count("motion_norm_num_groups", 32)?,
            mid_block: config.count_each("motion_transformer_layers_per_mid_block", 1, 1)?.pop().filter(|_| mid),
            // Ours alone: the table's last row is followed by its first.
            frames: match config.opt_str("positions")? {
                None => Frames::UpTo(positions),
                Some("circle") => Frames::Circle(positions),
                Some(_) => return Err(config.wrong("positions", "this version knows circle")),
            },
            block_out_channels: widths,
            file: config.file().to_owned(),
        };
        this.check(|key| config.wrong(&format!("motion_{key}"), "it must divide every value of `block_out_channels`"))?;
        config.finish("MotionAdapter");
        Ok(this)
    }

    /// # Errors
    /// What `wrong` makes of the end of the key at fault.
    pub(super) fn check(&self, wrong: impl Fn(&str) -> Error) -> Result<()> {
        let mut widths = self.block_out_channels.iter().zip(&self.num_attention_heads);
        if widths.any(|(width, heads)| !width.is_multiple_of(*heads)) {
            return Err(wrong("num_attention_heads"));
        }
        if self.block_out_channels.iter().any(|width| !width.is_multiple_of(self.norm_num_groups)) {
            return Err(wrong("norm_num_groups"));
        }
        Ok(())
    }

    /// An error about an adapter that was made for another network, whose blocks are `widths` wide with `layers` layers
    /// each.
    pub(super) fn of_another(&self, widths: &[usize], layers: &[usize]) -> Error {
        Error::bad_model(format!(
            "{}: these motion modules are for a network of widths {:?} with {:?} layers to a block, but this one has {widths:?} \
             with {layers:?}; take the adapter that was made for it",
            self.file, self.block_out_channels, self.layers_per_block
        ))
    }
}

/// All modules of a `MotionAdapter`, by block.
pub struct MotionModules {
    pub down: Vec<Vec<MotionModule>>,
    pub mid: Vec<MotionModule>,
    /// One module more to a block than on the way down.
    pub up: Vec<Vec<MotionModule>>,
}

impl MotionModules {
    /// # Errors
    /// `BadModel` where a tensor is missing or has another shape than the config says.
    pub fn load(params: &Params, config: &MotionConfig) -> Result<Self> {
        let n = config.block_out_channels.len();
        let block = |name: String, i: usize, count: usize, depth: usize| {
            let modules = params.at(&name).at("motion_modules");
            (0..count).map(|j| MotionModule::load(&modules.at(&j.to_string()), config, i, depth)).collect()
        };
        let (layers, depths) = (&config.layers_per_block, &config.transformer_layers);
        let down = (0..n).map(|i| block(format!("down_blocks.{i}"), i, layers[i], depths[i]));
        let up = (0..n)
            .map(|i| (i, n - 1 - i))
            .map(|(i, mirrored)| block(format!("up_blocks.{i}"), mirrored, layers[mirrored] + 1, depths[mirrored]));
        Ok(Self {
            down: down.collect::<Result<_>>()?,
            mid: config.mid_block.map_or(Ok(Vec::new()), |depth| block("mid_block".to_owned(), n - 1, 1, depth))?,
            up: up.collect::<Result<_>>()?,
        })
    }
}

/// diffusers `AnimateDiffTransformer3D`.
pub struct MotionModule {
    norm: GroupNorm,
    proj_in: Linear,
    blocks: Vec<MotionBlock>,
    proj_out: Linear,
}

impl MotionModule {
    /// `block` says how wide it is, counted on the way down; `depth` how many transformer blocks it has.
    fn load(params: &Params, config: &MotionConfig, block: usize, depth: usize) -> Result<Self> {
        let width = config.block_out_channels[block];
        let blocks = (0..depth).map(|i| {
            MotionBlock::load(
                &params.at(&format!("transformer_blocks.{i}")),
                config,
                width,
                config.num_attention_heads[block],
            )
        });
        Ok(Self {
            norm: GroupNorm::load(&params.at("norm"), width, config.norm_num_groups, GROUP_EPS)?,
            proj_in: Linear::load(&params.at("proj_in"), width, width)?,
            blocks: blocks.collect::<Result<_>>()?,
            proj_out: Linear::load(&params.at("proj_out"), width, width)?,
        })
    }

    /// A feature map of so many `frames` an animation, `[N * frames, C, H, W] -> [N * frames, C, H, W]`.
    pub fn forward(&self, x: Tensor<4>, frames: usize) -> Tensor<4> {
        let [rows, c, h, w] = x.dims();
        // [N * F, C, H, W] -> [N, C, F, H * W]
        let animations = x.clone().reshape([rows / frames, frames, c, h * w]).swap_dims(1, 2);
        // [N, H * W, F, C] -> [N, F, C, H * W]
        x + self.over_time(animations).permute([0, 2, 3, 1]).reshape([rows, c, h, w])
    }

    /// The same of tokens, `[N * frames, T, D] -> [N * frames, T, D]`.
    pub fn forward_tokens(&self, x: Tensor<3>, frames: usize) -> Tensor<3> {
        let [rows, t, d] = x.dims();
        // [N * F, T, D] -> [N, D, F, T]
        let animations = x.clone().reshape([rows / frames, frames, t, d]).permute([0, 3, 1, 2]);
        // [N, T, F, D] -> [N, F, T, D]
        x + self.over_time(animations).swap_dims(1, 2).reshape([rows, t, d])
    }

    /// `[N, C, F, P]` of `P` places gives `[N, P, F, C]`, what is to be added.
    fn over_time(&self, x: Tensor<4>) -> Tensor<4> {
        let [n, c, f, p] = x.dims();
        // [N, C, F, P] -> [N * P, F, C]
        let x = self.norm.forward(x).permute([0, 3, 2, 1]).reshape([n * p, f, c]);
        let moved = x.split(PLACES, 0).into_iter().map(|x| {
            let x = self.blocks.iter().fold(self.proj_in.forward(x), |x, block| block.forward(x));
            self.proj_out.forward(x)
        });
        Tensor::cat(moved.collect(), 0).reshape([n, p, f, c])
    }
}

/// diffusers `BasicTransformerBlock` with `double_self_attention` and positions.
struct MotionBlock {
    norm1: LayerNorm,
    attn1: SelfAttention,
    norm2: LayerNorm,
    attn2: SelfAttention,
    norm3: LayerNorm,
    ff: FeedForward,
    /// `[positions, D]`, where they are not what the formula gives.
    positions: Option<Tensor<2>>,
    frames: Frames,
}

impl MotionBlock {
    fn load(params: &Params, config: &MotionConfig, dim: usize, heads: usize) -> Result<Self> {
        let norm = |name: &str| LayerNorm::load(&params.at(name), dim, LAYER_EPS);
        let attention = |name: &str| SelfAttention::load(&params.at(name), dim, heads, dim / heads, false);
        let most = config.frames.most();
        let table = params.table("pos_embed.pe", [most, dim], move |i| sinusoid(dim, i))?;
        Ok(Self {
            norm1: norm("norm1")?,
            attn1: attention("attn1")?,
            norm2: norm("norm2")?,
            attn2: attention("attn2")?,
            norm3: norm("norm3")?,
            ff: FeedForward::load(&params.at("ff"), dim, "geglu", &config.file)?,
            positions: table.map(|table| table.whole()),
            frames: config.frames,
        })
    }

    /// `[N, F, D] -> [N, F, D]`.
    fn forward(&self, x: Tensor<3>) -> Tensor<3> {
        let [_, frames, dim] = x.dims();
        let positions = match &self.positions {
            Some(table) => self.frames.rows(table.clone(), frames),
            None => {
                let rows: Vec<f32> = self.frames.places(frames).flat_map(|i| sinusoid(dim, i)).collect();
                Tensor::from_data(TensorData::new(rows, [frames, dim]), &x.device())
            }
        };
        let positions = positions.unsqueeze::<3>();
        let x = x.clone() + self.attn1.forward(self.norm1.forward(x) + positions.clone(), None);
        let x = x.clone() + self.attn2.forward(self.norm2.forward(x) + positions, None);
        x.clone() + self.ff.forward(self.norm3.forward(x))
    }
}

/// The features of position `i`, sines and cosines by turns (diffusers `SinusoidalPositionalEmbedding`).
fn sinusoid(dim: usize, i: usize) -> Vec<f32> {
    let angle = |k: usize| i as f64 * 10000f64.powf(-((k / 2 * 2) as f64) / dim as f64);
    (0..dim).map(|k| if k % 2 == 0 { angle(k).sin() } else { angle(k).cos() } as f32).collect()
}

#[cfg(test)]
mod tests {
    use burn::tensor::Device;

    use super::*;

    #[test]
    fn frames_stand_on_a_line_or_a_circle() {
        let table = Tensor::<2>::from_data(
            TensorData::new((0..12).map(|i| i as f32).collect::<Vec<_>>(), [12, 1]),
            &Device::flex(),
        );
        let rows = |of: Frames, frames| of.rows(table.clone(), frames).into_data().try_to_vec::<f32>().unwrap();
        assert_eq!(rows(Frames::UpTo(12), 3), [0.0, 1.0, 2.0]);
        assert_eq!(rows(Frames::Circle(12), 3), [0.0, 4.0, 8.0]);
        assert_eq!((1..=13).filter(|n| Frames::Circle(12).takes(*n)).collect::<Vec<_>>(), [1, 2, 3, 4, 6, 12]);
        assert!([0, 13].iter().all(|n| !Frames::UpTo(12).takes(*n)) && Frames::UpTo(12).takes(7));
        assert_eq!(Frames::Circle(4).words(), "one of 1, 2, 4");
    }
}
