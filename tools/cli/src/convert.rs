//! `inkbloom convert`: a diffusers folder to a bundle and back, one tensor in memory at a time.

use std::{
    collections::BTreeMap,
    fs,
    path::{Path, PathBuf},
};

use inkbloom::{
    Error, Result,
    pipeline::{AUTOREGRESSIVE, CODEBOOK, HYBRID, MOTION, OPTIONAL, PREVIEW, SCORER, required_params},
    weights::{
        ModelFiles, ParamShape, StoredDtype,
        bundle::{self, FORMAT, FinishedShard, MAX_SHARD, Manifest, Shard, ShardWriter, VERSION},
    },
};

use crate::{
    diffusers,
    files::{self, Bundle, Folder, Model, cannot_write},
    locate,
    lora::{self, LoraArgs},
    progress::Progress,
};

/// The component that `--text-encoder` stands for.
const TEXT_ENCODER: &str = "text_encoder";

#[derive(clap::Args)]
pub struct Args {
    /// A diffusers folder or a bundle; without it, the bundle at --to gets a text encoder, a scorer, codes or a motion adapter only
    #[arg(long, value_name = "DIR", required_unless_present_any = ["text_encoder", "scorer", "codes", "motion_adapter"])]
    from: Option<PathBuf>,
    /// The folder of the text encoder and its tokenizer.json, where --from has none
    #[arg(long, value_name = "DIR")]
    text_encoder: Option<PathBuf>,
    /// The folder of a small decoder of the same latents (TAESD), which then draws the previews
    #[arg(long, value_name = "DIR", requires = "from")]
    preview_decoder: Option<PathBuf>,
    /// The folder of a scorer, which then chooses among candidates
    #[arg(long, value_name = "DIR")]
    scorer: Option<PathBuf>,
    /// A folder that holds codebook/ and autoregressive/, and perhaps hybrid/: the ways of drawing by codes
    #[arg(long, value_name = "DIR")]
    codes: Option<PathBuf>,
    /// The folder of a motion adapter (AnimateDiff), which then makes animations of what the model draws
    #[arg(long, value_name = "DIR")]
    motion_adapter: Option<PathBuf>,
    #[command(flatten)]
    loras: LoraArgs,
    /// Leave this component out, where the model can do without (text_encoder_3 of Stable Diffusion 3); may be given
    /// several times
    #[arg(long, value_name = "COMPONENT", requires = "from")]
    without: Vec<String>,
    /// The folder to write
    #[arg(long, value_name = "DIR")]
    to: PathBuf,
    /// What to write: a bundle for the web, or (from a bundle) a diffusers folder for Python
    #[arg(long, value_name = "FORMAT", default_value = "bundle")]
    format: Format,
    /// f32, f16, q8 (matrices as int8 with a scale per row) or q4 (blocks of 32); the last two keep the rest in f16
    /// [default: q8 in a bundle, f32 in a diffusers folder]
    #[arg(long, value_name = "DTYPE", value_parser = parse_dtype)]
    dtype: Option<StoredDtype>,
    /// Another dtype for the tensors whose names begin so, as in text_encoder/embeddings=q4; may be given several times
    #[arg(long, value_name = "PREFIX=DTYPE", value_parser = parse_dtype_of)]
    dtype_of: Vec<(String, StoredDtype)>,
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

fn parse_dtype_of(text: &str) -> std::result::Result<(String, StoredDtype), String> {
    let (prefix, dtype) = text.split_once('=').ok_or("give the beginning of a name, = and a dtype")?;
    Ok((prefix.to_owned(), parse_dtype(dtype)?))
}

#[derive(Clone, Copy, clap::ValueEnum)]
enum Format {
    Bundle,
    Diffusers,
}

/// Matrices carry nearly all the bytes and quantise well; convolutions, norms, biases and tables do not.
fn stored_as(args: &Args, param: &ParamShape) -> StoredDtype {
    let own = args.dtype_of.iter().find(|(prefix, _)| param.name.starts_with(prefix));
    let dtype = own.map_or(args.dtype.unwrap_or(StoredDtype::Q8), |(_, dtype)| *dtype);
    let matrix = param.shape.len() == 2 && param.name.ends_with(".weight");
    match dtype {
        StoredDtype::Q8 | StoredDtype::Q4 if !matrix => StoredDtype::F16,
        dtype => dtype,
    }
}

pub fn run(args: &Args) -> Result<()> {
    match args.format {
        Format::Bundle => write_bundle(args),
        Format::Diffusers => write_diffusers(args),
    }
}

fn write_diffusers(args: &Args) -> Result<()> {
    let Some(Model::Bundle(bundle)) = args.from.as_deref().map(files::open).transpose()? else {
        return Err(Error::bad_input("--format diffusers is made from a bundle; name one with --from"));
    };
    let given = [&args.text_encoder, &args.preview_decoder, &args.scorer, &args.codes, &args.motion_adapter];
    if given.iter().any(|given| given.is_some()) || args.loras.any() {
        return Err(Error::bad_input("--format diffusers writes what the bundle holds; convert to a bundle first"));
    }
    if args.to.join("manifest.json").is_file() {
        return Err(Error::bad_input(format!("{} is a bundle; name another folder with --to", args.to.display())));
    }
    match args.dtype.unwrap_or(StoredDtype::F32) {
        dtype @ (StoredDtype::F32 | StoredDtype::F16) => diffusers::write(&bundle, &args.to, dtype),
        dtype => Err(Error::bad_input(format!("a diffusers folder cannot hold {}; give f32 or f16", dtype.name()))),
    }
}

fn write_bundle(args: &Args) -> Result<()> {
    // What a bundle at --to holds by now.
    let before = Bundle::open(&args.to).ok();
    // Where the weights that are to be converted lie.
    let mut folder = Folder { files: ModelFiles::default(), tensors: BTreeMap::new(), notes: Vec::new() };
    let mut manifest = new_manifest(&args.to);
    let from = args.from.as_deref().map(|from| files::open_without(from, &args.without));
    let bundle = match from.transpose()? {
        Some(Model::Folder(from)) => {
            folder = from;
            None
        }
        Some(Model::Bundle(bundle)) => Some(bundle),
        None => Some(Bundle::open(&args.to)?),
    };
    if let Some(bundle) = &bundle {
        manifest = Manifest { version: VERSION, ..bundle.manifest.clone() };
        folder.files = manifest.files.clone();
    }
    let mut replaced = Vec::new();
    if let Some(text_encoder) = &args.text_encoder {
        let text_encoder = locate::folder(text_encoder)?;
        folder.read_component(TEXT_ENCODER, &text_encoder)?;
        folder.read_tokenizer("tokenizer", &text_encoder)?;
        replaced.push(TEXT_ENCODER);
    }
    let mut given = vec![
        (PREVIEW, "diffusers", args.preview_decoder.clone()),
        (SCORER, "inkbloom", args.scorer.clone()),
        (MOTION, "diffusers", args.motion_adapter.clone()),
    ];
    if let Some(codes) = &args.codes {
        let codes = locate::folder(codes)?;
        let parts = [(CODEBOOK, "inkbloom"), (AUTOREGRESSIVE, "inkbloom"), (HYBRID, "diffusers")];
        let there = |part: &str| part != HYBRID || codes.join(part).is_dir();
        given.extend(parts.map(|(part, library)| (part, library, there(part).then(|| codes.join(part)))));
        // How many steps the hybrid takes, and its guidance.
        if let Ok(index) = files::read_json(&codes.join("model_index.json")) {
            for key in ["hybrid_steps", "hybrid_guidance"].into_iter().filter(|key| !index[*key].is_null()) {
                folder.files.model_index[key] = index[key].clone();
            }
        }
    }
    for (component, library, given) in given {
        if let Some(given) = given {
            folder.add(component, library, &given)?;
            replaced.push(component);
        }
    }
    match &bundle {
        Some(_) if args.loras.any() => return Err(lora::not_a_folder()),
        _ => args.loras.add_to_folder(&mut folder)?,
    }
    if bundle.is_some() && replaced.is_empty() && (args.dtype.is_some() || !args.dtype_of.is_empty()) {
        return Err(Error::bad_input("the numbers of a bundle stay as they are; leave --dtype and --dtype-of away"));
    }
    folder.notes.iter().for_each(|note| eprintln!("note: {note}"));
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

    let needed = required_params(&manifest.files)?;
    let converted = |param: &ParamShape| bundle.is_none() || replaced.contains(&bundle::component(&param.name));
    for (prefix, _) in &args.dtype_of {
        if !needed.iter().any(|param| converted(param) && param.name.starts_with(prefix)) {
            return Err(Error::bad_input(format!(
                "--dtype-of {prefix}: no tensor that is converted has a name that begins so; `inkbloom inspect` lists the components"
            )));
        }
    }
    fs::create_dir_all(&args.to).map_err(|error| cannot_write(&args.to, &error))?;
    manifest.files.notes.list().iter().for_each(|note| eprintln!("note: {note}"));
    if let Some(bundle) = &bundle {
        manifest.retain_components(|component| !replaced.contains(&component));
        copy_shards(bundle, &args.to, &mut manifest)?;
    }
    for component in components(&needed) {
        if bundle.is_none() || replaced.contains(&component.as_str()) {
            let params: Vec<&ParamShape> =
                needed.iter().filter(|param| bundle::component(&param.name) == component).collect();
            write_component(args, &folder, &component, &params, &mut manifest)?;
        }
    }
    let optional = OPTIONAL.into_iter().filter(|name| manifest.has_component(name) && !manifest.is_optional(name));
    let optional: Vec<String> = optional.map(str::to_owned).collect();
    manifest.optional.extend(optional);
    let path = args.to.join("manifest.json");
    let json = serde_json::to_string(&manifest).map_err(|error| Error::bad_model(error.to_string()))?;
    fs::write(&path, json).map_err(|error| cannot_write(&path, &error))?;
    if let Some(before) = before {
        remove_stale(&before, &manifest)?;
    }
    for shard in &manifest.shards {
        println!("{:>12}  {}", shard.size, shard.file);
    }
    println!("{:>12}  in all", manifest.shards.iter().map(|shard| shard.size).sum::<u64>());
    Ok(())
}

/// Copies the shards of `bundle` that `manifest` names to the folder `to`, and gives each the name that it has today.
fn copy_shards(bundle: &Bundle, to: &Path, manifest: &mut Manifest) -> Result<()> {
    let mut counts: BTreeMap<String, usize> = BTreeMap::new();
    for (i, shard) in manifest.shards.iter_mut().enumerate() {
        let holds = |tensor: &&bundle::StoredTensor| tensor.parts.iter().any(|part| part.shard == i);
        let component = manifest.tensors.iter().find(holds).map_or("", bundle::StoredTensor::component);
        let count = counts.entry(component.to_owned()).or_default();
        let file = Shard::file_name(component, *count, &shard.sha256);
        *count += 1;
        let bytes = bundle.shard(shard)?;
        let path = to.join(&file);
        fs::write(&path, &bytes).map_err(|error| cannot_write(&path, &error))?;
        shard.file = file;
    }
    Ok(())
}

/// Removes the shards that a bundle held before and nothing names any more.
fn remove_stale(before: &Bundle, manifest: &Manifest) -> Result<()> {
    for Shard { file, .. } in &before.manifest.shards {
        // One that lies elsewhere may be somebody else's.
        let beside = Path::new(file).file_name().is_some_and(|name| name == file.as_str());
        let path = before.folder.join(file);
        if beside && path.is_file() && manifest.shards.iter().all(|shard| shard.file != *file) {
            fs::remove_file(&path).map_err(|error| cannot_write(&path, &error))?;
        }
    }
    Ok(())
}

fn new_manifest(to: &Path) -> Manifest {
    Manifest {
        format: FORMAT.to_owned(),
        version: VERSION,
        name: to.file_name().unwrap_or_default().to_string_lossy().into_owned(),
        license: String::new(),
        attribution: String::new(),
        optional: Vec::new(),
        files: ModelFiles::default(),
        shards: Vec::new(),
        tensors: Vec::new(),
    }
}

/// The components of `needed`, each once, in order.
fn components(needed: &[ParamShape]) -> Vec<String> {
    let mut names: Vec<String> = Vec::new();
    for param in needed {
        if !names.iter().any(|name| name == bundle::component(&param.name)) {
            names.push(bundle::component(&param.name).to_owned());
        }
    }
    names
}

/// Writes the shards of one component.
fn write_component(
    args: &Args,
    folder: &Folder,
    component: &str,
    params: &[&ParamShape],
    manifest: &mut Manifest,
) -> Result<()> {
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
        let Some(stored) = folder.tensors.get(&param.name) else {
            if param.computed.is_some() {
                continue;
            }
            return Err(Error::bad_model(format!(
                "the weights of {component} lack the tensor `{}` of shape {:?}",
                param.name, param.shape
            )));
        };
        if stored.entry.shape != param.shape {
            return Err(Error::bad_model(format!(
                "{}: the tensor `{}` has shape {:?}, but the config asks for {:?}",
                stored.file.display(),
                param.name,
                stored.entry.shape,
                param.shape
            )));
        }
        if let Some(values) = stored.read_for(param)? {
            for finished in writer.add(&param.name, &param.shape, stored_as(args, param), &values)? {
                keep(finished)?;
            }
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
