//! All of attention at once, where few tokens look at few.

use burn::tensor::Tensor;

/// So many queries at most, and so much that they look at: what a cube keeps of it lies in its shared memory.
pub const MOST_TOKENS: usize = 512;

/// `softmax(query key^T scale + bias) value` over `[N, heads, T, d]`, as `[N, Tq, heads * d]`; `bias`, if given, is
/// `[N or 1, heads or 1, Tq or 1, Tk]`. `None` where it is not for a GPU, or tokens are so many that products of
/// matrices are the quicker way.
pub fn short_attention(
    query: &Tensor<4>,
    key: &Tensor<4>,
    value: &Tensor<4>,
    bias: Option<&Tensor<4>>,
    scale: f64,
) -> Option<Tensor<3>> {
    #[cfg(gpu)]
    return gpu::attention(query, key, value, bias, scale);
    #[cfg(not(gpu))]
    {
        let _ = (query, key, value, bias, scale);
        None
    }
}

#[cfg(gpu)]
mod gpu {
    use burn::tensor::Tensor;
    use burn_cubecl::cubecl::{self, prelude::Tensor as Strided, prelude::*};

    use super::MOST_TOKENS;
    use crate::layers::kernels::gpu::{buffer, each_row, empty, largest, place, sum, tensor};

    /// Scores that all queries have. Beyond it keys would be read from memory too often.
    const MOST_SCORES: usize = 1 << 19;

    pub fn attention(
        query: &Tensor<4>,
        key: &Tensor<4>,
        value: &Tensor<4>,
        bias: Option<&Tensor<4>>,
        scale: f64,
    ) -> Option<Tensor<3>> {
        let ([n, heads, tq, width], [_, _, tk, _]) = (query.dims(), key.dims());
        let rows = n * heads * tq;
        if tq > MOST_TOKENS || tk > MOST_TOKENS || rows * tk > MOST_SCORES {
            return None;
        }
        let (query, key, value) = (buffer(query)?, buffer(key)?, buffer(value)?);
        // A kernel has all its buffers; where there is no bias it looks at none.
        let biased = bias.is_some();
        let bias = bias.map_or(Some(query.clone()), buffer)?;
        let out = empty(&query, &[n, tq, heads * width]);
        let client = query.client.clone();
        let (units, cubes, cube) = each_row(&query, rows, usize::MAX);
        kernel::launch(
            &client,
            cubes,
            cube,
            query.into_tensor_arg(),
            key.into_tensor_arg(),
            value.into_tensor_arg(),
            bias.into_tensor_arg(),
            out.clone().into_buffer_arg(),
            rows,
            heads,
            tq,
            tk,
            width,
            scale as f32,
            u32::from(biased),
            units,
        );
        Some(tensor(out))
    }

    /// A cube for each query of each head; its units share the keys, then the features.
    #[cube(launch)]
    #[allow(clippy::too_many_arguments)]
    fn kernel(
        query: &Strided<f32>,
        key: &Strided<f32>,
        value: &Strided<f32>,
        bias: &Strided<f32>,
        out: &mut [f32],
        rows: usize,
        heads: usize,
        tq: usize,
        tk: usize,
        width: usize,
        scale: f32,
        biased: u32,
        #[comptime] units: usize,
    ) {
        let (row, first) = place(rows, units);
        let n = row / tq / heads;
        let head = row / tq % heads;
        let token = row % tq;
        let query_start = n * query.stride(0) + head * query.stride(1) + token * query.stride(2);
        let key_start = n * key.stride(0) + head * key.stride(1);
        let value_start = n * value.stride(0) + head * value.stride(1);
        // Where the row's bias begins; what is the same for all has one entry.
        let mut bias_start = 0usize;
        let mut bias_step = 0usize;
        if biased == 1 {
            bias_start = token % bias.shape(2) * bias.stride(2)
                + head % bias.shape(1) * bias.stride(1)
                + n % bias.shape(0) * bias.stride(0);
            bias_step = bias.stride(3);
        }
        let mut weights = Shared::<[f32]>::new_slice(MOST_TOKENS);
        let mut peak = f32::MIN.runtime();
        let mut k = first;
        while k < tk {
            let key_at = key_start + k * key.stride(2);
            let mut product = 0.0f32;
            for i in 0..width {
                product += query[query_start + i * query.stride(3)] * key[key_at + i * key.stride(3)];
            }
            let mut score = product * scale;
            if biased == 1 {
                score += bias[bias_start + k * bias_step];
            }
            weights[k] = score;
            peak = max(peak, score);
            k += units;
        }
        let peak = largest(peak, units);
        let mut total = 0.0f32;
        let mut k = first;
        while k < tk {
            let weight = (weights[k] - peak).exp();
            weights[k] = weight;
            total += weight;
            k += units;
        }
        // Whose wait for each other is one for the weights, too.
        let total = sum(total, units);
        let mut i = first;
        while i < width {
            let mut weighed = 0.0f32;
            for k in 0..tk {
                weighed += weights[k] * value[value_start + k * value.stride(2) + i * value.stride(3)];
            }
            out[((n * tq + token) * heads + head) * width + i] = weighed / total;
            i += units;
        }
    }
}
