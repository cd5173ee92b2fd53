//! Dense layers.

use burn::tensor::{Tensor, module};

use super::Activation;
use crate::{
    Error, Result,
    weights::{Params, Weight},
};

/// `y = x W^T + b` (`torch.nn.Linear`).
pub struct Linear {
    /// `[d_out, d_in]`.
    weight: Weight<2>,
    bias: Option<Tensor<1>>,
}

impl Linear {
    pub fn load(params: &Params, d_in: usize, d_out: usize) -> Result<Self> {
        Self::load_with(params, d_in, d_out, true)
    }

    pub fn load_with(params: &Params, d_in: usize, d_out: usize, bias: bool) -> Result<Self> {
        Ok(Self {
            weight: params.weight("weight", [d_out, d_in])?,
            bias: bias.then(|| params.tensor("bias", [d_out])).transpose()?,
        })
    }

    /// `[..., d_in] -> [..., d_out]`.
    pub fn forward<const D: usize>(&self, x: Tensor<D>) -> Tensor<D> {
        let mut start = 0;
        let mut outputs = self.weight.pieces().map(|rows| {
            let [d_out, _] = rows.dims();
            let bias = self.bias.clone().map(|bias| bias.narrow(0, start, d_out));
            start += d_out;
            module::linear(x.clone(), rows.transpose(), bias)
        });
        match (outputs.next(), outputs.next()) {
            (Some(whole), None) => whole,
            (first, second) => Tensor::cat(first.into_iter().chain(second).chain(outputs).collect(), D - 1),
        }
    }
}

/// How many values a transformer block holds at once for each of a token's own: three or four times the perceptron's
/// inner width, while it is activated, and what it skips with.
pub const LIVE_WIDTHS: u64 = 16;

/// The two-layer perceptron of a transformer block (diffusers `FeedForward`; widens four times).
pub struct FeedForward {
    proj: Linear,
    out: Linear,
    kind: Kind,
}

#[derive(Clone, Copy)]
enum Kind {
    Plain(Activation),
    /// The first layer is twice as wide; its second half, activated, gates the first.
    Gated(Activation),
    /// `x sigmoid(1.702 x)`.
    Sigmoid,
}

impl FeedForward {
    /// `activation_fn` is the config's value; `file` names the config for the error.
    pub fn load(params: &Params, dim: usize, activation_fn: &str, file: &str) -> Result<Self> {
        let kind = match activation_fn {
            "gelu" => Kind::Plain(Activation::Gelu),
            "gelu-approximate" => Kind::Plain(Activation::GeluTanh),
            "linear-silu" => Kind::Plain(Activation::Silu),
            "geglu" => Kind::Gated(Activation::Gelu),
            "swiglu" => Kind::Gated(Activation::Silu),
            "geglu-approximate" => Kind::Sigmoid,
            other => {
                return Err(Error::bad_model(format!(
                    "{file}: `activation_fn` is \"{other}\"; this version knows gelu, gelu-approximate, geglu, geglu-approximate, swiglu and linear-silu"
                )));
            }
        };
        let inner = 4 * dim;
        let width = if matches!(kind, Kind::Gated(_)) { 2 * inner } else { inner };
        Ok(Self {
            proj: Linear::load(&params.at("net.0.proj"), dim, width)?,
            out: Linear::load(&params.at("net.2"), inner, dim)?,
            kind,
        })
    }

    /// `[N, T, dim] -> [N, T, dim]`.
    pub fn forward(&self, x: Tensor<3>) -> Tensor<3> {
        let x = self.proj.forward(x);
        let x = match self.kind {
            Kind::Plain(activation) => activation.forward(x),
            Kind::Sigmoid => Activation::QuickGelu.forward(x),
            Kind::Gated(activation) => {
                let [_, _, width] = x.dims();
                let gate = activation.forward(x.clone().narrow(2, width / 2, width / 2));
                x.narrow(2, 0, width / 2) * gate
            }
        };
        self.out.forward(x)
    }
}
