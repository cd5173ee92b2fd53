//! Layer normalisation, scaled and shifted.

use burn::tensor::{Tensor, module};

/// `(x - mean) / sqrt(variance + eps) * scale + shift` over the last dimension of `x` `[N, ..., D]`, with `scale` and
/// `shift` `[N or 1, 1, ..., D]`.
pub fn layer_norm<const D: usize>(x: Tensor<D>, scale: Tensor<D>, shift: Tensor<D>, eps: f64) -> Tensor<D> {
    #[cfg(gpu)]
    if let Some(normed) = gpu::layer_norm(&x, &scale, &shift, eps) {
        return normed;
    }
    let width = x.dims()[D - 1];
    if scale.dims()[0] == 1 {
        return module::layer_norm(x, scale.reshape([width]), Some(shift.reshape([width])), eps);
    }
    let ones = Tensor::ones([width], &x.device());
    module::layer_norm(x, ones, None, eps) * scale + shift
}

#[cfg(gpu)]
mod gpu {
    use burn::tensor::Tensor;
    use burn_cubecl::cubecl::{self, prelude::*};

    use crate::layers::kernels::gpu::{each_row, empty_like, laid_out, place, sum, tensor};

    pub fn layer_norm<const D: usize>(
        x: &Tensor<D>,
        scale: &Tensor<D>,
        shift: &Tensor<D>,
        eps: f64,
    ) -> Option<Tensor<D>> {
        let width = x.dims()[D - 1];
        let (rows, scales) = (x.dims().iter().product::<usize>() / width, scale.dims()[0]);
        let (x, scale, shift) = (laid_out(x)?, laid_out(scale)?, laid_out(shift)?);
        let out = empty_like(&x);
        let client = x.client.clone();
        let (units, cubes, cube) = each_row(&x, rows, width);
        kernel::launch(
            &client,
            cubes,
            cube,
            x.into_buffer_arg(),
            scale.into_buffer_arg(),
            shift.into_buffer_arg(),
            out.clone().into_buffer_arg(),
            rows,
            rows / scales,
            width,
            eps as f32,
            units,
        );
        Some(tensor(out))
    }

    /// `rows_of_one` rows share a scale and a shift.
    #[cube(launch)]
    #[allow(clippy::too_many_arguments)]
    fn kernel(
        x: &[f32],
        scale: &[f32],
        shift: &[f32],
        out: &mut [f32],
        rows: usize,
        rows_of_one: usize,
        width: usize,
        eps: f32,
        #[comptime] units: usize,
    ) {
        let (row, first) = place(rows, units);
        let start = row * width;
        let mut total = 0.0f32;
        let mut i = first;
        while i < width {
            total += x[start + i];
            i += units;
        }
        let mean = sum(total, units) / f32::cast_from(width);
        let mut squares = 0.0f32;
        let mut i = first;
        while i < width {
            let centred = x[start + i] - mean;
            squares += centred * centred;
            i += units;
        }
        let deviation = (sum(squares, units) / f32::cast_from(width) + eps).sqrt();
        let table = row / rows_of_one * width;
        let mut i = first;
        while i < width {
            out[start + i] = (x[start + i] - mean) / deviation * scale[table + i] + shift[table + i];
            i += units;
        }
    }
}

#[cfg(test)]
mod tests {
    use burn::tensor::{Device, Tensor, TensorData};

    /// One scale for all pictures, or one for each.
    #[test]
    fn pictures_have_a_scale_each() {
        let values = |count: usize, step: f32| (0..count).map(|i| (i as f32 * step).sin()).collect::<Vec<_>>();
        let tensor = |shape: [usize; 3], step| {
            Tensor::<3>::from_data(TensorData::new(values(shape.iter().product(), step), shape), &Device::flex())
        };
        let (x, scale, shift) = (tensor([2, 3, 8], 0.7), tensor([2, 1, 8], 0.3), tensor([2, 1, 8], 1.1));
        let both = super::layer_norm(x.clone(), scale.clone(), shift.clone(), 1e-6);
        for i in 0..2 {
            let [x, scale, shift, both] = [&x, &scale, &shift, &both].map(|x| x.clone().narrow(0, i, 1));
            let one = super::layer_norm(x, scale, shift, 1e-6);
            let difference = (both - one).abs().max().into_data().try_to_vec::<f32>().unwrap()[0];
            assert!(difference < 1e-6, "{difference}");
        }
    }
}
