//! A Janus folder, as transformers publishes it: `config.json` lies beside the weights, and there is no `model_index.json`.

use std::path::Path;

use inkbloom::{Result, pipeline::JANUS, weights::ModelFiles};
use serde_json::json;

use crate::files::{Folder, read_json};

/// What lies in `path`, where it is such a folder.
///
/// # Errors
/// `BadModel` naming the file that is missing or wrong.
pub fn read(path: &Path) -> Result<Option<Folder>> {
    let config = path.join("config.json");
    if !config.is_file() || read_json(&config)?["model_type"] != "janus" {
        return Ok(None);
    }
    let model_index = json!({ "_class_name": JANUS, "model": ["transformers", JANUS] });
    let mut folder = Folder { files: ModelFiles { model_index, ..Default::default() }, ..Default::default() };
    folder.read_component("model", path)?;
    folder.read_tokenizer("tokenizer", path)?;
    let settings = read_json(&path.join("generation_config.json"))?;
    folder.files.configs.insert("generation".to_owned(), settings);
    Ok(Some(folder))
}
