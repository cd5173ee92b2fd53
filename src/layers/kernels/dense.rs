//! A whole dense layer at once, where few rows come.

use burn::tensor::Tensor;

use super::Residual;
use crate::layers::activation::Activation;

/// `residual + gate activation(norm(x) weight + bias)`, of which what is not given is left out: `x` is `[..., d_in]`, `weight`
/// `[d_in, d_out]`, `norm` the weight `[d_in]` and the epsilon of an [`rms_norm`](super::rms_norm), the rest as in
/// [`finish`](super::finish). `None` where it is not for a GPU, or rows are so many that burn's product is the quicker way.
pub fn short_dense<const D: usize>(
    x: &Tensor<D>,
    weight: &Tensor<2>,
    norm: Option<(&Tensor<1>, f64)>,
    bias: Option<&Tensor<1>>,
    activation: Option<Activation>,
    residual: Option<&Residual<D>>,
) -> Option<Tensor<D>> {
    #[cfg(gpu)]
    return gpu::short_dense(x, weight, norm, bias, activation, residual);
    #[cfg(not(gpu))]
    {
        let _ = (x, weight, norm, bias, activation, residual);
        None
    }
}

#[cfg(gpu)]
mod gpu {
    use burn::tensor::Tensor;
    use burn_cubecl::cubecl::{self, prelude::*};

    use super::Residual;
    use crate::{
        layers::{
            activation::Activation,
            kernels::{
                finish::{Rest, finished},
                gpu::{empty, laid_out, tensor},
            },
        },
        weights::in_f32,
    };

    /// Rows that come at most: beyond, weights would be read from memory too often.
    const MOST: usize = 256;
    /// Units of a group, and columns that each makes, that many apart so that neighbours read neighbours: with eight rows
    /// it multiplies 32 times for 12 values that it reads.
    const UNITS: usize = 16;
    const EACH: usize = 4;
    /// Columns that a cube makes.
    const COLUMNS: usize = UNITS * EACH;
    /// Groups of units that share the depth, for few rows and columns alone would leave most of a GPU idle.
    const GROUPS: usize = 8;
    /// How deep a group goes before its units wait for each other.
    const DEPTH: usize = 16;
    /// Rows that a unit makes, as many as come or these.
    const ROWS: usize = 8;
    const FEWEST: usize = 2;
    /// Rows whose sums lie in shared memory at once, of which any browser has 16 KiB.
    const SUMMED: usize = 4;

    pub fn short_dense<const D: usize>(
        x: &Tensor<D>,
        weight: &Tensor<2>,
        norm: Option<(&Tensor<1>, f64)>,
        bias: Option<&Tensor<1>>,
        activation: Option<Activation>,
        residual: Option<&Residual<D>>,
    ) -> Option<Tensor<D>> {
        let [d_in, d_out] = weight.dims();
        let mut shape = x.dims();
        let rows = shape.iter().product::<usize>() / d_in;
        if rows > MOST {
            return None;
        }
        shape[D - 1] = d_out;
        let (x, weight) = (laid_out(x)?, laid_out(&in_f32(weight.clone()))?);
        let out = empty(&x, &shape);
        let rest = Rest::new(&x, rows * d_out, bias, activation, residual)?;
        let (normed, eps) = (u32::from(norm.is_some()), norm.map_or(0.0, |(_, eps)| eps));
        let norm = norm.map_or(Some(x.clone()), |(norm, _)| laid_out(norm))?;
        let client = x.client.clone();
        let at_once = if rows <= FEWEST { FEWEST } else { ROWS };
        let cubes = CubeCount::Static(d_out.div_ceil(COLUMNS) as u32, rows.div_ceil(at_once) as u32, 1);
        kernel::launch(
            &client,
            cubes,
            CubeDim::new_2d(UNITS as u32, GROUPS as u32),
            x.into_buffer_arg(),
            weight.into_buffer_arg(),
            norm.into_buffer_arg(),
            rest.bias.into_buffer_arg(),
            rest.gate.into_buffer_arg(),
            rest.residual.into_buffer_arg(),
            out.clone().into_buffer_arg(),
            rows,
            d_in,
            d_out,
            rest.values_of_one,
            rest.parts,
            normed,
            eps as f32,
            at_once,
        );
        Some(tensor(out))
    }

    /// A cube makes `at_once` rows of [`COLUMNS`] columns; each weight is read by one of its units alone. The norm's root is
    /// known once the rows are read, and divides the sums.
    #[cube(launch)]
    #[allow(clippy::too_many_arguments)]
    fn kernel(
        x: &[f32],
        weight: &[f32],
        norm: &[f32],
        bias: &[f32],
        gate: &[f32],
        residual: &[f32],
        out: &mut [f32],
        rows: usize,
        d_in: usize,
        d_out: usize,
        values_of_one: usize,
        parts: u32,
        normed: u32,
        eps: f32,
        #[comptime] at_once: usize,
    ) {
        let first_column = CUBE_POS_X as usize * COLUMNS + UNIT_POS_X as usize;
        let first_row = CUBE_POS_Y as usize * at_once;
        let group = UNIT_POS_Y as usize;
        let mut xs = Shared::<[f32]>::new_slice(comptime!(GROUPS * DEPTH * at_once));
        let mut factors = Array::<f32>::new(EACH);
        let mut sums = Array::<f32>::new(comptime!(EACH * at_once));
        let mut squares = Array::<f32>::new(at_once);
        #[unroll]
        for r in 0..at_once {
            squares[r] = 0.0f32;
            #[unroll]
            for c in 0..EACH {
                sums[r * EACH + c] = 0.0f32;
            }
        }
        // All groups go as many turns, each a part of the depth.
        let turns = d_in.div_ceil(comptime!(GROUPS * DEPTH));
        let begin = group * turns * DEPTH;
        for turn in 0..turns {
            let start = begin + turn * DEPTH;
            let mut i = UNIT_POS_X as usize;
            while i < comptime!(DEPTH * at_once) {
                let row = first_row + i / DEPTH;
                let k = start + i % DEPTH;
                let mut value = 0.0f32;
                if row < rows && k < d_in {
                    value = x[row * d_in + k];
                }
                xs[(group * DEPTH + i % DEPTH) * at_once + i / DEPTH] = value;
                i += UNITS;
            }
            sync_cube();
            #[unroll]
            for k in 0..DEPTH {
                // What is over the depth is multiplied by 0, and beyond the last column one reads the last, for none may
                // leave while others wait for it.
                let row = min(start + k, d_in - 1);
                let mut scale = 1.0f32;
                if normed == 1 {
                    scale = norm[row];
                }
                #[unroll]
                for c in 0..EACH {
                    factors[c] = weight[row * d_out + min(first_column + c * UNITS, d_out - 1)] * scale;
                }
                let at = (group * DEPTH + k) * at_once;
                #[unroll]
                for r in 0..at_once {
                    let value = xs[at + r];
                    // Whether there is a norm or not: a branch here cost a third more on adapters that compute on a processor.
                    squares[r] += value * value;
                    #[unroll]
                    for c in 0..EACH {
                        sums[r * EACH + c] += value * factors[c];
                    }
                }
            }
            sync_cube();
        }
        let summed = comptime!(if at_once < SUMMED { at_once } else { SUMMED });
        let mut of_groups = Shared::<[f32]>::new_slice(comptime!(GROUPS * COLUMNS * summed));
        let mut squares_of_groups = Shared::<[f32]>::new_slice(comptime!(GROUPS * at_once));
        #[unroll]
        for r in 0..at_once {
            // All units of a group have read the same.
            squares_of_groups[r * GROUPS + group] = squares[r];
        }
        #[unroll]
        for part in 0..comptime!(at_once / summed) {
            #[unroll]
            for r in 0..summed {
                #[unroll]
                for c in 0..EACH {
                    let at = (r * GROUPS + group) * COLUMNS + c * UNITS + UNIT_POS_X as usize;
                    of_groups[at] = sums[(part * summed + r) * EACH + c];
                }
            }
            sync_cube();
            let mut i = group * UNITS + UNIT_POS_X as usize;
            while i < comptime!(COLUMNS * summed) {
                let r = i / COLUMNS;
                let row = first_row + part * summed + r;
                let column = CUBE_POS_X as usize * COLUMNS + i % COLUMNS;
                if row < rows && column < d_out {
                    let mut value = 0.0f32;
                    let mut squares = 0.0f32;
                    #[unroll]
                    for g in 0..GROUPS {
                        value += of_groups[(r * GROUPS + g) * COLUMNS + i % COLUMNS];
                        squares += squares_of_groups[(part * summed + r) * GROUPS + g];
                    }
                    if normed == 1 {
                        value /= (squares / f32::cast_from(d_in) + eps).sqrt();
                    }
                    let at = row * d_out + column;
                    out[at] = finished(value, bias, gate, residual, at, values_of_one, d_out, parts);
                }
                i += comptime!(UNITS * GROUPS);
            }
            sync_cube();
        }
    }
}

#[cfg(test)]
#[cfg(gpu)]
mod tests {
    use burn::tensor::{Device, Tensor, TensorData};

    use super::*;
    use crate::{
        gpu::tested,
        layers::kernels::{finish, rms_norm},
    };

    /// Every choice of what stands around the product, over shapes that fill cubes and that do not.
    #[test]
    fn a_gpu_does_all_of_a_dense_layer_at_once() {
        let values = |shape: [usize; 2], step: f32, device: &Device| {
            let values: Vec<f32> = (0..shape[0] * shape[1]).map(|i| (i as f32 * step).sin()).collect();
            Tensor::<2>::from_data(TensorData::new(values, shape), device)
        };
        let layer = |[rows, d_in, d_out]: [usize; 3], choice: usize, device: &Device| {
            let [norm, bias, activated, added] = [1, 2, 4, 8].map(|bit| choice & bit != 0);
            let row = |width: usize, step| values([1, width], step, device).reshape([width]);
            let (x, weight) = (values([rows, d_in], 0.7, device), values([d_in, d_out], 0.3, device));
            let (norm, bias) = (norm.then(|| row(d_in, 0.5)), bias.then(|| row(d_out, 1.1)));
            let activation = activated.then_some(Activation::Silu);
            let residual = added.then(|| Residual::new(values([rows, d_out], 0.9, device)));
            let done = short_dense(
                &x,
                &weight,
                norm.as_ref().map(|norm| (norm, 1e-5)),
                bias.as_ref(),
                activation,
                residual.as_ref(),
            );
            done.or_else(|| {
                let x = norm.iter().fold(x, |x, norm| rms_norm(x, norm, 1e-5));
                (*device == Device::flex()).then(|| finish(x.matmul(weight), bias.as_ref(), activation, residual))
            })
        };
        let numbers = |x: Tensor<2>| x.into_data().try_to_vec::<f32>().unwrap();
        for shape in [[1, 5, 3], [2, 384, 70], [8, 33, 64], [67, 80, 130]] {
            for choice in 0..16 {
                let [cpu, gpu] =
                    [&Device::flex(), tested()].map(|device| numbers(layer(shape, choice, device).unwrap()));
                let difference = cpu.iter().zip(&gpu).map(|(a, b)| (a - b).abs()).fold(0.0, f32::max);
                assert!(difference < 1e-4, "{shape:?}, {choice}: {difference}");
            }
        }
        assert!(layer([257, 5, 3], 0, tested()).is_none(), "many rows are multiplied as matrices");
    }
}
