//! One row of attention on a given matrix.

use std::ops::Range;

use super::matrix::Normalization;
use super::top_k::{Above, Cut, Keys};
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
    /// What a row's result is a multiple of: of all entries, or of the kept ones.
    terms: Vec<T::Real>,
    /// Which entries are kept, a vector's at a time.
    masks: Vec<u32>,
    keys: Keys<T::Real>,
}

impl<T: Element> Default for Scratch<T> {
    fn default() -> Self {
        Self { rows: Vec::new(), widened: Vec::new(), terms: Vec::new(), masks: Vec::new(), keys: Keys::default() }
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
            let (cut, row) = scratch.keys.cut(T::Real::lanes(entries.cpu), row, entries.len, k);
            let kept = entries.place_ties(row, cut);
            if self.normalization == Normalization::None {
                entries.copy(row, kept, self.streamed);
            } else {
                self.normalize::<true, C, T>(scratch, entries, row, kept);
            }
        }
    }

    /// `SOME`: not all entries are kept. The kept ones are moved together, so that no exponential is taken of others.
    ///
    /// # Safety
    /// As for [`Row::run`]; `row` points to the entries in the type that they are computed in.
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
        // A vector more: of what is moved together the last vector may be written whole.
        let room = entries.len.next_multiple_of(n) + n;
        if scratch.terms.len() < room {
            scratch.terms.resize(room, T::Real::ZERO);
            scratch.masks.resize(room / n, 0);
        }
        let (terms, masks) = (scratch.terms.as_mut_ptr(), &mut scratch.masks[..]);
        let head = entries.head(self.streamed);
        // SAFETY: the caller's promise; `terms` has room for the row.
        unsafe {
            let (row, len) = if SOME {
                (terms.cast_const(), entries.pack(row, kept, head, terms, masks))
            } else {
                (row, entries.len)
            };
            let run = Run { cpu: entries.cpu, from: row, to: terms, len };
            let sum = if self.normalization == Normalization::Softmax {
                let most = run.most();
                // A row of only -inf: nothing weighs anything.
                let most = if most == T::Real::NEG_INFINITY { T::Real::ZERO } else { most };
                if ColdDifference::<<T::Real as Real>::Lanes<C>>::is_needed(self.temperature) {
                    run.terms(ColdDifference::new(lanes, most, self.temperature))
                } else {
                    run.terms(Difference::new(lanes, most, self.temperature))
                }
            } else {
                run.terms(Same)
            };
            if sum == 0.0 {
                return clear(entries.cpu, entries.to, entries.len, self.streamed);
            }
            let mut factor = T::Real::from_f64(1.0 / sum);
            // Then the factor, and every product with it, is a normal number unless the quotient is not.
            let ordinary = sum.abs() > T::Real::SMALLEST.to_f64() && 4.0 * sum.abs() < T::Real::LARGEST.to_f64();
            if !ordinary {
                run.divide(sum);
                factor = T::Real::ONE;
            }
            entries.scale::<SOME>(terms, masks, head, factor, self.streamed);
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

/// Numbers that are read at `from` and whose terms are written at `to`, which may be the same.
struct Run<C, R> {
    cpu: C,
    from: *const R,
    to: *mut R,
    len: usize,
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
        let key: i64 = cut.key.into();
        let (above, tied) = (Above::new(lanes, cut.key), Above::new(lanes, T::Real::int(key.wrapping_sub(1))));
        while ties > 0 {
            let count = (self.len - index).min(Self::N);
            // SAFETY: `count` numbers from `index` are in the row, since a tie that was counted is not yet found.
            let entry = unsafe { lanes.load_first(row.add(index), count) };
            let mut equal = lanes.bits(lanes.and(lanes.first(count), lanes.and_not(tied.of(entry), above.of(entry))));
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
        let lanes = self.lanes();
        // What is streamed comes from `row` itself.
        let streamed = streamed && std::ptr::eq(row.cast(), self.from);
        for (run, key) in self.runs(kept) {
            let above = Above::new(lanes, key);
            let mut index = run.start;
            // SAFETY: every index is within the run, which is within the row; streamed ones are aligned.
            unsafe {
                if streamed {
                    let head = self.to.add(index).align_offset(Self::N * size_of::<T>()).min(run.end - index);
                    if head > 0 {
                        self.copy_first(row, index, head, above);
                        index += head;
                    }
                    while index + Self::N <= run.end {
                        let entry = lanes.load(row.add(index));
                        let entry = lanes.select(above.of(entry), entry, lanes.splat(T::Real::ZERO));
                        lanes.stream(self.to.add(index).cast(), entry);
                        index += Self::N;
                    }
                } else {
                    while index + Self::N <= run.end {
                        let keep = above.of(lanes.load(row.add(index)));
                        T::keep(self.cpu, self.from.add(index), self.to.add(index), keep);
                        index += Self::N;
                    }
                }
                if index < run.end {
                    self.copy_first(row, index, run.end - index, above);
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
        above: Above<<T::Real as Real>::Lanes<C>>,
    ) {
        // SAFETY: the caller's promise.
        unsafe {
            let keep = above.of(self.lanes().load_first(row.add(index), count));
            T::keep_first(self.cpu, self.from.add(index), self.to.add(index), count, keep);
        }
    }

    /// Two runs of entries, and the key that kept ones are above in each.
    #[inline(always)]
    fn runs(&self, kept: Kept<<T::Real as Real>::Int>) -> [(Range<usize>, <T::Real as Real>::Int); 2] {
        let key: i64 = kept.key.into();
        [(0..kept.ties_end, T::Real::int(key.wrapping_sub(1))), (kept.ties_end..self.len, kept.key)]
    }

    /// Moves the kept numbers together, notes which they are, and says how many. A vector ends at `head`.
    ///
    /// # Safety
    /// `len` numbers at `row` may be read; `terms` has room for them and a vector more, `masks` for their vectors and
    /// one more.
    #[inline(always)]
    unsafe fn pack(
        &self,
        row: *const T::Real,
        kept: Kept<<T::Real as Real>::Int>,
        head: usize,
        terms: *mut T::Real,
        masks: &mut [u32],
    ) -> usize {
        let lanes = self.lanes();
        let key: i64 = kept.key.into();
        let above = Above::new(lanes, kept.key);
        let tied = Above::new(lanes, T::Real::int(key.wrapping_sub(1)));
        let (mut index, mut packed, mut next) = (0, 0, head);
        for bits in masks {
            if index == self.len {
                break;
            }
            let count = next.min(self.len - index);
            // SAFETY: `count` numbers from `index` are in the row; no more are kept than have been read.
            unsafe {
                let entry =
                    if count == Self::N { lanes.load(row.add(index)) } else { lanes.load_first(row.add(index), count) };
                let mut mask = above.of(entry);
                if index < kept.ties_end {
                    mask = lanes.or(mask, lanes.and(tied.of(entry), lanes.first(kept.ties_end - index)));
                }
                if count < Self::N {
                    mask = lanes.and(mask, lanes.first(count));
                }
                *bits = lanes.bits(mask);
                packed += lanes.int_compress(terms.add(packed).cast(), mask, lanes.int_of(entry));
            }
            index += count;
            next = Self::N;
        }
        packed
    }

    /// How many entries are before the first one whose place in the output is aligned to a vector, if it is streamed;
    /// otherwise a whole vector.
    #[inline(always)]
    fn head(&self, streamed: bool) -> usize {
        match self.to.align_offset(Self::N * size_of::<T>()) {
            head if streamed && T::IS_REAL && head > 0 => head,
            _ => Self::N,
        }
    }

    /// Writes `factor` times the terms: of all entries, or (`SOME`) of those that the masks set and 0 for the others.
    ///
    /// # Safety
    /// As for [`Row::run`]; `terms` has a term for each entry, or each that is kept, and a vector more.
    #[inline(always)]
    unsafe fn scale<const SOME: bool>(
        &self,
        terms: *const T::Real,
        masks: &[u32],
        head: usize,
        factor: T::Real,
        streamed: bool,
    ) {
        let lanes = self.lanes();
        // Adding 0 makes 0 of -0.
        let (factor, zero) = (lanes.splat(factor), lanes.splat(T::Real::ZERO));
        let (mut index, mut packed, mut next) = (0, 0, head);
        for &bits in masks {
            if index == self.len {
                break;
            }
            let count = next.min(self.len - index);
            // SAFETY: `count` places from `index` are in the row, streamed ones are aligned; there is a vector more
            // than there are terms.
            unsafe {
                let term = if SOME { lanes.expand(terms.add(packed), bits) } else { lanes.load(terms.add(index)) };
                let value = lanes.fma(term, factor, zero);
                let to = self.to.add(index);
                if count < Self::N {
                    T::store_first(self.cpu, to, count, value);
                } else if streamed && T::IS_REAL {
                    lanes.stream(to.cast(), value);
                } else {
                    T::store(self.cpu, to, value);
                }
            }
            if SOME {
                packed += bits.count_ones() as usize;
            }
            index += count;
            next = Self::N;
        }
    }
}

impl<C: Cpu, R: Real> Run<C, R> {
    const N: usize = <R::Lanes<C> as Lanes>::N;

    /// The largest number of the row. NaN may be ignored.
    ///
    /// # Safety
    /// `len` numbers at `from` may be read.
    #[inline(always)]
    unsafe fn most(&self) -> R {
        let lanes = R::lanes(self.cpu);
        let least = lanes.splat(R::NEG_INFINITY);
        let mut most = [least; 4];
        let mut index = 0;
        // SAFETY: every index is within the run.
        unsafe {
            while index + 4 * Self::N <= self.len {
                for (step, most) in most.iter_mut().enumerate() {
                    *most = lanes.max(lanes.load(self.from.add(index + step * Self::N)), *most);
                }
                index += 4 * Self::N;
            }
            while index < self.len {
                let count = (self.len - index).min(Self::N);
                let entry = lanes.select(lanes.first(count), lanes.load_first(self.from.add(index), count), least);
                most[0] = lanes.max(entry, most[0]);
                index += Self::N;
            }
        }
        lanes.max_lane(lanes.max(lanes.max(most[0], most[1]), lanes.max(most[2], most[3])))
    }

    /// Writes the term of every number and gives their sum.
    ///
    /// # Safety
    /// `len` numbers may be read at `from` and written at `to`.
    #[inline(always)]
    unsafe fn terms<F: Term<R::Lanes<C>>>(&self, term: F) -> f64 {
        let lanes = R::lanes(self.cpu);
        let mut sums = lanes.wide_zero();
        let whole = self.len - self.len % Self::N;
        // SAFETY: every index is within the run.
        unsafe {
            for index in (0..whole).step_by(Self::N) {
                let value = term.of(lanes.load(self.from.add(index)));
                sums = lanes.wide_add(sums, value);
                lanes.store(self.to.add(index), value);
            }
            let rest = self.len - whole;
            if rest > 0 {
                let value = term.of(lanes.load_first(self.from.add(whole), rest));
                sums = lanes.wide_add(sums, lanes.select(lanes.first(rest), value, lanes.splat(R::ZERO)));
                lanes.store_first(self.to.add(whole), rest, value);
            }
        }
        lanes.wide_sum(sums)
    }

    /// Divides one by one where a sum is NaN, infinite, or so small or large that its inverse is none.
    ///
    /// # Safety
    /// As for [`Run::terms`], which has written the terms.
    #[cold]
    unsafe fn divide(&self, sum: f64) {
        for index in 0..self.len {
            // SAFETY: the index is within the run.
            unsafe {
                let term = self.to.add(index);
                let quotient = term.read().to_f64() / sum;
                // One NaN for all: which of two a sum carries on is the compiler's choice.
                term.write(R::from_f64(if quotient.is_nan() { f64::NAN } else { quotient }));
            }
        }
    }
}
