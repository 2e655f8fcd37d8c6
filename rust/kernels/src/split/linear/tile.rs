//! A tile of the result as products of the `gemm` crate; 16-bit types are widened in blocks first.

use std::ops::Range;

use half::slice::HalfFloatSliceExt;
use half::{bf16, f16};

use super::{Scalar, blocks};

/// 16-bit operands are widened in blocks of at most this many of the axis that is summed over.
const DEPTH: usize = 512;
/// Up to this many rows, a weight whose columns are contiguous (a transposed one, as PyTorch keeps it) is multiplied as
/// dot products in blocks of [`DOTS`] results, which `gemm` has kernels for. Packing such a weight costs the same for
/// any number of rows: 40 ms for 4096 × 4096, against 4 ms for 16 rows of dot products and 22 ms for 128.
const DOT_ROWS: usize = 128;
const DOTS: (usize, usize) = (16, 256);

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
    pub(super) fn new(data: *const T, row: isize, column: isize) -> Self {
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
    pub(super) rows: usize,
    pub(super) columns: usize,
    pub(super) tensor: Matrix<T>,
    pub(super) weight: Matrix<T>,
    pub(super) bias: Option<Matrix<T>>,
    pub(super) out: *mut T,
    pub(super) out_strides: (isize, isize),
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
