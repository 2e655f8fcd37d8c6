//! The largest entries of a row, ties by their place: which they are, copying them, and moving them together.

use std::ops::Range;

use super::entries::{Entries, lanes};
use crate::arch::{Cpu, Element, Lanes, Real};
use crate::attention::top_k::{Above, Cut, Floats};

/// Which entries of a row are kept: those whose key is above `key`, and before `ties_end` also those equal to it.
#[derive(Debug, Clone, Copy)]
pub(super) struct Kept<R: Real> {
    key: R::Int,
    ties_end: usize,
}

impl<R: Real> Kept<R> {
    pub(super) fn everything() -> Self {
        Self { key: R::INT_MIN, ties_end: 0 }
    }

    /// What a cut keeps of a row: finds where its ties end, in the row at the latest.
    #[inline(always)]
    pub(super) fn of<L: Lanes<Scalar = R>>(lanes: L, row: Floats<'_, R>, cut: Cut<R::Int>) -> Self {
        let (mut ties, mut index) = (cut.ties, 0);
        let (above, tied) = (Above::new(lanes, cut.key), Above::new(lanes, one_less::<R>(cut.key)));
        while ties > 0 && index < row.len() {
            let entry = row.vector(lanes, index);
            let is_there = lanes.first(row.len() - index);
            let mut equal = lanes.bits(lanes.and(is_there, lanes.and_not(tied.of(entry), above.of(entry))));
            let here = equal.count_ones() as usize;
            if here >= ties {
                for _ in 1..ties {
                    equal &= equal - 1;
                }
                return Self { key: cut.key, ties_end: index + equal.trailing_zeros() as usize + 1 };
            }
            ties -= here;
            index += L::N;
        }
        // Ties that are no longer there, since the row has changed, are none.
        Self { key: cut.key, ties_end: if ties > 0 { row.len() } else { 0 } }
    }

    /// Two runs of entries, and the key that kept ones are above in each.
    #[inline(always)]
    fn runs(&self, len: usize) -> [(Range<usize>, R::Int); 2] {
        [(0..self.ties_end, one_less::<R>(self.key)), (self.ties_end..len, self.key)]
    }
}

#[inline(always)]
fn one_less<R: Real>(key: R::Int) -> R::Int {
    let key: i64 = key.into();
    R::int(key.wrapping_sub(1))
}

impl<T: Element> Entries<'_, T> {
    /// Copies the kept entries bit for bit and writes 0 for the others.
    #[inline(always)]
    pub(super) fn copy_kept<C: Cpu>(&self, cpu: C, row: Floats<'_, T::Real>, kept: Kept<T::Real>, streamed: bool) {
        assert!(row.len() == self.len && kept.ties_end <= self.len);
        let (lanes, n, row) = (T::Real::lanes(cpu), lanes::<C, T>(), row.as_ptr());
        // What is streamed comes from `row` itself.
        let streamed = streamed && std::ptr::eq(row.cast(), self.from);
        for (run, key) in kept.runs(self.len) {
            let above = Above::new(lanes, key);
            let mut index = run.start;
            // SAFETY: every index is within the run, which is within the row (asserted above); streamed ones are aligned.
            unsafe {
                if streamed {
                    let head = self.to.add(index).align_offset(n * size_of::<T>()).min(run.end - index);
                    if head > 0 {
                        self.copy_first(cpu, row, index, head, above);
                        index += head;
                    }
                    while index + n <= run.end {
                        let entry = lanes.load(row.add(index));
                        let entry = lanes.select(above.of(entry), entry, lanes.splat(T::Real::ZERO));
                        lanes.stream(self.to.add(index).cast(), entry);
                        index += n;
                    }
                } else {
                    while index + n <= run.end {
                        let keep = above.of(lanes.load(row.add(index)));
                        T::keep(cpu, self.from.add(index), self.to.add(index), keep);
                        index += n;
                    }
                }
                if index < run.end {
                    self.copy_first(cpu, row, index, run.end - index, above);
                }
            }
        }
    }

    /// # Safety
    /// `count` entries from `index` are within the row; at most a vector.
    #[inline(always)]
    unsafe fn copy_first<C: Cpu>(
        &self,
        cpu: C,
        row: *const T::Real,
        index: usize,
        count: usize,
        above: Above<<T::Real as Real>::Lanes<C>>,
    ) {
        // SAFETY: the caller's promise.
        unsafe {
            let keep = above.of(T::Real::lanes(cpu).load_first(row.add(index), count));
            T::keep_first(cpu, self.from.add(index), self.to.add(index), count, keep);
        }
    }

    /// Moves the kept numbers together, notes which they are, and says how many. A vector ends at `head`.
    #[inline(always)]
    pub(super) fn pack_kept<C: Cpu>(
        &self,
        cpu: C,
        row: Floats<'_, T::Real>,
        kept: Kept<T::Real>,
        head: usize,
        terms: &mut [T::Real],
        masks: &mut [u32],
    ) -> usize {
        let (lanes, n) = (T::Real::lanes(cpu), lanes::<C, T>());
        assert!(row.len() == self.len && terms.len() >= self.len + n);
        let (row, terms) = (row.as_ptr(), terms.as_mut_ptr());
        let (above, tied) = (Above::new(lanes, kept.key), Above::new(lanes, one_less::<T::Real>(kept.key)));
        let (mut index, mut packed, mut next) = (0, 0, head);
        for bits in masks {
            if index == self.len {
                break;
            }
            let count = next.min(self.len - index);
            // SAFETY: `count` numbers from `index` are in the row; `packed <= index`, whatever the masks say, and there is
            // room for a vector from there on (asserted above).
            unsafe {
                let entry =
                    if count == n { lanes.load(row.add(index)) } else { lanes.load_first(row.add(index), count) };
                let mut mask = above.of(entry);
                if index < kept.ties_end {
                    mask = lanes.or(mask, lanes.and(tied.of(entry), lanes.first(kept.ties_end - index)));
                }
                if count < n {
                    mask = lanes.and(mask, lanes.first(count));
                }
                *bits = lanes.bits(mask);
                packed += lanes.int_compress(terms.add(packed).cast(), mask, lanes.int_of(entry));
            }
            index += count;
            next = n;
        }
        packed
    }
}
