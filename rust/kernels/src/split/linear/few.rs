//! Few rows times a weight: bound by reading the weight, so it is read once, in the order in which it lies in memory.
//!
//! The weight is cut into bands of whole rows, or of rows of at most [`WIDTH`] columns, about [`BAND`] bytes each.
//! Threads take bands; a band gives a partial sum for each row of the tensor, and the partial sums are added in the order
//! of the bands. Bands depend on shapes alone, and so do the bits. Column shards are nothing to bands: no column of the
//! result knows the others, and half a row of the weight is read more slowly than a whole one.

use std::ops::Range;

use super::{Operands, blocks};
use crate::arch::{Cpu, Element, Lanes, Level, Real, Task, Vector};
use crate::parallel;

/// Up to this many rows of the tensor this is faster than `gemm`: 4 ms for one row of [4096, 4096] float32 and 0.75 ms for
/// each more, against 11 ms for five and 14 ms for eight.
pub(super) const ROWS: usize = 8;
/// Columns of a band: partial sums of 64 KiB (float32) stay in the second-level cache.
const WIDTH: usize = 16384;
/// Bytes of weight in a band.
const BAND: usize = 2 << 20;
/// Rows of the weight that are read beside each other, so that a partial sum is loaded and stored once for all of them.
const TOGETHER: usize = 4;
/// Columns of the result that are put together at a time.
const CHUNK: usize = 512;

/// Where the rows and columns of the operands are.
pub(super) struct Layer<'a, T> {
    pub operands: Operands<T>,
    /// Where each row starts in the tensor and in the result; at most [`ROWS`].
    pub rows: &'a [(isize, isize)],
    pub tensor_column: isize,
    /// From a row of the weight to the next one; its columns lie beside each other.
    pub weight_row: isize,
    pub bias_step: isize,
    pub out_column: isize,
    pub columns: usize,
    pub depths: &'a [Range<usize>],
}

/// Some rows of some columns of the weight, and where its partial sums start.
struct Band {
    columns: Range<usize>,
    depth: Range<usize>,
    sums: usize,
}

impl<T: Element> Layer<'_, T> {
    /// Computes the result.
    ///
    /// # Safety
    /// The operands must be readable, and the result writeable and shared with nothing else, at all rows, columns and
    /// depths.
    pub(super) unsafe fn run(&self, level: Level, parallel: bool) {
        let rows = self.rows.len();
        let mut bands = Vec::new();
        let mut chunks = Vec::new();
        let mut sums = 0;
        for columns in blocks(0..self.columns, WIDTH) {
            let height = (BAND / (columns.len() * size_of::<T>())).max(TOGETHER);
            let first = bands.len();
            for depth in self.depths.iter().flat_map(|shard| blocks(shard.clone(), height)) {
                bands.push(Band { columns: columns.clone(), depth, sums });
                sums += rows * columns.len();
            }
            let above = first..bands.len();
            chunks.extend(blocks(columns.clone(), CHUNK).map(|chunk| (chunk, above.clone())));
        }
        let mut memory = vec![T::Real::ZERO; sums];
        let partial = Partial(memory.as_mut_ptr());
        parallel::for_each(bands.len(), parallel, |index| {
            let band = &bands[index];
            // SAFETY: within `partial`, where no other band has its sums.
            let sums = unsafe { partial.at(band.sums) };
            level.run(Multiply { layer: self, band, sums });
        });
        parallel::for_each(chunks.len(), parallel, |index| {
            let (columns, above) = &chunks[index];
            level.run(Gather { layer: self, columns: columns.clone(), bands: &bands[above.clone()], partial });
        });
    }
}

/// The partial sums of all bands.
#[derive(Clone, Copy)]
struct Partial<R>(*mut R);
// SAFETY: bands write each their own part, and what reads comes after all of them.
unsafe impl<R: Real> Sync for Partial<R> {}
// SAFETY: as above.
unsafe impl<R: Real> Send for Partial<R> {}

impl<R> Partial<R> {
    /// # Safety
    /// There must be an element.
    unsafe fn at(self, index: usize) -> *mut R {
        // SAFETY: the caller's promise.
        unsafe { self.0.add(index) }
    }
}

/// The partial sums of a band: those of row r start r times its columns behind `sums`.
struct Multiply<'a, 'b, T: Element> {
    layer: &'a Layer<'b, T>,
    band: &'a Band,
    sums: *mut T::Real,
}

impl<T: Element> Task for Multiply<'_, '_, T> {
    type Output = ();

    #[inline(always)]
    fn run<C: Cpu>(self, cpu: C) {
        let Band { columns, depth, .. } = self.band;
        let mut at = depth.start;
        while at < depth.end {
            let together = depth.end - at >= TOGETHER;
            for row in 0..self.layer.rows.len() {
                let fresh = at == depth.start;
                // SAFETY: the rows at `at`, and TOGETHER of them where as many are left, are within the band.
                unsafe {
                    let sums = self.sums.add(row * columns.len());
                    if together {
                        self.add::<C, TOGETHER>(cpu, row, at, sums, fresh);
                    } else {
                        self.add::<C, 1>(cpu, row, at, sums, fresh);
                    }
                }
            }
            at += if together { TOGETHER } else { 1 };
        }
    }
}

impl<T: Element> Multiply<'_, '_, T> {
    /// Adds the products of `K` rows of the weight from `depth` on with their elements of a row of the tensor; `fresh`:
    /// to nothing.
    ///
    /// # Safety
    /// Those rows must be within the band, and `sums` as long as they are.
    #[inline(always)]
    unsafe fn add<C: Cpu, const K: usize>(&self, cpu: C, row: usize, depth: usize, sums: *mut T::Real, fresh: bool) {
        let Layer { operands, rows, tensor_column, weight_row, .. } = self.layer;
        let lanes = T::Real::lanes(cpu);
        let n = <T::Real as Real>::Lanes::<C>::N;
        let mut factors = [lanes.splat(T::Real::ZERO); K];
        let width = self.band.columns.len();
        // SAFETY: the caller's promise, and columns below `width`.
        unsafe {
            let tensor = operands.tensor.offset(rows[row].0 + depth as isize * tensor_column);
            for (index, factor) in factors.iter_mut().enumerate() {
                *factor = lanes.splat((*tensor.offset(index as isize * tensor_column)).to_real());
            }
            let weight = operands.weight.offset(depth as isize * weight_row).add(self.band.columns.start);
            let whole = width / n * n;
            for column in (0..whole).step_by(n) {
                let mut total = if fresh { lanes.splat(T::Real::ZERO) } else { lanes.load(sums.add(column)) };
                for (index, factor) in factors.iter().enumerate() {
                    let line = weight.offset(index as isize * weight_row).add(column);
                    total = lanes.fma(*factor, T::load(cpu, line), total);
                }
                lanes.store(sums.add(column), total);
            }
            if whole < width {
                let (column, left) = (whole, width - whole);
                let mut total = lanes.load_first(sums.add(column), left);
                if fresh {
                    total = lanes.splat(T::Real::ZERO);
                }
                for (index, factor) in factors.iter().enumerate() {
                    let line = weight.offset(index as isize * weight_row).add(column);
                    total = lanes.fma(*factor, T::load_first(cpu, line, left), total);
                }
                lanes.store_first(sums.add(column), left, total);
            }
        }
    }
}

/// Some columns of the result: the partial sums of the bands that have them, and the bias.
struct Gather<'a, 'b, T: Element> {
    layer: &'a Layer<'b, T>,
    columns: Range<usize>,
    bands: &'a [Band],
    partial: Partial<T::Real>,
}

impl<T: Element> Task for Gather<'_, '_, T> {
    type Output = ();

    #[inline(always)]
    fn run<C: Cpu>(self, cpu: C) {
        let Layer { operands, rows, bias_step, out_column, .. } = self.layer;
        let lanes = T::Real::lanes(cpu);
        let n = <T::Real as Real>::Lanes::<C>::N;
        let mut total = [T::Real::ZERO; CHUNK];
        for (row, (_, out)) in rows.iter().enumerate() {
            for column in (0..self.columns.len()).step_by(n) {
                let count = n.min(self.columns.len() - column);
                let mut sum: Vector<C, T::Real> = lanes.splat(T::Real::ZERO);
                // SAFETY: a band has rows × its columns sums, of which these columns are a part; a chunk has at most
                // CHUNK columns.
                unsafe {
                    for band in self.bands {
                        let start = row * band.columns.len() + self.columns.start - band.columns.start + column;
                        sum = lanes.add(sum, lanes.load_first(self.partial.at(band.sums + start), count));
                    }
                    lanes.store_first(total.as_mut_ptr().add(column), count, sum);
                }
            }
            for (column, &sum) in self.columns.clone().zip(&total) {
                // SAFETY: the caller of `Layer::run` promised the bias and the result at this row and column.
                unsafe {
                    let bias = operands.bias.map(|bias| (*bias.offset(column as isize * bias_step)).to_real());
                    let sum = bias.map_or(sum, |bias| sum + bias);
                    *operands.out.offset(out + column as isize * out_column) = T::from_real(sum);
                }
            }
        }
    }
}
