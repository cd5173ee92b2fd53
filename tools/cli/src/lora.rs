//! LoRAs, fused into the weights of a diffusers folder where they are read.

use std::{
    fs,
    path::{Path, PathBuf},
};

use inkbloom::{
    Error, Result,
    weights::{lora, safetensors},
};

use crate::{
    files::{Folder, LoraUpdate, Model, unreadable},
    weight_files::with_header,
};

/// What diffusers calls the file.
const WEIGHTS: &str = "pytorch_lora_weights.safetensors";

#[derive(clap::Args)]
pub struct LoraArgs {
    /// Add a LoRA to the weights of a diffusers folder, so many times as strong (1 where nothing is said): a .safetensors in the
    /// format of diffusers or Kohya's scripts, or a folder with one; may be given several times
    #[arg(long = "lora", value_name = "FILE[:SCALE]", value_parser = parse)]
    loras: Vec<Lora>,
}

#[derive(Clone)]
struct Lora {
    path: PathBuf,
    scale: f32,
}

fn parse(text: &str) -> std::result::Result<Lora, String> {
    let (path, scale) = match text.rsplit_once(':') {
        Some((path, scale)) if !path.is_empty() && scale.parse::<f32>().is_ok() => (path, scale.parse().unwrap_or(1.0)),
        _ => (text, 1.0),
    };
    if !f32::is_finite(scale) {
        return Err(format!("the scale {scale} is out of range; give a number such as 0.8"));
    }
    Ok(Lora { path: path.into(), scale })
}

impl LoraArgs {
    pub fn any(&self) -> bool {
        !self.loras.is_empty()
    }

    /// # Errors
    /// `BadInput` for a bundle; else as [`add_to_folder`](Self::add_to_folder).
    pub fn add_to(&self, model: &mut Model) -> Result<()> {
        match model {
            Model::Folder(folder) => self.add_to_folder(folder),
            Model::Bundle(_) if self.any() => Err(not_a_folder()),
            Model::Bundle(_) => Ok(()),
        }
    }

    /// Has the weights of `folder` read with what the LoRAs add.
    ///
    /// # Errors
    /// `BadModel` naming the file that is missing or wrong, or the first tensor that fits nothing.
    pub fn add_to_folder(&self, folder: &mut Folder) -> Result<()> {
        for Lora { path, scale } in &self.loras {
            let file = find(path)?;
            let weights = folder.tensors.iter().map(|(name, stored)| (name.as_str(), stored.entry.shape.as_slice()));
            let updates = with_header(&file, |bytes, length, name| {
                let entries = safetensors::read_header(bytes, length, name)?;
                lora::updates(entries, &safetensors::read_metadata(bytes, name)?, weights, name)
            })?;
            for (name, update) in updates {
                let update = LoraUpdate { file: file.clone(), update, scale: *scale };
                folder.tensors.entry(name).and_modify(|stored| stored.updates.push(update));
            }
        }
        Ok(())
    }
}

pub fn not_a_folder() -> Error {
    Error::bad_input(
        "--lora is added to the weights of a diffusers folder; make one of this bundle with convert --format diffusers",
    )
}

/// The file itself, or that of a folder.
fn find(path: &Path) -> Result<PathBuf> {
    if !path.is_dir() {
        return Ok(path.to_owned());
    }
    let entries = fs::read_dir(path).map_err(|error| unreadable(path, &error))?;
    let mut files: Vec<PathBuf> = entries
        .filter_map(|entry| Some(entry.ok()?.path()))
        .filter(|path| path.extension().is_some_and(|ending| ending == "safetensors"))
        .collect();
    match files.iter().position(|file| file.ends_with(WEIGHTS)).or((files.len() == 1).then_some(0)) {
        Some(i) => Ok(files.swap_remove(i)),
        None => Err(Error::bad_model(format!(
            "{} holds {} .safetensors and none called {WEIGHTS}; name the file with --lora",
            path.display(),
            files.len()
        ))),
    }
}
