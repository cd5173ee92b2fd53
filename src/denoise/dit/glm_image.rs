//! The Diffusion Transformer of GLM-Image (diffusers `GlmImageTransformer2DModel`): text and picture are one sequence with weights
//! in common, and each patch is told the token that a language model laid out for it.

use burn::tensor::{Int, Tensor, TensorData};

use super::joint::live_values;
use crate::{
    Error, Result,
    denoise::{Condition, Denoiser, Prepared},
    layers::{
        Activation, Embedding, FeedForward, HalfRotary, LayerNorm, Linear, TimestepEmbedding, mask_to_bias, modulate,
        multi_head_attention, timestep_embedding,
    },
    values::Latent,
    weights::{Config, Params},
};

/// Fixed in the reference, for every norm.
const EPS: f64 = 1e-5;
const THETA: f32 = 10000.0;
/// What text that must not be looked at adds to attention scores.
const HIDDEN: f32 = -1e9;
/// Shift, scale and gate of attention and of the perceptron, each for the picture and for the text.
const PARTS: usize = 12;

/// The numbers of `transformer/config.json` that change the arithmetic.
#[derive(Clone, Debug)]
pub struct GlmImageConfig {
    pub patch_size: usize,
    pub in_channels: usize,
    pub out_channels: usize,
    pub num_layers: usize,
    pub attention_head_dim: usize,
    pub num_attention_heads: usize,
    pub text_embed_dim: usize,
    pub time_embed_dim: usize,
    pub condition_dim: usize,
    pub prior_vq_quantizer_codebook_size: usize,
}

impl GlmImageConfig {
    /// # Errors
    /// `BadModel` for a value that is out of range.
    pub fn read(config: &Config) -> Result<Self> {
        let this = Self {
            patch_size: config.count("patch_size", 2)?,
            in_channels: config.count("in_channels", 16)?,
            out_channels: config.count("out_channels", 16)?,
            num_layers: config.usize("num_layers", 30)?,
            attention_head_dim: config.count("attention_head_dim", 40)?,
            num_attention_heads: config.count("num_attention_heads", 64)?,
            text_embed_dim: config.count("text_embed_dim", 1472)?,
            time_embed_dim: config.count("time_embed_dim", 512)?,
            condition_dim: config.count("condition_dim", 256)?,
            prior_vq_quantizer_codebook_size: config.count("prior_vq_quantizer_codebook_size", 16384)?,
        };
        if !this.attention_head_dim.is_multiple_of(4) {
            return Err(config.wrong("attention_head_dim", "it must be divisible by 4, for rows and columns"));
        }
        for (key, width) in [("time_embed_dim", this.time_embed_dim), ("condition_dim", this.condition_dim)] {
            if !width.is_multiple_of(2) {
                return Err(config.wrong(key, "it must be even"));
            }
        }
        config.finish("GlmImageTransformer2DModel");
        Ok(this)
    }

    /// The width of the transformer.
    pub fn dim(&self) -> usize {
        self.num_attention_heads * self.attention_head_dim
    }
}

/// What a prediction is told besides `x_t` and its time.
#[derive(Clone, Debug)]
pub struct GlmImageCondition {
    /// `[N, T, text_embed_dim]`: what is to be written in the picture.
    pub glyphs: Tensor<3>,
    /// `[N, T]`, 1 = keep, 0 = padding; without one, all is kept.
    pub mask: Option<Tensor<2>>,
    /// The token of each patch, rows from the top, or none: `[h * w]` for each of N.
    pub tokens: Vec<Option<Vec<u32>>>,
    /// (height, width) in pixels.
    pub target_size: [f32; 2],
    /// Of the picture's upper left corner in the one that it is cut out of.
    pub crop_coords: [f32; 2],
}

/// `GlmImageTransformer2DModel`: predicts the velocity.
pub struct GlmImage {
    image_projector: Linear,
    glyph_projector: Projector,
    prior_token_embedding: Embedding,
    prior_projector: Projector,
    timestep_embedder: TimestepEmbedding,
    condition_embedder: TimestepEmbedding,
    blocks: Vec<Block>,
    /// Scale, then shift.
    modulation: Linear,
    norm: LayerNorm,
    proj_out: Linear,
    config: GlmImageConfig,
}

/// Two dense layers (diffusers `FeedForward`, no wider inside than out).
struct Projector {
    first: Linear,
    activation: Activation,
    second: Linear,
}

struct Block {
    modulation: Linear,
    norm: LayerNorm,
    /// Queries, keys and values side by side.
    qkv: Linear,
    /// Of each head's queries and keys.
    qk_norm: LayerNorm,
    out: Linear,
    ff: FeedForward,
}

impl GlmImage {
    /// # Errors
    /// `BadModel` where a tensor is missing or has another shape than the config says.
    pub fn load(params: &Params, config: GlmImageConfig) -> Result<Self> {
        let (d, time) = (config.dim(), config.time_embed_dim);
        let patch = config.patch_size * config.patch_size;
        let embed = params.at("time_condition_embed");
        let blocks =
            (0..config.num_layers).map(|i| Block::load(&params.at(&format!("transformer_blocks.{i}")), &config));
        let glyphs = params.at("glyph_projector");
        let condition = embed.at("condition_embedder");
        Ok(Self {
            image_projector: Linear::load(&params.at("image_projector.proj"), config.in_channels * patch, d)?,
            glyph_projector: Projector::load(&glyphs, config.text_embed_dim, d, Activation::Gelu)?,
            prior_token_embedding: Embedding::load(
                &params.at("prior_token_embedding"),
                config.prior_vq_quantizer_codebook_size,
                d,
            )?,
            prior_projector: Projector::load(&params.at("prior_projector"), d, d, Activation::Silu)?,
            timestep_embedder: TimestepEmbedding::load(&embed.at("timestep_embedder"), time, time)?,
            condition_embedder: TimestepEmbedding::load(&condition, 4 * config.condition_dim, time)?,
            blocks: blocks.collect::<Result<_>>()?,
            modulation: Linear::load(&params.at("norm_out.linear"), time, 2 * d)?,
            norm: LayerNorm::plain(params, d, EPS),
            proj_out: Linear::load(&params.at("proj_out"), d, config.out_channels * patch)?,
            config,
        })
    }

    /// One prediction: `x_t` `[N, in_channels, H, W]` at `timesteps` `[N]` gives `[N, out_channels, H, W]`.
    ///
    /// # Errors
    /// `BadInput` where `H` or `W` is no multiple of the patch, or there is not a token for each patch; `BadModel` where
    /// the glyphs' embedding has another width than the transformer expects.
    pub fn forward(&self, x_t: Latent, timesteps: &[f32], condition: &GlmImageCondition) -> Result<Latent> {
        let [n, channels, height, width] = x_t.dims();
        let (p, d, device) = (self.config.patch_size, self.config.dim(), x_t.device());
        if !height.is_multiple_of(p) || !width.is_multiple_of(p) {
            return Err(Error::bad_input(format!(
                "the latent is {width} x {height}; the transformer needs multiples of {p}"
            )));
        }
        let [_, _, found] = condition.glyphs.dims();
        if found != self.config.text_embed_dim {
            return Err(Error::bad_model(format!(
                "the text encoder gives vectors of {found}, but the transformer expects {}",
                self.config.text_embed_dim
            )));
        }
        let (h, w) = (height / p, width / p);
        // [N, C, H, W] -> [N, C, h, p, w, p] -> [N, h, w, C, p, p] -> [N, h * w, C * p * p]
        let x: Tensor<6> = x_t.reshape([n, channels, h, p, w, p]).permute([0, 2, 4, 1, 3, 5]);
        let mut image =
            self.image_projector.forward(x.reshape([n, h * w, channels * p * p])) + self.prior(condition, n, h * w)?;
        let mut text = self.glyph_projector.forward(condition.glyphs.clone());

        let features = |values: &[f32], dim| timestep_embedding(values, dim, &device);
        let [[top, left], [target_height, target_width]] = [condition.crop_coords, condition.target_size];
        let sizes = features(&[top, left, target_height, target_width], self.config.condition_dim);
        let sizes = self.condition_embedder.forward(sizes.reshape([1, 4 * self.config.condition_dim]));
        let time = self.timestep_embedder.forward(features(timesteps, self.config.time_embed_dim)) + sizes;
        // It is activated here, once, and in no block.
        let time = Activation::Silu.forward(time);

        let rotary = self.rotary(h, w, &device);
        let bias = condition.mask.clone().map(|mask| {
            let [rows, _] = mask.dims();
            mask_to_bias(Tensor::cat(vec![mask, Tensor::ones([rows, h * w], &device)], 1), HIDDEN)
        });
        for block in &self.blocks {
            (text, image) = block.forward(text, image, &time, &rotary, bias.clone(), &self.config);
        }
        // [N, 2 D] -> [N, 2, D]
        let parts: Tensor<3> = self.modulation.forward(time).reshape([n, 2, d]);
        let x = modulate(self.norm.forward(image), parts.clone().narrow(1, 1, 1), parts.narrow(1, 0, 1));
        let c = self.config.out_channels;
        // [N, h * w, C * p * p] -> [N, h, w, C, p, p] -> [N, C, h, p, w, p] -> [N, C, H, W]
        let x: Tensor<6> = self.proj_out.forward(x).reshape([n, h, w, c, p, p]).permute([0, 3, 1, 4, 2, 5]);
        Ok(x.reshape([n, c, height, width]))
    }

    /// What the patches' tokens say, `[N, patches, D]`; no token is an embedding of zeros.
    fn prior(&self, condition: &GlmImageCondition, n: usize, patches: usize) -> Result<Tensor<3>> {
        let most = self.config.prior_vq_quantizer_codebook_size;
        let rows = &condition.tokens;
        let wrong = rows.iter().flatten().find(|tokens| tokens.len() != patches);
        if rows.len() != n || wrong.is_some() {
            return Err(Error::bad_input(format!(
                "there are {} tokens for {patches} patches; give each patch one",
                wrong.map_or(0, Vec::len)
            )));
        }
        if let Some(token) = rows.iter().flatten().flatten().find(|token| **token as usize >= most) {
            return Err(Error::bad_input(format!("the token {token} is none of this model's, which has {most}")));
        }
        let device = condition.glyphs.device();
        let ids: Vec<i64> = rows
            .iter()
            .flat_map(|tokens| match tokens {
                Some(tokens) => tokens.iter().map(|token| i64::from(*token)).collect(),
                None => vec![0; patches],
            })
            .collect();
        let kept: Vec<f32> = rows.iter().map(|tokens| if tokens.is_some() { 1.0 } else { 0.0 }).collect();
        let kept = Tensor::<3>::from_data(TensorData::new(kept, [n, 1, 1]), &device);
        let ids = Tensor::<2, Int>::from_data(TensorData::new(ids, [n, patches]), &device);
        Ok(self.prior_projector.forward(self.prior_token_embedding.forward(ids) * kept))
    }

    /// One half of the pairs turns with the row, the other with the column.
    fn rotary(&self, h: usize, w: usize, device: &burn::tensor::Device) -> HalfRotary {
        let side = self.config.attention_head_dim / 2;
        let turns: Vec<f32> = (0..side / 2).map(|i| THETA.powf((2 * i) as f32 / side as f32).recip()).collect();
        let places = (0..h * w).flat_map(|i| [(i / w) as f32, (i % w) as f32]);
        let angles: Vec<f32> = places.flat_map(|place| turns.iter().map(move |turn| place * turn)).collect();
        HalfRotary::new(&angles, side, device)
    }
}

impl Denoiser for GlmImage {
    fn prepare<'a>(&'a self, condition: &Condition, timesteps: &[f32], _: [usize; 2]) -> Result<Prepared<'a>> {
        let [n, _, _] = condition.text.hidden.dims();
        let (height, width) = condition.picture;
        let told = GlmImageCondition {
            glyphs: condition.text.hidden.clone(),
            mask: condition.text.attention_mask.clone(),
            tokens: (0..n).map(|row| condition.tokens.clone().filter(|_| row == n - 1)).collect(),
            target_size: [height as f32, width as f32],
            crop_coords: [0.0; 2],
        };
        let timesteps = timesteps.to_vec();
        Ok(Box::new(move |x_t, step| self.forward(x_t, &vec![timesteps[step]; n], &told)))
    }

    fn live_values(&self, n: usize, h: usize, w: usize) -> u64 {
        let patches = h * w / (self.config.patch_size * self.config.patch_size);
        live_values(n, patches, self.config.dim(), self.config.num_attention_heads)
    }
}

impl Projector {
    fn load(params: &Params, d_in: usize, d_out: usize, activation: Activation) -> Result<Self> {
        Ok(Self {
            first: Linear::load(&params.at("net.0.proj"), d_in, d_out)?,
            activation,
            second: Linear::load(&params.at("net.2"), d_out, d_out)?,
        })
    }

    /// `[N, T, d_in] -> [N, T, d_out]`.
    fn forward(&self, x: Tensor<3>) -> Tensor<3> {
        self.second.forward(self.activation.forward(self.first.forward(x)))
    }
}

impl Block {
    fn load(params: &Params, config: &GlmImageConfig) -> Result<Self> {
        let (d, attention) = (config.dim(), params.at("attn1"));
        let [q, k, v] = ["to_q", "to_k", "to_v"].map(|name| attention.at(name));
        Ok(Self {
            modulation: Linear::load(&params.at("norm1.linear"), config.time_embed_dim, PARTS * d)?,
            norm: LayerNorm::plain(params, d, EPS),
            qkv: Linear::load_joined(&[q, k, v], d, d, true)?,
            qk_norm: LayerNorm::plain(params, config.attention_head_dim, EPS),
            out: Linear::load(&attention.at("to_out.0"), d, d)?,
            ff: FeedForward::load(&params.at("ff"), d, "gelu-approximate", "")?,
        })
    }

    /// `text` `[N, Tt, D]` and `image` `[N, Ti, D]` under `time` `[N, time_embed_dim]`; `bias` `[N, 1, 1, Tt + Ti]`.
    fn forward(
        &self,
        text: Tensor<3>,
        image: Tensor<3>,
        time: &Tensor<2>,
        rotary: &HalfRotary,
        bias: Option<Tensor<4>>,
        config: &GlmImageConfig,
    ) -> (Tensor<3>, Tensor<3>) {
        let ([n, patches, d], [_, text_tokens, _]) = (image.dims(), text.dims());
        let heads = config.num_attention_heads;
        // [N, 12 D] -> [N, 12, D]: a part of the picture, then the text's like
        let parts: Tensor<3> = self.modulation.forward(time.clone()).reshape([n, PARTS, d]);
        let part = |i: usize, stream: usize| parts.clone().narrow(1, 2 * i + stream, 1);
        let [shift, scale, gate, ff_shift, ff_scale, ff_gate] = [0, 1, 2, 3, 4, 5];
        let normed =
            |x: &Tensor<3>, stream| modulate(self.norm.forward(x.clone()), part(shift, stream), part(scale, stream));
        let joined = Tensor::cat(vec![normed(&text, 1), normed(&image, 0)], 1);
        let tokens = text_tokens + patches;
        // [N, T, 3 D] -> [N, T, 3 heads, d] -> [N, 3 heads, T, d]
        let qkv: Tensor<4> =
            self.qkv.forward(joined).reshape([n, tokens, 3 * heads, config.attention_head_dim]).swap_dims(1, 2);
        let qk = self.qk_norm.forward(qkv.clone().narrow(1, 0, 2 * heads));
        let placed = rotary.forward(qk.clone().narrow(2, text_tokens, patches));
        let qk = Tensor::cat(vec![qk.narrow(2, 0, text_tokens), placed], 2);
        let whole = |x: Tensor<4>| x.swap_dims(1, 2).reshape([n, tokens, d]);
        let [query, key] = [0, heads].map(|first| whole(qk.clone().narrow(1, first, heads)));
        let value = whole(qkv.narrow(1, 2 * heads, heads));
        let attended = self.out.forward(multi_head_attention(query, key, value, heads, bias, None));
        let streams = [(image, text_tokens, patches), (text, 0, text_tokens)];
        let mut streams = streams.into_iter().enumerate().map(|(stream, (x, start, count))| {
            let x = x + attended.clone().narrow(1, start, count) * part(gate, stream);
            let h = modulate(self.norm.forward(x.clone()), part(ff_shift, stream), part(ff_scale, stream));
            x + self.ff.forward(h) * part(ff_gate, stream)
        });
        let mut next = || streams.next().unwrap_or_else(|| unreachable!("there are two streams"));
        let image = next();
        (next(), image)
    }
}
