//! Normalisations.

use burn::tensor::{Tensor, module};

use crate::{Result, weights::Params};

/// Layer normalisation over the last dimension.
pub struct LayerNorm {
    gamma: Tensor<1>,
    beta: Option<Tensor<1>>,
    eps: f64,
}

impl LayerNorm {
    pub fn load(params: &Params, dim: usize, eps: f64) -> Result<Self> {
        Ok(Self { gamma: params.tensor("weight", [dim])?, beta: Some(params.tensor("bias", [dim])?), eps })
    }

    /// `elementwise_affine=False`: nothing to load.
    pub fn plain(params: &Params, dim: usize, eps: f64) -> Self {
        Self { gamma: Tensor::ones([dim], params.device()), beta: None, eps }
    }

    pub fn forward<const D: usize>(&self, x: Tensor<D>) -> Tensor<D> {
        module::layer_norm(x, self.gamma.clone(), self.beta.clone(), self.eps)
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
        let mean_square = (x.clone() * x.clone()).mean_dim(D - 1);
        let x = x / (mean_square + self.eps).sqrt() * self.weight.clone().unsqueeze();
        match &self.bias {
            Some(bias) => x + bias.clone().unsqueeze(),
            None => x,
        }
    }
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
        // [N, C, H, W] -> [N * groups, C / groups * H * W]
        let x: Tensor<2> = x.reshape([n * self.groups, c / self.groups * h * w]);
        let (variance, mean) = x.clone().var_mean_bias(1);
        let x = (x - mean) / (variance + self.eps).sqrt();
        let channels = |t: &Tensor<1>| t.clone().reshape([1, c, 1, 1]);
        x.reshape([n, c, h, w]) * channels(&self.weight) + channels(&self.bias)
    }
}
