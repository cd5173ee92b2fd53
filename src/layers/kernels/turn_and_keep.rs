//! Rotary positions, and keys and values into their cache.

use burn::tensor::Tensor;

use super::rotate_half;

/// Of new tokens' `qkv` `[N, heads + 2 key heads, T, d]`, the queries and keys are turned as [`rotate_half`] turns them, and
/// keys and values written to the cache, `[N, key heads, capacity, d]` each, from the place `start` on. Gives the queries
/// `[N, heads, T, d]` and the cache.
pub fn turn_and_keep(
    qkv: Tensor<4>,
    cos: &Tensor<4>,
    sin: &Tensor<4>,
    cache: [Tensor<4>; 2],
    start: usize,
) -> (Tensor<4>, [Tensor<4>; 2]) {
    #[cfg(gpu)]
    if let Some(query) = gpu::turn_and_keep(&qkv, cos, sin, &cache, start) {
        return (query, cache);
    }
    let ([n, all, t, d], [_, kv_heads, ..]) = (qkv.dims(), cache[0].dims());
    let (turned, heads) = (all - kv_heads, all - 2 * kv_heads);
    let qk = rotate_half(qkv.clone().narrow(1, 0, turned), cos, sin);
    let [keys, values] = cache;
    let kept = |half: Tensor<4>, new| half.slice_assign([0..n, 0..kv_heads, start..start + t, 0..d], new);
    let cache = [kept(keys, qk.clone().narrow(1, heads, kv_heads)), kept(values, qkv.narrow(1, turned, kv_heads))];
    (qk.narrow(1, 0, heads), cache)
}

#[cfg(gpu)]
mod gpu {
    use burn::tensor::Tensor;
    use burn_cubecl::cubecl::{self, prelude::Tensor as Strided, prelude::*};

    use crate::layers::kernels::{
        gpu::{buffer, each_value, empty, tensor},
        rotate_half::turned,
    };

    /// The cache is written in place, which its owner has given away for that.
    pub fn turn_and_keep(
        qkv: &Tensor<4>,
        cos: &Tensor<4>,
        sin: &Tensor<4>,
        [keys, values]: &[Tensor<4>; 2],
        start: usize,
    ) -> Option<Tensor<4>> {
        let ([n, all, t, d], [_, kv_heads, ..]) = (qkv.dims(), keys.dims());
        let heads = all - 2 * kv_heads;
        let (qkv, cos, sin) = (buffer(qkv)?, buffer(cos)?, buffer(sin)?);
        let (keys, values) = (buffer(keys)?, buffer(values)?);
        let query = empty(&qkv, &[n, heads, t, d]);
        let client = qkv.client.clone();
        let count = n * all * t * d;
        let (cubes, cube) = each_value(&qkv, count);
        kernel::launch(
            &client,
            cubes,
            cube,
            qkv.into_tensor_arg(),
            cos.into_tensor_arg(),
            sin.into_tensor_arg(),
            query.clone().into_buffer_arg(),
            keys.into_tensor_arg(),
            values.into_tensor_arg(),
            count,
            heads,
            kv_heads,
            t,
            d,
            start,
        );
        Some(tensor(query))
    }

    #[cube(launch)]
    #[allow(clippy::too_many_arguments)]
    fn kernel(
        qkv: &Strided<f32>,
        cos: &Strided<f32>,
        sin: &Strided<f32>,
        query: &mut [f32],
        keys: &mut Strided<f32>,
        values: &mut Strided<f32>,
        count: usize,
        heads: usize,
        kv_heads: usize,
        tokens: usize,
        width: usize,
        start: usize,
    ) {
        let at = ABSOLUTE_POS;
        if at >= count {
            terminate!();
        }
        let all = heads + 2 * kv_heads;
        let feature = at % width;
        let token = at / width % tokens;
        let head = at / width / tokens % all;
        let n = at / width / tokens / all;
        let from = n * qkv.stride(0) + head * qkv.stride(1) + token * qkv.stride(2);
        let place = start + token;
        if head < heads {
            let to = ((n * heads + head) * tokens + token) * width + feature;
            query[to] = turned(qkv, cos, sin, from, token, feature, width);
        } else if head < heads + kv_heads {
            let to = n * keys.stride(0) + (head - heads) * keys.stride(1);
            let to = to + place * keys.stride(2) + feature * keys.stride(3);
            keys[to] = turned(qkv, cos, sin, from, token, feature, width);
        } else {
            let to = n * values.stride(0) + (head - heads - kv_heads) * values.stride(1);
            let to = to + place * values.stride(2) + feature * values.stride(3);
            values[to] = qkv[from + feature * qkv.stride(3)];
        }
    }
}

#[cfg(test)]
#[cfg(gpu)]
mod tests {
    use burn::tensor::{Device, Tensor, TensorData};

    use super::*;
    use crate::gpu::tested;

    /// One token and several, with as many key heads as query heads and with fewer, seen as products give them.
    #[test]
    fn a_gpu_turns_and_keeps_as_the_cpu_does() {
        let (n, capacity, d, start) = (2, 9, 6, 5);
        for (t, heads, kv_heads) in [(1, 3, 3), (3, 4, 2)] {
            let [cpu, gpu] = [&Device::flex(), tested()].map(|device| {
                let values = |shape: [usize; 4], step: f32| {
                    let values: Vec<f32> = (0..shape.iter().product()).map(|i| (i as f32 * step).sin()).collect();
                    Tensor::<4>::from_data(TensorData::new(values, shape), device)
                };
                let qkv = values([n, t, heads + 2 * kv_heads, d], 0.7).swap_dims(1, 2);
                let [cos, sin] = [0.3, 0.9].map(|step| values([1, 1, start + t, d], step).narrow(2, start, t));
                let cache = [0.2, 1.3].map(|step| values([n, kv_heads, capacity, d], step));
                let (query, [keys, values]) = turn_and_keep(qkv, &cos, &sin, cache, start);
                [query, keys, values].map(|x| x.into_data().try_to_vec::<f32>().unwrap())
            });
            for (cpu, gpu) in cpu.iter().zip(&gpu) {
                let difference = cpu.iter().zip(gpu).map(|(a, b)| (a - b).abs()).fold(0.0, f32::max);
                assert!(cpu.len() == gpu.len() && difference < 1e-6, "{t} of {heads} heads: {difference}");
            }
        }
    }
}
