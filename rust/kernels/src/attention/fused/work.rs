//! What one thread needs for its items: buffers, and the rows of an item while its keys go by.

use std::ops::Range;

use super::call::{Call, Span};
use super::pack::{KEYS, depth};
use crate::Result;
use crate::arch::{Cpu, Element, Real};
use crate::attention::top_k::CutFinder;
use crate::buffer::{Buffer, reserved};
use crate::product::{ROWS, padded};

/// What the items of a call need at most.
#[derive(Debug, Clone, Copy)]
pub(super) struct ItemLimits {
    /// Rows of an item.
    pub(super) rows: usize,
    /// Keys from the first block of an item to its last one, if whole rows of scores are needed.
    pub(super) keys: usize,
    /// Whether keys and values are packed; otherwise they are read where they are.
    pub(super) packs: bool,
}

/// A row of an item.
#[derive(Debug, Clone)]
pub(super) struct Row {
    /// The keys that the band allows, within the item's.
    pub(super) keys: Range<usize>,
    /// The offset of the row in the mask.
    pub(super) mask: isize,
}

/// The rows of an item while its keys go by. All memory is asked for when it is made.
#[derive(Debug)]
pub(super) struct Work<'a, T: Element> {
    pub(super) call: &'a Call<'a, T>,
    pub(super) rows: Vec<Row>,
    /// `[row][d]`, or pairs.
    pub(super) queries: Buffer<T::Real>,
    /// Whether queries, keys, values and the weights of a product are pairs of bfloat16.
    pub(super) pairs: bool,
    /// `[row of the tile][pair of keys]`.
    pub(super) weights: Buffer<T::Real>,
    /// `[row of the tile][column]`: sums that are not known to be finite yet.
    pub(super) fresh: Buffer<T::Real>,
    /// `[row of the tile][key]`: scores, then weights.
    pub(super) scores: Buffer<T::Real>,
    /// Elements from one row of scores to the next.
    pub(super) stride: usize,
    /// What the mask adds to one row of scores.
    pub(super) bias: Buffer<T::Real>,
    /// Finds the largest scores of a row.
    pub(super) finder: CutFinder<T::Real>,
    /// Which keys take part, `[row of the tile][key]`: known when a block is not finite.
    pub(super) takes_part: Vec<bool>,
    /// The largest score of each row so far.
    pub(super) tops: Vec<T::Real>,
    /// The sum of `exp(score - top)` of each row.
    pub(super) sums: Vec<T::Real>,
    /// `[row][column]`, columns padded to whole vectors: the sum of `exp(score - top) * value`.
    pub(super) output: Buffer<T::Real>,
    /// `[row][column]`: which sums overflowed; empty if none has.
    pub(super) overflowed: Vec<bool>,
}

impl<'a, T: Element> Work<'a, T> {
    /// # Errors
    /// There is not so much memory.
    pub(super) fn new<C: Cpu>(call: &'a Call<'a, T>, limits: ItemLimits) -> Result<Self> {
        let ItemLimits { rows, keys, packs } = limits;
        let problem = &call.checked.problem;
        let (tile, width) = (rows.min(ROWS), padded::<C, T::Real>(problem.d_v));
        let (is_whole, pairs) = (call.checked.keep.is_some(), call.pairs && packs);
        let stride = if is_whole { keys } else { KEYS };
        let scores = tile.saturating_mul(stride);
        Ok(Self {
            call,
            rows: reserved(rows)?,
            queries: Buffer::zeroed(rows.saturating_mul(depth(problem.d, pairs)))?,
            pairs,
            weights: Buffer::zeroed(if pairs { ROWS * KEYS / 2 } else { 0 })?,
            fresh: Buffer::zeroed(if packs { 0 } else { tile.saturating_mul(width) })?,
            scores: Buffer::zeroed(scores)?,
            stride: KEYS,
            bias: Buffer::zeroed(if call.checked.mask.is_some() { KEYS } else { 0 })?,
            finder: CutFinder::new(if is_whole { stride } else { 0 })?,
            takes_part: reserved(scores)?,
            tops: reserved(rows)?,
            sums: reserved(rows)?,
            output: Buffer::zeroed(rows.saturating_mul(width))?,
            overflowed: reserved(rows.saturating_mul(width))?,
        })
    }

    /// Begins an item: its rows, and no key seen.
    #[inline(always)]
    pub(super) fn begin<C: Cpu>(&mut self, cpu: C, span: &Span, keys: &Range<usize>) {
        let checked = self.call.checked;
        let problem = &checked.problem;
        self.rows.clear();
        self.rows.extend(span.rows().map(|(head, query)| {
            let allowed = checked.band.keys(query);
            let start = allowed.start.max(keys.start);
            let mask = checked.mask.as_ref();
            let mask = mask.map_or(0, |mask| problem.offset(mask, span.batch, head) + query as isize * mask.row);
            Row { keys: start..allowed.end.min(keys.end).max(start), mask }
        }));
        if checked.keep.is_some() {
            // Whole rows of scores, of one tile.
            let keys = self.keys();
            self.stride = (keys.end - keys.start / KEYS * KEYS).next_multiple_of(KEYS);
        }
        self.take_queries(cpu, span);
        self.tops.clear();
        self.tops.resize(self.rows.len(), T::Real::NEG_INFINITY);
        self.forget_sums(padded::<C, T::Real>(problem.d_v));
    }

    /// No value has been added to any row.
    pub(super) fn forget_sums(&mut self, width: usize) {
        self.sums.clear();
        self.sums.resize(self.rows.len(), T::Real::ZERO);
        self.output[..self.rows.len() * width].fill(T::Real::ZERO);
    }

    #[inline(always)]
    fn take_queries<C: Cpu>(&mut self, cpu: C, span: &Span) {
        let (d, power) = (self.call.checked.problem.d, self.call.scale.query);
        let depth = depth(d, self.pairs);
        let queries = &mut self.queries[..self.rows.len() * depth];
        if queries.is_empty() {
            return;
        }
        for (to, head) in queries.chunks_exact_mut(span.queries.len() * depth).zip(span.heads.clone()) {
            let from = self.call.queries(span.batch, head);
            if self.pairs {
                for (to, query) in to.chunks_exact_mut(depth).zip(span.queries.clone()) {
                    from.column_pairs(query, to, 1);
                }
            } else {
                from.copy(cpu, span.queries.start, to, d);
            }
        }
        if power != T::Real::ONE && self.pairs {
            // SAFETY: a pair is two elements of 16 bits.
            let halves = unsafe { std::slice::from_raw_parts_mut(queries.as_mut_ptr().cast::<T>(), 2 * queries.len()) };
            for half in halves {
                *half = T::from_real(half.to_real() * power);
            }
        } else if power != T::Real::ONE {
            for query in queries {
                *query = *query * power;
            }
        }
    }

    /// The keys that the band allows to any row.
    pub(super) fn keys(&self) -> Range<usize> {
        union(&self.rows)
    }

    /// The part of a block's keys, counted from its start, that the band allows to any row of a tile.
    #[inline(always)]
    pub(super) fn tile_keys(&self, tile: Range<usize>, start: usize) -> Range<usize> {
        let keys = union(&self.rows[tile]);
        keys.start.saturating_sub(start).min(KEYS)..keys.end.saturating_sub(start).min(KEYS)
    }
}

/// The smallest range that covers the keys of all rows.
#[inline(always)]
fn union(rows: &[Row]) -> Range<usize> {
    let keys = rows.iter().map(|row| &row.keys).filter(|keys| !keys.is_empty());
    keys.fold(None, |all: Option<Range<usize>>, keys| match all {
        None => Some(keys.clone()),
        Some(all) => Some(all.start.min(keys.start)..all.end.max(keys.end)),
    })
    .unwrap_or(0..0)
}
