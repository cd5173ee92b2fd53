//! What sets the pipeline classes apart.

use crate::{Error, Result, denoise::schedule::Grid, weights::Config};

/// A class of `model_index.json`, as the pipeline that it stands for. Whether a class was written for text, picture to
/// picture or inpainting makes no difference: each model does what its network can.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum Family {
    /// Our own: BERT, PixArt, flow matching the way of diffusers' `FluxPipeline`.
    Inkbloom,
    /// CLIP and a U-Net.
    StableDiffusion,
    /// Two CLIPs and a U-Net that is told pooled text and the picture's size.
    StableDiffusionXl,
    /// T5 and PixArt.
    PixArt,
}

/// What a family's pipeline assumes where neither request nor model says anything.
pub struct Defaults {
    pub steps: usize,
    pub guidance: f64,
    pub max_text_tokens: usize,
}

const CLASSES: [(&str, Family); 10] = [
    ("InkbloomPipeline", Family::Inkbloom),
    ("StableDiffusionPipeline", Family::StableDiffusion),
    ("StableDiffusionImg2ImgPipeline", Family::StableDiffusion),
    ("StableDiffusionInpaintPipeline", Family::StableDiffusion),
    ("LatentConsistencyModelPipeline", Family::StableDiffusion),
    ("StableDiffusionXLPipeline", Family::StableDiffusionXl),
    ("StableDiffusionXLImg2ImgPipeline", Family::StableDiffusionXl),
    ("StableDiffusionXLInpaintPipeline", Family::StableDiffusionXl),
    ("PixArtSigmaPipeline", Family::PixArt),
    ("PixArtAlphaPipeline", Family::PixArt),
];

impl Family {
    /// # Errors
    /// `BadModel` for a class that this version does not run.
    pub fn read(index: &Config) -> Result<Self> {
        let class = index.str("_class_name", "")?;
        CLASSES.iter().find(|(known, _)| *known == class).map(|(_, family)| *family).ok_or_else(|| {
            let known: Vec<_> = CLASSES.iter().map(|(class, _)| *class).collect();
            index.wrong("_class_name", &format!("this version runs {}", known.join(", ")))
        })
    }

    pub fn defaults(self) -> Defaults {
        let (steps, guidance, max_text_tokens) = match self {
            Self::Inkbloom => (20, 1.0, 77),
            Self::StableDiffusion => (50, 7.5, 77),
            Self::StableDiffusionXl => (50, 5.0, 77),
            Self::PixArt => (20, 4.5, 300),
        };
        Defaults { steps, guidance, max_text_tokens }
    }

    /// Whether a guidance scale needs the negative prompt: diffusers' classic pipelines guide only above 1.
    pub fn guides(self, scale: f32) -> bool {
        if self == Self::Inkbloom { scale != 1.0 } else { scale > 1.0 }
    }

    pub fn grid(self) -> Grid {
        if self == Self::Inkbloom { Grid::Flux } else { Grid::Trained }
    }

    /// How many of `steps` steps picture to picture leaves out at `strength`, each as its reference rounds.
    pub fn skipped_steps(self, steps: usize, strength: f64) -> usize {
        let wanted = (steps as f64 * strength).min(steps as f64);
        if self == Self::Inkbloom { (steps as f64 - wanted) as usize } else { steps - wanted as usize }
    }

    /// Whether an encoded picture is drawn from the autoencoder's distribution rather than its mean.
    pub fn draws_encoding(self) -> bool {
        self != Self::Inkbloom
    }

    /// The prompt as the reference reads it.
    pub fn prompt(self, prompt: &str) -> String {
        if self == Self::PixArt { prompt.to_lowercase().trim().to_owned() } else { prompt.to_owned() }
    }

    /// # Errors
    /// `BadModel` naming the component whose class is not `known`.
    pub fn unknown_class<T>(component: &str, class: &str, known: &str) -> Result<T> {
        Err(Error::bad_model(format!(
            "model_index.json: `{component}` is of the class {class}; this version knows {known}"
        )))
    }
}
