//! How a call is cut into items. Nothing here depends on the number of threads, so neither does any bit of the result.

use std::marker::PhantomData;
use std::ops::Range;

use super::call::{Call, Output, Scale, Span};
use super::item::{Blocks, Item, ItemScratch, MakeScratch, Sums};
use super::options::{Attention, Mask};
use super::output::Part;
use super::pack::{Block, KEYS};
use super::shape::Problem;
use super::work::ItemLimits;
use crate::arch::{Cpu, Element, Level, Real, Task};
use crate::buffer::{Buffer, made, reserved};
use crate::product::{ROWS, padded};
use crate::view::{View, ViewMut};
use crate::{Error, Result, parallel};

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

/// Queries that are multiplied by less than this could become denormal, which counts as 0 as well.
const SMALLEST_SCALE: f64 = 1.0 / LARGEST_SCALE;

/// Multiply-adds below which a call stays on the calling thread: some 60 µs. `docs/fused.md` has the measurement.
const SERIAL: usize = 1 << 21;

impl<T: Element> Attention<'_, T> {
    /// Computes `query [..., h_q, n_q, d]`, `key [..., h_kv, n_k, d]`, `value [..., h_kv, n_k, d_v]` into
    /// `out [..., h_q, n_q, d_v]`, which must not share memory with an input. Heads may be absent (`[n, d]`), head h of
    /// the query uses head `h / (h_q / h_kv)` of key and value, and leading axes broadcast.
    pub fn run(
        &self,
        query: &View<'_, T>,
        key: &View<'_, T>,
        value: &View<'_, T>,
        out: &mut ViewMut<'_, T>,
    ) -> Result<()> {
        self.run_at(Level::current()?, query, key, value, out)
    }

    /// As [`Attention::run`], at a level of the caller's choice, which the CPU must have.
    ///
    /// # Errors
    /// What does not fit; scratch memory that cannot be had. Then nothing has been written.
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
        let is_ordinary = (SMALLEST_SCALE..=LARGEST_SCALE).contains(&checked.scale.abs());
        let pairs = T::IS_BFLOAT && level.gains_by_dots() && is_ordinary;
        let call = Call { attention: self, checked, query, key, value, out, scale: Scale::new(checked.scale), pairs };
        // One after the other, first the keys that any query may look at.
        let keys = checked.band.keys_of_any(0..problem.n_q);
        let plan = Plan {
            call: &call,
            level,
            keys: keys.start / KEYS * KEYS..keys.end,
            parallel: operations(problem, keys.len()) >= SERIAL,
        };
        let few = if checked.keep.is_none() { FEW_ROWS } else { ROWS };
        if problem.group().saturating_mul(problem.n_q) <= few { plan.run_over_keys() } else { plan.run_over_queries() }
    }
}

/// Multiply-adds, if every query looks at `keys` keys.
fn operations(problem: &Problem, keys: usize) -> usize {
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

/// A call, and how it is cut.
struct Plan<'a, T: Element> {
    call: &'a Call<'a, T>,
    level: Level,
    /// All keys that any query may look at, from where a block begins.
    keys: Range<usize>,
    parallel: bool,
}

impl<T: Element> Plan<'_, T> {
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

    /// What each thread needs for items of so many rows, whose queries are `queries` neighbours.
    fn scratch(&self, items: usize, rows: usize, queries: usize, shares: bool) -> Result<Vec<ItemScratch<'_, T>>> {
        // The keys of neighbours overlap but for one each; they begin and end where blocks do.
        let keys = self.call.checked.band.most().saturating_add(queries).saturating_add(KEYS).min(self.keys.len());
        let limits = ItemLimits { rows, keys: keys.next_multiple_of(KEYS), packs: shares || rows > ROWS };
        let threads = parallel::participants(items, self.parallel);
        made(threads, |_| self.level.run(MakeScratch { call: self.call, limits, shares }))
    }

    /// For few rows: an item is all rows of a head of key and value against a run of keys.
    fn run_over_keys(&self) -> Result<()> {
        let (heads, problem) = (self.heads(), &self.call.checked.problem);
        // The largest scores of a row are known when all of them are.
        let pieces = if self.call.checked.keep.is_some() { 1 } else { PIECES };
        let (run, runs) = runs(self.keys.len(), heads, pieces);
        let rows = problem.group() * problem.n_q;
        let mut scratch = self.scratch(heads * runs, rows, problem.n_q, false)?;
        let blocks = if rows > ROWS { Blocks::Packing } else { Blocks::InPlace };
        let width = self.level.run(PaddedWidth { columns: problem.d_v, real: PhantomData::<T::Real> });
        let mut memory = Buffer::zeroed(if runs == 1 {
            0
        } else {
            (heads * runs).saturating_mul(Part::<T::Real>::len(rows, width))
        })?;
        let mut parts = reserved(if runs == 1 { 0 } else { heads * runs })?;
        if runs > 1 {
            parts.extend(
                memory.chunks_exact_mut(Part::<T::Real>::len(rows, width)).map(|memory| Part::new(memory, rows)),
            );
            parallel::for_each_mut_with(&mut parts, &mut scratch, |scratch, index, part| {
                let start = self.keys.start + index % runs * run;
                let (span, keys) = (self.span(index / runs), start..(start + run).min(self.keys.end));
                self.level.run(Item { scratch, span, keys, blocks, sums: Sums::Kept(part) });
            });
        }
        parallel::for_each_with(heads, &mut scratch, |scratch, head| {
            let sums = if runs == 1 { Sums::Whole } else { Sums::Combined(&parts[head * runs..(head + 1) * runs]) };
            self.level.run(Item { scratch, span: self.span(head), keys: self.keys.clone(), blocks, sums });
        });
        Ok(())
    }

    /// For many rows: the keys of some heads are packed, then an item is some queries of one head against all keys.
    fn run_over_queries(&self) -> Result<()> {
        let (problem, pairs) = (&self.call.checked.problem, self.call.pairs);
        let group = problem.group();
        let blocks = self.keys.len().div_ceil(KEYS);
        let heads = heads_at_once(blocks, problem.d + problem.d_v, size_of::<T::Real>()).min(self.heads());
        let all = self.heads().saturating_mul(group).saturating_mul(problem.n_q);
        let most = all.div_ceil(PIECES).clamp(*QUERIES.start(), *QUERIES.end());
        let items = problem.n_q.div_ceil(most);
        let queries = problem.n_q.div_ceil(items).next_multiple_of(ROWS);
        let items = problem.n_q.div_ceil(queries);
        let mut scratch = self.scratch(heads * group * items, queries, queries, true)?;
        let make = || MakeBlock { d: problem.d, d_v: problem.d_v, pairs, real: PhantomData };
        // Said in all: a block alone is small.
        let elements = (heads * blocks).saturating_mul(KEYS).saturating_mul(problem.d + problem.d_v);
        let bytes = elements.saturating_mul(size_of::<T::Real>());
        let mut packed: Vec<Block<T::Real>> =
            made(heads * blocks, |_| self.level.run(make())).map_err(|_| Error::Memory { bytes })?;
        for first in (0..self.heads()).step_by(heads) {
            let heads = heads.min(self.heads() - first);
            parallel::for_each_mut(&mut packed[..heads * blocks], self.parallel, |index, block| {
                let (call, span) = (self.call, self.span(first + index / blocks));
                self.level.run(Pack { call, span, start: self.keys.start + index % blocks * KEYS, block });
            });
            parallel::for_each_with(heads * group * items, &mut scratch, |scratch, index| {
                let (head, part) = (index / items, index % items);
                let mut span = self.span(first + head / group);
                let head = span.heads.start + head % group;
                span.heads = head..head + 1;
                span.queries = part * queries..((part + 1) * queries).min(problem.n_q);
                let blocks = Blocks::Shared(&packed[index / items / group * blocks..][..blocks], self.keys.start);
                self.level.run(Item { scratch, span, keys: self.keys.clone(), blocks, sums: Sums::Whole });
            });
        }
        Ok(())
    }
}

/// `columns` rounded up to whole vectors of a level.
struct PaddedWidth<R> {
    columns: usize,
    real: PhantomData<R>,
}

impl<R: Real> Task for PaddedWidth<R> {
    type Output = usize;

    #[inline(always)]
    fn run<C: Cpu>(self, _: C) -> usize {
        padded::<C, R>(self.columns)
    }
}

/// An empty block, whose size depends on the level.
struct MakeBlock<R> {
    d: usize,
    d_v: usize,
    pairs: bool,
    real: PhantomData<R>,
}

impl<R: Real> Task for MakeBlock<R> {
    type Output = Result<Block<R>>;

    #[inline(always)]
    fn run<C: Cpu>(self, _: C) -> Self::Output {
        Block::new::<C>(KEYS, [self.d, self.d_v], self.pairs)
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
        self.block.pack(cpu, (&keys, &values), self.start, count);
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
    fn operations_beyond_what_a_number_can_count_is_as_much_as_can_be() {
        let layout = |n: usize| Layout::new("a", &[1 << 20, n, 64], &[0, 0, 0], 4).unwrap();
        let problem = Problem::new(&layout(1 << 33), &layout(1 << 33), &layout(1 << 33)).unwrap();
        assert_eq!(operations(&problem, 1 << 33), usize::MAX);
        assert_eq!(problem.group().saturating_mul(problem.n_q), 1 << 33);
    }
}
