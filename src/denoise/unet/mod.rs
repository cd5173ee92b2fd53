//! The U-Net of latent diffusion (diffusers `UNet2DConditionModel`; Rombach et al., arXiv 2112.10752).

mod blocks;
mod config;

use burn::tensor::Tensor;

use self::blocks::{Context, DownBlock, LayerRun, MidBlock, Moment, UpBlock};
pub use self::config::UNetConfig;
use crate::{
    Error, Result,
    denoise::{Condition, Denoiser, Frames, MotionConfig, MotionModules, Prepared},
    layers::{Conv2d, GroupNorm, LIVE_WIDTHS, TimestepEmbedding, live_scores, mask_to_bias, timestep_embedding_with},
    values::{Latent, TextEmbedding},
    weights::Params,
};

/// What text that is masked out adds to attention scores.
const MASKED: f32 = -10000.0;

/// `UNet2DConditionModel`: predicts what its scheduler expects (noise, for most).
pub struct UNet {
    conv_in: Conv2d,
    time: TimestepEmbedding,
    addition: Option<TimestepEmbedding>,
    down: Vec<DownBlock>,
    mid: MidBlock,
    up: Vec<UpBlock>,
    norm_out: GroupNorm,
    conv_out: Conv2d,
    config: UNetConfig,
    /// Of its motion modules, where it has them.
    frames: Option<Frames>,
}

/// A run: what stays the same from step to step, computed.
struct Run<'a> {
    model: &'a UNet,
    down: Vec<Vec<LayerRun>>,
    mid: Vec<LayerRun>,
    up: Vec<Vec<LayerRun>>,
    /// How many rows of time a step has: one for all pictures of the batch, or one for each.
    rows: usize,
    /// How many prompts there are.
    prompts: usize,
}

/// What a U-Net is told besides the latent and the text.
#[derive(Default)]
pub struct Additions {
    /// `[N, time_cond_proj_dim]`: the guidance, of models distilled with it.
    pub timestep_cond: Option<Tensor<2>>,
    /// `[N, 6]` numbers about the picture's size, row by row, of models that want them with pooled text.
    pub time_ids: Vec<f32>,
}

impl UNet {
    /// # Errors
    /// `BadModel` where a tensor is missing or has another shape than the config says.
    pub fn load(params: &Params, config: UNetConfig) -> Result<Self> {
        let n = config.down_blocks.len();
        let (first, last) = (config.down_blocks[0].channels, config.down_blocks[n - 1].channels);
        let same = |kernel: usize| [(kernel - 1) / 2; 2];
        let down = config.down_blocks.iter().enumerate().map(|(i, block)| {
            let c_in = config.down_blocks[i.saturating_sub(1)].channels;
            DownBlock::load(&params.at(&format!("down_blocks.{i}")), c_in, block, i + 1 == n, &config)
        });
        let up = config.up_blocks.iter().enumerate().map(|(i, block)| {
            let before = config.up_blocks[i.saturating_sub(1)].channels;
            let after = config.up_blocks[(i + 1).min(n - 1)].channels;
            UpBlock::load(&params.at(&format!("up_blocks.{i}")), before, after, block, i + 1 == n, &config)
        });
        let (k_in, k_out) = (config.conv_in_kernel, config.conv_out_kernel);
        let time_dim = config.time_embedding_dim;
        let addition = config
            .addition
            .map(|addition| TimestepEmbedding::load(&params.at("add_embedding"), addition.input_dim, time_dim));
        Ok(Self {
            conv_in: Conv2d::load_with(&params.at("conv_in"), config.in_channels, first, k_in, 1, same(k_in), true)?,
            time: TimestepEmbedding::load_with(
                &params.at("time_embedding"),
                first,
                time_dim,
                config.act_fn,
                config.time_cond_proj_dim,
            )?,
            addition: addition.transpose()?,
            down: down.collect::<Result<_>>()?,
            mid: MidBlock::load(&params.at("mid_block"), last, &config)?,
            up: up.collect::<Result<_>>()?,
            norm_out: GroupNorm::load(&params.at("conv_norm_out"), first, config.norm_num_groups, config.norm_eps)?,
            conv_out: Conv2d::load_with(
                &params.at("conv_out"),
                first,
                config.out_channels,
                k_out,
                1,
                same(k_out),
                true,
            )?,
            config,
            frames: None,
        })
    }

    pub fn config(&self) -> &UNetConfig {
        &self.config
    }

    /// One prediction: `x_t` `[N * frames, in_channels, H, W]` at as many `timesteps` (training steps), or one for all, under
    /// `N` texts gives `[N * frames, out_channels, H, W]`.
    ///
    /// # Errors
    /// `BadModel` where the text embedding has another width than the network, or lacks the pooled text it wants.
    pub fn forward(
        &self,
        x_t: Latent,
        timesteps: &[f32],
        text: &TextEmbedding,
        additions: Additions,
    ) -> Result<Latent> {
        let frames = x_t.dims()[0] / text.hidden.dims()[0];
        Ok(self.run(timesteps, timesteps.len(), text, additions, frames)?.predict(x_t, 0))
    }

    /// Prepares steps of `rows` timesteps each, of so many `frames`.
    fn run(
        &self,
        timesteps: &[f32],
        rows: usize,
        text: &TextEmbedding,
        additions: Additions,
        frames: usize,
    ) -> Result<Run<'_>> {
        let config = &self.config;
        let [n, _, text_dim] = text.hidden.dims();
        if let Some(expected) = config.text_dim().filter(|expected| *expected != text_dim) {
            return Err(Error::bad_model(format!(
                "the text encoder gives vectors of {text_dim}, but {} expects {expected}",
                config.file
            )));
        }
        let device = text.hidden.device();
        let features = |values: &[f32], dim: usize| {
            timestep_embedding_with(values, dim, config.flip_sin_to_cos, config.freq_shift, &device)
        };
        let time = features(timesteps, config.down_blocks[0].channels);
        let time = match additions.timestep_cond {
            Some(condition) => self.time.forward_with(time, condition),
            None => self.time.forward(time),
        };
        // [steps * rows, D] -> [steps, rows, D]
        let [_, time_dim] = time.dims();
        let mut time = time.reshape([timesteps.len() / rows, rows, time_dim]);
        if let (Some(embedding), Some(addition)) = (&self.addition, config.addition) {
            let pooled = text.pooled.clone().filter(|pooled| Some(pooled.dims()[1]) == config.pooled_dim());
            let pooled = pooled.ok_or_else(|| {
                Error::bad_model(format!(
                    "{} wants pooled text of {} values, which this model's text encoders do not give",
                    config.file,
                    config.pooled_dim().unwrap_or(0)
                ))
            })?;
            // [N * 6] -> [N, 6 time_dim]
            let sizes = features(&additions.time_ids, addition.time_dim).reshape([n, 6 * addition.time_dim]);
            let added = embedding.forward(Tensor::cat(vec![pooled, sizes], 1)).unsqueeze_dim::<3>(1);
            // [N, 1, D] -> [1, N * frames, D]
            time = time + added.repeat_dim(1, frames).reshape([1, n * frames, time_dim]);
        }
        let [steps, rows, _] = time.dims();
        let context = Context {
            time: config.act_fn.forward(time).reshape([steps * rows, time_dim]),
            text: &text.hidden,
            text_bias: text.attention_mask.clone().map(|mask| mask_to_bias(mask, MASKED)),
        };
        Ok(Run {
            model: self,
            down: self.down.iter().map(|block| block.prepare(&context)).collect(),
            mid: self.mid.prepare(&context),
            up: self.up.iter().map(|block| block.prepare(&context)).collect(),
            rows,
            prompts: n,
        })
    }
}

impl Run<'_> {
    /// `[N * frames, in_channels, H, W]` at a step gives `[N * frames, out_channels, H, W]`.
    fn predict(&self, x_t: Latent, step: usize) -> Latent {
        let UNet { config, conv_in, down, mid, up, norm_out, conv_out, .. } = self.model;
        let at = Moment { step, rows: self.rows, frames: x_t.dims()[0] / self.prompts };
        let x = if config.center_input_sample { x_t * 2.0 - 1.0 } else { x_t };
        let mut x = conv_in.forward(x);
        let mut skips = vec![x.clone()];
        for (block, run) in down.iter().zip(&self.down) {
            x = block.forward(x, run, at, &mut skips);
        }
        x = mid.forward(x, &self.mid, at);
        for (block, run) in up.iter().zip(&self.up) {
            x = block.forward(x, run, at, &mut skips);
        }
        conv_out.forward(config.act_fn.forward(norm_out.forward(x)))
    }
}

impl Denoiser for UNet {
    fn prepare<'a>(&'a self, condition: &Condition, timesteps: &[f32], _latent: [usize; 2]) -> Result<Prepared<'a>> {
        let [n, _, _] = condition.text.hidden.dims();
        // diffusers tells the guidance less 1, times 1000, sines first.
        let guidance = (condition.guidance - 1.0) * 1000.0;
        let device = condition.text.hidden.device();
        let timestep_cond =
            self.config.time_cond_proj_dim.map(|dim| timestep_embedding_with(&[guidance], dim, false, 1.0, &device));
        let (height, width) = (condition.picture.0 as f32, condition.picture.1 as f32);
        // Original size, where it was cropped, and the size that is wanted.
        let time_ids = [height, width, 0.0, 0.0, height, width].repeat(n);
        let additions = Additions { timestep_cond, time_ids };
        let run = self.run(timesteps, 1, &condition.text, additions, condition.frames)?;
        Ok(Box::new(move |x_t, step| Ok(run.predict(x_t, step))))
    }

    fn frames(&self) -> Option<Frames> {
        self.frames
    }

    fn add_motion(&mut self, params: &Params, config: &MotionConfig) -> Result<()> {
        let own = &self.config.down_blocks;
        let widths: Vec<_> = own.iter().map(|block| block.channels).collect();
        let layers: Vec<_> = own.iter().map(|block| block.layers).collect();
        if (&widths, &layers) != (&config.block_out_channels, &config.layers_per_block) {
            return Err(config.of_another(&widths, &layers));
        }
        if config.mid_block.is_some() && !self.mid.attends() {
            return Err(Error::bad_model(format!(
                "{}: `use_motion_mid_block` is true, but the network has no attention in its middle; take an adapter without",
                config.file
            )));
        }
        // As diffusers' `UNetMotionModel.from_unet2d` has it.
        let config = MotionConfig { norm_num_groups: self.config.norm_num_groups, ..config.clone() };
        let MotionModules { down, mid, up } = MotionModules::load(params, &config)?;
        self.down.iter_mut().zip(down).for_each(|(block, modules)| block.add_motion(modules));
        self.mid.add_motion(mid);
        self.up.iter_mut().zip(up).for_each(|(block, modules)| block.add_motion(modules));
        self.frames = Some(config.frames);
        Ok(())
    }

    fn live_values(&self, n: usize, h: usize, w: usize) -> u64 {
        let levels = self.config.down_blocks.iter().enumerate().map(|(level, block)| {
            let positions = (h * w) >> (2 * level);
            let map = (n * positions * block.channels) as u64;
            let skips = map * (block.layers as u64 + 1);
            let scores = block.attention.map_or(0, |attention| live_scores(n, attention.heads, positions));
            (skips, map * LIVE_WIDTHS + scores)
        });
        // Every skip waits for the way up; one block works at a time.
        let (skips, working) = levels.fold((0, 0), |(sum, most), (skips, working)| (sum + skips, working.max(most)));
        skips + working
    }
}
