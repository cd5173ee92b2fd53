//! Exponential functions and what is made of them, as plain arithmetic without branches: compiled for a processor's vectors,
//! it is done for many values at once.

/// What a layer's output is bent by.
#[derive(Clone, Copy, Debug, PartialEq)]
pub enum Curve {
    Relu,
    /// `x sigmoid(x (linear + cubic x^2))`: SiLU and two approximations of GELU.
    Logistic {
        linear: f32,
        cubic: f32,
    },
    /// `x/2 (1 + erf(x / sqrt 2))`.
    Gelu,
}

impl Curve {
    #[inline(always)]
    pub(crate) fn bend(self, values: &mut [f32]) {
        match self {
            Self::Relu => values.iter_mut().for_each(|x| *x = if *x > 0.0 { *x } else { 0.0 }),
            Self::Logistic { linear, cubic } => {
                for x in values {
                    *x /= 1.0 + exp(-*x * (linear + cubic * *x * *x));
                }
            }
            Self::Gelu => {
                for x in values {
                    let beyond = 0.5 * erfc(x.abs() * std::f32::consts::FRAC_1_SQRT_2);
                    *x *= if *x > 0.0 { 1.0 - beyond } else { beyond };
                }
            }
        }
    }
}

/// `e^x` within 2 units of the last place (Cephes' `expf`); 0 below the least normal number, and never infinite.
#[inline(always)]
pub fn exp(x: f32) -> f32 {
    // Added and taken away again, it leaves the nearest whole number, which then also stands in the lowest bits.
    const ROUND: f32 = 12_582_912.0;
    const LN_2: [f32; 2] = [0.693_359_4, -2.121_944_4e-4];
    let bounded = if x > 88.0 { 88.0 } else { x };
    let bounded = if bounded > -87.0 { bounded } else { -87.0 };
    let power = bounded * std::f32::consts::LOG2_E + ROUND;
    let whole = power - ROUND;
    let rest = bounded - whole * LN_2[0] - whole * LN_2[1];
    let mut sum = 1.987_569_1e-4;
    for factor in [1.398_199_9e-3, 8.333_452e-3, 4.166_579_6e-2, 0.166_666_65, 0.5] {
        sum = sum * rest + factor;
    }
    let sum = sum * rest * rest + rest + 1.0;
    let value = f32::from_bits(sum.to_bits().wrapping_add(power.to_bits() << 23));
    if x < -87.0 { 0.0 } else { value }
}

/// `1 - erf(x)` for `x` of 0 and more, within 1.5e-7 (Abramowitz and Stegun 7.1.26).
#[inline(always)]
fn erfc(x: f32) -> f32 {
    let t = 1.0 / (1.0 + 0.327_591_1 * x);
    let mut sum = 1.061_405_4;
    for factor in [-1.453_152, 1.421_413_7, -0.284_496_74, 0.254_829_6] {
        sum = sum * t + factor;
    }
    sum * t * exp(-x * x)
}

#[cfg(test)]
mod tests {
    use super::*;

    fn range(most: f32) -> impl Iterator<Item = f32> {
        (-4000..=4000).map(move |i| i as f32 / 4000.0 * most)
    }

    #[test]
    fn exponentials_are_exact() {
        for x in range(86.9) {
            let expected = f64::from(x).exp();
            assert!((f64::from(exp(x)) / expected - 1.0).abs() < 2.5e-7, "e^{x} = {expected}, not {}", exp(x));
        }
        assert_eq!([f32::NEG_INFINITY, -1e30, -88.0].map(exp), [0.0; 3]);
        assert!(exp(1e30).is_finite());
    }

    #[test]
    fn curves_are_their_formulas() {
        // By its series, which is exact where its terms stay small.
        let erf = |x: f64| {
            let (mut term, mut sum) = (x, x);
            for n in 1..120 {
                term *= -x * x / f64::from(n);
                sum += term / f64::from(2 * n + 1);
            }
            sum * 2.0 / std::f64::consts::PI.sqrt()
        };
        let logistic = |x: f64| x / (1.0 + (-x * (1.5 + 0.07 * x * x)).exp());
        for x in range(4.5) {
            let x64 = f64::from(x);
            for (curve, expected) in [
                (Curve::Relu, x64.max(0.0)),
                (Curve::Logistic { linear: 1.5, cubic: 0.07 }, logistic(x64)),
                (Curve::Gelu, x64 / 2.0 * (1.0 + erf(x64 / 2f64.sqrt()))),
            ] {
                let mut value = [x];
                curve.bend(&mut value);
                assert!((f64::from(value[0]) - expected).abs() < 6e-7, "{curve:?} of {x}: {} for {expected}", value[0]);
            }
        }
    }
}
