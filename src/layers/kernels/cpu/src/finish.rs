//! What follows a product.

use crate::{Curve, Out, each};

/// Values that are done at a time: few enough to stay near.
const AT_ONCE: usize = 1 << 12;

/// What is done with `y`: `residual + gate curve(y)`, of which what is not given is left out.
#[derive(Clone, Copy)]
pub struct Finish<'a> {
    pub curve: Option<Curve>,
    /// Rows as long as `y`'s, each for as many of them as there are for all.
    pub gate: Option<&'a [f32]>,
    /// As long as `y`.
    pub residual: Option<&'a [f32]>,
}

impl Finish<'_> {
    /// In place of `y`, rows of `width` values.
    pub fn apply(&self, y: &mut [f32], width: usize) {
        let rows = y.len() / width;
        let rows_of_one = self.gate.map_or(1, |gate| rows / (gate.len() / width));
        assert_eq!(rows * width, y.len());
        assert!(self.gate.is_none_or(|gate| gate.len() * rows_of_one == y.len()));
        assert!(self.residual.is_none_or(|residual| residual.len() == y.len()));
        let at_once = (AT_ONCE / width).max(1);
        let out = Out(y.as_mut_ptr());
        each(rows.div_ceil(at_once), 16 * y.len(), |number| {
            let first = number * at_once;
            part(*self, &out, width, rows_of_one, first, at_once.min(rows - first));
        });
    }
}

// The macro's parameter says which vectors it is compiled for.
#[allow(clippy::extra_unused_type_parameters)]
#[macerator::with_simd]
fn part<'a, S: macerator::Simd>(
    finish: Finish<'a>,
    out: &Out,
    width: usize,
    rows_of_one: usize,
    first: usize,
    rows: usize,
) {
    // SAFETY: `apply` has counted the rows, and gives each to one call.
    let y = unsafe { std::slice::from_raw_parts_mut(out.at(first * width), rows * width) };
    if let Some(curve) = finish.curve {
        curve.bend(y);
    }
    for (i, y) in y.chunks_exact_mut(width).enumerate() {
        if let Some(gate) = finish.gate {
            let gate = &gate[(first + i) / rows_of_one * width..][..width];
            for (y, gate) in y.iter_mut().zip(gate) {
                *y *= gate;
            }
        }
        if let Some(residual) = finish.residual {
            let residual = &residual[(first + i) * width..][..width];
            for (y, x) in y.iter_mut().zip(residual) {
                *y += x;
            }
        }
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn all_parts_and_none_are_applied() {
        let (rows, width) = (6, AT_ONCE / 2 - 3);
        let values = |count: usize, step: f32| (0..count).map(|i| (i as f32 * step).sin()).collect::<Vec<f32>>();
        let (y, gate, x) = (values(rows * width, 0.3), values(2 * width, 0.7), values(rows * width, 1.1));
        for parts in 0..8 {
            let finish = Finish {
                curve: (parts & 1 > 0).then_some(Curve::Relu),
                gate: (parts & 2 > 0).then_some(&gate),
                residual: (parts & 4 > 0).then_some(&x),
            };
            let mut out = y.clone();
            finish.apply(&mut out, width);
            for (at, value) in out.into_iter().enumerate() {
                let bent = if parts & 1 > 0 { y[at].max(0.0) } else { y[at] };
                let gated = if parts & 2 > 0 { bent * gate[at / width / 3 * width + at % width] } else { bent };
                let expected = if parts & 4 > 0 { gated + x[at] } else { gated };
                assert!((value - expected).abs() < 1e-6, "{parts}: {value} for {expected} at {at}");
            }
        }
    }
}
