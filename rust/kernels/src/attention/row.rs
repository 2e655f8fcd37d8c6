//! One row of attention on a given matrix.

use std::ops::Range;

use super::matrix::Normalization;
use super::top_k::{Cut, Keys, float_of, keys};
use crate::arch::{ColdDifference, Cpu, Difference, Element, Lanes, Real};

/// What is done to every row.
#[derive(Debug, Clone, Copy)]
pub(super) struct Row {
    /// How many of the allowed entries are kept; `None`: all.
    pub keep: Option<usize>,
    pub normalization: Normalization,
    pub temperature: f64,
    /// The output is zero already.
    pub zeroed: bool,
    /// The output is written past the caches.
    pub streamed: bool,
}

/// Buffers of one thread.
pub(super) struct Scratch<T: Element> {
    /// Rows that are gathered together.
    pub rows: Vec<T>,
    /// A row of 16-bit entries as float32.
    widened: Vec<T::Real>,
    /// What a row's result is a multiple of.
    terms: Vec<T::Real>,
    keys: Keys<<T::Real as Real>::Int>,
}

impl<T: Element> Default for Scratch<T> {
    fn default() -> Self {
        Self { rows: Vec::new(), widened: Vec::new(), terms: Vec::new(), keys: Keys::new::<T::Real>() }
    }
}

impl Row {
    /// Processes a row of `n_k` entries of which those at `allowed` are. Every entry is loaded before it is stored.
    ///
    /// # Safety
    /// `n_k` entries at `from` may be read and `n_k` at `to` written; they are the same or do not overlap.
    #[inline(always)]
    pub(super) unsafe fn run<C: Cpu, T: Element>(
        &self,
        cpu: C,
        scratch: &mut Scratch<T>,
        from: *const T,
        to: *mut T,
        n_k: usize,
        allowed: Range<usize>,
    ) {
        // SAFETY: what is before, in and behind the allowed entries is within the row.
        unsafe {
            if !self.zeroed {
                clear(cpu, to, allowed.start, self.streamed);
                clear(cpu, to.add(allowed.end), n_k - allowed.end, self.streamed);
            }
            if !allowed.is_empty() {
                let entries =
                    Entries { cpu, from: from.add(allowed.start), to: to.add(allowed.start), len: allowed.len() };
                self.allowed(scratch, entries);
            }
        }
    }

    /// # Safety
    /// As for [`Row::run`]; all entries are allowed.
    #[inline(always)]
    unsafe fn allowed<C: Cpu, T: Element>(&self, scratch: &mut Scratch<T>, entries: Entries<C, T>) {
        let keep = self.keep.filter(|&keep| keep < entries.len);
        if keep.is_none() && self.normalization == Normalization::None {
            // SAFETY: the caller's promise; `copy` allows that both are the same.
            return unsafe { std::ptr::copy(entries.from, entries.to, entries.len) };
        }
        // SAFETY: the caller's promise.
        unsafe {
            let row = entries.widen(&mut scratch.widened);
            let Some(k) = keep else {
                return self.normalize::<false, C, T>(
                    scratch,
                    entries,
                    row,
                    Kept { key: T::Real::INT_MIN, ties_end: 0 },
                );
            };
            let lanes = T::Real::lanes(entries.cpu);
            scratch.keys.read(lanes, row, entries.len);
            let cut = scratch.keys.cut(lanes, k);
            let kept = entries.place_ties(row, cut);
            if self.normalization == Normalization::None {
                entries.copy(row, kept, self.streamed);
            } else {
                self.normalize::<true, C, T>(scratch, entries, row, kept);
            }
        }
    }

    /// # Safety
    /// `row` points to the entries in the type that they are computed in.
    #[inline(always)]
    unsafe fn normalize<const SOME: bool, C: Cpu, T: Element>(
        &self,
        scratch: &mut Scratch<T>,
        entries: Entries<C, T>,
        row: *const T::Real,
        kept: Kept<<T::Real as Real>::Int>,
    ) {
        let lanes = T::Real::lanes(entries.cpu);
        let n = <T::Real as Real>::Lanes::<C>::N;
        if scratch.terms.len() < entries.len {
            scratch.terms.resize(entries.len.next_multiple_of(n), T::Real::ZERO);
        }
        let terms = scratch.terms.as_mut_ptr();
        // SAFETY: the caller's promise; `terms` has room for the row.
        unsafe {
            let sum = if self.normalization == Normalization::Softmax {
                let most = if SOME { float_of(scratch.keys.bounds().1) } else { entries.most(row) };
                // A row of only -inf: nothing weighs anything.
                let most = if most == T::Real::NEG_INFINITY { T::Real::ZERO } else { most };
                if ColdDifference::<<T::Real as Real>::Lanes<C>>::is_needed(self.temperature) {
                    entries.terms::<SOME, _>(row, terms, kept, ColdDifference::new(lanes, most, self.temperature))
                } else {
                    entries.terms::<SOME, _>(row, terms, kept, Difference::new(lanes, most, self.temperature))
                }
            } else {
                entries.terms::<SOME, _>(row, terms, kept, Same)
            };
            entries.scale(row, terms, kept, sum, self.streamed);
        }
    }
}

/// Writes zeros.
///
/// # Safety
/// `len` entries at `to` may be written.
#[inline(always)]
unsafe fn clear<C: Cpu, T: Element>(cpu: C, to: *mut T, len: usize, streamed: bool) {
    let lanes = cpu.f32();
    let (vector, mut done) = (C::F32::N * size_of::<f32>(), 0);
    let (to, bytes) = (to.cast::<u8>(), len * size_of::<T>());
    // SAFETY: all within the bytes of the entries; all bits 0 is 0.0 in every type.
    unsafe {
        if streamed && bytes >= 2 * vector {
            done = to.align_offset(vector);
            to.write_bytes(0, done);
            while done + vector <= bytes {
                lanes.stream(to.add(done).cast(), lanes.splat(0.0));
                done += vector;
            }
        }
        to.add(done).write_bytes(0, bytes - done);
    }
}

/// Which entries of a row are kept: those whose key is above `key`, and before `ties_end` also those equal to it.
#[derive(Debug, Clone, Copy)]
struct Kept<I> {
    key: I,
    ties_end: usize,
}

/// What is summed, and what the result is a multiple of.
trait Term<L: Lanes> {
    fn of(&self, entry: L::V) -> L::V;
}

/// The entry itself.
struct Same;

impl<L: Lanes> Term<L> for Same {
    #[inline(always)]
    fn of(&self, entry: L::V) -> L::V {
        entry
    }
}

impl<L: Lanes> Term<L> for Difference<L> {
    #[inline(always)]
    fn of(&self, entry: L::V) -> L::V {
        self.exp(entry)
    }
}

impl<L: Lanes> Term<L> for ColdDifference<L> {
    #[inline(always)]
    fn of(&self, entry: L::V) -> L::V {
        self.exp(entry)
    }
}

/// The allowed entries of a row.
#[derive(Clone, Copy)]
struct Entries<C, T> {
    cpu: C,
    from: *const T,
    to: *mut T,
    len: usize,
}

impl<C: Cpu, T: Element> Entries<C, T> {
    const N: usize = <<T::Real as Real>::Lanes<C> as Lanes>::N;

    #[inline(always)]
    fn lanes(&self) -> <T::Real as Real>::Lanes<C> {
        T::Real::lanes(self.cpu)
    }

    /// The entries in the type that they are computed in: themselves, or converted into `buffer`.
    ///
    /// # Safety
    /// `len` entries at `from` may be read.
    #[inline(always)]
    unsafe fn widen(&self, buffer: &mut Vec<T::Real>) -> *const T::Real {
        if T::IS_REAL {
            return self.from.cast();
        }
        if buffer.len() < self.len {
            buffer.resize(self.len.next_multiple_of(Self::N), T::Real::ZERO);
        }
        let to = buffer.as_mut_ptr();
        let whole = self.len - self.len % Self::N;
        // SAFETY: `len` entries may be read, and the buffer has room for them, rounded up to whole vectors.
        unsafe {
            for index in (0..whole).step_by(Self::N) {
                self.lanes().store(to.add(index), T::load(self.cpu, self.from.add(index)));
            }
            if whole < self.len {
                let rest = T::load_first(self.cpu, self.from.add(whole), self.len - whole);
                self.lanes().store(to.add(whole), rest);
            }
        }
        to
    }

    /// Finds where the kept ties of `cut` end.
    ///
    /// # Safety
    /// `len` numbers at `row` may be read.
    #[inline(always)]
    unsafe fn place_ties(&self, row: *const T::Real, cut: Cut<<T::Real as Real>::Int>) -> Kept<<T::Real as Real>::Int> {
        let lanes = self.lanes();
        let (mut ties, mut index) = (cut.ties, 0);
        let key = lanes.int_splat(cut.key);
        while ties > 0 {
            let count = (self.len - index).min(Self::N);
            // SAFETY: `count` numbers from `index` are in the row, since a tie that was counted is not yet found.
            let found = unsafe { keys(lanes, lanes.load_first(row.add(index), count)) };
            let above = lanes.or(lanes.int_gt(found, key), lanes.int_gt(key, found));
            let mut equal = lanes.bits(lanes.and_not(lanes.first(count), above));
            let here = equal.count_ones() as usize;
            if here >= ties {
                for _ in 1..ties {
                    equal &= equal - 1;
                }
                return Kept { key: cut.key, ties_end: index + equal.trailing_zeros() as usize + 1 };
            }
            ties -= here;
            index += Self::N;
        }
        Kept { key: cut.key, ties_end: 0 }
    }

    /// Copies the kept entries bit for bit and writes 0 for the others.
    ///
    /// # Safety
    /// As for [`Row::run`]; `len` numbers at `row` may be read.
    #[inline(always)]
    unsafe fn copy(&self, row: *const T::Real, kept: Kept<<T::Real as Real>::Int>, streamed: bool) {
        for (run, key) in self.runs(kept) {
            let key = self.lanes().int_splat(key);
            let mut index = run.start;
            let streamed = streamed && T::IS_REAL;
            // SAFETY: every index is within the run, which is within the row; streamed ones are aligned.
            unsafe {
                if streamed {
                    let head = self.to.add(index).align_offset(Self::N * size_of::<T>()).min(run.end - index);
                    if head > 0 {
                        self.copy_first(row, index, head, key);
                        index += head;
                    }
                    while index + Self::N <= run.end {
                        let lanes = self.lanes();
                        let entry = lanes.load(row.add(index));
                        let keep = lanes.int_gt(keys(lanes, entry), key);
                        let entry = lanes.select(keep, entry, lanes.splat(T::Real::ZERO));
                        lanes.stream(self.to.add(index).cast(), entry);
                        index += Self::N;
                    }
                } else {
                    while index + Self::N <= run.end {
                        let keep = self.lanes().int_gt(keys(self.lanes(), self.lanes().load(row.add(index))), key);
                        T::keep(self.cpu, self.from.add(index), self.to.add(index), keep);
                        index += Self::N;
                    }
                }
                if index < run.end {
                    self.copy_first(row, index, run.end - index, key);
                }
            }
        }
    }

    /// # Safety
    /// `count` entries from `index` are within the row; at most a vector.
    #[inline(always)]
    unsafe fn copy_first(
        &self,
        row: *const T::Real,
        index: usize,
        count: usize,
        key: <<T::Real as Real>::Lanes<C> as Lanes>::I,
    ) {
        let lanes = self.lanes();
        // SAFETY: the caller's promise.
        unsafe {
            let keep = lanes.int_gt(keys(lanes, lanes.load_first(row.add(index), count)), key);
            T::keep_first(self.cpu, self.from.add(index), self.to.add(index), count, keep);
        }
    }

    /// Two runs of entries, and the key that kept ones are above in each.
    #[inline(always)]
    fn runs(&self, kept: Kept<<T::Real as Real>::Int>) -> [(Range<usize>, <T::Real as Real>::Int); 2] {
        let key: i64 = kept.key.into();
        [(0..kept.ties_end, T::Real::int(key.wrapping_sub(1))), (kept.ties_end..self.len, kept.key)]
    }

    /// The largest number of the row. NaN may be ignored.
    ///
    /// # Safety
    /// `len` numbers at `row` may be read.
    #[inline(always)]
    unsafe fn most(&self, row: *const T::Real) -> T::Real {
        let lanes = self.lanes();
        let least = lanes.splat(T::Real::NEG_INFINITY);
        let mut most = [least; 4];
        let mut index = 0;
        // SAFETY: every index is within the row.
        unsafe {
            while index + 4 * Self::N <= self.len {
                for (step, most) in most.iter_mut().enumerate() {
                    *most = lanes.max(lanes.load(row.add(index + step * Self::N)), *most);
                }
                index += 4 * Self::N;
            }
            while index < self.len {
                let count = (self.len - index).min(Self::N);
                let entry = lanes.select(lanes.first(count), lanes.load_first(row.add(index), count), least);
                most[0] = lanes.max(entry, most[0]);
                index += Self::N;
            }
        }
        lanes.max_lane(lanes.max(lanes.max(most[0], most[1]), lanes.max(most[2], most[3])))
    }

    /// Writes the term of every kept number, 0 for the others, and gives their sum. `SOME`: not all are kept.
    ///
    /// # Safety
    /// `len` numbers at `row` may be read; `terms` has room for as many, rounded up to whole vectors.
    #[inline(always)]
    unsafe fn terms<const SOME: bool, F: Term<<T::Real as Real>::Lanes<C>>>(
        &self,
        row: *const T::Real,
        terms: *mut T::Real,
        kept: Kept<<T::Real as Real>::Int>,
        term: F,
    ) -> f64 {
        let lanes = self.lanes();
        let zero = lanes.splat(T::Real::ZERO);
        let mut sums = lanes.wide_zero();
        for (run, key) in self.runs(kept) {
            let key = lanes.int_splat(key);
            let mut index = run.start;
            while index < run.end {
                let count = run.end - index;
                // SAFETY: every index is within the run, which is within the row.
                unsafe {
                    let entry = if count >= Self::N {
                        lanes.load(row.add(index))
                    } else {
                        lanes.load_first(row.add(index), count)
                    };
                    let mut value = term.of(entry);
                    if SOME {
                        value = lanes.select(lanes.int_gt(keys(lanes, entry), key), value, zero);
                    }
                    if count < Self::N {
                        value = lanes.select(lanes.first(count), value, zero);
                    }
                    sums = lanes.wide_add(sums, value);
                    if count >= Self::N {
                        lanes.store(terms.add(index), value);
                    } else {
                        lanes.store_first(terms.add(index), count, value);
                    }
                }
                index += Self::N;
            }
        }
        lanes.wide_sum(sums)
    }

    /// Writes the terms divided by their sum.
    ///
    /// # Safety
    /// As for [`Row::run`]; `terms` holds what [`Entries::terms`] wrote.
    #[inline(always)]
    unsafe fn scale(
        &self,
        row: *const T::Real,
        terms: *mut T::Real,
        kept: Kept<<T::Real as Real>::Int>,
        sum: f64,
        streamed: bool,
    ) {
        if sum == 0.0 {
            // SAFETY: the caller's promise.
            return unsafe { clear(self.cpu, self.to, self.len, streamed) };
        }
        let mut factor = T::Real::from_f64(1.0 / sum);
        // Then the factor, and every product with it, is a normal number unless the quotient is not.
        let ordinary = sum.abs() > T::Real::SMALLEST.to_f64() && 4.0 * sum.abs() < T::Real::LARGEST.to_f64();
        if !ordinary {
            // SAFETY: the caller's promise.
            unsafe { self.divide(row, terms, kept, sum) };
            factor = T::Real::ONE;
        }
        let lanes = self.lanes();
        // Adding 0 makes 0 of -0, which a negative sum gives for what is dropped.
        let (factor, zero) = (lanes.splat(factor), lanes.splat(T::Real::ZERO));
        let mut index = 0;
        // SAFETY: every index is within the row; streamed ones are aligned.
        unsafe {
            if streamed && T::IS_REAL {
                let head = self.to.align_offset(Self::N * size_of::<T>()).min(self.len);
                if head > 0 {
                    T::store_first(self.cpu, self.to, head, lanes.fma(lanes.load_first(terms, head), factor, zero));
                    index += head;
                }
                while index + Self::N <= self.len {
                    lanes.stream(self.to.add(index).cast(), lanes.fma(lanes.load(terms.add(index)), factor, zero));
                    index += Self::N;
                }
            }
            while index + Self::N <= self.len {
                T::store(self.cpu, self.to.add(index), lanes.fma(lanes.load(terms.add(index)), factor, zero));
                index += Self::N;
            }
            let rest = self.len - index;
            if rest > 0 {
                let value = lanes.fma(lanes.load_first(terms.add(index), rest), factor, zero);
                T::store_first(self.cpu, self.to.add(index), rest, value);
            }
        }
    }

    /// Divides one by one where a sum is NaN, infinite, or so small or large that its inverse is none. What is dropped
    /// stays 0.
    ///
    /// # Safety
    /// As for [`Entries::scale`].
    #[cold]
    unsafe fn divide(&self, row: *const T::Real, terms: *mut T::Real, kept: Kept<<T::Real as Real>::Int>, sum: f64) {
        let lanes = self.lanes();
        for (run, key) in self.runs(kept) {
            for index in run {
                // SAFETY: the index is within the row.
                unsafe {
                    let above = lanes.int_gt(keys(lanes, lanes.splat(row.add(index).read())), lanes.int_splat(key));
                    let term = terms.add(index);
                    if lanes.bits(above) != 0 {
                        term.write(T::Real::from_f64(term.read().to_f64() / sum));
                    }
                }
            }
        }
    }
}
