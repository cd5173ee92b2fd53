//! `unet/config.json`.

use crate::{
    Result,
    denoise::{Frames, MotionConfig},
    layers::Activation,
    weights::Config,
};

/// The numbers of `unet/config.json` that change the arithmetic; lists have one value for each block on the way down.
#[derive(Clone, Debug)]
pub struct UNetConfig {
    /// Height and width of the latent that the model was trained for.
    pub sample_size: Option<[usize; 2]>,
    pub in_channels: usize,
    pub out_channels: usize,
    pub center_input_sample: bool,
    pub flip_sin_to_cos: bool,
    pub freq_shift: f32,
    pub(super) down_blocks: Vec<BlockConfig>,
    pub(super) up_blocks: Vec<BlockConfig>,
    pub(super) mid_block: MidBlockKind,
    pub downsample_padding: usize,
    pub mid_block_scale_factor: f64,
    pub act_fn: Activation,
    pub norm_num_groups: usize,
    pub norm_eps: f64,
    pub use_linear_projection: bool,
    pub scale_shift: bool,
    pub time_embedding_dim: usize,
    pub time_cond_proj_dim: Option<usize>,
    pub conv_in_kernel: usize,
    pub conv_out_kernel: usize,
    pub(super) addition: Option<TextTime>,
    pub(super) file: String,
}

/// One block, down or up.
#[derive(Clone, Debug)]
pub(super) struct BlockConfig {
    pub channels: usize,
    /// Residual blocks on the way down; there is one more on the way up.
    pub layers: usize,
    pub attention: Option<AttentionConfig>,
}

/// The transformer after each residual block.
#[derive(Clone, Copy, Debug)]
pub(super) struct AttentionConfig {
    pub heads: usize,
    pub depth: usize,
    pub context_dim: usize,
    /// Self-attention looks at the text, too.
    pub only_cross: bool,
}

#[derive(Clone, Copy, Debug)]
pub(super) enum MidBlockKind {
    None,
    /// One residual block.
    Plain,
    CrossAttention(AttentionConfig),
}

/// SDXL's addition to the time embedding: pooled text and six numbers about the picture's size.
#[derive(Clone, Copy, Debug)]
pub(super) struct TextTime {
    pub time_dim: usize,
    pub input_dim: usize,
}

impl UNetConfig {
    /// # Errors
    /// `BadModel` for a value that is out of range or asks for what this version cannot do.
    pub fn read(config: &Config) -> Result<Self> {
        config.absent("num_attention_heads")?;
        let classes = [["DownBlock2D", "CrossAttnDownBlock2D"], ["UpBlock2D", "CrossAttnUpBlock2D"]];
        let this = Self::read_with(config, "attention_head_dim", classes)?;
        config.finish("UNet2DConditionModel");
        Ok(this)
    }

    /// Of a `UNetMotionModel`, which says its motion modules, too.
    ///
    /// # Errors
    /// As [`read`](Self::read).
    pub fn read_motion(config: &Config) -> Result<(Self, MotionConfig)> {
        for key in ["reverse_temporal_transformer_layers_per_block", "reverse_motion_num_attention_heads"] {
            config.absent(key)?;
        }
        config.absent("transformer_layers_per_mid_block")?;
        config.only("mid_block_layers", 1)?;
        let classes = [["DownBlockMotion", "CrossAttnDownBlockMotion"], ["UpBlockMotion", "CrossAttnUpBlockMotion"]];
        let this = Self::read_with(config, "num_attention_heads", classes)?;
        let n = this.down_blocks.len();
        let mid = config.bool("use_motion_mid_block", true)?;
        let motion = MotionConfig {
            block_out_channels: this.down_blocks.iter().map(|block| block.channels).collect(),
            layers_per_block: this.down_blocks.iter().map(|block| block.layers).collect(),
            transformer_layers: config.count_each("temporal_transformer_layers_per_block", 1, n)?,
            num_attention_heads: config.count_each("motion_num_attention_heads", 8, n)?,
            norm_num_groups: this.norm_num_groups,
            mid_block: config.count_each("temporal_transformer_layers_per_mid_block", 1, 1)?.pop().filter(|_| mid),
            frames: Frames::UpTo(config.count("motion_max_seq_length", 32)?),
            file: config.file().to_owned(),
        };
        motion.check(|key| {
            config.wrong(&format!("motion_{key}"), "it must divide every value of `block_out_channels`")
        })?;
        config.finish("UNetMotionModel");
        Ok((this, motion))
    }

    /// `heads_key` holds the number of heads; `classes` are those of blocks down and up, without attention and with.
    fn read_with(config: &Config, heads_key: &str, classes: [[&str; 2]; 2]) -> Result<Self> {
        for key in ["dual_cross_attention", "class_embeddings_concat", "resnet_skip_time_act"] {
            config.only(key, false)?;
        }
        // An explicit null is the only value these may have.
        for key in ["class_embed_type", "encoder_hid_dim_type", "time_embedding_act_fn"] {
            config.absent(key)?;
        }
        for key in ["timestep_post_act", "cross_attention_norm", "reverse_transformer_layers_per_block"] {
            config.absent(key)?;
        }
        config.only("resnet_out_scale_factor", 1.0)?;
        config.only("time_embedding_type", "positional")?;
        config.only("attention_type", "default")?;
        // Every softmax is computed in f32 already; the rest belongs to options that are refused above, or acts in
        // a block of a class that is.
        config.ignore(&["dropout", "upcast_attention", "num_class_embeds", "encoder_hid_dim"]);
        config.ignore(&["addition_embed_type_num_heads", "mid_block_only_cross_attention"]);

        let channels = config.counts("block_out_channels", &[320, 640, 1280, 1280])?;
        let n = channels.len();
        let groups = config.count("norm_num_groups", 32)?;
        if let Some(width) = channels.iter().find(|width| !width.is_multiple_of(groups)) {
            let right = format!("it must divide every value of `block_out_channels`, and {width} is one");
            return Err(config.wrong("norm_num_groups", &right));
        }
        let heads = config.count_each(heads_key, 8, n)?;
        if let Some((width, heads)) = channels.iter().zip(&heads).find(|(width, heads)| !width.is_multiple_of(**heads))
        {
            let right = format!("it is the number of heads, and {heads} does not divide {width}");
            return Err(config.wrong(heads_key, &right));
        }
        let layers = config.count_each("layers_per_block", 2, n)?;
        let depths = config.count_each("transformer_layers_per_block", 1, n)?;
        let context_dims = config.count_each("cross_attention_dim", 1280, n)?;
        let only_cross = config.bool_each("only_cross_attention", false, n)?;
        let attention = |i: usize| AttentionConfig {
            heads: heads[i],
            depth: depths[i],
            context_dim: context_dims[i],
            only_cross: only_cross[i],
        };
        let block = |i: usize, attends: bool| BlockConfig {
            channels: channels[i],
            layers: layers[i],
            attention: attends.then(|| attention(i)),
        };
        let [of_down, of_up] = classes;
        let down = config.second_of_each("down_block_types", of_down, n, |i| i + 1 < n)?;
        let up = config.second_of_each("up_block_types", of_up, n, |i| i > 0)?;
        // An absent key means cross-attention, an explicit null no block at all.
        let default = if config.has("mid_block_type") { "" } else { "UNetMidBlock2DCrossAttn" };
        let mid_block = match config.str("mid_block_type", default)? {
            "" => MidBlockKind::None,
            "UNetMidBlock2D" => MidBlockKind::Plain,
            // diffusers gives this block ordinary self-attention whatever `only_cross_attention` says.
            "UNetMidBlock2DCrossAttn" => {
                MidBlockKind::CrossAttention(AttentionConfig { only_cross: false, ..attention(n - 1) })
            }
            _ => {
                return Err(
                    config.wrong("mid_block_type", "this version knows UNetMidBlock2DCrossAttn and UNetMidBlock2D")
                );
            }
        };
        let addition = match config.opt_str("addition_embed_type")? {
            None => {
                config.ignore(&["addition_time_embed_dim", "projection_class_embeddings_input_dim"]);
                None
            }
            Some("text_time") => Some(TextTime {
                time_dim: config.count("addition_time_embed_dim", 0)?,
                input_dim: config.count("projection_class_embeddings_input_dim", 0)?,
            }),
            Some(_) => return Err(config.wrong("addition_embed_type", "this version knows text_time")),
        };
        let act_fn = config.str("act_fn", "silu")?;
        Ok(Self {
            sample_size: config.opt_sides("sample_size")?,
            in_channels: config.count("in_channels", 4)?,
            out_channels: config.count("out_channels", 4)?,
            center_input_sample: config.bool("center_input_sample", false)?,
            flip_sin_to_cos: config.bool("flip_sin_to_cos", true)?,
            freq_shift: config.f64("freq_shift", 0.0)? as f32,
            down_blocks: down.into_iter().enumerate().map(|(i, attends)| block(i, attends)).collect(),
            up_blocks: up.into_iter().enumerate().map(|(i, attends)| block(n - 1 - i, attends)).collect(),
            mid_block,
            downsample_padding: config.usize("downsample_padding", 1)?,
            mid_block_scale_factor: config.f64("mid_block_scale_factor", 1.0)?,
            act_fn: Activation::from_name(act_fn)
                .ok_or_else(|| config.wrong("act_fn", &format!("this version knows {}", Activation::NAMES)))?,
            norm_num_groups: groups,
            norm_eps: config.f64("norm_eps", 1e-5)?,
            use_linear_projection: config.bool("use_linear_projection", false)?,
            scale_shift: match config.str("resnet_time_scale_shift", "default")? {
                "default" => false,
                "scale_shift" => true,
                _ => return Err(config.wrong("resnet_time_scale_shift", "this version knows default and scale_shift")),
            },
            time_embedding_dim: config.opt_usize("time_embedding_dim")?.unwrap_or(4 * channels[0]),
            time_cond_proj_dim: config.opt_usize("time_cond_proj_dim")?,
            conv_in_kernel: config.count("conv_in_kernel", 3)?,
            conv_out_kernel: config.count("conv_out_kernel", 3)?,
            addition,
            file: config.file().to_owned(),
        })
    }

    /// The widths of text embedding that the blocks take, all the same in every published model.
    pub fn text_dim(&self) -> Option<usize> {
        let attends = |block: &BlockConfig| block.attention.map(|attention| attention.context_dim);
        self.down_blocks.iter().chain(&self.up_blocks).find_map(attends)
    }

    /// The width of the pooled text, where the model wants one.
    pub fn pooled_dim(&self) -> Option<usize> {
        self.addition.map(|addition| addition.input_dim.saturating_sub(6 * addition.time_dim))
    }
}
