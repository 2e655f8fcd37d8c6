//! Scores of a tile: products with keys, cap, mask, and the largest ones of a row.

use std::ops::Range;

use super::call::Call;
use super::options::Mask;
use super::pack::{Block, KEYS, depth};
use super::work::Work;
use crate::arch::{Cpu, Element, Lanes, Real, tanh};
use crate::attention::top_k::{Cut, Floats, keys};
use crate::product::{InPlaceScores, Product, ROWS, Scaled, Shape, strided};
use crate::view::Rows;

/// The keys of a block.
#[derive(Debug)]
pub(super) enum KeySource<'a, T: Element> {
    /// Packed.
    Packed(&'a Block<T::Real>),
    /// Where they are: all keys of the head, for few rows.
    InPlace(&'a Rows<'a, T>),
}

impl<T: Element> Work<'_, T> {
    /// Makes every score -inf.
    pub(super) fn forget_scores(&mut self) {
        let tile = self.rows.len().min(ROWS);
        self.scores[..tile * self.stride].fill(T::Real::NEG_INFINITY);
    }

    /// Writes the scores of a tile for a block's keys, -inf where a key takes no part, and says which columns have been
    /// written: whole vectors. The key at `start` belongs in column `at`.
    #[inline(always)]
    pub(super) fn score<C: Cpu>(
        &mut self,
        cpu: C,
        tile: Range<usize>,
        source: KeySource<'_, T>,
        start: usize,
        at: usize,
    ) -> Range<usize> {
        let (n, d) = (<T::Real as Real>::Lanes::<C>::N, depth(self.call.checked.problem.d, self.pairs));
        let keys = self.tile_keys(tile.clone(), start);
        if keys.is_empty() || self.is_masked(tile.clone(), start + keys.start..start + keys.end) {
            return 0..0;
        }
        let panels = keys.start / n..keys.end.div_ceil(n);
        let columns = at + panels.start * n..at + panels.end * n;
        let scale = self.call.scale.product;
        let queries = &self.queries[tile.start * d..];
        match source {
            KeySource::Packed(block) => {
                let product = Product {
                    shape: Shape {
                        rows: tile.len(),
                        vectors: panels.len(),
                        depth: d,
                        a_row: d,
                        b_step: n,
                        b_vector: n * d,
                        out_row: self.stride,
                    },
                    a: queries,
                    b: &block.keys[panels.start * n * d..],
                    out: &mut self.scores[columns.start..],
                    finish: Scaled(scale),
                };
                if self.pairs { cpu.run_dots(product) } else { cpu.run(product) }
            }
            KeySource::InPlace(rows) => cpu.run(InPlaceScores {
                rows: tile.len(),
                queries,
                keys: rows,
                start: start + keys.start,
                count: keys.len(),
                scale,
                out: &mut self.scores[at + keys.start..],
                out_row: self.stride,
            }),
        }
        if let Some(cap) = self.call.checked.softcap {
            self.cap(cpu, tile.len(), columns.clone(), T::Real::from_f64(cap));
        }
        self.mask(cpu, tile, columns.clone(), start, at);
        columns
    }

    /// Whether the mask is known to exclude these keys for every row of a tile.
    #[inline(always)]
    fn is_masked(&self, tile: Range<usize>, keys: Range<usize>) -> bool {
        let (Some(mask), Some(operand)) = (&self.call.attention.mask, &self.call.checked.mask) else { return false };
        operand.column == 1
            && self.rows[tile].iter().all(|row| {
                let from = row.mask + keys.start as isize;
                // SAFETY: the mask was checked to have an element for each query and key of each head.
                unsafe {
                    match mask {
                        Mask::Bool(mask) => {
                            let bytes = copied(mask.as_ptr().offset(from), keys.len());
                            bytes.iter().fold(0, |any, byte| any | byte) == 0
                        }
                        Mask::Float(mask) => {
                            let first = mask.as_ptr().offset(from);
                            (0..keys.len()).all(|key| first.add(key).read().to_real() == T::Real::NEG_INFINITY)
                        }
                    }
                }
            })
    }

    #[inline(always)]
    fn cap<C: Cpu>(&mut self, cpu: C, rows: usize, columns: Range<usize>, cap: T::Real) {
        let lanes = T::Real::lanes(cpu);
        let (n, cap) = (<T::Real as Real>::Lanes::<C>::N, lanes.splat(cap));
        for row in self.scores.chunks_exact_mut(self.stride).take(rows) {
            for scores in row[columns.clone()].chunks_exact_mut(n) {
                // SAFETY: the chunk is a whole vector.
                unsafe {
                    let score = lanes.div(lanes.load(scores.as_ptr()), cap);
                    lanes.store(scores.as_mut_ptr(), lanes.mul(cap, tanh(lanes, score)));
                }
            }
        }
    }

    /// Applies band and mask.
    #[inline(always)]
    fn mask<C: Cpu>(&mut self, cpu: C, tile: Range<usize>, columns: Range<usize>, start: usize, at: usize) {
        for (index, row) in self.rows[tile].iter().enumerate() {
            let scores = &mut self.scores[index * self.stride..][..self.stride];
            let column = |key: usize| (key.saturating_sub(start).min(KEYS) + at).clamp(columns.start, columns.end);
            let allowed = column(row.keys.start)..column(row.keys.end);
            if let Some(operand) = &self.call.checked.mask {
                let first_key = start + allowed.start - at;
                let from = row.mask + first_key as isize * operand.column;
                add_mask(cpu, self.call, from, &mut self.bias, &mut scores[allowed.clone()]);
            }
            scores[columns.start..allowed.start].fill(T::Real::NEG_INFINITY);
            scores[allowed.end..columns.end].fill(T::Real::NEG_INFINITY);
        }
    }

    /// Drops all but the `keep` largest scores of each row of a tile: exactly so many, ties go to the lower index, NaN
    /// counts as the largest.
    #[inline(always)]
    pub(super) fn keep_largest<C: Cpu>(&mut self, cpu: C, tile: Range<usize>, keep: usize, first: usize) {
        let lanes = T::Real::lanes(cpu);
        let n = <T::Real as Real>::Lanes::<C>::N;
        let dropped = lanes.splat(T::Real::NEG_INFINITY);
        for (index, row) in self.rows[tile].iter().enumerate() {
            if row.keys.len() <= keep {
                continue;
            }
            let scores = &mut self.scores[index * self.stride..][row.keys.start - first..row.keys.end - first];
            // A row with a NaN is NaN whatever is kept, so which of several kinds were cut does not matter.
            let (Cut { key, mut ties }, _) = self.finder.cut(lanes, Floats::from(&*scores), keep);
            let cut = lanes.int_splat(key);
            for scores in scores.chunks_mut(n) {
                // SAFETY: the chunk has so many scores, at most a vector's.
                let score = unsafe { lanes.load_first(scores.as_ptr(), scores.len()) };
                let key = keys(lanes, score);
                let above = lanes.int_gt(key, cut);
                let mut equal =
                    !lanes.bits(lanes.or(above, lanes.int_gt(cut, key))) & lanes.bits(lanes.first(scores.len()));
                if ties > 0 && equal != 0 {
                    for (lane, score) in scores.iter_mut().enumerate() {
                        let is_equal = equal & 1 == 1;
                        if !(lanes.bits(above) >> lane & 1 == 1 || is_equal && ties > 0) {
                            *score = T::Real::NEG_INFINITY;
                        }
                        ties -= usize::from(is_equal && ties > 0);
                        equal >>= 1;
                    }
                } else {
                    // SAFETY: as above.
                    unsafe {
                        lanes.store_first(scores.as_mut_ptr(), scores.len(), lanes.select(above, score, dropped));
                    }
                }
            }
        }
    }
}

/// The bytes of a mask for a block's keys, and zeros behind them: a copy, since another thread may write to the mask.
///
/// # Safety
/// `count` bytes at `from` may be read; they are at most [`KEYS`].
#[inline(always)]
unsafe fn copied(from: *const u8, count: usize) -> [u8; KEYS] {
    let mut bytes = [0; KEYS];
    // SAFETY: the caller's promise.
    unsafe { std::ptr::copy_nonoverlapping(from, bytes.as_mut_ptr(), count) };
    bytes
}

/// Adds the mask, from the element at offset `from` on, to the scores of one row and some keys.
#[inline(always)]
fn add_mask<C: Cpu, T: Element>(cpu: C, call: &Call<'_, T>, from: isize, bias: &mut [T::Real], scores: &mut [T::Real]) {
    let (Some(mask), Some(operand)) = (&call.attention.mask, &call.checked.mask) else { return };
    let lanes = T::Real::lanes(cpu);
    let n = <T::Real as Real>::Lanes::<C>::N;
    let masked = lanes.splat(T::Real::NEG_INFINITY);
    let bias = &mut bias[..scores.len()];
    match mask {
        Mask::Bool(mask) if operand.column == 1 => {
            // SAFETY: the mask was checked to have an element for each query and key of each head.
            let bytes = unsafe { copied(mask.as_ptr().offset(from), bias.len()) };
            for (bias, &byte) in bias.iter_mut().zip(&bytes) {
                *bias = if byte != 0 { T::Real::ZERO } else { T::Real::NEG_INFINITY };
            }
        }
        Mask::Bool(mask) => {
            for (key, bias) in bias.iter_mut().enumerate() {
                // SAFETY: as above.
                let takes_part = unsafe { *mask.as_ptr().offset(from + key as isize * operand.column) } != 0;
                *bias = if takes_part { T::Real::ZERO } else { T::Real::NEG_INFINITY };
            }
        }
        Mask::Float(mask) => {
            for (index, bias) in bias.chunks_mut(n).enumerate() {
                // SAFETY: as above; the chunk has at most a vector's elements.
                unsafe {
                    let from = mask.as_ptr().offset(from + (index * n) as isize * operand.column);
                    let vector = strided(cpu, from, operand.column, bias.len());
                    lanes.store_first(bias.as_mut_ptr(), bias.len(), vector);
                }
            }
        }
    }
    let whole = scores.len() - scores.len() % n;
    let (first, last) = scores.split_at_mut(whole);
    for (scores, bias) in first.chunks_exact_mut(n).zip(bias.chunks_exact(n)) {
        // SAFETY: both chunks are whole vectors.
        unsafe {
            let (score, bias) = (lanes.load(scores.as_ptr()), lanes.load(bias.as_ptr()));
            let sum = lanes.select(lanes.eq(bias, masked), masked, lanes.add(score, bias));
            lanes.store(scores.as_mut_ptr(), sum);
        }
    }
    for (scores, bias) in last.chunks_mut(n).zip(bias[whole..].chunks(n)) {
        // SAFETY: both chunks have the same number of elements, at most a vector's.
        unsafe {
            let score = lanes.load_first(scores.as_ptr(), scores.len());
            let bias = lanes.load_first(bias.as_ptr(), scores.len());
            let sum = lanes.select(lanes.eq(bias, masked), masked, lanes.add(score, bias));
            lanes.store_first(scores.as_mut_ptr(), scores.len(), sum);
        }
    }
}
