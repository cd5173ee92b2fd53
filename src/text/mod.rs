//! [`TokenIds`] -> hidden states: one file per family, and what they share.

mod batch;
pub mod bert;
pub mod clip;
pub mod llama;
pub mod t5;

use bert::{Bert, BertConfig};
use burn::tensor::Tensor;
use clip::{ClipText, ClipTextConfig};
use llama::Llama;
use t5::{T5, T5Config};

use crate::{
    Result,
    layers::{DecoderConfig, DecoderKind},
    values::{TextEmbedding, TokenIds},
    weights::{Config, ModelFiles, Params, Tensors},
};

/// A text encoder, of whichever class.
pub enum TextEncoder {
    Bert(Bert),
    Clip(ClipText),
    Llama(Llama),
    T5(T5),
}

/// What a text encoder says of a batch of prompts, before a pipeline picks from it.
pub struct Encoding {
    /// `[N, T, D]`, the last hidden state.
    pub hidden: Tensor<3>,
    /// `[N, T]`, 1 = keep, 0 = padding.
    pub attention_mask: Option<Tensor<2>>,
    /// `[N, T, D]`, what enters the last layer; of CLIP and of decoders.
    pub penultimate: Option<Tensor<3>>,
    /// `[N, D']`, the whole prompt in one vector; of CLIP.
    pub pooled: Option<Tensor<2>>,
}

impl TextEncoder {
    /// Loads a component as the class that `model_index.json` names, one of `classes`.
    ///
    /// # Errors
    /// `BadModel` for another class, an option that cannot be honoured, or tensors that do not fit.
    pub fn load(tensors: &Tensors, files: &ModelFiles, component: &str, classes: &[&str]) -> Result<Self> {
        let unknown = || files.unknown_class(component, &classes.join(" and "));
        let class = files.class(component)?;
        if !classes.contains(&class) {
            return Err(unknown());
        }
        let params = &tensors.params(&format!("{component}/"));
        let config = files.config(component)?;
        Ok(match class {
            "BertModel" => Self::Bert(Bert::load(params, BertConfig::read(&config)?)?),
            "CLIPTextModel" => Self::Clip(ClipText::load(params, ClipTextConfig::read(&config, false)?)?),
            "CLIPTextModelWithProjection" => Self::Clip(ClipText::load(params, ClipTextConfig::read(&config, true)?)?),
            "LlamaModel" | "LlamaForCausalLM" => Self::Llama(load_decoder(params, class, &config, DecoderKind::Llama)?),
            "Qwen3Model" | "Qwen3ForCausalLM" => Self::Llama(load_decoder(params, class, &config, DecoderKind::Qwen3)?),
            "T5EncoderModel" => Self::T5(T5::load(params, T5Config::read(&config)?)?),
            _ => return Err(unknown()),
        })
    }

    /// A batch of prompts of equal length.
    ///
    /// # Errors
    /// `BadModel` where the tokenizer is not this encoder's.
    pub fn forward(&self, prompts: &[TokenIds]) -> Result<Encoding> {
        Ok(match self {
            Self::Bert(bert) => bert.forward(prompts)?.into(),
            Self::T5(t5) => t5.forward(prompts)?.into(),
            Self::Llama(llama) => {
                let mut output = llama.forward(prompts)?;
                Encoding {
                    hidden: output.last_hidden_state,
                    attention_mask: Some(output.attention_mask),
                    penultimate: output.hidden_states.pop(),
                    pooled: None,
                }
            }
            Self::Clip(clip) => {
                let output = clip.forward(prompts)?;
                Encoding {
                    hidden: output.last_hidden_state,
                    attention_mask: None,
                    penultimate: Some(output.penultimate),
                    pooled: Some(output.pooled),
                }
            }
        })
    }
}

/// A decoder as the class that has it within, or as that itself.
fn load_decoder(params: &Params, class: &str, config: &Config, kind: DecoderKind) -> Result<Llama> {
    let inner = if class.ends_with("ForCausalLM") { &params.at("model") } else { params };
    Llama::load(inner, DecoderConfig::read(config, kind)?)
}

impl Encoding {
    /// The last hidden state with its mask, as networks take it that know padding.
    pub fn masked(&self) -> TextEmbedding {
        TextEmbedding { hidden: self.hidden.clone(), attention_mask: self.attention_mask.clone(), pooled: None }
    }
}

impl From<TextEmbedding> for Encoding {
    fn from(TextEmbedding { hidden, attention_mask, pooled }: TextEmbedding) -> Self {
        Self { hidden, attention_mask, penultimate: None, pooled }
    }
}
