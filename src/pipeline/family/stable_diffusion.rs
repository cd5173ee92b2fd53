//! CLIP and a U-Net.

use super::{
    networks,
    page::{Defaults, EncoderSlot, Family, Network},
};
use crate::{
    Result,
    denoise::schedule::Repair,
    text::Encoding,
    values::TextEmbedding,
    weights::{Config, ModelFiles, Tensors},
};

pub struct StableDiffusion;

/// The latent's side that this family was trained for, which its U-Net's files did not say before diffusers 0.9.
const TRAINED: usize = 64;

/// CLIP, with or without a projection, which this family does not use.
pub(super) const CLIP: [&str; 2] = ["CLIPTextModel", "CLIPTextModelWithProjection"];

impl Family for StableDiffusion {
    fn classes(&self) -> &'static [(&'static str, Defaults)] {
        const {
            &[
                ("StableDiffusionPipeline", Defaults::new(50, 7.5, 77)),
                ("StableDiffusionImg2ImgPipeline", Defaults::new(50, 7.5, 77)),
                ("StableDiffusionInpaintPipeline", Defaults::new(50, 7.5, 77)),
            ]
        }
    }

    fn encoders(&self) -> &'static [EncoderSlot] {
        const { &[EncoderSlot::new("text_encoder", "tokenizer", &CLIP)] }
    }

    /// The network attends to padding, too.
    fn join(&self, encodings: &[Encoding]) -> TextEmbedding {
        TextEmbedding { hidden: encodings[0].hidden.clone(), attention_mask: None, pooled: None }
    }

    fn network(&self, files: &ModelFiles, tensors: &Tensors) -> Result<Network> {
        let network = networks::unet(files, tensors, false)?;
        let sample_size = repaired_sample_size(&files.config("unet")?, network.sample_size)?;
        Ok(Network { sample_size, ..network })
    }

    fn scheduler_repairs(&self, class: &str) -> &'static [Repair] {
        match class {
            "StableDiffusionInpaintPipeline" => &[Repair::StepsOffset, Repair::SkipPrkSteps],
            _ => &[Repair::StepsOffset, Repair::ClipSample],
        }
    }
}

/// The U-Net's `sample_size`, height and width, as the pipelines of this family take it (`StableDiffusionPipeline.__init__`
/// and those of picture to picture and inpainting): one number below 64 in a file from before diffusers 0.9 means 64.
///
/// # Errors
/// `BadModel` where `_diffusers_version` is no text.
fn repaired_sample_size(unet: &Config, said: Option<[usize; 2]>) -> Result<Option<[usize; 2]>> {
    let old = unet.opt_str("_diffusers_version")?.is_some_and(before_0_9);
    let one_number = unet.opt_usize("sample_size").is_ok();
    let small = said.is_some_and(|[side, _]| side < TRAINED);
    Ok(if old && one_number && small { Some([TRAINED; 2]) } else { said })
}

/// Whether a version's release, `0.8.1` of `0.8.1.dev0`, comes before 0.9.
fn before_0_9(version: &str) -> bool {
    let mut parts = version.trim().trim_start_matches('v').split('.');
    let mut number = || {
        let part = parts.next().unwrap_or("0");
        let end = part.find(|c: char| !c.is_ascii_digit()).unwrap_or(part.len());
        part[..end].parse::<u64>().ok()
    };
    number() == Some(0) && number().is_some_and(|minor| minor < 9)
}

#[cfg(test)]
mod tests {
    use serde_json::{Value, json};

    use super::*;

    fn repaired(unet: Value) -> Option<[usize; 2]> {
        let unet = Config::new("unet/config.json", &unet).unwrap();
        repaired_sample_size(&unet, unet.opt_sides("sample_size").unwrap()).unwrap()
    }

    /// As diffusers 0.42.1 has it.
    #[test]
    fn small_old_files_mean_64() {
        let sd = |version: &str, size: Value| repaired(json!({"_diffusers_version": version, "sample_size": size}));
        for old in ["0.8.0.dev0", "0.8.1", "0.6.0", "0.3", "0", "0.8.0rc1", "v0.7.2"] {
            assert_eq!(sd(old, json!(32)), Some([64, 64]), "{old}");
        }
        for new in ["0.9.0.dev0", "0.9.0", "0.10.2", "0.42.1", "1.0.0", "1.8", "unknown"] {
            assert_eq!(sd(new, json!(32)), Some([32, 32]), "{new}");
        }
        assert_eq!(sd("0.8.0", json!(64)), Some([64, 64]));
        assert_eq!(sd("0.8.0", json!(96)), Some([96, 96]));
        assert_eq!(sd("0.8.0", json!([8, 12])), Some([8, 12]));
        assert_eq!(sd("0.8.0", json!(null)), None);
        assert_eq!(repaired(json!({"sample_size": 32})), Some([32, 32]));
    }
}
