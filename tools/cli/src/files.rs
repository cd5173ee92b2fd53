//! Reading models from disk: a diffusers folder or a bundle.

use std::{
    collections::BTreeMap,
    fs::{self, File},
    io::{Read, Seek, SeekFrom},
    path::{Path, PathBuf},
};

use inkbloom::{
    Error, Result,
    pipeline::{AUTOREGRESSIVE, OPTIONAL, required_params},
    prompt::TokenizerFiles,
    weights::{
        ModelFiles, ParamShape, Tensors,
        bundle::{self, Loader, Manifest, Shard, component},
        canonical,
        config::{config_file, parse_json},
        lora, matrix,
        safetensors::Entry,
    },
};
use serde_json::{Value, json};

use crate::{
    chat, janus, locate,
    sniff::{self, Expected},
    spiece, weight_files,
};

/// A model on disk, its tensors not yet read.
pub enum Model {
    Folder(Folder),
    Bundle(Bundle),
}

/// A bundle.
pub struct Bundle {
    pub folder: PathBuf,
    pub manifest: Manifest,
}

/// A diffusers folder.
#[derive(Default)]
pub struct Folder {
    pub files: ModelFiles,
    /// `component/key` -> where it lies.
    pub tensors: BTreeMap<String, StoredTensor>,
    /// What is not wrong but worth telling.
    pub notes: Vec<String>,
}

/// One tensor of a safetensors file.
pub struct StoredTensor {
    pub file: PathBuf,
    pub entry: Entry,
    /// What LoRAs add to it.
    pub updates: Vec<LoraUpdate>,
}

/// What a LoRA adds to one weight, and where that is read.
pub struct LoraUpdate {
    pub file: PathBuf,
    pub update: lora::Update,
    pub scale: f32,
}

impl LoraUpdate {
    /// Adds it to the weight's values.
    ///
    /// # Errors
    /// `BadModel` where the file cannot be read.
    fn add_to(&self, values: &mut [f32]) -> Result<()> {
        let read = |entry: &Entry| read_values(&self.file, entry);
        let lora::Update { down, up, .. } = &self.update;
        lora::add(values, &read(down)?, &read(up)?, down.shape[0], self.update.factor(self.scale, read)?);
        Ok(())
    }
}

impl StoredTensor {
    /// With what LoRAs add.
    ///
    /// # Errors
    /// `BadModel` where a file cannot be read there, or stores an unknown number format.
    pub fn read(&self) -> Result<Vec<f32>> {
        let mut values = read_values(&self.file, &self.entry)?;
        self.updates.iter().try_for_each(|update| update.add_to(&mut values))?;
        Ok(values)
    }

    /// As [`read`](Self::read); `None` where it holds nothing but what `param` can be computed to.
    ///
    /// # Errors
    /// As [`read`](Self::read).
    pub fn read_for(&self, param: &ParamShape) -> Result<Option<Vec<f32>>> {
        let values = self.read()?;
        // What a value of at most 1 is rounded by, and a little more.
        let rounding = match self.entry.dtype {
            ::safetensors::Dtype::BF16 => 2f32.powi(-8),
            ::safetensors::Dtype::F16 => 2f32.powi(-11),
            _ => 1e-5,
        };
        let (_, columns) = matrix(&param.shape);
        let computed = param.computed.as_ref().is_some_and(|rows| rows.are(&values, columns, rounding));
        Ok((!computed).then_some(values))
    }
}

/// The components that a pipeline can name, besides its tokenizers.
const COMPONENTS: [&str; 8] =
    ["text_encoder", "text_encoder_2", "text_encoder_3", LANGUAGE, "transformer", "unet", "vae", "scheduler"];
/// GLM-Image's language model, and what its tokenizer lies in.
const LANGUAGE: &str = "vision_language_encoder";
const PROCESSOR: &str = "processor";
const TOKENIZERS: [&str; 3] = ["tokenizer", "tokenizer_2", "tokenizer_3"];

/// Opens a model: reads its JSON and the headers of its weights.
///
/// # Errors
/// `BadModel` naming the file that is missing or wrong.
pub fn open(folder: &Path) -> Result<Model> {
    open_without(folder, &[])
}

/// As [`open`], leaving components out.
///
/// # Errors
/// As [`open`]; `BadInput` for a component that the model does not have.
pub fn open_without(folder: &Path, without: &[String]) -> Result<Model> {
    let (model, missing) = survey_without(folder, without)?;
    missing.into_iter().next().map_or(Ok(model), Err)
}

/// As [`open`], of a folder that may lack components; what is wrong with each is told beside the rest.
///
/// # Errors
/// `BadModel` where it is no model at all.
pub fn survey(folder: &Path) -> Result<(Model, Vec<Error>)> {
    survey_without(folder, &[])
}

fn survey_without(folder: &Path, without: &[String]) -> Result<(Model, Vec<Error>)> {
    let folder = locate::folder(folder)?;
    if folder.join("manifest.json").is_file() {
        let mut bundle = Bundle::open(&folder)?;
        leave_out(&mut bundle.manifest.files, without)?;
        bundle.manifest.retain_components(|component| without.iter().all(|name| name != component));
        return Ok((Model::Bundle(bundle), Vec::new()));
    }
    if !folder.join("model_index.json").is_file() {
        let mut janus = janus::read(&folder)?.ok_or_else(|| locate::no_model(&folder))?;
        leave_out(&mut janus.files, without)?;
        return Ok((Model::Folder(janus), Vec::new()));
    }
    let files = ModelFiles { model_index: read_json(&folder.join("model_index.json"))?, ..Default::default() };
    let mut model = Folder { files, tensors: BTreeMap::new(), notes: Vec::new() };
    leave_out(&mut model.files, without)?;
    let mut missing = Vec::new();
    for component in COMPONENTS.into_iter().chain(OPTIONAL) {
        // An optional component that a model does without is [null, null]; a text encoder may lie elsewhere:
        // `convert --text-encoder`.
        if model.files.model_index[component][1].is_string()
            && (component != "text_encoder" || folder.join(component).is_dir())
        {
            missing.extend(model.read_component(component, &folder.join(component)).err());
        }
    }
    for component in TOKENIZERS {
        if model.files.model_index[component][1].is_string() {
            missing.extend(model.read_tokenizer(component, &folder.join(component)).err());
        }
    }
    if model.files.model_index[LANGUAGE][1].is_string() {
        missing.extend(model.read_language(&folder).err());
    }
    Ok((Model::Folder(model), missing))
}

/// Makes do without components: text encoders go with their tokenizers.
fn leave_out(files: &mut ModelFiles, without: &[String]) -> Result<()> {
    for name in without {
        if !files.model_index[name][1].is_string() {
            let index = files.model_index.as_object().into_iter().flatten();
            let known: Vec<&str> =
                index.filter(|(_, value)| value[1].is_string()).map(|(name, _)| name.as_str()).collect();
            return Err(Error::bad_input(format!(
                "there is no component {name} to leave out; this model has {}",
                known.join(", ")
            )));
        }
        for name in [name.clone(), name.replace("text_encoder", "tokenizer")] {
            files.configs.remove(&name);
            files.tokenizers.remove(&name);
            files.model_index[name] = json!([null, null]);
        }
    }
    Ok(())
}

impl Bundle {
    /// Reads the manifest.
    ///
    /// # Errors
    /// `BadModel` where there is none, or a wrong one.
    pub fn open(folder: &Path) -> Result<Self> {
        let path = folder.join("manifest.json");
        let manifest = sniff::explained(&path, Expected::Text, || Manifest::parse(&read_text(&path)?))?;
        Ok(Self { folder: folder.to_owned(), manifest })
    }

    /// One shard, whole and as the manifest promises it.
    ///
    /// # Errors
    /// `BadModel` where the file cannot be read, `CorruptWeights` where it is another.
    pub fn shard(&self, shard: &Shard) -> Result<Vec<u8>> {
        let path = self.folder.join(&shard.file);
        let bytes = fs::read(&path).map_err(|error| unreadable(&path, &error))?;
        shard.check(&bytes)?;
        Ok(bytes)
    }

    /// The values of one tensor, from shards that were checked before.
    ///
    /// # Errors
    /// `BadModel` where a file cannot be read.
    pub fn read(&self, tensor: &bundle::StoredTensor) -> Result<Vec<f32>> {
        let (rows, cols) = tensor.matrix();
        let mut values = Vec::with_capacity(rows * cols);
        for part in &tensor.parts {
            let path = self.folder.join(&self.manifest.shards[part.shard].file);
            let length = tensor.dtype.byte_len(part.rows, cols).unwrap_or(0);
            values.extend(tensor.dtype.decode(&read_range(&path, part.offset, length)?, part.rows, cols));
        }
        Ok(values)
    }
}

impl Folder {
    /// Reads one component's config and the headers of its weights from `folder`.
    ///
    /// # Errors
    /// `BadModel` naming the file that is missing or wrong.
    pub fn read_component(&mut self, component: &str, folder: &Path) -> Result<()> {
        let config = folder.join(Path::new(&config_file(component)).file_name().unwrap_or_default());
        self.files.configs.insert(component.to_owned(), read_json(&config)?);
        if component == "scheduler" {
            return Ok(());
        }
        let weights = weight_files::find(component, folder)?;
        self.notes.extend(weights.note);
        for (file, entries) in weights.files {
            for entry in entries {
                let name = canonical(&format!("{component}/{}", entry.name));
                self.tensors.insert(name, StoredTensor { file: file.clone(), entry, updates: Vec::new() });
            }
        }
        Ok(())
    }

    /// Reads what is around GLM-Image's language model: its tokenizer with the chat template, and how it draws.
    ///
    /// # Errors
    /// `BadModel` naming the file that is missing or wrong.
    fn read_language(&mut self, folder: &Path) -> Result<()> {
        let settings = folder.join(LANGUAGE).join("generation_config.json");
        if settings.is_file() {
            self.files.configs.insert("vision_language_generation".to_owned(), read_json(&settings)?);
        }
        let processor = folder.join(PROCESSOR);
        self.read_tokenizer(PROCESSOR, &processor)?;
        if let Some(config) = self.files.configs.get_mut(PROCESSOR).and_then(Value::as_object_mut) {
            config.remove("chat_template");
            config.insert("around_prompt".to_owned(), json!(chat::around(&processor)?));
        }
        Ok(())
    }

    /// Adds a component of a `library` that lies at `given`, or puts it in the place of the model's own.
    ///
    /// # Errors
    /// As [`read_component`](Self::read_component).
    pub fn add(&mut self, component: &str, library: &str, given: &Path) -> Result<()> {
        self.read_component(component, &locate::folder(given)?)?;
        let config = &self.files.configs[component];
        let class =
            if component == AUTOREGRESSIVE { &config["architectures"][0] } else { &config["_class_name"] }.clone();
        self.files.model_index[component] = json!([library, class]);
        Ok(())
    }

    /// Reads a tokenizer from `folder`, where there is one: `tokenizer.json`, CLIP's vocabulary and merges, or T5's
    /// SentencePiece model, with the tokens that were added and `tokenizer_config.json`.
    ///
    /// # Errors
    /// `BadModel` where a file is not what its name says.
    pub fn read_tokenizer(&mut self, component: &str, folder: &Path) -> Result<()> {
        let path = |name: &str| Some(folder.join(name)).filter(|path| path.is_file());
        let json = |name: &str| path(name).map(|file| read_json(&file)).transpose();
        let mut files = TokenizerFiles { tokenizer: json("tokenizer.json")?, ..Default::default() };
        // A model of ours says all there is to say in model_index.json and tokenizer.json.
        if self.files.model_index["_class_name"] == "InkbloomPipeline" {
            self.files.tokenizers.extend(files.tokenizer.map(|tokenizer| (component.to_owned(), tokenizer)));
            return Ok(());
        }
        files.config = json("tokenizer_config.json")?;
        files.special_tokens_map = json("special_tokens_map.json")?;
        files.added_tokens = json("added_tokens.json")?;
        if files.tokenizer.is_none() {
            match (path("vocab.json"), path("merges.txt"), path("spiece.model")) {
                (Some(vocabulary), Some(merges), _) => {
                    files.vocabulary = Some((read_json(&vocabulary)?, read_text(&merges)?));
                }
                (_, _, Some(model)) => {
                    let (tokenizer, extra) = spiece::read(&model, files.config.as_ref().unwrap_or(&Value::Null))?;
                    (files.tokenizer, files.extra_tokens) = (Some(tokenizer), extra);
                }
                _ => {}
            }
        }
        if let Some(whole) = files.assemble(&folder.display().to_string())? {
            self.files.tokenizers.insert(component.to_owned(), whole.tokenizer);
            self.files.configs.insert(component.to_owned(), whole.config);
        }
        Ok(())
    }
}

/// The values of a tensor in a safetensors file.
///
/// # Errors
/// `BadModel` where the file cannot be read there, or stores an unknown number format.
pub fn read_values(file: &Path, entry: &Entry) -> Result<Vec<f32>> {
    let bytes = read_range(file, entry.start as u64, entry.end - entry.start)?;
    entry.to_f32(&bytes, &file.display().to_string())
}

fn read_range(path: &Path, start: u64, length: usize) -> Result<Vec<u8>> {
    let mut bytes = vec![0; length];
    let read = File::open(path).and_then(|mut file| {
        file.seek(SeekFrom::Start(start))?;
        file.read_exact(&mut bytes)
    });
    read.map_err(|error| unreadable(path, &error))?;
    Ok(bytes)
}

impl Model {
    /// What is not wrong but worth telling.
    pub fn notes(&self) -> &[String] {
        match self {
            Self::Folder(folder) => &folder.notes,
            Self::Bundle(_) => &[],
        }
    }

    pub fn files(&self) -> &ModelFiles {
        match self {
            Self::Folder(folder) => &folder.files,
            Self::Bundle(bundle) => &bundle.manifest.files,
        }
    }

    /// Reads the weights into `tensors`; `progress` is told parts done and parts in all.
    ///
    /// # Errors
    /// `BadModel` or `CorruptWeights` naming the file.
    pub fn load(self, tensors: Tensors, mut progress: impl FnMut(usize, usize)) -> Result<(ModelFiles, Tensors)> {
        match self {
            Self::Folder(folder) => {
                let needed = required_params(&folder.files)?;
                for (i, param) in needed.iter().enumerate() {
                    // What is missing is named when the model takes its tensors.
                    if let Some(stored) = folder.tensors.get(&param.name)
                        && let Some(values) = stored.read_for(param)?
                    {
                        tensors.insert(&param.name, &stored.entry.shape, values);
                    }
                    progress(i + 1, needed.len());
                }
                Ok((folder.files, tensors))
            }
            Self::Bundle(Bundle { folder, mut manifest }) => {
                let needed = required_params(&manifest.files)?;
                manifest.check_params(&needed)?;
                // What this version knows nothing of may stay where it is.
                manifest.retain_components(|name| needed.iter().any(|param| component(&param.name) == name));
                let paths: Vec<PathBuf> = manifest.shards.iter().map(|shard| folder.join(&shard.file)).collect();
                let mut loader = Loader::new(manifest, tensors);
                for (i, path) in paths.iter().enumerate() {
                    loader.push(i, &fs::read(path).map_err(|error| unreadable(path, &error))?)?;
                    progress(i + 1, paths.len());
                }
                let (manifest, tensors) = loader.finish()?;
                Ok((manifest.files, tensors))
            }
        }
    }
}

/// # Errors
/// `BadModel` naming the file.
pub fn read_text(path: &Path) -> Result<String> {
    sniff::explained(path, Expected::Text, || fs::read_to_string(path).map_err(|error| unreadable(path, &error)))
}

/// # Errors
/// `BadModel` naming the file.
pub fn read_json(path: &Path) -> Result<Value> {
    sniff::explained(path, Expected::Text, || parse_json(&read_text(path)?, &path.display().to_string()))
}

pub fn cannot_write(path: &Path, error: &impl std::fmt::Display) -> Error {
    Error::bad_input(format!("{} cannot be written: {error}", path.display()))
}

pub fn unreadable(path: &Path, error: &std::io::Error) -> Error {
    Error::bad_model(format!("{} cannot be read: {error}", path.display()))
}
