//! A linear layer and the activation after it.

use std::ops::Range;

use super::activation::Finish;
use super::{Activation, Rows, check_vector};
use crate::arch::{Cpu, Lanes, Level, Task};
use crate::buffer::Buffer;
use crate::view::{View, ViewMut};
use crate::{Error, Result, parallel};

/// Below this many multiplications the calling thread is done before others have woken up.
const PARALLEL_PRODUCTS: usize = 1 << 18;
/// Rows that one thread takes at a time. Few enough that they stay in the second level of cache, and that threads which
/// do not begin together end together; with many rows each block reads the whole weight from the third level, so more.
fn block(rows: usize) -> usize {
    if rows <= 256 { 32 } else { 64 }
}
/// Vectors in a row of a panel.
const VECTORS: usize = 3;

/// Rows of a tile. Eight rows of three vectors are 24 sums, which with three vectors of the weight and one of the tensor
/// are 28 registers; four rows fill 16.
const fn tile_rows<C: Cpu>() -> usize {
    if C::REGISTERS >= 32 { 8 } else { 4 }
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
        let (&[d_in, d_out], &[row_step, column_step]) = (weight.shape(), weight.layout().strides()) else {
            return Err(Error::Rank { argument: "weight", given: weight.shape().len(), allowed: "2" });
        };
        check_vector("bias", bias.layout(), d_out)?;
        let width = level.run(Width);
        let count = d_out.div_ceil(width);
        let overflow = || Error::Overflow { argument: "weight", given: weight.shape().to_vec() };
        let len = count.checked_mul(width).and_then(|columns| columns.checked_mul(d_in)).ok_or_else(overflow)?;
        let mut panels = Buffer::zeroed(len)?;
        let (weight, bias_from) = (weight.as_ptr(), bias.as_ptr());
        for (index, panel) in panels.chunks_exact_mut((d_in * width).max(1)).enumerate() {
            let columns = index * width..d_out.min((index + 1) * width);
            for (row, panel) in panel.chunks_exact_mut(width).enumerate() {
                for (column, place) in columns.clone().zip(panel) {
                    // SAFETY: row and column are within the shape, all of whose offsets the view's constructor
                    // guarantees.
                    *place = unsafe { *weight.offset(row as isize * row_step + column as isize * column_step) };
                }
            }
        }
        let mut bias = Buffer::zeroed(count * width)?;
        for (column, place) in bias[..d_out].iter_mut().enumerate() {
            // SAFETY: a contiguous vector of d_out elements, checked above.
            *place = unsafe { *bias_from.add(column) };
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
        let Rows { rows, columns, step: tensor_step } = Rows::of("tensor", tensor.layout())?;
        if columns != d_in {
            let allowed = format!("[n, {d_in}] (the weight is [{d_in}, {d_out}])");
            return Err(Error::Shape { argument: "tensor", given: tensor.shape().to_vec(), allowed });
        }
        if out.shape() != [rows, d_out] {
            let allowed = format!("[{rows}, {d_out}]");
            return Err(Error::Shape { argument: "out", given: out.shape().to_vec(), allowed });
        }
        let out_step = Rows::of("out", out.layout())?.step;
        out.check_overlap("out", tensor, false)?;

        let panels = d_out.div_ceil(width);
        let data = Data { tensor: tensor.as_ptr(), out: out.as_mut_ptr() };
        let is_parallel = rows.saturating_mul(d_out).saturating_mul(d_in) >= PARALLEL_PRODUCTS;
        // All panels of one block of rows before the next: the rows stay in the cache.
        let tall = block(rows);
        parallel::for_each(rows.div_ceil(tall) * panels, is_parallel, |index| {
            let (block, panel) = (index / panels, index % panels);
            let (row, column) = (block * tall, panel * width);
            let data = &data;
            // SAFETY: the views' constructors guarantee every offset within their layouts; row and column are within
            // the shapes, which were matched above, rows are contiguous and as far apart as the steps say. No two
            // panels share an element of `out`, whose view is unique and shares nothing with the tensor.
            let (tensor, out) = unsafe {
                let tensor = data.tensor.offset(row as isize * tensor_step);
                (tensor, data.out.offset(row as isize * out_step + column as isize))
            };
            self.level.run(Panel {
                rows: tall.min(rows - row),
                columns: width.min(d_out - column),
                depth: d_in,
                tensor,
                tensor_step,
                weight: &self.panels[panel * d_in * width..][..d_in * width],
                bias: &self.bias[column..][..width],
                out,
                out_step,
                activation,
            });
        });
        Ok(())
    }
}

struct Data {
    tensor: *const f32,
    out: *mut f32,
}
// SAFETY: the pointers come from views, which are Sync; what is written to, each thread has for itself.
unsafe impl Sync for Data {}

/// How many columns a panel has at a level.
struct Width;

impl Task for Width {
    type Output = usize;

    #[inline(always)]
    fn run<C: Cpu>(self, _: C) -> usize {
        VECTORS * C::F32::N
    }
}

/// A block of rows times one panel. Only [`Linear::run`] makes one: `rows` rows of `depth` elements at `tensor`,
/// `tensor_step` apart, may be read, `rows` rows of `columns` elements at `out`, `out_step` apart, written; the panel
/// has `depth` rows, as long as the bias: of the level's width.
struct Panel<'a> {
    rows: usize,
    columns: usize,
    depth: usize,
    tensor: *const f32,
    tensor_step: isize,
    weight: &'a [f32],
    bias: &'a [f32],
    out: *mut f32,
    out_step: isize,
    activation: Activation,
}

impl Task for Panel<'_> {
    type Output = ();

    #[inline(always)]
    fn run<C: Cpu>(self, cpu: C) {
        let width = VECTORS * C::F32::N;
        assert!(self.weight.len() == self.depth * width && self.bias.len() == width);
        let most = tile_rows::<C>();
        let mut first = 0;
        // Equal heights: nine rows are five and four, not eight and one, which would wait for its own sums.
        for left in (1..=self.rows.div_ceil(most)).rev() {
            let height = (self.rows - first).div_ceil(left);
            let rows = first..first + height;
            // SAFETY: the rows are among those of the block.
            unsafe {
                match (height, most) {
                    (1, _) => self.tile::<C, 1>(cpu, rows),
                    (2, _) => self.tile::<C, 2>(cpu, rows),
                    (3, _) => self.tile::<C, 3>(cpu, rows),
                    (4, _) => self.tile::<C, 4>(cpu, rows),
                    (5, 8) => self.tile::<C, 5>(cpu, rows),
                    (6, 8) => self.tile::<C, 6>(cpu, rows),
                    (7, 8) => self.tile::<C, 7>(cpu, rows),
                    (8, 8) => self.tile::<C, 8>(cpu, rows),
                    _ => unreachable!("no tile is higher than the highest"),
                }
            }
            first += height;
        }
        // While the sums are in the first level of cache.
        let Self { rows: height, columns: width, out, out_step, activation, .. } = self;
        Finish { activation, bias: self.bias.as_ptr(), out, out_step, height, width }.run(cpu);
    }
}

impl Panel<'_> {
    /// # Safety
    /// These are `HEIGHT` of the block's rows; the panel was checked to be of the level's width.
    #[inline(always)]
    unsafe fn tile<C: Cpu, const HEIGHT: usize>(&self, cpu: C, rows: Range<usize>) {
        let lanes = cpu.f32();
        let n = C::F32::N;
        let zero = lanes.splat(0.0);
        let mut sums = [[zero; VECTORS]; HEIGHT];
        let tensor = self.tensor.wrapping_offset(rows.start as isize * self.tensor_step);
        let mut weight = self.weight.as_ptr();
        for k in 0..self.depth {
            let mut columns = [zero; VECTORS];
            for (vector, column) in columns.iter_mut().enumerate() {
                // SAFETY: row k of the panel is there, `VECTORS` vectors long.
                *column = unsafe { lanes.load(weight.add(vector * n)) };
            }
            for (row, sums) in sums.iter_mut().enumerate() {
                // SAFETY: the rows of the tensor are the caller's promise, k is below the depth.
                let factor = lanes.splat(unsafe { *tensor.offset(row as isize * self.tensor_step).add(k) });
                for (sum, &column) in sums.iter_mut().zip(&columns) {
                    *sum = lanes.fma(factor, column, *sum);
                }
            }
            weight = weight.wrapping_add(VECTORS * n);
        }
        for (row, sums) in rows.zip(&sums) {
            let out = self.out.wrapping_offset(row as isize * self.out_step);
            for (vector, &sum) in sums.iter().enumerate() {
                let first = vector * n;
                let left = self.columns.saturating_sub(first);
                // SAFETY: the row is the caller's promise; at most the columns that are left are written.
                unsafe {
                    match left {
                        0 => {}
                        left if left < n => lanes.store_first(out.add(first), left, sum),
                        _ => lanes.store(out.add(first), sum),
                    }
                }
            }
        }
    }
}
