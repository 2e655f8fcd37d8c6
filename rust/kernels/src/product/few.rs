//! Few rows times a weight whose rows are contiguous: bound by reading the weight, so it is read once, where it is, in the
//! order in which it lies in memory.
//!
//! The weight is cut into strips of whole rows, or of rows of at most [`WIDTH`] columns, about [`STRIP`] bytes each.
//! Threads take strips; a strip gives a partial sum for each row of the tensor, and the partial sums are added in the order
//! of the strips. Strips depend on shapes alone, and so do the bits.

use std::ops::Range;

use super::operands::{InOut, MatMul, blocks};
use crate::Result;
use crate::arch::{Cpu, Element, Lanes, Level, Real, Task, Vector};
use crate::buffer::{Buffer, append, collected, reserved};
use crate::parallel;
use crate::view::{Rows, RowsMut};

/// Up to this many rows of the tensor this is no slower than packing the weight: of [4096, 4096] float32, on two threads of
/// a Granite Rapids, one row takes 1.4 ms, four 2.3 and eight 3.8, and nine, packed, 3.9.
pub(super) const ROWS: usize = 8;
/// Columns of a strip: partial sums of 64 KiB (float32) stay in the second-level cache.
const WIDTH: usize = 16384;
/// Bytes of weight in a strip.
const STRIP: usize = 2 << 20;
/// Rows of the weight that are read beside each other, so that a partial sum is loaded and stored once for all of them.
const TOGETHER: usize = 4;
/// Rows of the tensor that are multiplied beside each other, so that a vector of the weight is loaded once for them.
const PAIR: usize = 2;
/// Columns of the result that are put together at a time.
const CHUNK: usize = 512;

pub(super) fn run<T: Element>(
    product: &MatMul<'_, T>,
    level: Level,
    is_parallel: bool,
    operands: Vec<InOut<'_, T>>,
) -> Result<()> {
    let MatMul { weight, bias, shards } = *product;
    let rows: usize = operands.iter().map(|(tensor, _)| tensor.count()).sum();
    // Every range of columns with all of the depth, strip by strip.
    let depths = |width: usize| {
        let height = (STRIP / (width * size_of::<T>())).max(TOGETHER);
        shards.iter().flat_map(move |shard| blocks(shard.clone(), height))
    };
    let cuts = blocks(0..weight.columns(), WIDTH)
        .flat_map(|columns| depths(columns.len()).map(move |depth| (columns.clone(), depth)));
    let sizes = cuts.clone().map(|(columns, _)| rows.saturating_mul(columns.len()));
    let mut memory = Buffer::zeroed(sizes.fold(0, usize::saturating_add))?;
    let mut rest = &mut memory[..];
    let mut strips = reserved(cuts.clone().count())?;
    for (columns, depth) in cuts {
        let sums = rest.split_off_mut(..rows * columns.len()).expect("room for all strips");
        strips.push(Strip { columns, depth, sums });
    }
    let chunks = collected(blocks(0..weight.columns(), WIDTH).flat_map(|columns| blocks(columns, CHUNK)))?;
    let tensor = product.packed(level, &operands)?;
    let mut parts = Vec::new();
    for (_, out) in operands {
        let each = collected((0..out.count()).map(|row| row..row + 1))?;
        append(&mut parts, out.cut(&each, &chunks)?.into_iter())?;
    }

    let depth = weight.count();
    parallel::for_each_mut(&mut strips, is_parallel, |_, strip| {
        level.run(StripProduct { tensor: &tensor, depth, weight, strip })
    });
    parallel::for_each_mut(&mut parts, is_parallel, |index, out| {
        let (row, columns) = (index / chunks.len(), chunks[index % chunks.len()].clone());
        level.run(Reduce { strips: &strips, row, columns, bias, out });
    });
    Ok(())
}

/// Some rows of some columns of the weight, and `[row of the tensor][column]` its partial sums.
struct Strip<'a, R> {
    columns: Range<usize>,
    depth: Range<usize>,
    sums: &'a mut [R],
}

/// The partial sums of a strip.
struct StripProduct<'a, 'b, T: Element> {
    /// `[row][depth]`.
    tensor: &'a [T::Real],
    depth: usize,
    weight: Rows<'a, T>,
    strip: &'a mut Strip<'b, T::Real>,
}

impl<T: Element> Task for StripProduct<'_, '_, T> {
    type Output = ();

    #[inline(always)]
    fn run<C: Cpu>(mut self, cpu: C) {
        let Range { start, end } = self.strip.depth;
        let rows = self.tensor.len() / self.depth;
        let mut at = start;
        while at < end {
            let together = end - at >= TOGETHER;
            for row in (0..rows).step_by(PAIR) {
                match (rows - row >= PAIR, together) {
                    (true, true) => self.add::<C, PAIR, TOGETHER>(cpu, row, at),
                    (true, false) => self.add::<C, PAIR, 1>(cpu, row, at),
                    (false, true) => self.add::<C, 1, TOGETHER>(cpu, row, at),
                    (false, false) => self.add::<C, 1, 1>(cpu, row, at),
                }
            }
            at += if together { TOGETHER } else { 1 };
        }
    }
}

impl<T: Element> StripProduct<'_, '_, T> {
    /// Adds the products of `K` rows of the weight from `depth` on with their elements of `R` rows of the tensor, to
    /// nothing where the strip begins.
    #[inline(always)]
    fn add<C: Cpu, const R: usize, const K: usize>(&mut self, cpu: C, row: usize, depth: usize) {
        let lanes = T::Real::lanes(cpu);
        let (n, zero) = (<T::Real as Real>::Lanes::<C>::N, lanes.splat(T::Real::ZERO));
        let fresh = depth == self.strip.depth.start;
        let part = self.weight.part(depth..depth + K, self.strip.columns.clone());
        assert!(part.is_contiguous());
        let (mut factors, mut lines) = ([[zero; K]; R], [std::ptr::null(); K]);
        for (index, line) in lines.iter_mut().enumerate() {
            *line = part.row(index);
        }
        for (index, factors) in factors.iter_mut().enumerate() {
            for (step, factor) in factors.iter_mut().enumerate() {
                *factor = lanes.splat(self.tensor[(row + index) * self.depth + depth + step]);
            }
        }
        let width = part.columns();
        let sums = self.strip.sums[row * width..][..R * width].as_mut_ptr();
        let whole = width - width % n;
        for column in (0..whole).step_by(n) {
            // SAFETY: the sums have `R` rows of `width`, and the rows of the weight, which `row` has checked, are as wide.
            unsafe {
                let mut totals = [zero; R];
                if !fresh {
                    for (index, total) in totals.iter_mut().enumerate() {
                        *total = lanes.load(sums.add(index * width + column));
                    }
                }
                for step in 0..K {
                    let weight = T::load(cpu, lines[step].add(column));
                    for index in 0..R {
                        totals[index] = lanes.fma(factors[index][step], weight, totals[index]);
                    }
                }
                for (index, &total) in totals.iter().enumerate() {
                    lanes.store(sums.add(index * width + column), total);
                }
            }
        }
        if whole < width {
            let left = width - whole;
            // SAFETY: as above, for the columns that are left.
            unsafe {
                for (index, factors) in factors.iter().enumerate() {
                    let sum = sums.add(index * width + whole);
                    let mut total = if fresh { zero } else { lanes.load_first(sum, left) };
                    for (&factor, line) in factors.iter().zip(&lines) {
                        total = lanes.fma(factor, T::load_first(cpu, line.add(whole), left), total);
                    }
                    lanes.store_first(sum, left, total);
                }
            }
        }
    }
}

/// Some columns of a row of the result: the partial sums of the strips that have them, and the bias.
struct Reduce<'a, 'b, T: Element> {
    strips: &'a [Strip<'a, T::Real>],
    row: usize,
    columns: Range<usize>,
    bias: Option<Rows<'a, T>>,
    out: &'a mut RowsMut<'b, T>,
}

impl<T: Element> Task for Reduce<'_, '_, T> {
    type Output = ();

    #[inline(always)]
    fn run<C: Cpu>(self, cpu: C) {
        let lanes = T::Real::lanes(cpu);
        let n = <T::Real as Real>::Lanes::<C>::N;
        // No chunk straddles two ranges of columns.
        let has = |strip: &&Strip<'_, T::Real>| {
            strip.columns.start <= self.columns.start && self.columns.end <= strip.columns.end
        };
        let first = self.strips.iter().position(|strip| has(&strip)).unwrap_or(self.strips.len());
        let mut total = [T::Real::ZERO; CHUNK];
        for (column, total) in (0..self.columns.len()).step_by(n).zip(total.chunks_exact_mut(n)) {
            let count = n.min(self.columns.len() - column);
            let mut sum: Vector<C, T::Real> = lanes.splat(T::Real::ZERO);
            for strip in self.strips[first..].iter().take_while(has) {
                let start = self.row * strip.columns.len() + self.columns.start - strip.columns.start + column;
                let part = &strip.sums[start..][..count];
                // SAFETY: so many sums are there.
                sum = lanes.add(sum, unsafe { lanes.load_first(part.as_ptr(), count) });
            }
            // SAFETY: a whole vector.
            unsafe { lanes.store(total.as_mut_ptr(), sum) };
        }
        for (index, &sum) in total.iter().enumerate().take(self.columns.len()) {
            let bias = self.bias.map(|bias| bias.get(0, self.columns.start + index).to_real());
            self.out.set(0, index, T::from_real(bias.map_or(sum, |bias| sum + bias)));
        }
    }
}
