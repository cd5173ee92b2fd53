//! A model in memory.

use burn::tensor::Device;
use serde_json::Value;

use super::{
    family::{self, Family, Network},
    memory::{F32_BYTES, MIN_TILE, MemoryNeeds, MemoryPlan, decoding},
    request::{Info, Way},
    text::{Encoded, TextStage, released},
};
use crate::{
    Error, Result,
    autoencoder::{Autoencoder, AutoencoderShape, codebook::Codebook},
    autoregress::Autoregressive,
    denoise::{
        MotionConfig,
        schedule::{self, Host, Scheduler},
    },
    pixels::Alpha,
    score::Scorer,
    weights::{ModelFiles, Tensors, config::Notes},
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
    codebook: Option<Codebook>,
    autoregressive: Option<Autoregressive>,
    hybrid: Option<Network>,
    /// Steps and guidance of the hybrid where a request says nothing.
    pub hybrid_defaults: (usize, f32),
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
/// The optional component that knows what codes stand for.
pub const CODEBOOK: &str = "codebook";
/// The optional component that writes pictures as codes.
pub const AUTOREGRESSIVE: &str = "autoregressive";
/// The optional component that draws to a layout of codes.
pub const HYBRID: &str = "hybrid";
/// The optional component that makes animations of stills.
pub const MOTION: &str = "motion_adapter";
/// The components that a model draws without, and that a bundle marks as optional.
pub const OPTIONAL: [&str; 6] = [PREVIEW, SCORER, CODEBOOK, AUTOREGRESSIVE, HYBRID, MOTION];
/// How long a frame is shown where the model does not say, in milliseconds: as diffusers' examples of AnimateDiff have it.
const FRAME_MS: usize = 125;
/// How many frames a motion adapter makes where nothing says.
const FRAMES: usize = 16;

impl Way {
    /// The [`OPTIONAL`] components that it needs.
    pub fn components(self) -> &'static [&'static str] {
        match self {
            Self::Diffusion => &[],
            Self::Tokens => &[CODEBOOK, AUTOREGRESSIVE],
            Self::Hybrid => &[CODEBOOK, AUTOREGRESSIVE, HYBRID],
        }
    }
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
        let has = |component: &str| files.configs.contains_key(component);
        let codebook = has(CODEBOOK).then(|| Codebook::load(tensors, files, CODEBOOK)).transpose()?;
        let autoregressive =
            has(AUTOREGRESSIVE).then(|| Autoregressive::load(tensors, files, AUTOREGRESSIVE)).transpose()?;
        let hybrid = has(HYBRID).then(|| family::pixart(files, tensors, HYBRID)).transpose()?;
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
            cell: shape.factor,
            default_frames: index.count("default_frames", defaults.frames.max(FRAMES))?,
            frame_ms: index.count("frame_ms", FRAME_MS)? as u32,
            styles: index.opt_strs("styles")?.unwrap_or_default().into_iter().map(str::to_owned).collect(),
            ways: Vec::new(),
        };
        let hybrid_guidance = index.f64("hybrid_guidance", info.default_guidance.into())? as f32;
        let hybrid_defaults = (index.count("hybrid_steps", info.default_steps)?, hybrid_guidance);
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
        let mut this = Self {
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
            codebook,
            autoregressive,
            hybrid,
            hybrid_defaults,
            shared_noise,
            memory: MemoryPlan::default(),
            info,
            device: tensors.device().clone(),
        };
        this.check_codes(files)?;
        Ok(this)
    }

    /// Whether the components that have to do with codes fit each other and the rest, as far as they are there; and which
    /// ways they make.
    fn check_codes(&mut self, files: &ModelFiles) -> Result<()> {
        let shape = self.autoencoder.shape();
        if let Some(codebook) = &self.codebook
            && codebook.config().latent_channels != shape.latent_channels
        {
            let right = format!("this model's autoencoder makes latents of {} channels", shape.latent_channels);
            return Err(files.config(CODEBOOK)?.wrong("latent_channels", &right));
        }
        if let (Some(codebook), Some(autoregressive)) = (&self.codebook, &self.autoregressive) {
            let (codes, theirs) = (autoregressive.config(), codebook.config());
            if codes.codes != theirs.codes {
                let right = format!("this model's tokenizer has the codes {:?}", theirs.codes);
                return Err(files.config(AUTOREGRESSIVE)?.wrong("codes", &right));
            }
            if codes.grids.iter().any(|grid| !theirs.grids.contains(grid)) {
                let right = format!("this model's tokenizer was made for the grids {:?}", theirs.grids);
                return Err(files.config(AUTOREGRESSIVE)?.wrong("grids", &right));
            }
        }
        if let Some(hybrid) = &self.hybrid
            && [hybrid.in_channels, hybrid.out_channels] != [2 * shape.latent_channels, shape.latent_channels]
        {
            let right = format!("it takes a latent and a layout, of {} channels each", shape.latent_channels);
            return Err(files.config(HYBRID)?.wrong("in_channels", &right));
        }
        if let (Some(hybrid), Some(autoregressive)) = (&self.hybrid, &self.autoregressive) {
            let grid = autoregressive.config().grids[0];
            if hybrid.sample_size.is_some_and(|sides| sides.iter().any(|side| !side.is_multiple_of(grid))) {
                let right = format!("it must be a multiple of the coarse grid's side, {grid}");
                return Err(files.config(HYBRID)?.wrong("sample_size", &right));
            }
        }
        let has = |way: &Way| {
            let whole = *way != Way::Tokens || self.autoregressive.as_ref().is_some_and(|a| a.config().grids.len() > 1);
            whole && way.components().iter().all(|component| self.has_optional(component))
        };
        self.info.ways = Way::ALL.into_iter().filter(has).collect();
        Ok(())
    }

    /// What it needs to draw, on top of its weights.
    pub fn drawing_needs(&self) -> MemoryNeeds {
        let [width, height] = self.info.sizes[0];
        let [_, h, w] = self.latent_shape(width, height);
        let prompts = if self.guides(self.info.default_guidance, None).is_some() { 2 } else { 1 };
        let frames = if self.family.animates() { self.info.default_frames } else { 1 };
        let map = self.autoencoder.shape().map_per_position;
        let codes = self.autoregressive.as_ref().map_or(0, |codes| codes.live_values(1, 2, codes.config().places()));
        MemoryNeeds {
            denoising: self.network.denoiser.live_values(prompts * frames, h, w).max(codes) * F32_BYTES,
            decoding: decoding(map, h, w),
            decoding_tile: decoding(map, h.min(MIN_TILE), w.min(MIN_TILE)),
            ..MemoryNeeds::default()
        }
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
            CODEBOOK => self.codebook = Some(Codebook::load(tensors, files, CODEBOOK)?),
            AUTOREGRESSIVE => self.autoregressive = Some(Autoregressive::load(tensors, files, AUTOREGRESSIVE)?),
            HYBRID => self.hybrid = Some(family::pixart(files, tensors, HYBRID)?),
            MOTION => add_motion(&mut self.network, files, tensors)?,
            other => return Err(Error::bad_model(format!("`{other}` is no optional component"))),
        }
        self.check_codes(files)
    }

    /// Whether that one of the [`OPTIONAL`] components is there.
    pub fn has_optional(&self, component: &str) -> bool {
        match component {
            PREVIEW => self.preview.is_some(),
            SCORER => self.scorer.is_some(),
            CODEBOOK => self.codebook.is_some(),
            AUTOREGRESSIVE => self.autoregressive.is_some(),
            HYBRID => self.hybrid.is_some(),
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

    /// What draws codes, and what knows what they stand for.
    ///
    /// # Errors
    /// `BadInput` where the model has none.
    pub fn codes(&self) -> Result<(&Autoregressive, &Codebook)> {
        self.autoregressive.as_ref().zip(self.codebook.as_ref()).ok_or_else(|| {
            Error::bad_input("this model has no codes to draw; leave the way of drawing out, and it draws by diffusion")
        })
    }

    /// The only size, width and height, that a way of drawing can do; `None` where there are many.
    pub fn only_size(&self, way: Way) -> Option<[usize; 2]> {
        let factor = self.autoencoder.shape().factor;
        let [height, width] = match way {
            Way::Diffusion => return None,
            Way::Tokens => [*self.autoregressive.as_ref()?.config().grids.last()?; 2],
            Way::Hybrid => self.hybrid.as_ref()?.sample_size?,
        };
        Some([width * factor, height * factor])
    }

    /// The network that denoises in a way of drawing.
    ///
    /// # Errors
    /// `BadInput` where the model has none.
    pub fn denoises(&self, way: Way) -> Result<&Network> {
        match way {
            Way::Hybrid => {
                self.hybrid.as_ref().ok_or_else(|| Error::bad_input("this model has no hybrid; leave it out"))
            }
            _ => Ok(&self.network),
        }
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
    network.denoiser.add_motion(&tensors.params("motion_adapter/"), &motion_config(files)?)
}

fn motion_config(files: &ModelFiles) -> Result<MotionConfig> {
    if files.class(MOTION)? != "MotionAdapter" {
        return Err(files.unknown_class(MOTION, "MotionAdapter"));
    }
    MotionConfig::read(&files.config(MOTION)?)
}

/// How many frames suit the model of `files`, whose index says `wanted`: no more than its motion adapter holds.
///
/// # Errors
/// `BadModel` for an adapter that this version cannot run.
pub fn default_frames(files: &ModelFiles, wanted: usize) -> Result<usize> {
    match files.configs.contains_key(MOTION) {
        true => Ok(wanted.min(motion_config(files)?.frames.most())),
        false => Ok(wanted),
    }
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
