//! Which of a component's weight files are read.

use std::{
    cmp::Reverse,
    fs::{self, File},
    io::{Read, Seek},
    path::{Path, PathBuf},
};

use inkbloom::{
    Error, Result,
    weights::safetensors::{self, Entry},
};

use crate::{
    files::{read_json, unreadable},
    sniff,
};

/// What diffusers and transformers call their weights.
const DIFFUSERS: &str = "diffusion_pytorch_model";
const TRANSFORMERS: &str = "model";
/// Variants in the order in which they are taken, where the folder has no weights without one.
const VARIANTS: [&str; 4] = ["", "fp32", "fp16", "bf16"];

/// Safetensors of one component: their headers, by file.
pub struct WeightFiles {
    pub files: Vec<(PathBuf, Vec<Entry>)>,
    /// Why these are not the first choice.
    pub note: Option<String>,
}

/// A file of weights, or an index that names several.
#[derive(Debug, PartialEq, Eq)]
struct Candidate {
    name: String,
    stem: &'static str,
    index: bool,
    /// `fp16`, ...; "" where the name says none.
    variant: String,
}

impl Candidate {
    /// Reads a file's name, `STEM[.VARIANT].safetensors` or `STEM.safetensors.index[.VARIANT].json`, the variant in any
    /// place that either library has put it; `None` for every other, single shards too.
    fn read(name: &str) -> Option<Self> {
        let stem = [DIFFUSERS, TRANSFORMERS]
            .into_iter()
            .find(|stem| name.strip_prefix(stem).is_some_and(|rest| rest.starts_with('.')))?;
        let mut words: Vec<&str> = name[stem.len() + 1..].split('.').collect();
        let index = words.last() == Some(&"json");
        let fixed: &[&str] = if index { &["safetensors", "index", "json"] } else { &["safetensors"] };
        for word in fixed {
            words.remove(words.iter().position(|found| found == word)?);
        }
        let variant = match words.as_slice() {
            [] => "",
            [variant] if !variant.contains("-of-") => variant,
            _ => return None,
        };
        Some(Self { name: name.to_owned(), stem, index, variant: variant.to_owned() })
    }

    /// Less is better: the library's own name, then full precision; diffusers takes an index before a single file,
    /// transformers after it.
    fn rank(&self, own: &str) -> impl Ord + use<> {
        let variant = VARIANTS.iter().position(|known| *known == self.variant).unwrap_or(VARIANTS.len());
        let index_first = if self.stem == DIFFUSERS { Reverse(self.index) } else { Reverse(!self.index) };
        (self.stem != own, variant, index_first, self.name.clone())
    }

    fn headers(&self, folder: &Path) -> Result<Vec<(PathBuf, Vec<Entry>)>> {
        let path = folder.join(&self.name);
        if !self.index {
            let entries = read_header(&path)?;
            return Ok(vec![(path, entries)]);
        }
        let shards = safetensors::shard_files(&read_json(&path)?, &path.display().to_string())?;
        let header = |shard: String| {
            let shard = folder.join(shard);
            if !shard.is_file() {
                return Err(Error::bad_model(format!(
                    "{} names {}, which is not there; fetch the folder again",
                    path.display(),
                    shard.display()
                )));
            }
            let entries = read_header(&shard)?;
            Ok((shard, entries))
        };
        shards.into_iter().map(header).collect()
    }
}

/// The weights of `component` in `folder`: the first choice that is whole.
///
/// # Errors
/// `BadModel` saying what is wrong with the first choice, or what there is in place of weights.
pub fn find(component: &str, folder: &Path) -> Result<WeightFiles> {
    let own = if component.starts_with("text_encoder") { TRANSFORMERS } else { DIFFUSERS };
    let mut names: Vec<String> = fs::read_dir(folder)
        .map_err(|error| unreadable(folder, &error))?
        .filter_map(|entry| entry.ok()?.file_name().into_string().ok())
        .collect();
    names.sort();
    let mut candidates: Vec<Candidate> = names.iter().filter_map(|name| Candidate::read(name)).collect();
    candidates.sort_by_key(|candidate| candidate.rank(own));
    let mut wrong = None;
    for candidate in &candidates {
        match candidate.headers(folder) {
            Ok(files) => {
                let note = wrong.map(|error| format!("{component} is read from {}, for {error}", candidate.name));
                return Ok(WeightFiles { files, note });
            }
            Err(error) => wrong = wrong.or(Some(error)),
        }
    }
    Err(wrong.unwrap_or_else(|| no_weights(own, folder, &names)))
}

fn no_weights(own: &str, folder: &Path, names: &[String]) -> Error {
    let shown = folder.display();
    let ends = |endings: &[&str]| {
        names.iter().find(|name| Path::new(name).extension().is_some_and(|ending| endings.iter().any(|e| ending == *e)))
    };
    let why = if let Some(name) = ends(&["bin", "pt", "pth", "ckpt"]) {
        format!("{shown} holds no safetensors, only {name}, a PyTorch pickle; {}", sniff::TO_SAFETENSORS)
    } else if let Some(name) = ends(&["msgpack", "h5", "onnx", "gguf", "pb"]) {
        format!("{shown} holds {name}, which is another framework's; fetch {own}.safetensors beside it")
    } else if let Some(name) = ends(&["safetensors"]) {
        format!(
            "{shown} holds {name}, but neither {own}.safetensors nor {own}.safetensors.index.json; fetch the folder again"
        )
    } else {
        format!("{shown} holds no weights; {own}.safetensors is expected there")
    };
    Error::bad_model(why)
}

fn read_header(path: &Path) -> Result<Vec<Entry>> {
    with_header(path, safetensors::read_header)
}

/// What `read` makes of a safetensors file's header, length and name.
///
/// # Errors
/// `BadModel` where the file cannot be read or is none; what `read` gives.
pub fn with_header<T>(path: &Path, read: impl FnOnce(&[u8], u64, &str) -> Result<T>) -> Result<T> {
    sniff::explained(path, sniff::Expected::Bytes, || {
        let name = path.display().to_string();
        let mut file = File::open(path).map_err(|error| unreadable(path, &error))?;
        let length = file.metadata().map_err(|error| unreadable(path, &error))?.len();
        let mut first = [0; 8];
        file.read_exact(&mut first).map_err(|error| unreadable(path, &error))?;
        let mut bytes = vec![0; 8 + safetensors::header_len(first, length, &name)?];
        file.rewind().and_then(|()| file.read_exact(&mut bytes)).map_err(|error| unreadable(path, &error))?;
        read(&bytes, length, &name)
    })
}

#[cfg(test)]
mod tests {
    use super::*;

    /// The candidates among `names`, best first.
    fn order(own: &str, names: &[&str]) -> Vec<String> {
        let mut candidates: Vec<Candidate> = names.iter().filter_map(|name| Candidate::read(name)).collect();
        candidates.sort_by_key(|candidate| candidate.rank(own));
        candidates.into_iter().map(|candidate| candidate.name).collect()
    }

    #[test]
    fn names_are_taken_in_their_librarys_order() {
        let unet = [
            "config.json",
            "diffusion_pytorch_model-00001-of-00002.safetensors",
            "diffusion_pytorch_model.bin",
            "diffusion_pytorch_model.fp16-00001-of-00002.safetensors",
            "diffusion_pytorch_model.fp16.safetensors",
            "diffusion_pytorch_model.non_ema.safetensors",
            "diffusion_pytorch_model.safetensors",
            "diffusion_pytorch_model.safetensors.fp16.index.json",
            "diffusion_pytorch_model.safetensors.index.fp16.json",
            "diffusion_pytorch_model.safetensors.index.json",
            "model_card.json",
        ];
        assert_eq!(
            order(DIFFUSERS, &unet),
            [
                "diffusion_pytorch_model.safetensors.index.json",
                "diffusion_pytorch_model.safetensors",
                "diffusion_pytorch_model.safetensors.fp16.index.json",
                "diffusion_pytorch_model.safetensors.index.fp16.json",
                "diffusion_pytorch_model.fp16.safetensors",
                "diffusion_pytorch_model.non_ema.safetensors",
            ]
        );
        let text =
            ["model.safetensors.index.json", "model.bf16.safetensors", "model.safetensors", "model.fp16.safetensors"];
        assert_eq!(
            order(TRANSFORMERS, &text),
            ["model.safetensors", "model.safetensors.index.json", "model.fp16.safetensors", "model.bf16.safetensors"]
        );
        assert_eq!(
            order(DIFFUSERS, &["model.safetensors", "diffusion_pytorch_model.fp16.safetensors"])[0],
            "diffusion_pytorch_model.fp16.safetensors"
        );
        for name in [
            "model",
            "model.json",
            "model.index.json",
            "modelsafetensors",
            "model.a.b.safetensors",
            "flax_model.msgpack",
        ] {
            assert_eq!(Candidate::read(name), None, "{name}");
        }
    }
}
