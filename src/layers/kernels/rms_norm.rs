//! Division by a row's root mean square.

use burn::tensor::Tensor;

/// `x / sqrt(mean(x^2) + eps) * weight` over the last dimension of `x` `[..., D]`; `weight` is `[D]`.
pub fn rms_norm<const D: usize>(x: Tensor<D>, weight: &Tensor<1>, eps: f64) -> Tensor<D> {
    #[cfg(gpu)]
    if let Some(normed) = gpu::rms_norm(&x, weight, eps) {
        return normed;
    }
    let mean_square = (x.clone() * x.clone()).mean_dim(D - 1);
    x / (mean_square + eps).sqrt() * weight.clone().unsqueeze()
}

#[cfg(gpu)]
mod gpu {
    use burn::tensor::Tensor;
    use burn_cubecl::cubecl::{self, prelude::*};

    use crate::layers::kernels::gpu::{each_row, empty_like, laid_out, place, sum, tensor};

    pub fn rms_norm<const D: usize>(x: &Tensor<D>, weight: &Tensor<1>, eps: f64) -> Option<Tensor<D>> {
        let width = x.dims()[D - 1];
        let rows = x.dims().iter().product::<usize>() / width;
        let (x, weight) = (laid_out(x)?, laid_out(weight)?);
        let out = empty_like(&x);
        let client = x.client.clone();
        let (units, cubes, cube) = each_row(&x, rows, width);
        kernel::launch(
            &client,
            cubes,
            cube,
            x.into_buffer_arg(),
            weight.into_buffer_arg(),
            out.clone().into_buffer_arg(),
            rows,
            width,
            eps as f32,
            units,
        );
        Some(tensor(out))
    }

    #[cube(launch)]
    #[allow(clippy::too_many_arguments)]
    fn kernel(
        x: &[f32],
        weight: &[f32],
        out: &mut [f32],
        rows: usize,
        width: usize,
        eps: f32,
        #[comptime] units: usize,
    ) {
        let (row, first) = place(rows, units);
        let start = row * width;
        let mut squares = 0.0f32;
        let mut i = first;
        while i < width {
            squares += x[start + i] * x[start + i];
            i += units;
        }
        let root = (sum(squares, units) / f32::cast_from(width) + eps).sqrt();
        let mut i = first;
        while i < width {
            out[start + i] = x[start + i] / root * weight[i];
            i += units;
        }
    }
}
