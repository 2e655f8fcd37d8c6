//! Sharded linear layers, as in Megatron-LM (Shoeybi et al. 2019, arXiv:1909.08053).
//!
//! A column shard owns some columns of the weight and gives the same columns of the result. A row shard owns some rows
//! of the weight, reads the same columns of the tensor and gives a partial product of the result's whole shape.
//!
//! Work is the tiles of the result, for both: threads take tiles, so all shards advance at the same time and share the
//! threads whatever their number is. A tile never straddles two column shards; the partial products of row shards are
//! added in the tile, in the order of the shards, so no partial result is ever stored. The products are the `gemm`
//! crate's; how they are cut depends on shapes alone, so the bits do not depend on the number of threads. For few rows
//! of the tensor reading the weight takes the time, and work is bands of the weight instead (`few`).

use std::ops::Range;

use crate::arch::{Element, Level};
use crate::parallel;
use crate::split::{array_split, axis_index};
use crate::view::{Layout, View, ViewMut};
use crate::{Error, Result};
use tile::{Matrix, Tile};

mod few;
mod tile;

/// The longest side of a tile of the result: small enough to share work out evenly, large enough that packing the
/// operands of a tile (once per tile) is a few per cent of multiplying them.
const TILE: usize = 512;
/// Below this many multiplications the calling thread is done before others have woken up.
const PARALLEL_PRODUCTS: usize = 1 << 20;

/// How the weight is cut.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub enum Mode {
    /// Along its columns (`d_out`): each shard gives some columns of the result.
    Column,
    /// Along its rows (`d_in`), and the tensor with it: the result is the sum of what the shards give.
    Row,
}

impl Mode {
    /// The mode that is called `name`: "column" or "row".
    pub fn named(name: &str) -> Result<Self> {
        match name {
            "column" => Ok(Self::Column),
            "row" => Ok(Self::Row),
            _ => Err(Error::Range { argument: "mode", given: format!("{name:?}"), allowed: "\"column\" or \"row\"" }),
        }
    }
}

/// A linear layer whose weight is cut into `shards` parts, as [`array_split`] cuts.
#[derive(Debug, Clone, Copy)]
pub struct ShardedLinear {
    /// Number of shards, at least 1; shards beyond the length of the axis are empty.
    pub shards: usize,
    /// The axis of the weight that is cut.
    pub mode: Mode,
}

impl ShardedLinear {
    /// The shape of the result for these shapes of tensor and weight; `axis` must name the tensor's last one.
    pub fn out_shape(tensor: &[usize], axis: isize, weight: &[usize]) -> Result<Vec<usize>> {
        let [d_in, d_out] = *weight else {
            return Err(Error::Rank { argument: "weight", given: weight.len(), allowed: "2 ([d_in, d_out])" });
        };
        let Some((&width, leading)) = tensor.split_last() else {
            return Err(Error::Rank { argument: "tensor", given: 0, allowed: "at least 1 ([..., d_in])" });
        };
        if axis_index(tensor.len(), axis)? != leading.len() {
            let allowed = "with a weight -1, the last axis,";
            return Err(Error::Range { argument: "axis", given: axis.to_string(), allowed });
        }
        if width != d_in {
            let allowed = format!("[{width}, d_out] (the tensor's last axis has length {width})");
            return Err(Error::Shape { argument: "weight", given: weight.to_vec(), allowed });
        }
        Ok([leading, &[d_out]].concat())
    }

    /// `out = tensor · weight + bias`, with shapes `[..., d_in]`, `[d_in, d_out]`, `[d_out]` and `[..., d_out]`.
    ///
    /// 16-bit types are computed in float32 and rounded once, at the end. The bias is added once, after the sum.
    pub fn run<T: Scalar>(
        &self,
        tensor: &View<'_, T>,
        weight: &View<'_, T>,
        bias: Option<&View<'_, T>>,
        out: &mut ViewMut<'_, T>,
    ) -> Result<()> {
        self.run_at(Level::current()?, tensor, weight, bias, out)
    }

    fn run_at<T: Scalar>(
        &self,
        level: Level,
        tensor: &View<'_, T>,
        weight: &View<'_, T>,
        bias: Option<&View<'_, T>>,
        out: &mut ViewMut<'_, T>,
    ) -> Result<()> {
        let shape = Self::out_shape(tensor.shape(), -1, weight.shape())?;
        let (d_in, d_out) = (weight.shape()[0], weight.shape()[1]);
        if let Some(bias) = bias.filter(|bias| bias.shape() != [d_out]) {
            return Err(Error::Shape { argument: "bias", given: bias.shape().to_vec(), allowed: format!("[{d_out}]") });
        }
        if out.shape() != shape {
            let allowed = format!("{shape:?}");
            return Err(Error::Shape { argument: "out", given: out.shape().to_vec(), allowed });
        }
        for input in [Some(tensor), Some(weight), bias].into_iter().flatten() {
            out.check_overlap("out", input, false)?;
        }

        let (outer, inner) = match self.mode {
            Mode::Column => (array_split("num_splits", d_out, self.shards)?, array_split("num_splits", d_in, 1)?),
            Mode::Row => (array_split("num_splits", d_out, 1)?, array_split("num_splits", d_in, self.shards)?),
        };
        let columns: Vec<Range<usize>> = outer.flat_map(|shard| blocks(shard, TILE)).collect();
        let depths: Vec<Range<usize>> = inner.filter(|shard| !shard.is_empty()).collect();
        let out_start = out.as_mut_ptr();
        let grid = Rows::new(tensor.layout(), out.layout());
        let rows: Vec<Range<usize>> = blocks(0..grid.rows, TILE).collect();

        let (tensor_column, out_column) = (last(tensor.layout()), last(out.layout()));
        let (weight_row, weight_column) = (weight.layout().strides()[0], weight.layout().strides()[1]);
        let bias_step = bias.map_or(0, |bias| bias.layout().strides()[0]);
        let operands = Operands {
            tensor: tensor.as_ptr(),
            weight: weight.as_ptr(),
            bias: bias.map(|bias| bias.as_ptr()),
            out: out_start,
        };
        let is_parallel = out.layout().len().saturating_mul(d_in) >= PARALLEL_PRODUCTS;
        let few = grid.matrices * grid.rows;
        if few <= few::ROWS && weight_column == 1 {
            let starts = |index: usize| grid.offsets(index / grid.rows, index % grid.rows);
            let rows: Vec<(isize, isize)> = (0..few).map(starts).collect();
            let (rows, columns, depths) = (&rows[..], d_out, &depths[..]);
            let layer =
                few::Layer { operands, rows, tensor_column, weight_row, bias_step, out_column, columns, depths };
            // SAFETY: as for the tiles below.
            unsafe { layer.run(level, is_parallel) };
            return Ok(());
        }
        parallel::for_each(grid.matrices * rows.len() * columns.len(), is_parallel, |index| {
            let (index, columns) = (index / columns.len(), &columns[index % columns.len()]);
            let (matrix, rows) = (index / rows.len(), &rows[index % rows.len()]);
            let (tensor_offset, out_offset) = grid.offsets(matrix, rows.start);
            let (column, data) = (columns.start as isize, operands);
            // SAFETY: the views' constructors guarantee every offset within their layouts; the shapes were matched
            // above, and rows, columns and depths are ranges within them. No two tiles share an element of `out`,
            // whose view is unique, does not overlap itself, and shares nothing with an input (checked above).
            unsafe {
                let tile = Tile {
                    rows: rows.len(),
                    columns: columns.len(),
                    tensor: Matrix::new(data.tensor.wrapping_offset(tensor_offset), grid.tensor_row, tensor_column),
                    weight: Matrix::new(data.weight.wrapping_offset(column * weight_column), weight_row, weight_column),
                    bias: data.bias.map(|bias| Matrix::new(bias.offset(column * bias_step), 0, bias_step)),
                    out: data.out.offset(out_offset + column * out_column),
                    out_strides: (grid.out_row, out_column),
                };
                T::multiply(&tile, &depths);
            }
        });
        Ok(())
    }
}

fn last(layout: &Layout) -> isize {
    layout.strides().last().copied().unwrap_or(0)
}

/// The axes of the tensor before its last, as matrices of rows: one matrix where the axes lie behind each other.
struct Rows<'a> {
    matrices: usize,
    rows: usize,
    tensor_row: isize,
    out_row: isize,
    layouts: Option<(&'a Layout, &'a Layout)>,
}

impl<'a> Rows<'a> {
    fn new(tensor: &'a Layout, out: &'a Layout) -> Self {
        let axes = tensor.shape().len() - 1;
        if let (Some(tensor_row), Some(out_row)) = (row_step(tensor), row_step(out)) {
            let rows = tensor.shape()[..axes].iter().product();
            return Self { matrices: 1, rows, tensor_row, out_row, layouts: None };
        }
        let (leading, matrix) = tensor.matrices();
        let out_row = out.strides()[axes - 1];
        let layouts = Some((tensor, out));
        Self { matrices: leading.count(), rows: matrix.rows, tensor_row: matrix.row_stride, out_row, layouts }
    }

    /// Where row `row` of matrix number `matrix` starts, in the tensor and in the result.
    fn offsets(&self, matrix: usize, row: usize) -> (isize, isize) {
        let (tensor, out) = match self.layouts {
            Some((tensor, out)) => (tensor.matrices().0.offset(matrix), out.matrices().0.offset(matrix)),
            None => (0, 0),
        };
        (tensor + row as isize * self.tensor_row, out + row as isize * self.out_row)
    }
}

/// The one step that leads from each row to the next through all axes before the last, if there is one.
fn row_step(layout: &Layout) -> Option<isize> {
    let axes = layout.shape().len() - 1;
    let mut step = None;
    let mut next = 0;
    for (&length, &stride) in layout.shape()[..axes].iter().zip(layout.strides()).rev().filter(|(n, _)| **n != 1) {
        if step.is_some() && stride != next {
            return None;
        }
        step.get_or_insert(stride);
        next = stride.checked_mul(length as isize)?;
    }
    Some(step.unwrap_or(0))
}

/// `range` in blocks of equal size, each at most `longest`.
fn blocks(range: Range<usize>, longest: usize) -> impl Iterator<Item = Range<usize>> {
    let (count, length) = (range.len().div_ceil(longest), range.len());
    let cut = move |block: usize| range.start + block * (length / count) + block.min(length % count);
    (0..count).map(move |block| cut(block)..cut(block + 1))
}

struct Operands<T> {
    tensor: *const T,
    weight: *const T,
    bias: Option<*const T>,
    out: *mut T,
}

impl<T> Clone for Operands<T> {
    fn clone(&self) -> Self {
        *self
    }
}
impl<T> Copy for Operands<T> {}
// SAFETY: the pointers come from views, which are Send and Sync for the elements that are used here (plain numbers);
// the one that is written through is used for another tile by each thread.
unsafe impl<T: Element> Sync for Operands<T> {}

mod sealed {
    use half::{bf16, f16};

    pub trait Sealed {}
    impl Sealed for f64 {}
    impl Sealed for f32 {}
    impl Sealed for f16 {}
    impl Sealed for bf16 {}
}

/// The element types of a linear layer: f64, f32, f16 and bf16.
pub trait Scalar: sealed::Sealed + Element {
    /// Computes one tile; the products over each range of `depths` are added in order.
    ///
    /// # Safety
    /// The tile's matrices must be readable at all their elements (their depth reaching to the end of the last range),
    /// and `out` must be writeable and shared with nothing else.
    #[doc(hidden)]
    unsafe fn multiply(tile: &Tile<Self>, depths: &[Range<usize>]);
}

#[cfg(test)]
mod tests;
