//! One row: its allowed entries are searched, normalised or copied, the others become 0.

use std::ops::Range;

use super::entries::{Entries, clear};
use super::normalize::Normalize;
use super::options::Normalization;
use super::select::Kept;
use crate::Result;
use crate::arch::{Cpu, Element, Real, Task, WIDEST};
use crate::attention::top_k::CutFinder;
use crate::buffer::reserved;

/// What is done to every row.
#[derive(Debug, Clone, Copy)]
pub(super) struct Rule {
    /// How many of the allowed entries are kept; `None`: all.
    pub(super) keep: Option<usize>,
    pub(super) normalization: Normalization,
    pub(super) temperature: f64,
    /// The output is zero already.
    pub(super) zeroed: bool,
    /// The output is written past the caches.
    pub(super) streamed: bool,
}

/// Buffers of one thread. All their memory is asked for when they are made.
#[derive(Debug)]
pub(super) struct RowScratch<T: Element> {
    /// Rows that are copied together.
    pub(super) rows: Vec<T>,
    /// A row of 16-bit entries as float32.
    widened: Vec<T::Real>,
    /// See [`Normalize`].
    terms: Vec<T::Real>,
    masks: Vec<u32>,
    finder: CutFinder<T::Real>,
}

impl<T: Element> RowScratch<T> {
    /// For rows of which at most `most` entries are allowed; `together` entries of rows are copied together.
    ///
    /// # Errors
    /// There is not so much memory.
    pub(super) fn new(rule: &Rule, most: usize, together: usize) -> Result<Self> {
        let searched = rule.keep.is_some_and(|keep| keep < most);
        let normalized = rule.normalization != Normalization::None;
        // A vector more: of what is moved together the last vector may be written whole.
        let room = |is_needed| if is_needed { most.next_multiple_of(WIDEST).saturating_add(WIDEST) } else { 0 };
        Ok(Self {
            rows: reserved(together)?,
            widened: reserved(room(!T::IS_REAL && (searched || normalized)))?,
            terms: reserved(room(normalized))?,
            // A vector has two lanes at least.
            masks: reserved(room(normalized) / 2)?,
            finder: CutFinder::new(if searched { most } else { 0 })?,
        })
    }
}

impl Rule {
    /// Processes a row of `n_k` entries of which those at `allowed` are. Every entry is loaded before it is stored.
    ///
    /// # Safety
    /// `n_k` entries at `from` may be read and `n_k` at `to` written, by nobody else; they are the same or do not overlap.
    #[inline(always)]
    pub(super) unsafe fn run<C: Cpu, T: Element>(
        &self,
        cpu: C,
        scratch: &mut RowScratch<T>,
        (from, to): (*const T, *mut T),
        n_k: usize,
        allowed: Range<usize>,
    ) {
        // SAFETY: what is before, in and behind the allowed entries is within the row.
        let entries = unsafe {
            if !self.zeroed {
                clear(cpu, to, allowed.start, self.streamed);
                clear(cpu, to.add(allowed.end), n_k - allowed.end, self.streamed);
            }
            Entries::new(from.add(allowed.start), to.add(allowed.start), allowed.len())
        };
        if self.keep.is_none() && self.normalization == Normalization::None {
            entries.copy_all();
        } else if !allowed.is_empty() {
            cpu.run(Process { rule: self, entries, scratch });
        }
    }
}

/// Searches or normalises the allowed entries of a row. A function of its own: it is large and needed in two places.
struct Process<'a, T: Element> {
    rule: &'a Rule,
    entries: Entries<'a, T>,
    scratch: &'a mut RowScratch<T>,
}

impl<T: Element> Task for Process<'_, T> {
    type Output = ();

    #[inline(always)]
    fn run<C: Cpu>(self, cpu: C) {
        let Self { rule, entries, scratch: RowScratch { widened, terms, masks, finder, .. } } = self;
        let Rule { normalization, temperature, streamed, .. } = *rule;
        let keep = rule.keep.filter(|&keep| keep < entries.len);
        if keep.is_none() && normalization == Normalization::None {
            return entries.copy_all();
        }
        let row = entries.widen(cpu, widened);
        let normalize = Normalize { normalization, temperature, streamed, terms, masks };
        let Some(k) = keep else {
            return normalize.run::<false, C, T>(cpu, entries, row, Kept::everything());
        };
        let lanes = T::Real::lanes(cpu);
        let (cut, row) = finder.cut(lanes, row, k);
        let kept = Kept::of(lanes, row, cut);
        match normalization {
            Normalization::None => entries.copy_kept(cpu, row, kept, streamed),
            _ => normalize.run::<true, C, T>(cpu, entries, row, kept),
        }
    }
}
