//! Activations by the names that configs use (diffusers `get_activation`, transformers `ACT2FN`).

use burn::tensor::{Tensor, activation};

#[derive(Clone, Copy, Debug, PartialEq, Eq, Hash)]
pub enum Activation {
    Relu,
    Silu,
    /// The exact one, by the error function.
    Gelu,
    /// The tanh approximation (`gelu_new`, `gelu_pytorch_tanh`).
    GeluTanh,
    /// `x * sigmoid(1.702 x)`, CLIP's first.
    QuickGelu,
    Mish,
}

impl Activation {
    /// Names a config may use, for error messages.
    pub const NAMES: &'static str = "relu, silu, swish, gelu, gelu_new, gelu_pytorch_tanh, quick_gelu, mish";

    pub fn from_name(name: &str) -> Option<Self> {
        Some(match name {
            "relu" => Self::Relu,
            "silu" | "swish" => Self::Silu,
            "gelu" => Self::Gelu,
            "gelu_new" | "gelu_pytorch_tanh" | "gelu_tanh" => Self::GeluTanh,
            "quick_gelu" => Self::QuickGelu,
            "mish" => Self::Mish,
            _ => return None,
        })
    }

    /// What the tanh approximation has, twice the root of 2 / pi, for it is written as a logistic function.
    pub(super) const TWICE_SQRT_2_OVER_PI: f64 = 1.595_769_121_605_731;
    /// Its factor of the cube.
    pub(super) const GELU_CUBIC: f64 = 0.044715;

    /// In burn's steps.
    pub(super) fn plain<const D: usize>(self, x: Tensor<D>) -> Tensor<D> {
        match self {
            Self::Relu => activation::relu(x),
            Self::Silu => x.clone() * activation::sigmoid(x),
            Self::Gelu => activation::gelu(x),
            Self::GeluTanh => gelu_tanh(x),
            Self::QuickGelu => x.clone() * activation::sigmoid(x * 1.702),
            Self::Mish => activation::mish(x),
        }
    }
}

/// `x/2 (1 + tanh(sqrt(2/pi) (x + 0.044715 x^3)))`, written as `x sigmoid(2 ...)`, which is the same
/// number with fewer passes over memory and no power function.
fn gelu_tanh<const D: usize>(x: Tensor<D>) -> Tensor<D> {
    let linear = Activation::TWICE_SQRT_2_OVER_PI;
    let factor = x.clone() * x.clone() * (Activation::GELU_CUBIC * linear) + linear;
    x.clone() * activation::sigmoid(x * factor)
}
