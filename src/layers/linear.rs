//! Dense layers.

use burn::tensor::{Device, Tensor, module};

use super::{
    Activation,
    kernels::{
        Gate, Residual, finish,
        flex::{self, PANEL},
        gated, rms_norm, short_dense,
    },
};
use crate::{
    Error, Result,
    weights::{Params, in_f32, join},
};

/// `y = x W^T + b` (`torch.nn.Linear`).
pub struct Linear {
    /// Along the outputs; most layers have one.
    pieces: Vec<Piece>,
}

struct Piece {
    weight: Matrix,
    bias: Option<Tensor<1>>,
}

/// A weight transposed once, where a product would do it at every call, and kept as the device wants it.
enum Matrix {
    /// `[d_in, d_out]`.
    Whole(Tensor<2>),
    /// For the CPU device: [`PANEL`] outputs after the other, `[panels, d_in, PANEL]`, the last filled up with zeros. Its
    /// kernel reads each from end to end.
    Panels { panels: Tensor<3>, d_out: usize },
}

impl Linear {
    pub fn load(params: &Params, d_in: usize, d_out: usize) -> Result<Self> {
        Self::load_with(params, d_in, d_out, true)
    }

    pub fn load_with(params: &Params, d_in: usize, d_out: usize, bias: bool) -> Result<Self> {
        Self::load_joined(std::slice::from_ref(params), d_in, d_out, bias)
    }

    /// A weight that is something else, too: `rows` `[d_out, d_in]`, without a bias.
    pub fn tied(rows: Tensor<2>) -> Self {
        Self { pieces: vec![Piece::join(vec![(rows, None)])] }
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

    /// The same of what an RMS norm, of a weight `[d_in]`, makes of `x`.
    pub fn forward_normed<const D: usize>(&self, x: Tensor<D>, weight: &Tensor<1>, eps: f64) -> Tensor<D> {
        let short = self.short(&x, Some((weight, eps)), None, None);
        short.unwrap_or_else(|| self.forward(rms_norm(x, weight, eps)))
    }

    /// `residual + gate activation(y)` for the layer's output `y`, of which what is not given is left out.
    pub fn forward_then<const D: usize>(
        &self,
        x: Tensor<D>,
        activation: Option<Activation>,
        residual: Option<Residual<D>>,
    ) -> Tensor<D> {
        if let Some(done) = self.short(&x, None, activation, residual.as_ref()) {
            return done;
        }
        // The CPU device adds the bias where it multiplies; on a GPU it goes with what follows.
        let apart = x.device() != Device::flex();
        let product = |piece: &Piece, x, apart: bool| {
            let bias = if apart { None } else { piece.bias.clone() };
            piece.weight.multiplied(x, bias)
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

    /// All of it in one step of a GPU, where it can: see [`short_dense`].
    fn short<const D: usize>(
        &self,
        x: &Tensor<D>,
        norm: Option<(&Tensor<1>, f64)>,
        activation: Option<Activation>,
        residual: Option<&Residual<D>>,
    ) -> Option<Tensor<D>> {
        let [Piece { weight: Matrix::Whole(weight), bias }] = self.pieces.as_slice() else { return None };
        short_dense(x, weight, norm, bias.as_ref(), activation, residual)
    }
}

impl Piece {
    /// Rows `[d_out, d_in]` with their biases, one below the other.
    fn join(rows: Vec<(Tensor<2>, Option<Tensor<1>>)>) -> Self {
        let (rows, biases): (Vec<_>, Vec<_>) = rows.into_iter().unzip();
        let biases: Option<Vec<_>> = biases.into_iter().collect();
        Self { weight: Matrix::new(join(rows)), bias: biases.map(join) }
    }
}

impl Matrix {
    /// Of rows `[d_out, d_in]`.
    fn new(rows: Tensor<2>) -> Self {
        if rows.device() != Device::flex() {
            return Self::Whole(laid_out(rows.transpose()));
        }
        let [d_out, d_in] = rows.dims();
        let padding = d_out.next_multiple_of(PANEL) - d_out;
        let rows = match padding {
            0 => rows,
            _ => Tensor::cat(vec![rows.clone(), Tensor::zeros([padding, d_in], (&rows.device(), rows.dtype()))], 0),
        };
        let panels: Tensor<3> = rows.reshape([(d_out + padding) / PANEL, PANEL, d_in]);
        Self::Panels { panels: laid_out(panels.swap_dims(1, 2)), d_out }
    }

    /// `[..., d_in] -> [..., d_out]`.
    fn multiplied<const D: usize>(&self, x: Tensor<D>, bias: Option<Tensor<1>>) -> Tensor<D> {
        match self {
            Self::Whole(weight) => {
                // In one shape whatever came, for a GPU compiles a product for each number of dimensions.
                let (mut shape, weight) = (x.dims(), in_f32(weight.clone()));
                let d_in = std::mem::replace(&mut shape[D - 1], weight.dims()[1]);
                let rows = x.dims().iter().product::<usize>() / d_in;
                let x: Tensor<3> = x.reshape([1, rows, d_in]);
                module::linear(x, weight, bias).reshape(shape)
            }
            Self::Panels { panels, d_out } => flex::dense(x, in_f32(panels.clone()), bias, *d_out),
        }
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
            Kind::Gated(activation) => gated(x, activation, Gate::Second),
        }
    }
}

#[cfg(test)]
mod tests {
    use burn::tensor::TensorData;

    use super::*;
    use crate::weights::{Kept, Tensors};

    /// Widths that fill panels and that do not, few rows and many, one layer and several, f32 and f16.
    #[test]
    fn panels_are_a_product() {
        let device = Device::flex();
        let values = |count: usize, step: f32| (0..count).map(|i| (i as f32 * step).sin()).collect::<Vec<f32>>();
        for (rows, d_in, d_out, kept) in [
            (1, 5, PANEL, Kept::F32),
            (3, 7, 2 * PANEL, Kept::F16),
            (2, 6, PANEL + 1, Kept::F16),
            (70, 40, 3, Kept::F32),
        ] {
            let [ours, plain] = [(); 2].map(|()| {
                let tensors = Tensors::kept_as(&device, kept);
                for (name, step) in [("a", 0.7), ("b", 0.9)] {
                    tensors.insert(&format!("{name}.weight"), &[d_out, d_in], values(d_out * d_in, step));
                    tensors.insert(&format!("{name}.bias"), &[d_out], values(d_out, step));
                }
                tensors
            });
            let x = Tensor::<3>::from_data(TensorData::new(values(2 * rows * d_in, 0.3), [2, rows, d_in]), &device);
            let expected = ["a", "b"].map(|name| {
                let layer = plain.params(name);
                let weight: Tensor<2> = layer.tensor("weight", [d_out, d_in]).unwrap();
                let bias: Tensor<1> = layer.tensor("bias", [d_out]).unwrap();
                x.clone().matmul(weight.transpose().unsqueeze()) + bias.unsqueeze()
            });
            let layers = ["a", "b"].map(|name| ours.params(name));
            let joined = Linear::load_joined(&layers, d_in, d_out, true).unwrap().forward(x.clone());
            let expected = Tensor::cat(expected.to_vec(), 2);
            assert_eq!(joined.dims(), expected.dims());
            let difference = (joined - expected).abs().max().into_data().try_to_vec::<f32>().unwrap()[0];
            assert!(difference < 1e-5, "{difference}");
        }
    }
}
