//! The CPU device's dense layers and convolutions, by [`inkbloom_cpu`]: for tensors in f32 on that device alone.

use burn::{
    backend::{
        DType, Flex, Shape,
        flex::{FlexTensor, Layout},
    },
    tensor::{Bytes, Tensor},
};
use inkbloom_cpu::Convolution;
pub use inkbloom_cpu::PANEL;

/// `[..., d_in]` by `panels` `[d_out / PANEL rounded up, d_in, PANEL]`, plus `bias` `[d_out]`: `[..., d_out]`.
pub fn dense<const D: usize>(x: Tensor<D>, panels: Tensor<3>, bias: Option<Tensor<1>>, d_out: usize) -> Tensor<D> {
    let mut shape = x.dims();
    let d_in = std::mem::replace(&mut shape[D - 1], d_out);
    let (x, panels, bias) = (held(x), held(panels), bias.map(held));
    computed(shape, |out| {
        let rows = out.len() / d_out;
        inkbloom_cpu::dense(values(&x), values(&panels), bias.as_ref().map(values), out, [rows, d_in, d_out]);
    })
}

/// `x` `[N, c_in, H, W]` by `weight` `[c_out, c_in, k, k]`, plus `bias` `[c_out]`, at stride 1; `padding` is
/// `[top and left, bottom and right]`.
pub fn convolution(x: Tensor<4>, weight: Tensor<4>, bias: Option<Tensor<1>>, padding: [usize; 2]) -> Tensor<4> {
    let ([n, c_in, height, width], [c_out, _, kernel, _]) = (x.dims(), weight.dims());
    let shape = Convolution { c_in, c_out, kernel, height, width, padding };
    let [h_out, w_out] = shape.size();
    let (x, weight, bias) = (held(x), held(weight), bias.map(held));
    computed([n, c_out, h_out, w_out], |out| {
        shape.apply(values(&x), values(&weight), bias.as_ref().map(values), out);
    })
}

/// As the device holds it, its values in the order of its dimensions.
fn held<const D: usize>(x: Tensor<D>) -> FlexTensor {
    x.try_into_primitive::<Flex>().expect("callers ask for the device").to_contiguous()
}

fn values(x: &FlexTensor) -> &[f32] {
    x.as_slice().expect("f32, in order")
}

fn computed<const D: usize>(shape: [usize; D], fill: impl FnOnce(&mut [f32])) -> Tensor<D> {
    let mut out = vec![0f32; shape.iter().product()];
    fill(&mut out);
    Tensor::from_primitive::<Flex>(FlexTensor::new(
        Bytes::from_elems(out),
        Layout::contiguous(Shape::from(shape.to_vec())),
        DType::F32,
    ))
}
