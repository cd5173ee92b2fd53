//! The families of pipelines, a page each. A new one is a new page and a line in [`FAMILIES`].

mod animate_diff;
mod flux;
mod latent_consistency;
mod latte;
mod networks;
mod page;
mod pixart;
mod sd3;
mod stable_diffusion;
mod stable_diffusion_xl;
mod sticker;

pub use networks::pixart;
pub use page::{Defaults, EncoderSlot, Family, Network, ToldMask};

use crate::{Result, weights::Config};

/// A class that writes pictures as codes and nothing else, which is of none of these families.
pub const JANUS: &str = "JanusForConditionalGeneration";
/// A class with a stage before it denoises that is no other's.
pub const GLM_IMAGE: &str = "GlmImagePipeline";

const FAMILIES: [&dyn Family; 9] = [
    &sticker::Sticker,
    &stable_diffusion::StableDiffusion,
    &latent_consistency::LatentConsistency,
    &stable_diffusion_xl::StableDiffusionXl,
    &pixart::PixArt,
    &sd3::Sd3,
    &flux::Flux,
    &animate_diff::AnimateDiff,
    &latte::Latte,
];

/// The class that `model_index.json` names; of a Flax class, its twin.
///
/// # Errors
/// `BadModel` where the name is no text.
pub fn pipeline_class<'a>(index: &Config<'a>) -> Result<&'a str> {
    let class = index.str("_class_name", "")?;
    Ok(class.strip_prefix("Flax").unwrap_or(class))
}

/// The family of the class that `model_index.json` names, and the class's defaults.
///
/// # Errors
/// `BadModel` for a class that this version does not run.
pub fn read(index: &Config) -> Result<(&'static dyn Family, Defaults)> {
    let class = pipeline_class(index)?;
    let all = || FAMILIES.iter().flat_map(|family| family.classes().iter().map(move |class| (*family, class)));
    let found = all().find(|(_, (known, _))| *known == class);
    found.map(|(family, (_, defaults))| (family, *defaults)).ok_or_else(|| {
        let known: Vec<_> = all().map(|(_, (class, _))| *class).chain([GLM_IMAGE, JANUS]).collect();
        index.wrong("_class_name", &format!("this version runs {}", known.join(", ")))
    })
}
