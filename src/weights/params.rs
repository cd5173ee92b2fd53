//! Where layers take their tensors from: loaded weights, a listing of what they would need, or room for it.

use std::{cell::RefCell, collections::BTreeMap, fmt, rc::Rc};

use burn::tensor::{DType, Device, Tensor, TensorData};
use half::f16;

use super::{canonical, matrix};
use crate::{Error, Result};

/// No piece of a weight is larger on the device: the smallest `maxStorageBufferBindingSize` that WebGPU allows.
pub const MAX_PIECE_BYTES: usize = 128 << 20;

/// More tensors than any published model has, many times over.
const MOST_TENSORS: usize = 1 << 16;

/// More values than any device holds, so that sizes made of this many tensors still fit 64 bits.
const MOST_VALUES: u64 = 1 << 40;

/// A parameter's full name and shape.
#[derive(Clone, Debug)]
pub struct ParamShape {
    pub name: String,
    pub shape: Vec<usize>,
    /// What a table is by its formula: stored tables that hold nothing else may be left out.
    pub computed: Option<ComputedRows>,
}

/// The rows of a table by their formula.
#[derive(Clone)]
pub struct ComputedRows(Rc<dyn Fn(usize) -> Vec<f32>>);

impl ComputedRows {
    /// Whether `values` is the table, as far as numbers say that may each be off by `rounding`.
    pub fn are(&self, values: &[f32], columns: usize, rounding: f32) -> bool {
        let same = |(i, row): (usize, &[f32])| row.iter().zip((self.0)(i)).all(|(a, b)| (a - b).abs() <= rounding);
        values.chunks(columns).enumerate().all(same)
    }
}

impl fmt::Debug for ComputedRows {
    fn fmt(&self, f: &mut fmt::Formatter) -> fmt::Result {
        f.write_str("ComputedRows")
    }
}

/// How a device keeps the values of matrices and kernels. All else, and all arithmetic, is f32, so that nothing overflows.
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq)]
pub enum Kept {
    #[default]
    F32,
    /// Half the memory; each is widened where it is used.
    F16,
}

impl Kept {
    pub fn name(self) -> &'static str {
        match self {
            Self::F32 => "f32",
            Self::F16 => "f16",
        }
    }
}

/// Named tensors on a device, waiting for the model that takes them.
pub struct Tensors {
    device: Device,
    kept: Kept,
    max_piece: usize,
    source: Source,
}

/// A tensor as pieces of consecutive rows (see [`matrix`]).
struct Loaded {
    shape: Vec<usize>,
    pieces: Vec<Tensor<1>>,
}

enum Source {
    Loaded(RefCell<BTreeMap<String, Loaded>>),
    /// Notes every request and answers with a placeholder of one element.
    Listing(RefCell<Vec<ParamShape>>),
    /// Answers every request with memory that nothing was written to.
    Unwritten,
}

impl Tensors {
    /// In f32.
    pub fn new(device: &Device) -> Self {
        Self::kept_as(device, Kept::F32)
    }

    pub fn kept_as(device: &Device, kept: Kept) -> Self {
        Self { device: device.clone(), kept, max_piece: MAX_PIECE_BYTES, source: Source::Loaded(RefCell::default()) }
    }

    /// Every tensor that a model asks for, as it would be kept, with whatever values its memory happens to have: to compile
    /// what a model takes before its weights are there.
    pub fn unwritten(device: &Device, kept: Kept) -> Self {
        Self { source: Source::Unwritten, ..Self::kept_as(device, kept) }
    }

    /// With pieces of at most `bytes` in place of [`MAX_PIECE_BYTES`].
    pub fn with_max_piece(self, bytes: usize) -> Self {
        Self { max_piece: bytes, ..self }
    }

    pub fn device(&self) -> &Device {
        &self.device
    }

    /// Uploads `values` (row-major, as many as `shape` says) under `name`; old names become
    /// [`canonical`](super::canonical).
    pub fn insert(&self, name: &str, shape: &[usize], values: Vec<f32>) {
        debug_assert_eq!(values.len(), shape.iter().product::<usize>());
        let (_, columns) = matrix(shape);
        let piece = self.rows_in_a_piece(columns) * columns;
        let pieces = match values.len() <= piece {
            true => vec![self.upload(shape, values)],
            false => values.chunks(piece).map(|rows| self.upload(shape, rows.to_vec())).collect(),
        };
        self.insert_pieces(name, shape, pieces);
    }

    /// Brings some rows of a tensor of `shape` onto the device.
    pub(super) fn upload(&self, shape: &[usize], values: Vec<f32>) -> Tensor<1> {
        let count = [values.len()];
        match self.dtype(shape) {
            DType::F16 => {
                let values: Vec<f16> = values.into_iter().map(f16::from_f32).collect();
                Tensor::from_data(TensorData::new(values, count), (&self.device, DType::F16))
            }
            _ => Tensor::from_data(TensorData::new(values, count), &self.device),
        }
    }

    /// How the values of a tensor of `shape` are kept.
    fn dtype(&self, shape: &[usize]) -> DType {
        match self.kept {
            Kept::F16 if shape.len() > 1 => DType::F16,
            _ => DType::F32,
        }
    }

    /// Memory for a tensor of `shape`, in pieces.
    fn room_for(&self, shape: &[usize]) -> Vec<Tensor<1>> {
        let (rows, columns) = matrix(shape);
        let most = self.rows_in_a_piece(columns);
        let room = |from: usize| Tensor::empty([most.min(rows - from) * columns], (&self.device, self.dtype(shape)));
        (0..rows).step_by(most).map(room).collect()
    }

    /// As [`insert`](Self::insert), for whole rows that are on the device already, in order; small ones are joined.
    pub(super) fn insert_pieces(&self, name: &str, shape: &[usize], uploaded: Vec<Tensor<1>>) {
        let Source::Loaded(map) = &self.source else { return };
        let (_, columns) = matrix(shape);
        let most = self.rows_in_a_piece(columns) * columns;
        let mut pieces: Vec<Tensor<1>> = Vec::new();
        let mut run: Vec<Tensor<1>> = Vec::new();
        let mut values = 0;
        for piece in uploaded {
            let more = piece.dims()[0];
            if values + more > most && !run.is_empty() {
                pieces.push(join(std::mem::take(&mut run)));
                values = 0;
            }
            values += more;
            run.push(piece);
        }
        pieces.push(join(run));
        map.borrow_mut().insert(canonical(name), Loaded { shape: shape.to_vec(), pieces });
    }

    /// At least one, however long it is.
    fn rows_in_a_piece(&self, columns: usize) -> usize {
        (self.max_piece / size_of::<f32>() / columns.max(1)).max(1)
    }

    /// The door through which a model takes its tensors, by names that start with `prefix`.
    pub fn params(&self, prefix: &str) -> Params<'_> {
        Params { tensors: self, prefix: prefix.to_owned() }
    }
}

/// One below the other. burn would copy a single one, too.
pub fn join<const D: usize>(mut pieces: Vec<Tensor<D>>) -> Tensor<D> {
    if pieces.len() == 1 { pieces.remove(0) } else { Tensor::cat(pieces, 0) }
}

/// The names and shapes that a model would take, in its own order, and the model on placeholders: runs its loading code.
///
/// # Errors
/// Whatever `load` finds wrong with the configs.
pub fn list_params<M>(device: &Device, load: impl FnOnce(&Tensors) -> Result<M>) -> Result<(Vec<ParamShape>, M)> {
    let tensors = Tensors { source: Source::Listing(RefCell::default()), ..Tensors::new(device) };
    let model = load(&tensors)?;
    match tensors.source {
        Source::Listing(list) => Ok((list.into_inner(), model)),
        Source::Loaded(_) | Source::Unwritten => Ok((Vec::new(), model)),
    }
}

/// A matrix or kernel as its device keeps it: perhaps in f16, perhaps in pieces.
pub struct Weight<const D: usize> {
    /// Along the first dimension.
    pieces: Vec<Tensor<D>>,
}

impl<const D: usize> From<Tensor<D>> for Weight<D> {
    fn from(whole: Tensor<D>) -> Self {
        Self { pieces: vec![whole] }
    }
}

impl<const D: usize> Weight<D> {
    /// The pieces in f32, in order; most weights are one.
    pub fn pieces(&self) -> impl Iterator<Item = Tensor<D>> {
        self.pieces.iter().cloned().map(in_f32)
    }

    pub fn is_whole(&self) -> bool {
        self.pieces.len() == 1
    }

    /// All of it, in f32.
    pub fn whole(&self) -> Tensor<D> {
        match self.pieces.as_slice() {
            [whole] => in_f32(whole.clone()),
            _ => Tensor::cat(self.pieces().collect(), 0),
        }
    }

    /// The same with another layout of each piece.
    pub fn map(self, layout: impl Fn(Tensor<D>) -> Tensor<D>) -> Self {
        Self { pieces: self.pieces.into_iter().map(layout).collect() }
    }

    /// The pieces as the device keeps them, for layers that want another layout; [`in_f32`] widens them again.
    pub fn into_kept(self) -> Vec<Tensor<D>> {
        self.pieces
    }
}

/// What is kept narrower, widened for a product.
pub fn in_f32<const D: usize>(tensor: Tensor<D>) -> Tensor<D> {
    if tensor.dtype() == DType::F32 { tensor } else { tensor.cast(DType::F32) }
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

    /// How many rows of `columns` values make a piece, at most; at least one.
    pub fn rows_in_a_piece(&self, columns: usize) -> usize {
        self.tensors.rows_in_a_piece(columns)
    }

    /// Whether parameters are only listed, so that none has its shape and nothing can be computed from them.
    pub fn are_listed(&self) -> bool {
        matches!(self.tensors.source, Source::Listing(_))
    }

    /// Takes the tensor `name` (below the prefix) of exactly `shape`, in f32.
    ///
    /// # Errors
    /// [`Code::BadModel`](crate::Code::BadModel) where it is missing or has another shape.
    pub fn tensor<const D: usize>(&self, name: &str, shape: [usize; D]) -> Result<Tensor<D>> {
        self.weight(name, shape).map(|weight| weight.whole())
    }

    /// As [`tensor`](Self::tensor), for what is large: it stays as the device keeps it.
    pub fn weight<const D: usize>(&self, name: &str, shape: [usize; D]) -> Result<Weight<D>> {
        let param = ParamShape { name: self.at(name).prefix, shape: shape.to_vec(), computed: None };
        let name = param.name.clone();
        let Some(taken) = self.take(param) else {
            return Ok(Weight { pieces: vec![Tensor::zeros([1; D], &self.tensors.device)] });
        };
        let pieces = taken?
            .ok_or_else(|| Error::bad_model(format!("the weights lack the tensor `{name}` of shape {shape:?}")))?;
        let (_, columns) = matrix(&shape);
        let pieces = pieces.into_iter().map(|piece| {
            let mut shape = shape;
            if let Some(rows) = shape.first_mut() {
                *rows = piece.dims()[0] / columns.max(1);
            }
            piece.reshape(shape)
        });
        Ok(Weight { pieces: pieces.collect() })
    }

    /// Takes the table `name` of shape `[1, rows, columns]`, where there is one: it may have been left out if it holds
    /// just what `row` computes.
    ///
    /// # Errors
    /// `BadModel` where it has another shape.
    pub fn table(
        &self,
        name: &str,
        [rows, columns]: [usize; 2],
        row: impl Fn(usize) -> Vec<f32> + 'static,
    ) -> Result<Option<Weight<2>>> {
        let shape = vec![1, rows, columns];
        let computed = Some(ComputedRows(Rc::new(row)));
        let taken = self.take(ParamShape { name: self.at(name).prefix, shape, computed }).transpose()?.flatten();
        let in_rows = |piece: Tensor<1>| {
            let rows = piece.dims()[0] / columns;
            piece.reshape([rows, columns])
        };
        Ok(taken.map(|pieces| Weight { pieces: pieces.into_iter().map(in_rows).collect() }))
    }

    /// The pieces of a loaded tensor, if there is one of that name; `None` where parameters are only listed.
    fn take(&self, param: ParamShape) -> Option<Result<Option<Vec<Tensor<1>>>>> {
        match &self.tensors.source {
            Source::Listing(list) => {
                let ParamShape { name, shape, .. } = &param;
                let values = shape.iter().try_fold(1u64, |values, side| values.checked_mul(*side as u64));
                if values.is_none_or(|values| values > MOST_VALUES) {
                    return Some(Err(Error::bad_model(format!(
                        "the configs ask for a tensor `{name}` of shape {shape:?}, which no device holds; correct the \
                         sizes of this component"
                    ))));
                }
                if list.borrow().len() == MOST_TENSORS {
                    return Some(Err(Error::bad_model(format!(
                        "the configs ask for more than {MOST_TENSORS} tensors, `{name}` among them; correct how often \
                         this component repeats its layers"
                    ))));
                }
                list.borrow_mut().push(param);
                None
            }
            Source::Loaded(map) => Some(match map.borrow_mut().remove(&param.name) {
                Some(loaded) if loaded.shape != param.shape => Err(Error::bad_model(format!(
                    "the tensor `{}` has shape {:?}, but the config asks for {:?}",
                    param.name, loaded.shape, param.shape
                ))),
                loaded => Ok(loaded.map(|loaded| loaded.pieces)),
            }),
            // What can be computed is left out where models are stored, too.
            Source::Unwritten => Some(Ok(param.computed.is_none().then(|| self.tensors.room_for(&param.shape)))),
        }
    }
}
