//! Janus: a picture that a language model draws as tokens, from a folder as transformers publishes it. It has no text encoder, no
//! network that denoises and no schedule, so it stands beside [`Pipeline`](super::Pipeline).

use burn::tensor::Device;

use super::request::{Generated, Request};
use crate::{
    Error, Result,
    autoencoder::janus_vq::{JanusVq, JanusVqConfig},
    autoregress::{
        CODE_STREAM, Logits,
        janus::{Janus as Transformer, JanusConfig, JanusRun, JanusTokens},
        sample::Sampling,
    },
    noise,
    pixels::{self, Alpha},
    prompt::Tokenizer,
    values::{ImageTokens, PixelTensor},
    weights::{ModelFiles, ParamShape, Tensors, list_params},
};

/// The component that `config.json` and `model.safetensors` of the folder are.
pub const MODEL: &str = "model";
/// The component that `generation_config.json` is the config of.
pub const GENERATION: &str = "generation";
/// What the folder's tokenizer is called.
pub const TOKENIZER: &str = "tokenizer";

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
    sampling: Sampling,
    guidance: f64,
    /// Pixels of a picture, a side.
    size: usize,
}

/// What happens on the way, in this order: `Text` once; then for every picture each row of `Tokens`, and `Decoded`.
pub enum JanusEvent<'a> {
    /// The prompt as the language model reads it.
    Text {
        ids: &'a [i64],
    },
    Tokens {
        image: usize,
        count: usize,
        /// Rows that are drawn, from 1, and in all.
        row: usize,
        rows: usize,
        tokens: &'a ImageTokens,
        /// Guided logits of each place of the row; a draw is place times two.
        logits: &'a [Logits],
    },
    Decoded {
        image: usize,
        pixels: &'a PixelTensor,
    },
}

impl Janus {
    /// Names and shapes of every tensor that the model in `files` takes: `model/key`.
    ///
    /// # Errors
    /// `BadModel` for an option that this version does not know.
    pub fn required_params(files: &ModelFiles, device: &Device) -> Result<Vec<ParamShape>> {
        list_params(device, |tensors| Self::load(files, tensors)).map(|(params, _)| params)
    }

    /// Builds the model from the configs of [`MODEL`], [`GENERATION`] and [`TOKENIZER`], that one's `tokenizer.json`, and
    /// `tensors`, which it takes.
    ///
    /// # Errors
    /// `BadModel` naming file, key and value, or the tensor, for whatever does not fit.
    pub fn load(files: &ModelFiles, tensors: &Tensors) -> Result<Self> {
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
            guidance: settings.f64("guidance_scale", 5.0)?,
            size: config.side * vq.factor(),
            vq: JanusVq::load(&params.at("model.vqmodel"), &vq)?,
            transformer: Transformer::load(&params, config)?,
        })
    }

    /// Pixels of a picture, a side: there is no other size.
    pub fn size(&self) -> usize {
        self.size
    }

    /// Draws. `on_event` is awaited at each [`JanusEvent`]; its error ends the drawing, which is how to cancel.
    ///
    /// # Errors
    /// `BadInput` for what this model cannot do; `DeviceLost` or `OutOfMemory` from the device; whatever `on_event` gives.
    pub async fn generate(
        &self,
        request: &Request,
        mut on_event: impl AsyncFnMut(JanusEvent<'_>) -> Result<()>,
    ) -> Result<Generated> {
        let (sampling, guidance) = self.plan(request)?;
        let ids = self.ids(&request.prompt)?;
        on_event(JanusEvent::Text { ids: &ids }).await?;
        let (count, rows) = (request.count.unwrap_or(1), self.transformer.config().side);
        let mut generated = Generated::default();
        for image in 0..count {
            let seed = request.seed.wrapping_add(image as u64);
            let mut run = JanusRun::new(&self.transformer, &ids, self.tokens, guidance)?;
            for row in 1..=rows {
                let mut noted = Vec::with_capacity(rows);
                for place in (row - 1) * rows..row * rows {
                    let (draw, logits) = (2 * place, run.logits().await?);
                    let code = match (request.tokens.get(place), request.gumbel.get(&draw)) {
                        (Some([code, _]), _) => *code,
                        (None, Some(noise)) => sampling.draw(&logits, noise) as u32,
                        (None, None) => {
                            let noise = noise::gumbel(seed, CODE_STREAM + draw as u64, logits.len());
                            sampling.draw(&logits, &noise) as u32
                        }
                    };
                    run.push(code);
                    noted.push(Logits { draw, values: logits.iter().map(|logit| *logit as f32).collect() });
                }
                let tokens = run.tokens();
                on_event(JanusEvent::Tokens { image, count, row, rows, tokens: &tokens, logits: &noted }).await?;
            }
            let pixels = self.vq.decode(&run.tokens())?;
            on_event(JanusEvent::Decoded { image, pixels: &pixels }).await?;
            generated.images.push(pixels::read_image(pixels, Alpha::None).await?);
            generated.seeds.push(seed);
        }
        Ok(generated)
    }

    /// How codes are drawn, and by how much they are guided.
    fn plan(&self, request: &Request) -> Result<(Sampling, f64)> {
        let refused = [
            (request.init.is_some(), "starts from no picture; leave the picture out"),
            (!request.negative_prompt.is_empty(), "takes no negative prompt; leave it out"),
            (request.candidates.is_some(), "has no scorer, so nothing chooses among candidates; leave them out"),
            (request.steps.is_some(), "draws a token after the other and has no steps; leave them out"),
            (request.count == Some(0), "draws at least 1 picture; raise the count"),
        ];
        if let Some((_, why)) = refused.iter().find(|(asked, _)| *asked) {
            return Err(Error::bad_input(format!("this model {why}")));
        }
        if let Some(side) = [request.width, request.height].into_iter().flatten().find(|side| *side != self.size) {
            return Err(Error::bad_input(format!(
                "this model draws pictures of {0} x {0}, and no side of {side}; leave the size out",
                self.size
            )));
        }
        let codes = self.transformer.config().num_embeddings;
        if let Some([code, _]) = request.tokens.iter().find(|[code, _]| *code as usize >= codes) {
            return Err(Error::bad_input(format!("the token {code} is none of this model's, which has {codes}")));
        }
        if let Some((draw, noise)) = request.gumbel.iter().find(|(_, noise)| noise.len() != codes) {
            return Err(Error::bad_input(format!("`gumbel.{draw}` has {} numbers; it must have {codes}", noise.len())));
        }
        let sampling = Sampling {
            temperature: request.temperature.unwrap_or(self.sampling.temperature),
            top_k: request.top_k.unwrap_or(self.sampling.top_k),
            top_p: request.top_p.unwrap_or(self.sampling.top_p),
        };
        let guidance = request.guidance.map_or(self.guidance, f64::from);
        if !(sampling.temperature.is_finite() && sampling.temperature >= 0.0) {
            return Err(Error::bad_input("the temperature must be a number of at least 0"));
        }
        if !(sampling.top_p > 0.0 && sampling.top_p <= 1.0) {
            return Err(Error::bad_input("top-p must be above 0 and at most 1"));
        }
        if !guidance.is_finite() {
            return Err(Error::bad_input("the guidance must be a number"));
        }
        Ok((sampling, guidance))
    }

    /// The prompt as the tokenizer's own template has it, up to where a picture begins.
    fn ids(&self, prompt: &str) -> Result<Vec<i64>> {
        let tokens = self.tokenizer.encode(&format!("<|User|>: {prompt}\n\n<|Assistant|>:{}", self.boi_token))?;
        if let Some(total) = tokens.truncated_from {
            return Err(Error::bad_input(format!(
                "the prompt has {total} tokens, and this model reads {}; shorten it",
                self.tokenizer.max_tokens()
            )));
        }
        let ids: Vec<i64> =
            tokens.ids.iter().zip(&tokens.attention_mask).filter(|(_, kept)| **kept == 1).map(|(id, _)| *id).collect();
        // A picture is drawn only behind the token that begins one.
        match ids.last() {
            Some(last) if *last == self.tokens.boi => Ok(ids),
            _ => Err(Error::bad_model(format!(
                "tokenizer.json does not read {} as the token {}, which generation_config.json says begins a picture",
                self.boi_token, self.tokens.boi
            ))),
        }
    }
}
