//! How a call is cut into items. Nothing here depends on the number of threads, so neither does any bit of the result.

use std::ops::Range;
use std::sync::{Mutex, PoisonError, RwLock};

use super::item::{Blocks, Call, Combine, Item, Output, Partial, Span};
use super::pack::{Block, KEYS};
use super::product::ROWS;
use super::{Attention, Mask, Problem};
use crate::Result;
use crate::arch::{Cpu, Element, Level, Task};
use crate::parallel;
use crate::view::{View, ViewMut};

/// The most queries of an item when keys and values are packed for all of them, and the fewest if that gives fewer than
/// [`PIECES`] items.
const QUERIES: std::ops::RangeInclusive<usize> = 24..=96;

/// Up to this many rows per head of key and value every item packs its own keys: packing is then a small part, and
/// the keys can be split between items instead of the queries.
const FEW_ROWS: usize = 64;

/// Items that a call with few rows is cut into, at least if the keys suffice.
const PIECES: usize = 64;

/// The fewest keys that are worth an item.
const FEWEST_KEYS: usize = 512;

/// Packed keys and values that are in memory at the same time, in bytes, unless those of one head are more.
const PACKED: usize = 8 << 20;

/// Products of pairs of bfloat16 below 2^-126 count as 0; a scale above this could make a score of them.
const LARGEST_SCALE: f64 = (1u64 << 40) as f64;

/// Multiply-adds below which a call stays on the calling thread: some 60 µs. `docs/fused.md` has the measurement.
const SERIAL: usize = 1 << 21;

impl<T: Element> Attention<'_, T> {
    /// As [`Attention::run`], at a level of the caller's choice, which the CPU must have.
    pub fn run_at(
        &self,
        level: Level,
        query: &View<'_, T>,
        key: &View<'_, T>,
        value: &View<'_, T>,
        out: &mut ViewMut<'_, T>,
    ) -> Result<()> {
        let checked = &self.check(query, key, value)?;
        let operand = checked.problem.output(out.layout())?;
        for input in [query, key, value] {
            out.check_overlap("out", input, false)?;
        }
        match &self.mask {
            Some(Mask::Bool(mask)) => out.check_overlap("out", mask, false)?,
            Some(Mask::Float(mask)) => out.check_overlap("out", mask, false)?,
            None => {}
        }
        if let Some(sinks) = &self.sinks {
            out.check_overlap("out", sinks, false)?;
        }
        if out.layout().is_empty() {
            return Ok(());
        }
        let out = Output { first: out.as_mut_ptr(), operand };
        let problem = &checked.problem;
        let pairs = T::IS_BFLOAT && level.has_dots() && checked.scale.abs() <= LARGEST_SCALE;
        let call = Call { attention: self, checked, query, key, value, out, pairs };
        // One after the other, first the keys that any query may look at.
        let keys = checked.band.keys_of_any(0..problem.n_q);
        let cut = Cut {
            call: &call,
            level,
            keys: keys.start / KEYS * KEYS..keys.end,
            parallel: work(problem, keys.len()) >= SERIAL,
        };
        let few = if checked.keep.is_none() { FEW_ROWS } else { ROWS };
        if problem.group().saturating_mul(problem.n_q) <= few {
            cut.keys()
        } else {
            cut.queries()
        }
        Ok(())
    }
}

/// Multiply-adds, if every query looks at `keys` keys.
fn work(problem: &Problem, keys: usize) -> usize {
    let rows = problem.batches().saturating_mul(problem.h_q).saturating_mul(problem.n_q);
    rows.saturating_mul(keys).saturating_mul(problem.d + problem.d_v)
}

/// For few rows, about `pieces` items in all: how many keys one has, and how many they are for each of `heads`.
fn runs(keys: usize, heads: usize, pieces: usize) -> (usize, usize) {
    let run = keys.div_ceil(pieces.div_ceil(heads)).max(FEWEST_KEYS).next_multiple_of(KEYS);
    (run, keys.div_ceil(run).max(1))
}

/// For many rows: of how many heads the packed keys and values, `columns` together, are in memory at the same time.
fn heads_at_once(blocks: usize, columns: usize, item_size: usize) -> usize {
    let bytes = blocks.saturating_mul(KEYS).saturating_mul(columns).saturating_mul(item_size);
    (PACKED / bytes.max(1)).max(1)
}

/// A call that is about to be cut.
struct Cut<'a, T: Element> {
    call: &'a Call<'a, T>,
    level: Level,
    /// All keys that any query may look at, from where a block begins.
    keys: Range<usize>,
    parallel: bool,
}

impl<T: Element> Cut<'_, T> {
    /// Heads of key and value, over all batches.
    fn heads(&self) -> usize {
        self.call.checked.problem.batches() * self.call.checked.problem.h_kv
    }

    /// All rows that use head number `index` of key and value.
    fn span(&self, index: usize) -> Span {
        let problem = &self.call.checked.problem;
        let (batch, kv, group) = (index / problem.h_kv, index % problem.h_kv, problem.group());
        Span { batch, kv, heads: kv * group..(kv + 1) * group, queries: 0..problem.n_q }
    }

    /// For few rows: an item is all rows of a head of key and value against a run of keys.
    fn keys(&self) {
        let heads = self.heads();
        // The largest scores of a row are known when all of them are.
        let pieces = if self.call.checked.keep.is_some() { 1 } else { PIECES };
        let (run, runs) = runs(self.keys.len(), heads, pieces);
        let keys = |index: usize| {
            let start = self.keys.start + index * run;
            start..(start + run).min(self.keys.end)
        };
        if runs == 1 {
            parallel::for_each(heads, self.parallel, |head| {
                let (call, span) = (self.call, self.span(head));
                self.level.run(Item { call, span, keys: keys(0), blocks: Blocks::Own, partial: None });
            });
            return;
        }
        let empty = || Mutex::new(Partial { tops: Vec::new(), sums: Vec::new(), output: Vec::new() });
        let partials: Vec<Mutex<Partial<T::Real>>> = (0..heads * runs).map(|_| empty()).collect();
        parallel::for_each(partials.len(), self.parallel, |index| {
            let mut partial = partials[index].lock().unwrap_or_else(PoisonError::into_inner);
            let (call, span) = (self.call, self.span(index / runs));
            let keys = keys(index % runs);
            self.level.run(Item { call, span, keys, blocks: Blocks::Own, partial: Some(&mut *partial) });
        });
        let partials: Vec<Partial<T::Real>> =
            partials.into_iter().map(|partial| partial.into_inner().unwrap_or_else(PoisonError::into_inner)).collect();
        parallel::for_each(heads, self.parallel, |head| {
            let (call, span) = (self.call, self.span(head));
            self.level.run(Combine { call, span, partials: &partials[head * runs..(head + 1) * runs] });
        });
    }

    /// For many rows: the keys of some heads are packed, then an item is some queries of one head against all keys.
    fn queries(&self) {
        let problem = &self.call.checked.problem;
        let blocks = self.keys.len().div_ceil(KEYS);
        let heads = heads_at_once(blocks, problem.d + problem.d_v, size_of::<T::Real>()).min(self.heads());
        let packed: Vec<RwLock<Block<T::Real>>> = (0..heads * blocks)
            .map(|_| {
                RwLock::new(self.level.run(Make {
                    d: problem.d,
                    d_v: problem.d_v,
                    pairs: self.call.pairs,
                    real: std::marker::PhantomData,
                }))
            })
            .collect();
        let all = self.heads().saturating_mul(problem.group()).saturating_mul(problem.n_q);
        let most = all.div_ceil(PIECES).clamp(*QUERIES.start(), *QUERIES.end());
        let items = problem.n_q.div_ceil(most);
        let queries = problem.n_q.div_ceil(items).next_multiple_of(ROWS);
        let items = problem.n_q.div_ceil(queries);
        for first in (0..self.heads()).step_by(heads) {
            let heads = heads.min(self.heads() - first);
            parallel::for_each(heads * blocks, self.parallel, |index| {
                let mut block = packed[index].write().unwrap_or_else(PoisonError::into_inner);
                let (call, span) = (self.call, self.span(first + index / blocks));
                let start = self.keys.start + index % blocks * KEYS;
                self.level.run(Pack { call, span, start, block: &mut block });
            });
            let group = problem.group();
            parallel::for_each(heads * group * items, self.parallel, |index| {
                let (head, part) = (index / items, index % items);
                let mut span = self.span(first + head / group);
                let head = span.heads.start + head % group;
                span.heads = head..head + 1;
                span.queries = part * queries..((part + 1) * queries).min(problem.n_q);
                let list = &packed[index / items / group * blocks..][..blocks];
                let blocks = Blocks::Shared(list, self.keys.start);
                self.level.run(Item { call: self.call, span, keys: self.keys.clone(), blocks, partial: None });
            });
        }
    }
}

/// An empty block: its size depends on the level.
struct Make<R> {
    d: usize,
    d_v: usize,
    pairs: bool,
    real: std::marker::PhantomData<R>,
}

impl<R: crate::arch::Real> Task for Make<R> {
    type Output = Block<R>;

    #[inline(always)]
    fn run<C: Cpu>(self, _: C) -> Block<R> {
        Block::new::<C>(self.d, self.d_v, self.pairs)
    }
}

/// Packs one block.
struct Pack<'a, T: Element> {
    call: &'a Call<'a, T>,
    span: Span,
    start: usize,
    block: &'a mut Block<T::Real>,
}

impl<T: Element> Task for Pack<'_, T> {
    type Output = ();

    #[inline(always)]
    fn run<C: Cpu>(self, cpu: C) {
        let (keys, values) = self.call.keys_and_values(self.span.batch, self.span.kv);
        let count = KEYS.min(self.call.checked.problem.n_k - self.start);
        // SAFETY: these rows are below n_k, and the block was made for this problem.
        unsafe { self.block.pack(cpu, (&keys, &values), self.start, count) };
    }
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::view::Layout;

    #[test]
    fn more_than_2_to_the_32_keys_are_cut_into_runs_that_cover_them_once() {
        let keys = (1usize << 33) + 5;
        for heads in [1, 3, 64, 1 << 20] {
            let (run, count) = runs(keys, heads, PIECES);
            assert_eq!(run % KEYS, 0);
            assert!((count - 1) * run < keys && keys <= count * run);
            assert!(count <= PIECES && count * heads >= PIECES.min(heads));
        }
        assert_eq!(runs(0, 8, PIECES), (FEWEST_KEYS, 1));
        assert_eq!(runs(usize::MAX >> 1, 1, PIECES).1, PIECES);
    }

    #[test]
    fn packed_keys_of_more_than_2_to_the_32_are_those_of_one_head() {
        assert_eq!(heads_at_once(1 << 26, 128, 4), 1);
        assert_eq!(heads_at_once(1 << 56, 1 << 40, 8), 1);
        assert_eq!(heads_at_once(1, 128, 4), PACKED / (KEYS * 128 * 4));
        assert_eq!(heads_at_once(0, 0, 4), PACKED);
    }

    #[test]
    fn work_beyond_what_a_number_can_count_is_as_much_as_can_be() {
        let layout = |n: usize| Layout::new("a", &[1 << 20, n, 64], &[0, 0, 0], 4).unwrap();
        let problem = Problem::new(&layout(1 << 33), &layout(1 << 33), &layout(1 << 33)).unwrap();
        assert_eq!(work(&problem, 1 << 33), usize::MAX);
        assert_eq!(problem.group().saturating_mul(problem.n_q), 1 << 33);
    }
}
