//! Attention.

use crate::{
    Out,
    curve::exp,
    each,
    tile::{Factors, ROWS, Start, WIDTH, block},
};

/// Rows of values that lie side by side, wherever the rows are.
#[derive(Clone, Copy)]
pub struct Rows<'a> {
    pub values: &'a [f32],
    /// Where the first one begins.
    pub start: usize,
    /// From one picture's, one head's and one token's to the next: 0 where all have the same.
    pub apart: [usize; 3],
}

impl<'a> Rows<'a> {
    #[inline(always)]
    fn row(&self, [n, head, token]: [usize; 3], length: usize) -> &'a [f32] {
        let at = self.start + n * self.apart[0] + head * self.apart[1] + token * self.apart[2];
        &self.values[at..at + length]
    }
}

/// `softmax(Q K^T scale + bias) V` over heads.
#[derive(Clone, Copy)]
pub struct Attention<'a> {
    /// Rows of `d` values, as those of `key` and `value`.
    pub query: Rows<'a>,
    pub key: Rows<'a>,
    pub value: Rows<'a>,
    /// A row of `tk` for each query.
    pub bias: Option<Rows<'a>>,
    pub scale: f32,
    pub n: usize,
    pub heads: usize,
    pub tq: usize,
    pub tk: usize,
    pub d: usize,
}

/// Queries that are done at a time.
const AT_ONCE: usize = 4 * ROWS;

impl Attention<'_> {
    /// To `out` `[n, tq, heads * d]`.
    pub fn apply(&self, out: &mut [f32]) {
        let Self { n, heads, tq, tk, d, .. } = *self;
        assert_eq!(out.len(), n * tq * heads * d);
        let operations = 2 * out.len() * tk;
        // Keys [tk / WIDTH, d, WIDTH], values [d / WIDTH, tk, WIDTH] of each head.
        let [keys, values] = [tk.next_multiple_of(WIDTH) * d, d.next_multiple_of(WIDTH) * tk];
        let mut packed = vec![0f32; n * heads * (keys + values)];
        let room = Out(packed.as_mut_ptr());
        each(n * heads, operations, |number| {
            // SAFETY: each has its own part.
            let to = unsafe { std::slice::from_raw_parts_mut(room.at(number * (keys + values)), keys + values) };
            let (to_keys, to_values) = to.split_at_mut(keys);
            for token in 0..tk {
                let place = [number / heads, number % heads, token];
                for (i, value) in self.key.row(place, d).iter().enumerate() {
                    to_keys[(token / WIDTH * d + i) * WIDTH + token % WIDTH] = *value;
                }
                for (i, part) in self.value.row(place, d).chunks(WIDTH).enumerate() {
                    to_values[(i * tk + token) * WIDTH..][..part.len()].copy_from_slice(part);
                }
            }
        });
        let (out, turns) = (Out(out.as_mut_ptr()), tq.div_ceil(AT_ONCE));
        each(n * heads * turns, operations, |number| {
            let (of, turn) = (number / turns, number % turns);
            let (keys, values) = packed[of * (keys + values)..][..keys + values].split_at(keys);
            queries(*self, keys, values, &out, of, turn * AT_ONCE);
        });
    }
}

/// Some queries, from `first` on, of a picture's head.
#[macerator::with_simd]
fn queries<'a, S: macerator::Simd>(
    shape: Attention<'a>,
    keys: &'a [f32],
    values: &'a [f32],
    out: &Out,
    of: usize,
    first: usize,
) {
    let Attention { query, bias, scale, heads, tq, tk, d, .. } = shape;
    let (n, head, rows) = (of / heads, of % heads, AT_ONCE.min(tq - first));
    let mut a = vec![0f32; rows * d];
    for (token, to) in a.chunks_exact_mut(d).enumerate() {
        for (to, value) in to.iter_mut().zip(query.row([n, head, first + token], d)) {
            *to = value * scale;
        }
    }
    let mut scores = vec![0f32; rows * tk];
    for (panel, b) in keys.chunks_exact(d * WIDTH).enumerate() {
        let factors = Factors { a: &a, rows, depth: d, b, start: Start::Zero };
        let columns = WIDTH.min(tk - panel * WIDTH);
        // SAFETY: `scores` has `tk` values for each of the rows.
        unsafe { block::<S>(factors, columns, scores.as_mut_ptr().add(panel * WIDTH), tk) }
    }
    for (token, scores) in scores.chunks_exact_mut(tk).enumerate() {
        if let Some(bias) = bias {
            for (score, bias) in scores.iter_mut().zip(bias.row([n, head, first + token], tk)) {
                *score += bias;
            }
        }
        let mut peak = f32::MIN;
        for score in &*scores {
            peak = if *score > peak { *score } else { peak };
        }
        for score in &mut *scores {
            *score = exp(*score - peak);
        }
        let share = scores.iter().sum::<f32>().recip();
        for score in scores {
            *score *= share;
        }
    }
    for (panel, b) in values.chunks_exact(tk * WIDTH).enumerate() {
        let factors = Factors { a: &scores, rows, depth: tk, b, start: Start::Zero };
        let columns = WIDTH.min(d - panel * WIDTH);
        // SAFETY: `out` is as large as `apply` has checked, and these queries of this head are written here alone.
        unsafe {
            let out = out.at(((n * tq + first) * heads + head) * d + panel * WIDTH);
            block::<S>(factors, columns, out, heads * d);
        }
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn it_is_its_formula() {
        let values = |count: usize, step: f32| (0..count).map(|i| (i as f32 * step).sin() * 2.0).collect::<Vec<f32>>();
        for (n, heads, tq, tk, d, biased) in [
            (1, 1, 1, 1, 1, false),
            (2, 3, 5, 7, 6, true),
            (1, 2, AT_ONCE + 3, 2 * WIDTH + 1, WIDTH + 2, true),
            (2, 2, 40, 33, 32, false),
        ] {
            // Joined and split by head afterwards, as a product leaves them: [n, tokens, 3, heads, d].
            let joined = values(n * tq.max(tk) * 3 * heads * d, 0.37);
            let part = |i: usize| Rows {
                values: &joined,
                start: i * heads * d,
                apart: [tq.max(tk) * 3 * heads * d, d, 3 * heads * d],
            };
            // The same for all heads and queries, and nothing of the last key of the first picture.
            let mut bias = values(n * tk, 0.9);
            if tk > 1 {
                bias[tk - 1] = f32::NEG_INFINITY;
            }
            let bias = biased.then_some(Rows { values: &bias, start: 0, apart: [tk, 0, 0] });
            let scale = (d as f32).sqrt().recip();
            let shape = Attention { query: part(0), key: part(1), value: part(2), bias, scale, n, heads, tq, tk, d };
            let mut out = vec![f32::NAN; n * tq * heads * d];
            shape.apply(&mut out);
            for (at, value) in out.into_iter().enumerate() {
                let (i, head, token, picture) = (at % d, at / d % heads, at / d / heads % tq, at / d / heads / tq);
                let query = part(0).row([picture, head, token], d);
                let weights: Vec<f64> = (0..tk)
                    .map(|key| {
                        let bias = bias.map_or(0.0, |bias| f64::from(bias.row([picture, head, token], tk)[key]));
                        let key = part(1).row([picture, head, key], d);
                        let score: f64 = query.iter().zip(key).map(|(a, b)| f64::from(*a) * f64::from(*b)).sum();
                        (score * f64::from(scale) + bias).exp()
                    })
                    .collect();
                let sum: f64 = weights.iter().sum();
                let expected: f64 =
                    (0..tk).map(|key| weights[key] / sum * f64::from(part(2).row([picture, head, key], d)[i])).sum();
                assert!(
                    (f64::from(value) - expected).abs() < 3e-6,
                    "{n} {heads} {tq} {tk} {d}: {value} for {expected}"
                );
            }
        }
    }
}
