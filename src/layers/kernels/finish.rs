//! What follows a product.

use burn::tensor::{DType, Device, Tensor};

use super::flex;
use crate::layers::activation::Activation;

/// What a layer's output is added to.
pub struct Residual<const D: usize> {
    pub x: Tensor<D>,
    /// What the output is multiplied by before: `[N or 1, 1, D]`.
    pub gate: Option<Tensor<D>>,
}

impl<const D: usize> Residual<D> {
    pub fn new(x: Tensor<D>) -> Self {
        Self { x, gate: None }
    }

    pub fn gated(x: Tensor<D>, gate: Tensor<D>) -> Self {
        Self { x, gate: Some(gate) }
    }
}

/// `residual + gate activation(y + bias)`, of which what is not given is left out; `y` is `[..., D]`, `bias` `[D]`.
pub fn finish<const D: usize>(
    y: Tensor<D>,
    bias: Option<&Tensor<1>>,
    activation: Option<Activation>,
    residual: Option<Residual<D>>,
) -> Tensor<D> {
    #[cfg(gpu)]
    if let Some(finished) = gpu::finish(&y, bias, activation, residual.as_ref()) {
        return finished;
    }
    let y = bias.into_iter().fold(y, |y, bias| y + bias.clone().unsqueeze());
    if y.device() == Device::flex() && y.dtype() == DType::F32 {
        let (x, gate) = residual.map_or((None, None), |Residual { x, gate }| (Some(x), gate));
        return flex::finish(y, activation, x, gate);
    }
    let y = activation.into_iter().fold(y, |y, activation| activation.plain(y));
    residual.into_iter().fold(y, |y, Residual { x, gate }| x + gate.into_iter().fold(y, |y, gate| y * gate))
}

impl Activation {
    pub fn forward<const D: usize>(self, x: Tensor<D>) -> Tensor<D> {
        finish(x, None, Some(self), None)
    }
}

#[cfg(gpu)]
pub(super) use gpu::{Rest, activated, finished, number};

#[cfg(gpu)]
mod gpu {
    use burn::tensor::Tensor;
    use burn_cubecl::cubecl::{self, prelude::*};

    use super::Residual;
    use crate::layers::{
        activation::Activation,
        kernels::gpu::{CubeTensor, buffer, each_value, empty_like, laid_out, tensor},
    };

    // What is to be done, as bits of a number that the kernel is given: all of it is one kernel, for each is compiled when
    // it is first used, and that is what a first picture waits for.
    const BIAS: u32 = 1;
    const GATE: u32 = 2;
    const RESIDUAL: u32 = 4;
    /// The bits above are the activation's number.
    const ACTIVATION: u32 = 8;

    pub fn number(activation: Activation) -> u32 {
        match activation {
            Activation::Relu => 1,
            Activation::Silu => 2,
            Activation::Gelu => 3,
            Activation::GeluTanh => 4,
            Activation::QuickGelu => 5,
            Activation::Mish => 6,
        }
    }

    pub fn finish<const D: usize>(
        y: &Tensor<D>,
        bias: Option<&Tensor<1>>,
        activation: Option<Activation>,
        residual: Option<&Residual<D>>,
    ) -> Option<Tensor<D>> {
        let shape = y.dims();
        let (width, values) = (shape[D - 1], shape.iter().product::<usize>());
        let mut y = buffer(y)?;
        // Alone, an activation does not care where in memory which value is.
        let anyhow = bias.is_none() && residual.is_none() && y.is_contiguous_buffer() && y.is_nonoverlapping();
        if !anyhow {
            y = burn_cubecl::kernel::into_contiguous(y);
        }
        let mut out = empty_like(&y);
        out.meta = y.meta.clone();
        let client = y.client.clone();
        let rest = Rest::new(&y, values, bias, activation, residual)?;
        let (cubes, cube) = each_value(&y, values);
        kernel::launch(
            &client,
            cubes,
            cube,
            y.into_buffer_arg(),
            rest.bias.into_buffer_arg(),
            rest.gate.into_buffer_arg(),
            rest.residual.into_buffer_arg(),
            out.clone().into_buffer_arg(),
            values,
            rest.values_of_one,
            width,
            rest.parts,
        );
        Some(tensor(out))
    }

    /// What follows a product, as a kernel is given it.
    pub struct Rest {
        pub bias: CubeTensor,
        pub gate: CubeTensor,
        pub residual: CubeTensor,
        /// How many values share a gate's row.
        pub values_of_one: usize,
        /// What is to be done.
        pub parts: u32,
    }

    impl Rest {
        /// Of an output of so many `values`. A kernel has all its buffers; it does not look at those that stand for nothing,
        /// which are `input`.
        pub fn new<const D: usize>(
            input: &CubeTensor,
            values: usize,
            bias: Option<&Tensor<1>>,
            activation: Option<Activation>,
            residual: Option<&Residual<D>>,
        ) -> Option<Self> {
            let gate = residual.and_then(|residual| residual.gate.as_ref());
            let parts = u32::from(bias.is_some()) * BIAS
                + u32::from(gate.is_some()) * GATE
                + u32::from(residual.is_some()) * RESIDUAL
                + activation.map_or(0, number) * ACTIVATION;
            let gates = gate.map_or(1, |gate| gate.dims()[0]);
            Some(Self {
                values_of_one: values / gates,
                bias: bias.map_or(Some(input.clone()), laid_out)?,
                gate: gate.map_or(Some(input.clone()), laid_out)?,
                residual: residual.map_or(Some(input.clone()), |residual| laid_out(&residual.x))?,
                parts,
            })
        }
    }

    #[cube(launch)]
    #[allow(clippy::too_many_arguments)]
    fn kernel(
        y: &[f32],
        bias: &[f32],
        gate: &[f32],
        residual: &[f32],
        out: &mut [f32],
        values: usize,
        values_of_one: usize,
        width: usize,
        parts: u32,
    ) {
        let at = ABSOLUTE_POS;
        if at >= values {
            terminate!();
        }
        out[at] = finished(y[at], bias, gate, residual, at, values_of_one, width, parts);
    }

    /// The value number `at` of a product's output, and what is to be done with it.
    #[cube]
    #[allow(clippy::too_many_arguments)]
    pub fn finished(
        y: f32,
        bias: &[f32],
        gate: &[f32],
        residual: &[f32],
        at: usize,
        values_of_one: usize,
        width: usize,
        parts: u32,
    ) -> f32 {
        let column = at % width;
        let mut value = y;
        if parts & BIAS != 0 {
            value += bias[column];
        }
        value = activated(value, parts / ACTIVATION);
        if parts & GATE != 0 {
            value *= gate[at / values_of_one * width + column];
        }
        if parts & RESIDUAL != 0 {
            value += residual[at];
        }
        value
    }

    /// By an activation's [`number`]; 0 is none.
    #[cube]
    // Inside a kernel a number is a literal, not a constant of the library.
    #[allow(unstable_name_collisions, clippy::approx_constant)]
    pub fn activated(x: f32, activation: u32) -> f32 {
        let mut y = x;
        if activation == 1 {
            y = max(x, 0.0f32);
        } else if activation == 2 {
            y = x * sigmoid(x);
        } else if activation == 3 {
            y = x * 0.5f32 * (1.0f32 + (x * 0.70710678f32).erf());
        } else if activation == 4 {
            y = x * sigmoid(x * (1.595_769f32 + 0.07135482f32 * x * x));
        } else if activation == 5 {
            y = x * sigmoid(1.702f32 * x);
        } else if activation == 6 {
            y = x * (max(x, 0.0f32) + (1.0f32 + (-x.abs()).exp()).ln()).tanh();
        }
        y
    }

    /// By a hyperbolic tangent, which does not overflow.
    #[cube]
    fn sigmoid(x: f32) -> f32 {
        0.5f32 * (0.5f32 * x).tanh() + 0.5f32
    }
}
