//! The residual convolution block of U-Nets and KL autoencoders.

use burn::tensor::Tensor;

use super::{Activation, Conv2d, GroupNorm};
use crate::{Result, weights::Params};

/// diffusers `ResnetBlock2D` without a time embedding.
pub struct ResnetBlock2D {
    norm1: GroupNorm,
    conv1: Conv2d,
    norm2: GroupNorm,
    conv2: Conv2d,
    conv_shortcut: Option<Conv2d>,
    activation: Activation,
}

impl ResnetBlock2D {
    pub fn load(
        params: &Params,
        c_in: usize,
        c_out: usize,
        groups: usize,
        eps: f64,
        activation: Activation,
    ) -> Result<Self> {
        Ok(Self {
            norm1: GroupNorm::load(&params.at("norm1"), c_in, groups, eps)?,
            conv1: Conv2d::load(&params.at("conv1"), c_in, c_out, 3)?,
            norm2: GroupNorm::load(&params.at("norm2"), c_out, groups, eps)?,
            conv2: Conv2d::load(&params.at("conv2"), c_out, c_out, 3)?,
            conv_shortcut: (c_in != c_out)
                .then(|| Conv2d::load(&params.at("conv_shortcut"), c_in, c_out, 1))
                .transpose()?,
            activation,
        })
    }

    /// `[N, c_in, H, W] -> [N, c_out, H, W]`.
    pub fn forward(&self, x: Tensor<4>) -> Tensor<4> {
        let h = self.conv1.forward(self.activation.forward(self.norm1.forward(x.clone())));
        let h = self.conv2.forward(self.activation.forward(self.norm2.forward(h)));
        match &self.conv_shortcut {
            Some(conv) => conv.forward(x) + h,
            None => x + h,
        }
    }
}
