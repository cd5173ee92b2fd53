//! The Diffusion Transformer of Flux.1 (diffusers `FluxTransformer2DModel`; Black Forest Labs, 2024).

use burn::tensor::{Device, Tensor};

use super::joint::{BlockOptions, JointBlock, NORM_EPS, TimeTextEmbedding, live_values, text_of};
use crate::{
    Error, Result,
    denoise::{Condition, Denoiser, Prepared},
    layers::{
        Activation, AdaLayerNormContinuous, LayerNorm, Linear, Modulation, Residual, Rotary, Stream, StreamNames,
        joint_attention,
    },
    values::{Latent, TextEmbedding},
    weights::{Config, Params},
};

/// Latents are packed in patches of this many positions a side, outside of diffusers' class and inside of ours.
pub const PATCH: usize = 2;
/// The base of the rotary angles.
const THETA: f64 = 10000.0;
/// Both time and guidance are embedded in thousandths.
const THOUSAND: f32 = 1000.0;

/// The numbers of `transformer/config.json` that change the arithmetic.
#[derive(Clone, Debug)]
pub struct FluxConfig {
    /// Of packed latents, as are `out_channels`.
    pub in_channels: usize,
    pub out_channels: usize,
    pub num_layers: usize,
    pub num_single_layers: usize,
    pub attention_head_dim: usize,
    pub num_attention_heads: usize,
    pub joint_attention_dim: usize,
    pub pooled_projection_dim: usize,
    /// The model is told the guidance.
    pub guidance_embeds: bool,
    pub axes_dims_rope: [usize; 3],
    file: String,
}

impl FluxConfig {
    /// # Errors
    /// `BadModel` for a value that is out of range or asks for what this version cannot do.
    pub fn read(config: &Config) -> Result<Self> {
        config.only("patch_size", 1)?;
        let in_channels = config.count("in_channels", 64)?;
        let axes = config.opt_usizes("axes_dims_rope")?.unwrap_or_else(|| vec![16, 56, 56]);
        let head_dim = config.count("attention_head_dim", 128)?;
        let fit = axes.iter().sum::<usize>() == head_dim && axes.iter().all(|axis| axis.is_multiple_of(2));
        let axes_dims_rope = <[usize; 3]>::try_from(axes).ok().filter(|_| fit).ok_or_else(|| {
            config.wrong(
                "axes_dims_rope",
                &format!("it must be three even numbers that make {head_dim}, the head's size"),
            )
        })?;
        let this = Self {
            in_channels,
            out_channels: config.opt_usize("out_channels")?.unwrap_or(in_channels),
            num_layers: config.usize("num_layers", 19)?,
            num_single_layers: config.usize("num_single_layers", 38)?,
            attention_head_dim: head_dim,
            num_attention_heads: config.count("num_attention_heads", 24)?,
            joint_attention_dim: config.count("joint_attention_dim", 4096)?,
            pooled_projection_dim: config.count("pooled_projection_dim", 768)?,
            guidance_embeds: config.bool("guidance_embeds", false)?,
            axes_dims_rope,
            file: config.file().to_owned(),
        };
        let packed = PATCH * PATCH;
        for (key, channels) in [("in_channels", in_channels), ("out_channels", this.out_channels)] {
            if !channels.is_multiple_of(packed) {
                return Err(config
                    .wrong(key, &format!("latents are packed {packed} to one, so it must be divisible by {packed}")));
            }
        }
        config.finish("FluxTransformer2DModel");
        Ok(this)
    }

    /// The width of the transformer.
    pub fn dim(&self) -> usize {
        self.num_attention_heads * self.attention_head_dim
    }

    /// Channels of latents before they are packed: into the network, and out of it.
    pub fn latent_channels(&self) -> [usize; 2] {
        [self.in_channels, self.out_channels].map(|channels| channels / (PATCH * PATCH))
    }
}

/// `FluxTransformer2DModel`: predicts the velocity.
pub struct Flux {
    embed: Linear,
    time_text: TimeTextEmbedding,
    context: Linear,
    blocks: Vec<JointBlock>,
    single_blocks: Vec<SingleBlock>,
    norm_out: AdaLayerNormContinuous,
    proj_out: Linear,
    config: FluxConfig,
}

/// A block of one stream, whose attention and perceptron go side by side (diffusers `FluxSingleTransformerBlock`).
struct SingleBlock {
    /// Shift, scale, gate.
    modulation: Modulation,
    norm: LayerNorm,
    stream: Stream,
    proj_mlp: Linear,
    proj_out: Linear,
    heads: usize,
}

impl Flux {
    /// # Errors
    /// `BadModel` where a tensor is missing or has another shape than the config says.
    pub fn load(params: &Params, config: FluxConfig) -> Result<Self> {
        let (d, heads) = (config.dim(), config.num_attention_heads);
        let options = BlockOptions { heads, norms: true, dual: false, last: false };
        let blocks = (0..config.num_layers)
            .map(|i| JointBlock::load(&params.at(&format!("transformer_blocks.{i}")), d, options));
        let single_blocks = (0..config.num_single_layers)
            .map(|i| SingleBlock::load(&params.at(&format!("single_transformer_blocks.{i}")), d, heads));
        Ok(Self {
            embed: Linear::load(&params.at("x_embedder"), config.in_channels, d)?,
            time_text: TimeTextEmbedding::load(
                &params.at("time_text_embed"),
                config.pooled_projection_dim,
                d,
                config.guidance_embeds,
            )?,
            context: Linear::load(&params.at("context_embedder"), config.joint_attention_dim, d)?,
            blocks: blocks.collect::<Result<_>>()?,
            single_blocks: single_blocks.collect::<Result<_>>()?,
            norm_out: AdaLayerNormContinuous::load(&params.at("norm_out"), d, NORM_EPS)?,
            proj_out: Linear::load(&params.at("proj_out"), d, config.out_channels)?,
            config,
        })
    }

    pub fn config(&self) -> &FluxConfig {
        &self.config
    }

    /// One prediction: `x_t` `[N, in_channels / 4, H, W]` at `timesteps` `[N]` (sigma times 1000) under `text` gives
    /// `[N, out_channels / 4, H, W]`. `guidance` is what models with `guidance_embeds` are told.
    ///
    /// # Errors
    /// `BadInput` where `H` or `W` is odd; `BadModel` where the text embedding has other widths than the transformer.
    pub fn forward(&self, x_t: Latent, timesteps: &[f32], text: &TextEmbedding, guidance: f32) -> Result<Latent> {
        let [_, _, height, width] = x_t.dims();
        self.run(timesteps, timesteps.len(), text, guidance, [height, width])?(x_t, 0)
    }

    /// Prepares steps of `rows` timesteps each for latents of this height and width.
    fn run(
        &self,
        timesteps: &[f32],
        rows: usize,
        text: &TextEmbedding,
        guidance: f32,
        [height, width]: [usize; 2],
    ) -> Result<Prepared<'_>> {
        if !height.is_multiple_of(PATCH) || !width.is_multiple_of(PATCH) {
            return Err(Error::bad_input(format!(
                "the latent is {width} x {height}; the transformer needs multiples of {PATCH}"
            )));
        }
        let (d, h, w) = (self.config.dim(), height / PATCH, width / PATCH);
        let widths = [self.config.joint_attention_dim, self.config.pooled_projection_dim];
        let (hidden, pooled) = text_of(text, widths, &self.config.file)?;
        let [_, text_tokens, _] = hidden.dims();
        let rotary = self.rotary(text_tokens, h, w, &hidden.device());
        // [steps, N, D]
        let times = self.time_text.forward(timesteps, rows, guidance * THOUSAND, pooled);
        let text = self.context.forward(hidden);
        Ok(Box::new(move |x_t, step| {
            let [n, channels, _, _] = x_t.dims();
            let time = times.clone().narrow(0, step, 1).reshape([n, d]);
            // [N, C, H, W] -> [N, C, h, 2, w, 2] -> [N, h, w, C, 2, 2] -> [N, h * w, C * 4]
            let x: Tensor<6> = x_t.reshape([n, channels, h, PATCH, w, PATCH]).permute([0, 2, 4, 1, 3, 5]);
            let mut image = self.embed.forward(x.reshape([n, h * w, channels * PATCH * PATCH]));
            let mut text = text.clone();
            for block in &self.blocks {
                (text, image) = block.forward(text, image, &time, Some(&rotary));
            }
            let mut x = Tensor::cat(vec![text, image], 1);
            for block in &self.single_blocks {
                x = block.forward(x, &time, &rotary);
            }
            let x = self.proj_out.forward(self.norm_out.forward(x.narrow(1, text_tokens, h * w), &time));
            let [_, c] = self.config.latent_channels();
            // [N, h * w, C * 4] -> [N, h, w, C, 2, 2] -> [N, C, h, 2, w, 2] -> [N, C, H, W]
            let x: Tensor<6> = x.reshape([n, h, w, c, PATCH, PATCH]).permute([0, 3, 1, 4, 2, 5]);
            Ok(x.reshape([n, c, height, width]))
        }))
    }

    /// Text stands at the origin, and each patch at its row and column.
    fn rotary(&self, text_tokens: usize, h: usize, w: usize, device: &Device) -> Rotary {
        let mut places = vec![[0.0; 3]; text_tokens];
        places.extend((0..h * w).map(|i| [0.0, (i / w) as f32, (i % w) as f32]));
        Rotary::new(&places, self.config.axes_dims_rope, THETA, device)
    }
}

impl SingleBlock {
    fn load(params: &Params, dim: usize, heads: usize) -> Result<Self> {
        let inner = 4 * dim;
        Ok(Self {
            modulation: Modulation::load(&params.at("norm"), dim, 3)?,
            norm: LayerNorm::plain(params, dim, NORM_EPS),
            stream: Stream::load(&params.at("attn"), StreamNames::OWN, dim, heads, true, false)?,
            proj_mlp: Linear::load(&params.at("proj_mlp"), dim, inner)?,
            proj_out: Linear::load(&params.at("proj_out"), dim + inner, dim)?,
            heads,
        })
    }

    /// `[N, T, D] -> [N, T, D]` under `time` `[N, D]`.
    fn forward(&self, x: Tensor<3>, time: &Tensor<2>, rotary: &Rotary) -> Tensor<3> {
        let parts = self.modulation.forward(time);
        let h = self.norm.modulated(x.clone(), parts[0].clone(), parts[1].clone() + 1.0);
        let widened = self.proj_mlp.forward_then(h.clone(), Some(Activation::GeluTanh), None);
        let [attended] = joint_attention([(&self.stream, h)], self.heads, Some(rotary));
        let joined = Tensor::cat(vec![attended, widened], 2);
        self.proj_out.forward_then(joined, None, Some(Residual::gated(x, parts[2].clone())))
    }
}

impl Denoiser for Flux {
    fn prepare<'a>(&'a self, condition: &Condition, timesteps: &[f32], latent: [usize; 2]) -> Result<Prepared<'a>> {
        self.run(timesteps, 1, &condition.text, condition.guidance, latent)
    }

    fn live_values(&self, n: usize, h: usize, w: usize) -> u64 {
        live_values(n, h * w / (PATCH * PATCH), self.config.dim(), self.config.num_attention_heads)
    }
}
