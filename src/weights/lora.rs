//! LoRA: small matrices that change a model's weights by their product, `W += scale * alpha / rank * up down` (Hu et al.,
//! arXiv 2106.09685). Read as diffusers, PEFT and Kohya's scripts name them; reading the bytes is the caller's affair.

use std::collections::{BTreeMap, HashMap};

use serde_json::Value;

use super::safetensors::Entry;
use crate::{Error, Result};

/// Where diffusers keeps what is to be known of a LoRA besides its tensors: a key of the header's metadata.
const METADATA: &str = "lora_adapter_metadata";

#[derive(Clone, Copy, PartialEq, Eq)]
enum Part {
    Down,
    Up,
    Alpha,
}

/// How the names of a LoRA's tensors end; before that stands the layer.
const ENDINGS: [(&str, Part); 11] = [
    (".lora_A.weight", Part::Down),
    (".lora_B.weight", Part::Up),
    (".lora.down.weight", Part::Down),
    (".lora.up.weight", Part::Up),
    // Of attention processors: `attn1.processor.to_q_lora.down.weight`.
    ("_lora.down.weight", Part::Down),
    ("_lora.up.weight", Part::Up),
    (".lora_linear_layer.down.weight", Part::Down),
    (".lora_linear_layer.up.weight", Part::Up),
    (".lora_down.weight", Part::Down),
    (".lora_up.weight", Part::Up),
    (".alpha", Part::Alpha),
];

/// What a LoRA adds to one weight.
#[derive(Clone, Debug)]
pub struct Update {
    /// `[rank, ...]`: the weight's shape but for its first dimension.
    pub down: Entry,
    /// `[d_out, rank]`, of a convolution with ones behind.
    pub up: Entry,
    /// One number; where there is none, that of the file's metadata, or else the rank.
    alpha: Option<Entry>,
    told_alpha: Option<f32>,
}

impl Update {
    /// What the product is multiplied by, with the LoRA at `scale`; `read` gives a tensor's values.
    ///
    /// # Errors
    /// What `read` gives.
    pub fn factor(&self, scale: f32, read: impl FnOnce(&Entry) -> Result<Vec<f32>>) -> Result<f32> {
        let rank = self.down.shape[0] as f32;
        let alpha = match &self.alpha {
            Some(entry) => read(entry)?.first().copied(),
            None => self.told_alpha,
        };
        Ok(scale * alpha.unwrap_or(rank) / rank)
    }

    /// # Errors
    /// `BadModel` naming `file`, the tensor and the shapes, where the product is not of a weight's `shape`.
    fn check(&self, shape: &[usize], weight: &str, file: &str) -> Result<()> {
        let ([rank, columns @ ..], [rows, up_rank, ones @ ..], [d_out, rest @ ..]) =
            (self.down.shape.as_slice(), self.up.shape.as_slice(), shape)
        else {
            return Err(self.of_another(shape, weight, file));
        };
        let fits = rank > &0
            && rank == up_rank
            && rows == d_out
            && ones.iter().all(|one| *one == 1)
            && columns.iter().product::<usize>() == rest.iter().product::<usize>();
        if fits { Ok(()) } else { Err(self.of_another(shape, weight, file)) }
    }

    fn of_another(&self, shape: &[usize], weight: &str, file: &str) -> Error {
        Error::bad_model(format!(
            "{file}: `{}` of shape {:?} and `{}` of {:?} do not make an update of `{weight}`, which has {shape:?}; take a LoRA \
             that was made for this model",
            self.down.name, self.down.shape, self.up.name, self.up.shape
        ))
    }
}

/// `values += factor * up down`, for a weight whose first dimension has as many rows as `up`; both are row-major, and `down` has
/// `rank` rows.
pub fn add(values: &mut [f32], down: &[f32], up: &[f32], rank: usize, factor: f32) {
    let columns = down.len() / rank;
    for (row, weights) in values.chunks_exact_mut(columns).zip(up.chunks_exact(rank)) {
        for (down, weight) in down.chunks_exact(columns).zip(weights) {
            row.iter_mut().zip(down).for_each(|(value, down)| *value += factor * weight * down);
        }
    }
}

/// What the LoRA in `file` adds to which weights of a model: `entries` and `metadata` are its header, `weights` the model's
/// names (`component/key`) and shapes.
///
/// # Errors
/// `BadModel` naming the first tensor that fits no weight of the model, or has no counterpart, or another shape.
pub fn updates<'a>(
    entries: Vec<Entry>,
    metadata: &HashMap<String, String>,
    weights: impl Iterator<Item = (&'a str, &'a [usize])>,
    file: &str,
) -> Result<BTreeMap<String, Update>> {
    let told = told(metadata, file)?;
    let mut layers: HashMap<String, Vec<(&str, &[usize])>> = HashMap::new();
    for (name, shape) in weights {
        for layer in spellings(name) {
            layers.entry(layer).or_default().push((name, shape));
        }
    }
    let mut found: Vec<(String, [Option<Entry>; 3])> = Vec::new();
    let mut places: HashMap<String, usize> = HashMap::new();
    for entry in entries {
        let ending = ENDINGS.iter().find(|(ending, _)| entry.name.ends_with(ending));
        let layer = ending.map(|(ending, _)| entry.name[..entry.name.len() - ending.len()].replace(".processor.", "."));
        let (Some((_, part)), Some(layer)) = (ending, layer.filter(|layer| layers.contains_key(layer))) else {
            return Err(Error::bad_model(format!(
                "{file}: the tensor `{}` changes no weight of this model; take a LoRA that was made for it, in diffusers' format",
                entry.name
            )));
        };
        let place = *places.entry(layer.clone()).or_insert_with(|| {
            found.push((layer, [None, None, None]));
            found.len() - 1
        });
        found[place].1[*part as usize] = Some(entry);
    }
    let mut updates = BTreeMap::new();
    for (layer, parts) in found {
        let [Some(down), Some(up), alpha] = parts else {
            return Err(Error::bad_model(format!(
                "{file}: of the two matrices for `{layer}` one is missing; fetch the file again"
            )));
        };
        for (weight, shape) in &layers[&layer] {
            let component = layer.split('.').next().unwrap_or_default();
            let told_alpha = told.get(component).copied();
            let update = Update { down: down.clone(), up: up.clone(), alpha: alpha.clone(), told_alpha };
            update.check(shape, weight, file)?;
            updates.insert((*weight).to_owned(), update);
        }
    }
    Ok(updates)
}

/// The alphas that the header tells, by component.
fn told(metadata: &HashMap<String, String>, file: &str) -> Result<HashMap<String, f32>> {
    let Some(text) = metadata.get(METADATA) else { return Ok(HashMap::new()) };
    let wrong = |why: &str| {
        Error::bad_model(format!("{file}: {why}; save it as a plain LoRA of one alpha, or fused into the model"))
    };
    let values: HashMap<String, Value> =
        serde_json::from_str(text).map_err(|error| wrong(&format!("`{METADATA}` is not valid JSON ({error})")))?;
    let mut alphas = HashMap::new();
    for (key, value) in values {
        let (component, key) = key.split_once('.').unwrap_or(("", &key));
        match key {
            "lora_alpha" => drop(value.as_f64().map(|alpha| alphas.insert(component.to_owned(), alpha as f32))),
            "use_dora" | "use_rslora" | "alpha_pattern"
                if value == Value::Bool(true) || value.as_object().is_some_and(|pattern| !pattern.is_empty()) =>
            {
                return Err(wrong(&format!("`{component}.{key}` is nothing that this version adds")));
            }
            _ => {}
        }
    }
    Ok(alphas)
}

/// The names that the layer of a stored weight has in LoRAs; none where it is no weight of a layer.
fn spellings(weight: &str) -> Vec<String> {
    let layer = weight.strip_suffix(".weight").and_then(|name| name.split_once('/'));
    let Some((component, key)) = layer else { return Vec::new() };
    // A motion adapter's modules stand in the network that it animates.
    let (owners, kohya): (&[&str], &[&str]) = match component {
        "motion_adapter" => (&["unet", "transformer"], &["lora_unet"]),
        "unet" | "transformer" => (std::slice::from_ref(&component), &["lora_unet"]),
        "text_encoder" => (std::slice::from_ref(&component), &["lora_te", "lora_te1"]),
        "text_encoder_2" => (std::slice::from_ref(&component), &["lora_te2"]),
        "text_encoder_3" => (std::slice::from_ref(&component), &["lora_te3"]),
        _ => return Vec::new(),
    };
    let mut keys = vec![key.to_owned()];
    for (now, before) in
        [("to_out.0", "to_out"), ("q_proj", "to_q"), ("k_proj", "to_k"), ("v_proj", "to_v"), ("out_proj", "to_out")]
    {
        keys.extend(key.strip_suffix(now).filter(|start| start.ends_with('.')).map(|start| format!("{start}{before}")));
    }
    let bare = keys.iter().filter_map(|key| Some(key.strip_prefix("text_model.")?.to_owned()));
    keys.extend(bare.collect::<Vec<_>>());
    let dotted = keys.iter().flat_map(|key| owners.iter().map(move |owner| format!("{owner}.{key}")));
    let mut names: Vec<String> =
        dotted.chain(kohya.iter().map(|start| format!("{start}_{}", key.replace('.', "_")))).collect();
    if !component.starts_with("text") {
        names.extend(keys);
    }
    names
}

#[cfg(test)]
mod tests {
    use safetensors::Dtype;

    use super::*;

    fn entries(names: &[&str], shapes: &[&[usize]]) -> Vec<Entry> {
        let all = names.iter().zip(shapes).map(|(name, shape)| Entry {
            name: (*name).to_owned(),
            shape: shape.to_vec(),
            dtype: Dtype::F32,
            start: 0,
            end: 0,
        });
        all.collect()
    }

    fn read(names: &[&str], shapes: &[&[usize]], metadata: &str) -> Result<BTreeMap<String, Update>> {
        let weights: [(&str, &[usize]); 3] = [
            ("unet/mid.attn1.to_out.0.weight", &[6, 4]),
            ("motion_adapter/mid.motion_modules.0.attn1.to_q.weight", &[4, 4]),
            ("text_encoder/text_model.encoder.layers.0.self_attn.q_proj.weight", &[4, 4]),
        ];
        let metadata = HashMap::from([(METADATA.to_owned(), metadata.to_owned())]);
        updates(entries(names, shapes), &metadata, weights.into_iter(), "cat.safetensors")
    }

    #[test]
    fn a_product_is_added() {
        let mut values = [1.0; 6];
        // Two rows of three columns, of rank two.
        add(&mut values, &[1.0, 0.0, 2.0, 0.0, 1.0, 0.0], &[1.0, 3.0, 0.0, 1.0], 2, 0.5);
        assert_eq!(values, [1.5, 2.5, 2.0, 1.0, 1.5, 1.0]);
    }

    #[test]
    fn every_spelling_meets_its_weight() {
        let attention: [&[usize]; 2] = [&[2, 4], &[6, 2]];
        let square: [&[usize]; 2] = [&[2, 4], &[4, 2]];
        for (down, up, shapes, component) in [
            ("unet.mid.attn1.to_out.0.lora_A.weight", "unet.mid.attn1.to_out.0.lora_B.weight", attention, "unet"),
            (
                "mid.attn1.processor.to_out_lora.down.weight",
                "mid.attn1.processor.to_out_lora.up.weight",
                attention,
                "unet",
            ),
            (
                "lora_unet_mid_attn1_to_out_0.lora_down.weight",
                "lora_unet_mid_attn1_to_out_0.lora_up.weight",
                attention,
                "unet",
            ),
            (
                "unet.mid.motion_modules.0.attn1.to_q.lora.down.weight",
                "unet.mid.motion_modules.0.attn1.to_q.lora.up.weight",
                square,
                "motion_adapter",
            ),
            (
                "text_encoder.encoder.layers.0.self_attn.q_proj.lora_linear_layer.down.weight",
                "text_encoder.encoder.layers.0.self_attn.q_proj.lora_linear_layer.up.weight",
                square,
                "text_encoder",
            ),
            (
                "lora_te_text_model_encoder_layers_0_self_attn_q_proj.lora_down.weight",
                "lora_te_text_model_encoder_layers_0_self_attn_q_proj.lora_up.weight",
                square,
                "text_encoder",
            ),
        ] {
            let found = read(&[down, up], &shapes, "{}").unwrap();
            assert_eq!(found.len(), 1);
            assert!(found.keys().all(|weight| weight.starts_with(component)), "{down} is for {found:?}");
        }
    }

    #[test]
    fn alpha_is_its_own_tensor_or_the_headers_or_the_rank() {
        let names = [
            "unet.mid.attn1.to_out.0.lora_A.weight",
            "unet.mid.attn1.to_out.0.lora_B.weight",
            "unet.mid.attn1.to_out.0.alpha",
        ];
        let shapes: [&[usize]; 3] = [&[2, 4], &[6, 2], &[]];
        let factor = |count: usize, metadata: &str| {
            let found = read(&names[..count], &shapes[..count], metadata).unwrap();
            found.values().next().unwrap().factor(0.5, |_| Ok(vec![8.0])).unwrap()
        };
        assert_eq!(factor(2, "{}"), 0.5);
        assert_eq!(factor(3, "{}"), 2.0);
        assert_eq!(factor(2, r#"{"unet.lora_alpha": 6, "unet.r": 2}"#), 1.5);
    }

    #[test]
    fn what_does_not_fit_is_named() {
        let two = ["unet.mid.attn1.to_out.0.lora_A.weight", "unet.mid.attn1.to_out.0.lora_B.weight"];
        let right: [&[usize]; 2] = [&[2, 4], &[6, 2]];
        let fails = |names: &[&str], shapes: &[&[usize]], metadata: &str, words: &[&str]| {
            let message = read(names, shapes, metadata).unwrap_err().message;
            assert!(words.iter().chain(&["cat.safetensors"]).all(|word| message.contains(word)), "{message}");
        };
        fails(
            &["unet.other.lora_A.weight", two[0]],
            &right,
            "{}",
            &["`unet.other.lora_A.weight`", "no weight of this model"],
        );
        fails(&["unet.mid.attn1.to_out.0.dora_scale"], &right, "{}", &["dora_scale"]);
        fails(&two[..1], &right, "{}", &["`unet.mid.attn1.to_out.0`", "one is missing"]);
        for shapes in
            [[&[2usize, 5][..], &[6, 2]], [&[2, 4], &[6, 3]], [&[2, 4], &[5, 2]], [&[0, 4], &[6, 0]], [&[], &[6, 2]]]
        {
            fails(&two, &shapes, "{}", &["[6, 4]", "lora_A"]);
        }
        fails(&two, &right, r#"{"unet.use_dora": true}"#, &["`unet.use_dora`"]);
        fails(&two, &right, "{", &["not valid JSON"]);
    }
}
