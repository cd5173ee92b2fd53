//! Text to picture: `InkbloomPipeline`.
//!
//! Its sampling is that of diffusers' `FluxPipeline`: the schedule starts from sigmas
//! `linspace(1, 1/N, N)`, and guidance is classifier-free with a real negative prompt.

use burn::tensor::{Device, Tensor, TensorData, module, ops::AvgPoolOptions};

use crate::{
    Error, Result,
    autoencoder::Autoencoder,
    denoise::{
        Denoising, Guidance,
        dit::pixart::{PixArt, PixArtConfig},
        noise,
        schedule::{Schedule, flow_match_euler::FlowMatchEulerConfig},
    },
    pixels::{self, Alpha},
    prompt::Tokenizer,
    text::bert::{Bert, BertConfig},
    values::{Image, Latent, PixelTensor, TextEmbedding, TokenIds},
    weights::{ModelFiles, ParamShape, Tensors, list_params},
};

/// More steps than this only cost time.
pub const MAX_STEPS: usize = 1000;
/// The longest prompt that is looked at, in bytes; far more than any model reads.
pub const MAX_PROMPT_BYTES: usize = 20_000;
/// The largest side, as a multiple of the largest that the model was trained for.
const MAX_SIDE_FACTOR: usize = 4;

/// A loaded model, ready to draw.
pub struct TextToImage {
    tokenizer: Tokenizer,
    text_encoder: Bert,
    transformer: PixArt,
    schedule: FlowMatchEulerConfig,
    autoencoder: Autoencoder,
    info: Info,
    device: Device,
}

/// The plain values of `model_index.json`.
#[derive(Clone, Debug)]
pub struct Info {
    pub alpha: Alpha,
    pub max_text_tokens: usize,
    pub default_steps: usize,
    pub default_guidance: f32,
    /// (width, height) pairs the model was trained for; the first is the default.
    pub sizes: Vec<[usize; 2]>,
    pub styles: Vec<String>,
}

/// What to draw. `None` means the model's default.
#[derive(Clone, Debug, Default)]
pub struct Request {
    pub prompt: String,
    /// What to steer away from; "" is the unconditional prompt.
    pub negative_prompt: String,
    pub seed: u64,
    /// How many pictures; picture `i` has the seed `seed + i`.
    pub count: Option<usize>,
    pub steps: Option<usize>,
    pub guidance: Option<f32>,
    /// In pixels.
    pub width: Option<usize>,
    pub height: Option<usize>,
    /// Unit noise `[C, height / factor, width / factor]` in place of the seed's, for every picture.
    pub noise: Option<Vec<f32>>,
}

/// A [`Request`] with every default filled in and every value checked.
#[derive(Clone, Debug)]
pub struct Plan {
    pub steps: usize,
    pub guidance: f32,
    pub width: usize,
    pub height: usize,
    pub count: usize,
    /// What is not wrong but worth telling.
    pub warnings: Vec<String>,
}

/// What happens on the way, in this order: `Text` once; then for every picture `Start`, each `Step`, `Decoded`.
pub enum Event<'a> {
    Text {
        tokens: &'a TokenIds,
        embedding: &'a TextEmbedding,
    },
    /// `noise` is unit noise, `x_t` what enters the first step.
    Start {
        image: usize,
        noise: &'a Latent,
        x_t: &'a Latent,
    },
    Step {
        image: usize,
        count: usize,
        step: usize,
        steps: usize,
        x_t: &'a Latent,
        preview: Preview<'a>,
    },
    /// The autoencoder's output, `[1, C, H, W]`, before rounding to bytes.
    Decoded {
        image: usize,
        pixels: &'a PixelTensor,
    },
}

/// A cheap look at what the model would draw if it stopped here; costs nothing until asked for.
pub struct Preview<'a> {
    pipeline: &'a TextToImage,
    x_0: Latent,
}

/// Finished pictures.
#[derive(Clone, Debug)]
pub struct Generated {
    pub images: Vec<Image>,
    pub warnings: Vec<String>,
}

/// Names and shapes of every tensor that the model in `files` takes: `component/key`.
///
/// # Errors
/// `BadModel` for a class or an option that this version does not know.
pub fn required_params(files: &ModelFiles, device: &Device) -> Result<Vec<ParamShape>> {
    list_params(device, |tensors| TextToImage::load(files, tensors))
}

impl TextToImage {
    /// Builds the model that `files` describe from `tensors`, which it takes.
    ///
    /// # Errors
    /// `BadModel` naming file, key and value, or the tensor, for whatever does not fit.
    pub fn load(files: &ModelFiles, tensors: &Tensors) -> Result<Self> {
        let index = files.index()?;
        let class = index.str("_class_name", "")?;
        if class != "InkbloomPipeline" {
            return Err(index.wrong("_class_name", "this version runs InkbloomPipeline"));
        }
        for (component, known) in [
            ("text_encoder", "BertModel"),
            ("transformer", "PixArtTransformer2DModel"),
            ("scheduler", "FlowMatchEulerDiscreteScheduler"),
        ] {
            let class = files.class(component)?;
            if class != known {
                return Err(Error::bad_model(format!(
                    "model_index.json: `{component}` is of the class {class}; this version knows {known}"
                )));
            }
        }
        let autoencoder = Autoencoder::load(&tensors.params("vae/"), files)?;
        let shape = autoencoder.shape();
        let sizes = index.opt_pairs("sizes")?.unwrap_or_default();
        let info = Info {
            alpha: Alpha::read(&index, shape.pixel_channels)?,
            max_text_tokens: index.count("max_text_tokens", 77)?,
            default_steps: index.count("default_steps", 20)?,
            default_guidance: index.f64("default_guidance", 1.0)? as f32,
            sizes,
            styles: index.opt_strs("styles")?.unwrap_or_default().into_iter().map(str::to_owned).collect(),
        };
        let tokenizer = files
            .tokenizers
            .get("tokenizer")
            .ok_or_else(|| Error::bad_model("the model lacks tokenizer/tokenizer.json"))?;
        let transformer =
            PixArt::load(&tensors.params("transformer/"), PixArtConfig::read(&files.config("transformer")?)?)?;
        if transformer.config().in_channels != shape.latent_channels {
            return Err(files
                .config("transformer")?
                .wrong("in_channels", &format!("the autoencoder's latents have {} channels", shape.latent_channels)));
        }
        if ![1, 2].map(|factor| factor * shape.latent_channels).contains(&transformer.config().out_channels) {
            return Err(files.config("transformer")?.wrong(
                "out_channels",
                &format!("it must be {0}, or twice that with a learnt variance", shape.latent_channels),
            ));
        }
        let mut this = Self {
            tokenizer: Tokenizer::from_json(&tokenizer.to_string(), info.max_text_tokens, "tokenizer/tokenizer.json")?,
            text_encoder: Bert::load(
                &tensors.params("text_encoder/"),
                BertConfig::read(&files.config("text_encoder")?)?,
            )?,
            schedule: FlowMatchEulerConfig::read(&files.config("scheduler")?)?,
            transformer,
            autoencoder,
            info,
            device: tensors.device().clone(),
        };
        let step = this.size_step();
        if this.info.sizes.is_empty() {
            // What the transformer's own grid amounts to.
            let side = this.transformer.config().sample_size * this.autoencoder.shape().factor;
            this.info.sizes.push([side, side]);
        }
        if let Some(size) =
            this.info.sizes.iter().find(|size| size.iter().any(|side| *side == 0 || !side.is_multiple_of(step)))
        {
            return Err(index.wrong("sizes", &format!("sides must be multiples of {step}, and {size:?} is not")));
        }
        Ok(this)
    }

    pub fn info(&self) -> &Info {
        &self.info
    }

    /// The shape of starting noise for a picture of this size: `[C, height / factor, width / factor]`.
    pub fn latent_shape(&self, width: usize, height: usize) -> [usize; 3] {
        let shape = self.autoencoder.shape();
        [shape.latent_channels, height / shape.factor, width / shape.factor]
    }

    /// Sides must be multiples of this many pixels.
    fn size_step(&self) -> usize {
        self.autoencoder.shape().factor * self.transformer.config().patch_size
    }

    /// Checks a request and fills in the model's defaults.
    ///
    /// # Errors
    /// `BadInput`: one sentence that says what is wrong and what would be right.
    pub fn plan(&self, request: &Request) -> Result<Plan> {
        if request.prompt.trim().is_empty() {
            return Err(Error::bad_input("the prompt is empty; say what to draw, for example \"a red apple\""));
        }
        for (name, prompt) in [("prompt", &request.prompt), ("negative prompt", &request.negative_prompt)] {
            if prompt.len() > MAX_PROMPT_BYTES {
                return Err(Error::bad_input(format!(
                    "the {name} has {} bytes; at most {MAX_PROMPT_BYTES} are read",
                    prompt.len()
                )));
            }
        }
        let steps = request.steps.unwrap_or(self.info.default_steps);
        if steps == 0 || steps > MAX_STEPS {
            return Err(Error::bad_input(format!(
                "{steps} steps cannot be drawn; give a number from 1 to {MAX_STEPS}"
            )));
        }
        let guidance = request.guidance.unwrap_or(self.info.default_guidance);
        if !guidance.is_finite() || !(0.0..=100.0).contains(&guidance) {
            return Err(Error::bad_input(format!(
                "the guidance {guidance} is out of range; give a number from 0 to 100 (this model's own is {})",
                self.info.default_guidance
            )));
        }
        let count = request.count.unwrap_or(1);
        if count == 0 {
            return Err(Error::bad_input("a count of 0 pictures draws nothing; give at least 1"));
        }
        let [default_width, default_height] = self.info.sizes[0];
        let (width, height) = (request.width.unwrap_or(default_width), request.height.unwrap_or(default_height));
        let step = self.size_step();
        let largest = MAX_SIDE_FACTOR * self.info.sizes.iter().flatten().max().copied().unwrap_or(step);
        for (name, side) in [("width", width), ("height", height)] {
            if side == 0 || !side.is_multiple_of(step) || side > largest {
                return Err(Error::bad_input(format!(
                    "the {name} of {side} pixels cannot be drawn; give a multiple of {step} up to {largest} (this model was trained for {})",
                    self.sizes_in_words()
                )));
            }
        }
        let latent: usize = self.latent_shape(width, height).iter().product();
        if let Some(noise) = &request.noise
            && noise.len() != latent
        {
            return Err(Error::bad_input(format!(
                "the noise has {} values; a picture of {width} x {height} starts from {latent}",
                noise.len()
            )));
        }
        let mut warnings = Vec::new();
        if !self.info.sizes.contains(&[width, height]) {
            warnings.push(format!(
                "this model was trained for {}; a picture of {width} x {height} may look wrong",
                self.sizes_in_words()
            ));
        }
        Ok(Plan { steps, guidance, width, height, count, warnings })
    }

    fn sizes_in_words(&self) -> String {
        self.info.sizes.iter().map(|[w, h]| format!("{w} x {h}")).collect::<Vec<_>>().join(", ")
    }

    /// Draws. `on_event` is awaited at each [`Event`]; its error ends the drawing, which is how to cancel.
    ///
    /// # Errors
    /// `BadInput` from [`plan`](Self::plan); `DeviceLost` or `OutOfMemory` from the device; whatever
    /// `on_event` gives.
    pub async fn generate(
        &self,
        request: &Request,
        mut on_event: impl AsyncFnMut(Event<'_>) -> Result<()>,
    ) -> Result<Generated> {
        let Plan { steps, guidance: scale, width, height, count, mut warnings } = self.plan(request)?;

        let tokens = self.tokenizer.encode(&request.prompt)?;
        warnings.extend(self.truncation_warning("prompt", &tokens));
        let mut prompts = vec![tokens];
        if Guidance::needs_negative(scale) {
            let negative = self.tokenizer.encode(&request.negative_prompt)?;
            warnings.extend(self.truncation_warning("negative prompt", &negative));
            prompts.insert(0, negative);
        }
        let text = self.text_encoder.forward(&prompts)?;
        let positive = prompts.len() - 1;
        let embedding = TextEmbedding {
            hidden: text.hidden.clone().narrow(0, positive, 1),
            attention_mask: text.attention_mask.clone().narrow(0, positive, 1),
        };
        on_event(Event::Text { tokens: &prompts[positive], embedding: &embedding }).await?;

        let guidance = Guidance::new(scale, text);
        let schedule = self.schedule.schedule(steps);
        let [channels, h, w] = self.latent_shape(width, height);
        let mut images = Vec::with_capacity(count);
        for image in 0..count {
            let values = match &request.noise {
                Some(noise) => noise.clone(),
                None => noise::normal(request.seed.wrapping_add(image as u64), 0, channels * h * w),
            };
            let noise = Tensor::from_data(TensorData::new(values, [1, channels, h, w]), &self.device);
            let mut run = Denoising::new(&self.transformer, &guidance, &schedule, noise.clone(), (height, width));
            on_event(Event::Start { image, noise: &noise, x_t: run.x_t() }).await?;
            while let Some(outcome) = run.step()? {
                let preview = Preview { pipeline: self, x_0: outcome.x_0 };
                on_event(Event::Step {
                    image,
                    count,
                    step: outcome.step,
                    steps: schedule.steps(),
                    x_t: &outcome.x_t,
                    preview,
                })
                .await?;
            }
            let pixels = self.autoencoder.decode(run.x_t().clone());
            on_event(Event::Decoded { image, pixels: &pixels }).await?;
            images.push(self.read_image(pixels).await?);
        }
        Ok(Generated { images, warnings })
    }

    fn truncation_warning(&self, name: &str, tokens: &TokenIds) -> Option<String> {
        tokens.truncated_from.map(|total| {
            format!(
                "the {name} has {total} tokens; this model reads the first {}, and the rest was left out",
                self.tokenizer.max_tokens()
            )
        })
    }

    /// `[1, C, H, W]` on the device -> bytes here.
    async fn read_image(&self, pixels: PixelTensor) -> Result<Image> {
        let [_, _, height, width] = pixels.dims();
        pixels::to_image(&read(pixels).await?, width, height, self.info.alpha)
    }
}

impl Preview<'_> {
    /// A picture of half the size, by averaging the latent two by two before decoding: a quarter of the work.
    ///
    /// # Errors
    /// `DeviceLost` or `OutOfMemory` from the device.
    pub async fn image(self) -> Result<Image> {
        let pooled = module::avg_pool2d(self.x_0, AvgPoolOptions::new([2, 2]));
        self.pipeline.read_image(self.pipeline.autoencoder.decode(pooled)).await
    }
}

/// Reads a tensor back without blocking: a blocking read panics in a browser.
///
/// # Errors
/// `DeviceLost` or `OutOfMemory`, as the device reports it.
pub async fn read<const D: usize>(tensor: Tensor<D>) -> Result<Vec<f32>> {
    let data = tensor.into_data_async().await.map_err(Error::device)?;
    data.try_to_vec::<f32>().map_err(Error::device)
}
