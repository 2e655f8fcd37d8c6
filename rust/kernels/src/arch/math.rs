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
    let two = lanes.splat(L::Scalar::ONE + L::Scalar::ONE);
    let power = polynomial(lanes, rest, math.exp);
    let power = lanes.fma(lanes.fma(power, rest, two), rest, two);
    // The polynomial is doubled and the scale halved, so that both ends of the range stay normal numbers; the scale of
    // the lowest exponent is 0.
    let scale = lanes.float_of(lanes.int_to_exponent(lanes.int_of(shifted)));
    lanes.mul(power, scale)
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
