//! All of a dense layer at once, where few rows are multiplied.

use burn::tensor::Tensor;

use super::Residual;
use crate::layers::activation::Activation;

/// `residual + activation(norm(x) weight + bias)`, of which what is not given is left out: `x` is `[..., d_in]`, `weight`
/// `[d_in, d_out]`, `bias` `[d_out]`, and `norm` the weight `[d_in]` and the epsilon of an [`rms_norm`](super::rms_norm).
/// `None` where it is not for a GPU, a gate is asked for, or rows are so many that a product of matrices is the quicker way.
pub fn short_dense<const D: usize>(
    x: &Tensor<D>,
    weight: &Tensor<2>,
    norm: Option<(&Tensor<1>, f64)>,
    bias: Option<&Tensor<1>>,
    activation: Option<Activation>,
    residual: Option<&Residual<D>>,
) -> Option<Tensor<D>> {
    #[cfg(gpu)]
    return gpu::dense(x, weight, norm, bias, activation, residual);
    #[cfg(not(gpu))]
    {
        let _ = (x, weight, norm, bias, activation, residual);
        None
    }
}

#[cfg(gpu)]
mod gpu {
    use burn::tensor::Tensor;
    use burn_cubecl::cubecl::{self, calculate_cube_count_elemwise, prelude::*};

    use crate::{
        layers::{
            activation::Activation,
            kernels::{
                Residual,
                finish::{activated, number},
                gpu::{empty, laid_out, tensor},
            },
        },
        weights::in_f32,
    };

    /// Beyond it the weight would be read from memory too often.
    const MOST_ROWS: usize = 8;
    /// A cube computes so many neighbouring columns of a row, each by so many units that share the sum.
    const COLUMNS: usize = 32;
    const SHARES: usize = 8;
    const UNITS: usize = COLUMNS * SHARES;

    // What is to be done, told at run time as `finish` is.
    const NORM: u32 = 1;
    const BIAS: u32 = 2;
    const RESIDUAL: u32 = 4;
    /// The bits above are the activation's number.
    const ACTIVATION: u32 = 8;

    pub fn dense<const D: usize>(
        x: &Tensor<D>,
        weight: &Tensor<2>,
        norm: Option<(&Tensor<1>, f64)>,
        bias: Option<&Tensor<1>>,
        activation: Option<Activation>,
        residual: Option<&Residual<D>>,
    ) -> Option<Tensor<D>> {
        let ([d_in, d_out], mut shape) = (weight.dims(), x.dims());
        let rows = shape.iter().product::<usize>() / d_in;
        if rows > MOST_ROWS || residual.is_some_and(|residual| residual.gate.is_some()) {
            return None;
        }
        shape[D - 1] = d_out;
        let parts = u32::from(norm.is_some()) * NORM
            + u32::from(bias.is_some()) * BIAS
            + u32::from(residual.is_some()) * RESIDUAL
            + activation.map_or(0, number) * ACTIVATION;
        let (x, weight) = (laid_out(x)?, laid_out(&in_f32(weight.clone()))?);
        let out = empty(&x, &shape);
        let client = x.client.clone();
        // A kernel has all its buffers; it does not look at those that stand for nothing.
        let eps = norm.map_or(0.0, |(_, eps)| eps);
        let norm = norm.map_or(Some(x.clone()), |(norm, _)| laid_out(norm))?;
        let bias = bias.map_or(Some(x.clone()), laid_out)?;
        let residual = residual.map_or(Some(x.clone()), |residual| laid_out(&residual.x))?;
        let (cubes, cube) = (rows * d_out.div_ceil(COLUMNS), CubeDim::new_1d(UNITS as u32));
        kernel::launch(
            &client,
            calculate_cube_count_elemwise(&client, cubes * UNITS, cube),
            cube,
            x.into_buffer_arg(),
            weight.into_buffer_arg(),
            norm.into_buffer_arg(),
            bias.into_buffer_arg(),
            residual.into_buffer_arg(),
            out.clone().into_buffer_arg(),
            cubes,
            rows,
            d_in,
            d_out,
            eps as f32,
            parts,
        );
        Some(tensor(out))
    }

    /// Cubes of the same columns follow each other, so that rows find the weight in a cache. The norm's root is known once
    /// the row is read, and divides the sum.
    #[cube(launch)]
    #[allow(clippy::too_many_arguments)]
    fn kernel(
        x: &[f32],
        weight: &[f32],
        norm: &[f32],
        bias: &[f32],
        residual: &[f32],
        out: &mut [f32],
        cubes: usize,
        rows: usize,
        d_in: usize,
        d_out: usize,
        eps: f32,
        parts: u32,
    ) {
        // There may be more cubes than work: what is over does the last again, for none may leave while others wait for it.
        let cube = min(CUBE_POS, cubes - 1);
        let unit = UNIT_POS as usize;
        let row = cube % rows;
        let column = cube / rows * COLUMNS + unit % COLUMNS;
        let read = min(column, d_out - 1);
        let mut product = 0.0f32;
        let mut squares = 0.0f32;
        let mut i = unit / COLUMNS;
        while i < d_in {
            let mut value = x[row * d_in + i];
            if parts & NORM != 0 {
                squares += value * value;
                value *= norm[i];
            }
            product += value * weight[i * d_out + read];
            i += SHARES;
        }
        let mut products = Shared::<[f32]>::new_slice(UNITS);
        let mut all_squares = Shared::<[f32]>::new_slice(UNITS);
        products[unit] = product;
        all_squares[unit] = squares;
        sync_cube();
        if unit < COLUMNS && column < d_out {
            let mut value = 0.0f32;
            let mut squares = 0.0f32;
            for share in 0..SHARES {
                value += products[share * COLUMNS + unit];
                squares += all_squares[share * COLUMNS + unit];
            }
            if parts & NORM != 0 {
                value /= (squares / f32::cast_from(d_in) + eps).sqrt();
            }
            if parts & BIAS != 0 {
                value += bias[column];
            }
            value = activated(value, parts / ACTIVATION);
            let at = row * d_out + column;
            if parts & RESIDUAL != 0 {
                value += residual[at];
            }
            out[at] = value;
        }
    }
}

#[cfg(all(test, gpu))]
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
        for shape in [[1, 5, 3], [2, 384, 70], [8, 33, 64]] {
            for choice in 0..16 {
                let [cpu, gpu] =
                    [&Device::flex(), tested()].map(|device| numbers(layer(shape, choice, device).unwrap()));
                let difference = cpu.iter().zip(&gpu).map(|(a, b)| (a - b).abs()).fold(0.0, f32::max);
                assert!(difference < 1e-4, "{shape:?}, {choice}: {difference}");
            }
        }
        assert!(layer([9, 5, 3], 0, tested()).is_none(), "many rows are multiplied as matrices");
    }
}
