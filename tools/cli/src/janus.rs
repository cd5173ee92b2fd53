//! A Janus folder, as transformers publishes it: `config.json` lies beside the weights, and there is no `model_index.json`.

use std::path::Path;

use burn::tensor::Device;
use inkbloom::{
    Result,
    autoregress::Logits,
    pipeline::{
        Generated, Request,
        janus::{GENERATION, Janus, JanusEvent, MODEL, TOKENIZER},
    },
    values::read,
    weights::Tensors,
};

use crate::{
    dump::Dump,
    files::{Folder, read_json},
    progress::Progress,
};

/// Whether `folder` holds one.
pub fn is_one(folder: &Path) -> bool {
    let config = folder.join("config.json");
    let alone = !folder.join("model_index.json").is_file() && config.is_file();
    alone && read_json(&config).is_ok_and(|config| config["model_type"] == "janus")
}

/// Draws what `request` asks for, and notes the first picture's numbers in `dump`.
///
/// # Errors
/// `BadModel` naming the file that is missing or wrong; `BadInput` for what the model cannot do.
pub fn draw(path: &Path, request: &Request, dump: Option<&mut Dump>) -> Result<Generated> {
    let mut folder = Folder::default();
    folder.read_component(MODEL, path)?;
    folder.read_tokenizer(TOKENIZER, path)?;
    let settings = read_json(&path.join("generation_config.json"))?;
    folder.files.configs.insert(GENERATION.to_owned(), settings);
    folder.notes.iter().for_each(|note| eprintln!("note: {note}"));

    let (loading, tensors) = (Progress::new("loading"), Tensors::new(&Device::flex()));
    let needed = Janus::required_params(&folder.files, tensors.device())?;
    for (i, param) in needed.iter().enumerate() {
        // What is missing is named when the model takes its tensors.
        if let Some(stored) = folder.tensors.get(&param.name) {
            tensors.insert(&param.name, &stored.entry.shape, stored.read()?);
        }
        loading.set(i + 1, needed.len());
    }
    let model = Janus::load(&folder.files, &tensors)?;

    let drawing = Progress::new("drawing");
    let mut dump = dump;
    pollster::block_on(model.generate(request, async |event| {
        if let JanusEvent::Tokens { image, count, row, rows, .. } = &event {
            drawing.set(image * rows + row, count * rows);
        }
        match &mut dump {
            Some(dump) => note(dump, event).await,
            None => Ok(()),
        }
    }))
}

async fn note(dump: &mut Dump, event: JanusEvent<'_>) -> Result<()> {
    match event {
        JanusEvent::Text { ids } => dump.i64("input_ids".to_owned(), &[1, ids.len()], ids),
        JanusEvent::Tokens { image: 0, row, rows, tokens, logits, .. } => {
            for Logits { draw, values } in logits {
                dump.f32(format!("logits.{draw}"), &[values.len()], values);
            }
            if row == rows {
                // As ours have them, which have two codes in a place.
                let pairs: Vec<i64> = tokens.codes.iter().flat_map(|code| [i64::from(*code), 0]).collect();
                dump.i64("tokens".to_owned(), &[tokens.codes.len(), 2], &pairs);
            }
        }
        JanusEvent::Decoded { image: 0, pixels } => {
            dump.f32("image".to_owned(), &pixels.dims(), &read(pixels.clone()).await?);
        }
        _ => {}
    }
    Ok(())
}
