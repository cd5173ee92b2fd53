//! The Diffusion Transformer of PixArt-alpha and -sigma (diffusers `PixArtTransformer2DModel`;
//! Chen et al., arXiv 2310.00426).

use burn::tensor::Tensor;

use crate::{
    Error, Result,
    denoise::{Condition, Denoiser},
    layers::{
        Activation, Attention, Conv2d, FeedForward, LIVE_WIDTHS, LayerNorm, Linear, TimestepEmbedding, live_scores,
        mask_to_bias, modulate, sincos_2d, timestep_embedding,
    },
    values::{Latent, TextEmbedding},
    weights::{Config, Params},
};

/// What an output block's layer norm uses whatever the config says.
const NORM_OUT_EPS: f64 = 1e-6;
/// Width of the sinusoidal features before they are embedded.
const TIME_FEATURES: usize = 256;

/// The numbers of `transformer/config.json` that change the arithmetic.
#[derive(Clone, Debug)]
pub struct PixArtConfig {
    pub num_attention_heads: usize,
    pub attention_head_dim: usize,
    pub in_channels: usize,
    pub out_channels: usize,
    pub num_layers: usize,
    pub cross_attention_dim: Option<usize>,
    pub attention_bias: bool,
    pub sample_size: usize,
    pub patch_size: usize,
    pub activation_fn: String,
    pub norm_elementwise_affine: bool,
    pub norm_eps: f64,
    pub interpolation_scale: f32,
    pub use_additional_conditions: bool,
    pub caption_channels: Option<usize>,
    file: String,
}

impl PixArtConfig {
    /// # Errors
    /// `BadModel` for a value that is out of range or asks for what this version cannot do.
    pub fn read(config: &Config) -> Result<Self> {
        config.only("norm_type", "ada_norm_single")?;
        config.only("attention_type", "default")?;
        // What files from before diffusers 0.30 say besides.
        for key in ["double_self_attention", "only_cross_attention", "use_linear_projection"] {
            config.only(key, false)?;
        }
        config.absent("num_vector_embeds")?;
        // Dropout and gradient options do not act in a forward pass; group norms do not occur here; every
        // softmax is computed in f32 already.
        config.ignore(&["dropout", "norm_num_groups", "num_embeds_ada_norm", "upcast_attention"]);
        let sample_size = config.count("sample_size", 128)?;
        let in_channels = config.count("in_channels", 4)?;
        let heads = config.count("num_attention_heads", 16)?;
        let head_dim = config.count("attention_head_dim", 72)?;
        if !(heads * head_dim).is_multiple_of(4) {
            return Err(config.wrong(
                "attention_head_dim",
                "times `num_attention_heads` it must be divisible by 4, for the positions",
            ));
        }
        // diffusers: an `out_channels` of null means `in_channels`, an absent one means 8.
        let out_channels =
            if config.has("out_channels") { config.opt_usize("out_channels")?.unwrap_or(in_channels) } else { 8 };
        let this = Self {
            num_attention_heads: heads,
            attention_head_dim: head_dim,
            in_channels,
            out_channels,
            num_layers: config.usize("num_layers", 28)?,
            cross_attention_dim: if config.has("cross_attention_dim") {
                config.opt_usize("cross_attention_dim")?
            } else {
                Some(1152)
            },
            attention_bias: config.bool("attention_bias", true)?,
            sample_size,
            patch_size: config.count("patch_size", 2)?,
            activation_fn: config.str("activation_fn", "gelu-approximate")?.to_owned(),
            norm_elementwise_affine: config.bool("norm_elementwise_affine", false)?,
            norm_eps: config.f64("norm_eps", 1e-6)?,
            interpolation_scale: config
                .opt_f64("interpolation_scale")?
                .map_or((sample_size / 64).max(1) as f32, |scale| scale as f32),
            use_additional_conditions: config.opt_bool("use_additional_conditions")?.unwrap_or(sample_size == 128),
            caption_channels: config.opt_usize("caption_channels")?,
            file: config.file().to_owned(),
        };
        if this.use_additional_conditions && !this.dim().is_multiple_of(3) {
            return Err(
                config.wrong("use_additional_conditions", "it needs a width (heads times head size) divisible by 3")
            );
        }
        config.finish("PixArtTransformer2DModel");
        Ok(this)
    }

    /// The width of the transformer.
    pub fn dim(&self) -> usize {
        self.num_attention_heads * self.attention_head_dim
    }

    /// The width that text embeddings must have.
    pub fn text_dim(&self) -> usize {
        self.caption_channels.or(self.cross_attention_dim).unwrap_or(self.dim())
    }
}

/// `PixArtTransformer2DModel`: predicts what its scheduler expects (velocity, for ours).
pub struct PixArt {
    patch: Conv2d,
    time: TimestepEmbedding,
    /// Picture size and aspect ratio, where `use_additional_conditions`.
    size: Option<[TimestepEmbedding; 2]>,
    adaln: Linear,
    caption: Option<[Linear; 2]>,
    blocks: Vec<Block>,
    norm_out: LayerNorm,
    /// `[1, 2, D]`: shift, scale.
    scale_shift_table: Tensor<3>,
    proj_out: Linear,
    config: PixArtConfig,
}

struct Block {
    norm1: LayerNorm,
    attn1: Attention,
    attn2: Option<Attention>,
    norm2: LayerNorm,
    ff: FeedForward,
    /// `[1, 6, D]`: shift, scale and gate of attention, then of the perceptron.
    scale_shift_table: Tensor<3>,
}

impl PixArt {
    /// # Errors
    /// `BadModel` where a tensor is missing or has another shape than the config says.
    pub fn load(params: &Params, config: PixArtConfig) -> Result<Self> {
        let d = config.dim();
        let adaln = params.at("adaln_single");
        let size = config.use_additional_conditions.then(|| {
            Ok([
                TimestepEmbedding::load(&adaln.at("emb.resolution_embedder"), TIME_FEATURES, d / 3)?,
                TimestepEmbedding::load(&adaln.at("emb.aspect_ratio_embedder"), TIME_FEATURES, d / 3)?,
            ])
        });
        let caption = config.caption_channels.map(|channels| {
            let caption = params.at("caption_projection");
            Ok([Linear::load(&caption.at("linear_1"), channels, d)?, Linear::load(&caption.at("linear_2"), d, d)?])
        });
        let blocks =
            (0..config.num_layers).map(|i| Block::load(&params.at(&format!("transformer_blocks.{i}")), &config));
        let p = config.patch_size;
        Ok(Self {
            patch: Conv2d::load_with(&params.at("pos_embed.proj"), config.in_channels, d, p, p, [0, 0], true)?,
            time: TimestepEmbedding::load(&adaln.at("emb.timestep_embedder"), TIME_FEATURES, d)?,
            size: size.transpose()?,
            adaln: Linear::load(&adaln.at("linear"), d, 6 * d)?,
            caption: caption.transpose()?,
            blocks: blocks.collect::<Result<_>>()?,
            norm_out: LayerNorm::plain(params, d, NORM_OUT_EPS),
            scale_shift_table: params.tensor("scale_shift_table", [2, d])?.unsqueeze(),
            proj_out: Linear::load(&params.at("proj_out"), d, p * p * config.out_channels)?,
            config,
        })
    }

    pub fn config(&self) -> &PixArtConfig {
        &self.config
    }

    /// One prediction: `x_t` `[N, in_channels, H, W]` at `timesteps` `[N]` (sigma times 1000) under `text`
    /// gives `[N, out_channels, H, W]`. `picture` is (height, width) in pixels, used by models with
    /// `use_additional_conditions`.
    ///
    /// # Errors
    /// `BadInput` where `H` or `W` is not a multiple of the patch; `BadModel` where the text embedding has
    /// another width than the transformer.
    pub fn forward(
        &self,
        x_t: Latent,
        timesteps: &[f32],
        text: &TextEmbedding,
        picture: (usize, usize),
    ) -> Result<Latent> {
        let [n, _, height, width] = x_t.dims();
        let p = self.config.patch_size;
        if !height.is_multiple_of(p) || !width.is_multiple_of(p) {
            return Err(Error::bad_input(format!(
                "the latent is {width} x {height}; the transformer needs multiples of {p}"
            )));
        }
        let [_, _, text_dim] = text.hidden.dims();
        if text_dim != self.config.text_dim() {
            return Err(Error::bad_model(format!(
                "the text encoder gives vectors of {text_dim}, but {} expects {}",
                self.config.file,
                self.config.text_dim()
            )));
        }
        let device = x_t.device();
        let (d, h, w) = (self.config.dim(), height / p, width / p);

        // [N, C, H, W] -> [N, D, h, w] -> [N, h * w, D]
        let x: Tensor<3> = self.patch.forward(x_t).reshape([n, d, h * w]).swap_dims(1, 2);
        let base_size = self.config.sample_size / p;
        let mut x = x + sincos_2d(d, h, w, base_size, self.config.interpolation_scale, &device);

        let mut time = self.time.forward(timestep_embedding(timesteps, TIME_FEATURES, &device));
        if let Some([resolution, aspect_ratio]) = &self.size {
            let (ph, pw) = (picture.0 as f32, picture.1 as f32);
            let resolution = resolution.forward(timestep_embedding(&[ph, pw], TIME_FEATURES, &device));
            let aspect_ratio = aspect_ratio.forward(timestep_embedding(&[ph / pw], TIME_FEATURES, &device));
            // [2, D / 3] -> [1, 2 D / 3], then the ratio's third; the same for every picture of the batch.
            time = time + Tensor::cat(vec![resolution.reshape([1, 2 * (d / 3)]), aspect_ratio], 1);
        }
        let modulation: Tensor<3> = self.adaln.forward(Activation::Silu.forward(time.clone())).reshape([n, 6, d]);

        let mut context = text.hidden.clone();
        if let Some([linear_1, linear_2]) = &self.caption {
            context = linear_2.forward(Activation::GeluTanh.forward(linear_1.forward(context)));
        }
        let bias = text.attention_mask.clone().map(|mask| mask_to_bias(mask, -10000.0));

        for block in &self.blocks {
            x = block.forward(x, &context, bias.as_ref(), &modulation);
        }

        let table = self.scale_shift_table.clone() + time.reshape([n, 1, d]);
        let (shift, scale) = (table.clone().narrow(1, 0, 1), table.narrow(1, 1, 1));
        let x = self.proj_out.forward(modulate(self.norm_out.forward(x), shift, scale));
        // [N, h * w, p * p * C] -> [N, h, w, p, p, C] -> [N, C, h, p, w, p] -> [N, C, H, W]
        let c = self.config.out_channels;
        Ok(x.reshape([n, h, w, p, p, c]).permute([0, 5, 1, 3, 2, 4]).reshape([n, c, height, width]))
    }
}

impl Block {
    fn load(params: &Params, config: &PixArtConfig) -> Result<Self> {
        let d = config.dim();
        let (heads, head_dim, bias) = (config.num_attention_heads, config.attention_head_dim, config.attention_bias);
        let norm = |name: &str| match config.norm_elementwise_affine {
            true => LayerNorm::load(&params.at(name), d, config.norm_eps),
            false => Ok(LayerNorm::plain(params, d, config.norm_eps)),
        };
        let cross =
            config.cross_attention_dim.map(|dim| Attention::load(&params.at("attn2"), d, dim, heads, head_dim, bias));
        Ok(Self {
            norm1: norm("norm1")?,
            attn1: Attention::load(&params.at("attn1"), d, d, heads, head_dim, bias)?,
            attn2: cross.transpose()?,
            norm2: norm("norm2")?,
            ff: FeedForward::load(&params.at("ff"), d, &config.activation_fn, &config.file)?,
            scale_shift_table: params.tensor("scale_shift_table", [6, d])?.unsqueeze(),
        })
    }

    /// `x` `[N, T, D]`, `context` `[N, Tk, cross_attention_dim]`, `bias` `[N, 1, 1, Tk]`, `modulation` `[N, 6, D]`.
    fn forward(
        &self,
        x: Tensor<3>,
        context: &Tensor<3>,
        bias: Option<&Tensor<4>>,
        modulation: &Tensor<3>,
    ) -> Tensor<3> {
        let table = self.scale_shift_table.clone() + modulation.clone();
        // [N, 6, D] -> [N, 1, D]
        let part = |i| table.clone().narrow(1, i, 1);
        let h = modulate(self.norm1.forward(x.clone()), part(0), part(1));
        let mut x = x + self.attn1.forward(h.clone(), h, None) * part(2);
        if let Some(attn2) = &self.attn2 {
            // PixArt does not normalise before cross-attention.
            x = x.clone() + attn2.forward(x, context.clone(), bias.cloned());
        }
        let h = modulate(self.norm2.forward(x.clone()), part(3), part(4));
        x + self.ff.forward(h) * part(5)
    }
}

impl Denoiser for PixArt {
    fn predict(&self, x_t: Latent, timesteps: &[f32], condition: &Condition) -> Result<Latent> {
        self.forward(x_t, timesteps, &condition.text, condition.picture)
    }

    fn live_values(&self, n: usize, h: usize, w: usize) -> u64 {
        let tokens = h * w / self.config.patch_size.pow(2);
        (n * tokens * self.config.dim()) as u64 * LIVE_WIDTHS + live_scores(n, self.config.num_attention_heads, tokens)
    }
}
