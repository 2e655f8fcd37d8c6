//! Few rows times a weight whose columns are contiguous (a transposed one, as PyTorch keeps it): dot products of rows and
//! columns where they are. Turning the columns into panels takes as long for one row as for many.

use std::ops::Range;

use super::operands::{InOut, MatMul};
use crate::Result;
use crate::arch::{Cpu, Element, Lanes, Level, Real, Task};
use crate::buffer::append;
use crate::parallel;
use crate::view::{Rows, RowsMut, steps};

/// Up to this many rows of the tensor this is faster than packing the weight.
pub(super) const ROWS: usize = 32;
/// Columns of the result that a thread takes at a time.
const BLOCK: usize = 32;
/// Rows that are multiplied beside each other.
const TALL: usize = 4;

pub(super) fn run<T: Element>(
    product: &MatMul<'_, T>,
    level: Level,
    is_parallel: bool,
    operands: Vec<InOut<'_, T>>,
) -> Result<()> {
    let MatMul { weight, bias, shards } = *product;
    let (depth, columns) = (weight.count(), steps(weight.columns(), BLOCK)?);
    let tensor = product.packed(level, &operands)?;
    let mut blocks = Vec::new();
    let mut first = 0;
    for (_, out) in operands {
        let count = out.count();
        let rows = &tensor[first * depth..][..count * depth];
        let parts = out.cut(std::slice::from_ref(&(0..count)), &columns)?;
        append(&mut blocks, parts.into_iter().zip(&columns).map(|(out, columns)| (rows, columns, out)))?;
        first += count;
    }
    parallel::for_each_mut(&mut blocks, is_parallel, |_, (tensor, columns, out)| {
        let turned = weight.part(0..depth, columns.clone()).transposed();
        let bias = bias.map(|bias| bias.part(0..1, columns.clone()));
        level.run(DotBlock { tensor: Rows::of(tensor, out.count(), depth), turned, bias, shards, out });
    });
    Ok(())
}

/// Some columns of the result.
struct DotBlock<'a, 'b, T: Element> {
    tensor: Rows<'a, T::Real>,
    /// `[column][depth]`.
    turned: Rows<'a, T>,
    bias: Option<Rows<'a, T>>,
    shards: &'a [Range<usize>],
    out: &'a mut RowsMut<'b, T>,
}

impl<T: Element> Task for DotBlock<'_, '_, T> {
    type Output = ();

    #[inline(always)]
    fn run<C: Cpu>(mut self, cpu: C) {
        let mut column = 0;
        while column < self.turned.count() {
            // The sums of four rows and as many columns as leave registers for their operands.
            let left = self.turned.count() - column;
            column += match (left, C::REGISTERS) {
                (4.., 32..) => self.columns::<C, 4>(cpu, column),
                (2.., _) => self.columns::<C, 2>(cpu, column),
                _ => self.columns::<C, 1>(cpu, column),
            };
        }
    }
}

impl<T: Element> DotBlock<'_, '_, T> {
    #[inline(always)]
    fn columns<C: Cpu, const WIDE: usize>(&mut self, cpu: C, column: usize) -> usize {
        let mut row = 0;
        while row < self.tensor.count() {
            row += if self.tensor.count() - row >= TALL {
                self.block::<C, TALL, WIDE>(cpu, row, column)
            } else {
                self.block::<C, 1, WIDE>(cpu, row, column)
            };
        }
        WIDE
    }

    #[inline(always)]
    fn block<C: Cpu, const HIGH: usize, const WIDE: usize>(&mut self, cpu: C, row: usize, column: usize) -> usize {
        let lanes = T::Real::lanes(cpu);
        let (n, zero) = (<T::Real as Real>::Lanes::<C>::N, lanes.splat(T::Real::ZERO));
        assert!(self.turned.is_contiguous() && self.tensor.columns() == self.turned.columns());
        let mut totals = [[T::Real::ZERO; WIDE]; HIGH];
        for shard in self.shards {
            let (mut a, mut b) = ([std::ptr::null(); HIGH], [std::ptr::null(); WIDE]);
            let (tensor, turned) = (
                self.tensor.part(row..row + HIGH, shard.clone()),
                self.turned.part(column..column + WIDE, shard.clone()),
            );
            for (index, a) in a.iter_mut().enumerate() {
                *a = tensor.row(index);
            }
            for (index, b) in b.iter_mut().enumerate() {
                *b = turned.row(index);
            }
            let mut sums = [[zero; WIDE]; HIGH];
            let whole = shard.len() - shard.len() % n;
            for at in (0..whole).step_by(n) {
                // SAFETY: `row` has checked the rows, which have so many elements beside each other.
                unsafe {
                    let mut columns = [zero; WIDE];
                    for index in 0..WIDE {
                        columns[index] = T::load(cpu, b[index].add(at));
                    }
                    for row in 0..HIGH {
                        let factor = lanes.load(a[row].add(at));
                        for index in 0..WIDE {
                            sums[row][index] = lanes.fma(factor, columns[index], sums[row][index]);
                        }
                    }
                }
            }
            if whole < shard.len() {
                let left = shard.len() - whole;
                // SAFETY: as above, for the elements that are left.
                unsafe {
                    for (sums, a) in sums.iter_mut().zip(&a) {
                        let factor = lanes.load_first(a.add(whole), left);
                        for (sum, b) in sums.iter_mut().zip(&b) {
                            *sum = lanes.fma(factor, T::load_first(cpu, b.add(whole), left), *sum);
                        }
                    }
                }
            }
            for (totals, sums) in totals.iter_mut().zip(&sums) {
                for (total, &sum) in totals.iter_mut().zip(sums) {
                    *total = *total + lanes.sum(sum);
                }
            }
        }
        for (index, totals) in totals.iter().enumerate() {
            for (place, &total) in (column..).zip(totals) {
                let bias = self.bias.map(|bias| bias.get(0, place).to_real());
                self.out.set(row + index, place, T::from_real(bias.map_or(total, |bias| total + bias)));
            }
        }
        HIGH
    }
}
