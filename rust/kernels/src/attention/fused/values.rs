//! Values of a tile, weighted and added.

use std::ops::Range;

use super::pack::{Block, KEYS};
use super::work::Work;
use crate::arch::{Cpu, Element, Lanes, Real};
use crate::product::{InPlaceSums, Onto, Product, ROWS, Shape, padded};
use crate::view::Rows;

impl<T: Element> Work<'_, T> {
    /// As [`Work::add_values`], for few rows whose values are read where they are: if they can be, and if all sums are
    /// finite. Otherwise nothing has been added.
    #[inline(always)]
    pub(super) fn add_in_place<C: Cpu>(
        &mut self,
        cpu: C,
        values: &Rows<'_, T>,
        start: usize,
        at: usize,
        factors: [T::Real; ROWS],
    ) -> bool {
        let tile = 0..self.rows.len();
        let keys = self.tile_keys(tile.clone(), start);
        values.column_stride() == 1
            && cpu.run(InPlaceSums {
                rows: tile.len(),
                weights: &self.scores[at + keys.start..],
                weights_row: self.stride,
                values,
                start: start + keys.start,
                count: keys.len(),
                factors,
                output: &mut self.output,
                scratch: &mut self.fresh,
            })
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
