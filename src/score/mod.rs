//! [`PixelTensor`] and [`TextEmbedding`] -> one number each: how well a picture shows what a text asks for.
//!
//! `InkbloomScorer` is ours (`tools/train/inkbloom_train/scorer_model.py`): two small towers that meet in one space, as in
//! CLIP (Radford et al., arXiv 2103.00020).

use burn::tensor::{Tensor, module, ops::AvgPoolOptions};

use crate::{
    Error, Result,
    layers::{Activation, Conv2d, GroupNorm, Linear},
    values::{PixelTensor, TextEmbedding},
    weights::{Config, ModelFiles, Params, Tensors},
};

/// The numbers of `scorer/config.json`.
#[derive(Clone, Debug)]
pub struct ScorerConfig {
    pub in_channels: usize,
    /// The height that pictures are reduced to.
    pub sample_size: usize,
    pub block_out_channels: Vec<usize>,
    pub norm_num_groups: usize,
    pub norm_eps: f64,
    pub act_fn: Activation,
    pub text_embed_dim: usize,
    pub projection_dim: usize,
}

impl ScorerConfig {
    /// # Errors
    /// `BadModel` for a value that is out of range or asks for what this version cannot do.
    pub fn read(config: &Config) -> Result<Self> {
        let act_fn = config.str("act_fn", "silu")?;
        let this = Self {
            in_channels: config.count("in_channels", 4)?,
            sample_size: config.count("sample_size", 64)?,
            block_out_channels: config.counts("block_out_channels", &[24, 48, 96, 192])?,
            norm_num_groups: config.count("norm_num_groups", 8)?,
            norm_eps: config.f64("norm_eps", 1e-5)?,
            act_fn: Activation::from_name(act_fn)
                .ok_or_else(|| config.wrong("act_fn", &format!("this version knows {}", Activation::NAMES)))?,
            text_embed_dim: config.count("text_embed_dim", 384)?,
            projection_dim: config.count("projection_dim", 192)?,
        };
        if this.block_out_channels.iter().any(|width| !width.is_multiple_of(this.norm_num_groups)) {
            return Err(config.wrong("norm_num_groups", "it must divide every one of `block_out_channels`"));
        }
        config.finish("InkbloomScorer");
        Ok(this)
    }
}

/// `InkbloomScorer`.
pub struct Scorer {
    conv_in: Conv2d,
    blocks: Vec<Block>,
    visual_projection: Linear,
    text_projection: [Linear; 2],
    config: ScorerConfig,
}

struct Block {
    norm1: GroupNorm,
    conv1: Conv2d,
    norm2: GroupNorm,
    conv2: Conv2d,
    norm_out: GroupNorm,
    downsample: Option<Conv2d>,
}

impl Scorer {
    /// Loads a component as the class that `model_index.json` names.
    ///
    /// # Errors
    /// `BadModel` for another class, an option that cannot be honoured, or tensors that do not fit.
    pub fn load(tensors: &Tensors, files: &ModelFiles, component: &str) -> Result<Self> {
        if files.class(component)? != "InkbloomScorer" {
            return Err(files.unknown_class(component, "InkbloomScorer"));
        }
        Self::from_params(&tensors.params(&format!("{component}/")), ScorerConfig::read(&files.config(component)?)?)
    }

    /// # Errors
    /// `BadModel` where a tensor is missing or has another shape than the config says.
    pub fn from_params(params: &Params, config: ScorerConfig) -> Result<Self> {
        let widths = &config.block_out_channels;
        let blocks = widths.iter().enumerate().map(|(i, width)| {
            Block::load(&params.at(&format!("blocks.{i}")), *width, widths.get(i + 1).copied(), &config)
        });
        let text = params.at("text_projection");
        Ok(Self {
            conv_in: Conv2d::load_with(&params.at("conv_in"), config.in_channels, widths[0], 3, 2, [1, 1], true)?,
            blocks: blocks.collect::<Result<_>>()?,
            visual_projection: Linear::load(
                &params.at("visual_projection"),
                widths[widths.len() - 1],
                config.projection_dim,
            )?,
            text_projection: [
                Linear::load(&text.at("linear_1"), config.text_embed_dim, config.text_embed_dim)?,
                Linear::load(&text.at("linear_2"), config.text_embed_dim, config.projection_dim)?,
            ],
            config,
        })
    }

    pub fn config(&self) -> &ScorerConfig {
        &self.config
    }

    /// Scores, -1 to 1, of pictures `[N, C, H, W]` (as the autoencoder gives them, clamped here) for texts with their masks,
    /// `[M, T, D]`: `[N, M]`.
    ///
    /// # Errors
    /// Those of [`reduction`](Self::reduction); `BadModel` where pictures or texts have other channels than the scorer was made for.
    pub fn forward(&self, pixels: PixelTensor, text: &TextEmbedding) -> Result<Tensor<2>> {
        Ok(self.image_embeds(pixels)?.matmul(self.text_embeds(text)?.transpose()))
    }

    /// By how much a picture of this size is reduced before it is looked at.
    ///
    /// # Errors
    /// `BadInput` where that is no whole number for both sides.
    pub fn reduction(&self, height: usize, width: usize) -> Result<usize> {
        let size = self.config.sample_size;
        let factor = height / size;
        if factor == 0 || !height.is_multiple_of(size) || !width.is_multiple_of(factor) {
            return Err(Error::bad_input(format!(
                "the scorer cannot look at {width} x {height} pixels: it takes heights that are a multiple of {size}, and widths that are one of the same factor; draw another size, or leave candidates out"
            )));
        }
        Ok(factor)
    }

    /// Unit vectors, `[N, projection_dim]`.
    fn image_embeds(&self, pixels: PixelTensor) -> Result<Tensor<2>> {
        let [n, c, height, width] = pixels.dims();
        if c != self.config.in_channels {
            return Err(Error::bad_model(format!(
                "scorer/config.json: `in_channels` is {}, but this model's pictures have {c}",
                self.config.in_channels
            )));
        }
        let factor = self.reduction(height, width)?;
        let pixels = pixels.clamp(-1.0, 1.0);
        let x = match factor {
            1 => pixels,
            _ => module::avg_pool2d(pixels, AvgPoolOptions::new([factor; 2])),
        };
        let mut x = self.conv_in.forward(x);
        for block in &self.blocks {
            x = block.forward(x, self.config.act_fn);
        }
        let [_, c, h, w] = x.dims();
        // [N, C, h, w] -> [N, C]
        let x: Tensor<2> = x.reshape([n, c, h * w]).mean_dim(2).reshape([n, c]);
        Ok(unit(self.visual_projection.forward(x)))
    }

    /// Unit vectors, `[M, projection_dim]`.
    fn text_embeds(&self, text: &TextEmbedding) -> Result<Tensor<2>> {
        let [m, t, d] = text.hidden.dims();
        if d != self.config.text_embed_dim {
            return Err(Error::bad_model(format!(
                "scorer/config.json: `text_embed_dim` is {}, but the text encoder gives vectors of {d}",
                self.config.text_embed_dim
            )));
        }
        let mask = match &text.attention_mask {
            Some(mask) => mask.clone(),
            None => Tensor::ones([m, t], &text.hidden.device()),
        };
        // [M, T, D], [M, T] -> [M, D]: the mean of the tokens that are kept.
        let sum: Tensor<2> = (text.hidden.clone() * mask.clone().reshape([m, t, 1])).sum_dim(1).reshape([m, d]);
        let mean = sum / mask.sum_dim(1);
        let [linear_1, linear_2] = &self.text_projection;
        Ok(unit(linear_2.forward(self.config.act_fn.forward(linear_1.forward(mean)))))
    }
}

/// Rows of length 1, as `torch.nn.functional.normalize` makes them.
fn unit(x: Tensor<2>) -> Tensor<2> {
    let length = (x.clone() * x.clone()).sum_dim(1).sqrt().clamp_min(1e-12);
    x / length
}

impl Block {
    fn load(params: &Params, width: usize, after: Option<usize>, config: &ScorerConfig) -> Result<Self> {
        let norm = |name: &str| GroupNorm::load(&params.at(name), width, config.norm_num_groups, config.norm_eps);
        let downsample =
            after.map(|after| Conv2d::load_with(&params.at("downsample"), width, after, 3, 2, [1, 1], true));
        Ok(Self {
            norm1: norm("norm1")?,
            conv1: Conv2d::load(&params.at("conv1"), width, width, 3)?,
            norm2: norm("norm2")?,
            conv2: Conv2d::load(&params.at("conv2"), width, width, 3)?,
            norm_out: norm("norm_out")?,
            downsample: downsample.transpose()?,
        })
    }

    /// `[N, C, H, W] -> [N, C', H / 2, W / 2]`, or as it is where there is no next width.
    fn forward(&self, x: Tensor<4>, act: Activation) -> Tensor<4> {
        let h = self.conv1.forward(act.forward(self.norm1.forward(x.clone())));
        let x = x + self.conv2.forward(act.forward(self.norm2.forward(h)));
        let x = act.forward(self.norm_out.forward(x));
        match &self.downsample {
            Some(downsample) => downsample.forward(x),
            None => x,
        }
    }
}
