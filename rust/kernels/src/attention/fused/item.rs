//! One item: some rows (heads × queries) of the output against a run of keys.

use std::ops::Range;

use super::call::{Call, Span};
use super::output::Part;
use super::pack::{Block, KEYS};
use super::scores::KeySource;
use super::work::{ItemLimits, Work};
use crate::Result;
use crate::arch::{Cpu, Element, Real, Task};
use crate::product::ROWS;
use crate::view::Rows;

/// What one thread needs. All memory is asked for when it is made.
#[derive(Debug)]
pub(super) struct ItemScratch<'a, T: Element> {
    work: Work<'a, T>,
    /// For items that pack for themselves, and for values that cannot be read where they are.
    block: Block<T::Real>,
}

/// Makes a [`ItemScratch`], whose size depends on the level.
pub(super) struct MakeScratch<'a, T: Element> {
    pub(super) call: &'a Call<'a, T>,
    pub(super) limits: ItemLimits,
    /// Whether keys and values are packed for all items at once.
    pub(super) shares: bool,
}

impl<'a, T: Element> Task for MakeScratch<'a, T> {
    type Output = Result<ItemScratch<'a, T>>;

    #[inline(always)]
    fn run<C: Cpu>(self, _: C) -> Self::Output {
        let problem = &self.call.checked.problem;
        let (columns, pairs) = match (self.shares, self.limits.packs) {
            (true, _) => ([0, 0], false),
            (false, true) => ([problem.d, problem.d_v], self.call.pairs),
            (false, false) => ([0, problem.d_v], false),
        };
        let block = Block::new::<C>(problem.n_k, columns, pairs)?;
        Ok(ItemScratch { work: Work::new::<C>(self.call, self.limits)?, block })
    }
}

/// Where an item's keys and values are.
#[derive(Debug, Clone, Copy)]
pub(super) enum Blocks<'a, R> {
    /// Packed before, for all items; the list begins with the block of this key.
    Shared(&'a [Block<R>], usize),
    /// Packed by the item, each block when its turn comes.
    Packing,
    /// Read where they are, for at most [`ROWS`] rows.
    InPlace,
}

/// What becomes of an item's sums.
#[derive(Debug)]
pub(super) enum Sums<'a, 'p, R> {
    /// They are over all keys: divided and stored in the output.
    Whole,
    /// They are kept, to be combined.
    Kept(&'a mut Part<'p, R>),
    /// They are there already, over runs of keys: combined, divided and stored.
    Combined(&'a [Part<'p, R>]),
}

/// See the module.
pub(super) struct Item<'a, 'p, 'c, T: Element> {
    pub(super) scratch: &'a mut ItemScratch<'c, T>,
    pub(super) span: Span,
    /// Begins where a block begins.
    pub(super) keys: Range<usize>,
    pub(super) blocks: Blocks<'a, T::Real>,
    pub(super) sums: Sums<'a, 'p, T::Real>,
}

impl<T: Element> Task for Item<'_, '_, '_, T> {
    type Output = ();

    #[inline(always)]
    fn run<C: Cpu>(self, cpu: C) {
        let Self { scratch: ItemScratch { work, block }, span, keys, blocks, mut sums } = self;
        work.begin(cpu, &span, &keys);
        let (keys, values) = work.call.keys_and_values(span.batch, span.kv);
        let mut source = Source { blocks, keys, values, block };
        let mut divided = false;
        // Once, or twice if sums overflow.
        loop {
            match &sums {
                Sums::Combined(parts) if !divided => work.combine::<C>(parts),
                _ => attend(cpu, work, &mut source),
            }
            if let Sums::Kept(part) = &mut sums {
                return work.save(part);
            }
            if divided {
                return work.store_again::<C>(&span);
            }
            divided = work.has_overflowed(cpu);
            work.store(cpu, &span);
            if !divided {
                return;
            }
            work.begin_divided::<C>(&span);
        }
    }
}

/// Takes all keys of the item into the sums of its rows.
#[inline(always)]
fn attend<C: Cpu, T: Element>(cpu: C, work: &mut Work<'_, T>, source: &mut Source<'_, T>) {
    let (rows, keys) = (work.rows.len(), work.keys());
    let first = keys.start / KEYS * KEYS;
    let starts = (first..keys.end).step_by(KEYS);
    let tiles = (0..rows).step_by(ROWS).map(|row| row..(row + ROWS).min(rows));
    let Some(keep) = work.call.checked.keep else {
        for start in starts {
            source.load(cpu, work, start);
            for tile in tiles.clone() {
                let columns = work.score(cpu, tile.clone(), source.keys(start), start, 0);
                if !columns.is_empty() {
                    let factors = work.weigh(cpu, tile.clone(), columns, source.is_finite(start));
                    source.add(cpu, work, tile, start, 0, factors);
                }
            }
        }
        return;
    };
    for tile in tiles {
        work.forget_scores();
        let mut is_finite = true;
        for start in starts.clone() {
            source.load(cpu, work, start);
            is_finite &= source.is_finite(start);
            work.score(cpu, tile.clone(), source.keys(start), start, start - first);
        }
        work.keep_largest(cpu, tile.clone(), keep, first);
        // What was added so far is 0, which nothing shrinks.
        work.weigh(cpu, tile.clone(), 0..starts.len() * KEYS, is_finite);
        for start in starts.clone() {
            source.load(cpu, work, start);
            source.add(cpu, work, tile.clone(), start, start - first, [T::Real::ONE; ROWS]);
        }
    }
}

/// What scores and values come from, block by block.
struct Source<'a, T: Element> {
    blocks: Blocks<'a, T::Real>,
    keys: Rows<'a, T>,
    values: Rows<'a, T>,
    block: &'a mut Block<T::Real>,
}

impl<T: Element> Source<'_, T> {
    /// Makes the block from `start` on ready.
    #[inline(always)]
    fn load<C: Cpu>(&mut self, cpu: C, work: &Work<'_, T>, start: usize) {
        if let Blocks::Packing = self.blocks {
            let count = KEYS.min(work.call.checked.problem.n_k - start);
            self.block.pack(cpu, (&self.keys, &self.values), start, count);
        }
    }

    fn packed(&self, start: usize) -> &Block<T::Real> {
        match self.blocks {
            Blocks::Shared(blocks, zero) => &blocks[(start - zero) / KEYS],
            _ => self.block,
        }
    }

    fn keys(&self, start: usize) -> KeySource<'_, T> {
        match self.blocks {
            Blocks::InPlace => KeySource::InPlace(&self.keys),
            _ => KeySource::Packed(self.packed(start)),
        }
    }

    /// Whether all values of the block are known to be finite.
    fn is_finite(&self, start: usize) -> bool {
        !matches!(self.blocks, Blocks::InPlace) && self.packed(start).is_finite
    }

    /// Adds a block's values, weighted. The weight of the key at `start` is in column `at`.
    #[inline(always)]
    fn add<C: Cpu>(
        &mut self,
        cpu: C,
        work: &mut Work<'_, T>,
        tile: Range<usize>,
        start: usize,
        at: usize,
        factors: [T::Real; ROWS],
    ) {
        if let Blocks::InPlace = self.blocks {
            if work.add_in_place(cpu, &self.values, start, at, factors) {
                return;
            }
            let count = KEYS.min(work.call.checked.problem.n_k - start);
            self.block.pack_values(cpu, &self.values, start, count);
        }
        work.add_values(cpu, tile, self.packed(start), start, at, factors);
    }
}
