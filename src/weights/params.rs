//! Where layers take their tensors from: loaded weights, or a listing of what they would need.

use std::{cell::RefCell, collections::BTreeMap};

use burn::tensor::{Device, Tensor, TensorData};

use super::canonical;
use crate::{Error, Result};

/// A parameter's full name and shape.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct ParamShape {
    pub name: String,
    pub shape: Vec<usize>,
}

/// Named tensors on a device, waiting for the model that takes them.
pub struct Tensors {
    device: Device,
    source: Source,
}

enum Source {
    Loaded(RefCell<BTreeMap<String, (Vec<usize>, Tensor<1>)>>),
    /// Notes every request and answers with a placeholder of one element.
    Listing(RefCell<Vec<ParamShape>>),
}

impl Tensors {
    pub fn new(device: &Device) -> Self {
        Self { device: device.clone(), source: Source::Loaded(RefCell::default()) }
    }

    pub fn device(&self) -> &Device {
        &self.device
    }

    /// Uploads `values` (row-major, as many as `shape` says) under `name`.
    pub fn insert(&self, name: &str, shape: &[usize], values: Vec<f32>) {
        let count = values.len();
        debug_assert_eq!(count, shape.iter().product::<usize>());
        let tensor = Tensor::from_data(TensorData::new(values, [count]), &self.device);
        self.insert_tensor(name, shape, tensor);
    }

    /// As [`insert`](Self::insert), for values that are on the device already. Old names become
    /// [`canonical`](super::canonical).
    pub fn insert_tensor(&self, name: &str, shape: &[usize], tensor: Tensor<1>) {
        if let Source::Loaded(map) = &self.source {
            map.borrow_mut().insert(canonical(name), (shape.to_vec(), tensor));
        }
    }

    /// The door through which a model takes its tensors, by names that start with `prefix`.
    pub fn params(&self, prefix: &str) -> Params<'_> {
        Params { tensors: self, prefix: prefix.to_owned() }
    }
}

/// The names and shapes that a model would take, in its own order: runs its loading code on placeholders.
///
/// # Errors
/// Whatever `load` finds wrong with the configs.
pub fn list_params<M>(device: &Device, load: impl FnOnce(&Tensors) -> Result<M>) -> Result<Vec<ParamShape>> {
    let tensors = Tensors { device: device.clone(), source: Source::Listing(RefCell::default()) };
    load(&tensors)?;
    match tensors.source {
        Source::Listing(list) => Ok(list.into_inner()),
        Source::Loaded(_) => Ok(Vec::new()),
    }
}

/// A view of [`Tensors`] below a dotted prefix.
#[derive(Clone)]
pub struct Params<'a> {
    tensors: &'a Tensors,
    prefix: String,
}

impl Params<'_> {
    /// The same tensors one or more levels deeper: `at("attn1.to_q")`.
    pub fn at(&self, name: &str) -> Self {
        let prefix = if self.prefix.is_empty() || self.prefix.ends_with('/') {
            format!("{}{name}", self.prefix)
        } else {
            format!("{}.{name}", self.prefix)
        };
        Self { tensors: self.tensors, prefix }
    }

    pub fn device(&self) -> &Device {
        &self.tensors.device
    }

    /// Takes the tensor `name` (below the prefix) of exactly `shape`.
    ///
    /// # Errors
    /// [`Code::BadModel`](crate::Code::BadModel) where it is missing or has another shape.
    pub fn tensor<const D: usize>(&self, name: &str, shape: [usize; D]) -> Result<Tensor<D>> {
        let name = self.at(name).prefix;
        match &self.tensors.source {
            Source::Listing(list) => {
                list.borrow_mut().push(ParamShape { name, shape: shape.to_vec() });
                Ok(Tensor::zeros([1; D], &self.tensors.device))
            }
            Source::Loaded(map) => {
                let Some((stored, tensor)) = map.borrow_mut().remove(&name) else {
                    return Err(Error::bad_model(format!("the weights lack the tensor `{name}` of shape {shape:?}")));
                };
                if stored != shape {
                    return Err(Error::bad_model(format!(
                        "the tensor `{name}` has shape {stored:?}, but the config asks for {shape:?}"
                    )));
                }
                Ok(tensor.reshape(shape))
            }
        }
    }
}
