//! Safetensors headers: which tensor lies where in a file. Reading the bytes is the caller's affair.

use std::collections::HashMap;

use half::{bf16, f16};
use safetensors::{Dtype, tensor::Metadata};

use crate::{Error, Result};

/// Where one tensor lies in a safetensors file.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct Entry {
    pub name: String,
    pub shape: Vec<usize>,
    pub dtype: Dtype,
    /// Byte range from the start of the file.
    pub start: usize,
    pub end: usize,
}

/// How many bytes of header follow the first eight bytes of a file.
///
/// # Errors
/// `BadModel`, naming `file`, where that length cannot be true of a file of `file_len` bytes.
pub fn header_len(first_eight: [u8; 8], file_len: u64, file: &str) -> Result<usize> {
    let length = u64::from_le_bytes(first_eight);
    if length > 100_000_000 || length.saturating_add(8) > file_len {
        return Err(Error::bad_model(format!(
            "{file} is not a whole safetensors file: its header would be {length} bytes long"
        )));
    }
    Ok(length as usize)
}

/// Reads a header: `bytes` are the first `8 + header_len` bytes of a file of `file_len` bytes.
///
/// # Errors
/// `BadModel`, naming `file` and the tensor, for a malformed header or ranges beyond the file.
pub fn read_header(bytes: &[u8], file_len: u64, file: &str) -> Result<Vec<Entry>> {
    let base = bytes.len();
    let metadata: Metadata = serde_json::from_slice(bytes.get(8..).unwrap_or_default())
        .map_err(|error| Error::bad_model(format!("{file} is not a valid safetensors file: {error}")))?;
    let mut entries = Vec::new();
    for (name, info) in metadata.tensors() {
        let (start, end) = info.data_offsets;
        if (base + end) as u64 > file_len {
            return Err(Error::bad_model(format!(
                "{file}: the tensor `{name}` ends at byte {}, but the file has {file_len}; it is not whole, fetch it again",
                base + end
            )));
        }
        entries.push(Entry {
            name,
            shape: info.shape.clone(),
            dtype: info.dtype,
            start: base + start,
            end: base + end,
        });
    }
    entries.sort_by_key(|entry| entry.start);
    Ok(entries)
}

/// What a header says besides its tensors; `bytes` as for [`read_header`].
///
/// # Errors
/// `BadModel`, naming `file`, for a malformed header.
pub fn read_metadata(bytes: &[u8], file: &str) -> Result<HashMap<String, String>> {
    let metadata: Metadata = serde_json::from_slice(bytes.get(8..).unwrap_or_default())
        .map_err(|error| Error::bad_model(format!("{file} is not a valid safetensors file: {error}")))?;
    Ok(metadata.metadata().clone().unwrap_or_default())
}

impl Entry {
    /// The tensor's bytes as f32.
    ///
    /// # Errors
    /// `BadModel` for number formats that no diffusers checkpoint uses for weights.
    pub fn to_f32(&self, bytes: &[u8], file: &str) -> Result<Vec<f32>> {
        Ok(match self.dtype {
            Dtype::F32 => bytes.chunks_exact(4).map(|b| f32::from_le_bytes([b[0], b[1], b[2], b[3]])).collect(),
            Dtype::F16 => bytes.chunks_exact(2).map(|b| f16::from_le_bytes([b[0], b[1]]).to_f32()).collect(),
            Dtype::BF16 => bytes.chunks_exact(2).map(|b| bf16::from_le_bytes([b[0], b[1]]).to_f32()).collect(),
            other => {
                return Err(Error::bad_model(format!(
                    "{file}: the tensor `{}` is stored as {other:?}; this version reads F32, F16 and BF16",
                    self.name
                )));
            }
        })
    }
}

/// The files that a sharded checkpoint's index (`*.safetensors.index.json`) names, each once.
///
/// # Errors
/// `BadModel` where `index` has no `weight_map`, or one that points out of its folder.
pub fn shard_files(index: &serde_json::Value, file: &str) -> Result<Vec<String>> {
    let map = index["weight_map"].as_object().ok_or_else(|| {
        Error::bad_model(format!("{file} has no `weight_map`; it should name a file for every tensor"))
    })?;
    let names: std::collections::BTreeSet<&str> = map.values().filter_map(|name| name.as_str()).collect();
    if let Some(name) = names.iter().find(|name| name.contains(['/', '\\'])) {
        return Err(Error::bad_model(format!("{file}: `weight_map` names {name}; shards must lie beside their index")));
    }
    Ok(names.into_iter().map(str::to_owned).collect())
}
