//! The vector functions, one for all levels.

use super::lanes::{Lanes, Real};

/// e to the power of each lane, within 2 ULP. NaN stays NaN; -inf, and everything whose result would be denormal (below
/// about -87 in float32 and -708 in float64), gives exactly 0; +inf gives +inf.
#[inline(always)]
pub fn exp<L: Lanes>(lanes: L, x: L::V) -> L::V {
    // `min` and `max` give their second argument, the NaN, if there is one.
    exp_below(lanes, lanes.min(lanes.splat(L::Scalar::MATH.exp_high), x))
}

/// [`exp`] of lanes that are at most 89 (float32) or 710 (float64) or NaN: what a softmax needs, and one instruction less.
#[inline(always)]
pub fn exp_below<L: Lanes>(lanes: L, x: L::V) -> L::V {
    let math = L::Scalar::MATH;
    let x = lanes.max(lanes.splat(math.exp_low), x);
    let round = lanes.splat(math.round);
    let shifted = lanes.fma(x, lanes.splat(math.log2_e), round);
    // The integer next to x / ln 2 stands, biased, in the lowest bits of `shifted`.
    let exponent = lanes.sub(shifted, round);
    let rest = lanes.fnma(exponent, lanes.splat(math.ln2_high), x);
    let rest = lanes.fnma(exponent, lanes.splat(math.ln2_low), rest);
    scaled_power(lanes, rest, shifted)
}

/// exp(rest) times 2 to the power of the exponent in the lowest bits of `shifted`.
#[inline(always)]
fn scaled_power<L: Lanes>(lanes: L, rest: L::V, shifted: L::V) -> L::V {
    let two = lanes.splat(L::Scalar::ONE + L::Scalar::ONE);
    let power = polynomial(lanes, rest, L::Scalar::MATH.exp);
    let power = lanes.fma(lanes.fma(power, rest, two), rest, two);
    // The polynomial is doubled and the scale halved, so that both ends of the range stay normal numbers; the scale of
    // the lowest exponent is 0.
    let scale = lanes.float_of(lanes.int_to_exponent(lanes.int_of(shifted)));
    lanes.mul(power, scale)
}

/// exp((x - most) / temperature), as a softmax over a given row needs it: differences are not rounded, neither is the
/// quotient, so that also small weights keep all digits but the last.
#[derive(Debug, Clone, Copy)]
pub struct Difference<L: Lanes> {
    lanes: L,
    most: L::V,
    /// 1 / temperature, leading bits.
    scale: L::V,
    /// 1 / temperature, the rest.
    scale_rest: L::V,
    /// 1 / temperature / ln 2
    to_exponent: L::V,
    /// Below this difference the result is 0.
    lowest: L::V,
}

impl<L: Lanes> Difference<L> {
    /// `most` is at least every lane that will be given, or NaN; `temperature` is finite and at least 1e-30, so that the type
    /// holds its inverse.
    #[inline(always)]
    pub fn new(lanes: L, most: L::Scalar, temperature: f64) -> Self {
        let largest = L::Scalar::LARGEST.to_f64();
        let splat = |value: f64| lanes.splat(L::Scalar::from_f64(value.clamp(-largest, largest)));
        let exact = (1.0 / temperature).min(largest);
        Self {
            lanes,
            most: lanes.splat(most),
            scale: splat(exact),
            scale_rest: splat(exact - L::Scalar::from_f64(exact).to_f64()),
            to_exponent: splat(exact * std::f64::consts::LOG2_E),
            lowest: splat(L::Scalar::MATH.exp_low.to_f64() / exact),
        }
    }

    /// Exactly 0 for -inf, NaN for NaN and for +inf.
    #[inline(always)]
    pub fn exp(&self, x: L::V) -> L::V {
        let (lanes, math) = (self.lanes, L::Scalar::MATH);
        let difference = lanes.sub(x, self.most);
        // What the subtraction rounded away (Knuth's two-sum). For infinities it is NaN, and the mask drops it.
        let virtual_most = lanes.sub(difference, x);
        let rest_x = lanes.sub(x, lanes.sub(difference, virtual_most));
        let lost = lanes.sub(rest_x, lanes.add(self.most, virtual_most));
        let lost = lanes.select(lanes.lt(self.lowest, difference), lost, lanes.splat(L::Scalar::ZERO));
        // `max` gives its second argument, the NaN, if there is one.
        let difference = lanes.max(self.lowest, difference);
        let round = lanes.splat(math.round);
        let shifted = lanes.fma(difference, self.to_exponent, round);
        let exponent = lanes.sub(shifted, round);
        let multiple = lanes.mul(exponent, lanes.splat(-math.ln2_high));
        let rest = lanes.fma_once(difference, self.scale, multiple);
        let rest = lanes.fnma(exponent, lanes.splat(math.ln2_low), rest);
        let rest = lanes.fma(difference, self.scale_rest, rest);
        let rest = lanes.fma(lost, self.scale, rest);
        scaled_power(lanes, rest, shifted)
    }
}

/// The hyperbolic tangent of each lane, within 4 ULP. NaN stays NaN.
#[inline(always)]
pub fn tanh<L: Lanes>(lanes: L, x: L::V) -> L::V {
    let math = L::Scalar::MATH;
    let one = lanes.splat(L::Scalar::ONE);
    let zero = lanes.splat(L::Scalar::ZERO);
    let negative = lanes.lt(x, zero);
    let size = lanes.select(negative, lanes.sub(zero, x), x);
    // Far from 0: (1 - e) / (1 + e) with e = exp(-2 |x|).
    let e = exp_below(lanes, lanes.mul(size, lanes.splat(-(L::Scalar::ONE + L::Scalar::ONE))));
    let far = lanes.div(lanes.sub(one, e), lanes.add(one, e));
    let far = lanes.select(negative, lanes.sub(zero, far), far);
    let square = lanes.mul(x, x);
    let near = polynomial(lanes, square, math.tanh_numerator);
    let near = lanes.div(near, polynomial(lanes, square, math.tanh_denominator));
    let near = lanes.fma(lanes.mul(near, square), x, x);
    lanes.select(lanes.lt(size, lanes.splat(L::Scalar::from_f64(0.625))), near, far)
}

/// The polynomial with these coefficients, highest power first.
#[inline(always)]
fn polynomial<L: Lanes>(lanes: L, x: L::V, coefficients: &[L::Scalar]) -> L::V {
    let mut sum = lanes.splat(coefficients[0]);
    for &coefficient in &coefficients[1..] {
        sum = lanes.fma(sum, x, lanes.splat(coefficient));
    }
    sum
}
