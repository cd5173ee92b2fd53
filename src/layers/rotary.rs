//! Rotary positions (Su et al., arXiv 2104.09864).

use burn::tensor::{Device, Tensor, TensorData};

use super::kernels::{rotate_half, turn_and_keep};

/// Turns neighbouring features of each head, pair by pair, by angles that follow from the token's place (diffusers
/// `apply_rotary_emb` with interleaved pairs).
pub struct Rotary {
    /// `[1, T, 1, d / 2, 1]` each.
    cos: Tensor<5>,
    sin: Tensor<5>,
}

impl Rotary {
    /// `places` holds each token's place along every axis; `axes` says how many of a head's features turn with each
    /// axis: even numbers, whose sum is the head's width. The angle of pair `i` of an axis of width `d` is
    /// `place / theta^(2 i / d)`.
    pub fn new<const A: usize>(places: &[[f32; A]], axes: [usize; A], theta: f64, device: &Device) -> Self {
        let angles: Vec<f64> = places
            .iter()
            .flat_map(|place| place.iter().zip(axes))
            .flat_map(|(&place, width)| {
                (0..width / 2).map(move |i| f64::from(place) / theta.powf((2 * i) as f64 / width as f64))
            })
            .collect();
        let table = |wave: fn(f64) -> f64| {
            let values: Vec<f32> = angles.iter().map(|angle| wave(*angle) as f32).collect();
            let pairs = axes.iter().sum::<usize>() / 2;
            Tensor::from_data(TensorData::new(values, [1, places.len(), 1, pairs, 1]), device)
        };
        Self { cos: table(f64::cos), sin: table(f64::sin) }
    }

    /// Queries or keys `[N, T, heads, d] -> [N, T, heads, d]`.
    pub fn forward(&self, x: Tensor<4>) -> Tensor<4> {
        let [n, t, heads, d] = x.dims();
        // [N, T, heads, d] -> [N, T, heads, d / 2, 2]
        let x: Tensor<5> = x.reshape([n, t, heads, d / 2, 2]);
        let (even, odd) = (x.clone().narrow(4, 0, 1), x.narrow(4, 1, 1));
        let turned_even = even.clone() * self.cos.clone() - odd.clone() * self.sin.clone();
        let turned_odd = odd * self.cos.clone() + even * self.sin.clone();
        Tensor::cat(vec![turned_even, turned_odd], 4).reshape([n, t, heads, d])
    }
}

/// Turns each feature of the first half of a head together with its like of the second half, by angles that follow from
/// the token's place (transformers `apply_rotary_pos_emb` with `rotate_half`).
#[derive(Clone)]
pub struct HalfRotary {
    /// `[1, 1, T, d]` each; the sines of the first half are negated.
    cos: Tensor<4>,
    sin: Tensor<4>,
}

impl HalfRotary {
    /// `angles` holds `pairs` of them for each token, in its order.
    pub fn new(angles: &[f32], pairs: usize, device: &Device) -> Self {
        let table = |wave: fn(f64) -> f64, first: f32| {
            let values: Vec<f32> = angles
                .chunks(pairs)
                .flat_map(|row| [first, 1.0].into_iter().flat_map(move |sign| row.iter().map(move |a| (sign, *a))))
                .map(|(sign, angle)| sign * wave(f64::from(angle)) as f32)
                .collect();
            Tensor::from_data(TensorData::new(values, [1, 1, angles.len() / pairs, 2 * pairs]), device)
        };
        Self { cos: table(f64::cos, 1.0), sin: table(f64::sin, -1.0) }
    }

    /// Of the `count` tokens from `start` on.
    pub fn at(&self, start: usize, count: usize) -> Self {
        let [cos, sin] = [&self.cos, &self.sin].map(|table| table.clone().narrow(2, start, count));
        Self { cos, sin }
    }

    /// Queries or keys `[N, heads, T, d] -> [N, heads, T, d]`.
    pub fn forward(&self, x: Tensor<4>) -> Tensor<4> {
        rotate_half(x, &self.cos, &self.sin)
    }

    /// Of the next tokens' `qkv` `[N, heads + 2 key heads, T, d]`, the queries `[N, heads, T, d]`; keys and values go to their
    /// cache, `[N, key heads, capacity, d]` each, from place `start` on.
    pub fn forward_into(&self, qkv: Tensor<4>, cache: [Tensor<4>; 2], start: usize) -> (Tensor<4>, [Tensor<4>; 2]) {
        turn_and_keep(qkv, &self.cos, &self.sin, cache, start)
    }
}
