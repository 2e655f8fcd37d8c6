//! The k largest of a row: where to cut, found by counting. Nothing is sorted.
//!
//! Floats are compared as integers of the same order ([`keys`]). A sample gives two integers that the k-th largest
//! should lie between (Floyd and Rivest, 1975); one pass over the row counts how many keys lie above them and moves
//! those in between together, and the same is done with what it has moved until so few are left that each is compared
//! with each. If the key is not in between, another pass moves the part that it is in. A step that leaves most of the
//! keys (few distinct values) is followed by one that halves the interval of integers and pulls its ends to keys that
//! exist. So no row, however it is distributed, takes more passes than twice the bits of a key; most take two over the
//! row and three over small parts of it.

use crate::arch::{Lanes, Real};

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

/// Integers in the order of the floats, cheaper than [`keys`]: -0.0 is one below 0.0, and a NaN is above plus infinity
/// or below minus infinity as its sign is.
#[inline(always)]
fn ranks<L: Lanes>(lanes: L, floats: L::V) -> L::I {
    let bits = lanes.int_of(floats);
    let magnitude = lanes.int_splat(L::Scalar::MAGNITUDE);
    lanes.int_xor(bits, lanes.int_and(lanes.int_sign(bits), magnitude))
}

/// Room for the keys of one row; finds where to cut it.
#[derive(Debug)]
pub struct Keys<R: Real> {
    from: Vec<R::Int>,
    to: Vec<R::Int>,
    /// A row whose NaNs have been made the same.
    unified: Vec<R>,
}

impl<R: Real> Default for Keys<R> {
    fn default() -> Self {
        Self { from: Vec::new(), to: Vec::new(), unified: Vec::new() }
    }
}

impl<R: Real> Keys<R> {
    /// Where to cut so that exactly `k` of the row's `len` floats are kept, 1 ≤ `k` ≤ `len`; and the row, or a copy of
    /// it in which all NaNs are positive and have the same bits.
    ///
    /// # Safety
    /// `len` elements at `row` may be read.
    #[inline(always)]
    pub unsafe fn cut<L>(&mut self, lanes: L, row: *const R, len: usize, k: usize) -> (Cut<R::Int>, *const R)
    where
        L: Lanes<Scalar = R>,
    {
        debug_assert!(1 <= k && k <= len);
        // SAFETY: the caller's promise.
        unsafe {
            match self.search(lanes, row, len).run(k, false) {
                Some(cut) => (cut, row),
                // Several kinds of NaN may have been told apart.
                None => {
                    self.unify(lanes, row, len);
                    let row = self.unified.as_ptr();
                    // With one kind of NaN there always is a cut.
                    let cut = self.search(lanes, row, len).run(k, true).unwrap_or(Cut { key: R::INT_MAX, ties: k });
                    (cut, row)
                }
            }
        }
    }

    /// # Safety
    /// As for [`Keys::cut`].
    #[inline(always)]
    unsafe fn unify<L: Lanes<Scalar = R>>(&mut self, lanes: L, row: *const R, len: usize) {
        self.unified.resize(len.next_multiple_of(L::N), R::ZERO);
        let nan = lanes.splat(R::of_bits(R::INT_MAX));
        for (index, to) in (0..len).step_by(L::N).zip(self.unified.chunks_exact_mut(L::N)) {
            // SAFETY: at most what is left of the row is read; the chunk is a whole vector.
            unsafe {
                let float = lanes.load_first(row.add(index), (len - index).min(L::N));
                lanes.store(to.as_mut_ptr(), lanes.select(lanes.eq(float, float), float, nan));
            }
        }
    }

    #[inline(always)]
    fn search<L: Lanes<Scalar = R>>(&mut self, lanes: L, row: *const R, len: usize) -> Search<'_, L> {
        let (low, high) = (R::INT_MIN.into() + 1, R::INT_MAX.into());
        Search { lanes, row, row_len: len, from: &mut self.from, to: &mut self.to, len, rank: 0, low, high }
    }
}

/// From this many keys on a sample pays.
const SAMPLED: usize = 128;
/// Keys of a sample: at least a vector of every level's, and a multiple of it.
const SAMPLE: usize = 32;
/// How many standard deviations of a rank the ends of the interval are from it.
const SPREAD: f64 = 1.5;

/// The state of a search. The key that is looked for is the `rank`-th largest of the `len` candidates, all of which are
/// in `low..=high`.
struct Search<'a, L: Lanes> {
    lanes: L,
    /// Where the candidates are at first.
    row: *const L::Scalar,
    row_len: usize,
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

impl<L: Lanes> Search<'_, L> {
    /// `None`: there is a negative NaN, or the cut is among NaNs that may not all be the same.
    ///
    /// # Safety
    /// The row can be read.
    #[inline(always)]
    unsafe fn run(&mut self, k: usize, is_unified: bool) -> Option<Cut<Int<L>>> {
        self.rank = k;
        // SAFETY: the caller's promise.
        let (least, most) = unsafe {
            let (from, to) = if self.len >= SAMPLED { self.sample::<true>() } else { (self.low, self.high) };
            self.narrow::<true>(from, to)?
        };
        (self.low, self.high) = (self.low.max(least), self.high.min(most));
        let mut stuck = self.len > self.row_len / 4 * 3;
        while self.low < self.high && self.rank < self.len {
            let before = self.len;
            if before <= 2 * L::N {
                self.compare_all();
                break;
            }
            // SAFETY: as above.
            unsafe {
                if stuck {
                    self.halve();
                } else {
                    let (from, to) = self.sample::<false>();
                    _ = self.narrow::<false>(from, to);
                }
            }
            stuck = !stuck && self.len > before / 4 * 3;
        }
        // All that are left are kept, or all are equal.
        let (key, ties) = if self.rank == self.len { (self.low - 1, 0) } else { (self.low, self.rank) };
        if key > L::Scalar::INFINITY_BITS.into() && least < most && !is_unified {
            return None;
        }
        Some(if key == -1 {
            // SAFETY: as above.
            let positive = unsafe { self.positive() };
            // Zeros of both signs are kept in the order of their places.
            Cut { key: L::Scalar::int(0), ties: k - positive }
        } else {
            Cut { key: L::Scalar::int(if key < 0 { key + 1 } else { key }), ties }
        })
    }

    /// Keeps the candidates in `from..=to`, or if the key is not among them those above or those below. `ROW`: the
    /// candidates are in the row; then it gives the least and the greatest, or `None` if there is a negative NaN, and
    /// nothing has been done.
    ///
    /// # Safety
    /// As for [`Search::run`]. `low <= from <= to <= high`.
    #[inline(always)]
    unsafe fn narrow<const ROW: bool>(&mut self, from: i64, to: i64) -> Option<(i64, i64)> {
        // SAFETY: the caller's promise.
        unsafe {
            let (mut inside, above, ends) = self.gather::<ROW>(from, to);
            // Below the key of minus infinity.
            if ROW && ends.0 < -1 - L::Scalar::INFINITY_BITS.into() {
                return None;
            }
            if above >= self.rank {
                self.low = to + 1;
                (inside, ..) = self.gather::<ROW>(self.low, self.high);
            } else if above + inside < self.rank {
                self.rank -= above + inside;
                self.high = from - 1;
                (inside, ..) = self.gather::<ROW>(self.low, self.high);
            } else {
                self.rank -= above;
                (self.low, self.high) = (from, to);
            }
            self.len = inside;
            std::mem::swap(self.from, self.to);
            Some(ends)
        }
    }

    /// Moves the candidates in `low..=high` to the other buffer. Says how many they are, how many are above, and for a
    /// `ROW` the least and the greatest of all.
    ///
    /// # Safety
    /// As for [`Search::run`].
    #[inline(always)]
    unsafe fn gather<const ROW: bool>(&mut self, low: i64, high: i64) -> (usize, usize, (i64, i64)) {
        let lanes = self.lanes;
        let (below, high) = (lanes.int_splat(L::Scalar::int(low - 1)), lanes.int_splat(L::Scalar::int(high)));
        // A vector more, for the padding. Only as many as there are candidates: a second buffer as long as a long row
        // would cost more than the pass.
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
            // SAFETY: a whole vector of the row, or one of keys, is there; `kept <= index`, and there is room for as
            // many keys as there are candidates, to the next whole vector.
            unsafe {
                let key = if ROW {
                    let key = ranks(lanes, lanes.load(self.row.add(index)));
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
            // SAFETY: the last elements of the row are there; otherwise as above.
            unsafe {
                let key = ranks(lanes, lanes.load_first(self.row.add(whole), self.len - whole));
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
    ///
    /// # Safety
    /// As for [`Search::run`].
    #[inline(always)]
    unsafe fn sample<const ROW: bool>(&self) -> (i64, i64) {
        let lanes = self.lanes;
        let mut sample = [L::Scalar::INT_MIN; SAMPLE];
        let step = self.len / SAMPLE;
        if ROW {
            let mut floats = [L::Scalar::ZERO; SAMPLE];
            for (index, float) in floats.iter_mut().enumerate() {
                // SAFETY: the place is within the row.
                *float = unsafe { *self.row.add(index * step + step / 2) };
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

    /// Halves the interval, pulls the end that moves to a key that exists, and keeps the candidates in between.
    ///
    /// # Safety
    /// As for [`Search::run`].
    #[inline(always)]
    unsafe fn halve(&mut self) {
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
            self.low = lanes.int_min_lane(above).into();
        } else {
            self.high = lanes.int_max_lane(below).into();
        }
        // SAFETY: the caller's promise.
        _ = unsafe { self.narrow::<false>(self.low, self.high) };
    }

    /// How many of the row are above 0.
    ///
    /// # Safety
    /// As for [`Search::run`].
    #[inline(always)]
    unsafe fn positive(&self) -> usize {
        let lanes = self.lanes;
        let zero = lanes.int_splat(L::Scalar::int(0));
        let mut count = zero;
        for index in (0..self.row_len).step_by(L::N) {
            // SAFETY: at most what is left of the row is read; the other lanes are 0.
            let floats = unsafe { lanes.load_first(self.row.add(index), (self.row_len - index).min(L::N)) };
            count = lanes.count(count, lanes.int_gt(lanes.int_of(floats), zero));
        }
        lanes.total(count)
    }
}
