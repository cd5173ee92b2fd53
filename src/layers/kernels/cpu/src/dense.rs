//! Dense layers.

use macerator::Simd;

use crate::{
    Out, each,
    tile::{Factors, Start, WIDTH, block},
};

/// How many outputs of a dense layer's weights lie side by side.
pub const PANEL: usize = WIDTH;

/// `out[m, n] = bias[n] + sum over i of x[m, i] w[n, i]`: `x` `[rows, d_in]`, `out` `[rows, d_out]`, and the weights in
/// `panels` `[d_out / PANEL rounded up, d_in, PANEL]`, the last filled up with anything.
pub fn dense(x: &[f32], panels: &[f32], bias: Option<&[f32]>, out: &mut [f32], [rows, d_in, d_out]: [usize; 3]) {
    let count = d_out.div_ceil(PANEL);
    assert_eq!([x.len(), panels.len(), out.len()], [rows * d_in, count * d_in * PANEL, rows * d_out]);
    assert!(bias.is_none_or(|bias| bias.len() == d_out));
    let out = Out(out.as_mut_ptr());
    each(count, rows * d_in * d_out, |number| panel(x, panels, bias, &out, [rows, d_in, d_out], number));
}

#[macerator::with_simd]
fn panel<'a, S: Simd>(
    x: &'a [f32],
    panels: &'a [f32],
    bias: Option<&'a [f32]>,
    out: &Out,
    shape: [usize; 3],
    number: usize,
) {
    let [rows, d_in, d_out] = shape;
    let first = number * PANEL;
    let columns = PANEL.min(d_out - first);
    let mut begun = [0f32; PANEL];
    if let Some(bias) = bias {
        begun[..columns].copy_from_slice(&bias[first..first + columns]);
    }
    let factors = Factors {
        a: x,
        rows,
        depth: d_in,
        b: &panels[first * d_in..(first + PANEL) * d_in],
        start: if bias.is_some() { Start::Columns(&begun) } else { Start::Zero },
    };
    // SAFETY: `dense` has checked the lengths; these columns of `out` are this panel's alone.
    unsafe { block::<S>(factors, columns, out.at(first), d_out) }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn panels_are_a_product() {
        let values = |count: usize, step: f32| (0..count).map(|i| (i as f32 * step).sin()).collect::<Vec<f32>>();
        for (rows, d_in, d_out) in
            [(1, 5, PANEL), (7, 3, 1), (6, 12, 2 * PANEL + 3), (13, 40, PANEL - 1), (70, 200, 200)]
        {
            let (x, w, bias) = (values(rows * d_in, 0.3), values(d_out * d_in, 0.7), values(d_out, 1.1));
            let mut panels = vec![f32::NAN; d_out.next_multiple_of(PANEL) * d_in];
            for n in 0..d_out {
                for i in 0..d_in {
                    panels[(n / PANEL * d_in + i) * PANEL + n % PANEL] = w[n * d_in + i];
                }
            }
            for bias in [None, Some(&bias[..])] {
                let mut out = vec![f32::NAN; rows * d_out];
                dense(&x, &panels, bias, &mut out, [rows, d_in, d_out]);
                for (at, value) in out.into_iter().enumerate() {
                    let (m, n) = (at / d_out, at % d_out);
                    let sum: f32 = (0..d_in).map(|i| x[m * d_in + i] * w[n * d_in + i]).sum();
                    let expected = bias.map_or(0.0, |bias| bias[n]) + sum;
                    assert!(
                        (value - expected).abs() < 1e-4,
                        "{rows} {d_in} {d_out}: {value} for {expected} at {m}, {n}"
                    );
                }
            }
        }
    }
}
