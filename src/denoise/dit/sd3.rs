//! The multimodal Diffusion Transformer of Stable Diffusion 3 and 3.5 (diffusers `SD3Transformer2DModel`;
//! Esser et al., arXiv 2403.03206).

use burn::tensor::Tensor;

use super::joint::{BlockOptions, JointBlock, NORM_EPS, TimeTextEmbedding, live_values, text_of};
use crate::{
    Error, Result,
    denoise::{Condition, Denoiser, Prepared},
    layers::{AdaLayerNormContinuous, Conv2d, Linear, PositionTable},
    values::{Latent, TextEmbedding},
    weights::{Config, Params},
};

/// The numbers of `transformer/config.json` that change the arithmetic.
#[derive(Clone, Debug)]
pub struct Sd3Config {
    pub sample_size: usize,
    pub patch_size: usize,
    pub in_channels: usize,
    pub num_layers: usize,
    pub attention_head_dim: usize,
    pub num_attention_heads: usize,
    pub joint_attention_dim: usize,
    pub pooled_projection_dim: usize,
    pub out_channels: usize,
    pub pos_embed_max_size: usize,
    pub dual_attention_layers: Vec<usize>,
    /// Queries and keys are normalised, as in 3.5.
    pub qk_norm: bool,
    file: String,
}

impl Sd3Config {
    /// # Errors
    /// `BadModel` for a value that is out of range or asks for what this version cannot do.
    pub fn read(config: &Config) -> Result<Self> {
        let in_channels = config.count("in_channels", 16)?;
        let out_channels =
            if config.has("out_channels") { config.opt_usize("out_channels")?.unwrap_or(in_channels) } else { 16 };
        let this = Self {
            sample_size: config.count("sample_size", 128)?,
            patch_size: config.count("patch_size", 2)?,
            in_channels,
            num_layers: config.count("num_layers", 18)?,
            attention_head_dim: config.count("attention_head_dim", 64)?,
            num_attention_heads: config.count("num_attention_heads", 18)?,
            joint_attention_dim: config.count("joint_attention_dim", 4096)?,
            pooled_projection_dim: config.count("pooled_projection_dim", 2048)?,
            out_channels,
            pos_embed_max_size: config.count("pos_embed_max_size", 96)?,
            dual_attention_layers: config.opt_usizes("dual_attention_layers")?.unwrap_or_default(),
            qk_norm: config.opt_str("qk_norm")?.is_some(),
            file: config.file().to_owned(),
        };
        config.only("qk_norm", "rms_norm")?;
        if config.count("caption_projection_dim", 1152)? != this.dim() {
            return Err(config.wrong("caption_projection_dim", &format!("heads times head size is {}", this.dim())));
        }
        if !this.dim().is_multiple_of(4) {
            return Err(config.wrong(
                "attention_head_dim",
                "times `num_attention_heads` it must be divisible by 4, for the positions",
            ));
        }
        if config.has("pos_embed_max_size") && config.opt_usize("pos_embed_max_size")?.is_none() {
            return Err(config.wrong("pos_embed_max_size", "it must say how many positions the table has along a side"));
        }
        if this.sample_size < this.patch_size {
            return Err(config.wrong("sample_size", &format!("a patch has {}", this.patch_size)));
        }
        config.finish("SD3Transformer2DModel");
        Ok(this)
    }

    /// The width of the transformer.
    pub fn dim(&self) -> usize {
        self.num_attention_heads * self.attention_head_dim
    }
}

/// `SD3Transformer2DModel`: predicts the velocity.
pub struct Sd3 {
    patch: Conv2d,
    positions: PositionTable,
    time_text: TimeTextEmbedding,
    context: Linear,
    blocks: Vec<JointBlock>,
    norm_out: AdaLayerNormContinuous,
    proj_out: Linear,
    config: Sd3Config,
}

impl Sd3 {
    /// # Errors
    /// `BadModel` where a tensor is missing or has another shape than the config says.
    pub fn load(params: &Params, config: Sd3Config) -> Result<Self> {
        let (d, p) = (config.dim(), config.patch_size);
        let positions = params.at("pos_embed");
        let blocks = (0..config.num_layers).map(|i| {
            let options = BlockOptions {
                heads: config.num_attention_heads,
                norms: config.qk_norm,
                dual: config.dual_attention_layers.contains(&i),
                last: i + 1 == config.num_layers,
            };
            JointBlock::load(&params.at(&format!("transformer_blocks.{i}")), d, options)
        });
        Ok(Self {
            patch: Conv2d::load_with(&positions.at("proj"), config.in_channels, d, p, p, [0, 0], true)?,
            positions: PositionTable::load(&positions, d, config.pos_embed_max_size, config.sample_size / p)?,
            time_text: TimeTextEmbedding::load(&params.at("time_text_embed"), config.pooled_projection_dim, d, false)?,
            context: Linear::load(&params.at("context_embedder"), config.joint_attention_dim, d)?,
            blocks: blocks.collect::<Result<_>>()?,
            norm_out: AdaLayerNormContinuous::load(&params.at("norm_out"), d, NORM_EPS)?,
            proj_out: Linear::load(&params.at("proj_out"), d, p * p * config.out_channels)?,
            config,
        })
    }

    pub fn config(&self) -> &Sd3Config {
        &self.config
    }

    /// One prediction: `x_t` `[N, in_channels, H, W]` at `timesteps` `[N]` (sigma times 1000) under `text` gives
    /// `[N, out_channels, H, W]`. The layers of `skip` are left out.
    ///
    /// # Errors
    /// `BadInput` where `H` or `W` is not a multiple of the patch or beyond the table of positions, or where there is no
    /// such layer; `BadModel` where the text embedding has other widths than the transformer.
    pub fn forward(&self, x_t: Latent, timesteps: &[f32], text: &TextEmbedding, skip: &[usize]) -> Result<Latent> {
        let [_, _, height, width] = x_t.dims();
        self.run(timesteps, timesteps.len(), text, skip, [height, width])?(x_t, 0)
    }

    /// Prepares steps of `rows` timesteps each for latents of this height and width.
    fn run(
        &self,
        timesteps: &[f32],
        rows: usize,
        text: &TextEmbedding,
        skip: &[usize],
        [height, width]: [usize; 2],
    ) -> Result<Prepared<'_>> {
        let Sd3Config { patch_size: p, pos_embed_max_size: most, out_channels: c, .. } = self.config;
        let (d, h, w) = (self.config.dim(), height / p, width / p);
        if !height.is_multiple_of(p) || !width.is_multiple_of(p) || h.max(w) > most {
            return Err(Error::bad_input(format!(
                "the latent is {width} x {height}; {} has positions for multiples of {p} up to {}",
                self.config.file,
                most * p
            )));
        }
        if let Some(layer) = skip.iter().find(|layer| **layer >= self.blocks.len()) {
            return Err(Error::bad_input(format!(
                "there is no layer {layer} to skip; this model has the layers 0 to {}",
                self.blocks.len() - 1
            )));
        }
        let widths = [self.config.joint_attention_dim, self.config.pooled_projection_dim];
        let (hidden, pooled) = text_of(text, widths, &self.config.file)?;
        let positions = self.positions.middle(h, w, &hidden.device());
        // [steps, N, D]
        let times = self.time_text.forward(timesteps, rows, 0.0, pooled);
        let text = self.context.forward(hidden);
        let skip = skip.to_vec();
        Ok(Box::new(move |x_t, step| {
            let [n, _, _, _] = x_t.dims();
            let time = times.clone().narrow(0, step, 1).reshape([n, d]);
            // [N, C, H, W] -> [N, D, h, w] -> [N, h * w, D]
            let x: Tensor<3> = self.patch.forward(x_t).reshape([n, d, h * w]).swap_dims(1, 2);
            let (mut text, mut image) = (text.clone(), x + positions.clone());
            for (_, block) in self.blocks.iter().enumerate().filter(|(i, _)| !skip.contains(i)) {
                (text, image) = block.forward(text, image, &time, None);
            }
            let x = self.proj_out.forward(self.norm_out.forward(image, &time));
            // [N, h * w, p * p * C] -> [N, h, w, p, p, C] -> [N, C, h, p, w, p] -> [N, C, H, W]
            Ok(x.reshape([n, h, w, p, p, c]).permute([0, 5, 1, 3, 2, 4]).reshape([n, c, height, width]))
        }))
    }
}

impl Denoiser for Sd3 {
    fn prepare<'a>(&'a self, condition: &Condition, timesteps: &[f32], latent: [usize; 2]) -> Result<Prepared<'a>> {
        self.run(timesteps, 1, &condition.text, &condition.skip_layers, latent)
    }

    fn live_values(&self, n: usize, h: usize, w: usize) -> u64 {
        live_values(n, h * w / self.config.patch_size.pow(2), self.config.dim(), self.config.num_attention_heads)
    }
}
