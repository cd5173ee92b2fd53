//! The video transformer of Latte (diffusers `LatteTransformer3DModel`; Ma et al., arXiv 2401.03048): PixArt's, with a block
//! over time after each of its own.

use burn::tensor::Tensor;

use super::pixart::{Block, PixArt, PixArtConfig, Run, block_tables};
use crate::{
    Result,
    denoise::{Condition, Denoiser, Frames, Prepared},
    layers::sincos_1d,
    values::{Latent, TextEmbedding},
    weights::{Config, Params},
};

/// The numbers of `transformer/config.json` that change the arithmetic.
#[derive(Clone, Debug)]
pub struct LatteConfig {
    /// What it shares with PixArt.
    pub still: PixArtConfig,
    /// The positions in time.
    pub video_length: usize,
}

impl LatteConfig {
    /// # Errors
    /// `BadModel` for a value that is out of range or asks for what this version cannot do.
    pub fn read(config: &Config) -> Result<Self> {
        config.only("norm_type", "ada_norm_single")?;
        config.ignore(&["dropout", "num_embeds_ada_norm"]);
        let heads = config.count("num_attention_heads", 16)?;
        let head_dim = config.count("attention_head_dim", 88)?;
        if !(heads * head_dim).is_multiple_of(4) {
            let right = "times `num_attention_heads` it must be divisible by 4, for the positions";
            return Err(config.wrong("attention_head_dim", right));
        }
        let (in_channels, sample_size) = (config.count("in_channels", 0)?, config.count("sample_size", 64)?);
        let still = PixArtConfig {
            num_attention_heads: heads,
            attention_head_dim: head_dim,
            in_channels,
            out_channels: config.opt_usize("out_channels")?.unwrap_or(in_channels),
            num_layers: config.usize("num_layers", 1)?,
            cross_attention_dim: config.opt_usize("cross_attention_dim")?,
            attention_bias: config.bool("attention_bias", false)?,
            sample_size,
            patch_size: config.count("patch_size", 0)?,
            activation_fn: config.str("activation_fn", "geglu")?.to_owned(),
            norm_elementwise_affine: config.bool("norm_elementwise_affine", true)?,
            norm_eps: config.f64("norm_eps", 1e-5)?,
            interpolation_scale: (sample_size / 64).max(1) as f32,
            use_additional_conditions: false,
            caption_channels: Some(config.count("caption_channels", 0)?),
            file: config.file().to_owned(),
        };
        let this = Self { still, video_length: config.count("video_length", 16)? };
        config.finish("LatteTransformer3DModel");
        Ok(this)
    }
}

/// `LatteTransformer3DModel`.
pub struct Latte {
    still: PixArt,
    /// Over time, after each block over space.
    blocks: Vec<Block>,
    /// As [`PixArt`]'s, of these blocks.
    tables: Tensor<4>,
    /// `[video_length, D]`.
    positions: Tensor<2>,
}

impl Latte {
    /// # Errors
    /// `BadModel` where a tensor is missing or has another shape than the config says.
    pub fn load(params: &Params, config: LatteConfig) -> Result<Self> {
        let LatteConfig { still, video_length } = config;
        let over_time = PixArtConfig { cross_attention_dim: None, ..still.clone() };
        let blocks = (0..still.num_layers)
            .map(|i| Block::load(&params.at(&format!("temporal_transformer_blocks.{i}")), &over_time));
        let d = still.dim();
        let still = PixArt::load(params, still)?;
        let (blocks, tables): (Vec<_>, Vec<_>) = blocks.collect::<Result<Vec<_>>>()?.into_iter().unzip();
        Ok(Self {
            still,
            blocks,
            tables: block_tables(tables, params.device()),
            positions: sincos_1d(d, video_length, params.device()),
        })
    }

    /// One prediction: `x_t` `[N * frames, in_channels, H, W]` at a timestep (training steps) under `N` texts gives
    /// `[N * frames, out_channels, H, W]`. With one frame nothing is done over time.
    ///
    /// # Errors
    /// Those of [`PixArt::forward`].
    pub fn forward(&self, x_t: Latent, timestep: f32, text: &TextEmbedding) -> Result<Latent> {
        let ([rows, _, height, width], [n, ..]) = (x_t.dims(), text.hidden.dims());
        let run = self.still.run(&[timestep], 1, text, (height, width), [height, width])?;
        Ok(self.predict(&run, x_t, 0, rows / n))
    }

    fn predict(&self, run: &Run, x_t: Latent, step: usize, frames: usize) -> Latent {
        let tables = run.modulate(&self.tables, step);
        run.predict_with(x_t, step, |i, x| {
            if frames == 1 {
                return x;
            }
            let [rows, t, d] = x.dims();
            let n = rows / frames;
            // [N * F, T, D] -> [N * T, F, D] and back
            let turned = |x: Tensor<3>, [outer, inner]: [usize; 2]| {
                x.reshape([n, outer, inner, d]).swap_dims(1, 2).reshape([n * inner, outer, d])
            };
            let mut x = turned(x, [frames, t]);
            if i == 0 {
                x = x + self.positions.clone().narrow(0, 0, frames).unsqueeze();
            }
            turned(self.blocks[i].forward(x, None, tables.of(i)), [t, frames])
        })
    }
}

impl Denoiser for Latte {
    fn prepare<'a>(&'a self, condition: &Condition, timesteps: &[f32], latent: [usize; 2]) -> Result<Prepared<'a>> {
        let run = self.still.run(timesteps, 1, &condition.text, condition.picture, latent)?;
        let frames = condition.frames;
        Ok(Box::new(move |x_t, step| Ok(self.predict(&run, x_t, step, frames))))
    }

    fn frames(&self) -> Option<Frames> {
        Some(Frames::UpTo(self.positions.dims()[0]))
    }

    fn live_values(&self, n: usize, h: usize, w: usize) -> u64 {
        self.still.live_values(n, h, w)
    }
}
