//! What the kernels have in common: from burn's tensors to a GPU's buffers and back, and rows shared by units.

use burn::{
    backend::{Cube, DType, Shape},
    tensor::Tensor,
};
use burn_cubecl::{
    cubecl::{self, calculate_cube_count_elemwise, prelude::*},
    kernel::into_contiguous,
    ops::numeric::empty_device_contiguous_dtype,
};
pub use burn_cubecl::{
    cubecl::{CubeCount, CubeDim},
    tensor::CubeTensor,
};

/// Units of a cube: a row each, or all for the same long row.
const UNITS: usize = 32;
/// From this length on a row has a cube of its own.
const LONG_ROW: usize = 128;

/// As a GPU has it, if that is where it is and its values are of 32 bits.
pub fn buffer<const D: usize>(x: &Tensor<D>) -> Option<CubeTensor> {
    let x = x.clone().try_into_primitive::<Cube>().ok()?;
    (x.dtype == DType::F32).then_some(x)
}

/// The same with its values in memory in the order of its dimensions.
pub fn laid_out<const D: usize>(x: &Tensor<D>) -> Option<CubeTensor> {
    buffer(x).map(into_contiguous)
}

pub fn tensor<const D: usize>(x: CubeTensor) -> Tensor<D> {
    Tensor::from_primitive::<Cube>(x)
}

/// As large as `x`, in the order of its dimensions.
pub fn empty_like(x: &CubeTensor) -> CubeTensor {
    empty(x, x.meta.shape())
}

/// Where `x` is, of another shape.
pub fn empty(x: &CubeTensor, shape: &[usize]) -> CubeTensor {
    empty_device_contiguous_dtype(x.client.clone(), x.device.clone(), Shape::from(shape.to_vec()), x.dtype)
}

/// A unit for each of `values`.
pub fn each_value(x: &CubeTensor, values: usize) -> (CubeCount, CubeDim) {
    let dim = CubeDim::new(&x.client, values);
    (calculate_cube_count_elemwise(&x.client, values, dim), dim)
}

/// How many units share a row of so many values, and the cubes that all rows take.
pub fn each_row(x: &CubeTensor, rows: usize, width: usize) -> (usize, CubeCount, CubeDim) {
    let (units, values) = if width < LONG_ROW { (1, rows) } else { (UNITS, rows * UNITS) };
    let dim = CubeDim::new_1d(UNITS as u32);
    (units, calculate_cube_count_elemwise(&x.client, values, dim), dim)
}

/// This unit's row and the first of its values. There may be more cubes than rows: what is over does the last one again,
/// for none may leave while others wait for it.
#[cube]
pub fn place(rows: usize, #[comptime] units: usize) -> (usize, usize) {
    if comptime!(units == 1) {
        (min(ABSOLUTE_POS, rows - 1), 0usize.runtime())
    } else {
        (min(CUBE_POS, rows - 1), UNIT_POS as usize)
    }
}

/// The sum of what the units of a row have.
#[cube]
pub fn sum(value: f32, #[comptime] units: usize) -> f32 {
    if comptime!(units == 1) {
        value
    } else {
        let mut parts = Shared::<[f32]>::new_slice(units);
        parts[UNIT_POS as usize] = value;
        sync_cube();
        let mut sum = 0.0f32;
        for i in 0..units {
            sum += parts[i];
        }
        sum
    }
}

/// The largest of what the units of a row have.
#[cube]
pub fn largest(value: f32, #[comptime] units: usize) -> f32 {
    if comptime!(units == 1) {
        value
    } else {
        let mut parts = Shared::<[f32]>::new_slice(units);
        parts[UNIT_POS as usize] = value;
        sync_cube();
        let mut largest = value;
        for i in 0..units {
            largest = max(largest, parts[i]);
        }
        largest
    }
}
