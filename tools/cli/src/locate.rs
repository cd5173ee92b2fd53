//! Where a model's folder is, given what people give.

use std::{
    fs,
    path::{Path, PathBuf},
};

use inkbloom::{Error, Result};

/// Files that make a folder a model, or a part of one.
const MODEL: [&str; 2] = ["model_index.json", "manifest.json"];
/// Endings of checkpoints in a single file.
const CHECKPOINTS: [&str; 6] = ["safetensors", "ckpt", "pt", "pth", "bin", "gguf"];

/// The folder of the model at `path`: itself; its snapshot, of a folder in the Hugging Face cache; the folder of a
/// `model_index.json`.
///
/// # Errors
/// `BadModel` saying what `path` is instead, and what to do.
pub fn folder(path: &Path) -> Result<PathBuf> {
    let shown = path.display();
    if path.is_file() {
        return match path.file_name().and_then(|name| name.to_str()) {
            Some(name) if MODEL.contains(&name) => Ok(path.parent().unwrap_or(Path::new(".")).to_owned()),
            _ if is_checkpoint(path) => Err(single_file(&shown.to_string())),
            _ => Err(Error::bad_model(format!("{shown} is a file; give a diffusers folder or a bundle"))),
        };
    }
    if !path.is_dir() {
        let given = path.to_string_lossy();
        return Err(Error::bad_model(match repository_id(&given) {
            Some(name) => format!(
                "there is no folder {shown}; if that is a repository's name, fetch it with `hf download {shown} --local-dir {name}` and give --model {name}"
            ),
            None => format!("there is no folder {shown}; give a diffusers folder or a bundle"),
        }));
    }
    if path.join("snapshots").is_dir() {
        return snapshot(path);
    }
    match (path.file_name(), path.parent()) {
        (Some(name), Some(parent)) if name == "snapshots" => snapshot(parent),
        _ => Ok(path.to_owned()),
    }
}

/// Why `folder` is no model, and what may have been meant.
pub fn no_model(folder: &Path) -> Error {
    let shown = folder.display();
    let children = children(folder);
    let named = |find: &dyn Fn(&PathBuf) -> bool| {
        children.iter().find(|path| find(path)).map(|path| path.display().to_string())
    };
    if let Some(inner) = named(&|path| MODEL.iter().any(|file| path.join(file).is_file())) {
        return Error::bad_model(format!("{shown} holds no model itself; {inner} does, give that"));
    }
    if let Some(inner) = named(&|path| path.join("snapshots").is_dir()) {
        return Error::bad_model(format!("{shown} is a cache of models; give one of them, for example {inner}"));
    }
    if folder.join("config.json").is_file() || folder.join("scheduler_config.json").is_file() {
        return Error::bad_model(format!(
            "{shown} is one component of a model; give the folder above, which holds model_index.json"
        ));
    }
    if let Some(file) = named(&|path| path.is_file() && is_checkpoint(path)) {
        return single_file(&file);
    }
    Error::bad_model(format!(
        "{shown} holds neither model_index.json (a diffusers folder) nor manifest.json (a bundle)"
    ))
}

fn single_file(name: &str) -> Error {
    Error::bad_model(format!(
        "{name} is a checkpoint in a single file; this version reads diffusers folders: in Python, `StableDiffusionPipeline.from_single_file(\"{name}\").save_pretrained(\"FOLDER\")` of diffusers writes one (for SDXL StableDiffusionXLPipeline)"
    ))
}

fn is_checkpoint(path: &Path) -> bool {
    path.extension().is_some_and(|ending| CHECKPOINTS.iter().any(|known| ending.eq_ignore_ascii_case(known)))
}

/// The snapshot that `refs/main` names, or the only one.
fn snapshot(repository: &Path) -> Result<PathBuf> {
    let snapshots = repository.join("snapshots");
    let main = fs::read_to_string(repository.join("refs/main")).unwrap_or_default();
    let main = main.trim();
    if !main.is_empty() && !main.contains(['/', '\\']) && main != ".." && snapshots.join(main).is_dir() {
        return Ok(snapshots.join(main));
    }
    let mut all = children(&snapshots);
    all.retain(|path| path.is_dir());
    match all.as_slice() {
        [one] => Ok(one.clone()),
        [] => Err(Error::bad_model(format!("{} is empty; fetch the model again", snapshots.display()))),
        [first, ..] => Err(Error::bad_model(format!(
            "{} holds {} versions; give one of them, for example {}",
            snapshots.display(),
            all.len(),
            first.display()
        ))),
    }
}

/// What lies in a folder, in order.
fn children(folder: &Path) -> Vec<PathBuf> {
    let mut paths: Vec<PathBuf> =
        fs::read_dir(folder).into_iter().flatten().flatten().map(|entry| entry.path()).collect();
    paths.sort();
    paths
}

/// The part of `owner/name` behind the slash, where `text` can be a repository's name.
fn repository_id(text: &str) -> Option<&str> {
    let plain = |part: &str| {
        !part.is_empty()
            && !part.starts_with(['.', '~', '-'])
            && part.chars().all(|c| c.is_ascii_alphanumeric() || "-_.".contains(c))
    };
    text.split_once('/').filter(|(owner, name)| plain(owner) && plain(name)).map(|(_, name)| name)
}

#[cfg(test)]
mod tests {
    use super::repository_id;

    #[test]
    fn a_repository_is_told_from_a_path() {
        assert_eq!(repository_id("stabilityai/sd-turbo"), Some("sd-turbo"));
        assert_eq!(repository_id("PixArt-alpha/PixArt-Sigma-XL-2-512-MS"), Some("PixArt-Sigma-XL-2-512-MS"));
        for path in ["sd-turbo", "./a/b", "../a", "~/models", "a/b/c", "/a/b", "a/", "C:\\models\\x", ""] {
            assert_eq!(repository_id(path), None, "{path}");
        }
    }
}
