//! Layer norm (Ba, Kiros and Hinton 2016, arXiv:1607.06450) of a sum of two matrices.

use super::operands::{matrix, matrix_mut, vector};
use crate::arch::{Cpu, Lanes, Level, Task};
use crate::view::{Rows, RowsMut, View, ViewMut};
use crate::{Error, Result, parallel};

/// Rows that one thread takes at a time.
const BLOCK: usize = 64;
/// Below this many elements the calling thread is done before others have woken up.
const PARALLEL_ELEMENTS: usize = 1 << 15;

/// `(s - mean(s)) / sqrt(variance(s) + epsilon) * weight + bias` of each row of `s = tensor + residual`.
#[derive(Debug, Clone, Copy)]
pub struct LayerNorm {
    /// What keeps a row without variance from dividing by 0.
    pub epsilon: f32,
}

impl LayerNorm {
    /// Shapes `[n, d]`, `[n, d]`, `[d]`, `[d]` and `[n, d]`, rows and vectors contiguous. The variance is the biased one,
    /// taken around the mean in a second pass. `out` may be the tensor or the residual.
    pub fn run(
        &self,
        tensor: &View<'_, f32>,
        residual: &View<'_, f32>,
        weight: &View<'_, f32>,
        bias: &View<'_, f32>,
        out: &mut ViewMut<'_, f32>,
    ) -> Result<()> {
        self.run_at(Level::current()?, [tensor, residual], weight, bias, out)
    }

    pub(super) fn run_at(
        &self,
        level: Level,
        [tensor, residual]: [&View<'_, f32>; 2],
        weight: &View<'_, f32>,
        bias: &View<'_, f32>,
        out: &mut ViewMut<'_, f32>,
    ) -> Result<()> {
        if !(self.epsilon.is_finite() && self.epsilon >= 0.0) {
            let allowed = "a finite number of at least 0";
            return Err(Error::Range { argument: "epsilon", given: self.epsilon.to_string(), allowed });
        }
        let x = matrix("tensor", tensor)?;
        let (rows, columns) = (x.count(), x.columns());
        for (argument, shape) in [("residual", residual.shape()), ("out", out.shape())] {
            if shape != [rows, columns] {
                return Err(Error::Shape { argument, given: shape.to_vec(), allowed: format!("[{rows}, {columns}]") });
            }
        }
        for (input, same_is_fine) in [(tensor, true), (residual, true), (weight, false), (bias, false)] {
            out.check_overlap("out", input, same_is_fine)?;
        }
        let residual = matrix("residual", residual)?;
        let (weight, bias) = (vector("weight", weight, columns)?, vector("bias", bias, columns)?);
        let mut blocks = matrix_mut("out", out)?.blocks(BLOCK)?;
        let is_parallel = rows.saturating_mul(columns) >= PARALLEL_ELEMENTS;
        parallel::for_each_mut(&mut blocks, is_parallel, |index, out| {
            let rows = index * BLOCK..index * BLOCK + out.count();
            let [tensor, residual] = [x, residual].map(|input| input.part(rows.clone(), 0..columns));
            level.run(NormBlock { tensor, residual, weight, bias, out, epsilon: self.epsilon });
        });
        Ok(())
    }
}

/// Some rows, all of the same length and contiguous.
struct NormBlock<'a, 'b> {
    tensor: Rows<'a, f32>,
    residual: Rows<'a, f32>,
    weight: Rows<'a, f32>,
    bias: Rows<'a, f32>,
    out: &'a mut RowsMut<'b, f32>,
    epsilon: f32,
}

impl Task for NormBlock<'_, '_> {
    type Output = ();

    #[inline(always)]
    fn run<C: Cpu>(self, cpu: C) {
        let lanes = cpu.f32();
        let (n, columns) = (C::F32::N, self.out.columns());
        let inputs = [self.tensor, self.residual, self.weight, self.bias];
        assert!(inputs.iter().all(|input| input.columns() == columns && input.is_contiguous()));
        assert!(self.out.is_contiguous());
        let zero = lanes.splat(0.0);
        for row in 0..self.out.count() {
            let (tensor, residual, out) = (self.tensor.row(row), self.residual.row(row), self.out.row(row));
            let (weight, bias) = (self.weight.row(0), self.bias.row(0));
            // SAFETY: `row` has checked all of them, which have this many columns, asserted above, and `count` never passes
            // them. A vector of the inputs is loaded before `out`, which may be an input, is stored there.
            unsafe {
                let mut sum = zero;
                for column in (0..columns).step_by(n) {
                    let count = n.min(columns - column);
                    let a = lanes.load_first(tensor.add(column), count);
                    let b = lanes.load_first(residual.add(column), count);
                    let value = lanes.add(a, b);
                    lanes.store_first(out.add(column), count, value);
                    sum = lanes.add(sum, value);
                }
                let mean = lanes.splat(lanes.sum(sum) / columns as f32);
                let mut squares = zero;
                for column in (0..columns).step_by(n) {
                    let count = n.min(columns - column);
                    let apart = lanes.sub(lanes.load_first(out.add(column), count), mean);
                    // Lanes beyond the row hold minus the mean.
                    let apart = lanes.select(lanes.first(count), apart, zero);
                    squares = lanes.fma(apart, apart, squares);
                }
                let variance = lanes.sum(squares) / columns as f32;
                let scale = lanes.splat(1.0 / (variance + self.epsilon).sqrt());
                for column in (0..columns).step_by(n) {
                    let count = n.min(columns - column);
                    let apart = lanes.sub(lanes.load_first(out.add(column), count), mean);
                    let weight = lanes.load_first(weight.add(column), count);
                    let bias = lanes.load_first(bias.add(column), count);
                    lanes.store_first(out.add(column), count, lanes.fma(lanes.mul(apart, scale), weight, bias));
                }
            }
        }
    }
}
