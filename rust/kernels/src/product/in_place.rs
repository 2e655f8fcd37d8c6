//! Products of attention for few rows: too few to pay for packing keys and values, which are read where they are.

use super::pack::{padded, strided};
use super::tile::ROWS;
use crate::arch::{Cpu, Element, Lanes, Real, Task, Vector};
use crate::view::Rows;

/// Rows of keys or values that are asked for ahead: the CPU's own prefetching ends at every page.
const AHEAD: isize = 16;

/// `scale` times the product of each of `rows` queries, `[row][d]`, and each of `count` keys from row `start` on, into
/// `out`, whose rows are `out_row` apart. Panics if there are more than [`ROWS`] rows or a slice is too short.
#[derive(Debug)]
pub(crate) struct InPlaceScores<'a, T: Element> {
    pub(crate) rows: usize,
    pub(crate) queries: &'a [T::Real],
    pub(crate) keys: &'a Rows<'a, T>,
    pub(crate) start: usize,
    pub(crate) count: usize,
    pub(crate) scale: T::Real,
    pub(crate) out: &'a mut [T::Real],
    pub(crate) out_row: usize,
}

impl<T: Element> InPlaceScores<'_, T> {
    #[inline(always)]
    fn rows<C: Cpu, const RUN: usize>(self, cpu: C) {
        let lanes = T::Real::lanes(cpu);
        let (n, d) = (<T::Real as Real>::Lanes::<C>::N, self.keys.columns());
        assert!(self.queries.len() >= RUN * d && self.out.len() >= (RUN - 1) * self.out_row + self.count);
        let zero = lanes.splat(T::Real::ZERO);
        for key in 0..self.count {
            let from = self.keys.row(self.start + key);
            let ahead = from.wrapping_offset(AHEAD * self.keys.row_stride());
            let mut sums = [zero; RUN];
            for column in (0..d).step_by(n) {
                cpu.prefetch(ahead.wrapping_offset(column as isize * self.keys.column_stride()));
                let count = (d - column).min(n);
                // SAFETY: `row` has checked the key; at most the columns that are left are read, of it and of the queries,
                // which were asserted to have them.
                unsafe {
                    let from = from.wrapping_offset(column as isize * self.keys.column_stride());
                    let key = strided(cpu, from, self.keys.column_stride(), count);
                    for (row, sum) in sums.iter_mut().enumerate() {
                        let query = self.queries.as_ptr().add(row * d + column);
                        let query = if count == n { lanes.load(query) } else { lanes.load_first(query, count) };
                        *sum = lanes.fma(query, key, *sum);
                    }
                }
            }
            for (row, &sum) in sums.iter().enumerate() {
                self.out[row * self.out_row + key] = self.scale * lanes.sum(sum);
            }
        }
    }
}

impl<T: Element> Task for InPlaceScores<'_, T> {
    type Output = ();

    #[inline(always)]
    fn run<C: Cpu>(self, cpu: C) {
        assert!(self.rows <= ROWS);
        match self.rows {
            0 => {}
            1 => self.rows::<C, 1>(cpu),
            2 => self.rows::<C, 2>(cpu),
            3 => self.rows::<C, 3>(cpu),
            4 => self.rows::<C, 4>(cpu),
            5 => self.rows::<C, 5>(cpu),
            _ => self.rows::<C, ROWS>(cpu),
        }
    }
}

/// Multiplies each of `rows` rows of `output`, `width` apart, by its factor and adds `count` values from row `start` on,
/// whose columns are neighbours, weighted. Says whether all sums are finite; if not the output is as it was. Panics if
/// there are more than [`ROWS`] rows or a slice is too short.
#[derive(Debug)]
pub(crate) struct InPlaceSums<'a, T: Element> {
    pub(crate) rows: usize,
    /// The weight of each value, `weights_row` from one row to the next.
    pub(crate) weights: &'a [T::Real],
    pub(crate) weights_row: usize,
    pub(crate) values: &'a Rows<'a, T>,
    pub(crate) start: usize,
    pub(crate) count: usize,
    pub(crate) factors: [T::Real; ROWS],
    pub(crate) output: &'a mut [T::Real],
    /// As long as the rows of the output.
    pub(crate) scratch: &'a mut [T::Real],
}

impl<T: Element> InPlaceSums<'_, T> {
    #[inline(always)]
    fn rows<C: Cpu, const RUN: usize>(mut self, cpu: C) -> bool {
        let lanes = T::Real::lanes(cpu);
        let n = <T::Real as Real>::Lanes::<C>::N;
        let width = padded::<C, T::Real>(self.values.columns());
        assert!(self.values.column_stride() == 1 && self.weights.len() >= (RUN - 1) * self.weights_row + self.count);
        assert!(self.output.len() >= RUN * width && self.scratch.len() >= RUN * width);
        let whole = self.values.columns() - self.values.columns() % n;
        let mut column = 0;
        // SAFETY: these columns are among the values', and weights, output and scratch were asserted to have theirs.
        let mut trace = unsafe {
            let mut trace = lanes.splat(T::Real::ZERO);
            while column + 4 * n <= whole {
                trace = lanes.add(trace, self.columns::<C, RUN, 4>(cpu, column, n, width));
                column += 4 * n;
            }
            while column < whole {
                trace = lanes.add(trace, self.columns::<C, RUN, 1>(cpu, column, n, width));
                column += n;
            }
            trace
        };
        if column < self.values.columns() {
            // SAFETY: as above, with the columns that are left.
            let last = unsafe { self.columns::<C, RUN, 1>(cpu, column, self.values.columns() - column, width) };
            trace = lanes.add(trace, last);
        }
        let is_finite = lanes.sum(trace) == T::Real::ZERO;
        if is_finite {
            self.output[..RUN * width].copy_from_slice(&self.scratch[..RUN * width]);
        }
        is_finite
    }

    /// The sums of `VECTORS` whole vectors of columns, or of the first `count` columns of one, into the scratch. Gives 0 in
    /// every lane if all of them are finite.
    ///
    /// # Safety
    /// The values have these columns, next to each other, and weights, output and scratch have what was asserted.
    #[inline(always)]
    unsafe fn columns<C: Cpu, const RUN: usize, const VECTORS: usize>(
        &mut self,
        cpu: C,
        column: usize,
        count: usize,
        width: usize,
    ) -> Vector<C, T::Real> {
        let lanes = T::Real::lanes(cpu);
        let n = <T::Real as Real>::Lanes::<C>::N;
        let zero = lanes.splat(T::Real::ZERO);
        let mut sums = [[zero; VECTORS]; RUN];
        for value in 0..self.count {
            let from = self.values.row(self.start + value);
            let from = from.wrapping_add(column);
            let ahead = from.wrapping_offset(AHEAD * self.values.row_stride());
            let mut vectors = [zero; VECTORS];
            for (index, vector) in vectors.iter_mut().enumerate() {
                cpu.prefetch(ahead.wrapping_add(index * n));
                // SAFETY: `row` has checked the row, and the caller promises the columns.
                *vector = unsafe {
                    if count == n { T::load(cpu, from.add(index * n)) } else { T::load_first(cpu, from, count) }
                };
            }
            for (row, sums) in sums.iter_mut().enumerate() {
                // SAFETY: the weights were asserted to be there.
                let weight = lanes.splat(unsafe { *self.weights.as_ptr().add(row * self.weights_row + value) });
                for index in 0..VECTORS {
                    sums[index] = lanes.fma(weight, vectors[index], sums[index]);
                }
            }
        }
        let mut trace = zero;
        for (row, sums) in sums.iter().enumerate() {
            let factor = lanes.splat(self.factors[row]);
            for (index, &sum) in sums.iter().enumerate() {
                let at = row * width + column + index * n;
                // SAFETY: output and scratch were asserted to have whole vectors of each row.
                unsafe {
                    let sum = lanes.fma(lanes.load(self.output.as_ptr().add(at)), factor, sum);
                    trace = lanes.fma(sum, zero, trace);
                    lanes.store(self.scratch.as_mut_ptr().add(at), sum);
                }
            }
        }
        trace
    }
}

impl<T: Element> Task for InPlaceSums<'_, T> {
    type Output = bool;

    #[inline(always)]
    fn run<C: Cpu>(self, cpu: C) -> bool {
        assert!(self.rows <= ROWS);
        match self.rows {
            0 => true,
            1 => self.rows::<C, 1>(cpu),
            2 => self.rows::<C, 2>(cpu),
            3 => self.rows::<C, 3>(cpu),
            4 => self.rows::<C, 4>(cpu),
            5 => self.rows::<C, 5>(cpu),
            _ => self.rows::<C, ROWS>(cpu),
        }
    }
}
