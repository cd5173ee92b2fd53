//! The turn of rotary positions by halves.

use burn::tensor::Tensor;

/// Each feature of `x` `[N, heads, T, d]` times its cosine, plus its like in the other half times its sine; `cos` and `sin`
/// are `[1, 1, T, d]`.
pub fn rotate_half(x: Tensor<4>, cos: &Tensor<4>, sin: &Tensor<4>) -> Tensor<4> {
    #[cfg(gpu)]
    if let Some(turned) = gpu::rotate_half(&x, cos, sin) {
        return turned;
    }
    let [_, _, _, d] = x.dims();
    let swapped = Tensor::cat(vec![x.clone().narrow(3, d / 2, d / 2), x.clone().narrow(3, 0, d / 2)], 3);
    x * cos.clone() + swapped * sin.clone()
}

#[cfg(gpu)]
pub(super) use gpu::turned;

#[cfg(gpu)]
mod gpu {
    use burn::tensor::Tensor;
    use burn_cubecl::cubecl::{self, prelude::Tensor as Strided, prelude::*};

    use crate::layers::kernels::gpu::{buffer, each_value, empty_like, tensor};

    pub fn rotate_half(x: &Tensor<4>, cos: &Tensor<4>, sin: &Tensor<4>) -> Option<Tensor<4>> {
        let shape = x.dims();
        let (x, cos, sin) = (buffer(x)?, buffer(cos)?, buffer(sin)?);
        let out = empty_like(&x);
        let client = x.client.clone();
        let values = shape.iter().product::<usize>();
        let (cubes, cube) = each_value(&x, values);
        kernel::launch(
            &client,
            cubes,
            cube,
            x.into_tensor_arg(),
            cos.into_tensor_arg(),
            sin.into_tensor_arg(),
            out.clone().into_buffer_arg(),
            values,
            shape[1],
            shape[2],
            shape[3],
        );
        Some(tensor(out))
    }

    #[cube(launch)]
    #[allow(clippy::too_many_arguments)]
    fn kernel(
        x: &Strided<f32>,
        cos: &Strided<f32>,
        sin: &Strided<f32>,
        out: &mut [f32],
        values: usize,
        heads: usize,
        tokens: usize,
        width: usize,
    ) {
        let at = ABSOLUTE_POS;
        if at >= values {
            terminate!();
        }
        let feature = at % width;
        let token = at / width % tokens;
        let row = at / width / tokens;
        let start = row / heads * x.stride(0) + row % heads * x.stride(1) + token * x.stride(2);
        out[at] = turned(x, cos, sin, start, token, feature, width);
    }

    /// A feature of the token whose features begin at `start`.
    #[cube]
    pub fn turned(
        x: &Strided<f32>,
        cos: &Strided<f32>,
        sin: &Strided<f32>,
        start: usize,
        token: usize,
        feature: usize,
        width: usize,
    ) -> f32 {
        let other = (feature + width / 2) % width;
        x[start + feature * x.stride(3)] * cos[token * cos.stride(2) + feature * cos.stride(3)]
            + x[start + other * x.stride(3)] * sin[token * sin.stride(2) + feature * sin.stride(3)]
    }
}
