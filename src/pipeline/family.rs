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
    /// The same, distilled to few steps.
    LatentConsistency,
    /// Two CLIPs and a U-Net that is told pooled text and the picture's size.
    StableDiffusionXl,
    /// T5 and PixArt.
    PixArt,
}

/// What a pipeline class assumes where neither request nor model says anything.
pub struct Defaults {
    pub steps: usize,
    pub guidance: f64,
    pub max_text_tokens: usize,
}

const fn defaults(steps: usize, guidance: f64, max_text_tokens: usize) -> Defaults {
    Defaults { steps, guidance, max_text_tokens }
}

/// The classes, with the defaults of diffusers' `__call__`.
const CLASSES: [(&str, Family, Defaults); 11] = [
    ("InkbloomPipeline", Family::Inkbloom, defaults(20, 1.0, 77)),
    ("StableDiffusionPipeline", Family::StableDiffusion, defaults(50, 7.5, 77)),
    ("StableDiffusionImg2ImgPipeline", Family::StableDiffusion, defaults(50, 7.5, 77)),
    ("StableDiffusionInpaintPipeline", Family::StableDiffusion, defaults(50, 7.5, 77)),
    ("LatentConsistencyModelPipeline", Family::LatentConsistency, defaults(4, 8.5, 77)),
    ("LatentConsistencyModelImg2ImgPipeline", Family::LatentConsistency, defaults(4, 8.5, 77)),
    ("StableDiffusionXLPipeline", Family::StableDiffusionXl, defaults(50, 5.0, 77)),
    ("StableDiffusionXLImg2ImgPipeline", Family::StableDiffusionXl, defaults(50, 5.0, 77)),
    ("StableDiffusionXLInpaintPipeline", Family::StableDiffusionXl, defaults(50, 7.5, 77)),
    ("PixArtSigmaPipeline", Family::PixArt, defaults(20, 4.5, 300)),
    ("PixArtAlphaPipeline", Family::PixArt, defaults(20, 4.5, 120)),
];

impl Family {
    /// The family of the class that `model_index.json` names, and the class's defaults.
    ///
    /// # Errors
    /// `BadModel` for a class that this version does not run.
    pub fn read(index: &Config) -> Result<(Self, &'static Defaults)> {
        let class = index.str("_class_name", "")?;
        let found = CLASSES.iter().find(|(known, ..)| *known == class);
        found.map(|(_, family, defaults)| (*family, defaults)).ok_or_else(|| {
            let known: Vec<_> = CLASSES.iter().map(|(class, ..)| *class).collect();
            index.wrong("_class_name", &format!("this version runs {}", known.join(", ")))
        })
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

    /// Whether picture to picture spreads all its steps below `strength`, where the scheduler can, and leaves out none.
    pub fn spreads_strength(self) -> bool {
        self == Self::LatentConsistency
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
