//! A linear layer and the activation after it.

use super::activation::{Activation, BiasAndActivation};
use super::operands::{matrix, matrix_mut, vector};
use crate::arch::{Cpu, Level, Task};
use crate::buffer::Buffer;
use crate::product::{PanelProduct, panel_width};
use crate::view::{Rows, RowsMut, View, ViewMut, steps};
use crate::{Error, Result, parallel};

/// Below this many multiplications the calling thread is done before others have woken up.
const PARALLEL_PRODUCTS: usize = 1 << 18;
/// Rows that one thread takes at a time. Few enough that they stay in the second level of cache, and that threads which
/// do not begin together end together; with many rows each block reads the whole weight from the third level, so more.
fn block(rows: usize) -> usize {
    if rows <= 256 { 32 } else { 64 }
}

/// `activation(tensor · weight + bias)`, with a weight that was laid out for it once.
///
/// The weight is kept in panels: a few vectors of columns, all rows of them one after the other, so that a product reads
/// memory from front to back. With few rows a product takes as long as it takes to read the weight, and a library that
/// is given it row by row first spends more on copying it into such panels.
#[derive(Debug)]
pub struct Linear {
    level: Level,
    d_in: usize,
    d_out: usize,
    /// Columns of a panel.
    width: usize,
    /// `[panels, d_in, width]`; columns behind the last are 0.
    panels: Buffer<f32>,
    /// As long as all panels are wide.
    bias: Buffer<f32>,
}

impl Linear {
    /// Lays out a weight `[d_in, d_out]` of any strides, with its bias `[d_out]`.
    pub fn new(weight: &View<'_, f32>, bias: &View<'_, f32>) -> Result<Self> {
        Self::at(Level::current()?, weight, bias)
    }

    /// [`Linear::new`] for a CPU level that this CPU has; the layer then runs at it.
    pub fn at(level: Level, weight: &View<'_, f32>, bias: &View<'_, f32>) -> Result<Self> {
        let &[d_in, d_out] = weight.shape() else {
            return Err(Error::Rank { argument: "weight", given: weight.shape().len(), allowed: "2" });
        };
        let from = vector("bias", bias, d_out)?;
        let width = panel_width::<f32>(level);
        let columns = d_out.next_multiple_of(width);
        let overflow = || Error::Overflow { argument: "weight", given: weight.shape().to_vec() };
        let mut panels = Buffer::zeroed(columns.checked_mul(d_in).ok_or_else(overflow)?)?;
        let mut bias = Buffer::zeroed(columns)?;
        level.run(LayOut { weight: weight.matrix(0), width, panels: &mut panels });
        for (column, place) in bias[..d_out].iter_mut().enumerate() {
            *place = from.get(0, column);
        }
        Ok(Self { level, d_in, d_out, width, panels, bias })
    }

    /// `[d_in, d_out]`.
    pub fn shape(&self) -> [usize; 2] {
        [self.d_in, self.d_out]
    }

    /// Writes `activation(tensor · weight + bias)` for shapes `[n, d_in]` and `[n, d_out]` with contiguous rows.
    ///
    /// Each sum is taken in the order of `d_in`, so a row's bits depend neither on the number of threads nor on the
    /// rows beside it.
    pub fn run(&self, tensor: &View<'_, f32>, activation: Activation, out: &mut ViewMut<'_, f32>) -> Result<()> {
        let Self { d_in, d_out, width, .. } = *self;
        let x = matrix("tensor", tensor)?;
        let rows = x.count();
        if x.columns() != d_in {
            let allowed = format!("[n, {d_in}] (the weight is [{d_in}, {d_out}])");
            return Err(Error::Shape { argument: "tensor", given: tensor.shape().to_vec(), allowed });
        }
        if out.shape() != [rows, d_out] {
            let allowed = format!("[{rows}, {d_out}]");
            return Err(Error::Shape { argument: "out", given: out.shape().to_vec(), allowed });
        }
        out.check_overlap("out", tensor, false)?;

        let tall = block(rows);
        let panels = d_out.div_ceil(width);
        let mut blocks = matrix_mut("out", out)?.cut(&steps(rows, tall)?, &steps(d_out, width)?)?;
        let is_parallel = rows.saturating_mul(d_out).saturating_mul(d_in) >= PARALLEL_PRODUCTS;
        // All panels of one block of rows before the next: the rows stay in the cache.
        parallel::for_each_mut(&mut blocks, is_parallel, |index, out| {
            let (row, panel) = (index / panels * tall, index % panels);
            self.level.run(Panel {
                tensor: x.part(row..row + out.count(), 0..d_in),
                weight: &self.panels[panel * d_in * width..][..d_in * width],
                bias: Rows::of(&self.bias[panel * width..][..out.columns()], 1, out.columns()),
                out,
                activation,
            });
        });
        Ok(())
    }
}

/// Lays out a weight.
struct LayOut<'a> {
    weight: Rows<'a, f32>,
    width: usize,
    panels: &'a mut [f32],
}

impl Task for LayOut<'_> {
    type Output = ();

    #[inline(always)]
    fn run<C: Cpu>(self, cpu: C) {
        self.weight.panels(cpu, self.width, self.panels);
    }
}

/// A block of rows times one panel.
struct Panel<'a, 'b> {
    tensor: Rows<'a, f32>,
    weight: &'a [f32],
    bias: Rows<'a, f32>,
    out: &'a mut RowsMut<'b, f32>,
    activation: Activation,
}

impl Task for Panel<'_, '_> {
    type Output = ();

    #[inline(always)]
    fn run<C: Cpu>(self, cpu: C) {
        let Self { tensor, weight, bias, out, activation } = self;
        cpu.run(PanelProduct { a: tensor, panel: weight, out: out.reborrow(), adds: false });
        // While the sums are in the first level of cache.
        BiasAndActivation { activation, bias, out }.run(cpu);
    }
}
