//! Convolutions and resampling of feature maps.

use burn::tensor::{
    Device, Tensor, TensorData, module,
    ops::{ConvOptions, InterpolateMode, InterpolateOptions},
};

use super::{kernels::flex, linear::laid_out};
use crate::{
    Result,
    weights::{Params, Weight},
};

/// `torch.nn.Conv2d` with a square kernel.
pub struct Conv2d {
    /// `[c_out, c_in, k, k]`; on a GPU, whose convolutions want channels last, they lie last in memory.
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
        let weight = params.weight("weight", [c_out, c_in, kernel, kernel])?;
        let bias = match bias {
            true => Some(params.tensor("bias", [c_out])?),
            // A GPU would compile convolutions without a bias apart from those with one.
            false => (*params.device() != Device::flex())
                .then(|| Tensor::from_data(TensorData::new(vec![0f32; c_out], [c_out]), params.device())),
        };
        Ok(Self { weight: as_wanted(weight, params.device()), bias, stride, padding })
    }

    /// Stride 1 and "same" padding, of a weight `[c_out, c_in, k, k]` that was computed, and a bias `[c_out]`.
    pub fn computed(weight: Tensor<4>, bias: Tensor<1>) -> Self {
        let (device, padding) = (weight.device(), weight.dims()[2] / 2);
        Self { weight: as_wanted(weight.into(), &device), bias: Some(bias), stride: 1, padding: [padding; 2] }
    }

    /// The same with another bias, `[c_out]`.
    pub fn biased(self, bias: Tensor<1>) -> Self {
        Self { bias: Some(bias), ..self }
    }

    /// `[N, c_in, H, W] -> [N, c_out, H / stride, W / stride]`.
    pub fn forward(&self, x: Tensor<4>) -> Tensor<4> {
        let weight = self.weight.whole();
        if x.device() == Device::flex() && self.stride == 1 {
            return flex::convolution(x, weight, self.bias.clone(), self.padding);
        }
        let [begin, end] = self.padding;
        let options = ConvOptions::new_with_padding([self.stride; 2], [(begin, end); 2], [1, 1], 1);
        module::conv2d(x, weight, self.bias.clone(), options)
    }
}

/// In the layout that the device's convolutions want.
fn as_wanted(weight: Weight<4>, device: &Device) -> Weight<4> {
    match *device == Device::flex() {
        true => weight,
        false => weight.map(|x| laid_out(x.permute([0, 2, 3, 1])).permute([0, 3, 1, 2])),
    }
}

/// Each pixel becomes two by two (`F.interpolate(scale_factor=2, mode="nearest")`).
pub fn upsample_nearest_2x(x: Tensor<4>) -> Tensor<4> {
    let [_, _, height, width] = x.dims();
    resize_nearest(x, [2 * height, 2 * width])
}

/// To `[height, width]` by taking the nearest pixel (`F.interpolate(size=size, mode="nearest")`).
pub fn resize_nearest(x: Tensor<4>, size: [usize; 2]) -> Tensor<4> {
    let [_, _, h, w] = x.dims();
    // A GPU would compile burn's kernel anew for every size.
    if x.device() != Device::flex() && size[0].is_multiple_of(h) && size[1].is_multiple_of(w) {
        return repeat_pixels(x, [size[0] / h, size[1] / w]);
    }
    module::interpolate(x, InterpolateOptions::new(InterpolateMode::Nearest).with_output_size(size))
}

/// Each pixel `down` times below itself and `right` times beside itself. Convolutions leave channels last on a GPU, so this
/// is one copy there, of whole pixels.
fn repeat_pixels(x: Tensor<4>, [down, right]: [usize; 2]) -> Tensor<4> {
    let [n, c, h, w] = x.dims();
    let pixels: Tensor<5> = x.permute([0, 2, 3, 1]).reshape([n * h, 1, w, 1, c]).expand([n * h, down, w, right, c]);
    pixels.reshape([n, down * h, right * w, c]).permute([0, 3, 1, 2])
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::weights::Tensors;

    fn values(count: usize, step: f32) -> Vec<f32> {
        (0..count).map(|i| (i as f32 * step).sin()).collect()
    }

    #[test]
    fn repeated_pixels_are_the_nearest() {
        let x = Tensor::<4>::from_data(TensorData::new(values(2 * 3 * 4 * 5, 0.3), [2, 3, 4, 5]), &Device::flex());
        let list = |x: Tensor<4>| (x.dims(), x.into_data().try_to_vec::<f32>().unwrap());
        assert_eq!(list(repeat_pixels(x.clone(), [2, 3])), list(resize_nearest(x, [8, 15])));
    }

    /// Against burn's own convolution: sizes that are not square, kernels of three sizes, either bias.
    #[test]
    fn products_are_a_convolution() {
        for (n, c_in, c_out, [height, width], k, padding, bias) in [
            (2, 3, 5, [7, 6], 3, [1, 1], true),
            (1, 40, 4, [70, 33], 3, [1, 1], true),
            (1, 2, 3, [5, 8], 3, [0, 1], false),
            (1, 4, 2, [9, 9], 5, [2, 2], false),
            (2, 9, 60, [3, 17], 1, [0, 0], true),
        ] {
            let device = Device::flex();
            let tensors = Tensors::new(&device);
            tensors.insert("weight", &[c_out, c_in, k, k], values(c_out * c_in * k * k, 0.7));
            tensors.insert("bias", &[c_out], values(c_out, 1.3));
            let conv = Conv2d::load_with(&tensors.params(""), c_in, c_out, k, 1, padding, bias).unwrap();
            let x = TensorData::new(values(n * c_in * height * width, 0.3), [n, c_in, height, width]);
            let x = Tensor::<4>::from_data(x, &device);
            let options = ConvOptions::new_with_padding([1, 1], [(padding[0], padding[1]); 2], [1, 1], 1);
            let expected = module::conv2d(x.clone(), conv.weight.whole(), conv.bias.clone(), options);
            let ours = conv.forward(x);
            assert_eq!(ours.dims(), expected.dims());
            let difference = (ours - expected).abs().max().into_data().try_to_vec::<f32>().unwrap()[0];
            assert!(difference < 1e-4, "{difference}");
        }
    }
}
