//! The softmax of attention.

use burn::tensor::{Tensor, activation};

/// `softmax(scores scale + bias)` over the last dimension of `scores` `[N, heads, Tq, Tk]`; `bias`, if given, is
/// `[N or 1, heads or 1, Tq or 1, Tk]`.
pub fn softmax(scores: Tensor<4>, scale: f64, bias: Option<Tensor<4>>) -> Tensor<4> {
    #[cfg(gpu)]
    if let Some(weights) = gpu::softmax(&scores, scale, bias.as_ref()) {
        return weights;
    }
    let scores = bias.into_iter().fold(scores * scale, |scores, bias| scores + bias);
    activation::softmax(scores, 3)
}

#[cfg(gpu)]
mod gpu {
    use burn::tensor::Tensor;
    use burn_cubecl::cubecl::{self, prelude::Tensor as Strided, prelude::*};

    use crate::layers::kernels::gpu::{buffer, each_row, empty_like, laid_out, largest, place, sum, tensor};

    pub fn softmax(scores: &Tensor<4>, scale: f64, bias: Option<&Tensor<4>>) -> Option<Tensor<4>> {
        let [n, heads, tq, width] = scores.dims();
        let scores = laid_out(scores)?;
        // A kernel has all its buffers; where there is no bias it looks at none.
        let biased = bias.is_some();
        let bias = bias.map_or(Some(scores.clone()), buffer)?;
        let out = empty_like(&scores);
        let client = scores.client.clone();
        let rows = n * heads * tq;
        let (units, cubes, cube) = each_row(&scores, rows, width);
        kernel::launch(
            &client,
            cubes,
            cube,
            scores.into_buffer_arg(),
            bias.into_tensor_arg(),
            out.clone().into_buffer_arg(),
            rows,
            heads,
            tq,
            width,
            scale as f32,
            u32::from(biased),
            units,
        );
        Some(tensor(out))
    }

    #[cube(launch)]
    #[allow(clippy::too_many_arguments)]
    fn kernel(
        scores: &[f32],
        bias: &Strided<f32>,
        out: &mut [f32],
        rows: usize,
        heads: usize,
        tq: usize,
        width: usize,
        scale: f32,
        biased: u32,
        #[comptime] units: usize,
    ) {
        let (row, first) = place(rows, units);
        let start = row * width;
        // Where the row's bias begins; what is the same for all has one entry.
        let mut bias_start = 0usize;
        let mut bias_step = 0usize;
        if biased == 1 {
            let head = row / tq;
            bias_start = row % tq % bias.shape(2) * bias.stride(2)
                + head % heads % bias.shape(1) * bias.stride(1)
                + head / heads % bias.shape(0) * bias.stride(0);
            bias_step = bias.stride(3);
        }
        let mut peak = score(scores, bias, start, bias_start, scale, biased);
        let mut i = first;
        while i < width {
            peak = max(peak, score(scores, bias, start + i, bias_start + i * bias_step, scale, biased));
            i += units;
        }
        let peak = largest(peak, units);
        let mut total = 0.0f32;
        let mut i = first;
        while i < width {
            total += (score(scores, bias, start + i, bias_start + i * bias_step, scale, biased) - peak).exp();
            i += units;
        }
        let total = sum(total, units);
        // Weighed once more and written once: another may be at the last row, too (see `place`), and would divide what is divided.
        let mut i = first;
        while i < width {
            let weight = (score(scores, bias, start + i, bias_start + i * bias_step, scale, biased) - peak).exp();
            out[start + i] = weight / total;
            i += units;
        }
    }

    #[cube]
    fn score(scores: &[f32], bias: &Strided<f32>, at: usize, bias_at: usize, scale: f32, biased: u32) -> f32 {
        let mut score = scores[at] * scale;
        if biased == 1 {
            score += bias[bias_at];
        }
        score
    }
}
