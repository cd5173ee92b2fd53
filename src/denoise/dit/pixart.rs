//! The Diffusion Transformer of PixArt-alpha and -sigma (diffusers `PixArtTransformer2DModel`;
//! Chen et al., arXiv 2310.00426).

use burn::tensor::{Device, Tensor, TensorData};

use crate::{
    Error, Result,
    denoise::{Condition, Denoiser, Frames, MotionConfig, MotionModule, MotionModules, Prepared},
    layers::{
        Activation, Conv2d, CrossAttention, FeedForward, KeysValues, LIVE_WIDTHS, LayerNorm, Linear, Residual,
        SelfAttention, TimestepEmbedding, live_scores, mask_to_bias, sincos_2d, timestep_embedding,
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
    pub(super) file: String,
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
    /// `[layers, 1, 6, D]`, by block: shift, scale and gate of attention, then of the perceptron. Scales have their 1.
    tables: Tensor<4>,
    norm_out: LayerNorm,
    /// `[1, 2, D]`: shift and scale, which has its 1.
    table_out: Tensor<3>,
    proj_out: Linear,
    config: PixArtConfig,
    motion: Option<Motion>,
}

/// Motion modules between the blocks.
struct Motion {
    /// Each with the number of the block that it follows.
    modules: Vec<(usize, MotionModule)>,
    frames: Frames,
}

pub(super) struct Block {
    norm1: LayerNorm,
    attn1: SelfAttention,
    attn2: Option<CrossAttention>,
    norm2: LayerNorm,
    ff: FeedForward,
}

/// A run: what stays the same from step to step, computed.
pub(super) struct Run<'a> {
    model: &'a PixArt,
    /// `[1, h * w, D]`.
    positions: Tensor<3>,
    /// `[steps * rows, 6, D]`, what time adds to the tables, and `[steps * rows, 2, D]`, the last table with its time.
    modulation: Tensor<3>,
    modulation_out: Tensor<3>,
    /// Of each block's cross-attention.
    keys_values: Vec<Option<KeysValues>>,
    /// How many timesteps a step has: one for all pictures of the batch, or one for each.
    rows: usize,
    /// How many prompts there are.
    prompts: usize,
    /// Height and width in patches.
    grid: [usize; 2],
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
        let (p, device) = (config.patch_size, params.device());
        // In the order in which bundles store them.
        let patch = Conv2d::load_with(&params.at("pos_embed.proj"), config.in_channels, d, p, p, [0, 0], true)?;
        let time = TimestepEmbedding::load(&adaln.at("emb.timestep_embedder"), TIME_FEATURES, d)?;
        let adaln = Linear::load(&adaln.at("linear"), d, 6 * d)?;
        let (blocks, tables): (Vec<_>, Vec<_>) = blocks.collect::<Result<Vec<_>>>()?.into_iter().unzip();
        Ok(Self {
            patch,
            time,
            size: size.transpose()?,
            adaln,
            caption: caption.transpose()?,
            tables: block_tables(tables, device),
            blocks,
            norm_out: LayerNorm::plain(params, d, NORM_OUT_EPS),
            table_out: with_ones(params.tensor::<2>("scale_shift_table", [2, d])?.unsqueeze(), [0.0, 1.0], device),
            proj_out: Linear::load(&params.at("proj_out"), d, p * p * config.out_channels)?,
            config,
            motion: None,
        })
    }

    pub fn config(&self) -> &PixArtConfig {
        &self.config
    }

    /// One prediction: `x_t` `[N * frames, in_channels, H, W]` at as many `timesteps` (sigma times 1000), or one for all,
    /// under `N` texts gives `[N * frames, out_channels, H, W]`. `picture` is (height, width) in pixels, used by models
    /// with `use_additional_conditions`.
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
        let [_, _, height, width] = x_t.dims();
        Ok(self.run(timesteps, timesteps.len(), text, picture, [height, width])?.predict(x_t, 0))
    }

    /// Prepares steps of `rows` timesteps each for latents of height and width `latent`.
    pub(super) fn run(
        &self,
        timesteps: &[f32],
        rows: usize,
        text: &TextEmbedding,
        picture: (usize, usize),
        [height, width]: [usize; 2],
    ) -> Result<Run<'_>> {
        let p = self.config.patch_size;
        if !height.is_multiple_of(p) || !width.is_multiple_of(p) {
            return Err(Error::bad_input(format!(
                "the latent is {width} x {height}; the transformer needs multiples of {p}"
            )));
        }
        let [prompts, _, text_dim] = text.hidden.dims();
        if text_dim != self.config.text_dim() {
            return Err(Error::bad_model(format!(
                "the text encoder gives vectors of {text_dim}, but {} expects {}",
                self.config.file,
                self.config.text_dim()
            )));
        }
        let device = text.hidden.device();
        let (d, h, w) = (self.config.dim(), height / p, width / p);
        let features = |values: &[f32]| timestep_embedding(values, TIME_FEATURES, &device);

        // [steps * rows, D]
        let mut time = self.time.forward(features(timesteps));
        if let Some([resolution, aspect_ratio]) = &self.size {
            let (ph, pw) = (picture.0 as f32, picture.1 as f32);
            let resolution = resolution.forward(features(&[ph, pw]));
            let aspect_ratio = aspect_ratio.forward(features(&[ph / pw]));
            // [2, D / 3] -> [1, 2 D / 3], then the ratio's third; the same for every picture of the batch.
            time = time + Tensor::cat(vec![resolution.reshape([1, 2 * (d / 3)]), aspect_ratio], 1);
        }
        let modulation = self.adaln.forward(Activation::Silu.forward(time.clone()));

        let mut context = text.hidden.clone();
        if let Some([linear_1, linear_2]) = &self.caption {
            context = linear_2.forward(linear_1.forward_then(context, Some(Activation::GeluTanh), None));
        }
        let bias = text.attention_mask.clone().map(|mask| mask_to_bias(mask, -10000.0));
        let prepare = |attention: &CrossAttention| attention.prepare(context.clone(), bias.clone());

        Ok(Run {
            model: self,
            positions: sincos_2d(d, h, w, self.config.sample_size / p, self.config.interpolation_scale, &device),
            modulation: modulation.reshape([timesteps.len(), 6, d]),
            modulation_out: self.table_out.clone() + time.unsqueeze_dim(1),
            keys_values: self.blocks.iter().map(|block| block.attn2.as_ref().map(prepare)).collect(),
            rows,
            prompts,
            grid: [h, w],
        })
    }
}

impl Run<'_> {
    /// `[N * frames, in_channels, H, W]` at a step gives `[N * frames, out_channels, H, W]`.
    fn predict(&self, x_t: Latent, step: usize) -> Latent {
        let frames = x_t.dims()[0] / self.prompts;
        let motion = self.model.motion.as_ref().filter(|_| frames > 1);
        self.predict_with(x_t, step, |i, x| {
            let modules = motion.iter().flat_map(|motion| &motion.modules).filter(|(block, _)| *block == i);
            modules.fold(x, |x, (_, module)| module.forward_tokens(x, frames))
        })
    }

    /// As [`predict`](Self::predict), with something to be done after each block: its number and `[N * frames, T, D]`.
    pub(super) fn predict_with(
        &self,
        x_t: Latent,
        step: usize,
        after: impl Fn(usize, Tensor<3>) -> Tensor<3>,
    ) -> Latent {
        let PixArt { blocks, patch, norm_out, proj_out, tables, config, .. } = self.model;
        let ([n, _, height, width], [h, w]) = (x_t.dims(), self.grid);
        let (d, p, c) = (config.dim(), config.patch_size, config.out_channels);
        let of_step = |table: &Tensor<3>| table.clone().narrow(0, step * self.rows, self.rows);

        // [N, C, H, W] -> [N, D, h, w] -> [N, h * w, D]
        let x: Tensor<3> = patch.forward(x_t).permute([0, 2, 3, 1]).reshape([n, h * w, d]);
        let mut x = x + self.positions.clone();

        let modulated = self.modulate(tables, step);
        for (i, (block, keys_values)) in blocks.iter().zip(&self.keys_values).enumerate() {
            x = after(i, block.forward(x, keys_values.as_ref(), modulated.of(i)));
        }

        let table = of_step(&self.modulation_out);
        let (shift, scale) = (table.clone().narrow(1, 0, 1), table.narrow(1, 1, 1));
        let x = proj_out.forward(norm_out.modulated(x, shift, scale));
        // [N, h * w, p * p * C] -> [N, h, w, p, p, C] -> [N, C, h, p, w, p] -> [N, C, H, W]
        x.reshape([n, h, w, p, p, c]).permute([0, 5, 1, 3, 2, 4]).reshape([n, c, height, width])
    }

    /// What time makes of `tables` `[layers, 1, 6, D]` at a step.
    pub(super) fn modulate(&self, tables: &Tensor<4>, step: usize) -> Modulated {
        Modulated(tables.clone() + self.modulation.clone().narrow(0, step * self.rows, self.rows).unsqueeze())
    }
}

/// The tables of all blocks at a step, `[layers, rows, 6, D]`.
pub(super) struct Modulated(Tensor<4>);

impl Modulated {
    /// A block's shift, scale and gate of attention, then of the perceptron: `[rows, 1, D]` each.
    pub(super) fn of(&self, block: usize) -> [Tensor<3>; 6] {
        let [_, rows, _, d] = self.0.dims();
        std::array::from_fn(|part| self.0.clone().narrow(0, block, 1).narrow(2, part, 1).reshape([rows, 1, d]))
    }
}

/// The `[6, D]` tables of blocks as `[layers, 1, 6, D]`, with the ones of their scales.
pub(super) fn block_tables(tables: Vec<Tensor<2>>, device: &Device) -> Tensor<4> {
    with_ones(Tensor::stack(tables, 0), [0.0, 1.0, 0.0, 0.0, 1.0, 0.0], device).unsqueeze_dim(1)
}

/// Adds `ones` `[P]` to the parts of tables `[L, P, D]`: a scale is 1 and something.
fn with_ones<const P: usize>(tables: Tensor<3>, ones: [f32; P], device: &Device) -> Tensor<3> {
    tables + Tensor::from_data(TensorData::new(ones.to_vec(), [1, P, 1]), device)
}

impl Block {
    /// The block and its `[6, D]` table.
    pub(super) fn load(params: &Params, config: &PixArtConfig) -> Result<(Self, Tensor<2>)> {
        let d = config.dim();
        let (heads, head_dim, bias) = (config.num_attention_heads, config.attention_head_dim, config.attention_bias);
        let norm = |name: &str| match config.norm_elementwise_affine {
            true => LayerNorm::load(&params.at(name), d, config.norm_eps),
            false => Ok(LayerNorm::plain(params, d, config.norm_eps)),
        };
        let cross = config
            .cross_attention_dim
            .map(|dim| CrossAttention::load(&params.at("attn2"), d, dim, heads, head_dim, bias));
        let block = Self {
            norm1: norm("norm1")?,
            attn1: SelfAttention::load(&params.at("attn1"), d, heads, head_dim, bias)?,
            attn2: cross.transpose()?,
            norm2: norm("norm2")?,
            ff: FeedForward::load(&params.at("ff"), d, &config.activation_fn, &config.file)?,
        };
        Ok((block, params.tensor("scale_shift_table", [6, d])?))
    }

    /// `x` `[N, T, D]` under `[N or 1, 1, D]` shift, scale and gate of attention, then of the perceptron.
    pub(super) fn forward(&self, x: Tensor<3>, keys_values: Option<&KeysValues>, table: [Tensor<3>; 6]) -> Tensor<3> {
        let [shift1, scale1, gate1, shift2, scale2, gate2] = table;
        let h = self.norm1.modulated(x.clone(), shift1, scale1);
        let mut x = self.attn1.forward_onto(h, None, Residual::gated(x, gate1));
        if let (Some(attn2), Some(keys_values)) = (&self.attn2, keys_values) {
            // PixArt does not normalise before cross-attention.
            x = attn2.forward_onto(x.clone(), keys_values, Residual::new(x));
        }
        let h = self.norm2.modulated(x.clone(), shift2, scale2);
        self.ff.forward_onto(h, Residual::gated(x, gate2))
    }
}

impl Denoiser for PixArt {
    fn prepare<'a>(&'a self, condition: &Condition, timesteps: &[f32], latent: [usize; 2]) -> Result<Prepared<'a>> {
        let run = self.run(timesteps, 1, &condition.text, condition.picture, latent)?;
        Ok(Box::new(move |x_t, step| Ok(run.predict(x_t, step))))
    }

    fn frames(&self) -> Option<Frames> {
        self.motion.as_ref().map(|motion| motion.frames)
    }

    /// The modules, down, middle and up, are spread evenly: of `M` modules over `L` blocks, number `k`, from 0, follows
    /// block `L (k + 1) / M - 1`.
    fn add_motion(&mut self, params: &Params, config: &MotionConfig) -> Result<()> {
        let (d, blocks) = (self.config.dim(), self.blocks.len());
        if let Some(width) = config.block_out_channels.iter().find(|width| **width != d) {
            return Err(Error::bad_model(format!(
                "{}: these motion modules are {width} wide, but the transformer {d}; take the adapter that was made for it",
                config.file
            )));
        }
        let MotionModules { down, mid, up } = MotionModules::load(params, config)?;
        let modules: Vec<_> = down.into_iter().chain([mid]).chain(up).flatten().collect();
        let count = modules.len();
        if count > blocks {
            return Err(Error::bad_model(format!(
                "{}: {count} motion modules do not fit between {blocks} transformer blocks; at most one follows each",
                config.file
            )));
        }
        let placed = modules.into_iter().enumerate().map(|(k, module)| (blocks * (k + 1) / count - 1, module));
        self.motion = Some(Motion { modules: placed.collect(), frames: config.frames });
        Ok(())
    }

    fn live_values(&self, n: usize, h: usize, w: usize) -> u64 {
        let tokens = h * w / self.config.patch_size.pow(2);
        (n * tokens * self.config.dim()) as u64 * LIVE_WIDTHS + live_scores(n, self.config.num_attention_heads, tokens)
    }
}
