//! Convolutions and resampling of feature maps.

use burn::tensor::{
    Tensor, module,
    ops::{ConvOptions, InterpolateMode, InterpolateOptions},
};

use crate::{
    Result,
    weights::{Params, Weight},
};

/// `torch.nn.Conv2d` with a square kernel.
pub struct Conv2d {
    /// `[c_out, c_in, k, k]`.
    weight: Weight<4>,
    bias: Option<Tensor<1>>,
    stride: usize,
    /// `[top and left, bottom and right]`.
    padding: [usize; 2],
}

impl Conv2d {
    /// Stride 1 and "same" padding, with a bias: the kind that nearly every layer is.
    pub fn load(params: &Params, c_in: usize, c_out: usize, kernel: usize) -> Result<Self> {
        Self::load_with(params, c_in, c_out, kernel, 1, [kernel / 2; 2], true)
    }

    pub fn load_with(
        params: &Params,
        c_in: usize,
        c_out: usize,
        kernel: usize,
        stride: usize,
        padding: [usize; 2],
        bias: bool,
    ) -> Result<Self> {
        Ok(Self {
            weight: params.weight("weight", [c_out, c_in, kernel, kernel])?,
            bias: bias.then(|| params.tensor("bias", [c_out])).transpose()?,
            stride,
            padding,
        })
    }

    /// `[N, c_in, H, W] -> [N, c_out, H / stride, W / stride]`.
    pub fn forward(&self, x: Tensor<4>) -> Tensor<4> {
        let [begin, end] = self.padding;
        let options = ConvOptions::new_with_padding([self.stride; 2], [(begin, end); 2], [1, 1], 1);
        module::conv2d(x, self.weight.whole(), self.bias.clone(), options)
    }
}

/// Each pixel becomes two by two (`F.interpolate(scale_factor=2, mode="nearest")`).
pub fn upsample_nearest_2x(x: Tensor<4>) -> Tensor<4> {
    let [_, _, height, width] = x.dims();
    resize_nearest(x, [2 * height, 2 * width])
}

/// To `[height, width]` by taking the nearest pixel (`F.interpolate(size=size, mode="nearest")`).
pub fn resize_nearest(x: Tensor<4>, size: [usize; 2]) -> Tensor<4> {
    module::interpolate(x, InterpolateOptions::new(InterpolateMode::Nearest).with_output_size(size))
}
