//! Scores of few rows: too few to pay for packing the keys, which are read where they are.

use super::pack::{Rows, gather};
use super::product::ROWS;
use crate::arch::{Cpu, Element, Lanes, Real, Task};

/// `scale` times the product of each of `rows` queries, `[row][d]`, and each of `count` keys from row `start` on, into
/// `out`, whose rows are `out_row` apart. Panics if there are more than [`ROWS`] rows or a slice is too short.
#[derive(Debug)]
pub(super) struct Dots<'a, T: Element> {
    pub(super) rows: usize,
    pub(super) queries: &'a [T::Real],
    pub(super) keys: &'a Rows<T>,
    pub(super) start: usize,
    pub(super) count: usize,
    pub(super) scale: T::Real,
    pub(super) out: &'a mut [T::Real],
    pub(super) out_row: usize,
}

impl<T: Element> Dots<'_, T> {
    /// # Safety
    /// The keys have these rows; there are `RUN` rows.
    #[inline(always)]
    unsafe fn rows<C: Cpu, const RUN: usize>(self, cpu: C) {
        let lanes = T::Real::lanes(cpu);
        let (n, d) = (<T::Real as Real>::Lanes::<C>::N, self.keys.columns);
        assert!(self.queries.len() >= RUN * d && self.out.len() >= (RUN - 1) * self.out_row + self.count);
        let zero = lanes.splat(T::Real::ZERO);
        for key in 0..self.count {
            let from = self.keys.first.wrapping_offset((self.start + key) as isize * self.keys.row);
            let mut sums = [zero; RUN];
            for column in (0..d).step_by(n) {
                let count = (d - column).min(n);
                // SAFETY: the caller promises the key; at most the columns that are left are read, of it and of the
                // queries, which were asserted to have them.
                unsafe {
                    let from = from.wrapping_offset(column as isize * self.keys.column);
                    let key = gather(cpu, from, self.keys.column, count);
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

impl<T: Element> Task for Dots<'_, T> {
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
