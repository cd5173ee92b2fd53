//! A bundle as the diffusers folder that it was made from, so that Python loads it.

use std::{
    borrow::Cow,
    cell::RefCell,
    collections::{BTreeSet, HashMap},
    fs,
    path::Path,
};

use half::f16;
use inkbloom::{
    Error, Result,
    pipeline::{GLM_IMAGE, JANUS},
    weights::{StoredDtype, bundle::StoredTensor, config::config_file},
};
use safetensors::{Dtype, View, serialize_to_file};
use serde_json::Value;

use crate::files::{Bundle, cannot_write};

/// Writes `bundle` to the folder `to`, its weights in `dtype`, f32 or f16. f32 holds whatever a bundle stores exactly.
///
/// # Errors
/// `BadModel` or `CorruptWeights` naming the file that is missing or wrong; `BadInput` where `to` cannot be written.
pub fn write(bundle: &Bundle, to: &Path, dtype: StoredDtype) -> Result<()> {
    let manifest = &bundle.manifest;
    let class = &manifest.files.model_index["_class_name"];
    if [JANUS, GLM_IMAGE].iter().any(|name| class == name) {
        return Err(Error::bad_input(format!(
            "a bundle of {class} holds what draws pictures and not what looks at them, so no folder for Python can be made of it"
        )));
    }
    for shard in &manifest.shards {
        bundle.shard(shard)?;
    }
    let files = &manifest.files;
    write_json(&to.join("model_index.json"), &files.model_index)?;
    for (component, config) in &files.configs {
        let mut config = config.clone();
        // Python wrote -Infinity, which JSON lacks and we read as null. It is the default, too, where null is not.
        if let Some(config) = config.as_object_mut()
            && config.get("lambda_min_clipped").is_some_and(Value::is_null)
        {
            config.remove("lambda_min_clipped");
        }
        write_json(&to.join(config_file(plain(component)?)), &config)?;
    }
    for (component, tokenizer) in &files.tokenizers {
        write_json(&to.join(plain(component)?).join("tokenizer.json"), tokenizer)?;
    }
    let components: BTreeSet<&str> = manifest.tensors.iter().map(StoredTensor::component).collect();
    for component in components {
        let file = match files.model_index[component][0].as_str() {
            Some("transformers") => "model.safetensors",
            _ => "diffusion_pytorch_model.safetensors",
        };
        write_weights(bundle, component, &to.join(plain(component)?).join(file), dtype)?;
    }
    let notice = [manifest.license.as_str(), manifest.attribution.as_str()].join("\n\n");
    if !notice.trim().is_empty() {
        write_file(&to.join("ATTRIBUTION.md"), format!("{}\n", notice.trim()))?;
    }
    Ok(())
}

/// The name of a component, which becomes a folder: it must not lead out of `--to`.
fn plain(component: &str) -> Result<&str> {
    let plain = !component.is_empty() && component.bytes().all(|b| b.is_ascii_alphanumeric() || b == b'_' || b == b'-');
    if plain {
        Ok(component)
    } else {
        Err(Error::bad_model(format!("manifest.json: \"{component}\" is no name of a component")))
    }
}

fn write_weights(bundle: &Bundle, component: &str, path: &Path, dtype: StoredDtype) -> Result<()> {
    let trouble = RefCell::new(None);
    let tensors = bundle.manifest.tensors.iter().filter(|tensor| tensor.component() == component);
    let views = tensors.map(|tensor| {
        let key = tensor.name.split_once('/').map_or(tensor.name.as_str(), |(_, key)| key);
        (key, StoredView { bundle, tensor, dtype, trouble: &trouble })
    });
    // transformers wants to be told who wrote it.
    let info = HashMap::from([("format".to_owned(), "pt".to_owned())]);
    create_folder(path)?;
    let written = serialize_to_file(views, Some(info), path).map_err(|error| cannot_write(path, &error));
    trouble.into_inner().map_or(written, Err)
}

/// A tensor that is read when it is written: one is in memory at a time.
struct StoredView<'a> {
    bundle: &'a Bundle,
    tensor: &'a StoredTensor,
    dtype: StoredDtype,
    /// What went wrong first, for [`View::data`] cannot tell.
    trouble: &'a RefCell<Option<Error>>,
}

impl StoredView<'_> {
    fn bytes(&self) -> Result<Vec<u8>> {
        let values = self.bundle.read(self.tensor)?;
        if self.dtype == StoredDtype::F16 && values.iter().any(|value| !f16::from_f32(*value).is_finite()) {
            return Err(Error::bad_input(format!(
                "the tensor `{}` has values that f16 cannot hold; give --dtype f32",
                self.tensor.name
            )));
        }
        Ok(self.dtype.encode(&values, self.tensor.matrix().1))
    }
}

impl View for StoredView<'_> {
    fn dtype(&self) -> Dtype {
        if self.dtype == StoredDtype::F16 { Dtype::F16 } else { Dtype::F32 }
    }

    fn shape(&self) -> &[usize] {
        &self.tensor.shape
    }

    fn data(&self) -> Cow<'_, [u8]> {
        self.bytes().map_or_else(
            |error| {
                self.trouble.borrow_mut().get_or_insert(error);
                Cow::Borrowed(&[][..])
            },
            Cow::Owned,
        )
    }

    fn data_len(&self) -> usize {
        let (rows, cols) = self.tensor.matrix();
        self.dtype.byte_len(rows, cols).unwrap_or(0)
    }
}

fn write_json(path: &Path, value: &Value) -> Result<()> {
    write_file(path, format!("{value:#}\n"))
}

fn write_file(path: &Path, content: String) -> Result<()> {
    create_folder(path)?;
    fs::write(path, content).map_err(|error| cannot_write(path, &error))
}

/// The folder that `file` will lie in.
fn create_folder(file: &Path) -> Result<()> {
    let folder = file.parent().unwrap_or(file);
    fs::create_dir_all(folder).map_err(|error| cannot_write(folder, &error))
}
