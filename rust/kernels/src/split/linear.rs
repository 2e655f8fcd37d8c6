//! Sharded linear layers, as in Megatron-LM (Shoeybi et al. 2019, arXiv:1909.08053).
//!
//! A column shard owns some columns of the weight and gives the same columns of the result. A row shard owns some rows
//! of the weight, reads the same columns of the tensor and gives a partial product of the result's whole shape.
//!
//! Work is the tiles of the result, for both: threads take tiles, so all shards advance at the same time and share the
//! threads whatever their number is. A tile never straddles two column shards; the partial products of row shards are
//! added in the tile, in the order of the shards, so no partial result is ever stored. The products are the `gemm`
//! crate's; how they are cut depends on shapes alone, so the bits do not depend on the number of threads.

use std::ops::Range;

use half::slice::HalfFloatSliceExt;
use half::{bf16, f16};

use crate::parallel;
use crate::split::{array_split, axis_index};
use crate::view::{Layout, View, ViewMut};
use crate::{Error, Result};

/// The longest side of a tile of the result: small enough to share work out evenly, large enough that packing the
/// operands of a tile (once per tile) is a few per cent of multiplying them.
const TILE: usize = 512;
/// 16-bit operands are widened in blocks of at most this many of the axis that is summed over.
const DEPTH: usize = 512;
/// Up to this many rows, a weight whose columns are contiguous (a transposed one, as PyTorch keeps it) is multiplied as
/// dot products in blocks of [`DOTS`] results, which `gemm` has kernels for. Packing such a weight costs the same for
/// any number of rows: 40 ms for 4096 × 4096, against 4 ms for 16 rows of dot products and 22 ms for 128.
const DOT_ROWS: usize = 128;
const DOTS: (usize, usize) = (16, 256);
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
        let products = out.layout().len().saturating_mul(d_in);
        parallel::for_each(grid.matrices * rows.len() * columns.len(), products >= PARALLEL_PRODUCTS, |index| {
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

/// `range` in blocks of equal size, each at most `longest`.
fn blocks(range: Range<usize>, longest: usize) -> impl Iterator<Item = Range<usize>> {
    let (count, length) = (range.len().div_ceil(longest), range.len());
    let cut = move |block: usize| range.start + block * (length / count) + block.min(length % count);
    (0..count).map(move |block| cut(block)..cut(block + 1))
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
unsafe impl<T: Scalar> Sync for Operands<T> {}

/// Where a matrix starts, and its row and column strides in elements.
#[derive(Debug)]
pub struct Matrix<T> {
    data: *const T,
    row: isize,
    column: isize,
}

impl<T> Clone for Matrix<T> {
    fn clone(&self) -> Self {
        *self
    }
}
impl<T> Copy for Matrix<T> {}

impl<T> Matrix<T> {
    fn new(data: *const T, row: isize, column: isize) -> Self {
        Self { data, row, column }
    }

    /// # Safety
    /// The element must be within the matrix.
    unsafe fn at(self, row: usize, column: usize) -> *const T {
        // SAFETY: the caller's promise.
        unsafe { self.data.offset(row as isize * self.row + column as isize * self.column) }
    }
}

/// One tile of the result: `out = tensor · weight + bias`, `rows × depth` times `depth × columns`.
#[derive(Debug)]
pub struct Tile<T> {
    rows: usize,
    columns: usize,
    tensor: Matrix<T>,
    weight: Matrix<T>,
    bias: Option<Matrix<T>>,
    out: *mut T,
    out_strides: (isize, isize),
}

impl<T> Tile<T> {
    /// # Safety
    /// The element must be within the tile.
    unsafe fn out(&self, row: usize, column: usize) -> *mut T {
        let (row_stride, column_stride) = self.out_strides;
        // SAFETY: the caller's promise.
        unsafe { self.out.offset(row as isize * row_stride + column as isize * column_stride) }
    }
}

mod sealed {
    pub trait Sealed {}
    impl Sealed for f64 {}
    impl Sealed for f32 {}
    impl Sealed for half::f16 {}
    impl Sealed for half::bf16 {}
}

/// The element types of a linear layer: f64, f32, f16 and bf16.
pub trait Scalar: sealed::Sealed + Copy + Send + Sync + 'static {
    /// Computes one tile; the products over each range of `depths` are added in order.
    ///
    /// # Safety
    /// The tile's matrices must be readable at all their elements (their depth reaching to the end of the last range),
    /// and `out` must be writeable and shared with nothing else.
    #[doc(hidden)]
    unsafe fn multiply(tile: &Tile<Self>, depths: &[Range<usize>]);
}

/// `out (+)= a · b`.
///
/// # Safety
/// All elements of the three matrices must be valid, and `out` shared with nothing else.
unsafe fn product<T: Native>(
    (rows, columns, depth): (usize, usize, usize),
    (out, out_strides): (*mut T, (isize, isize)),
    a: Matrix<T>,
    b: Matrix<T>,
    accumulate: bool,
) {
    let dots = rows <= DOT_ROWS && a.column == 1 && b.row == 1 && b.column != 1;
    let height = if dots { rows.min(DOTS.0) } else { rows };
    let width = if dots { DOTS.1 / height } else { columns };
    let keep = if accumulate { T::ONE } else { T::ZERO };
    let (out_row, out_column) = out_strides;
    for column in (0..columns).step_by(width) {
        for row in (0..rows).step_by(height) {
            let (down, across) = (row as isize, column as isize);
            // SAFETY: the caller's promise, word for word that of `gemm`; the block is within the matrices.
            unsafe {
                gemm::gemm(
                    height.min(rows - row),
                    width.min(columns - column),
                    depth,
                    out.offset(down * out_row + across * out_column),
                    out_column,
                    out_row,
                    accumulate,
                    a.data.wrapping_offset(down * a.row),
                    a.column,
                    a.row,
                    b.data.wrapping_offset(across * b.column),
                    b.column,
                    b.row,
                    keep,
                    T::ONE,
                    false,
                    false,
                    false,
                    gemm::Parallelism::None,
                );
            }
        }
    }
}

/// What is multiplied as it is.
trait Native: Copy + std::ops::AddAssign + 'static {
    const ZERO: Self;
    const ONE: Self;
}
impl Native for f32 {
    const ZERO: Self = 0.0;
    const ONE: Self = 1.0;
}
impl Native for f64 {
    const ZERO: Self = 0.0;
    const ONE: Self = 1.0;
}

/// # Safety
/// That of [`Scalar::multiply`].
unsafe fn multiply_native<T: Native>(tile: &Tile<T>, depths: &[Range<usize>]) {
    let Tile { rows, columns, tensor, weight, .. } = *tile;
    // A depth of 0 makes the product all zero, which nobody else would write.
    for depth in if depths.is_empty() { std::slice::from_ref(&(0..0)) } else { depths } {
        let start = depth.start as isize;
        // SAFETY: the caller promises all elements of the tile's matrices, of which these are parts.
        unsafe {
            let a = Matrix::new(tensor.data.wrapping_offset(start * tensor.column), tensor.row, tensor.column);
            let b = Matrix::new(weight.data.wrapping_offset(start * weight.row), weight.row, weight.column);
            product((rows, columns, depth.len()), (tile.out, tile.out_strides), a, b, start > 0);
        }
    }
    let Some(bias) = tile.bias else { return };
    for row in 0..rows {
        for column in 0..columns {
            // SAFETY: row and column are within the tile and the bias, which has a row stride of 0.
            unsafe { *tile.out(row, column) += *bias.at(row, column) }
        }
    }
}

impl Scalar for f32 {
    unsafe fn multiply(tile: &Tile<Self>, depths: &[Range<usize>]) {
        // SAFETY: the caller's promise.
        unsafe { multiply_native(tile, depths) }
    }
}

impl Scalar for f64 {
    unsafe fn multiply(tile: &Tile<Self>, depths: &[Range<usize>]) {
        // SAFETY: the caller's promise.
        unsafe { multiply_native(tile, depths) }
    }
}

/// What is widened to float32 first.
trait Half: Copy {
    fn widen(self) -> f32;
    fn widen_slice(from: &[Self], to: &mut [f32]);
    fn narrow(from: f32) -> Self;
    fn narrow_slice(from: &[f32], to: &mut [Self]);
}
macro_rules! half {
    ($T:ty) => {
        impl Half for $T {
            fn widen(self) -> f32 {
                self.to_f32()
            }
            fn widen_slice(from: &[Self], to: &mut [f32]) {
                from.convert_to_f32_slice(to);
            }
            fn narrow(from: f32) -> Self {
                Self::from_f32(from)
            }
            fn narrow_slice(from: &[f32], to: &mut [Self]) {
                to.convert_from_f32_slice(from);
            }
        }

        impl Scalar for $T {
            unsafe fn multiply(tile: &Tile<Self>, depths: &[Range<usize>]) {
                // SAFETY: the caller's promise.
                unsafe { multiply_half(tile, depths) }
            }
        }
    };
}
half!(f16);
half!(bf16);

/// # Safety
/// That of [`Scalar::multiply`].
unsafe fn multiply_half<T: Half>(tile: &Tile<T>, depths: &[Range<usize>]) {
    let Tile { rows, columns, tensor, weight, .. } = *tile;
    let mut sum = vec![0.0f32; rows * columns];
    let sum_strides = (columns as isize, 1);
    let (mut a, mut b) = (Vec::new(), Vec::new());
    for depth in depths.iter().flat_map(|depth| blocks(depth.clone(), DEPTH)) {
        // SAFETY: the caller promises all elements of the tile's matrices, of which these are blocks; `sum` has
        // rows × columns elements and is ours.
        unsafe {
            let a = widen(&mut a, tensor, 0..rows, depth.clone());
            let b = widen(&mut b, weight, depth.clone(), 0..columns);
            product((rows, columns, depth.len()), (sum.as_mut_ptr(), sum_strides), a, b, true);
        }
    }
    for (row, sum) in sum.chunks_exact_mut(columns).enumerate() {
        if let Some(bias) = tile.bias {
            for (column, sum) in sum.iter_mut().enumerate() {
                // SAFETY: the bias has as many columns as the tile.
                *sum += unsafe { *bias.at(0, column) }.widen();
            }
        }
        if tile.out_strides.1 == 1 {
            // SAFETY: a row of the tile, contiguous as its column stride is 1, and written by nobody else.
            T::narrow_slice(sum, unsafe { std::slice::from_raw_parts_mut(tile.out(row, 0), columns) });
        } else {
            for (column, sum) in sum.iter().enumerate() {
                // SAFETY: within the tile.
                unsafe { *tile.out(row, column) = T::narrow(*sum) }
            }
        }
    }
}

/// A block of a 16-bit matrix as float32 in `buffer`, in the order in which it lies in memory.
///
/// # Safety
/// The block must be within the matrix.
unsafe fn widen<T: Half>(
    buffer: &mut Vec<f32>,
    matrix: Matrix<T>,
    rows: Range<usize>,
    columns: Range<usize>,
) -> Matrix<f32> {
    let (height, width) = (rows.len(), columns.len());
    buffer.resize(height * width, 0.0);
    // SAFETY: the first element of the block.
    let start = unsafe { matrix.at(rows.start, columns.start) };
    let by_columns = matrix.row == 1 && matrix.column != 1;
    let (lines, length, line, step) = if by_columns {
        (width, height, matrix.column, matrix.row)
    } else {
        (height, width, matrix.row, matrix.column)
    };
    if length > 0 {
        for (index, to) in buffer.chunks_exact_mut(length).enumerate().take(lines) {
            // SAFETY: `index` counts lines and the offsets below count elements of a line of the block.
            unsafe {
                let from = start.offset(index as isize * line);
                if step == 1 {
                    T::widen_slice(std::slice::from_raw_parts(from, length), to);
                } else {
                    for (position, to) in to.iter_mut().enumerate() {
                        *to = (*from.offset(position as isize * step)).widen();
                    }
                }
            }
        }
    }
    let data = buffer.as_ptr();
    if by_columns { Matrix::new(data, 1, height as isize) } else { Matrix::new(data, width as isize, 1) }
}

#[cfg(test)]
mod tests;
