//! The small autoencoder (diffusers `AutoencoderTiny`, the layout of TAESD: madebyollin/taesd).

use burn::tensor::{
    Int, Tensor, TensorData, activation, module,
    ops::{InterpolateMode, InterpolateOptions},
};

use super::shape::{AutoencoderShape, factors};
use crate::{
    Result,
    layers::{Activation, Conv2d, resize_nearest},
    values::{Latent, PixelTensor},
    weights::{Config, Params},
};

/// The decoder squashes latents to within this magnitude before anything else; diffusers fixes it.
const CLAMP: f64 = 3.0;

/// The numbers of `vae/config.json` that change the arithmetic.
#[derive(Clone, Debug)]
pub struct AutoencoderTinyConfig {
    pub in_channels: usize,
    pub out_channels: usize,
    pub latent_channels: usize,
    pub encoder_block_out_channels: Vec<usize>,
    pub decoder_block_out_channels: Vec<usize>,
    pub num_encoder_blocks: Vec<usize>,
    pub num_decoder_blocks: Vec<usize>,
    pub act_fn: Activation,
    pub upsample: InterpolateMode,
    pub upsampling_scaling_factor: usize,
    factor: usize,
    reduction: usize,
}

impl AutoencoderTinyConfig {
    /// # Errors
    /// `BadModel` for a value that is out of range or asks for what this version cannot do.
    pub fn read(config: &Config) -> Result<Self> {
        // `latent_magnitude` and `latent_shift` only serve storing latents as bytes; `block_out_channels`
        // repeats the decoder's; scaling and means are read where latents are scaled.
        config.ignore(&[
            "latent_magnitude",
            "latent_shift",
            "block_out_channels",
            "force_upcast",
            "scaling_factor",
            "shift_factor",
            "latents_mean",
            "latents_std",
        ]);
        let act_fn = config.str("act_fn", "relu")?;
        let num_encoder_blocks = config.opt_usizes("num_encoder_blocks")?.unwrap_or(vec![1, 3, 3, 3]);
        let num_decoder_blocks = config.opt_usizes("num_decoder_blocks")?.unwrap_or(vec![3, 3, 3, 1]);
        let encoder_block_out_channels = config.counts("encoder_block_out_channels", &[64; 4])?;
        let decoder_block_out_channels = config.counts("decoder_block_out_channels", &[64; 4])?;
        let upsampling_scaling_factor = config.count("upsampling_scaling_factor", 2)?;
        let (factor, reduction) = factors(
            config,
            "decoder_block_out_channels",
            encoder_block_out_channels.len(),
            decoder_block_out_channels.len(),
            upsampling_scaling_factor,
        )?;
        let this = Self {
            in_channels: config.count("in_channels", 3)?,
            out_channels: config.count("out_channels", 3)?,
            latent_channels: config.count("latent_channels", 4)?,
            encoder_block_out_channels,
            decoder_block_out_channels,
            num_encoder_blocks,
            num_decoder_blocks,
            act_fn: Activation::from_name(act_fn)
                .ok_or_else(|| config.wrong("act_fn", &format!("this version knows {}", Activation::NAMES)))?,
            upsample: match config.str("upsample_fn", "nearest")? {
                "nearest" => InterpolateMode::Nearest,
                "bilinear" => InterpolateMode::Bilinear,
                _ => return Err(config.wrong("upsample_fn", "this version knows nearest and bilinear")),
            },
            upsampling_scaling_factor,
            factor,
            reduction,
        };
        for (blocks, channels, key) in [
            (&this.num_encoder_blocks, &this.encoder_block_out_channels, "num_encoder_blocks"),
            (&this.num_decoder_blocks, &this.decoder_block_out_channels, "num_decoder_blocks"),
        ] {
            if blocks.len() != channels.len() {
                return Err(config.wrong(
                    key,
                    &format!("it must have {} values, as many as there are channel widths", channels.len()),
                ));
            }
            // diffusers builds each stage at its own width with no layer between, so only equal widths can run.
            if channels.iter().any(|width| width != &channels[0]) {
                return Err(config.wrong(
                    if key.contains("enc") { "encoder_block_out_channels" } else { "decoder_block_out_channels" },
                    "its widths must be equal",
                ));
            }
        }
        if this.in_channels != this.out_channels {
            return Err(config.wrong("out_channels", &format!("it must equal `in_channels`, {}", this.in_channels)));
        }
        config.finish("AutoencoderTiny");
        Ok(this)
    }

    /// Whether the decoder's last stage has no block: see [`Doubling`].
    fn ends_in_doubling(&self) -> bool {
        matches!(self.num_decoder_blocks.as_slice(), [.., _, 0])
            && matches!(self.upsample, InterpolateMode::Nearest)
            && self.upsampling_scaling_factor == 2
    }

    pub fn shape(&self) -> AutoencoderShape {
        let largest = if self.ends_in_doubling() { self.factor / 2 } else { self.factor };
        let (maps, pixels) =
            (self.decoder_block_out_channels[0] * largest * largest, self.out_channels * self.factor * self.factor);
        AutoencoderShape {
            pixel_channels: self.out_channels,
            latent_channels: self.latent_channels,
            factor: self.factor,
            reduction: self.reduction,
            map_per_position: maps.max(pixels),
        }
    }
}

/// `AutoencoderTiny`, both ways.
pub struct AutoencoderTiny {
    encoder: Vec<Layer>,
    decoder: Vec<Layer>,
}

/// One entry of the reference's `nn.Sequential`, whose index is part of the tensor's name.
enum Layer {
    Conv(Conv2d),
    Block(Block),
    Activation(Activation),
    Upsample(InterpolateMode, usize),
    Doubling(Doubling),
}

/// `AutoencoderTinyBlock`.
pub(super) struct Block {
    convs: [Conv2d; 3],
    activation: Activation,
}

/// The end of a decoder whose last stage has no block: pixels are doubled, and two convolutions follow one another with
/// nothing between, so all three are one convolution at half the size that makes each pixel's four: at full size the
/// first alone would cost more than a third of the whole decoder.
struct Doubling {
    /// Layer by layer, which is what counts at the edges: there the second convolution sees zeros, not the first one's output.
    layers: Vec<Layer>,
    /// `[4 C_out, C, 3, 3]`.
    folded: Conv2d,
}

impl AutoencoderTiny {
    /// # Errors
    /// `BadModel` where a tensor is missing or has another shape than the config says.
    pub fn load(params: &Params, config: &AutoencoderTinyConfig) -> Result<Self> {
        Ok(Self {
            encoder: load_encoder(&params.at("encoder"), config)?,
            decoder: load_decoder(&params.at("decoder"), config)?,
        })
    }

    /// `[N, C, H, W]` in -1..1 -> `[N, latent_channels, H / f, W / f]`, where `f` is the shape's `factor / reduction`.
    pub fn encode(&self, pixels: PixelTensor) -> Latent {
        run(&self.encoder, (pixels + 1.0) / 2.0)
    }

    /// `[N, latent_channels, h, w]` -> `[N, C, h * factor, w * factor]`, nominally in -1..1.
    pub fn decode(&self, z: Latent) -> PixelTensor {
        run(&self.decoder, activation::tanh(z / CLAMP) * CLAMP) * 2.0 - 1.0
    }
}

fn load_encoder(params: &Params, config: &AutoencoderTinyConfig) -> Result<Vec<Layer>> {
    let mut layers = Vec::new();
    let next = |layers: &Vec<Layer>| params.at(&format!("layers.{}", layers.len()));
    for (i, (&blocks, &width)) in config.num_encoder_blocks.iter().zip(&config.encoder_block_out_channels).enumerate() {
        layers.push(Layer::Conv(match i {
            0 => Conv2d::load(&next(&layers), config.in_channels, width, 3)?,
            _ => Conv2d::load_with(&next(&layers), width, width, 3, 2, [1, 1], false)?,
        }));
        for _ in 0..blocks {
            layers.push(Layer::Block(Block::load(&next(&layers), width, config.act_fn)?));
        }
    }
    let width = config.encoder_block_out_channels[config.encoder_block_out_channels.len() - 1];
    layers.push(Layer::Conv(Conv2d::load(&next(&layers), width, config.latent_channels, 3)?));
    Ok(layers)
}

fn load_decoder(params: &Params, config: &AutoencoderTinyConfig) -> Result<Vec<Layer>> {
    let mut layers = Vec::new();
    let next = |layers: &Vec<Layer>| params.at(&format!("layers.{}", layers.len()));
    let stages = config.num_decoder_blocks.len();
    layers.push(Layer::Conv(Conv2d::load(
        &next(&layers),
        config.latent_channels,
        config.decoder_block_out_channels[0],
        3,
    )?));
    layers.push(Layer::Activation(config.act_fn));
    for (i, (&blocks, &width)) in config.num_decoder_blocks.iter().zip(&config.decoder_block_out_channels).enumerate() {
        for _ in 0..blocks {
            layers.push(Layer::Block(Block::load(&next(&layers), width, config.act_fn)?));
        }
        if i + 1 < stages {
            layers.push(Layer::Upsample(config.upsample.clone(), config.upsampling_scaling_factor));
            layers.push(Layer::Conv(Conv2d::load_with(&next(&layers), width, width, 3, 1, [1, 1], false)?));
            continue;
        }
        let (last, c_out) = (next(&layers), config.out_channels);
        if config.ends_in_doubling() && !params.are_listed() {
            let doubled = layers.split_off(layers.len() - 2);
            let unbiased = Conv2d::load_with(&last, width, c_out, 3, 1, [1, 1], false)?;
            layers.push(Layer::Doubling(Doubling::fold(doubled, unbiased, last.tensor("bias", [c_out])?, width)));
        } else {
            layers.push(Layer::Conv(Conv2d::load(&last, width, c_out, 3)?));
        }
    }
    Ok(layers)
}

impl Doubling {
    /// Of an upsampling and a convolution, which take `width` channels, and a last one, whose bias comes apart.
    fn fold(mut layers: Vec<Layer>, last: Conv2d, bias: Tensor<1>, width: usize) -> Self {
        let (device, [c_out]) = (bias.device(), bias.dims());
        // A convolution's kernel is what it answers to one pixel, of each channel by itself, back to front: six by six values,
        // of which each of the four pixels that one becomes has every second.
        let mut pixel = vec![0f32; width * width * 9];
        (0..width).for_each(|channel| pixel[(channel * width + channel) * 9 + 4] = 1.0);
        let pixel = Tensor::from_data(TensorData::new(pixel, [width, width, 3, 3]), &device);
        let answer: Tensor<2> = last.forward(run(&layers, pixel)).reshape([width, 36 * c_out]);
        let taken = (0..36 * c_out).map(|i| {
            let (channel, [down, right], [y, x]) = (i / 36, [i / 18 % 2, i / 9 % 2], [i / 3 % 3, i % 3]);
            (channel * 36 + (2 * (2 - y) + down) * 6 + 2 * (2 - x) + right) as i64
        });
        let taken = TensorData::new(taken.collect::<Vec<_>>(), [36 * c_out]);
        let kernel: Tensor<3> =
            answer.select(1, Tensor::<1, Int>::from_data(taken, &device)).reshape([width, 4 * c_out, 9]);
        let biases = bias.clone().reshape([c_out, 1]).expand([c_out, 4]).reshape([4 * c_out]);
        let folded = Conv2d::computed(kernel.swap_dims(0, 1).reshape([4 * c_out, width, 3, 3]), biases);
        layers.push(Layer::Conv(last.biased(bias)));
        Self { layers, folded }
    }

    /// `[N, C, H, W] -> [N, C_out, 2 H, 2 W]`.
    fn forward(&self, x: Tensor<4>) -> Tensor<4> {
        let [n, _, h, w] = x.dims();
        if h < 2 || w < 2 {
            return run(&self.layers, x);
        }
        let pixels = self.folded.forward(x.clone());
        let c_out = pixels.dims()[1] / 4;
        let pixels: Tensor<6> = pixels.reshape([n, c_out, 2, 2, h, w]).permute([0, 1, 4, 2, 5, 3]);
        let mut pixels: Tensor<4> = pixels.reshape([n, c_out, 2 * h, 2 * w]);
        for dim in [2, 3] {
            let side = x.dims()[dim];
            for (two, at) in [(0, 0), (side - 2, 2 * side - 1)] {
                let near = run(&self.layers, x.clone().narrow(dim, two, 2));
                let edge = near.narrow(dim, at - 2 * two, 1);
                let mut place = [0..n, 0..c_out, 0..2 * h, 0..2 * w];
                place[dim] = at..at + 1;
                pixels = pixels.slice_assign(place, edge);
            }
        }
        pixels
    }
}

fn run(layers: &[Layer], x: Tensor<4>) -> Tensor<4> {
    layers.iter().fold(x, |x, layer| match layer {
        Layer::Conv(conv) => conv.forward(x),
        Layer::Block(block) => block.forward(x),
        Layer::Activation(activation) => activation.forward(x),
        Layer::Doubling(doubling) => doubling.forward(x),
        Layer::Upsample(mode, factor) => {
            let [_, _, height, width] = x.dims();
            let size = [height * factor, width * factor];
            if matches!(mode, InterpolateMode::Nearest) {
                return resize_nearest(x, size);
            }
            let options = InterpolateOptions::new(mode.clone()).with_align_corners(false);
            module::interpolate(x, options.with_output_size(size))
        }
    })
}

impl Block {
    /// Its skip is the identity, for input and output are equally wide.
    pub(super) fn load(params: &Params, width: usize, activation: Activation) -> Result<Self> {
        let conv = |i: usize| Conv2d::load(&params.at(&format!("conv.{i}")), width, width, 3);
        Ok(Self { convs: [conv(0)?, conv(2)?, conv(4)?], activation })
    }

    pub(super) fn forward(&self, x: Tensor<4>) -> Tensor<4> {
        let [first, second, third] = &self.convs;
        let h = self.activation.forward(first.forward(x.clone()));
        let h = self.activation.forward(second.forward(h));
        // The last activation is ReLU whatever `act_fn` says.
        Activation::Relu.forward(third.forward(h) + x)
    }
}

#[cfg(test)]
mod tests {
    use burn::tensor::Device;

    use super::*;
    use crate::weights::Tensors;

    #[test]
    fn doubling_is_its_layers() {
        let (width, c_out, device) = (5, 3, Device::flex());
        let values = |count: usize, step: f32| (0..count).map(|i| (i as f32 * step).sin()).collect::<Vec<_>>();
        let tensors = Tensors::new(&device);
        tensors.insert("first.weight", &[width, width, 3, 3], values(width * width * 9, 0.7));
        tensors.insert("last.weight", &[c_out, width, 3, 3], values(c_out * width * 9, 0.9));
        tensors.insert("last.bias", &[c_out], values(c_out, 1.3));
        let params = tensors.params("");
        let doubled = vec![
            Layer::Upsample(InterpolateMode::Nearest, 2),
            Layer::Conv(Conv2d::load_with(&params.at("first"), width, width, 3, 1, [1, 1], false).unwrap()),
        ];
        let unbiased = Conv2d::load_with(&params.at("last"), width, c_out, 3, 1, [1, 1], false).unwrap();
        let bias = params.tensor("last.bias", [c_out]).unwrap();
        let doubling = Doubling::fold(doubled, unbiased, bias, width);
        for [n, h, w] in [[2, 7, 6], [1, 2, 2], [1, 3, 2], [1, 1, 4], [1, 20, 33]] {
            let x = TensorData::new(values(n * width * h * w, 0.3), [n, width, h, w]);
            let x = Tensor::<4>::from_data(x, &device);
            let (ours, expected) = (doubling.forward(x.clone()), run(&doubling.layers, x));
            assert_eq!(ours.dims(), expected.dims());
            let largest = |x: Tensor<4>| x.abs().max().into_data().try_to_vec::<f32>().unwrap()[0];
            let difference = largest(ours - expected.clone()) / largest(expected);
            assert!(difference < 1e-5, "{n} x {h} x {w}: {difference}");
        }
    }
}
