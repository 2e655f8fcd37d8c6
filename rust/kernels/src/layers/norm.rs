//! Layer norm (Ba, Kiros and Hinton 2016, arXiv:1607.06450) of a sum of two matrices.

use super::{Rows, check_vector};
use crate::arch::{Cpu, Lanes, Level, Task};
use crate::view::{View, ViewMut};
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
        let Rows { rows, columns, step: tensor_step } = Rows::of("tensor", tensor.layout())?;
        for (argument, shape) in [("residual", residual.shape()), ("out", out.shape())] {
            if shape != [rows, columns] {
                return Err(Error::Shape { argument, given: shape.to_vec(), allowed: format!("[{rows}, {columns}]") });
            }
        }
        let residual_step = Rows::of("residual", residual.layout())?.step;
        let out_step = Rows::of("out", out.layout())?.step;
        check_vector("weight", weight.layout(), columns)?;
        check_vector("bias", bias.layout(), columns)?;
        for (input, same_is_fine) in [(tensor, true), (residual, true), (weight, false), (bias, false)] {
            out.check_overlap("out", input, same_is_fine)?;
        }

        let data = Data {
            tensor: tensor.as_ptr(),
            residual: residual.as_ptr(),
            weight: weight.as_ptr(),
            bias: bias.as_ptr(),
            out: out.as_mut_ptr(),
            steps: [tensor_step, residual_step, out_step],
            columns,
        };
        let is_parallel = rows.saturating_mul(columns) >= PARALLEL_ELEMENTS;
        parallel::for_each(rows.div_ceil(BLOCK), is_parallel, |block| {
            let rows = block * BLOCK..rows.min((block + 1) * BLOCK);
            level.run(Block { data: &data, rows, epsilon: self.epsilon });
        });
        Ok(())
    }
}

/// Where everything is; the shapes were matched when it was made, and `out` is written by one thread a row.
struct Data {
    tensor: *const f32,
    residual: *const f32,
    weight: *const f32,
    bias: *const f32,
    out: *mut f32,
    steps: [isize; 3],
    columns: usize,
}
// SAFETY: the pointers come from views, which are Sync; each thread reads and writes rows that no other one writes.
unsafe impl Sync for Data {}

struct Block<'a> {
    data: &'a Data,
    rows: std::ops::Range<usize>,
    epsilon: f32,
}

impl Task for Block<'_> {
    type Output = ();

    #[inline(always)]
    fn run<C: Cpu>(self, cpu: C) {
        let lanes = cpu.f32();
        let (n, columns) = (C::F32::N, self.data.columns);
        let Data { weight, bias, steps: [tensor_step, residual_step, out_step], .. } = *self.data;
        let zero = lanes.splat(0.0);
        for row in self.rows {
            let row = row as isize;
            // SAFETY: the rows are within the shapes, all of which have this many columns, and `count` never passes
            // them. A vector of the inputs is loaded before `out`, which may be an input, is stored there.
            unsafe {
                let tensor = self.data.tensor.offset(row * tensor_step);
                let residual = self.data.residual.offset(row * residual_step);
                let out = self.data.out.offset(row * out_step);
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
