//! What a gated layer makes of its two halves.

use burn::tensor::Tensor;

use crate::layers::activation::Activation;

/// Which half of a layer's features gates the other.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum Gate {
    First,
    Second,
}

/// The halves of the last dimension of `x` `[N, T, 2 D]`, `activation` of the one that is the `gate` times the other:
/// `[N, T, D]`.
pub fn gated(x: Tensor<3>, activation: Activation, gate: Gate) -> Tensor<3> {
    #[cfg(gpu)]
    if let Some(gated) = gpu::gated(&x, activation, gate) {
        return gated;
    }
    let width = x.dims()[2] / 2;
    let [gating, other] = if gate == Gate::First { [0, width] } else { [width, 0] };
    activation.forward(x.clone().narrow(2, gating, width)) * x.narrow(2, other, width)
}

#[cfg(gpu)]
mod gpu {
    use burn::tensor::Tensor;
    use burn_cubecl::cubecl::{self, prelude::*};

    use super::Gate;
    use crate::layers::{
        activation::Activation,
        kernels::{
            finish::{activated, number},
            gpu::{each_value, empty, laid_out, tensor},
        },
    };

    pub fn gated(x: &Tensor<3>, activation: Activation, gate: Gate) -> Option<Tensor<3>> {
        let [n, t, both] = x.dims();
        let x = laid_out(x)?;
        let out = empty(&x, &[n, t, both / 2]);
        let client = x.client.clone();
        let values = n * t * (both / 2);
        let (cubes, cube) = each_value(&x, values);
        // Where in a row the half that gates begins, and the other.
        let [gating, other] = if gate == Gate::First { [0, both / 2] } else { [both / 2, 0] };
        kernel::launch(
            &client,
            cubes,
            cube,
            x.into_buffer_arg(),
            out.clone().into_buffer_arg(),
            values,
            both / 2,
            gating,
            other,
            number(activation),
        );
        Some(tensor(out))
    }

    #[cube(launch)]
    #[allow(clippy::too_many_arguments)]
    fn kernel(x: &[f32], out: &mut [f32], values: usize, width: usize, gating: usize, other: usize, activation: u32) {
        let at = ABSOLUTE_POS;
        if at >= values {
            terminate!();
        }
        let first = at / width * 2 * width + at % width;
        out[at] = activated(x[first + gating], activation) * x[first + other];
    }
}
