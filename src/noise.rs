//! Noise that pictures start from and codes are drawn by: the same numbers for the same seed on every target.
//!
//! The generator is counter-based, Philox-4x32-10 (Salmon et al., "Parallel random numbers: as easy as
//! 1, 2, 3", SC 2011): block `i` depends on the seed and `i` alone. Each block gives two uniform numbers
//! of 53 bits and from them, by Box and Muller, two normal ones. Logarithm, sine and cosine come from the
//! `libm` crate in f64, not from the platform, so that the bits agree everywhere.

/// `count` values of a standard normal distribution. `stream` tells apart independent noises of one seed:
/// 0 is the starting noise.
pub fn normal(seed: u64, stream: u64, count: usize) -> Vec<f32> {
    from_pairs(seed, stream, count, |[first, second]| {
        let radius = libm::sqrt(-2.0 * libm::log(1.0 - first));
        let angle = 2.0 * std::f64::consts::PI * second;
        [radius * libm::cos(angle), radius * libm::sin(angle)]
    })
}

/// `count` values of a standard Gumbel distribution: the largest of logits and these, added, is a draw from the logits'
/// softmax. Streams are those of [`normal`].
pub fn gumbel(seed: u64, stream: u64, count: usize) -> Vec<f32> {
    // Never 0, whose logarithm is without end.
    let exponential = |uniform: f64| (-libm::log(1.0 - uniform)).max(f64::MIN_POSITIVE);
    from_pairs(seed, stream, count, |pair| pair.map(|uniform| -libm::log(exponential(uniform))))
}

/// What `make` makes of each block's two uniform numbers.
fn from_pairs(seed: u64, stream: u64, count: usize, make: impl Fn([f64; 2]) -> [f64; 2]) -> Vec<f32> {
    let mut values = Vec::with_capacity(count + 1);
    for block in 0..count.div_ceil(2) as u64 {
        let words = philox4x32(
            [block as u32, (block >> 32) as u32, stream as u32, (stream >> 32) as u32],
            [seed as u32, (seed >> 32) as u32],
        );
        let made = make([uniform(words[0], words[1]), uniform(words[2], words[3])]);
        values.extend(made.map(|value| value as f32));
    }
    values.truncate(count);
    values
}

/// 53 random bits as a number in [0, 1).
fn uniform(high: u32, low: u32) -> f64 {
    let bits = (u64::from(high) << 32 | u64::from(low)) >> 11;
    bits as f64 / (1u64 << 53) as f64
}

/// Ten rounds of Philox on one block of four words.
fn philox4x32(mut counter: [u32; 4], mut key: [u32; 2]) -> [u32; 4] {
    for _ in 0..10 {
        let a = u64::from(counter[0]) * 0xD251_1F53;
        let b = u64::from(counter[2]) * 0xCD9E_8D57;
        counter = [(b >> 32) as u32 ^ counter[1] ^ key[0], b as u32, (a >> 32) as u32 ^ counter[3] ^ key[1], a as u32];
        key = [key[0].wrapping_add(0x9E37_79B9), key[1].wrapping_add(0xBB67_AE85)];
    }
    counter
}

#[cfg(test)]
mod tests {
    use super::*;

    /// The known answers published with Random123 (`kat_vectors`, philox4x32 with 10 rounds).
    #[test]
    fn philox_gives_the_published_answers() {
        assert_eq!(philox4x32([0; 4], [0; 2]), [0x6627_e8d5, 0xe169_c58d, 0xbc57_ac4c, 0x9b00_dbd8]);
        assert_eq!(philox4x32([u32::MAX; 4], [u32::MAX; 2]), [0x408f_276d, 0x41c8_3b0e, 0xa20b_c7c6, 0x6d54_51fd]);
        assert_eq!(
            philox4x32([0x243f_6a88, 0x85a3_08d3, 0x1319_8a2e, 0x0370_7344], [0xa409_3822, 0x299f_31d0]),
            [0xd16c_fe09, 0x94fd_cceb, 0x5001_e420, 0x2412_6ea1]
        );
    }

    #[test]
    fn the_noise_is_standard_normal() {
        let values = normal(7, 0, 100_000);
        let n = values.len() as f64;
        let mean = values.iter().map(|v| f64::from(*v)).sum::<f64>() / n;
        let moment = |k: i32| values.iter().map(|v| (f64::from(*v) - mean).powi(k)).sum::<f64>() / n;
        assert!(mean.abs() < 0.01, "mean {mean}");
        assert!((moment(2) - 1.0).abs() < 0.02, "variance {}", moment(2));
        assert!(moment(3).abs() < 0.05, "skewness {}", moment(3));
        assert!((moment(4) - 3.0).abs() < 0.1, "kurtosis {}", moment(4));
    }

    /// Its mean is Euler's constant, its variance pi^2 / 6.
    #[test]
    fn gumbel_noise_is_gumbels() {
        let values = gumbel(3, 9, 100_000);
        let n = values.len() as f64;
        let mean = values.iter().map(|v| f64::from(*v)).sum::<f64>() / n;
        let variance = values.iter().map(|v| (f64::from(*v) - mean).powi(2)).sum::<f64>() / n;
        assert!((mean - 0.57722).abs() < 0.01, "mean {mean}");
        assert!((variance - 1.64493).abs() < 0.03, "variance {variance}");
        assert_ne!(gumbel(3, 9, 4), gumbel(3, 10, 4));
    }

    #[test]
    fn seeds_and_streams_differ_and_prefixes_agree() {
        assert_ne!(normal(0, 0, 8), normal(1, 0, 8));
        assert_ne!(normal(0, 0, 8), normal(0, 1, 8));
        assert_ne!(normal(0, 0, 8), normal(1 << 32, 0, 8));
        assert_eq!(normal(5, 0, 7), normal(5, 0, 8)[..7]);
    }
}
