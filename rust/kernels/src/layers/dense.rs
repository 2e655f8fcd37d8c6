//! A linear layer and the activation after it.

use super::{Activation, Rows, check_vector};
use crate::arch::{Cpu, Lanes, Level, Task};
use crate::view::{View, ViewMut};
use crate::{Error, Result, parallel};

/// Below this many multiplications the calling thread is done before others have woken up.
const PARALLEL_PRODUCTS: usize = 1 << 20;
/// The same for elements that an activation is applied to.
const PARALLEL_ELEMENTS: usize = 1 << 15;
/// Rows that one thread takes at a time where there is no product.
const BLOCK: usize = 64;

/// A tile of the result. The right operand is packed once per tile, so tiles are tall; with few rows they are narrow
/// instead, so that there are enough of them to share.
fn tile(rows: usize) -> (usize, usize) {
    match rows {
        0..=32 => (32, 192),
        33..=256 => (64, 384),
        _ => (128, 384),
    }
}

/// `activation(tensor · weight + bias)`.
#[derive(Debug, Clone, Copy)]
pub struct Dense {
    /// What is applied to the sum.
    pub activation: Activation,
}

impl Dense {
    /// Shapes `[n, d_in]`, `[d_in, d_out]`, `[d_out]` and `[n, d_out]`. Rows and the bias are contiguous: with the weight
    /// the other way round the product takes up to six times as long when there are few rows.
    ///
    /// How the work is cut depends on the shapes alone, so the bits do not depend on the number of threads.
    pub fn run(
        &self,
        tensor: &View<'_, f32>,
        weight: &View<'_, f32>,
        bias: &View<'_, f32>,
        out: &mut ViewMut<'_, f32>,
    ) -> Result<()> {
        self.run_at(Level::current()?, tensor, weight, bias, out)
    }

    pub(super) fn run_at(
        &self,
        level: Level,
        tensor: &View<'_, f32>,
        weight: &View<'_, f32>,
        bias: &View<'_, f32>,
        out: &mut ViewMut<'_, f32>,
    ) -> Result<()> {
        let Rows { rows, columns: width, step: tensor_step } = Rows::of("tensor", tensor.layout())?;
        let Rows { rows: d_in, columns: d_out, step: weight_step } = Rows::of("weight", weight.layout())?;
        if width != d_in {
            let given = weight.shape().to_vec();
            let allowed = format!("[{width}, d_out] (the tensor's last axis has length {width})");
            return Err(Error::Shape { argument: "weight", given, allowed });
        }
        check_vector("bias", bias.layout(), d_out)?;
        if out.shape() != [rows, d_out] {
            let allowed = format!("[{rows}, {d_out}]");
            return Err(Error::Shape { argument: "out", given: out.shape().to_vec(), allowed });
        }
        let out_step = Rows::of("out", out.layout())?.step;
        for input in [tensor, weight, bias] {
            out.check_overlap("out", input, false)?;
        }

        let (tall, wide) = tile(rows);
        let across = d_out.div_ceil(wide);
        let operands = Operands { tensor: tensor.as_ptr(), weight: weight.as_ptr(), bias: bias.as_ptr() };
        let target = Target(out.as_mut_ptr());
        let is_parallel = rows.saturating_mul(d_out).saturating_mul(d_in) >= PARALLEL_PRODUCTS;
        parallel::for_each(rows.div_ceil(tall) * across, is_parallel, |index| {
            let (row, column) = (index / across * tall, index % across * wide);
            let (height, width) = (tall.min(rows - row), wide.min(d_out - column));
            let (Operands { tensor, weight, bias }, Target(out)) = (&operands, &target);
            // SAFETY: the views' constructors guarantee every offset within their layouts; row and column are within
            // the shapes, which were matched above, and all columns have stride 1 and all rows the step that was read
            // from the layout. No two tiles share an element of `out`, whose view is unique and shares nothing with an
            // input (checked above).
            unsafe {
                let out = out.offset(row as isize * out_step + column as isize);
                gemm::gemm(
                    height,
                    width,
                    d_in,
                    out,
                    1,
                    out_step,
                    false,
                    tensor.offset(row as isize * tensor_step),
                    1,
                    tensor_step,
                    weight.add(column),
                    1,
                    weight_step,
                    0.0,
                    1.0,
                    false,
                    false,
                    false,
                    gemm::Parallelism::None,
                );
                let bias = bias.add(column);
                level.run(Finish { activation: self.activation, bias, out, out_step, height, width });
            }
        });
        Ok(())
    }
}

struct Operands {
    tensor: *const f32,
    weight: *const f32,
    bias: *const f32,
}
// SAFETY: the pointers come from views, which are Sync, and are only read through.
unsafe impl Sync for Operands {}

struct Target(*mut f32);
// SAFETY: the pointer comes from a view that is Sync; each thread writes to tiles that no other one touches.
unsafe impl Sync for Target {}

impl Activation {
    /// Applies the activation to `tensor [n, d] + bias [d]`, in place; rows and bias are contiguous.
    ///
    /// For products that were made elsewhere: [`Dense`] does the same while a tile is still in the cache.
    pub fn run(self, bias: &View<'_, f32>, tensor: &mut ViewMut<'_, f32>) -> Result<()> {
        let level = Level::current()?;
        let Rows { rows, columns, step } = Rows::of("tensor", tensor.layout())?;
        check_vector("bias", bias.layout(), columns)?;
        tensor.check_overlap("tensor", bias, false)?;
        let nothing = std::ptr::null();
        let operands = Operands { tensor: nothing, weight: nothing, bias: bias.as_ptr() };
        let target = Target(tensor.as_mut_ptr());
        parallel::for_each(rows.div_ceil(BLOCK), rows.saturating_mul(columns) >= PARALLEL_ELEMENTS, |block| {
            let (Operands { bias, .. }, Target(out)) = (&operands, &target);
            let (row, height) = (block * BLOCK, BLOCK.min(rows - block * BLOCK));
            // SAFETY: the row is within the view.
            let out = unsafe { out.offset(row as isize * step) };
            level.run(Finish { activation: self, bias: *bias, out, out_step: step, height, width: columns });
        });
        Ok(())
    }
}

/// Bias and activation, over a tile of sums. Only [`Dense::run_at`] and [`Activation::run`] make one: `height` rows of `width` elements at `out`,
/// `out_step` apart, may be read and written, and `width` elements at `bias` read.
struct Finish {
    activation: Activation,
    bias: *const f32,
    out: *mut f32,
    out_step: isize,
    height: usize,
    width: usize,
}

impl Task for Finish {
    type Output = ();

    #[inline(always)]
    fn run<C: Cpu>(self, cpu: C) {
        // A loop for each, so that the choice is not made for every vector.
        match self.activation {
            Activation::Identity => self.rows(cpu, Activation::Identity),
            Activation::Gelu => self.rows(cpu, Activation::Gelu),
            Activation::GeluTanh => self.rows(cpu, Activation::GeluTanh),
            Activation::Relu => self.rows(cpu, Activation::Relu),
        }
    }
}

impl Finish {
    #[inline(always)]
    fn rows<C: Cpu>(&self, cpu: C, activation: Activation) {
        let lanes = cpu.f32();
        let n = C::F32::N;
        let whole = self.width - self.width % n;
        for row in 0..self.height {
            // SAFETY: what the struct promises; `whole` and the rest are within the width.
            unsafe {
                let out = self.out.offset(row as isize * self.out_step);
                for column in (0..whole).step_by(n) {
                    let sum = lanes.add(lanes.load(out.add(column)), lanes.load(self.bias.add(column)));
                    lanes.store(out.add(column), activation.apply(lanes, sum));
                }
                let rest = self.width - whole;
                if rest > 0 {
                    let (out, bias) = (out.add(whole), self.bias.add(whole));
                    let sum = lanes.add(lanes.load_first(out, rest), lanes.load_first(bias, rest));
                    lanes.store_first(out, rest, activation.apply(lanes, sum));
                }
            }
        }
    }
}
