//! A model in memory.

use burn::tensor::Device;
use serde_json::Value;

use super::{family::Family, memory::MemoryPlan, request::Info, text::TextStage};
use crate::{
    Error, Result,
    autoencoder::Autoencoder,
    denoise::{
        Denoiser,
        dit::pixart::{PixArt, PixArtConfig},
        schedule::{self, Scheduler},
        unet::{UNet, UNetConfig},
    },
    pixels::Alpha,
    weights::{Config, ModelFiles, ParamShape, Tensors, config::config_file, list_params},
};

/// A loaded model, ready to draw.
pub struct Pipeline {
    family: Family,
    /// `None` while it is released.
    pub(super) text: Option<TextStage>,
    pub(super) denoiser: Box<dyn Denoiser>,
    network: Network,
    scheduler_class: String,
    scheduler_config: Value,
    pub(super) autoencoder: Autoencoder,
    /// A small decoder of the same latents (TAESD), for previews.
    pub(super) preview: Option<Autoencoder>,
    pub(super) memory: MemoryPlan,
    info: Info,
    pub(super) device: Device,
}

/// The optional component that decodes previews.
pub const PREVIEW: &str = "preview_vae";

/// What the pipeline must know of a denoiser.
struct Network {
    component: &'static str,
    in_channels: usize,
    out_channels: usize,
    /// Latent sides must be multiples of this.
    patch: usize,
    /// The latent's side in training.
    sample_size: Option<usize>,
    /// It is told the guidance and so never called twice for it.
    told_guidance: bool,
}

/// Names and shapes of every tensor that the model in `files` takes: `component/key`.
///
/// # Errors
/// `BadModel` for a class or an option that this version does not know.
pub fn required_params(files: &ModelFiles, device: &Device) -> Result<Vec<ParamShape>> {
    list_params(device, |tensors| Pipeline::load(files, tensors)).map(|(params, _)| params)
}

impl Pipeline {
    /// Builds the model that `files` describe from `tensors`, which it takes.
    ///
    /// # Errors
    /// `BadModel` naming file, key and value, or the tensor, for whatever does not fit.
    pub fn load(files: &ModelFiles, tensors: &Tensors) -> Result<Self> {
        let index = files.index()?;
        let (family, defaults) = Family::read(&index)?;
        let max_text_tokens = files.max_tokens("tokenizer").map_or(defaults.max_text_tokens, |max| {
            if family == Family::Inkbloom { defaults.max_text_tokens } else { max.min(defaults.max_text_tokens) }
        });
        let max_text_tokens = index.count("max_text_tokens", max_text_tokens)?;
        // This is the order of a bundle's shards, too.
        let autoencoder = Autoencoder::load(tensors, files, "vae")?;
        let preview = files.configs.contains_key(PREVIEW).then(|| Autoencoder::load(tensors, files, PREVIEW));
        let preview = preview.transpose()?;
        let (denoiser, network) = load_denoiser(files, tensors, family)?;
        let text = TextStage::load(files, tensors, family, max_text_tokens)?;
        let shape = autoencoder.shape();
        let latent = shape.latent_channels;
        if let Some(preview) = preview.as_ref().map(Autoencoder::shape)
            && (preview.latent_channels, preview.pixel_channels) != (latent, shape.pixel_channels)
        {
            return Err(files.config(PREVIEW)?.wrong(
                "latent_channels",
                &format!("this model's autoencoder makes {} picture channels of {latent}", shape.pixel_channels),
            ));
        }
        let repaints = network.in_channels == 2 * latent + 1;
        if network.in_channels != latent && !repaints {
            return Err(files.config(network.component)?.wrong(
                "in_channels",
                &format!("the autoencoder's latents have {latent} channels, and inpainting takes {}", 2 * latent + 1),
            ));
        }
        if ![latent, 2 * latent].contains(&network.out_channels) {
            return Err(files
                .config(network.component)?
                .wrong("out_channels", &format!("it must be {latent}, or twice that with a learnt variance")));
        }
        let mut sizes = index.opt_pairs("sizes")?.unwrap_or_default();
        if sizes.is_empty() {
            // What the network's own grid amounts to.
            let side = network.sample_size.unwrap_or(64) * shape.factor;
            sizes.push([side, side]);
        }
        let step = shape.factor * network.patch;
        if let Some(size) = sizes.iter().find(|size| size.iter().any(|side| *side == 0 || !side.is_multiple_of(step))) {
            return Err(index.wrong("sizes", &format!("sides must be multiples of {step}, and {size:?} is not")));
        }
        let info = Info {
            alpha: Alpha::read(&index, shape.pixel_channels)?,
            max_text_tokens,
            default_steps: index.count("default_steps", defaults.steps)?,
            default_guidance: index.f64("default_guidance", defaults.guidance)? as f32,
            sizes,
            styles: index.opt_strs("styles")?.unwrap_or_default().into_iter().map(str::to_owned).collect(),
        };
        let scheduler_class = files.class("scheduler")?.to_owned();
        schedule::from_config(&scheduler_class, &files.config("scheduler")?, family.grid())?;
        Ok(Self {
            family,
            text: Some(text),
            denoiser,
            network,
            scheduler_class,
            scheduler_config: files.configs.get("scheduler").cloned().unwrap_or_default(),
            autoencoder,
            preview,
            memory: MemoryPlan::default(),
            info,
            device: tensors.device().clone(),
        })
    }

    /// The same model, making do with less memory. Its `tensors` were kept as the plan says.
    pub fn with_memory(self, memory: MemoryPlan) -> Self {
        Self { memory, ..self }
    }

    /// Brings back text encoders that the memory plan released.
    ///
    /// # Errors
    /// Those of [`load`](Self::load), for the text encoders alone.
    pub fn restore_text(&mut self, files: &ModelFiles, tensors: &Tensors) -> Result<()> {
        self.text = Some(TextStage::load(files, tensors, self.family, self.info.max_text_tokens)?);
        Ok(())
    }

    /// Whether the text encoders are on the device.
    pub fn has_text(&self) -> bool {
        self.text.is_some()
    }

    pub fn info(&self) -> &Info {
        &self.info
    }

    pub(super) fn family(&self) -> Family {
        self.family
    }

    /// The shape of starting noise for a picture of this size: `[C, height / factor, width / factor]`.
    pub fn latent_shape(&self, width: usize, height: usize) -> [usize; 3] {
        let shape = self.autoencoder.shape();
        [shape.latent_channels, height / shape.factor, width / shape.factor]
    }

    /// How many patches of the latent the network sees.
    pub(super) fn patches(&self, width: usize, height: usize) -> usize {
        let step = self.size_step();
        (width / step) * (height / step)
    }

    /// Sides must be multiples of this many pixels.
    pub(super) fn size_step(&self) -> usize {
        self.autoencoder.shape().factor * self.network.patch
    }

    /// Whether the network takes mask and masked picture, and nothing less.
    pub fn repaints_only(&self) -> bool {
        self.network.in_channels > self.autoencoder.shape().latent_channels
    }

    /// Whether a guidance scale needs the negative prompt at all.
    pub(super) fn guides(&self, scale: f32) -> bool {
        !self.network.told_guidance && self.family.guides(scale)
    }

    /// The model's own scheduler, or the one of that name on the same training schedule.
    ///
    /// # Errors
    /// `BadInput` for a name that is unknown or does not fit the model.
    pub(super) fn scheduler(&self, name: Option<&str>) -> Result<Box<dyn Scheduler>> {
        let config = Config::new(&config_file("scheduler"), &self.scheduler_config)?;
        let (own, grid) = (self.scheduler_class.as_str(), self.family.grid());
        match name {
            None => schedule::from_config(own, &config, grid),
            Some(name) => schedule::instead(own, name, &config, grid),
        }
    }
}

/// The component `transformer` or `unet`, as the class that `model_index.json` names.
fn load_denoiser(files: &ModelFiles, tensors: &Tensors, family: Family) -> Result<(Box<dyn Denoiser>, Network)> {
    let component = match family {
        Family::Inkbloom | Family::PixArt => "transformer",
        Family::StableDiffusion | Family::LatentConsistency | Family::StableDiffusionXl => "unet",
    };
    let params = tensors.params(&format!("{component}/"));
    match (component, files.class(component)?) {
        // The latter is the class's name from before diffusers 0.30.
        ("transformer", "PixArtTransformer2DModel" | "Transformer2DModel") => {
            let config = PixArtConfig::read(&files.config(component)?)?;
            let network = Network {
                component,
                in_channels: config.in_channels,
                out_channels: config.out_channels,
                patch: config.patch_size,
                sample_size: Some(config.sample_size),
                told_guidance: false,
            };
            Ok((Box::new(PixArt::load(&params, config)?), network))
        }
        ("unet", "UNet2DConditionModel") => {
            let config = UNetConfig::read(&files.config(component)?)?;
            if (family == Family::StableDiffusionXl) != config.pooled_dim().is_some() {
                return Err(Error::bad_model(format!(
                    "{}: `addition_embed_type` does not go with the pipeline that model_index.json names",
                    config_file(component)
                )));
            }
            let network = Network {
                component,
                in_channels: config.in_channels,
                out_channels: config.out_channels,
                patch: 1,
                sample_size: config.sample_size,
                told_guidance: config.time_cond_proj_dim.is_some(),
            };
            Ok((Box::new(UNet::load(&params, config)?), network))
        }
        ("transformer", class) => Family::unknown_class(component, class, "PixArtTransformer2DModel"),
        (_, class) => Family::unknown_class(component, class, "UNet2DConditionModel"),
    }
}
