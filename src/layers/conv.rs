//! Convolutions and resampling of feature maps.

use burn::tensor::{
    Device, Tensor, module,
    ops::{ConvOptions, InterpolateMode, InterpolateOptions},
};

use super::linear::laid_out;
use crate::{
    Result,
    weights::{Params, Weight},
};

/// How many values a band of patches has at most, one more row aside: about what a core keeps close by.
const BAND_VALUES: usize = 1 << 18;
/// Bands are a multiple of this many rows, so that a product can take them as they lie.
const BAND_ROWS: usize = 4;

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
        let channels_last = |x: Tensor<4>| laid_out(x.permute([0, 2, 3, 1])).permute([0, 3, 1, 2]);
        Ok(Self {
            weight: if *params.device() == Device::flex() { weight } else { weight.map(channels_last) },
            bias: bias.then(|| params.tensor("bias", [c_out])).transpose()?,
            stride,
            padding,
        })
    }

    /// `[N, c_in, H, W] -> [N, c_out, H / stride, W / stride]`.
    pub fn forward(&self, x: Tensor<4>) -> Tensor<4> {
        let weight = self.weight.whole();
        let [_, _, kernel, _] = weight.dims();
        if x.device() == Device::flex() && self.stride == 1 && kernel > 1 {
            return self.by_bands(x, weight);
        }
        let [begin, end] = self.padding;
        let options = ConvOptions::new_with_padding([self.stride; 2], [(begin, end); 2], [1, 1], 1);
        module::conv2d(x, weight, self.bias.clone(), options)
    }

    /// The same for the CPU device, at stride 1, as products over bands of rows: once rows are padded and laid end to
    /// end, what a place of the kernel sees is the whole band a little further on, which copies fast and is
    /// multiplied as it lies. Between rows stand positions that mean nothing; they are left out at last.
    fn by_bands(&self, x: Tensor<4>, weight: Tensor<4>) -> Tensor<4> {
        let ([n, c_in, height, width], [c_out, _, k, _]) = (x.dims(), weight.dims());
        let [begin, end] = self.padding;
        let (h_out, w_out) = (height + begin + end + 1 - k, width + begin + end + 1 - k);
        // With one row more, for the last positions look beyond their row.
        let [padded_height, padded_width] = [height + begin + end + 1, width + begin + end];
        let padded = Tensor::zeros([n, c_in, padded_height, padded_width], &x.device())
            .slice_assign([0..n, 0..c_in, begin..begin + height, begin..begin + width], x)
            .reshape([n, c_in, padded_height * padded_width]);
        let weight: Tensor<3> = weight.reshape([1, c_out, c_in * k * k]);
        let bias = self.bias.as_ref().map(|bias| bias.clone().reshape([1, c_out, 1, 1]));

        let rows = (BAND_VALUES / (c_in * k * k * padded_width) / BAND_ROWS).max(1) * BAND_ROWS;
        let bands = (0..h_out).step_by(rows).map(|start| {
            let rows = rows.min(h_out - start);
            let length = rows * padded_width;
            // [N, c_in, k, k, length], of which nothing is copied before it is reshaped
            let patches: Tensor<5> = padded
                .clone()
                .narrow(2, start * padded_width, (k - 1) * (padded_width + 1) + length)
                .unfold::<4, _>(2, k - 1 + length, padded_width)
                .unfold(3, length, 1);
            let out = weight.clone().matmul(patches.reshape([n, c_in * k * k, length]));
            let out = out.reshape([n, c_out, rows, padded_width]).narrow(3, 0, w_out);
            match &bias {
                Some(bias) => out + bias.clone(),
                None => laid_out(out),
            }
        });
        Tensor::cat(bands.collect(), 2)
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

#[cfg(test)]
mod tests {
    use burn::tensor::TensorData;

    use super::*;
    use crate::weights::Tensors;

    fn values(count: usize, step: f32) -> Vec<f32> {
        (0..count).map(|i| (i as f32 * step).sin()).collect()
    }

    /// Against burn's own convolution: sizes that are not square, bands that end within the picture, either bias.
    #[test]
    fn bands_are_a_convolution() {
        for (n, c_in, c_out, [height, width], k, padding, bias) in [
            (2, 3, 5, [7, 6], 3, [1, 1], true),
            (1, 40, 4, [70, 33], 3, [1, 1], true),
            (1, 2, 3, [5, 8], 3, [0, 1], false),
            (1, 4, 2, [9, 9], 5, [2, 2], false),
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
