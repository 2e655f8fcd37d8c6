//! The search for the cut.
//!
//! Every index and every pointer follows from lengths and from counts of what has been moved, which are at most the
//! number of places that were looked at. So a row that changes during a search gives any cut, and nothing else is
//! touched.

use super::floats::Floats;
use super::order::{Cut, Int};
use crate::arch::{Lanes, Real, WIDEST};

/// Integers in the order of the floats, cheaper than [`keys`](super::order::keys): -0.0 is one below 0.0, and a NaN is above plus infinity
/// or below minus infinity as its sign is.
#[inline(always)]
fn ranks<L: Lanes>(lanes: L, floats: L::V) -> L::I {
    let bits = lanes.int_of(floats);
    let magnitude = lanes.int_splat(L::Scalar::MAGNITUDE);
    lanes.int_xor(bits, lanes.int_and(lanes.int_sign(bits), magnitude))
}

/// From this many keys on a sample pays.
const SAMPLED: usize = 128;
/// Keys of a sample: at least a vector of every level's, and a multiple of it.
const SAMPLE: usize = 32;
/// How many standard deviations of a rank the ends of the interval are from it.
const SPREAD: f64 = 1.5;

/// The state of a search. The key that is looked for is the `rank`-th largest of the `len` candidates, all of which are
/// in `low..=high`.
pub(super) struct Search<'a, L: Lanes> {
    lanes: L,
    /// Where the candidates are at first.
    row: Floats<'a, L::Scalar>,
    /// Where they are afterwards. Behind the first `len` the rest of that vector holds the smallest integer, which is
    /// below every interval.
    from: &'a mut Vec<Int<L>>,
    /// Where the next ones go.
    to: &'a mut Vec<Int<L>>,
    len: usize,
    rank: usize,
    low: i64,
    high: i64,
}

impl<'a, L: Lanes> Search<'a, L> {
    #[inline(always)]
    pub(super) fn new(
        lanes: L,
        row: Floats<'a, L::Scalar>,
        from: &'a mut Vec<Int<L>>,
        to: &'a mut Vec<Int<L>>,
    ) -> Self {
        const { assert!(L::N <= WIDEST && SAMPLE.is_multiple_of(L::N)) };
        let (low, high) = (L::Scalar::INT_MIN.into() + 1, L::Scalar::INT_MAX.into());
        Self { lanes, row, from, to, len: row.len(), rank: 0, low, high }
    }

    /// `None`: there is a negative NaN, or the cut is among NaNs that may not all be the same.
    #[inline(always)]
    pub(super) fn run(&mut self, k: usize, is_unified: bool) -> Option<Cut<Int<L>>> {
        self.rank = k;
        let (from, to) = if self.len >= SAMPLED { self.sample::<true>() } else { (self.low, self.high) };
        let (least, most) = self.narrow::<true>(from, to)?;
        (self.low, self.high) = (self.low.max(least), self.high.min(most));
        let mut stuck = self.len > self.row.len() / 4 * 3;
        while self.low < self.high && self.rank < self.len {
            let before = self.len;
            if before <= 2 * L::N {
                self.compare_all();
                break;
            }
            let (from, to) = if stuck { self.half() } else { self.sample::<false>() };
            _ = self.narrow::<false>(from, to);
            stuck = !stuck && self.len > before / 4 * 3;
        }
        // All that are left are kept, or all are equal.
        let (key, ties) = if self.rank == self.len { (self.low - 1, 0) } else { (self.low, self.rank) };
        if key > L::Scalar::INFINITY_BITS.into() && least < most && !is_unified {
            return None;
        }
        Some(if key == -1 {
            // Zeros of both signs are kept in the order of their places. The row may have more positive ones by now.
            Cut { key: L::Scalar::int(0), ties: k.saturating_sub(self.positive()) }
        } else {
            Cut { key: L::Scalar::int(if key < 0 { key + 1 } else { key }), ties }
        })
    }

    /// Keeps the candidates in `from..=to`, or if the key is not among them those above or those below. `ROW`: the
    /// candidates are in the row; then it gives the least and the greatest, or `None` if there is a negative NaN, and
    /// nothing has been done. `low <= from <= to <= high`.
    #[inline(always)]
    fn narrow<const ROW: bool>(&mut self, from: i64, to: i64) -> Option<(i64, i64)> {
        let (mut inside, above, ends) = self.compact::<ROW>(from, to);
        // Below the key of minus infinity.
        if ROW && ends.0 < -1 - L::Scalar::INFINITY_BITS.into() {
            return None;
        }
        if above >= self.rank {
            self.low = to + 1;
        } else if above + inside < self.rank {
            self.rank -= above + inside;
            self.high = from - 1;
        } else {
            self.rank -= above;
            (self.low, self.high) = (from, to);
        }
        if (self.low, self.high) != (from, to) {
            (inside, ..) = self.compact::<ROW>(self.low, self.high);
        }
        self.len = inside;
        std::mem::swap(self.from, self.to);
        Some(ends)
    }

    /// Moves the candidates in `low..=high` to the other buffer. Says how many they are, how many are above, and for a
    /// `ROW` the least and the greatest of all.
    #[inline(always)]
    fn compact<const ROW: bool>(&mut self, low: i64, high: i64) -> (usize, usize, (i64, i64)) {
        let lanes = self.lanes;
        let (below, high) = (lanes.int_splat(L::Scalar::int(low - 1)), lanes.int_splat(L::Scalar::int(high)));
        // A vector more, for the padding. Only as many as there are candidates: to write a second buffer as long as a long
        // row would cost more than the pass. Memory for all of them was asked for by `CutFinder::new`.
        let room = self.len.next_multiple_of(L::N) + L::N;
        if self.to.len() < room {
            self.to.resize(room, L::Scalar::INT_MIN);
        }
        let to = self.to.as_mut_ptr();
        let mut above = lanes.int_splat(L::Scalar::int(0));
        let (mut least, mut most) = (lanes.int_splat(L::Scalar::INT_MAX), lanes.int_splat(L::Scalar::INT_MIN));
        let mut kept = 0;
        let whole = if ROW { self.len - self.len % L::N } else { self.len };
        let mut index = 0;
        while index < whole {
            // SAFETY: a whole vector of the row, or one of keys, is there; `kept <= index`, since no vector adds more keys
            // than it has lanes, and there is room for as many keys as there are candidates, to the next whole vector.
            unsafe {
                let key = if ROW {
                    let key = ranks(lanes, lanes.load(self.row.as_ptr().add(index)));
                    (least, most) = (lanes.int_min(least, key), lanes.int_max(most, key));
                    key
                } else {
                    lanes.int_load(self.from.as_ptr().add(index))
                };
                let greater = lanes.int_gt(key, high);
                above = lanes.count(above, greater);
                kept += lanes.int_compress(to.add(kept), lanes.and_not(lanes.int_gt(key, below), greater), key);
            }
            index += L::N;
        }
        if ROW && whole < self.len {
            let first = lanes.first(self.len - whole);
            let key = ranks(lanes, self.row.vector(lanes, whole));
            // SAFETY: as above.
            unsafe {
                least = lanes.int_min(least, lanes.int_select(first, key, least));
                let key = lanes.int_select(first, key, lanes.int_splat(L::Scalar::INT_MIN));
                most = lanes.int_max(most, key);
                let greater = lanes.int_gt(key, high);
                above = lanes.count(above, greater);
                let inside = lanes.and(lanes.and_not(lanes.int_gt(key, below), greater), first);
                kept += lanes.int_compress(to.add(kept), inside, key);
            }
        }
        // SAFETY: there is a vector of room behind the one that the last key is in.
        unsafe { lanes.int_store(to.add(kept), lanes.int_splat(L::Scalar::INT_MIN)) };
        let ends = (lanes.int_min_lane(least).into(), lanes.int_max_lane(most).into());
        (kept, lanes.total(above), ends)
    }

    /// Two integers that the key looked for should lie between.
    #[inline(always)]
    fn sample<const ROW: bool>(&self) -> (i64, i64) {
        let lanes = self.lanes;
        let mut sample = [L::Scalar::INT_MIN; SAMPLE];
        let step = self.len / SAMPLE;
        if ROW {
            let mut floats = [L::Scalar::ZERO; SAMPLE];
            for (index, float) in floats.iter_mut().enumerate() {
                // SAFETY: the place is within the row.
                *float = unsafe { self.row.as_ptr().add(index * step + step / 2).read() };
            }
            for index in (0..SAMPLE).step_by(L::N) {
                // SAFETY: SAMPLE is a multiple of every level's N.
                unsafe {
                    let key = ranks(lanes, lanes.load(floats.as_ptr().add(index)));
                    lanes.int_store(sample.as_mut_ptr().add(index), key);
                }
            }
        } else {
            for (index, key) in sample.iter_mut().enumerate() {
                *key = self.from[index * step + step / 2];
            }
        }
        let place = self.rank as f64 / self.len as f64;
        let spread = 0.5 + SPREAD * (SAMPLE as f64 * place * (1.0 - place)).sqrt();
        // How many of the sample should be above each end.
        let most = (SAMPLE as f64 * place + spread).ceil() as i64;
        let fewest = (SAMPLE as f64 * place - spread).floor() as i64;
        let [enough, too_many] = [most - 1, fewest].map(|count| lanes.int_splat(L::Scalar::int(count)));
        let mut from = lanes.int_splat(L::Scalar::INT_MIN);
        let mut to = lanes.int_splat(L::Scalar::INT_MAX);
        for index in (0..SAMPLE).step_by(L::N) {
            // SAFETY: as above.
            let key = unsafe { lanes.int_load(sample.as_ptr().add(index)) };
            let mut above = lanes.int_splat(L::Scalar::int(0));
            for &other in &sample {
                above = lanes.count(above, lanes.int_gt(lanes.int_splat(other), key));
            }
            from = lanes.int_max(from, lanes.int_select(lanes.int_gt(above, enough), key, from));
            to = lanes.int_min(to, lanes.int_select(lanes.int_gt(above, too_many), to, key));
        }
        let (from, to): (i64, i64) = (lanes.int_max_lane(from).into(), lanes.int_min_lane(to).into());
        // At an end the interval stays as it is, and a negative NaN may be below it.
        let from = from.max(self.low);
        (from, to.min(self.high).max(from))
    }

    /// Finds the key by comparing all of few with each other.
    #[inline(always)]
    fn compare_all(&mut self) {
        let lanes = self.lanes;
        let rank = lanes.int_splat(L::Scalar::int(self.rank as i64));
        let mut found = lanes.int_splat(L::Scalar::INT_MAX);
        for index in (0..self.len).step_by(L::N) {
            // SAFETY: behind the first `len` keys there is room to the next multiple of N.
            let key = unsafe { lanes.int_load(self.from.as_ptr().add(index)) };
            let mut above = lanes.int_splat(L::Scalar::int(0));
            for &other in &self.from[..self.len] {
                above = lanes.count(above, lanes.int_gt(lanes.int_splat(other), key));
            }
            // Padding has all the others above it, which are at least `rank`.
            found = lanes.int_min(found, lanes.int_select(lanes.int_gt(rank, above), key, found));
        }
        let key = lanes.int_min_lane(found);
        let (mut above, mut from) = (lanes.int_splat(L::Scalar::int(0)), lanes.int_splat(L::Scalar::int(0)));
        let at = lanes.int_splat(key);
        let key: i64 = key.into();
        let below = lanes.int_splat(L::Scalar::int(key - 1));
        for index in (0..self.len).step_by(L::N) {
            // SAFETY: as above.
            let key = unsafe { lanes.int_load(self.from.as_ptr().add(index)) };
            above = lanes.count(above, lanes.int_gt(key, at));
            from = lanes.count(from, lanes.int_gt(key, below));
        }
        let above = lanes.total(above);
        (self.low, self.high) = (key, key);
        self.rank -= above;
        self.len = lanes.total(from) - above;
    }

    /// The half of the interval that the key is in, its new end pulled to a key that exists.
    #[inline(always)]
    fn half(&self) -> (i64, i64) {
        let lanes = self.lanes;
        let width = self.high.wrapping_sub(self.low) as u64;
        let middle = self.low.wrapping_add_unsigned(width / 2);
        let at = lanes.int_splat(L::Scalar::int(middle));
        let mut count = lanes.int_splat(L::Scalar::int(0));
        let mut above = lanes.int_splat(L::Scalar::INT_MAX);
        let mut below = lanes.int_splat(L::Scalar::INT_MIN);
        for index in (0..self.len).step_by(L::N) {
            // SAFETY: behind the first `len` keys there is room to the next multiple of N.
            let key = unsafe { lanes.int_load(self.from.as_ptr().add(index)) };
            let greater = lanes.int_gt(key, at);
            count = lanes.count(count, greater);
            above = lanes.int_min(above, lanes.int_select(greater, key, above));
            below = lanes.int_max(below, lanes.int_select(greater, below, key));
        }
        let count = lanes.total(count);
        if count >= self.rank {
            (lanes.int_min_lane(above).into(), self.high)
        } else {
            (self.low, lanes.int_max_lane(below).into())
        }
    }

    /// How many of the row are above 0.
    #[inline(always)]
    fn positive(&self) -> usize {
        let lanes = self.lanes;
        let zero = lanes.int_splat(L::Scalar::int(0));
        let mut count = zero;
        for index in (0..self.row.len()).step_by(L::N) {
            // Lanes behind the row are 0.
            let floats = self.row.vector(lanes, index);
            count = lanes.count(count, lanes.int_gt(lanes.int_of(floats), zero));
        }
        lanes.total(count)
    }
}
