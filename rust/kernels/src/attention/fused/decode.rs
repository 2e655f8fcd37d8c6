//! Few rows: too few to pay for packing keys and values, which are read where they are.

use super::pack::padded;
use crate::arch::{Cpu, Element, Lanes, Real, Task, Vector};
use crate::product::{ROWS, strided};
use crate::view::Rows;

/// Rows of keys or values that are asked for ahead: the CPU's own prefetching ends at every page.
const AHEAD: isize = 16;

/// `scale` times the product of each of `rows` queries, `[row][d]`, and each of `count` keys from row `start` on, into
/// `out`, whose rows are `out_row` apart. Panics if there are more than [`ROWS`] rows or a slice is too short.
#[derive(Debug)]
pub(super) struct DotScores<'a, T: Element> {
    pub(super) rows: usize,
    pub(super) queries: &'a [T::Real],
    pub(super) keys: &'a Rows<'a, T>,
    pub(super) start: usize,
    pub(super) count: usize,
    pub(super) scale: T::Real,
    pub(super) out: &'a mut [T::Real],
    pub(super) out_row: usize,
}

impl<T: Element> DotScores<'_, T> {
    /// # Safety
    /// The keys have these rows; there are `RUN` rows.
    #[inline(always)]
    unsafe fn rows<C: Cpu, const RUN: usize>(self, cpu: C) {
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
                // SAFETY: the caller promises the key; at most the columns that are left are read, of it and of the
                // queries, which were asserted to have them.
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

impl<T: Element> Task for DotScores<'_, T> {
    type Output = ();

    #[inline(always)]
    fn run<C: Cpu>(self, cpu: C) {
        assert!(self.rows <= ROWS);
        // SAFETY: made by `Work::score` for keys of the problem, and for the number of rows that is matched.
        unsafe {
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
}

/// Multiplies each of `rows` rows of `output`, `width` apart, by its factor and adds `count` values from row `start` on,
/// whose columns are neighbours, weighted. Says whether all sums are finite; if not the output is as it was. Panics if
/// there are more than [`ROWS`] rows or a slice is too short.
#[derive(Debug)]
pub(super) struct Weighted<'a, T: Element> {
    pub(super) rows: usize,
    /// The weight of each value, `weights_row` from one row to the next.
    pub(super) weights: &'a [T::Real],
    pub(super) weights_row: usize,
    pub(super) values: &'a Rows<'a, T>,
    pub(super) start: usize,
    pub(super) count: usize,
    pub(super) factors: [T::Real; ROWS],
    pub(super) output: &'a mut [T::Real],
    /// As long as the rows of the output.
    pub(super) scratch: &'a mut [T::Real],
}

impl<T: Element> Weighted<'_, T> {
    /// # Safety
    /// The values have these rows; there are `RUN` rows.
    #[inline(always)]
    unsafe fn rows<C: Cpu, const RUN: usize>(mut self, cpu: C) -> bool {
        let lanes = T::Real::lanes(cpu);
        let n = <T::Real as Real>::Lanes::<C>::N;
        let width = padded::<C, T::Real>(self.values.columns());
        assert!(self.values.column_stride() == 1 && self.weights.len() >= (RUN - 1) * self.weights_row + self.count);
        assert!(self.output.len() >= RUN * width && self.scratch.len() >= RUN * width);
        let whole = self.values.columns() - self.values.columns() % n;
        let mut column = 0;
        // SAFETY: the caller promises the rows; these columns are among theirs, and those of the output and the scratch.
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
    /// The values have these rows and columns, and weights, output and scratch were asserted to have theirs.
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
                // SAFETY: the caller promises the row and the columns.
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

impl<T: Element> Task for Weighted<'_, T> {
    type Output = bool;

    #[inline(always)]
    fn run<C: Cpu>(self, cpu: C) -> bool {
        assert!(self.rows <= ROWS);
        // SAFETY: made by `Work::add_own_values` for values of the problem, and for the number of rows that is
        // matched.
        unsafe {
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
}
