//! Dense layers.

use burn::tensor::{Device, Tensor, module};

use super::{
    Activation,
    kernels::{Residual, finish},
};
use crate::{
    Error, Result,
    weights::{Params, in_f32},
};

/// `y = x W^T + b` (`torch.nn.Linear`).
pub struct Linear {
    /// Along the outputs; most layers have one.
    pieces: Vec<Piece>,
}

struct Piece {
    /// `[d_in, d_out]`, as the device keeps it: transposed once, where a product would do it at every call.
    weight: Tensor<2>,
    bias: Option<Tensor<1>>,
}

impl Linear {
    pub fn load(params: &Params, d_in: usize, d_out: usize) -> Result<Self> {
        Self::load_with(params, d_in, d_out, true)
    }

    pub fn load_with(params: &Params, d_in: usize, d_out: usize, bias: bool) -> Result<Self> {
        Self::load_joined(std::slice::from_ref(params), d_in, d_out, bias)
    }

    /// Layers of equal shape that see the same input, as one product: their outputs stand side by side.
    pub fn load_joined(layers: &[Params], d_in: usize, d_out: usize, bias: bool) -> Result<Self> {
        let layers: Vec<_> = layers.iter().map(|params| (params, d_out)).collect();
        Self::load_side_by_side(&layers, d_in, bias)
    }

    /// As [`load_joined`](Self::load_joined), for layers of as many outputs as stand beside each.
    pub fn load_side_by_side(layers: &[(&Params, usize)], d_in: usize, bias: bool) -> Result<Self> {
        let mut pieces: Vec<Piece> = Vec::new();
        let mut run: Vec<(Tensor<2>, Option<Tensor<1>>)> = Vec::new();
        let mut rows_in_run = 0;
        for &(params, d_out) in layers {
            let weight = params.weight("weight", [d_out, d_in])?;
            let bias: Option<Tensor<1>> = bias.then(|| params.tensor("bias", [d_out])).transpose()?;
            let mut start = 0;
            for rows in weight.into_kept() {
                let [count, _] = rows.dims();
                if rows_in_run + count > params.rows_in_a_piece(d_in) && !run.is_empty() {
                    pieces.push(Piece::join(std::mem::take(&mut run)));
                    rows_in_run = 0;
                }
                rows_in_run += count;
                run.push((rows, bias.clone().map(|bias| bias.narrow(0, start, count))));
                start += count;
            }
        }
        pieces.push(Piece::join(run));
        Ok(Self { pieces })
    }

    /// `[..., d_in] -> [..., d_out]`, or as many times `d_out` as layers were joined.
    pub fn forward<const D: usize>(&self, x: Tensor<D>) -> Tensor<D> {
        self.forward_then(x, None, None)
    }

    /// `residual + gate activation(y)` for the layer's output `y`, of which what is not given is left out.
    pub fn forward_then<const D: usize>(
        &self,
        x: Tensor<D>,
        activation: Option<Activation>,
        residual: Option<Residual<D>>,
    ) -> Tensor<D> {
        // The CPU device adds the bias where it multiplies; on a GPU it goes with what follows.
        let apart = x.device() != Device::flex();
        let product = |piece: &Piece, x, apart: bool| {
            let bias = if apart { None } else { piece.bias.clone() };
            module::linear(x, in_f32(piece.weight.clone()), bias)
        };
        let (y, bias) = match self.pieces.as_slice() {
            [whole] => (product(whole, x, apart), whole.bias.as_ref().filter(|_| apart)),
            pieces => {
                let parts = pieces.iter().map(|piece| product(piece, x.clone(), false));
                (Tensor::cat(parts.collect(), D - 1), None)
            }
        };
        match (bias, activation, &residual) {
            (None, None, None) => y,
            _ => finish(y, bias, activation, residual),
        }
    }
}

impl Piece {
    /// Rows `[d_out, d_in]` with their biases, one below the other.
    fn join(rows: Vec<(Tensor<2>, Option<Tensor<1>>)>) -> Self {
        let (rows, biases): (Vec<_>, Vec<_>) = rows.into_iter().unzip();
        let biases: Option<Vec<_>> = biases.into_iter().collect();
        Self { weight: laid_out(Tensor::cat(rows, 0).transpose()), bias: biases.map(|biases| Tensor::cat(biases, 0)) }
    }
}

/// The same tensor with its values in memory in the order of its dimensions: what is used often is put in order once.
pub fn laid_out<const D: usize>(x: Tensor<D>) -> Tensor<D> {
    let shape = x.dims();
    x.reshape([shape.iter().product::<usize>()]).reshape(shape)
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
        self.out.forward(self.widened(x))
    }

    /// The same, added to the residual.
    pub fn forward_onto(&self, x: Tensor<3>, residual: Residual<3>) -> Tensor<3> {
        self.out.forward_then(self.widened(x), None, Some(residual))
    }

    fn widened(&self, x: Tensor<3>) -> Tensor<3> {
        let activation = match self.kind {
            Kind::Plain(activation) => Some(activation),
            Kind::Sigmoid => Some(Activation::QuickGelu),
            Kind::Gated(_) => None,
        };
        let x = self.proj.forward_then(x, activation, None);
        match self.kind {
            Kind::Plain(_) | Kind::Sigmoid => x,
            Kind::Gated(activation) => {
                let [_, _, width] = x.dims();
                let gate = activation.forward(x.clone().narrow(2, width / 2, width / 2));
                x.narrow(2, 0, width / 2) * gate
            }
        }
    }
}
