//! Janus: a language model writes a picture as tokens, and the decoder of its tokenizer makes pixels of them. There is no text
//! encoder, no network that denoises and no schedule.

use burn::tensor::Tensor;

use super::{
    event::{Event, Preview, Stage},
    family::JANUS,
    memory::{F32_BYTES, MemoryNeeds, MemoryPlan, decoding},
    plan,
    request::{CodesPlan, Generated, Info, Plan, Request, Way},
};
use crate::{
    Error, Result,
    autoencoder::janus_vq::{JanusVq, JanusVqConfig},
    autoregress::{
        CODE_STREAM, Logits,
        janus::{Janus as Transformer, JanusConfig, JanusRun, JanusTokens},
        sample::Sampling,
    },
    denoise::schedule::Schedule,
    noise,
    pixels::{self, Alpha},
    prompt::Tokenizer,
    values::{ImageTokens, TokenIds},
    weights::{ModelFiles, Tensors},
};

/// The component that `config.json` and `model.safetensors` of the folder are.
const MODEL: &str = "model";
/// The component that `generation_config.json` is the config of.
const GENERATION: &str = "generation";
const TOKENIZER: &str = "tokenizer";

/// No prompt has more tokens, with what stands around it.
const MOST_TOKENS: usize = 512;

/// A loaded `JanusForConditionalGeneration`.
pub struct Janus {
    tokenizer: Tokenizer,
    /// Begins a picture.
    boi_token: String,
    tokens: JanusTokens,
    transformer: Transformer,
    vq: JanusVq,
    /// How many values the largest feature map of decoding has for each place.
    map: usize,
    sampling: Sampling,
    pub memory: MemoryPlan,
    pub info: Info,
}

impl Janus {
    /// Builds the model from the configs of [`MODEL`], [`GENERATION`] and [`TOKENIZER`], that one's `tokenizer.json`, and
    /// `tensors`, which it takes.
    ///
    /// # Errors
    /// `BadModel` naming file, key and value, or the tensor, for whatever does not fit.
    pub fn load(files: &ModelFiles, tensors: &Tensors) -> Result<Self> {
        if files.class(MODEL)? != JANUS {
            return Err(files.unknown_class(MODEL, JANUS));
        }
        let (config, settings) = (files.config(MODEL)?, files.config(GENERATION)?);
        let part =
            |key: &str| config.object(key)?.ok_or_else(|| Error::bad_model(format!("config.json lacks `{key}`")));
        let (vq, config) = (JanusVqConfig::read(&part("vq_config")?)?, JanusConfig::read(&config)?);
        let params = tensors.params(&format!("{MODEL}/"));
        let id = |value: Option<usize>, key: &str| {
            value
                .map(|id| id as i64)
                .ok_or_else(|| Error::bad_model(format!("generation_config.json lacks `{key}`, which drawing needs")))
        };
        let more = settings.object("generation_kwargs")?;
        let boi = more.map(|more| more.opt_usize("boi_token_id")).transpose()?.flatten();
        let file = "tokenizer.json";
        let json = files.tokenizers.get(TOKENIZER);
        let json = json.ok_or_else(|| Error::bad_model(format!("the model lacks {file}")))?;
        let room = config.text.max_position_embeddings.saturating_sub(config.side.pow(2)).min(MOST_TOKENS);
        let named = files.configs.get(TOKENIZER).map(|config| &config["boi_token"]);
        let boi_token = named.and_then(|token| token.as_str().or_else(|| token["content"].as_str()));
        let guidance = settings.f64("guidance_scale", 5.0)? as f32;
        Ok(Self {
            tokenizer: Tokenizer::from_json(&json.to_string(), room, files.pad_token(TOKENIZER), file)?,
            boi_token: boi_token.unwrap_or("<begin_of_image>").to_owned(),
            tokens: JanusTokens {
                bos: id(settings.opt_usize("bos_token_id")?, "bos_token_id")?,
                boi: id(boi, "generation_kwargs: boi_token_id")?,
                pad: id(settings.opt_usize("pad_token_id")?, "pad_token_id")?,
            },
            // What transformers' `generate` assumes where it samples and the file says nothing.
            sampling: Sampling {
                temperature: settings.f64("temperature", 1.0)?,
                top_k: settings.usize("top_k", 50)?,
                top_p: settings.f64("top_p", 1.0)?,
            },
            map: vq.map_per_place(),
            memory: MemoryPlan::default(),
            info: Info {
                alpha: Alpha::None,
                max_text_tokens: room,
                // It is told of rows.
                default_steps: config.side,
                default_guidance: guidance,
                sizes: vec![[config.side * vq.factor(); 2]],
                cell: vq.factor(),
                styles: Vec::new(),
                ways: vec![Way::Tokens],
                default_frames: 1,
                frame_ms: 0,
            },
            vq: JanusVq::load(&params.at("model.vqmodel"), &vq)?,
            transformer: Transformer::load(&params, config)?,
        })
    }

    /// What it needs to draw, on top of its weights. Candidates and counts are drawn one after the other.
    pub fn drawing_needs(&self) -> MemoryNeeds {
        let side = self.transformer.config().side;
        let decoding = decoding(self.map, side, side);
        MemoryNeeds {
            denoising: self.transformer.live_values(self.info.max_text_tokens) * F32_BYTES,
            decoding,
            decoding_tile: decoding,
            ..MemoryNeeds::default()
        }
    }

    /// Checks a request and fills in the model's defaults.
    ///
    /// # Errors
    /// `BadInput`: one sentence that says what is wrong and what would be right.
    pub fn plan(&self, request: &Request) -> Result<Plan> {
        let (way, count) = plan::alone(request, &self.info.ways)?;
        if request.noise.is_some() {
            return Err(Error::bad_input("this model draws from no noise but Gumbel's; leave the noise out"));
        }
        let [size, _] = self.info.sizes[0];
        if let Some(side) = [request.width, request.height].into_iter().flatten().find(|side| *side != size) {
            return Err(Error::bad_input(format!(
                "this model draws pictures of {size} x {size}, and no side of {side}; leave the size out"
            )));
        }
        let guidance = plan::guidance(request, self.info.default_guidance)?;
        let codes = self.transformer.config().num_embeddings;
        plan::check_given(request, [codes; 2])?;
        let sampling = plan::sampling(request, self.sampling)?;
        let mut warnings: Vec<String> = self.memory.warning().into_iter().collect();
        plan::unused(request, way, &mut warnings);
        Ok(Plan {
            way,
            codes: Some(CodesPlan { sampling, guidance: vec![guidance], beams: None, side_by_side: 1 }),
            steps: self.info.default_steps,
            guidance,
            guides: None,
            width: size,
            height: size,
            count,
            candidates: None,
            frames: 1,
            frame_ms: self.info.frame_ms,
            turns: false,
            tile: None,
            strength: 1.0,
            schedule: Schedule { steps: Vec::new(), init_noise_sigma: 1.0 },
            warnings,
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
        let sampling = plan.codes.as_ref().map_or(self.sampling, |codes| codes.sampling);
        let prompt = self.read(&request.prompt)?;
        let (count, rows) = (plan.count, self.transformer.config().side);
        let mut generated = Generated { warnings: plan.warnings, ..Generated::default() };
        for image in 0..count {
            let seed = request.seed.wrapping_add(image as u64);
            let mut run = JanusRun::new(&self.transformer, &prompt.ids, self.tokens, plan.guidance.into())?;
            if image == 0 {
                let tokens = std::slice::from_ref(&prompt);
                on_event(Event::Text { tokens, embedding: &run.prompt() }).await?;
            }
            for row in 1..=rows {
                let mut logits = Vec::with_capacity(rows);
                for place in (row - 1) * rows..row * rows {
                    logits.push(self.place(request, sampling, seed, place, &mut run).await?);
                }
                let (tokens, stage) = (run.tokens(), Stage::Detail);
                let preview = Some(self.preview(&tokens, row));
                on_event(Event::Tokens { image, count, stage, row, rows, tokens: &tokens, logits: &logits, preview })
                    .await?;
            }
            let pixels = self.vq.decode(&run.tokens())?;
            on_event(Event::Decoded { image, frame: 0, pixels: &pixels }).await?;
            generated.images.push(pixels::read_image(pixels, Alpha::None).await?);
            generated.seeds.push(seed);
        }
        Ok(generated)
    }

    /// Draws the code of one place, whose draw is its number times two, for there is no second code; gives its guided logits.
    async fn place(
        &self,
        request: &Request,
        sampling: Sampling,
        seed: u64,
        place: usize,
        run: &mut JanusRun<'_>,
    ) -> Result<Logits> {
        let (draw, logits) = (2 * place, run.logits().await?);
        let by = |noise: &[f32]| sampling.draw(&logits, noise) as u32;
        let code = match (request.tokens.get(place), request.gumbel.get(&draw)) {
            (Some([code, _]), _) => *code,
            (None, Some(noise)) => by(noise),
            (None, None) => by(&noise::gumbel(seed, CODE_STREAM + draw as u64, logits.len())),
        };
        run.push(code);
        Ok(Logits { draw, values: logits.iter().map(|logit| *logit as f32).collect() })
    }

    /// The rows that are drawn, and white below them.
    fn preview(&self, tokens: &ImageTokens, row: usize) -> Preview<'_> {
        let [rows, columns] = tokens.grid;
        let drawn = ImageTokens { grid: [row, columns], ..tokens.clone() };
        Preview::new(Alpha::None, move || {
            let above = self.vq.decode(&drawn)?;
            let [n, c, h, w] = above.dims();
            if row == rows {
                return Ok(above);
            }
            let below = Tensor::ones([n, c, h / row * (rows - row), w], &above.device());
            Ok(Tensor::cat(vec![above, below], 2))
        })
    }

    /// The prompt as the tokenizer's own template has it, up to where a picture begins.
    fn read(&self, prompt: &str) -> Result<TokenIds> {
        let tokens = self.tokenizer.encode_whole(&format!("<|User|>: {prompt}\n\n<|Assistant|>:{}", self.boi_token))?;
        // A picture is drawn only behind the token that begins one.
        match tokens.ids.last() {
            Some(last) if *last == self.tokens.boi => Ok(tokens),
            _ => Err(Error::bad_model(format!(
                "tokenizer.json does not read {} as the token {}, which generation_config.json says begins a picture",
                self.boi_token, self.tokens.boi
            ))),
        }
    }
}
