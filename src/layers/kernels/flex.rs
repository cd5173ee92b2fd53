//! The CPU device's own steps, by [`inkbloom_cpu`]: for tensors in f32 on that device alone.

use burn::{
    backend::{
        DType, Flex, Shape,
        flex::{FlexTensor, Layout},
    },
    tensor::{Bytes, Tensor},
};
pub use inkbloom_cpu::PANEL;
use inkbloom_cpu::{Attention, Convolution, Curve, Finish, Rows};

use crate::layers::activation::Activation;

/// `[..., d_in]` by `panels` `[d_out / PANEL rounded up, d_in, PANEL]`, plus `bias` `[d_out]`: `[..., d_out]`.
pub fn dense<const D: usize>(x: Tensor<D>, panels: Tensor<3>, bias: Option<Tensor<1>>, d_out: usize) -> Tensor<D> {
    let mut shape = x.dims();
    let d_in = std::mem::replace(&mut shape[D - 1], d_out);
    let (x, panels, bias) = (laid_out(x), laid_out(panels), bias.map(laid_out));
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
    let (x, weight, bias) = (laid_out(x), laid_out(weight), bias.map(laid_out));
    computed([n, c_out, h_out, w_out], |out| {
        inkbloom_cpu::convolve(&shape, values(&x), values(&weight), bias.as_ref().map(values), out);
    })
}

/// `softmax(Q K^T scale + bias) V` of `[N, heads, T, d]` each, as `[N, Tq, heads * d]`; `bias`, if given, is
/// `[N or 1, heads or 1, Tq or 1, Tk]`.
pub fn attention(query: Tensor<4>, key: Tensor<4>, value: Tensor<4>, bias: Option<Tensor<4>>, scale: f64) -> Tensor<3> {
    let ([n, heads, tq, d], [_, _, tk, _]) = (query.dims(), key.dims());
    let [query, key, value] = [query, key, value].map(by_row);
    let bias = bias.map(|bias| by_row(bias.expand([n, heads, tq, tk])));
    let [query, key, value] = [rows(&query), rows(&key), rows(&value)];
    let (bias, scale) = (bias.as_ref().map(rows), scale as f32);
    let attention = Attention { query, key, value, bias, scale, n, heads, tq, tk, d };
    computed([n, tq, heads * d], |out| attention.apply(out))
}

/// `residual + gate activation(y)`, of which what is not given is left out; `gate` is `[N or 1, 1, D]`.
pub fn finish<const D: usize>(
    y: Tensor<D>,
    activation: Option<Activation>,
    residual: Option<Tensor<D>>,
    gate: Option<Tensor<D>>,
) -> Tensor<D> {
    let width = y.dims()[D - 1];
    let (y, curve) = match activation.map(|activation| (activation, curve(activation))) {
        Some((activation, None)) => (activation.plain(y), None),
        Some((_, curve)) => (y, curve),
        None => (y, None),
    };
    let (residual, gate, mut y) = (residual.map(laid_out), gate.map(laid_out), laid_out(y));
    let (start, end) = y.layout().contiguous_offsets().expect("in order");
    Finish { curve, gate: gate.as_ref().map(values), residual: residual.as_ref().map(values) }
        .apply(&mut y.storage_mut()[start..end], width);
    Tensor::from_primitive::<Flex>(y)
}

fn curve(activation: Activation) -> Option<Curve> {
    Some(match activation {
        Activation::Relu => Curve::Relu,
        Activation::Silu => Curve::Logistic { linear: 1.0, cubic: 0.0 },
        Activation::QuickGelu => Curve::Logistic { linear: 1.702, cubic: 0.0 },
        Activation::GeluTanh => {
            let linear = Activation::TWICE_SQRT_2_OVER_PI as f32;
            Curve::Logistic { linear, cubic: linear * Activation::GELU_CUBIC as f32 }
        }
        Activation::Gelu => Curve::Gelu,
        Activation::Mish => return None,
    })
}

fn held<const D: usize>(x: Tensor<D>) -> FlexTensor {
    x.try_into_primitive::<Flex>().expect("callers ask for the device")
}

/// With its values in memory in the order of its dimensions.
fn laid_out<const D: usize>(x: Tensor<D>) -> FlexTensor {
    held(x).to_contiguous()
}

fn values(x: &FlexTensor) -> &[f32] {
    x.as_slice().expect("f32, in order")
}

/// With the values of its last dimension side by side.
fn by_row(x: Tensor<4>) -> FlexTensor {
    let x = held(x);
    if x.layout().strides()[3] == 1 { x } else { x.to_contiguous() }
}

fn rows(x: &FlexTensor) -> Rows<'_> {
    let strides = x.layout().strides();
    let apart = std::array::from_fn(|i| strides[i].unsigned_abs());
    Rows { values: x.storage(), start: x.layout().start_offset(), apart }
}

fn computed<const D: usize>(shape: [usize; D], fill: impl FnOnce(&mut [f32])) -> Tensor<D> {
    let mut out = vec![0f32; shape.iter().product()];
    fill(&mut out);
    let layout = Layout::contiguous(Shape::from(shape.to_vec()));
    Tensor::from_primitive::<Flex>(FlexTensor::new(Bytes::from_elems(out), layout, DType::F32))
}
