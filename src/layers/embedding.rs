//! Embeddings of tokens, timesteps and positions.

use burn::tensor::{Device, Int, Tensor, TensorData};

use super::{Activation, Linear};
use crate::{
    Result,
    weights::{Params, Weight},
};

/// A table of vectors, one per id.
pub struct Embedding {
    /// `[vocabulary, dim]`.
    weight: Weight<2>,
}

impl Embedding {
    pub fn load(params: &Params, vocabulary: usize, dim: usize) -> Result<Self> {
        Ok(Self { weight: params.weight("weight", [vocabulary, dim])? })
    }

    /// Ids `[N, T]` -> `[N, T, dim]`. Ids must be below the vocabulary's size: the encoder checks them.
    pub fn forward(&self, ids: Tensor<2, Int>) -> Tensor<3> {
        let [n, t] = ids.dims();
        let ids: Tensor<1, Int> = ids.reshape([n * t]);
        if self.weight.is_whole() {
            let rows = self.weight.whole();
            let [_, dim] = rows.dims();
            return rows.select(0, ids).reshape([n, t, dim]);
        }
        // Each piece of the table answers for the ids that it holds, and with zeros for the others.
        let mut start = 0;
        let answers = self.weight.pieces().map(|rows| {
            let [count, dim] = rows.dims();
            let here = ids.clone() - start as i64;
            start += count;
            let vectors = rows.select(0, here.clone().clamp(0, count as i64 - 1));
            let held = here.clone().greater_equal_elem(0).bool_and(here.lower_elem(count as i64));
            vectors.reshape([n, t, dim]) * held.float().reshape([n, t, 1])
        });
        answers.reduce(|sum, part| sum + part).unwrap_or_else(|| unreachable!("a table has at least one piece"))
    }
}

/// Sinusoidal features of timesteps, cosines first: `[N] -> [N, dim]`
/// (diffusers `get_timestep_embedding` with `flip_sin_to_cos=True`, `downscale_freq_shift=0`).
pub fn timestep_embedding(timesteps: &[f32], dim: usize, device: &Device) -> Tensor<2> {
    timestep_embedding_with(timesteps, dim, true, 0.0, device)
}

/// As [`timestep_embedding`], with sines first where `flip_sin_to_cos` is false and with `downscale_freq_shift`
/// fewer frequencies below the slowest.
pub fn timestep_embedding_with(
    timesteps: &[f32],
    dim: usize,
    flip_sin_to_cos: bool,
    downscale_freq_shift: f32,
    device: &Device,
) -> Tensor<2> {
    let half = dim / 2;
    let mut features = Vec::with_capacity(timesteps.len() * dim);
    for &timestep in timesteps {
        let angle = |i: usize| timestep * (-(10000f32.ln()) * i as f32 / (half as f32 - downscale_freq_shift)).exp();
        let halves: [fn(f32) -> f32; 2] = if flip_sin_to_cos { [f32::cos, f32::sin] } else { [f32::sin, f32::cos] };
        features.extend(halves.iter().flat_map(|wave| (0..half).map(|i| wave(angle(i)))));
    }
    Tensor::from_data(TensorData::new(features, [timesteps.len(), dim]), device)
}

/// Two dense layers with an activation between them (diffusers `TimestepEmbedding`).
pub struct TimestepEmbedding {
    linear_1: Linear,
    linear_2: Linear,
    /// Of a condition that is added to the input.
    cond_proj: Option<Linear>,
    activation: Activation,
}

impl TimestepEmbedding {
    /// With SiLU and no condition: the usual kind.
    pub fn load(params: &Params, d_in: usize, d_out: usize) -> Result<Self> {
        Self::load_with(params, d_in, d_out, Activation::Silu, None)
    }

    pub fn load_with(
        params: &Params,
        d_in: usize,
        d_out: usize,
        activation: Activation,
        cond_proj_dim: Option<usize>,
    ) -> Result<Self> {
        Ok(Self {
            linear_1: Linear::load(&params.at("linear_1"), d_in, d_out)?,
            linear_2: Linear::load(&params.at("linear_2"), d_out, d_out)?,
            cond_proj: cond_proj_dim
                .map(|dim| Linear::load_with(&params.at("cond_proj"), dim, d_in, false))
                .transpose()?,
            activation,
        })
    }

    /// `[N, d_in] -> [N, d_out]`.
    pub fn forward(&self, x: Tensor<2>) -> Tensor<2> {
        self.linear_2.forward(self.linear_1.forward_then(x, Some(self.activation), None))
    }

    /// As [`forward`](Self::forward), with a `condition` `[N, cond_proj_dim]`.
    pub fn forward_with(&self, x: Tensor<2>, condition: Tensor<2>) -> Tensor<2> {
        match &self.cond_proj {
            Some(cond_proj) => self.forward(x + cond_proj.forward(condition)),
            None => self.forward(x),
        }
    }
}

/// Two-dimensional sine-cosine positions, `[1, height * width, dim]`, rows first; the first half of the
/// features encodes x, the second y, each as sines then cosines (diffusers `get_2d_sincos_pos_embed`).
///
/// Positions are scaled so that a grid of any size spans `base_size / interpolation_scale`.
pub fn sincos_2d(
    dim: usize,
    height: usize,
    width: usize,
    base_size: usize,
    interpolation_scale: f32,
    device: &Device,
) -> Tensor<3> {
    let place = |i: usize, size: usize| scaled_place(i, size, base_size) / interpolation_scale;
    let features: Vec<f32> =
        (0..height * width).flat_map(|i| sincos_at(dim, [place(i % width, width), place(i / width, height)])).collect();
    Tensor::from_data(TensorData::new(features, [1, height * width, dim]), device)
}

/// Where place `i` of `size` lies when all of them span `base_size`.
fn scaled_place(i: usize, size: usize, base_size: usize) -> f32 {
    i as f32 / (size as f32 / base_size as f32)
}

/// The `dim` features of one position.
fn sincos_at(dim: usize, position: [f32; 2]) -> Vec<f32> {
    position.into_iter().flat_map(|place| sincos_along(dim / 2, place)).collect()
}

/// The `dim` features of a place along a line, sines first.
fn sincos_along(dim: usize, place: f32) -> impl Iterator<Item = f32> {
    let angle = move |i: usize| f64::from(place) * 10000f64.powf(-(i as f64) / (dim as f64 / 2.0));
    (0..dim / 2).map(move |i| angle(i).sin() as f32).chain((0..dim / 2).map(move |i| angle(i).cos() as f32))
}

/// One-dimensional sine-cosine positions from 0, `[length, dim]`, each as sines then cosines (diffusers
/// `get_1d_sincos_pos_embed_from_grid`).
pub fn sincos_1d(dim: usize, length: usize, device: &Device) -> Tensor<2> {
    let features: Vec<f32> = (0..length).flat_map(|i| sincos_along(dim, i as f32)).collect();
    Tensor::from_data(TensorData::new(features, [length, dim]), device)
}

/// Positions on a square grid, of which every picture takes the middle (diffusers `PatchEmbed` with
/// `pos_embed_max_size`).
pub struct PositionTable {
    dim: usize,
    side: usize,
    base_size: usize,
    /// Where it is not what the formula gives.
    stored: Option<Embedding>,
}

impl PositionTable {
    /// `side` places along each side, which together span `base_size`.
    pub fn load(params: &Params, dim: usize, side: usize, base_size: usize) -> Result<Self> {
        let row = move |i: usize| sincos_at(dim, [i % side, i / side].map(|i| scaled_place(i, side, base_size)));
        let stored = params.table("pos_embed", [side * side, dim], row)?;
        Ok(Self { dim, side, base_size, stored: stored.map(|weight| Embedding { weight }) })
    }

    /// The `height` x `width` places in the middle, none more than the table's side: `[1, height * width, dim]`.
    pub fn middle(&self, height: usize, width: usize, device: &Device) -> Tensor<3> {
        let (top, left) = ((self.side - height) / 2, (self.side - width) / 2);
        let places = (0..height * width).map(|i| [left + i % width, top + i / width]);
        match &self.stored {
            Some(table) => {
                let ids: Vec<i64> = places.map(|[x, y]| (y * self.side + x) as i64).collect();
                table.forward(Tensor::from_data(TensorData::new(ids, [1, height * width]), device))
            }
            None => {
                let place = |i: usize| scaled_place(i, self.side, self.base_size);
                let features: Vec<f32> = places.flat_map(|at| sincos_at(self.dim, at.map(place))).collect();
                Tensor::from_data(TensorData::new(features, [1, height * width, self.dim]), device)
            }
        }
    }
}
