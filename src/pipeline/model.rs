//! A model in memory.

use burn::tensor::Device;
use serde_json::Value;

use super::{
    family::{self, Family, Network},
    memory::{F32_BYTES, MIN_TILE, MemoryNeeds, MemoryPlan, decoding},
    request::Info,
    text::{Encoded, TextStage, released},
};
use crate::{
    Error, Result,
    autoencoder::{Autoencoder, AutoencoderShape},
    denoise::{
        MotionConfig,
        schedule::{self, Host, Scheduler},
    },
    pixels::Alpha,
    score::Scorer,
    weights::{ModelFiles, ParamShape, Tensors, config::Notes, list_params},
};

/// A loaded model, ready to draw.
pub struct Model {
    pub family: &'static dyn Family,
    /// `None` while it is released.
    text: Option<TextStage>,
    pub network: Network,
    scheduler_class: String,
    scheduler_config: Value,
    host: Host,
    /// What of the other configs was passed over.
    notes: Vec<String>,
    pub autoencoder: Autoencoder,
    /// A small decoder of the same latents (TAESD), for previews.
    preview: Option<Autoencoder>,
    scorer: Option<Scorer>,
    /// The share of the noise's variance that the frames of an animation have in common.
    pub shared_noise: f64,
    pub memory: MemoryPlan,
    pub info: Info,
    pub device: Device,
}

/// The optional component that decodes previews.
pub const PREVIEW: &str = "preview_vae";
/// The optional component that chooses among candidates.
pub const SCORER: &str = "scorer";
/// The optional component that makes animations of stills.
pub const MOTION: &str = "motion_adapter";
/// The components that a model draws without, and that a bundle marks as optional.
pub const OPTIONAL: [&str; 3] = [PREVIEW, SCORER, MOTION];
/// How long a frame is shown where the model does not say, in milliseconds: as diffusers' examples of AnimateDiff have it.
const FRAME_MS: usize = 125;
/// How many frames a motion adapter makes where nothing says.
const FRAMES: usize = 16;

/// Names and shapes of every tensor that the model in `files` takes: `component/key`.
///
/// # Errors
/// `BadModel` for a class or an option that this version does not know.
pub fn required_params(files: &ModelFiles, device: &Device) -> Result<Vec<ParamShape>> {
    list_params(device, |tensors| Model::load(files, tensors)).map(|(params, _)| params)
}

/// What the model in `files` needs of a device's memory, read off its configs alone.
///
/// # Errors
/// `BadModel` for a class or an option that this version does not know.
pub fn memory_needs(files: &ModelFiles) -> Result<MemoryNeeds> {
    let (params, model) = list_params(&Device::flex(), |tensors| Model::load(files, tensors))?;
    let bytes = |of_text: bool| {
        // A table that can be computed is left out.
        let kept = params.iter().filter(|param| param.computed.is_none());
        let params = kept.filter(|param| param.name.starts_with("text_encoder") == of_text);
        let bytes = |param: &ParamShape| param.shape.iter().fold(F32_BYTES, |n, side| n.saturating_mul(*side as u64));
        params.map(bytes).fold(0, u64::saturating_add)
    };
    let [width, height] = model.info.sizes[0];
    let [_, h, w] = model.latent_shape(width, height);
    let prompts = if model.guides(model.info.default_guidance, None).is_some() { 2 } else { 1 };
    let frames = if model.family.animates() { model.info.default_frames } else { 1 };
    let map = model.autoencoder.shape().map_per_position;
    Ok(MemoryNeeds {
        text: bytes(true),
        other: bytes(false),
        denoising: model.network.denoiser.live_values(prompts * frames, h, w) * F32_BYTES,
        decoding: decoding(map, h, w),
        decoding_tile: decoding(map, h.min(MIN_TILE), w.min(MIN_TILE)),
    })
}

impl Model {
    /// Builds the model that `files` describe from `tensors`, which it takes.
    ///
    /// # Errors
    /// `BadModel` naming file, key and value, or the tensor, for whatever does not fit.
    pub fn load(files: &ModelFiles, tensors: &Tensors) -> Result<Self> {
        let index = files.index()?;
        let (family, defaults) = family::read(&index)?;
        let own = files.max_tokens("tokenizer");
        let max_text_tokens = family.max_text_tokens(own, defaults.max_text_tokens);
        let max_text_tokens = index.count("max_text_tokens", max_text_tokens)?;
        // This is the order of a bundle's shards, too.
        let autoencoder = Autoencoder::load(tensors, files, "vae")?;
        let shape = autoencoder.shape();
        let preview = files.configs.contains_key(PREVIEW).then(|| load_preview(files, tensors, shape)).transpose()?;
        let mut network = family.network(files, tensors)?;
        let text = TextStage::load(files, tensors, family, max_text_tokens)?;
        let scorer = files.configs.contains_key(SCORER).then(|| Scorer::load(tensors, files, SCORER)).transpose()?;
        // A `UNetMotionModel` holds its own already.
        if files.configs.contains_key(MOTION) && network.denoiser.frames().is_none() {
            add_motion(&mut network, files, tensors)?;
        }
        let latent = shape.latent_channels;
        let repainting = 2 * latent + family.told_mask().channels(shape.factor);
        if ![latent, repainting].contains(&network.in_channels) {
            return Err(files.config(network.component)?.wrong(
                "in_channels",
                &format!(
                    "the autoencoder's latents have {latent} channels, and inpainting takes {repainting}; the network takes {}",
                    network.in_channels
                ),
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
            let [height, width] = network.sample_size.unwrap_or([64; 2]);
            sizes.push([width * shape.factor, height * shape.factor]);
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
            default_frames: index.count("default_frames", defaults.frames.max(FRAMES))?,
            frame_ms: index.count("frame_ms", FRAME_MS)? as u32,
            styles: index.opt_strs("styles")?.unwrap_or_default().into_iter().map(str::to_owned).collect(),
        };
        let shared_noise = index.f64("shared_noise", 0.0)?;
        if !(0.0..=1.0).contains(&shared_noise) {
            return Err(index.wrong("shared_noise", "it must be a share of the variance, from 0 to 1"));
        }
        let scheduler_class = files.class("scheduler")?.to_owned();
        let scheduler_config = files.config("scheduler")?.value();
        let repairs = family.scheduler_repairs(family::pipeline_class(&index)?);
        let host = Host { grid: family.grid(), repairs };
        let of_scheduler = Notes::default();
        // A request may name another, so it is told of, rather than refused.
        if let Err(error) = schedule::from_config(&scheduler_class, &scheduler_config, &host, &of_scheduler) {
            of_scheduler.add(error.message);
        }
        let of_scheduler = of_scheduler.list();
        let notes = files.notes.list().into_iter().filter(|note| !of_scheduler.contains(note)).collect();
        of_scheduler.into_iter().for_each(|note| files.notes.add(note));
        Ok(Self {
            family,
            text: Some(text),
            network,
            scheduler_class,
            scheduler_config,
            host,
            notes,
            autoencoder,
            preview,
            scorer,
            shared_noise,
            memory: MemoryPlan::default(),
            info,
            device: tensors.device().clone(),
        })
    }

    /// Brings back text encoders that the memory plan released.
    ///
    /// # Errors
    /// Those of [`load`](Self::load), for the text encoders alone.
    pub fn restore_text(&mut self, files: &ModelFiles, tensors: &Tensors) -> Result<()> {
        self.text = Some(TextStage::load(files, tensors, self.family, self.info.max_text_tokens)?);
        Ok(())
    }

    /// Adds one of the [`OPTIONAL`] components to a model that was loaded without it.
    ///
    /// # Errors
    /// Those of [`load`](Self::load), for that component alone.
    pub fn add_optional(&mut self, component: &str, files: &ModelFiles, tensors: &Tensors) -> Result<()> {
        match component {
            PREVIEW => self.preview = Some(load_preview(files, tensors, self.autoencoder.shape())?),
            SCORER => self.scorer = Some(Scorer::load(tensors, files, SCORER)?),
            MOTION => add_motion(&mut self.network, files, tensors)?,
            other => return Err(Error::bad_model(format!("`{other}` is no optional component"))),
        }
        Ok(())
    }

    /// Whether that one of the [`OPTIONAL`] components is there.
    pub fn has_optional(&self, component: &str) -> bool {
        match component {
            PREVIEW => self.preview.is_some(),
            SCORER => self.scorer.is_some(),
            MOTION => self.network.denoiser.frames().is_some(),
            _ => false,
        }
    }

    /// # Errors
    /// `BadInput` where the model has no scorer.
    pub fn scorer(&self) -> Result<&Scorer> {
        self.scorer.as_ref().ok_or_else(|| {
            Error::bad_input("this model has no scorer, so nothing chooses among candidates; leave them out")
        })
    }

    /// Whether the text encoders are on the device.
    pub fn has_text(&self) -> bool {
        self.text.is_some()
    }

    /// Reads a prompt, together with the negative one where it `guides`. Where the memory plan says so, each text encoder
    /// goes once it has read them.
    ///
    /// # Errors
    /// `BadInput` where the text encoders are released already, or a tokenizer cannot read the text; `BadModel` where it
    /// is not its encoder's; `DeviceLost` or `OutOfMemory` from the device.
    pub async fn read_text(&mut self, prompt: &str, negative_prompt: &str, guides: bool) -> Result<Encoded> {
        let text = self.text.as_mut().ok_or_else(|| released("text encoder"))?;
        let release = self.memory.release_text.then_some(&self.device);
        let encoded = text.encode(prompt, negative_prompt, guides, release).await;
        if self.memory.release_text {
            self.text = None;
        }
        encoded
    }

    /// What decodes previews, and whether it is the model's own decoder.
    pub fn preview_decoder(&self) -> (&Autoencoder, bool) {
        self.preview.as_ref().map_or((&self.autoencoder, true), |preview| (preview, false))
    }

    /// The shape of starting noise for a picture of this size: `[C, height / factor, width / factor]`.
    pub fn latent_shape(&self, width: usize, height: usize) -> [usize; 3] {
        let shape = self.autoencoder.shape();
        [shape.latent_channels, height / shape.factor, width / shape.factor]
    }

    /// How many patches of the latent the network sees.
    pub fn patches(&self, width: usize, height: usize) -> usize {
        let step = self.size_step();
        (width / step) * (height / step)
    }

    /// Sides must be multiples of this many pixels.
    pub fn size_step(&self) -> usize {
        self.autoencoder.shape().factor * self.network.patch
    }

    /// Whether the network takes mask and masked picture, and nothing less.
    pub fn repaints_only(&self) -> bool {
        self.network.in_channels > self.autoencoder.shape().latent_channels
    }

    /// By how much the negative prompt guides, if at all.
    pub fn guides(&self, guidance: f32, true_guidance: Option<f32>) -> Option<f32> {
        let scale = match self.family.true_guidance() {
            true => true_guidance,
            false => Some(guidance).filter(|_| !self.network.told_guidance),
        };
        scale.filter(|scale| self.family.guides(*scale))
    }

    /// The model's own scheduler, or the one of that name on the same training schedule; and what of the model's configs
    /// was passed over.
    ///
    /// # Errors
    /// `BadInput` for a name that is unknown or does not fit the model; `BadModel` where the model's own config asks for
    /// what this version cannot honour.
    pub fn scheduler(&self, name: Option<&str>) -> Result<(Box<dyn Scheduler>, Vec<String>)> {
        let notes = Notes::default();
        self.notes.iter().for_each(|note| notes.add(note.clone()));
        let (own, config) = (self.scheduler_class.as_str(), &self.scheduler_config);
        let scheduler = match name {
            None => schedule::from_config(own, config, &self.host, &notes),
            Some(name) => schedule::instead(own, name, config, &self.host),
        }?;
        Ok((scheduler, notes.list()))
    }
}

/// Puts the modules of the motion adapter into a network.
fn add_motion(network: &mut Network, files: &ModelFiles, tensors: &Tensors) -> Result<()> {
    if files.class(MOTION)? != "MotionAdapter" {
        return Err(files.unknown_class(MOTION, "MotionAdapter"));
    }
    let config = MotionConfig::read(&files.config(MOTION)?)?;
    network.denoiser.add_motion(&tensors.params("motion_adapter/"), &config)
}

/// The small decoder of the latents of an autoencoder of `shape`.
fn load_preview(files: &ModelFiles, tensors: &Tensors, shape: AutoencoderShape) -> Result<Autoencoder> {
    let preview = Autoencoder::load(tensors, files, PREVIEW)?;
    let AutoencoderShape { pixel_channels, latent_channels, .. } = preview.shape();
    if (latent_channels, pixel_channels) != (shape.latent_channels, shape.pixel_channels) {
        return Err(files.config(PREVIEW)?.wrong(
            "latent_channels",
            &format!(
                "this model's autoencoder makes {} picture channels of {}",
                shape.pixel_channels, shape.latent_channels
            ),
        ));
    }
    Ok(preview)
}
