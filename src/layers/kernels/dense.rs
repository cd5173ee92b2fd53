//! A whole dense layer at once, where few rows come.

use burn::tensor::Tensor;

use super::Residual;
use crate::layers::activation::Activation;

/// `residual + gate activation(x weight + bias)`, of which what is not given is left out: `x` is `[..., d_in]`, `weight`
/// `[d_in, d_out]`, the rest as in [`finish`](super::finish). `None` where it is not for a GPU, or rows are so many that
/// burn's product is the quicker way.
pub fn few_rows<const D: usize>(
    x: &Tensor<D>,
    weight: &Tensor<2>,
    bias: Option<&Tensor<1>>,
    activation: Option<Activation>,
    residual: Option<&Residual<D>>,
) -> Option<Tensor<D>> {
    #[cfg(gpu)]
    return gpu::few_rows(x, weight, bias, activation, residual);
    #[cfg(not(gpu))]
    {
        let _ = (x, weight, bias, activation, residual);
        None
    }
}

#[cfg(gpu)]
mod gpu {
    use burn::tensor::Tensor;
    use burn_cubecl::cubecl::{self, prelude::*};

    use super::Residual;
    use crate::layers::{
        activation::Activation,
        kernels::{
            finish::{Rest, finished},
            gpu::{buffer, empty, laid_out, tensor},
        },
    };

    /// Rows that come at most: beyond, weights would be read from memory too often.
    const MOST: usize = 256;
    /// Columns that a cube makes, each by one unit of every group.
    const COLUMNS: usize = 64;
    /// Groups of units that share the depth, for few rows and columns alone would leave most of a GPU idle.
    const GROUPS: usize = 4;
    /// How deep a group goes before its units wait for each other.
    const DEPTH: usize = 16;
    /// Rows that a unit makes, as many as come or these.
    const ROWS: usize = 8;
    const FEWEST: usize = 2;

    pub fn few_rows<const D: usize>(
        x: &Tensor<D>,
        weight: &Tensor<2>,
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
        let (x, weight) = (laid_out(x)?, buffer(weight)?);
        let out = empty(&x, &shape);
        let rest = Rest::new(&x, rows * d_out, bias, activation, residual)?;
        let client = x.client.clone();
        let at_once = if rows <= FEWEST { FEWEST } else { ROWS };
        let cubes = CubeCount::Static(d_out.div_ceil(COLUMNS) as u32, rows.div_ceil(at_once) as u32, 1);
        kernel::launch(
            &client,
            cubes,
            CubeDim::new_2d(COLUMNS as u32, GROUPS as u32),
            x.into_buffer_arg(),
            weight.into_buffer_arg(),
            rest.bias.into_buffer_arg(),
            rest.gate.into_buffer_arg(),
            rest.residual.into_buffer_arg(),
            out.clone().into_buffer_arg(),
            rows,
            d_in,
            d_out,
            rest.values_of_one,
            rest.parts,
            at_once,
        );
        Some(tensor(out))
    }

    /// A cube makes `at_once` rows of [`COLUMNS`] columns; each weight is read by one of its units alone.
    #[cube(launch)]
    #[allow(clippy::too_many_arguments)]
    fn kernel(
        x: &[f32],
        weight: &[f32],
        bias: &[f32],
        gate: &[f32],
        residual: &[f32],
        out: &mut [f32],
        rows: usize,
        d_in: usize,
        d_out: usize,
        values_of_one: usize,
        parts: u32,
        #[comptime] at_once: usize,
    ) {
        let column = CUBE_POS_X as usize * COLUMNS + UNIT_POS_X as usize;
        let first_row = CUBE_POS_Y as usize * at_once;
        let group = UNIT_POS_Y as usize;
        // Beyond the last column one reads the last, for none may leave while others wait for it.
        let from = min(column, d_out - 1);
        let mut xs = Shared::<[f32]>::new_slice(comptime!(GROUPS * DEPTH * at_once));
        let mut sums = Array::<f32>::new(at_once);
        #[unroll]
        for r in 0..at_once {
            sums[r] = 0.0f32;
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
                i += COLUMNS;
            }
            sync_cube();
            #[unroll]
            for k in 0..DEPTH {
                // What is over the depth is multiplied by 0.
                let factor = weight[min(start + k, d_in - 1) * d_out + from];
                let at = (group * DEPTH + k) * at_once;
                #[unroll]
                for r in 0..at_once {
                    sums[r] += xs[at + r] * factor;
                }
            }
            sync_cube();
        }
        let mut of_groups = Shared::<[f32]>::new_slice(comptime!(GROUPS * COLUMNS * at_once));
        #[unroll]
        for r in 0..at_once {
            of_groups[(r * GROUPS + group) * COLUMNS + UNIT_POS_X as usize] = sums[r];
        }
        sync_cube();
        // Each group finishes some of the rows.
        let mut r = group;
        while r < at_once {
            let row = first_row + r;
            if row < rows && column < d_out {
                let mut value = 0.0f32;
                #[unroll]
                for g in 0..GROUPS {
                    value += of_groups[(r * GROUPS + g) * COLUMNS + UNIT_POS_X as usize];
                }
                let at = row * d_out + column;
                out[at] = finished(value, bias, gate, residual, at, values_of_one, d_out, parts);
            }
            r += GROUPS;
        }
    }
}
