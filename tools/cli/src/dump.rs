//! The numbers of a run as safetensors, for comparing with another implementation.

use std::{collections::BTreeMap, fs, path::Path};

use inkbloom::{Error, Result};
use safetensors::{Dtype, SafeTensors, serialize_to_file, tensor::TensorView};

/// Tensors by name, in memory.
#[derive(Default)]
pub struct Dump(BTreeMap<String, (Dtype, Vec<usize>, Vec<u8>)>);

impl Dump {
    pub fn f32(&mut self, name: String, shape: &[usize], values: &[f32]) {
        let bytes = values.iter().flat_map(|value| value.to_le_bytes()).collect();
        self.0.insert(name, (Dtype::F32, shape.to_vec(), bytes));
    }

    pub fn i64(&mut self, name: String, shape: &[usize], values: &[i64]) {
        let bytes = values.iter().flat_map(|value| value.to_le_bytes()).collect();
        self.0.insert(name, (Dtype::I64, shape.to_vec(), bytes));
    }

    /// # Errors
    /// `BadInput` where the file cannot be written.
    pub fn write(&self, path: &Path) -> Result<()> {
        let cannot = |error: String| Error::bad_input(format!("{} cannot be written: {error}", path.display()));
        let views = self.0.iter().map(|(name, (dtype, shape, bytes))| {
            TensorView::new(*dtype, shape.clone(), bytes).map(|view| (name, view)).map_err(|e| cannot(e.to_string()))
        });
        let views = views.collect::<Result<Vec<_>>>()?;
        serialize_to_file(views, None, path).map_err(|error| cannot(error.to_string()))
    }
}

/// What a run may be given in place of its own.
#[derive(Default)]
pub struct Given {
    pub noise: Option<Vec<f32>>,
    pub tokens: Vec<[u32; 2]>,
    /// By draw.
    pub gumbel: BTreeMap<usize, Vec<f32>>,
}

/// The tensors `noise`, `tokens` and `gumbel.N` of a safetensors file, or `tokens.coarse` and `tokens.fine` as a dump has
/// them; others are left aside.
///
/// # Errors
/// `BadInput` where the file cannot be read, has none of them, or holds one in another number format.
pub fn read(path: &Path) -> Result<Given> {
    let wrong = |why: String| Error::bad_input(format!("{}: {why}", path.display()));
    let bytes = fs::read(path).map_err(|error| wrong(format!("cannot be read: {error}")))?;
    let file =
        SafeTensors::deserialize(&bytes).map_err(|error| wrong(format!("is not a safetensors file: {error}")))?;
    let of = |name: &str, dtype: Dtype| match file.tensor(name) {
        Ok(tensor) if tensor.dtype() == dtype => Ok(Some(tensor)),
        Ok(tensor) => Err(wrong(format!("`{name}` is {:?}; it must be {dtype:?}", tensor.dtype()))),
        Err(_) => Ok(None),
    };
    let f32s = |name: &str| -> Result<Option<Vec<f32>>> {
        let four = |b: &[u8]| f32::from_le_bytes([b[0], b[1], b[2], b[3]]);
        Ok(of(name, Dtype::F32)?.map(|tensor| tensor.data().chunks_exact(4).map(four).collect()))
    };
    let mut given = Given { noise: f32s("noise")?, ..Given::default() };
    for name in ["tokens", "tokens.coarse", "tokens.fine"] {
        let Some(tensor) = of(name, Dtype::I64)? else { continue };
        let code = |b: &[u8]| {
            let value = i64::from_le_bytes([b[0], b[1], b[2], b[3], b[4], b[5], b[6], b[7]]);
            u32::try_from(value).map_err(|_| wrong(format!("`{name}` has the code {value}; none is below 0")))
        };
        if tensor.shape().last() != Some(&2) {
            return Err(wrong(format!("`{name}` has the shape {:?}; it must be [places, 2]", tensor.shape())));
        }
        for pair in tensor.data().chunks_exact(16) {
            given.tokens.push([code(&pair[..8])?, code(&pair[8..])?]);
        }
    }
    for name in file.names() {
        let Some(draw) = name.strip_prefix("gumbel.").and_then(|draw| draw.parse().ok()) else { continue };
        given.gumbel.extend(f32s(name)?.map(|noise| (draw, noise)));
    }
    if given.noise.is_none() && given.tokens.is_empty() && given.gumbel.is_empty() {
        return Err(wrong("lacks the tensor `noise`".to_owned()));
    }
    Ok(given)
}
