//! GLM-Image: a language model writes a small grid of codes and then a large one, and a transformer draws the picture to the
//! large one and to what is quoted in the prompt (diffusers `GlmImagePipeline`, from text).

use burn::tensor::{Tensor, TensorData, module, ops::AvgPoolOptions};

use super::{
    event::{Event, Preview, Stage},
    memory::{F32_BYTES, MIN_TILE, MemoryNeeds, MemoryPlan, decoding},
    plan,
    request::{CodesPlan, Generated, Info, Plan, Request, Way},
};
use crate::{
    Error, Result,
    autoencoder::Autoencoder,
    autoregress::{
        CODE_STREAM, Logits,
        glm_image::{GlmImage as Language, GlmImageConfig as LanguageConfig, GlmImageRun},
        sample::Sampling,
    },
    denoise::{
        Condition, Denoiser, Denoising, FreshNoise, Guidance,
        dit::glm_image::{GlmImage as Transformer, GlmImageConfig},
        schedule::{self, Grid, Host, Run, Scheduler},
    },
    noise,
    pixels::{self, Alpha},
    prompt::{Tokenizer, glyphs},
    text::TextEncoder,
    values::{ImageTokens, Latent, TextEmbedding, TokenIds},
    weights::{ModelFiles, Tensors},
};

const LANGUAGE: &str = "vision_language_encoder";
/// The component that the language model's `generation_config.json` is the config of.
const GENERATION: &str = "vision_language_generation";
const PROCESSOR: &str = "processor";
const TRANSFORMER: &str = "transformer";
const GLYPHS: &str = "text_encoder";
/// What diffusers' class and transformers' processor have fixed: pixels for each code of the large grid, a side.
const PIXELS: usize = 32;
/// The root of how many places a small grid has, about.
const SMALL_SIDE: f64 = 16.0;
/// Codes are told to so many patches, a side.
const PATCHES: usize = 2;
const STEPS: usize = 50;
const GUIDANCE: f64 = 1.5;
const MOST_TOKENS: usize = 2048;
const SAMPLE_SIZE: usize = 128;
const LARGEST_SIDE: usize = 4096;

/// A loaded `GlmImagePipeline`.
pub struct GlmImage {
    tokenizer: Tokenizer,
    /// What the chat template puts before the prompt and behind it.
    around: [String; 2],
    /// Stand around the height and width of a grid.
    grid_tokens: [String; 2],
    /// Begins a picture.
    bos_token: String,
    language: Language,
    sampling: Sampling,
    glyphs: TextEncoder,
    transformer: Transformer,
    autoencoder: Autoencoder,
    scheduler: Box<dyn Scheduler>,
    pub memory: MemoryPlan,
    pub info: Info,
}

impl GlmImage {
    /// Builds the model that `files` describe from `tensors`, which it takes.
    ///
    /// # Errors
    /// `BadModel` naming file, key and value, or the tensor, for whatever does not fit.
    pub fn load(files: &ModelFiles, tensors: &Tensors) -> Result<Self> {
        let expected = [
            (LANGUAGE, "GlmImageForConditionalGeneration"),
            (TRANSFORMER, "GlmImageTransformer2DModel"),
            ("tokenizer", "ByT5Tokenizer"),
            ("scheduler", "FlowMatchEulerDiscreteScheduler"),
        ];
        if let Some((component, class)) =
            expected.into_iter().find(|(component, class)| files.class(component).ok() != Some(*class))
        {
            files.class(component)?;
            return Err(files.unknown_class(component, class));
        }
        let config = GlmImageConfig::read(&files.config(TRANSFORMER)?)?;
        let language = LanguageConfig::read(&files.config(LANGUAGE)?)?;
        let autoencoder = Autoencoder::load(tensors, files, "vae")?;
        let shape = autoencoder.shape();
        let channels = [config.in_channels, config.out_channels];
        if channels != [shape.latent_channels; 2] || shape.pixel_channels != 3 {
            let right = format!("this model's autoencoder makes latents of {} channels", shape.latent_channels);
            return Err(files.config(TRANSFORMER)?.wrong("in_channels", &right));
        }
        if PATCHES * config.patch_size * shape.factor != PIXELS {
            let right = format!("two patches a side must be {PIXELS} pixels; a latent position is {}", shape.factor);
            return Err(files.config(TRANSFORMER)?.wrong("patch_size", &right));
        }
        if language.codes > config.prior_vq_quantizer_codebook_size {
            let right = format!("the language model writes {} codes", language.codes);
            return Err(files.config(TRANSFORMER)?.wrong("prior_vq_quantizer_codebook_size", &right));
        }
        let host = Host { grid: Grid::Glm, repairs: &[] };
        let scheduler = files.config("scheduler")?.value();
        let side = files.config(TRANSFORMER)?.count("sample_size", SAMPLE_SIZE)? * shape.factor / PIXELS * PIXELS;
        let sampling = match files.configs.contains_key(GENERATION) {
            true => {
                let settings = files.config(GENERATION)?;
                Sampling {
                    temperature: settings.f64("temperature", 1.0)?,
                    top_k: settings.usize("top_k", 50)?,
                    top_p: settings.f64("top_p", 1.0)?,
                }
            }
            false => Sampling { temperature: 1.0, top_k: 50, top_p: 1.0 },
        };
        let file = "processor/tokenizer.json";
        let json = files.tokenizers.get(PROCESSOR);
        let json = json.ok_or_else(|| Error::bad_model(format!("the model lacks {file}")))?;
        let words = &files.configs.get(PROCESSOR).unwrap_or(&serde_json::Value::Null);
        let word = |key: &str| {
            let token = words[key].as_str().or_else(|| words[key]["content"].as_str());
            let lacks =
                || Error::bad_model(format!("processor/tokenizer_config.json names no `{key}`, which drawing needs"));
            token.map(str::to_owned).ok_or_else(lacks)
        };
        let around = |i: usize| words["around_prompt"][i].as_str().unwrap_or_default().to_owned();
        Ok(Self {
            tokenizer: Tokenizer::from_json(&json.to_string(), MOST_TOKENS, files.pad_token(PROCESSOR), file)?,
            around: [around(0), around(1)],
            grid_tokens: [word("grid_bos_token")?, word("grid_eos_token")?],
            bos_token: word("bos_token")?,
            sampling,
            transformer: Transformer::load(&tensors.params("transformer/"), config)?,
            glyphs: TextEncoder::load(tensors, files, GLYPHS, &["T5EncoderModel"])?,
            language: Language::load(&tensors.params("vision_language_encoder/"), language)?,
            autoencoder,
            scheduler: schedule::from_config("FlowMatchEulerDiscreteScheduler", &scheduler, &host, &files.notes)?,
            memory: MemoryPlan::default(),
            info: Info {
                alpha: Alpha::None,
                max_text_tokens: MOST_TOKENS,
                default_steps: STEPS,
                default_guidance: GUIDANCE as f32,
                sizes: vec![[side.max(PIXELS); 2]],
                cell: shape.factor,
                styles: Vec::new(),
                ways: vec![Way::Hybrid],
                default_frames: 1,
                frame_ms: 0,
            },
        })
    }

    /// What it needs to draw, on top of its weights.
    pub fn drawing_needs(&self) -> MemoryNeeds {
        let [width, height] = self.info.sizes[0];
        let (shape, [small, large]) = (self.autoencoder.shape(), grids(width, height));
        let [h, w] = [height, width].map(|side| side / shape.factor);
        let codes = self.language.live_values(MOST_TOKENS, small[0] * small[1] + large[0] * large[1]);
        MemoryNeeds {
            denoising: self.transformer.live_values(2, h, w).max(codes) * F32_BYTES,
            decoding: decoding(shape.map_per_position, h, w),
            decoding_tile: decoding(shape.map_per_position, h.min(MIN_TILE), w.min(MIN_TILE)),
            ..MemoryNeeds::default()
        }
    }

    /// Checks a request and fills in the model's defaults.
    ///
    /// # Errors
    /// `BadInput`: one sentence that says what is wrong and what would be right.
    pub fn plan(&self, request: &Request) -> Result<Plan> {
        let (way, count) = plan::alone(request, &self.info.ways)?;
        if request.scheduler.is_some() {
            return Err(Error::bad_input("this model draws by its own scheduler alone; leave the scheduler out"));
        }
        let steps = plan::steps(request.steps.unwrap_or(self.info.default_steps))?;
        let guidance = plan::guidance(request, self.info.default_guidance)?;
        let [default, _] = self.info.sizes[0];
        let [width, height] = [request.width, request.height].map(|side| side.unwrap_or(default));
        for (name, side) in [("width", width), ("height", height)] {
            if side == 0 || !side.is_multiple_of(PIXELS) || side > LARGEST_SIDE {
                return Err(Error::bad_input(format!(
                    "the {name} of {side} pixels cannot be drawn; give a multiple of {PIXELS} up to {LARGEST_SIDE}"
                )));
            }
        }
        let [small, _] = grids(width, height);
        if small.contains(&0) {
            return Err(Error::bad_input(format!("a picture of {width} x {height} is too narrow to be laid out")));
        }
        let sampling = plan::sampling(request, self.sampling)?;
        plan::check_given(request, [self.language.config().codes; 2])?;
        let shape = self.autoencoder.shape();
        let [h, w] = [height, width].map(|side| side / shape.factor);
        if request.noise.as_ref().is_some_and(|noise| noise.len() != shape.latent_channels * h * w) {
            return Err(Error::bad_input(format!(
                "the noise must have {} values for a picture of {width} x {height}",
                shape.latent_channels * h * w
            )));
        }
        let patches = PATCHES * PATCHES * (width / PIXELS) * (height / PIXELS);
        let schedule = self.scheduler.schedule(&Run {
            steps,
            begin: 0,
            strength: 1.0,
            patches,
            eta: request.eta,
            churn: request.churn,
        })?;
        Ok(Plan {
            way,
            codes: Some(CodesPlan { sampling, guidance: Vec::new(), beams: None, side_by_side: 1 }),
            steps,
            guidance,
            guides: Some(guidance).filter(|guidance| *guidance > 1.0),
            width,
            height,
            count,
            candidates: None,
            frames: 1,
            frame_ms: self.info.frame_ms,
            turns: false,
            tile: request
                .tile
                .map(|tile| (tile / shape.factor).max(MIN_TILE))
                .or_else(|| self.memory.tile(shape.map_per_position, h, w)),
            strength: 1.0,
            schedule,
            warnings: self.memory.warning().into_iter().collect(),
        })
    }

    /// Draws what `request` asks for.
    ///
    /// # Errors
    /// Those of [`Pipeline::generate`](super::Pipeline::generate).
    pub async fn draw(
        &self,
        request: &Request,
        mut on_event: impl AsyncFnMut(Event<'_>) -> Result<()>,
    ) -> Result<Generated> {
        let plan = self.plan(request)?;
        let grids = grids(plan.width, plan.height);
        let prompt = self.tokenizer.encode_whole(&self.words(&request.prompt, grids))?;
        let written = glyphs(&request.prompt, MOST_TOKENS);
        let mut generated = Generated { warnings: plan.warnings.clone(), ..Generated::default() };
        if written.iter().any(|part| part.truncated_from.is_some()) {
            generated
                .warnings
                .push(format!("of what is quoted, {} bytes are read; the rest was left out", MOST_TOKENS - 1));
        }
        let told = self.told(&written)?;
        on_event(Event::Text { tokens: &[vec![prompt.clone()], written].concat(), embedding: &told }).await?;
        let text = match plan.guides {
            // diffusers steers away from a picture with nothing written in it.
            Some(_) => padded(&self.told(&glyphs("", MOST_TOKENS))?, &told),
            None => told,
        };
        for image in 0..plan.count {
            let seed = request.seed.wrapping_add(image as u64);
            let codes = self.lay_out(request, &plan, [image, plan.count], &prompt, grids, &mut on_event).await?;
            let latent = self.denoise(request, &plan, [image, plan.count], &text, &codes, &mut on_event).await?;
            let pixels = match plan.tile {
                Some(tile) => self.autoencoder.decode_tiled(latent, tile),
                None => self.autoencoder.decode(latent),
            };
            on_event(Event::Decoded { image, frame: 0, pixels: &pixels }).await?;
            generated.images.push(pixels::read_image(pixels, Alpha::None).await?);
            generated.seeds.push(seed);
        }
        Ok(generated)
    }

    /// The codes of the large grid.
    async fn lay_out(
        &self,
        request: &Request,
        plan: &Plan,
        [image, count]: [usize; 2],
        prompt: &TokenIds,
        grids: [[usize; 2]; 2],
        on_event: &mut impl AsyncFnMut(Event<'_>) -> Result<()>,
    ) -> Result<ImageTokens> {
        let sampling = plan.codes.as_ref().map_or(self.sampling, |codes| codes.sampling);
        let seed = request.seed.wrapping_add(image as u64);
        let mut run = GlmImageRun::new(&self.language, &prompt.ids, grids)?;
        let mut place = 0;
        for (grid, [rows, columns]) in grids.into_iter().enumerate() {
            for row in 1..=rows {
                let mut noted = Vec::with_capacity(columns);
                for _ in 0..columns {
                    // There is no second code.
                    let (draw, values) = (2 * place, run.logits().await?);
                    let logits: Vec<f64> = values.iter().map(|logit| f64::from(*logit)).collect();
                    let code = match (request.tokens.get(place), request.gumbel.get(&draw)) {
                        (Some([code, _]), _) => *code,
                        (None, Some(noise)) => sampling.draw(&logits, noise) as u32,
                        (None, None) => {
                            sampling.draw(&logits, &noise::gumbel(seed, CODE_STREAM + draw as u64, logits.len())) as u32
                        }
                    };
                    run.push(code);
                    noted.push(Logits { draw, values });
                    place += 1;
                }
                let (tokens, logits) = (run.tokens(grid), &noted[..]);
                let stage = if grid == 0 { Stage::Layout } else { Stage::Detail };
                on_event(Event::Tokens { image, count, stage, row, rows, tokens: &tokens, logits, preview: None })
                    .await?;
            }
        }
        Ok(run.tokens(1))
    }

    /// From noise to the latent that is decoded, `[1, C, h, w]`.
    async fn denoise(
        &self,
        request: &Request,
        plan: &Plan,
        [image, count]: [usize; 2],
        text: &TextEmbedding,
        codes: &ImageTokens,
        on_event: &mut impl AsyncFnMut(Event<'_>) -> Result<()>,
    ) -> Result<Latent> {
        let (shape, seed) = (self.autoencoder.shape(), request.seed.wrapping_add(image as u64));
        let (c, [h, w]) = (shape.latent_channels, [plan.height, plan.width].map(|side| side / shape.factor));
        let timesteps: Vec<f32> = plan.schedule.steps.iter().map(|step| step.timestep).collect();
        let condition = Condition {
            text: text.clone(),
            picture: (plan.height, plan.width),
            guidance: plan.guidance,
            frames: 1,
            skip_layers: Vec::new(),
            tokens: Some(enlarged(codes)),
        };
        let scale = plan.guides.unwrap_or(1.0);
        let guidance = Guidance::new(&self.transformer, &condition, scale, false, None, &timesteps, [h, w])?;
        let noise = request.noise.clone().unwrap_or_else(|| noise::normal(seed, 0, c * h * w));
        let noise: Latent = Tensor::from_data(TensorData::new(noise, [1, c, h, w]), &text.hidden.device());
        let fresh = FreshNoise { seed, given: request.step_noise.clone() };
        let mut run = Denoising::new(&guidance, &plan.schedule, noise.clone(), None, fresh, None);
        on_event(Event::Start { image, noise: &noise, x_t: run.x_t() }).await?;
        while let Some(outcome) = run.step()? {
            let (step, steps) = (outcome.step, plan.schedule.steps.len());
            let preview = Preview::new(Alpha::None, || {
                Ok(self.autoencoder.decode(module::avg_pool2d(outcome.x_0, AvgPoolOptions::new([2, 2]))))
            });
            on_event(Event::Step { image, count, step, steps, x_t: &outcome.x_t, preview }).await?;
        }
        Ok(run.x_t().clone())
    }

    /// The prompt as the processor writes it: in the chat's template, with the large grid's size and the small one's.
    fn words(&self, prompt: &str, [small, large]: [[usize; 2]; 2]) -> String {
        let ([before, after], [begin, end]) = (&self.around, &self.grid_tokens);
        let size = |[h, w]: [usize; 2]| format!("{begin}{h} {w}{end}");
        format!("{before}{prompt}{after}{}{}{}", size(large), size(small), self.bos_token)
    }

    /// What the glyph encoder says of all parts, one behind the other: `[1, T, D]`.
    fn told(&self, parts: &[TokenIds]) -> Result<TextEmbedding> {
        let parts = parts.iter().map(|part| Ok(self.glyphs.forward(std::slice::from_ref(part))?.hidden));
        let hidden = Tensor::cat(parts.collect::<Result<Vec<_>>>()?, 1);
        Ok(TextEmbedding { hidden, attention_mask: None, pooled: None })
    }
}

/// Height and width of the small grid and of the large one, in places.
fn grids(width: usize, height: usize) -> [[usize; 2]; 2] {
    let [h, w] = [height, width].map(|side| side / PIXELS);
    let ratio = h as f64 / w as f64;
    [[(ratio.sqrt() * SMALL_SIDE) as usize, (ratio.recip().sqrt() * SMALL_SIDE) as usize], [h, w]]
}

/// The code of each patch: that of the place which it lies in.
fn enlarged(codes: &ImageTokens) -> Vec<u32> {
    let [rows, columns] = codes.grid;
    let patches = (0..PATCHES * rows).flat_map(|row| (0..PATCHES * columns).map(move |column| (row, column)));
    patches.map(|(row, column)| codes.codes[row / PATCHES * columns + column / PATCHES]).collect()
}

/// Both in one batch, the shorter one filled up.
fn padded(first: &TextEmbedding, second: &TextEmbedding) -> TextEmbedding {
    let rows = [first, second].map(|text| text.hidden.clone());
    let device = rows[0].device();
    let longest = rows.iter().map(|hidden| hidden.dims()[1]).max().unwrap_or(0);
    let (hidden, masks): (Vec<_>, Vec<_>) = rows
        .into_iter()
        .map(|hidden| {
            let [_, t, d] = hidden.dims();
            let mask: Vec<f32> = (0..longest).map(|i| if i < t { 1.0 } else { 0.0 }).collect();
            let mask = Tensor::<2>::from_data(TensorData::new(mask, [1, longest]), &device);
            let hidden = match longest - t {
                0 => hidden,
                more => Tensor::cat(vec![hidden, Tensor::zeros([1, more, d], &device)], 1),
            };
            (hidden, mask)
        })
        .unzip();
    TextEmbedding { hidden: Tensor::cat(hidden, 0), attention_mask: Some(Tensor::cat(masks, 0)), pooled: None }
}
