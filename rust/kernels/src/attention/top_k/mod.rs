//! The k largest of a row: where to cut, found by counting. Nothing is sorted.
//!
//! Floats are compared as integers of the same order ([`keys`]). A sample gives two integers that the k-th largest
//! should lie between (Floyd and Rivest, 1975); one pass over the row counts how many keys lie above them and moves
//! those in between together, and the same is done with what it has moved until so few are left that each is compared
//! with each. If the key is not in between, another pass moves the part that it is in. A step that leaves most of the
//! keys (few distinct values) is followed by one that halves the interval of integers and pulls its ends to keys that
//! exist. So no row, however it is distributed, takes more passes than twice the bits of a key; most take two over the
//! row and three over small parts of it.

mod search;

use std::marker::PhantomData;

use crate::Result;
use crate::arch::{Lanes, Real};
use crate::buffer::reserved;
use search::Search;

type Int<L> = <<L as Lanes>::Scalar as Real>::Int;

/// Which keys of a row to keep: those above `key`, and the first `ties` of those equal to it.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub struct Cut<I> {
    /// Everything above is kept.
    pub key: I,
    /// How many of those equal to `key` are kept, lowest index first.
    pub ties: usize,
}

/// Integers in the order of the floats: -0.0 equals 0.0, a NaN is above everything and equals every other NaN.
/// The smallest integer is the key of no float.
#[inline(always)]
pub fn keys<L: Lanes>(lanes: L, floats: L::V) -> L::I {
    let bits = lanes.int_of(floats);
    let magnitude = lanes.int_and(bits, lanes.int_splat(L::Scalar::MAGNITUDE));
    // -magnitude where the sign is set.
    let sign = lanes.int_sign(bits);
    let key = lanes.int_sub(lanes.int_xor(magnitude, sign), sign);
    let nan = lanes.int_gt(magnitude, lanes.int_splat(L::Scalar::INFINITY_BITS));
    lanes.int_select(nan, lanes.int_splat(L::Scalar::INT_MAX), key)
}

/// The test whether a float's [key](keys) is above another, without making it: for rows that came through
/// [`Keys::cut`], whose NaNs are all positive.
#[derive(Debug, Clone, Copy)]
pub struct Above<L: Lanes> {
    lanes: L,
    flip: L::I,
    bound: L::I,
}

impl<L: Lanes> Above<L> {
    /// Above this key.
    #[inline(always)]
    pub fn new(lanes: L, key: Int<L>) -> Self {
        let key: i64 = key.into();
        // Positive floats are in the order of their bits. With all bits but the sign flipped, which lowers a float of
        // key -m to the integer -m - 1 and leaves positive ones positive, negative ones are as well.
        let (flip, bound) = if key < 0 { (L::Scalar::MAGNITUDE, key - 1) } else { (L::Scalar::int(0), key) };
        Self { lanes, flip: lanes.int_splat(flip), bound: lanes.int_splat(L::Scalar::int(bound)) }
    }

    /// Which floats are.
    #[inline(always)]
    pub fn of(&self, floats: L::V) -> L::M {
        self.lanes.int_gt(self.lanes.int_xor(self.lanes.int_of(floats), self.flip), self.bound)
    }
}

/// The floats of one row, next to each other. They may be a caller's memory, which another thread of the caller's may
/// write to meanwhile: nothing that is found out about them is taken to be true at a second look.
#[derive(Debug, Clone, Copy)]
pub struct Floats<'a, R> {
    first: *const R,
    len: usize,
    memory: PhantomData<&'a R>,
}

impl<'a, R: Real> Floats<'a, R> {
    /// # Safety
    /// `len` floats at `first` may be read during `'a`.
    #[inline(always)]
    pub unsafe fn new(first: *const R, len: usize) -> Self {
        Self { first, len, memory: PhantomData }
    }

    /// How many there are.
    #[inline(always)]
    #[expect(clippy::len_without_is_empty, reason = "a row has at least one")]
    pub fn len(&self) -> usize {
        self.len
    }

    /// Where the first one is.
    #[inline(always)]
    pub fn as_ptr(&self) -> *const R {
        self.first
    }

    /// A vector from `index` on, or what is left of the row; the other lanes are 0.
    #[inline(always)]
    pub fn vector<L: Lanes<Scalar = R>>(&self, lanes: L, index: usize) -> L::V {
        assert!(index <= self.len);
        // SAFETY: at most as many floats are read as there are behind `index`.
        unsafe { lanes.load_first(self.first.add(index), (self.len - index).min(L::N)) }
    }
}

impl<'a, R: Real> From<&'a [R]> for Floats<'a, R> {
    #[inline(always)]
    fn from(floats: &'a [R]) -> Self {
        // SAFETY: they are borrowed during 'a.
        unsafe { Self::new(floats.as_ptr(), floats.len()) }
    }
}

/// Room for the keys of one row; finds where to cut it.
#[derive(Debug)]
pub struct Keys<R: Real> {
    from: Vec<R::Int>,
    to: Vec<R::Int>,
    /// A row whose NaNs have been made the same.
    unified: Vec<R>,
}

impl<R: Real> Keys<R> {
    /// Room for rows of at most `len` floats; for 0 nothing is asked for.
    ///
    /// # Errors
    /// There is not so much memory.
    pub fn new(len: usize) -> Result<Self> {
        // A vector more, for the padding of candidates, at any level.
        let room = if len == 0 { 0 } else { len.next_multiple_of(search::WIDEST).saturating_add(search::WIDEST) };
        Ok(Self { from: reserved(room)?, to: reserved(room)?, unified: reserved(room)? })
    }

    /// Where to cut so that exactly `k` of the row's floats are kept, 1 ≤ `k` ≤ its length; and the row, or a copy of it
    /// in which all NaNs are positive and have the same bits.
    #[inline(always)]
    pub fn cut<'a, L>(&'a mut self, lanes: L, row: Floats<'a, R>, k: usize) -> (Cut<R::Int>, Floats<'a, R>)
    where
        L: Lanes<Scalar = R>,
    {
        debug_assert!(1 <= k && k <= row.len());
        let mut is_unified = false;
        let cut = loop {
            let floats = if is_unified { Floats::from(&self.unified[..row.len()]) } else { row };
            match Search::new(lanes, floats, &mut self.from, &mut self.to).run(k, is_unified) {
                Some(cut) => break cut,
                // With one kind of NaN there always is a cut.
                None if is_unified => break Cut { key: R::INT_MAX, ties: k },
                // Several kinds of NaN may have been told apart.
                None => unify(lanes, row, &mut self.unified),
            }
            is_unified = true;
        };
        (cut, if is_unified { Floats::from(&self.unified[..row.len()]) } else { row })
    }
}

/// The row with one kind of NaN, in `to`.
#[inline(always)]
fn unify<L: Lanes>(lanes: L, row: Floats<'_, L::Scalar>, to: &mut Vec<L::Scalar>) {
    to.resize(row.len().next_multiple_of(L::N), L::Scalar::ZERO);
    let nan = lanes.splat(L::Scalar::of_bits(L::Scalar::INT_MAX));
    for (index, to) in (0..row.len()).step_by(L::N).zip(to.chunks_exact_mut(L::N)) {
        let float = row.vector(lanes, index);
        // SAFETY: the chunk is a whole vector.
        unsafe { lanes.store(to.as_mut_ptr(), lanes.select(lanes.eq(float, float), float, nan)) };
    }
}
