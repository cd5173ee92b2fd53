//! Normalisations.

use burn::tensor::{Device, Tensor, TensorData, module};

use super::{
    Activation, Linear,
    kernels::{layer_norm, rms_norm},
};
use crate::{Result, weights::Params};

/// Layer normalisation over the last dimension.
pub struct LayerNorm {
    weight: Tensor<1>,
    bias: Tensor<1>,
    /// Whether they were loaded, or are ones and zeros.
    affine: bool,
    eps: f64,
}

impl LayerNorm {
    pub fn load(params: &Params, dim: usize, eps: f64) -> Result<Self> {
        Ok(Self { weight: params.tensor("weight", [dim])?, bias: params.tensor("bias", [dim])?, affine: true, eps })
    }

    /// `elementwise_affine=False`: nothing to load.
    pub fn plain(params: &Params, dim: usize, eps: f64) -> Self {
        // Uploaded, for a GPU would compile a kernel for ones and zeros.
        let all = |value: f32| Tensor::from_data(TensorData::new(vec![value; dim], [dim]), params.device());
        Self { weight: all(1.0), bias: all(0.0), affine: false, eps }
    }

    pub fn forward<const D: usize>(&self, x: Tensor<D>) -> Tensor<D> {
        layer_norm(x, self.weight.clone().unsqueeze(), self.bias.clone().unsqueeze(), self.eps)
    }

    /// `norm(x) scale + shift`, with `[N or 1, 1, D]`.
    pub fn modulated(&self, x: Tensor<3>, shift: Tensor<3>, scale: Tensor<3>) -> Tensor<3> {
        if self.affine {
            return self.forward(x) * scale + shift;
        }
        layer_norm(x, scale, shift, self.eps)
    }
}

/// Division by the root of the last dimension's mean square, without subtracting its mean (T5 `LayerNorm`, diffusers
/// `RMSNorm`).
pub struct RmsNorm {
    weight: Tensor<1>,
    bias: Option<Tensor<1>>,
    eps: f64,
}

impl RmsNorm {
    pub fn load(params: &Params, dim: usize, eps: f64) -> Result<Self> {
        Ok(Self { weight: params.tensor("weight", [dim])?, bias: None, eps })
    }

    pub fn load_with_bias(params: &Params, dim: usize, eps: f64) -> Result<Self> {
        Ok(Self { bias: Some(params.tensor("bias", [dim])?), ..Self::load(params, dim, eps)? })
    }

    /// `[..., dim] -> [..., dim]`.
    pub fn forward<const D: usize>(&self, x: Tensor<D>) -> Tensor<D> {
        let x = rms_norm(x, &self.weight, self.eps);
        match &self.bias {
            Some(bias) => x + bias.clone().unsqueeze(),
            None => x,
        }
    }

    /// What `linear` makes of it: `[..., dim] -> [..., d_out]`.
    pub fn forward_to<const D: usize>(&self, linear: &Linear, x: Tensor<D>) -> Tensor<D> {
        match &self.bias {
            Some(_) => linear.forward(self.forward(x)),
            None => linear.forward_normed(x, &self.weight, self.eps),
        }
    }
}

/// What a condition makes of normalised tokens: a dense layer over its SiLU, in parts as wide as the tokens (diffusers
/// `AdaLayerNormZero`, `SD35AdaLayerNormZeroX`, `AdaLayerNormZeroSingle`; Peebles and Xie, arXiv 2212.09748).
pub struct Modulation {
    linear: Linear,
    parts: usize,
}

impl Modulation {
    pub fn load(params: &Params, dim: usize, parts: usize) -> Result<Self> {
        Ok(Self { linear: Linear::load(&params.at("linear"), dim, parts * dim)?, parts })
    }

    /// `condition` `[N, D]` gives as many parts `[N, 1, D]` as were loaded.
    pub fn forward(&self, condition: &Tensor<2>) -> Vec<Tensor<3>> {
        let [n, d] = condition.dims();
        // [N, parts * D] -> [N, parts, D]
        let all = self.linear.forward(Activation::Silu.forward(condition.clone())).reshape([n, self.parts, d]);
        (0..self.parts).map(|i| all.clone().narrow(1, i, 1)).collect()
    }
}

/// `x (1 + scale) + shift`, over `[N, T, D]` with `[N, 1, D]`.
pub fn modulate(x: Tensor<3>, shift: Tensor<3>, scale: Tensor<3>) -> Tensor<3> {
    x * (scale + 1.0) + shift
}

/// A layer norm that a condition scales and shifts (diffusers `AdaLayerNormContinuous` without parameters of the norm's
/// own).
pub struct AdaLayerNormContinuous {
    norm: LayerNorm,
    /// Scale, then shift: the other way around than in [`Modulation`]'s other uses.
    modulation: Modulation,
}

impl AdaLayerNormContinuous {
    pub fn load(params: &Params, dim: usize, eps: f64) -> Result<Self> {
        Ok(Self { norm: LayerNorm::plain(params, dim, eps), modulation: Modulation::load(params, dim, 2)? })
    }

    /// `x` `[N, T, D]` under `condition` `[N, D]`.
    pub fn forward(&self, x: Tensor<3>, condition: &Tensor<2>) -> Tensor<3> {
        let parts = self.modulation.forward(condition);
        self.norm.modulated(x, parts[1].clone(), parts[0].clone() + 1.0)
    }
}

/// `[N, A, B]`, each of N normalised over A and B.
fn normalised(x: Tensor<3>, eps: f64) -> Tensor<3> {
    let [n, a, b] = x.dims();
    if x.device() == Device::flex() {
        // The values are normalised as a layer norm's are; the ones are what it scales by.
        let ones = Tensor::ones([a * b], &x.device());
        return module::layer_norm(x.reshape([n, a * b]), ones, None, eps).reshape([n, a, b]);
    }
    by_rows(x, eps)
}

/// The same by means of rows and their mean: burn's mean has one unit of a GPU for each row, which would take a group's
/// values one after the other, and lavapipe ends a loop after 65,535 turns.
fn by_rows(x: Tensor<3>, eps: f64) -> Tensor<3> {
    let mean = |x: Tensor<3>| x.mean_dim(2).mean_dim(1);
    let centred = x.clone() - mean(x);
    let variance = mean(centred.clone() * centred.clone());
    centred / (variance + eps).sqrt()
}

/// Group normalisation over channel groups and all positions (`torch.nn.GroupNorm`).
pub struct GroupNorm {
    weight: Tensor<1>,
    bias: Tensor<1>,
    groups: usize,
    eps: f64,
}

impl GroupNorm {
    /// `groups` divides `channels`; callers check it where the config is read.
    pub fn load(params: &Params, channels: usize, groups: usize, eps: f64) -> Result<Self> {
        Ok(Self { weight: params.tensor("weight", [channels])?, bias: params.tensor("bias", [channels])?, groups, eps })
    }

    /// `[N, C, H, W] -> [N, C, H, W]`.
    pub fn forward(&self, x: Tensor<4>) -> Tensor<4> {
        let [n, c, h, w] = x.dims();
        // [N, C, H, W] -> [N * groups, C / groups * H, W]
        let x = normalised(x.reshape([n * self.groups, c / self.groups * h, w]), self.eps);
        let channels = |t: &Tensor<1>| t.clone().reshape([1, c, 1, 1]);
        x.reshape([n, c, h, w]) * channels(&self.weight) + channels(&self.bias)
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn rows_and_then_their_means_are_the_mean_of_all() {
        let values: Vec<f32> = (0..2 * 5 * 7).map(|i| (i as f32 * 0.7).sin() * 3.0 + 1.0).collect();
        let x = Tensor::<3>::from_data(TensorData::new(values, [2, 5, 7]), &Device::flex());
        let difference = (normalised(x.clone(), 1e-5) - by_rows(x, 1e-5)).abs().max();
        assert!(difference.into_data().try_to_vec::<f32>().unwrap()[0] < 1e-6);
    }

    #[cfg(gpu)]
    #[test]
    fn a_gpu_normalises_groups_of_any_length() {
        for [a, b] in [[3, 700], [512, 512], [513, 512], [1024, 1024]] {
            let values: Vec<f32> = (0..2 * a * b).map(|i| ((i % 1000) as f32 * 0.7).sin() + 0.3).collect();
            let on = |device: &Device| Tensor::<3>::from_data(TensorData::new(values.clone(), [2, a, b]), device);
            let values = |x: Tensor<3>| x.into_data().try_to_vec::<f32>().unwrap();
            let [cpu, gpu] = [&Device::flex(), crate::gpu::tested()].map(|device| values(normalised(on(device), 1e-5)));
            let difference = cpu.iter().zip(&gpu).map(|(a, b)| (a - b).abs()).fold(0.0, f32::max);
            assert!(difference < 1e-3, "{a} x {b}: {difference}");
        }
    }
}
