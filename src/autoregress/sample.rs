//! From logits to a code. Plain numbers in f64, so that the same logits and noise give the same code everywhere.

/// How codes are drawn from logits: these steps, in this order, as transformers' `generate` has them.
#[derive(Clone, Copy, Debug, PartialEq)]
pub struct Sampling {
    /// What logits are divided by; 0 takes the likeliest code.
    pub temperature: f64,
    /// Codes less likely than so many others are never drawn; 0 draws from all.
    pub top_k: usize,
    /// The likeliest codes that together reach this share of all likelihood are drawn from; 1 draws from all.
    pub top_p: f64,
}

impl Sampling {
    /// The code that is drawn from `logits` with Gumbel `noise`, a value for each of them (Gumbel-max: the largest sum of
    /// both).
    pub fn draw(&self, logits: &[f64], noise: &[f32]) -> usize {
        if self.temperature == 0.0 {
            return largest(logits.iter().copied());
        }
        let logits: Vec<f64> = logits.iter().map(|logit| logit / self.temperature).collect();
        let least = self.least(&logits);
        let sums = logits
            .iter()
            .zip(noise)
            .map(|(logit, noise)| if *logit < least { f64::NEG_INFINITY } else { logit + f64::from(*noise) });
        largest(sums)
    }

    /// The smallest logit that may be drawn.
    fn least(&self, logits: &[f64]) -> f64 {
        if self.top_k == 0 && self.top_p >= 1.0 {
            return f64::NEG_INFINITY;
        }
        let mut sorted = logits.to_vec();
        sorted.sort_by(|a, b| b.total_cmp(a));
        if self.top_k > 0 {
            sorted.truncate(self.top_k.max(1));
        }
        if self.top_p < 1.0 {
            let weights: Vec<f64> = sorted.iter().map(|logit| libm::exp(logit - sorted[0])).collect();
            let share = self.top_p * weights.iter().sum::<f64>();
            let mut before = 0.0;
            let kept = weights.iter().take_while(|weight| {
                let kept = before < share;
                before += *weight;
                kept
            });
            let kept = kept.count().max(1);
            sorted.truncate(kept);
        }
        sorted.last().copied().unwrap_or(f64::NEG_INFINITY)
    }
}

/// The first of the largest; 0 of none.
fn largest(values: impl Iterator<Item = f64>) -> usize {
    let first = |best: (usize, f64), (i, value): (usize, f64)| if value > best.1 { (i, value) } else { best };
    values.enumerate().fold((0, f64::NEG_INFINITY), first).0
}

/// Classifier-free guidance on logits: `u + g (c - u)`.
pub fn guided(unguided: &[f32], conditional: &[f32], scale: f64) -> Vec<f64> {
    let pairs = unguided.iter().zip(conditional).map(|(u, c)| (f64::from(*u), f64::from(*c)));
    pairs.map(|(u, c)| u + scale * (c - u)).collect()
}

/// The logarithm of a code's share in the softmax of `logits`.
pub fn log_probability(logits: &[f32], code: usize) -> f64 {
    let logit = |value: &f32| f64::from(*value);
    let most = logits.iter().map(logit).fold(f64::NEG_INFINITY, f64::max);
    let sum: f64 = logits.iter().map(|value| libm::exp(logit(value) - most)).sum();
    logits.get(code).map_or(f64::NEG_INFINITY, logit) - most - libm::log(sum)
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::noise;

    const ALL: Sampling = Sampling { temperature: 1.0, top_k: 0, top_p: 1.0 };

    fn shares(sampling: Sampling, logits: &[f64], draws: usize) -> Vec<f64> {
        let mut counts = vec![0.0; logits.len()];
        for draw in 0..draws {
            counts[sampling.draw(logits, &noise::gumbel(1, draw as u64, logits.len()))] += 1.0 / draws as f64;
        }
        counts
    }

    fn assert_near(ours: &[f64], expected: &[f64]) {
        assert!(ours.iter().zip(expected).all(|(a, b)| (a - b).abs() < 0.02), "{ours:?}, not {expected:?}");
    }

    #[test]
    fn codes_are_drawn_as_often_as_the_softmax_says() {
        let logits = [0.4f64, 0.1, 0.3, 0.2].map(f64::ln);
        assert_near(&shares(ALL, &logits, 10_000), &[0.4, 0.1, 0.3, 0.2]);
        assert_near(&shares(Sampling { top_k: 2, ..ALL }, &logits, 10_000), &[4.0 / 7.0, 0.0, 3.0 / 7.0, 0.0]);
        // 0.4 and 0.3 are less than 0.75, so the next belongs to them.
        let expected = [4.0 / 9.0, 0.0, 3.0 / 9.0, 2.0 / 9.0];
        assert_near(&shares(Sampling { top_p: 0.75, ..ALL }, &logits, 10_000), &expected);
        // Of the two likeliest, the first has more than half.
        assert_near(&shares(Sampling { top_k: 2, top_p: 0.5, ..ALL }, &logits, 100), &[1.0, 0.0, 0.0, 0.0]);
        let squared = [16.0, 1.0, 9.0, 4.0].map(|share| share / 30.0);
        assert_near(&shares(Sampling { temperature: 0.5, ..ALL }, &logits, 10_000), &squared);
        assert_near(&shares(Sampling { temperature: 0.0, ..ALL }, &logits, 100), &[1.0, 0.0, 0.0, 0.0]);
    }

    #[test]
    fn what_is_as_likely_as_the_last_is_kept_too() {
        let sampling = Sampling { top_k: 1, ..ALL };
        assert_near(&shares(sampling, &[1.0, 1.0, 0.0], 10_000), &[0.5, 0.5, 0.0]);
    }

    #[test]
    fn guidance_and_probabilities() {
        assert_eq!(guided(&[1.0, 2.0], &[2.0, 2.5], 3.0), [4.0, 3.5]);
        assert_eq!(guided(&[1.0], &[2.0], 1.0), [2.0]);
        let logits = [0.5f32.ln() + 80.0, 0.25f32.ln() + 80.0, 0.25f32.ln() + 80.0];
        assert!((log_probability(&logits, 1) - 0.25f64.ln()).abs() < 1e-5);
    }
}
