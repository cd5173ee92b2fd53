//! `inkbloom convert`: a diffusers folder to a bundle, one tensor in memory at a time.

use std::{
    fs,
    path::{Path, PathBuf},
};

use burn::tensor::Device;
use inkbloom::{
    Error, Result,
    pipeline::{PREVIEW, required_params},
    weights::{
        ModelFiles, ParamShape, StoredDtype,
        bundle::{FORMAT, FinishedShard, MAX_SHARD, Manifest, ShardWriter, VERSION},
    },
};

use serde_json::json;

use crate::{
    files::{self, Folder, Model},
    progress::Progress,
};

/// The component that `--text-encoder` stands for.
const TEXT_ENCODER: &str = "text_encoder";

#[derive(clap::Args)]
pub struct Args {
    /// A diffusers folder; without it, the bundle at --to gets a text encoder only
    #[arg(long, value_name = "DIR", required_unless_present = "text_encoder")]
    from: Option<PathBuf>,
    /// The folder of the text encoder and its tokenizer.json, where --from has none
    #[arg(long, value_name = "DIR")]
    text_encoder: Option<PathBuf>,
    /// The folder of a small decoder of the same latents (TAESD), which then draws the previews
    #[arg(long, value_name = "DIR", requires = "from")]
    preview_decoder: Option<PathBuf>,
    /// The bundle to write
    #[arg(long, value_name = "DIR")]
    to: PathBuf,
    /// f32, f16, q8 (matrices as int8 with a scale per row) or q4 (blocks of 32); the last two keep the rest in f16
    #[arg(long, value_name = "DTYPE", default_value = "q8", value_parser = parse_dtype)]
    dtype: StoredDtype,
    /// The largest shard
    #[arg(long, value_name = "N", default_value_t = MAX_SHARD >> 20, value_parser = clap::value_parser!(u64).range(1..=MAX_SHARD >> 20))]
    shard_mib: u64,
    /// What the bundle is called [default: the name of the folder --to]
    #[arg(long, value_name = "TEXT")]
    name: Option<String>,
    /// Licence of the weights, as an SPDX expression
    #[arg(long, value_name = "SPDX")]
    license: Option<String>,
    /// A text file that names whoever is to be named
    #[arg(long, value_name = "FILE")]
    attribution: Option<PathBuf>,
}

fn parse_dtype(text: &str) -> std::result::Result<StoredDtype, String> {
    StoredDtype::from_name(text)
        .ok_or_else(|| format!("\"{text}\" is not a stored dtype; give one of {}", StoredDtype::NAMES))
}

/// Matrices carry nearly all the bytes and quantise well; convolutions, norms, biases and tables do not.
fn stored_as(dtype: StoredDtype, param: &ParamShape) -> StoredDtype {
    let matrix = param.shape.len() == 2 && param.name.ends_with(".weight");
    match dtype {
        StoredDtype::Q8 | StoredDtype::Q4 if !matrix => StoredDtype::F16,
        dtype => dtype,
    }
}

pub fn run(args: &Args) -> Result<()> {
    let (mut manifest, mut folder) = match &args.from {
        Some(from) => match files::open(from)? {
            Model::Folder(folder) => (new_manifest(&args.to), folder),
            Model::Bundle { .. } => {
                return Err(Error::bad_input(format!(
                    "{} is a bundle already; give a diffusers folder",
                    from.display()
                )));
            }
        },
        None => {
            let manifest = Manifest::parse(&files::read_text(&args.to.join("manifest.json"))?)?;
            let folder = Folder { files: manifest.files.clone(), tensors: Default::default() };
            (manifest, folder)
        }
    };
    if let Some(text_encoder) = &args.text_encoder {
        folder.read_component(TEXT_ENCODER, text_encoder)?;
        folder.read_tokenizer("tokenizer", text_encoder)?;
    }
    if let Some(preview) = &args.preview_decoder {
        folder.read_component(PREVIEW, preview)?;
        let class = folder.files.configs[PREVIEW]["_class_name"].clone();
        folder.files.model_index[PREVIEW] = json!(["diffusers", class]);
    }
    manifest.files = folder.files.clone();
    if let Some(name) = &args.name {
        manifest.name.clone_from(name);
    }
    if let Some(license) = &args.license {
        manifest.license.clone_from(license);
    }
    if let Some(path) = &args.attribution {
        manifest.attribution = files::read_text(path)?;
    }

    fs::create_dir_all(&args.to).map_err(|error| cannot_write(&args.to, &error))?;
    let needed = required_params(&manifest.files, &Device::flex())?;
    for component in components(&needed) {
        if args.from.is_none() && component != TEXT_ENCODER {
            continue;
        }
        let params: Vec<&ParamShape> = needed.iter().filter(|param| component_of(param) == component).collect();
        write_component(args, &folder, &component, &params, &mut manifest)?;
    }
    let path = args.to.join("manifest.json");
    let json = serde_json::to_string(&manifest).map_err(|error| Error::bad_model(error.to_string()))?;
    fs::write(&path, json).map_err(|error| cannot_write(&path, &error))?;
    for shard in &manifest.shards {
        println!("{:>12}  {}", shard.size, shard.file);
    }
    println!("{:>12}  in all", manifest.shards.iter().map(|shard| shard.size).sum::<u64>());
    Ok(())
}

fn new_manifest(to: &Path) -> Manifest {
    Manifest {
        format: FORMAT.to_owned(),
        version: VERSION,
        name: to.file_name().unwrap_or_default().to_string_lossy().into_owned(),
        license: String::new(),
        attribution: String::new(),
        files: ModelFiles::default(),
        shards: Vec::new(),
        tensors: Vec::new(),
    }
}

fn component_of(param: &ParamShape) -> &str {
    param.name.split('/').next().unwrap_or_default()
}

/// The components of `needed`, each once, in order.
fn components(needed: &[ParamShape]) -> Vec<String> {
    let mut names: Vec<String> = Vec::new();
    for param in needed {
        if !names.iter().any(|name| name == component_of(param)) {
            names.push(component_of(param).to_owned());
        }
    }
    names
}

/// Writes the shards of one component, in place of those that the manifest has of it.
fn write_component(
    args: &Args,
    folder: &Folder,
    component: &str,
    params: &[&ParamShape],
    manifest: &mut Manifest,
) -> Result<()> {
    manifest.retain_components(|other| other != component);
    let first = manifest.shards.len();
    let mut writer = ShardWriter::new(component, (args.shard_mib << 20) as usize);
    let mut keep = |finished: FinishedShard| {
        let path = args.to.join(&finished.shard.file);
        fs::write(&path, &finished.bytes).map_err(|error| cannot_write(&path, &error))?;
        manifest.shards.push(finished.shard);
        Ok::<(), Error>(())
    };
    let progress = Progress::new("converting");
    for (i, param) in params.iter().enumerate() {
        let stored = folder.tensors.get(&param.name).ok_or_else(|| {
            Error::bad_model(format!(
                "the weights of {component} lack the tensor `{}` of shape {:?}",
                param.name, param.shape
            ))
        })?;
        if stored.entry.shape != param.shape {
            return Err(Error::bad_model(format!(
                "{}: the tensor `{}` has shape {:?}, but the config asks for {:?}",
                stored.file.display(),
                param.name,
                stored.entry.shape,
                param.shape
            )));
        }
        for finished in writer.add(&param.name, &param.shape, stored_as(args.dtype, param), &stored.read()?)? {
            keep(finished)?;
        }
        progress.set(i + 1, params.len());
    }
    let (last, mut tensors) = writer.finish();
    if let Some(finished) = last {
        keep(finished)?;
    }
    // The writer counts shards of its component from 0.
    tensors.iter_mut().flat_map(|tensor| &mut tensor.parts).for_each(|part| part.shard += first);
    manifest.tensors.extend(tensors);
    Ok(())
}

fn cannot_write(path: &Path, error: &std::io::Error) -> Error {
    Error::bad_input(format!("{} cannot be written: {error}", path.display()))
}
