//! Softmax and sum over the kept entries of a row.

use super::entries::{Entries, lanes};
use super::options::Normalization;
use super::select::Kept;
use crate::arch::{Cpu, Difference, Element, Lanes, Real};
use crate::attention::top_k::Floats;

/// How a row is normalised, and the buffers for it.
pub(super) struct Normalize<'a, R> {
    pub(super) normalization: Normalization,
    pub(super) temperature: f64,
    pub(super) streamed: bool,
    /// What the result is a multiple of: of all entries, or of the kept ones.
    pub(super) terms: &'a mut Vec<R>,
    /// Which entries are kept, a vector's at a time.
    pub(super) masks: &'a mut Vec<u32>,
}

impl<R: Real> Normalize<'_, R> {
    /// `SOME`: not all entries are kept. The kept ones are moved together, so that no exponential is taken of others.
    /// `row` are the entries in the type that they are computed in.
    #[inline(always)]
    pub(super) fn run<const SOME: bool, C: Cpu, T: Element<Real = R>>(
        self,
        cpu: C,
        entries: Entries<'_, T>,
        row: Floats<'_, R>,
        kept: Kept<R>,
    ) {
        let Self { terms, masks, streamed, .. } = self;
        let (lanes, n) = (R::lanes(cpu), R::Lanes::<C>::N);
        assert!(row.len() == entries.len);
        // A vector more: of what is moved together the last vector may be written whole.
        let room = entries.len.next_multiple_of(n) + n;
        if terms.len() < room {
            terms.resize(room, R::ZERO);
            masks.resize(room / n, 0);
        }
        let head = entries.head(n, streamed);
        let (len, from) = if SOME {
            (entries.pack_kept(cpu, row, kept, head, terms, masks), terms.as_ptr())
        } else {
            (entries.len, row.as_ptr())
        };
        // As `SoftmaxTerms` asks: `from` is the row, or the kept entries in front of the terms, which are no more than there are
        // entries.
        let kept = SoftmaxTerms { cpu, from, to: terms.as_mut_ptr(), len };
        let sum = if self.normalization == Normalization::Softmax {
            let largest = kept.largest();
            // A row of only -inf: nothing weighs anything.
            let largest = if largest == R::NEG_INFINITY { R::ZERO } else { largest };
            kept.write(Difference::new(lanes, largest, self.temperature))
        } else {
            kept.write(Same)
        };
        if sum == 0.0 {
            return entries.clear(cpu, streamed);
        }
        let mut factor = R::from_f64(1.0 / sum);
        // Then the factor, and every product with it, is a normal number unless the quotient is not.
        let ordinary = sum.abs() > R::SMALLEST.to_f64() && 4.0 * sum.abs() < R::LARGEST.to_f64();
        if !ordinary {
            kept.divide(sum);
            factor = R::ONE;
        }
        entries.scale::<SOME, C>(cpu, terms, masks, head, factor, streamed);
    }
}

/// Numbers whose terms are written. Whoever makes one has `len` of them at `from` to read and room for as many terms at
/// `to`, which may be the same place.
struct SoftmaxTerms<C, R> {
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

impl<T: Element> Entries<'_, T> {
    /// How many entries are before the first one whose place in the output is aligned to a vector, if it is streamed;
    /// otherwise a whole vector.
    #[inline(always)]
    fn head(&self, n: usize, streamed: bool) -> usize {
        match self.to.align_offset(n * size_of::<T>()) {
            head if streamed && T::IS_REAL && head > 0 => head,
            _ => n,
        }
    }

    /// Writes `factor` times the terms: of all entries, or (`SOME`) of those that the masks set and 0 for the others.
    /// `terms` has one for each entry, or each that is kept, and a vector more.
    #[inline(always)]
    fn scale<const SOME: bool, C: Cpu>(
        &self,
        cpu: C,
        terms: &[T::Real],
        masks: &[u32],
        head: usize,
        factor: T::Real,
        streamed: bool,
    ) {
        let (lanes, n) = (T::Real::lanes(cpu), lanes::<C, T>());
        assert!(terms.len() >= self.len + n);
        let terms = terms.as_ptr();
        // Adding 0 makes 0 of -0.
        let (factor, zero) = (lanes.splat(factor), lanes.splat(T::Real::ZERO));
        let (mut index, mut packed, mut next) = (0, 0, head);
        for &bits in masks {
            if index == self.len {
                break;
            }
            let count = next.min(self.len - index);
            // SAFETY: `count` places from `index` are in the row, streamed ones are aligned. `packed <= index`, since the
            // masks of a row set no more lanes than it has entries, and there is a vector of terms from there on.
            unsafe {
                let term = if SOME { lanes.expand(terms.add(packed), bits) } else { lanes.load(terms.add(index)) };
                let value = lanes.fma(term, factor, zero);
                let to = self.to.add(index);
                if count < n {
                    T::store_first(cpu, to, count, value);
                } else if streamed && T::IS_REAL {
                    lanes.stream(to.cast(), value);
                } else {
                    T::store(cpu, to, value);
                }
            }
            if SOME {
                packed += bits.count_ones() as usize;
            }
            index += count;
            next = n;
        }
    }
}

impl<C: Cpu, R: Real> SoftmaxTerms<C, R> {
    const N: usize = <R::Lanes<C> as Lanes>::N;

    /// The largest number of the row. NaN may be ignored.
    #[inline(always)]
    fn largest(&self) -> R {
        let lanes = R::lanes(self.cpu);
        let least = lanes.splat(R::NEG_INFINITY);
        let mut most = [least; 4];
        let mut index = 0;
        // SAFETY: every index is within what `SoftmaxTerms` promises.
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
    #[inline(always)]
    fn write<F: Term<R::Lanes<C>>>(&self, term: F) -> f64 {
        let lanes = R::lanes(self.cpu);
        let mut sums = lanes.wide_zero();
        let whole = self.len - self.len % Self::N;
        // SAFETY: every index is within what `SoftmaxTerms` promises.
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
    #[cold]
    fn divide(&self, sum: f64) {
        // SAFETY: `SoftmaxTerms` promises them; they have been written.
        let terms = unsafe { std::slice::from_raw_parts_mut(self.to, self.len) };
        // Finite terms may have a sum that is not; a part of each has one.
        let part = if sum.is_infinite() { 1.0 / (1u64 << 60) as f64 } else { 1.0 };
        let sum = if part == 1.0 { sum } else { terms.iter().map(|term| term.to_f64() * part).sum() };
        for term in terms {
            let quotient = term.to_f64() * part / sum;
            // One NaN for all: which of two a sum carries on is the compiler's choice.
            *term = R::from_f64(if quotient.is_nan() { f64::NAN } else { quotient });
        }
    }
}
