//! What happens to a tile between its two products: cap, mask, and the online softmax.

use std::ops::Range;

use super::Mask;
use super::dots::{Dots, Weighted};
use super::item::{Call, Span, finite};
use super::pack::{Block, KEYS, Rows, depth, gather, padded};
use super::product::{Onto, Product, ROWS, Scaled, Shape};
use crate::arch::{Cpu, Element, Lanes, Real, exp_below, tanh};
use crate::attention::{Cut, Keys as Order, keys};
use crate::buffer::Buffer;

/// The keys of a block.
#[derive(Debug)]
pub(super) enum Keys<'a, T: Element> {
    /// Packed.
    Packed(&'a Block<T::Real>),
    /// Where they are: all keys of the head, for few rows.
    InPlace(&'a Rows<T>),
}

/// What an item keeps of a row.
#[derive(Debug, Clone)]
struct Row {
    /// The keys that the band allows, within the item's.
    keys: Range<usize>,
    /// The offset of the row in the mask.
    mask: isize,
}

/// The rows of an item while its keys go by.
#[derive(Debug)]
pub(super) struct Work<'a, T: Element> {
    call: &'a Call<'a, T>,
    rows: Vec<Row>,
    /// `[row][d]`, or pairs.
    queries: Buffer<T::Real>,
    /// Whether queries, keys, values and the weights of a product are pairs of bfloat16.
    pairs: bool,
    /// `[row of the tile][pair of keys]`.
    weights: Buffer<T::Real>,
    /// `[row of the tile][column]`: sums that are not known to be finite yet.
    fresh: Buffer<T::Real>,
    /// `[row of the tile][key]`: scores, then weights.
    scores: Buffer<T::Real>,
    /// Elements from one row of scores to the next.
    stride: usize,
    /// What the mask adds to one row of scores.
    bias: Buffer<T::Real>,
    /// Finds the largest scores of a row.
    order: Order<T::Real>,
    /// Which keys take part, `[row of the tile][key]`: known when a block is not finite.
    takes_part: Vec<bool>,
    /// The largest score of each row so far.
    pub(super) tops: Vec<T::Real>,
    /// The sum of `exp(score - top)` of each row.
    pub(super) sums: Vec<T::Real>,
    /// `[row][column]`, columns padded to whole vectors.
    pub(super) output: Buffer<T::Real>,
}

impl<'a, T: Element> Work<'a, T> {
    #[inline(always)]
    pub(super) fn new<C: Cpu>(cpu: C, call: &'a Call<'a, T>, span: &Span, keys: &Range<usize>, pairs: bool) -> Self {
        let (checked, problem) = (call.checked, &call.checked.problem);
        let rows: Vec<Row> = span
            .rows()
            .map(|(head, query)| {
                let allowed = checked.band.keys(query);
                let start = allowed.start.max(keys.start);
                let mask = checked.mask.as_ref();
                let mask = mask.map_or(0, |mask| problem.offset(mask, span.batch, head) + query as isize * mask.row);
                Row { keys: start..allowed.end.min(keys.end).max(start), mask }
            })
            .collect();
        let depth = depth(problem.d, pairs);
        let mut queries = Buffer::zeroed(rows.len() * depth).expect("memory");
        if !queries.is_empty() {
            let chunks = queries.chunks_exact_mut(span.queries.len() * depth);
            for (to, head) in chunks.zip(span.heads.clone()) {
                let from = call.queries(span.batch, head);
                // SAFETY: these are queries of this head, and d is their number of columns.
                unsafe {
                    if pairs {
                        for (to, query) in to.chunks_exact_mut(depth).zip(span.queries.clone()) {
                            from.column_pairs(query, to, 1);
                        }
                    } else {
                        from.copy(cpu, span.queries.start, to, problem.d);
                    }
                }
            }
        }
        let mut work = Self {
            call,
            queries,
            pairs,
            fresh: Buffer::zeroed(if pairs { 0 } else { rows.len().min(ROWS) * padded::<C, T::Real>(problem.d_v) })
                .expect("memory"),
            weights: Buffer::zeroed(if pairs { ROWS * KEYS / 2 } else { 0 }).expect("memory"),
            scores: Buffer::zeroed(0).expect("memory"),
            stride: KEYS,
            bias: Buffer::zeroed(if checked.mask.is_some() { KEYS } else { 0 }).expect("memory"),
            order: Order::default(),
            takes_part: Vec::new(),
            tops: vec![T::Real::NEG_INFINITY; rows.len()],
            sums: vec![T::Real::ZERO; rows.len()],
            output: Buffer::zeroed(rows.len() * padded::<C, T::Real>(problem.d_v)).expect("memory"),
            rows,
        };
        if checked.keep.is_some() {
            // Whole rows of scores, of one tile.
            let keys = work.keys();
            work.stride = (keys.end - keys.start / KEYS * KEYS).next_multiple_of(KEYS);
        }
        work.scores = Buffer::zeroed(work.rows.len().min(ROWS) * work.stride).expect("memory");
        work
    }

    /// The keys that the band allows to any row.
    pub(super) fn keys(&self) -> Range<usize> {
        union(&self.rows)
    }

    /// Takes one block into the sums of a tile.
    #[inline(always)]
    pub(super) fn attend<C: Cpu>(&mut self, cpu: C, tile: Range<usize>, block: &Block<T::Real>, start: usize) {
        let columns = self.score(cpu, tile.clone(), Keys::Packed(block), start, 0);
        if !columns.is_empty() {
            let factors = self.weigh(cpu, tile.clone(), columns, block.is_finite);
            self.add_values(cpu, tile, block, start, 0, factors);
        }
    }

    /// The part of a block's keys, counted from its start, that the band allows to any row of a tile.
    #[inline(always)]
    fn tile_keys(&self, tile: Range<usize>, start: usize) -> Range<usize> {
        let keys = union(&self.rows[tile]);
        keys.start.saturating_sub(start).min(KEYS)..keys.end.saturating_sub(start).min(KEYS)
    }

    /// Makes every score -inf.
    pub(super) fn forget_scores(&mut self) {
        self.scores.fill(T::Real::NEG_INFINITY);
    }

    /// Writes the scores of a tile for a block's keys, -inf where a key takes no part, and says which columns have been
    /// written: whole vectors. The key at `start` belongs in column `at`.
    #[inline(always)]
    pub(super) fn score<C: Cpu>(
        &mut self,
        cpu: C,
        tile: Range<usize>,
        source: Keys<'_, T>,
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
        let scale = T::Real::from_f64(self.call.checked.scale);
        let queries = &self.queries[tile.start * d..];
        match source {
            Keys::Packed(block) => {
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
            Keys::InPlace(rows) => cpu.run(Dots {
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
                            let bytes = std::slice::from_raw_parts(mask.as_ptr().offset(from), keys.len());
                            bytes.iter().fold(0, |any, byte| any | byte) == 0
                        }
                        Mask::Float(mask) => {
                            let terms = std::slice::from_raw_parts(mask.as_ptr().offset(from), keys.len());
                            terms.iter().all(|term| term.to_real() == T::Real::NEG_INFINITY)
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
            // SAFETY: the row has so many scores.
            let (Cut { key, mut ties }, _) = unsafe { self.order.cut(lanes, scores.as_ptr(), scores.len(), keep) };
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

    /// Turns the scores of a tile into weights `exp(score - top)`, and gives the factors by which the sums so far
    /// shrink as the tops rise.
    #[inline(always)]
    pub(super) fn weigh<C: Cpu>(
        &mut self,
        cpu: C,
        tile: Range<usize>,
        columns: Range<usize>,
        is_finite: bool,
    ) -> [T::Real; ROWS] {
        let lanes = T::Real::lanes(cpu);
        let n = <T::Real as Real>::Lanes::<C>::N;
        if !is_finite {
            self.takes_part.clear();
            let scores = &self.scores[..tile.len() * self.stride];
            self.takes_part.extend(scores.iter().map(|&score| score != T::Real::NEG_INFINITY));
        }
        // Room for whole vectors.
        let mut factors = [T::Real::ZERO; 16];
        for (index, row) in tile.clone().enumerate() {
            let mut top = lanes.splat(T::Real::NEG_INFINITY);
            for scores in self.scores[index * self.stride..][columns.clone()].chunks_exact(n) {
                // SAFETY: the chunk is a whole vector. A NaN is passed over; the sum gets it.
                top = lanes.max(unsafe { lanes.load(scores.as_ptr()) }, top);
            }
            let (old, new) = (self.tops[row], lanes.max_lane(top));
            self.tops[row] = if new > old { new } else { old };
            factors[index] = old - finite(self.tops[row]);
        }
        for factors in factors[..ROWS.next_multiple_of(n)].chunks_exact_mut(n) {
            // SAFETY: the chunk is a whole vector.
            unsafe {
                let factor = exp_below(lanes, lanes.load(factors.as_ptr()));
                lanes.store(factors.as_mut_ptr(), factor);
            }
        }
        for (index, row) in tile.enumerate() {
            let top = lanes.splat(finite(self.tops[row]));
            let mut sum = lanes.splat(T::Real::ZERO);
            for scores in self.scores[index * self.stride..][columns.clone()].chunks_exact_mut(n) {
                // SAFETY: the chunk is a whole vector.
                unsafe {
                    let weight = exp_below(lanes, lanes.sub(lanes.load(scores.as_ptr()), top));
                    sum = lanes.add(sum, weight);
                    lanes.store(scores.as_mut_ptr(), weight);
                }
            }
            self.sums[row] = self.sums[row] * factors[index] + lanes.sum(sum);
        }
        let mut result = [T::Real::ZERO; ROWS];
        result.copy_from_slice(&factors[..ROWS]);
        result
    }

    /// As [`Work::add_values`], for few rows whose values are read where they are if they can be; otherwise they are
    /// packed into `block`. What takes part must be known.
    #[inline(always)]
    pub(super) fn add_own_values<C: Cpu>(
        &mut self,
        cpu: C,
        (values, block): (&Rows<T>, &mut Block<T::Real>),
        start: usize,
        at: usize,
        factors: [T::Real; ROWS],
    ) {
        let tile = 0..self.rows.len();
        let keys = self.tile_keys(tile.clone(), start);
        let done = values.column == 1
            && cpu.run(Weighted {
                rows: tile.len(),
                weights: &self.scores[at + keys.start..],
                weights_row: self.stride,
                values,
                start: start + keys.start,
                count: keys.len(),
                factors,
                output: &mut self.output,
                scratch: &mut self.fresh,
            });
        if !done {
            let count = KEYS.min(self.call.checked.problem.n_k - start);
            // SAFETY: these rows are below n_k, and the block was made for this problem.
            unsafe { block.pack_values(cpu, values, start, count) };
            self.add_values(cpu, tile, block, start, at, factors);
        }
    }

    /// Shrinks the output so far and adds a block's values, weighted. The weight of the key at `start` is in column `at`.
    #[inline(always)]
    pub(super) fn add_values<C: Cpu>(
        &mut self,
        cpu: C,
        tile: Range<usize>,
        block: &Block<T::Real>,
        start: usize,
        at: usize,
        factors: [T::Real; ROWS],
    ) {
        let n = <T::Real as Real>::Lanes::<C>::N;
        let width = padded::<C, T::Real>(self.call.checked.problem.d_v);
        let keys = self.tile_keys(tile.clone(), start);
        let shape = Shape {
            rows: tile.len(),
            vectors: width / n,
            depth: keys.len(),
            a_row: self.stride,
            b_step: width,
            b_vector: n,
            out_row: width,
        };
        let columns = at + keys.start..at + keys.end;
        if block.is_finite && self.pairs {
            // Whole pairs: the weight of a key beside the range is 0, since whole vectors of scores were written.
            let (first, pairs) = (keys.start / 2, keys.end.div_ceil(2) - keys.start / 2);
            for (index, weights) in self.weights.chunks_exact_mut(KEYS / 2).enumerate().take(tile.len()) {
                let scores = &self.scores[index * self.stride + at + 2 * first..][..2 * pairs];
                let weights = weights.as_mut_ptr().cast::<T>();
                for (index, scores) in scores.chunks(n).enumerate() {
                    // SAFETY: there is room for the weights of a block; two of them, 16 bits each, are an element.
                    unsafe {
                        let (lanes, to) = (<T::Real as Real>::lanes(cpu), weights.add(index * n));
                        if scores.len() == n {
                            T::store(cpu, to, lanes.load(scores.as_ptr()));
                        } else {
                            let vector = lanes.load_first(scores.as_ptr(), scores.len());
                            T::store_first(cpu, to, scores.len(), vector);
                        }
                    }
                }
            }
            cpu.run_dots(Product {
                shape: Shape { depth: pairs, a_row: KEYS / 2, ..shape },
                a: &self.weights,
                b: &block.values[first * width..],
                out: &mut self.output[tile.start * width..],
                finish: Onto(factors),
            });
            return;
        }
        if block.is_finite {
            cpu.run(Product {
                shape,
                a: &self.scores[columns.start..],
                b: &block.values[keys.start * width..],
                out: &mut self.output[tile.start * width..],
                finish: Onto(factors),
            });
            return;
        }
        // Only the values that take part may be touched: row by row, run by run.
        for (index, row) in tile.enumerate() {
            let output = &mut self.output[row * width..][..width];
            for sum in output.iter_mut() {
                *sum = *sum * factors[index];
            }
            let takes_part = &self.takes_part[index * self.stride..][columns.clone()];
            let mut begin = 0;
            for run in takes_part.chunk_by(|a, b| a == b) {
                if run[0] && self.pairs {
                    for key in keys.start + begin..keys.start + begin + run.len() {
                        let weight = self.scores[index * self.stride + at + key];
                        let values = &block.values[key / 2 * width..][..width];
                        add_half(weight, values, key % 2 == 1, output);
                    }
                } else if run[0] {
                    let shape = Shape { rows: 1, depth: run.len(), ..shape };
                    cpu.run(Product {
                        shape,
                        a: &self.scores[index * self.stride + columns.start + begin..],
                        b: &block.values[(keys.start + begin) * width..],
                        out: output,
                        finish: Onto([T::Real::ONE; ROWS]),
                    });
                }
                begin += run.len();
            }
        }
    }
}

/// Adds one of each pair of bfloat16, the upper or the lower one, weighted.
#[inline(always)]
fn add_half<R: Real>(weight: R, pairs: &[R], upper: bool, output: &mut [R]) {
    for (sum, pair) in output.iter_mut().zip(pairs) {
        // SAFETY: what holds pairs is float32.
        let bits = unsafe { (&raw const *pair).cast::<u32>().read() };
        let value = f32::from_bits(if upper { bits & 0xffff_0000 } else { bits << 16 });
        *sum = *sum + weight * R::from_f64(value.into());
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
            let bytes = unsafe { std::slice::from_raw_parts(mask.as_ptr().offset(from), bias.len()) };
            for (bias, &byte) in bias.iter_mut().zip(bytes) {
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
                    let vector = gather(cpu, from, operand.column, bias.len());
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
