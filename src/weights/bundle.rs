//! The bundle: a model in shards of at most 16 MiB, each with its SHA-256, so that a download can resume
//! and a wrong byte is found; and the loader that moves them to the device one at a time.

use std::collections::{BTreeMap, BTreeSet};

use burn::tensor::Tensor;
use serde::{Deserialize, Serialize};
use sha2::{Digest, Sha256};

use super::{ModelFiles, ParamShape, StoredDtype, Tensors, matrix};
use crate::{Code, Error, Result};

/// The value of `format` in every manifest.
pub const FORMAT: &str = "inkbloom-bundle";
/// The manifest version that this code writes. It reads all from 1 on: 2 added `optional`, and names for shards that change
/// with what they hold.
pub const VERSION: u64 = 2;
/// The largest shard, in bytes.
pub const MAX_SHARD: u64 = 16 << 20;

/// `manifest.json`.
#[derive(Clone, Debug, Serialize, Deserialize)]
pub struct Manifest {
    pub format: String,
    pub version: u64,
    pub name: String,
    /// SPDX expression of the weights.
    #[serde(default)]
    pub license: String,
    /// Who is to be named, one line each.
    #[serde(default)]
    pub attribution: String,
    /// Components that only some drawings take: a loader of all the rest leaves them out, until one is asked for.
    #[serde(default, skip_serializing_if = "Vec::is_empty")]
    pub optional: Vec<String>,
    #[serde(flatten)]
    pub files: ModelFiles,
    pub shards: Vec<Shard>,
    pub tensors: Vec<StoredTensor>,
}

#[derive(Clone, Debug, PartialEq, Eq, Serialize, Deserialize)]
pub struct Shard {
    /// Relative to the manifest.
    pub file: String,
    pub size: u64,
    /// Lower-case hexadecimal.
    pub sha256: String,
}

impl Shard {
    /// The file of a component's shard number `index`.
    pub fn file_name(component: &str, index: usize, sha256: &str) -> String {
        let hash = sha256.get(..8).unwrap_or(sha256);
        format!("{component}-{index:03}-{hash}.bin")
    }

    /// # Errors
    /// `CorruptWeights` where size or SHA-256 of its file's bytes are not the manifest's.
    pub fn check(&self, bytes: &[u8]) -> Result<()> {
        let corrupt =
            |why: String| Err(Error::new(Code::CorruptWeights, format!("{} {why}; fetch it again", self.file)));
        if bytes.len() as u64 != self.size {
            return corrupt(format!("has {} bytes instead of {}", bytes.len(), self.size));
        }
        if sha256(bytes) != self.sha256 {
            return corrupt("does not have the SHA-256 that the manifest promises".to_owned());
        }
        Ok(())
    }
}

#[derive(Clone, Debug, Serialize, Deserialize)]
pub struct StoredTensor {
    /// `component/key`, e.g. `vae/decoder.layers.0.weight`.
    pub name: String,
    pub shape: Vec<usize>,
    pub dtype: StoredDtype,
    /// Consecutive rows of the tensor, so that one larger than a shard spans several.
    pub parts: Vec<Part>,
}

#[derive(Clone, Debug, Serialize, Deserialize)]
pub struct Part {
    pub shard: usize,
    pub offset: u64,
    pub rows: usize,
}

impl StoredTensor {
    /// What stands before the slash of its name, e.g. `vae`.
    pub fn component(&self) -> &str {
        component(&self.name)
    }

    /// `(rows, columns)`: a tensor as the matrix that [`StoredDtype`] stores.
    pub fn matrix(&self) -> (usize, usize) {
        matrix(&self.shape)
    }
}

/// The component of a tensor's name, `component/key`.
pub fn component(name: &str) -> &str {
    name.split('/').next().unwrap_or_default()
}

/// SHA-256 as lower-case hexadecimal.
pub fn sha256(bytes: &[u8]) -> String {
    format!("{:x}", Sha256::digest(bytes))
}

impl Manifest {
    /// Parses and checks a manifest.
    ///
    /// # Errors
    /// `BadModel` naming the culprit: not JSON, another format or version, a tensor twice, parts that
    /// overlap, reach beyond their shard or do not add up to the tensor, a shard that is too large.
    pub fn parse(json: &str) -> Result<Self> {
        // The version is looked at first: another version may well have other fields.
        let value: serde_json::Value = serde_json::from_str(json)
            .map_err(|error| Error::bad_model(format!("manifest.json is not valid JSON: {error}")))?;
        if value["format"] != FORMAT {
            return Err(Error::bad_model(format!(
                "manifest.json: `format` is {}; it must be \"{FORMAT}\"",
                value["format"]
            )));
        }
        if !value["version"].as_u64().is_some_and(|version| (1..=VERSION).contains(&version)) {
            return Err(Error::bad_model(format!(
                "manifest.json: `version` is {}; this code reads versions 1 to {VERSION}: convert the model again or update inkbloom",
                value["version"]
            )));
        }
        let manifest: Self =
            serde_json::from_value(value).map_err(|error| Error::bad_model(format!("manifest.json: {error}")))?;
        manifest.check()?;
        Ok(manifest)
    }

    fn check(&self) -> Result<()> {
        for shard in &self.shards {
            if shard.size > MAX_SHARD {
                return Err(Error::bad_model(format!(
                    "manifest.json: the shard {} has {} bytes; a shard has at most {MAX_SHARD}",
                    shard.file, shard.size
                )));
            }
            let hash = &shard.sha256;
            if hash.len() != 64 || !hash.bytes().all(|b| b.is_ascii_digit() || (b'a'..=b'f').contains(&b)) {
                return Err(Error::bad_model(format!(
                    "manifest.json: the shard {} has the malformed sha256 \"{hash}\"",
                    shard.file
                )));
            }
        }
        let mut names = BTreeSet::new();
        // Per shard: (start, end, tensor).
        let mut ranges: Vec<Vec<(u64, u64, &str)>> = vec![Vec::new(); self.shards.len()];
        for tensor in &self.tensors {
            let name = tensor.name.as_str();
            if !names.insert(name) {
                return Err(Error::bad_model(format!("manifest.json: the tensor `{name}` stands there twice")));
            }
            let overflow = || {
                Error::bad_model(format!(
                    "manifest.json: the tensor `{name}` has the impossible shape {:?}",
                    tensor.shape
                ))
            };
            let values = tensor.shape.iter().try_fold(1usize, |n, d| n.checked_mul(*d));
            values.filter(|values| *values > 0).ok_or_else(overflow)?;
            let (rows, cols) = tensor.matrix();
            let mut sum = 0usize;
            for part in &tensor.parts {
                let length = tensor.dtype.byte_len(part.rows, cols).ok_or_else(overflow)? as u64;
                sum = sum.checked_add(part.rows).ok_or_else(overflow)?;
                let shard = self.shards.get(part.shard).ok_or_else(|| {
                    Error::bad_model(format!(
                        "manifest.json: the tensor `{name}` lies in shard {}, but there are {}",
                        part.shard,
                        self.shards.len()
                    ))
                })?;
                let end = part.offset.checked_add(length).filter(|end| *end <= shard.size).ok_or_else(|| {
                    Error::bad_model(format!(
                        "manifest.json: the tensor `{name}` needs {length} bytes from {} on, beyond the {} bytes of {}",
                        part.offset, shard.size, shard.file
                    ))
                })?;
                ranges[part.shard].push((part.offset, end, name));
            }
            if sum != rows {
                return Err(Error::bad_model(format!(
                    "manifest.json: the parts of the tensor `{name}` hold {sum} rows, its shape {:?} has {rows}",
                    tensor.shape
                )));
            }
        }
        for ranges in &mut ranges {
            ranges.sort_unstable();
            if let Some(pair) = ranges.windows(2).find(|pair| pair[1].0 < pair[0].1) {
                return Err(Error::bad_model(format!(
                    "manifest.json: the tensors `{}` and `{}` overlap",
                    pair[0].2, pair[1].2
                )));
            }
        }
        Ok(())
    }

    /// What is loaded first: the model without its optional components, of which it then knows nothing.
    pub fn into_core(mut self) -> Self {
        let optional = std::mem::take(&mut self.optional);
        self.retain_components(|component| !optional.iter().any(|name| name == component));
        self.files.configs.retain(|component, _| !optional.contains(component));
        self
    }

    pub fn is_optional(&self, component: &str) -> bool {
        self.optional.iter().any(|optional| optional == component)
    }

    /// Whether anything is stored of `component`.
    pub fn has_component(&self, component: &str) -> bool {
        self.tensors.iter().any(|tensor| tensor.component() == component)
    }

    /// Forgets the shards and tensors of all components but those to `keep`.
    pub fn retain_components(&mut self, keep: impl Fn(&str) -> bool) {
        self.tensors.retain(|tensor| keep(tensor.component()));
        // Shards that nothing points into any more go; the rest move up.
        let mut moved = Vec::with_capacity(self.shards.len());
        let mut kept = Vec::new();
        for (i, shard) in std::mem::take(&mut self.shards).into_iter().enumerate() {
            let used = self.tensors.iter().flat_map(|tensor| &tensor.parts).any(|part| part.shard == i);
            moved.push(kept.len());
            if used {
                kept.push(shard);
            }
        }
        self.shards = kept;
        self.tensors.iter_mut().flat_map(|tensor| &mut tensor.parts).for_each(|part| part.shard = moved[part.shard]);
    }

    /// Checks that every parameter in `needed` is stored with its shape; what can be computed may be missing.
    ///
    /// # Errors
    /// `BadModel` naming the first that is missing or differs.
    pub fn check_params(&self, needed: &[ParamShape]) -> Result<()> {
        let stored: BTreeMap<&str, &[usize]> =
            self.tensors.iter().map(|t| (t.name.as_str(), t.shape.as_slice())).collect();
        for param in needed {
            match stored.get(param.name.as_str()) {
                None if param.computed.is_some() => {}
                None => {
                    return Err(Error::bad_model(format!(
                        "manifest.json lacks the tensor `{}` of shape {:?}",
                        param.name, param.shape
                    )));
                }
                Some(shape) if *shape != param.shape => {
                    return Err(Error::bad_model(format!(
                        "manifest.json: the tensor `{}` has shape {shape:?}, but the config asks for {:?}",
                        param.name, param.shape
                    )));
                }
                Some(_) => {}
            }
        }
        Ok(())
    }
}

/// Takes shards, in any order, checks them and puts their tensors on the device.
pub struct Loader {
    manifest: Manifest,
    tensors: Tensors,
    received: Vec<bool>,
    /// Parts of tensors that are not whole yet, in row order.
    pending: BTreeMap<usize, Vec<Option<Tensor<1>>>>,
}

impl Loader {
    /// Fills `tensors`, which say where and how the weights are kept.
    pub fn new(manifest: Manifest, tensors: Tensors) -> Self {
        let received = vec![false; manifest.shards.len()];
        Self { manifest, tensors, received, pending: BTreeMap::new() }
    }

    pub fn manifest(&self) -> &Manifest {
        &self.manifest
    }

    /// Checks shard `index` and uploads what it holds. Nothing is kept of a shard that is refused.
    ///
    /// # Errors
    /// `CorruptWeights` where size or SHA-256 differ; `BadInput` for an index that is not there.
    pub fn push(&mut self, index: usize, bytes: &[u8]) -> Result<()> {
        let Some(shard) = self.manifest.shards.get(index) else {
            return Err(Error::bad_input(format!(
                "there is no shard {index}; the model has {}",
                self.manifest.shards.len()
            )));
        };
        shard.check(bytes)?;
        for (t, tensor) in self.manifest.tensors.iter().enumerate() {
            let (_, cols) = tensor.matrix();
            for (p, part) in tensor.parts.iter().enumerate().filter(|(_, part)| part.shard == index) {
                let start = part.offset as usize;
                let length = tensor.dtype.byte_len(part.rows, cols).unwrap_or(0);
                let values = tensor.dtype.decode(&bytes[start..start + length], part.rows, cols);
                let parts = self.pending.entry(t).or_insert_with(|| vec![None; tensor.parts.len()]);
                parts[p] = Some(self.tensors.upload(&tensor.shape, values));
                if parts.iter().all(Option::is_some) {
                    let parts = self.pending.remove(&t).unwrap_or_default().into_iter().flatten().collect();
                    self.tensors.insert_pieces(&tensor.name, &tensor.shape, parts);
                }
            }
        }
        self.received[index] = true;
        Ok(())
    }

    /// The tensors, once every shard has come.
    ///
    /// # Errors
    /// `BadInput` naming the first shard that is missing.
    pub fn finish(self) -> Result<(Manifest, Tensors)> {
        if let Some(missing) = self.received.iter().position(|received| !received) {
            return Err(Error::bad_input(format!(
                "the shard {} has not been loaded",
                self.manifest.shards[missing].file
            )));
        }
        Ok((self.manifest, self.tensors))
    }
}

/// Packs tensors into shards of one component, in the order they come.
pub struct ShardWriter {
    component: String,
    max_shard: usize,
    current: Vec<u8>,
    /// Finished shards of this component so far.
    done: usize,
    parts: Vec<StoredTensor>,
}

/// A shard ready to be written.
pub struct FinishedShard {
    pub shard: Shard,
    pub bytes: Vec<u8>,
}

impl ShardWriter {
    /// Shard files are named after the component, so that one component can be replaced without touching, or
    /// downloading again, the others; and after what they hold (`vae-000-1a2b3c4d.bin`), so that whoever keeps a file of
    /// that name may keep it for ever. `max_shard` is in bytes.
    pub fn new(component: &str, max_shard: usize) -> Self {
        Self {
            component: component.to_owned(),
            max_shard: max_shard.clamp(1, MAX_SHARD as usize),
            current: Vec::new(),
            done: 0,
            parts: Vec::new(),
        }
    }

    /// Adds a tensor; gives the shards that became full. Its parts count shards of this component from 0.
    ///
    /// # Errors
    /// `BadModel` where one row alone is larger than a shard.
    pub fn add(
        &mut self,
        name: &str,
        shape: &[usize],
        dtype: StoredDtype,
        values: &[f32],
    ) -> Result<Vec<FinishedShard>> {
        let (rows, cols) = matrix(shape);
        let mut finished = Vec::new();
        let mut parts = Vec::new();
        let mut row = 0;
        while row < rows {
            let free = self.max_shard.saturating_sub(self.current.len());
            let fits = |n: usize| dtype.byte_len(n, cols).is_some_and(|length| length <= free);
            // A tensor is split only where it would not fit an empty shard.
            let whole = dtype.byte_len(rows, cols).is_some_and(|length| length <= self.max_shard);
            let take = if fits(rows - row) {
                rows - row
            } else if whole {
                0
            } else {
                largest(rows - row, fits)
            };
            if take == 0 {
                if self.current.is_empty() {
                    return Err(Error::bad_model(format!(
                        "one row of the tensor `{name}` is larger than a shard of {} bytes; use larger shards",
                        self.max_shard
                    )));
                }
                finished.extend(self.flush());
                continue;
            }
            parts.push(Part { shard: self.done, offset: self.current.len() as u64, rows: take });
            self.current.extend(dtype.encode(&values[row * cols..(row + take) * cols], cols));
            row += take;
        }
        self.parts.push(StoredTensor { name: name.to_owned(), shape: shape.to_vec(), dtype, parts });
        Ok(finished)
    }

    /// The last shard, if anything is in it, and the tensors' entries.
    pub fn finish(mut self) -> (Option<FinishedShard>, Vec<StoredTensor>) {
        (self.flush(), self.parts)
    }

    fn flush(&mut self) -> Option<FinishedShard> {
        if self.current.is_empty() {
            return None;
        }
        let bytes = std::mem::take(&mut self.current);
        let sha256 = sha256(&bytes);
        let file = Shard::file_name(&self.component, self.done, &sha256);
        let shard = Shard { file, size: bytes.len() as u64, sha256 };
        self.done += 1;
        Some(FinishedShard { shard, bytes })
    }
}

/// The largest `n` up to `max` for which `fits(n)`, a property that only ever ends.
fn largest(max: usize, fits: impl Fn(usize) -> bool) -> usize {
    let (mut low, mut high) = (0, max);
    while low < high {
        let middle = (low + high).div_ceil(2);
        if fits(middle) { low = middle } else { high = middle - 1 }
    }
    low
}
