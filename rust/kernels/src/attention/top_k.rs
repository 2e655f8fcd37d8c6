//! The k largest of a row: where to cut, found by counting. Nothing is sorted.
//!
//! Floats become integers of the same order ([`keys`]). A sample of the row gives two integers that the k-th largest
//! should lie between; one pass counts how many lie above each, and the keys in between move together. From there on the
//! interval shrinks by interpolation on the counts. A step that does not get on is followed by one that halves the
//! interval and pulls both its ends to keys that exist. So no row, however it is distributed, takes more passes than
//! twice the bits of a key, and few take more than ten, most of them over a small part of the row.

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

/// The float of a key (0.0 for that of both zeros, a NaN for that of all).
#[inline(always)]
pub fn float_of<R: Real>(key: R::Int) -> R {
    let key: i64 = key.into();
    let magnitude = R::of_bits(R::int(key.wrapping_abs()));
    if key < 0 { -magnitude } else { magnitude }
}

/// The keys of one row, and room to move them.
#[derive(Debug)]
pub struct Keys<I> {
    keys: Vec<I>,
    len: usize,
    low: I,
    high: I,
}

/// From this many keys on a sample pays.
const SAMPLED: usize = 256;
const SAMPLE: usize = 64;

impl<I: Copy + Into<i64>> Keys<I> {
    /// No keys yet.
    pub fn new<R: Real<Int = I>>() -> Self {
        Self { keys: Vec::new(), len: 0, low: R::INT_MAX, high: R::INT_MIN }
    }

    /// The smallest and the largest key.
    pub fn bounds(&self) -> (I, I) {
        (self.low, self.high)
    }

    /// Takes the keys of a row.
    ///
    /// # Safety
    /// `len` elements at `row` may be read.
    #[inline(always)]
    pub unsafe fn read<L>(&mut self, lanes: L, row: *const L::Scalar, len: usize)
    where
        L: Lanes,
        L::Scalar: Real<Int = I>,
    {
        // A vector of room behind the last one, for the padding after keys have moved.
        let room = len.next_multiple_of(L::N) + L::N;
        if self.keys.len() < room {
            self.keys.resize(room, L::Scalar::INT_MIN);
        }
        self.len = len;
        let to = self.keys.as_mut_ptr();
        let (mut low, mut high) = (lanes.int_splat(L::Scalar::INT_MAX), lanes.int_splat(L::Scalar::INT_MIN));
        let whole = len - len % L::N;
        let mut index = 0;
        while index < whole {
            // SAFETY: `index + N <= len` elements may be read, and there is room for more keys than that.
            unsafe {
                let key = keys(lanes, lanes.load(row.add(index)));
                lanes.int_store(to.add(index), key);
                low = lanes.int_min(low, key);
                high = lanes.int_max(high, key);
            }
            index += L::N;
        }
        if whole < len {
            let first = lanes.first(len - whole);
            // SAFETY: the last `len - whole < N` elements may be read, and there is room for a whole vector of keys.
            unsafe {
                let key = keys(lanes, lanes.load_first(row.add(whole), len - whole));
                lanes.int_store(to.add(whole), lanes.int_select(first, key, lanes.int_splat(L::Scalar::INT_MIN)));
                low = lanes.int_min(low, lanes.int_select(first, key, low));
                high = lanes.int_max(high, lanes.int_select(first, key, high));
            }
        }
        (self.low, self.high) = (lanes.int_min_lane(low), lanes.int_max_lane(high));
    }

    /// Where to cut so that exactly `k` of the keys are kept, 1 ≤ `k` ≤ their number. The keys are lost.
    #[inline(always)]
    pub fn cut<L>(&mut self, lanes: L, k: usize) -> Cut<I>
    where
        L: Lanes,
        L::Scalar: Real<Int = I>,
    {
        debug_assert!(1 <= k && k <= self.len);
        let mut search = Search::<L> {
            lanes,
            keys: &mut self.keys,
            len: self.len,
            rank: k,
            low: self.low.into(),
            high: self.high.into(),
            from_low: self.len,
            above_high: 0,
        };
        search.run()
    }
}

/// The state of a search. The key that is looked for, the `rank`-th largest of the `len` first keys, is in `low..=high`.
struct Search<'a, L: Lanes> {
    lanes: L,
    /// Behind the first `len` the rest of that vector holds the smallest integer, which no count includes.
    keys: &'a mut [Int<L>],
    len: usize,
    rank: usize,
    low: i64,
    high: i64,
    /// How many keys are at least `low`: `rank` or more.
    from_low: usize,
    /// How many keys are greater than `high`: fewer than `rank`.
    above_high: usize,
}

impl<L: Lanes> Search<'_, L> {
    #[inline(always)]
    fn run(&mut self) -> Cut<Int<L>> {
        let mut sampled = usize::MAX;
        let mut stuck = false;
        loop {
            if self.from_low == self.rank {
                return Cut { key: L::Scalar::int(self.low - 1), ties: 0 };
            }
            if self.low == self.high {
                return Cut { key: L::Scalar::int(self.low), ties: self.rank - self.above_high };
            }
            let between = self.from_low - self.above_high;
            let width = self.high.wrapping_sub(self.low) as u64;
            if self.len >= SAMPLED && self.len <= sampled / 2 {
                sampled = self.len;
                let (from, to) = self.sample();
                self.try_both(from, to);
            } else if stuck {
                self.halve();
            } else {
                // As many steps of equal size as there are keys in between; at least 1, at most `width`.
                let share = ((self.from_low - self.rank) as f64 + 0.5) / between as f64;
                let step = ((share * width as f64) as u64).clamp(1, width);
                self.try_one(self.low.wrapping_add_unsigned(step));
            }
            let (left, left_width) = (self.from_low - self.above_high, self.high.wrapping_sub(self.low) as u64);
            stuck = !stuck && (left > between / 2 || left_width > width / 2);
            if left <= self.len / 2 && self.len > 4 * L::N {
                self.gather();
            }
        }
    }

    /// Moves one end of the interval to `key`, which is above `low` and not above `high`.
    #[inline(always)]
    fn try_one(&mut self, key: i64) {
        let [count] = self.count([key - 1]);
        if count >= self.rank {
            (self.low, self.from_low) = (key, count);
        } else {
            (self.high, self.above_high) = (key - 1, count);
        }
    }

    /// Moves the ends to `from` and `to`, or one of them past the other one of these. `low <= from <= to <= high`.
    #[inline(always)]
    fn try_both(&mut self, from: i64, to: i64) {
        let [from_from, above_to] = self.count([from - 1, to]);
        if above_to >= self.rank {
            (self.low, self.from_low) = (to + 1, above_to);
        } else if from_from < self.rank {
            (self.high, self.above_high) = (from - 1, from_from);
        } else {
            (self.low, self.from_low) = (from, from_from);
            (self.high, self.above_high) = (to, above_to);
        }
    }

    /// How many keys are above each of some integers.
    #[inline(always)]
    fn count<const K: usize>(&self, thresholds: [i64; K]) -> [usize; K] {
        const UNROLLED: usize = 4;
        let lanes = self.lanes;
        let mut at = [lanes.int_splat(L::Scalar::int(0)); K];
        for (at, threshold) in at.iter_mut().zip(thresholds) {
            *at = lanes.int_splat(L::Scalar::int(threshold));
        }
        let mut counts = [[lanes.int_splat(L::Scalar::int(0)); K]; UNROLLED];
        let keys = self.keys.as_ptr();
        let mut index = 0;
        while index + UNROLLED * L::N <= self.len {
            for (unrolled, counts) in counts.iter_mut().enumerate() {
                // SAFETY: this many whole vectors from `index` are within `len`.
                let key = unsafe { lanes.int_load(keys.add(index + unrolled * L::N)) };
                for (count, at) in counts.iter_mut().zip(at) {
                    *count = lanes.count(*count, lanes.int_gt(key, at));
                }
            }
            index += UNROLLED * L::N;
        }
        while index < self.len {
            // SAFETY: behind the first `len` keys there is room to the next multiple of N (`Keys::read`).
            let key = unsafe { lanes.int_load(keys.add(index)) };
            for (count, at) in counts[0].iter_mut().zip(at) {
                *count = lanes.count(*count, lanes.int_gt(key, at));
            }
            index += L::N;
        }
        let [a, b, c, d] = counts;
        let mut totals = [0; K];
        for (which, total) in totals.iter_mut().enumerate() {
            *total = lanes.total(lanes.int_add(lanes.int_add(a[which], b[which]), lanes.int_add(c[which], d[which])));
        }
        totals
    }

    /// Halves the interval, then pulls its ends together to the keys next to the middle, whichever side is left.
    #[inline(always)]
    fn halve(&mut self) {
        let lanes = self.lanes;
        let width = self.high.wrapping_sub(self.low) as u64;
        let middle = self.low.wrapping_add_unsigned(width / 2);
        let at = lanes.int_splat(L::Scalar::int(middle));
        let mut count = lanes.int_splat(L::Scalar::int(0));
        let mut above = lanes.int_splat(L::Scalar::INT_MAX);
        let mut below = lanes.int_splat(L::Scalar::INT_MIN);
        for index in (0..self.len).step_by(L::N) {
            // SAFETY: behind the first `len` keys there is room to the next multiple of N (`Keys::read`).
            let key = unsafe { lanes.int_load(self.keys.as_ptr().add(index)) };
            let greater = lanes.int_gt(key, at);
            count = lanes.count(count, greater);
            above = lanes.int_min(above, lanes.int_select(greater, key, above));
            below = lanes.int_max(below, lanes.int_select(greater, below, key));
        }
        let count = lanes.total(count);
        // Every count stays right: between the middle and the key that an end is pulled to there is no key.
        if count >= self.rank {
            (self.low, self.from_low) = (lanes.int_min_lane(above).into(), count);
        } else {
            (self.high, self.above_high) = (lanes.int_max_lane(below).into(), count);
        }
    }

    /// Two integers that the key looked for should lie between, from every `len / 64`-th key.
    #[inline(always)]
    fn sample(&self) -> (i64, i64) {
        let lanes = self.lanes;
        let mut sample = [L::Scalar::INT_MIN; SAMPLE];
        let step = self.len / SAMPLE;
        for (index, sample) in sample.iter_mut().enumerate() {
            *sample = self.keys[index * step + step / 2];
        }
        let place = self.rank as f64 / self.len as f64;
        let spread = 1.0 + 2.0 * (SAMPLE as f64 * place * (1.0 - place)).sqrt();
        // How many of the sample should be above each end.
        let most = (SAMPLE as f64 * place + spread).ceil() as i32;
        let fewest = (SAMPLE as f64 * place - spread).floor() as i32;
        let (mut from, mut to) = (self.low, self.high);
        for &key in &sample {
            let at = lanes.int_splat(key);
            let mut above = 0;
            for index in (0..SAMPLE).step_by(L::N) {
                // SAFETY: SAMPLE is a multiple of every level's N.
                let greater = lanes.int_gt(unsafe { lanes.int_load(sample.as_ptr().add(index)) }, at);
                // No sum across lanes: a bit for each is cheaper.
                above += lanes.bits(greater).count_ones() as i32;
            }
            let key = key.into();
            from = if above >= most { from.max(key) } else { from };
            to = if above <= fewest { to.min(key) } else { to };
        }
        // Keys that were gathered earlier may be beyond an end that has moved since.
        (from.clamp(self.low, self.high), to.clamp(self.low, self.high))
    }

    /// Moves the keys of the interval together and forgets the others.
    #[inline(always)]
    fn gather(&mut self) {
        let lanes = self.lanes;
        let below = lanes.int_splat(L::Scalar::int(self.low - 1));
        let high = lanes.int_splat(L::Scalar::int(self.high));
        let keys = self.keys.as_mut_ptr();
        let mut kept = 0;
        for index in (0..self.len).step_by(L::N) {
            // SAFETY: behind the first `len` keys there is room to the next multiple of N (`Keys::read`); a vector
            // stored at `kept <= index` overwrites nothing that has not been read.
            unsafe {
                let key = lanes.int_load(keys.add(index));
                let inside = lanes.and_not(lanes.int_gt(key, below), lanes.int_gt(key, high));
                kept += lanes.int_compress(keys.add(kept), inside, key);
            }
        }
        // SAFETY: `kept <= len`, and there is a vector of room behind the one that the last key is in.
        unsafe { lanes.int_store(keys.add(kept), lanes.int_splat(L::Scalar::INT_MIN)) };
        self.len = kept;
        self.rank -= self.above_high;
        self.from_low -= self.above_high;
        self.above_high = 0;
    }
}
