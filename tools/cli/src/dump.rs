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

    /// Adds rows to a tensor, or begins it with them.
    pub fn f32_rows(&mut self, name: String, shape: &[usize], values: &[f32]) {
        let Some((_, whole, bytes)) = self.0.get_mut(&name) else { return self.f32(name, shape, values) };
        whole[0] += shape[0];
        bytes.extend(values.iter().flat_map(|value| value.to_le_bytes()));
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

/// The f32 tensor `name` of a safetensors file.
///
/// # Errors
/// `BadInput` where the file cannot be read, or lacks it, or holds it in another number format.
pub fn read_f32(path: &Path, name: &str) -> Result<Vec<f32>> {
    let wrong = |why: String| Error::bad_input(format!("{}: {why}", path.display()));
    let bytes = fs::read(path).map_err(|error| wrong(format!("cannot be read: {error}")))?;
    let file =
        SafeTensors::deserialize(&bytes).map_err(|error| wrong(format!("is not a safetensors file: {error}")))?;
    let tensor = file.tensor(name).map_err(|_| wrong(format!("lacks the tensor `{name}`")))?;
    if tensor.dtype() != Dtype::F32 {
        return Err(wrong(format!("`{name}` is {:?}; it must be F32", tensor.dtype())));
    }
    Ok(tensor.data().chunks_exact(4).map(|b| f32::from_le_bytes([b[0], b[1], b[2], b[3]])).collect())
}
