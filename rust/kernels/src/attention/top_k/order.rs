//! Floats in the order of integers.

use crate::arch::{Lanes, Real};

/// The integer of a lane's size.
pub(super) type Int<L> = <<L as Lanes>::Scalar as Real>::Int;

/// Which keys of a row to keep: those above `key`, and the first `ties` of those equal to it.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub(crate) struct Cut<I> {
    /// Everything above is kept.
    pub(crate) key: I,
    /// How many of those equal to `key` are kept, lowest index first.
    pub(crate) ties: usize,
}

/// Integers in the order of the floats: -0.0 equals 0.0, a NaN is above everything and equals every other NaN.
/// The smallest integer is the key of no float.
#[inline(always)]
pub(crate) fn keys<L: Lanes>(lanes: L, floats: L::V) -> L::I {
    let bits = lanes.int_of(floats);
    let magnitude = lanes.int_and(bits, lanes.int_splat(L::Scalar::MAGNITUDE));
    // -magnitude where the sign is set.
    let sign = lanes.int_sign(bits);
    let key = lanes.int_sub(lanes.int_xor(magnitude, sign), sign);
    let nan = lanes.int_gt(magnitude, lanes.int_splat(L::Scalar::INFINITY_BITS));
    lanes.int_select(nan, lanes.int_splat(L::Scalar::INT_MAX), key)
}

/// The test whether a float's [key](keys) is above another, without making it: for rows that came through
/// [`CutFinder::cut`], whose NaNs are all positive.
#[derive(Debug, Clone, Copy)]
pub(crate) struct Above<L: Lanes> {
    lanes: L,
    flip: L::I,
    bound: L::I,
}

impl<L: Lanes> Above<L> {
    /// Above this key.
    #[inline(always)]
    pub(crate) fn new(lanes: L, key: Int<L>) -> Self {
        let key: i64 = key.into();
        // Positive floats are in the order of their bits. With all bits but the sign flipped, which lowers a float of
        // key -m to the integer -m - 1 and leaves positive ones positive, negative ones are as well.
        let (flip, bound) = if key < 0 { (L::Scalar::MAGNITUDE, key - 1) } else { (L::Scalar::int(0), key) };
        Self { lanes, flip: lanes.int_splat(flip), bound: lanes.int_splat(L::Scalar::int(bound)) }
    }

    /// Which floats are.
    #[inline(always)]
    pub(crate) fn of(&self, floats: L::V) -> L::M {
        self.lanes.int_gt(self.lanes.int_xor(self.lanes.int_of(floats), self.flip), self.bound)
    }
}
