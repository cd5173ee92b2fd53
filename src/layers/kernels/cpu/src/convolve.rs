//! Convolutions.

use crate::{Convolution, patches, winograd};

/// `pictures` `[n, c_in, height, width]` by `weights` `[c_out, c_in, kernel, kernel]`, plus `bias` `[c_out]`, to `out`
/// `[n, c_out, height, width]` of [`Convolution::size`].
pub fn convolve(shape: &Convolution, pictures: &[f32], weights: &[f32], bias: Option<&[f32]>, out: &mut [f32]) {
    let &Convolution { c_in, c_out, kernel, height, width, .. } = shape;
    let [h_out, w_out] = shape.size();
    assert_eq!(weights.len(), c_out * c_in * kernel * kernel);
    assert!(bias.is_none_or(|bias| bias.len() == c_out));
    assert_eq!(pictures.len() * c_out * h_out * w_out, out.len() * c_in * height * width);
    if winograd::fits(shape) {
        winograd::convolve(shape, pictures, weights, bias, out);
    } else {
        patches::convolve(shape, pictures, weights, bias, out);
    }
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::tile::WIDTH;

    fn plain(shape: &Convolution, pictures: &[f32], weights: &[f32], bias: Option<&[f32]>) -> Vec<f32> {
        let &Convolution { c_in, c_out, kernel, height, width, padding: [begin, _] } = shape;
        let [h_out, w_out] = shape.size();
        let mut out = Vec::new();
        for picture in pictures.chunks_exact(c_in * height * width) {
            for place in 0..c_out * h_out * w_out {
                let (o, y, x) = (place / (h_out * w_out), place / w_out % h_out, place % w_out);
                let mut sum = bias.map_or(0.0, |bias| f64::from(bias[o]));
                for step in 0..c_in * kernel * kernel {
                    let (c, ky, kx) = (step / (kernel * kernel), step / kernel % kernel, step % kernel);
                    let (y, x) = ((y + ky).wrapping_sub(begin), (x + kx).wrapping_sub(begin));
                    if y < height && x < width {
                        let weight = weights[o * c_in * kernel * kernel + step];
                        sum += f64::from(weight) * f64::from(picture[(c * height + y) * width + x]);
                    }
                }
                out.push(sum as f32);
            }
        }
        out
    }

    #[test]
    fn both_ways_are_a_convolution() {
        let values = |count: usize, step: f32| (0..count).map(|i| (i as f32 * step).sin()).collect::<Vec<f32>>();
        let mut fitting = 0;
        for (n, c_in, c_out, [height, width], kernel, padding) in [
            (1, 1, 1, [1, 1], 1, [0, 0]),
            (2, 3, 5, [7, 6], 3, [1, 1]),
            (1, 2, 3, [5, 8], 3, [0, 1]),
            (1, 4, 2, [9, 9], 5, [2, 2]),
            (1, 9, patches::GROUP + 1, [3, 2 * WIDTH + 1], 1, [0, 0]),
            (2, 17, 19, [17, 2 * WIDTH + 3], 3, [1, 1]),
            (1, 16, 18, [18, 4 * WIDTH + 2], 3, [1, 1]),
            (1, 16, 16, [21, 3 * WIDTH], 3, [0, 1]),
        ] {
            let shape = Convolution { c_in, c_out, kernel, height, width, padding };
            fitting += usize::from(winograd::fits(&shape));
            let pictures = values(n * c_in * height * width, 0.3);
            let (weights, bias) = (values(c_out * c_in * kernel * kernel, 0.7), values(c_out, 1.1));
            for bias in [None, Some(&bias[..])] {
                let expected = plain(&shape, &pictures, &weights, bias);
                let mut out = vec![f32::NAN; expected.len()];
                convolve(&shape, &pictures, &weights, bias, &mut out);
                for (at, (value, expected)) in out.iter().zip(&expected).enumerate() {
                    assert!((value - expected).abs() < 2e-5, "{shape:?}: {value} for {expected} at {at}");
                }
            }
        }
        assert_eq!(fitting, 3);
    }
}
