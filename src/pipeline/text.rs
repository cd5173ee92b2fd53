//! Prompt to [`TextEmbedding`]: the tokenizers and text encoders of a model, of whichever family.

use burn::tensor::Tensor;

use super::family::Family;
use crate::{
    Error, Result,
    prompt::Tokenizer,
    text::{
        bert::{Bert, BertConfig},
        clip::{ClipText, ClipTextConfig},
        t5::{T5, T5Config},
    },
    values::{TextEmbedding, TokenIds},
    weights::{ModelFiles, Tensors},
};

/// A model's way from prompt to embedding.
pub struct TextStage {
    tokenizers: Vec<Tokenizer>,
    encoder: Encoder,
    family: Family,
    /// SDXL: no negative prompt is all zeros, not the encoding of "".
    zeros_for_no_negative: bool,
}

enum Encoder {
    Bert(Bert),
    T5(T5),
    Clip(ClipText),
    /// The second one gives the pooled text.
    TwoClips(Box<[ClipText; 2]>),
}

/// An encoded request.
pub struct Encoded {
    /// Of the prompt, by each tokenizer.
    pub tokens: Vec<TokenIds>,
    /// `N` = 1, or 2 with the negative prompt first.
    pub embedding: TextEmbedding,
    pub warnings: Vec<String>,
}

impl TextStage {
    /// # Errors
    /// `BadModel` for an unknown class, a missing tokenizer, or tensors that do not fit.
    pub fn load(files: &ModelFiles, tensors: &Tensors, family: Family, max_tokens: usize) -> Result<Self> {
        let index = files.index()?;
        let components: &[&str] = match family {
            Family::StableDiffusionXl => &["tokenizer", "tokenizer_2"],
            _ => &["tokenizer"],
        };
        let tokenizer = |component: &&str| {
            let file = format!("{component}/tokenizer.json");
            let json =
                files.tokenizers.get(*component).ok_or_else(|| Error::bad_model(format!("the model lacks {file}")))?;
            Tokenizer::from_json(&json.to_string(), max_tokens, files.pad_token(component), &file)
        };
        let encoder = match (family, files.class("text_encoder")?) {
            (Family::Inkbloom, "BertModel") => {
                let config = BertConfig::read(&files.config("text_encoder")?)?;
                Encoder::Bert(Bert::load(&tensors.params("text_encoder/"), config)?)
            }
            (Family::PixArt, "T5EncoderModel") => {
                let config = T5Config::read(&files.config("text_encoder")?)?;
                Encoder::T5(T5::load(&tensors.params("text_encoder/"), config)?)
            }
            (Family::StableDiffusion | Family::LatentConsistency, _) => {
                Encoder::Clip(load_clip(files, tensors, "text_encoder")?)
            }
            (Family::StableDiffusionXl, _) => Encoder::TwoClips(Box::new([
                load_clip(files, tensors, "text_encoder")?,
                load_clip(files, tensors, "text_encoder_2")?,
            ])),
            (Family::Inkbloom, class) => return Family::unknown_class("text_encoder", class, "BertModel"),
            (Family::PixArt, class) => return Family::unknown_class("text_encoder", class, "T5EncoderModel"),
        };
        Ok(Self {
            tokenizers: components.iter().map(tokenizer).collect::<Result<_>>()?,
            encoder,
            family,
            zeros_for_no_negative: family == Family::StableDiffusionXl
                && index.bool("force_zeros_for_empty_prompt", true)?,
        })
    }

    /// Encodes a prompt, together with the negative one where it `guides`.
    ///
    /// # Errors
    /// `BadInput` where a tokenizer cannot read the text; `BadModel` where it is not its encoder's.
    pub fn encode(&self, prompt: &str, negative_prompt: &str, guides: bool) -> Result<Encoded> {
        let mut warnings = Vec::new();
        let zeros = guides && self.zeros_for_no_negative && negative_prompt.is_empty();
        // By tokenizer: the negative prompt, where it is encoded, then the prompt.
        let mut batches = Vec::new();
        for (i, tokenizer) in self.tokenizers.iter().enumerate() {
            let mut batch = Vec::new();
            for (name, text, wanted) in
                [("negative prompt", negative_prompt, guides && !zeros), ("prompt", prompt, true)]
            {
                if !wanted {
                    continue;
                }
                let tokens = tokenizer.encode(&self.family.prompt(text))?;
                if let (0, Some(total)) = (i, tokens.truncated_from) {
                    warnings.push(format!(
                        "the {name} has {total} tokens; this model reads the first {}, and the rest was left out",
                        tokenizer.max_tokens()
                    ));
                }
                batch.push(tokens);
            }
            batches.push(batch);
        }
        let mut embedding = self.encoder.forward(&batches)?;
        if zeros {
            embedding.hidden = Tensor::cat(vec![embedding.hidden.zeros_like(), embedding.hidden], 0);
            embedding.pooled = embedding.pooled.map(|pooled| Tensor::cat(vec![pooled.zeros_like(), pooled], 0));
        }
        let tokens = batches.into_iter().filter_map(|mut batch| batch.pop()).collect();
        Ok(Encoded { tokens, embedding, warnings })
    }
}

impl Encoder {
    /// `batches` holds the same prompts by each tokenizer.
    fn forward(&self, batches: &[Vec<TokenIds>]) -> Result<TextEmbedding> {
        match self {
            Self::Bert(bert) => bert.forward(&batches[0]),
            Self::T5(t5) => t5.forward(&batches[0]),
            Self::Clip(clip) => {
                let hidden = clip.forward(&batches[0])?.last_hidden_state;
                Ok(TextEmbedding { hidden, attention_mask: None, pooled: None })
            }
            Self::TwoClips(clips) => {
                let [first, second] = [clips[0].forward(&batches[0])?, clips[1].forward(&batches[1])?];
                Ok(TextEmbedding {
                    hidden: Tensor::cat(vec![first.penultimate, second.penultimate], 2),
                    attention_mask: None,
                    pooled: Some(second.pooled),
                })
            }
        }
    }
}

fn load_clip(files: &ModelFiles, tensors: &Tensors, component: &str) -> Result<ClipText> {
    let projected = match files.class(component)? {
        "CLIPTextModel" => false,
        "CLIPTextModelWithProjection" => true,
        class => return Family::unknown_class(component, class, "CLIPTextModel and CLIPTextModelWithProjection"),
    };
    let config = ClipTextConfig::read(&files.config(component)?, projected)?;
    ClipText::load(&tensors.params(&format!("{component}/")), config)
}
