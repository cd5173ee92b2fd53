//! Which of several unfinished pictures go on. Plain numbers.
//!
//! Beam search with a verifier (Chen et al., "Visual autoregressive models beat diffusion models on inference time scaling",
//! arXiv 2510.16751): a scorer looks at what can be looked at, which is a whole grid; within a grid the pointwise mutual
//! information of text and codes ranks, which guidance gives for nothing. Likelihood alone would prefer what is empty.

/// What a nat of mutual information a place weighs beside the scorer's word, which is -1 to 1.
const MUTUAL_INFORMATION_WEIGHT: f64 = 0.1;

/// The places of the `keep` largest, best first; of equals the first, and what is no number last.
pub fn best(values: &[f64], keep: usize) -> Vec<usize> {
    let mut order: Vec<usize> = (0..values.len()).collect();
    let value = |i: &usize| if values[*i].is_nan() { f64::NEG_INFINITY } else { values[*i] };
    order.sort_by(|a, b| value(b).total_cmp(&value(a)));
    order.truncate(keep);
    order
}

/// Who goes on in each of `rows` rows: the `kept`, then each of them again, as often as there is room.
pub fn branch(kept: &[usize], rows: usize) -> Vec<usize> {
    kept.iter().copied().cycle().take(rows).collect()
}

/// How many go on after `row`, from 1, of a grid's `rows`, when `beams` are to be left of it and `drawn` are under way:
/// half of them in its middle.
pub fn kept_after(row: usize, rows: usize, drawn: usize, beams: usize) -> Option<usize> {
    let kept = drawn.div_ceil(2).max(beams);
    (2 * row == rows && kept < drawn).then_some(kept)
}

/// What ranks pictures whose grid is whole: the scorer's word, and the mutual information in nats over all `places`.
pub fn verdict(score: f32, mutual_information: f64, places: usize) -> f64 {
    f64::from(score) + MUTUAL_INFORMATION_WEIGHT * mutual_information / places.max(1) as f64
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn the_best_go_on_and_branch() {
        let values = [0.1, f64::NAN, 0.7, 0.7, -3.0];
        assert_eq!(best(&values, 3), [2, 3, 0]);
        assert_eq!(best(&values, 9), [2, 3, 0, 4, 1]);
        assert_eq!(branch(&[2, 0], 5), [2, 0, 2, 0, 2]);
        assert_eq!(branch(&[2, 0], 1), [2]);
    }

    #[test]
    fn half_go_on_from_the_middle_of_a_grid() {
        assert_eq!(kept_after(4, 8, 8, 2), Some(4));
        assert_eq!(kept_after(4, 8, 8, 6), Some(6));
        assert_eq!([kept_after(3, 8, 8, 2), kept_after(8, 8, 8, 2), kept_after(4, 8, 2, 2)], [None; 3]);
        // Nothing is left to choose of one.
        assert_eq!(kept_after(8, 16, 1, 1), None);
    }

    #[test]
    fn the_scorer_outweighs_mutual_information() {
        assert!(verdict(0.5, 0.0, 64) > verdict(0.4, 20.0, 64));
        assert!(verdict(0.5, 64.0, 64) > verdict(0.5, 0.0, 64));
        assert!((verdict(0.25, 64.0, 64) - 0.35).abs() < 1e-6);
    }
}
