//! `inkbloom inspect`.

use std::{collections::BTreeMap, path::PathBuf};

use inkbloom::{
    Result,
    pipeline::{Way, memory_needs, required_params, ways},
};

use crate::files::{self, Bundle, Model};

#[derive(clap::Args)]
pub struct Args {
    /// A diffusers folder or a bundle
    #[arg(value_name = "DIR")]
    model: PathBuf,
}

/// Parameters, stored bytes and formats of one component.
#[derive(Default)]
struct Component {
    parameters: usize,
    bytes: BTreeMap<String, usize>,
}

pub fn run(args: &Args) -> Result<()> {
    let (model, wrong) = files::survey(&args.model)?;
    let files = model.files();
    let index = &files.model_index;
    println!("{}", index["_class_name"].as_str().unwrap_or("no pipeline class"));
    let mut components: BTreeMap<&str, Component> = BTreeMap::new();
    let mut count = |name: &'_ str, values: usize, dtype: String, bytes: usize| {
        let component = components.entry(component_name(files, name)).or_default();
        component.parameters += values;
        *component.bytes.entry(dtype).or_default() += bytes;
    };
    match &model {
        Model::Folder(folder) => {
            for (name, stored) in &folder.tensors {
                let bytes = stored.entry.end - stored.entry.start;
                count(
                    name,
                    stored.entry.shape.iter().product(),
                    format!("{:?}", stored.entry.dtype).to_lowercase(),
                    bytes,
                );
            }
        }
        Model::Bundle(Bundle { manifest, .. }) => {
            for tensor in &manifest.tensors {
                let (rows, cols) = tensor.matrix();
                let bytes = tensor.dtype.byte_len(rows, cols).unwrap_or(0);
                count(&tensor.name, rows * cols, tensor.dtype.name().to_owned(), bytes);
            }
        }
    }
    for (name, component) in &components {
        let class = index[*name][1].as_str().unwrap_or("?");
        let bytes: Vec<String> =
            component.bytes.iter().map(|(dtype, bytes)| format!("{dtype} {}", mib(*bytes as u64))).collect();
        let optional = match &model {
            Model::Bundle(bundle) if bundle.manifest.is_optional(name) => ", fetched when it is asked for",
            _ => "",
        };
        println!(
            "  {name:14} {class:28} {:>8.2} M parameters  {}{optional}",
            component.parameters as f64 / 1e6,
            bytes.join(", ")
        );
    }
    println!("  {:14} {}", "scheduler", index["scheduler"][1].as_str().unwrap_or("none"));
    for key in ["sizes", "styles", "alpha", "max_text_tokens", "default_steps", "default_guidance"] {
        if !index[key].is_null() {
            println!("  {key:14} {}", index[key]);
        }
    }
    for note in model.notes() {
        println!("  NOTE: {note}");
    }
    for error in &wrong {
        println!("  MISSING: {error}");
    }
    let needed = match required_params(files) {
        Ok(needed) => needed,
        Err(error) => {
            println!("  CANNOT RUN: {error}");
            return Ok(());
        }
    };
    let known: Vec<_> = ways(files)?.into_iter().map(Way::name).collect();
    println!("  ways           {}", known.join(", "));
    let needs = memory_needs(files)?;
    println!(
        "  on the device  {} of weights in f32, {} of them text encoders; about {} more to draw",
        mib(needs.text + needs.other),
        mib(needs.text),
        mib(needs.denoising.max(needs.decoding))
    );
    files.notes.list().iter().for_each(|note| println!("  note: {note}"));
    let stored = |name: &str| match &model {
        Model::Folder(folder) => folder.tensors.contains_key(name),
        Model::Bundle(Bundle { manifest, .. }) => manifest.tensors.iter().any(|tensor| tensor.name == name),
    };
    let must = needed.iter().filter(|param| param.computed.is_none()).map(|param| param.name.as_str());
    let missing: Vec<&str> = must.filter(|name| !stored(name)).collect();
    match missing.as_slice() {
        [] => println!("  complete: every tensor that the configs ask for is there"),
        [first, ..] => println!("  INCOMPLETE: {} tensors are missing, the first is {first}", missing.len()),
    }
    Ok(())
}

/// The part of `component/key` before the slash, borrowed from the configs, which outlive the loop.
fn component_name<'a>(files: &'a inkbloom::weights::ModelFiles, name: &str) -> &'a str {
    let component = name.split('/').next().unwrap_or_default();
    files.configs.keys().find(|key| *key == component).map_or("?", String::as_str)
}

fn mib(bytes: u64) -> String {
    format!("{:.1} MiB", bytes as f64 / (1 << 20) as f64)
}
