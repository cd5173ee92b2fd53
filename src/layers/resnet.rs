//! The residual convolution block of U-Nets and KL autoencoders.

use burn::tensor::Tensor;

use super::{Activation, Conv2d, GroupNorm, Linear};
use crate::{Result, weights::Params};

/// What the blocks of one network have in common.
#[derive(Clone, Copy, Debug)]
pub struct ResnetOptions {
    pub groups: usize,
    pub eps: f64,
    pub activation: Activation,
    /// The width of the time embedding, where there is one.
    pub time_dim: Option<usize>,
    /// Time scales and shifts the second norm's output instead of being added before it.
    pub scale_shift: bool,
    /// What the block's sum is divided by.
    pub output_scale: f64,
}

impl ResnetOptions {
    /// Without a time embedding.
    pub fn new(groups: usize, eps: f64, activation: Activation) -> Self {
        Self { groups, eps, activation, time_dim: None, scale_shift: false, output_scale: 1.0 }
    }
}

/// diffusers `ResnetBlock2D`.
pub struct ResnetBlock2D {
    norm1: GroupNorm,
    conv1: Conv2d,
    time: Option<Linear>,
    norm2: GroupNorm,
    conv2: Conv2d,
    conv_shortcut: Option<Conv2d>,
    options: ResnetOptions,
}

impl ResnetBlock2D {
    pub fn load(params: &Params, c_in: usize, c_out: usize, options: ResnetOptions) -> Result<Self> {
        let ResnetOptions { groups, eps, time_dim, scale_shift, .. } = options;
        let time_out = if scale_shift { 2 * c_out } else { c_out };
        Ok(Self {
            norm1: GroupNorm::load(&params.at("norm1"), c_in, groups, eps)?,
            conv1: Conv2d::load(&params.at("conv1"), c_in, c_out, 3)?,
            time: time_dim.map(|dim| Linear::load(&params.at("time_emb_proj"), dim, time_out)).transpose()?,
            norm2: GroupNorm::load(&params.at("norm2"), c_out, groups, eps)?,
            conv2: Conv2d::load(&params.at("conv2"), c_out, c_out, 3)?,
            conv_shortcut: (c_in != c_out)
                .then(|| Conv2d::load(&params.at("conv_shortcut"), c_in, c_out, 1))
                .transpose()?,
            options,
        })
    }

    /// `[N, c_in, H, W] -> [N, c_out, H, W]`.
    pub fn forward(&self, x: Tensor<4>) -> Tensor<4> {
        self.forward_at(x, None)
    }

    /// What the activated time embedding `[steps, time_dim]` comes to in this block: `[steps, c, 1, 1]`.
    pub fn prepare(&self, time: &Tensor<2>) -> Option<Tensor<4>> {
        self.time.as_ref().map(|linear| linear.forward(time.clone()).unsqueeze_dims(&[2, 3]))
    }

    /// As [`forward`](Self::forward), at `time` `[N or 1, c, 1, 1]`, [prepared](Self::prepare).
    pub fn forward_at(&self, x: Tensor<4>, time: Option<Tensor<4>>) -> Tensor<4> {
        let act = |x| self.options.activation.forward(x);
        let h = self.conv1.forward(act(self.norm1.forward(x.clone())));
        let h = match time {
            Some(time) if self.options.scale_shift => {
                let [_, width, _, _] = time.dims();
                let (scale, shift) = (time.clone().narrow(1, 0, width / 2), time.narrow(1, width / 2, width / 2));
                self.norm2.forward(h) * (scale + 1.0) + shift
            }
            Some(time) => self.norm2.forward(h + time),
            None => self.norm2.forward(h),
        };
        let h = self.conv2.forward(act(h));
        let x = self.conv_shortcut.iter().fold(x, |x, conv| conv.forward(x));
        if self.options.output_scale == 1.0 { x + h } else { (x + h) / self.options.output_scale }
    }
}
