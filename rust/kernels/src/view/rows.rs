//! The rows of a matrix: what kernels read and write through.
//!
//! There is no slice of a caller's memory anywhere: while a kernel runs another thread of the caller's may write to it,
//! and behind a `&[T]` the compiler may read an element twice. Elements are read through these pointers, as values.

use std::any::TypeId;
use std::marker::PhantomData;
use std::ops::Range;

use super::array::{View, ViewMut};
use super::layout::{Layout, MatrixLayout};
use crate::Result;
use crate::buffer::{made, reserved};

/// Rows of a matrix that may be read: `count` times `columns` elements, of any strides, which were checked to be within a
/// [`View`] or a slice when this was made.
#[derive(Debug)]
pub(crate) struct Rows<'a, T> {
    first: *const T,
    matrix: MatrixLayout,
    elements: PhantomData<&'a T>,
}

impl<T> Clone for Rows<'_, T> {
    fn clone(&self) -> Self {
        *self
    }
}
impl<T> Copy for Rows<'_, T> {}

// SAFETY: elements are only read through it, as through a View.
unsafe impl<T: Sync> Send for Rows<'_, T> {}
// SAFETY: as above.
unsafe impl<T: Sync> Sync for Rows<'_, T> {}

impl<'a, T> Rows<'a, T> {
    /// The rows of a slice of our own, one behind the other. Panics if they are not whole.
    #[inline(always)]
    pub(crate) fn of(elements: &'a [T], count: usize, columns: usize) -> Self {
        assert!(count.checked_mul(columns) == Some(elements.len()), "rows of another length");
        let matrix = MatrixLayout { rows: count, columns, row_stride: columns as isize, column_stride: 1 };
        Self { first: elements.as_ptr(), matrix, elements: PhantomData }
    }

    /// How many rows there are.
    #[inline(always)]
    pub(crate) fn count(&self) -> usize {
        self.matrix.rows
    }

    /// How many elements a row has.
    #[inline(always)]
    pub(crate) fn columns(&self) -> usize {
        self.matrix.columns
    }

    /// Elements from one row to the next.
    #[inline(always)]
    pub(crate) fn row_stride(&self) -> isize {
        self.matrix.row_stride
    }

    /// Elements from one column to the next.
    #[inline(always)]
    pub(crate) fn column_stride(&self) -> isize {
        self.matrix.column_stride
    }

    /// Whether neighbours in a row are neighbours in memory.
    #[inline(always)]
    pub(crate) fn is_contiguous(&self) -> bool {
        self.matrix.column_stride == 1 || self.matrix.columns <= 1
    }

    /// Where a row begins: so many elements as there are columns, a column stride apart, may be read for `'a`. Panics if
    /// there is no such row.
    #[inline(always)]
    pub(crate) fn row(&self, index: usize) -> *const T {
        assert!(index < self.matrix.rows, "no such row");
        self.first.wrapping_offset(index as isize * self.matrix.row_stride)
    }

    /// Some columns of some rows. Panics if there are none such.
    #[inline(always)]
    pub(crate) fn part(&self, rows: Range<usize>, columns: Range<usize>) -> Self {
        assert!(rows.start <= rows.end && rows.end <= self.matrix.rows, "no such rows");
        assert!(columns.start <= columns.end && columns.end <= self.matrix.columns, "no such columns");
        let offset = rows.start as isize * self.matrix.row_stride + columns.start as isize * self.matrix.column_stride;
        let matrix = MatrixLayout { rows: rows.len(), columns: columns.len(), ..self.matrix };
        Self { first: self.first.wrapping_offset(offset), matrix, elements: PhantomData }
    }

    /// Its columns as rows.
    #[inline(always)]
    pub(crate) fn transposed(&self) -> Self {
        let MatrixLayout { rows, columns, row_stride, column_stride } = self.matrix;
        let matrix =
            MatrixLayout { rows: columns, columns: rows, row_stride: column_stride, column_stride: row_stride };
        Self { matrix, ..*self }
    }
}

impl<'a, T: 'static> Rows<'a, T> {
    /// The same rows, if `T` is `U`.
    #[inline(always)]
    pub(crate) fn typed<U: 'static>(self) -> Option<Rows<'a, U>> {
        let same = TypeId::of::<T>() == TypeId::of::<U>();
        same.then(|| Rows { first: self.first.cast(), matrix: self.matrix, elements: PhantomData })
    }
}

impl<T: Copy> Rows<'_, T> {
    /// An element, read once. Panics if there is no such one.
    #[inline(always)]
    pub(crate) fn get(&self, row: usize, column: usize) -> T {
        assert!(column < self.matrix.columns, "no such column");
        // SAFETY: the row was checked by `row`, the column above.
        unsafe { self.row(row).offset(column as isize * self.matrix.column_stride).read() }
    }
}

/// Rows of a matrix that only the holder writes to, else as [`Rows`].
#[derive(Debug)]
pub(crate) struct RowsMut<'a, T> {
    first: *mut T,
    matrix: MatrixLayout,
    elements: PhantomData<&'a mut T>,
}

// SAFETY: a unique borrow of plain elements, as a ViewMut is.
unsafe impl<T: Send> Send for RowsMut<'_, T> {}
// SAFETY: through a shared reference only the layout is read.
unsafe impl<T: Sync> Sync for RowsMut<'_, T> {}

impl<'a, T> RowsMut<'a, T> {
    /// The rows of a slice of our own, one behind the other. Panics if they are not whole.
    #[inline(always)]
    pub(crate) fn of(elements: &'a mut [T], count: usize, columns: usize) -> Self {
        let matrix = Rows::of(elements, count, columns).matrix;
        Self { first: elements.as_mut_ptr(), matrix, elements: PhantomData }
    }

    /// How many rows there are.
    #[inline(always)]
    pub(crate) fn count(&self) -> usize {
        self.matrix.rows
    }

    /// How many elements a row has.
    #[inline(always)]
    pub(crate) fn columns(&self) -> usize {
        self.matrix.columns
    }

    /// Elements from one row to the next.
    #[inline(always)]
    pub(crate) fn row_stride(&self) -> isize {
        self.matrix.row_stride
    }

    /// Elements from one column to the next.
    #[inline(always)]
    pub(crate) fn column_stride(&self) -> isize {
        self.matrix.column_stride
    }

    /// Whether neighbours in a row are neighbours in memory.
    #[inline(always)]
    pub(crate) fn is_contiguous(&self) -> bool {
        self.matrix.column_stride == 1 || self.matrix.columns <= 1
    }

    /// Where a row begins: so many elements as there are columns, a column stride apart, may be read and written while
    /// `self` is borrowed. Panics if there is no such row.
    #[inline(always)]
    pub(crate) fn row(&mut self, index: usize) -> *mut T {
        assert!(index < self.matrix.rows, "no such row");
        self.first.wrapping_offset(index as isize * self.matrix.row_stride)
    }

    /// Some columns of some rows. Panics if there are none such.
    #[inline(always)]
    pub(crate) fn part(&mut self, rows: Range<usize>, columns: Range<usize>) -> RowsMut<'_, T> {
        let part = self.as_rows().part(rows, columns);
        RowsMut { first: part.first.cast_mut(), matrix: part.matrix, elements: PhantomData }
    }

    /// The same rows, to read.
    #[inline(always)]
    pub(crate) fn as_rows(&self) -> Rows<'_, T> {
        Rows { first: self.first, matrix: self.matrix, elements: PhantomData }
    }

    /// The same rows, for as long as `self` is borrowed.
    #[inline(always)]
    pub(crate) fn reborrow(&mut self) -> RowsMut<'_, T> {
        RowsMut { ..*self }
    }

    /// An element, written. Panics if there is no such one.
    #[inline(always)]
    pub(crate) fn set(&mut self, row: usize, column: usize, value: T) {
        assert!(column < self.matrix.columns, "no such column");
        // SAFETY: the row was checked by `row`, the column above.
        unsafe { self.row(row).offset(column as isize * self.matrix.column_stride).write(value) }
    }

    /// Cuts into blocks of at most `tall` rows.
    pub(crate) fn blocks(self, tall: usize) -> Result<Vec<RowsMut<'a, T>>> {
        let (rows, columns) = (self.count(), self.columns());
        self.cut(&steps(rows, tall)?, std::slice::from_ref(&(0..columns)))
    }

    /// Cuts into blocks: all `columns` of the first of `rows`, then those of the next. Panics unless the ranges of each
    /// ascend.
    pub(crate) fn cut(mut self, rows: &[Range<usize>], columns: &[Range<usize>]) -> Result<Vec<RowsMut<'a, T>>> {
        for ranges in [rows, columns] {
            assert!(ranges.windows(2).all(|pair| pair[0].end <= pair[1].start), "ranges that do not ascend");
        }
        let mut blocks = reserved(rows.len().saturating_mul(columns.len()))?;
        for rows in rows {
            for columns in columns {
                let RowsMut { first, matrix, .. } = self.part(rows.clone(), columns.clone());
                // No element is in two blocks, and `self`, which all of them are parts of, is used up.
                blocks.push(RowsMut { first, matrix, elements: PhantomData });
            }
        }
        Ok(blocks)
    }
}

impl<'a, T: 'static> RowsMut<'a, T> {
    /// The same rows, if `T` is `U`.
    #[inline(always)]
    pub(crate) fn typed<U: 'static>(self) -> Option<RowsMut<'a, U>> {
        let same = TypeId::of::<T>() == TypeId::of::<U>();
        same.then(|| RowsMut { first: self.first.cast(), matrix: self.matrix, elements: PhantomData })
    }
}

/// `0..length` in steps of `step`, the last one shorter.
pub(crate) fn steps(length: usize, step: usize) -> Result<Vec<Range<usize>>> {
    made(length.div_ceil(step), |index| Ok(index * step..length.min((index + 1) * step)))
}

/// The matrix `index`, in C order, of the leading axes.
fn matrix_of(layout: &Layout, index: usize) -> (isize, MatrixLayout) {
    let (leading, matrix) = layout.matrices();
    assert!(index < leading.count(), "no such matrix");
    (leading.offset(index), matrix)
}

impl<'a, T> View<'a, T> {
    /// Matrix number `index`, in C order of the axes before the last two, of a view of rank 2 at least. Panics if there
    /// is none such.
    pub(crate) fn matrix(&self, index: usize) -> Rows<'a, T> {
        let (offset, matrix) = matrix_of(self.layout(), index);
        Rows { first: self.as_ptr().wrapping_offset(offset), matrix, elements: PhantomData }
    }

    /// The matrix of the last two axes that begins `offset` elements behind element 0 … 0, which may count broadcast axes.
    /// Panics if it reaches beyond the memory of the view.
    #[inline(always)]
    pub(crate) fn matrix_at(&self, offset: isize) -> Rows<'a, T> {
        let (_, matrix) = self.layout().matrices();
        if !self.layout().is_empty() {
            let reach = |low: isize, steps: usize, stride: isize| low + (steps as isize - 1) * stride.min(0);
            let low = reach(reach(offset, matrix.rows, matrix.row_stride), matrix.columns, matrix.column_stride);
            let reach = |high: isize, steps: usize, stride: isize| high + (steps as isize - 1) * stride.max(0);
            let high = reach(reach(offset, matrix.rows, matrix.row_stride), matrix.columns, matrix.column_stride);
            let bounds = self.layout().bounds();
            assert!(bounds.0 <= low && high <= bounds.1, "a matrix beyond its view");
        }
        // Of no elements there are no rows, whatever the shape says, but of rows without columns there are.
        let rows = if self.layout().is_empty() && matrix.columns > 0 { 0 } else { matrix.rows };
        let matrix = MatrixLayout { rows, ..matrix };
        Rows { first: self.as_ptr().wrapping_offset(offset), matrix, elements: PhantomData }
    }

    /// A vector, as one row. Panics if the view has more axes.
    pub(crate) fn vector(&self) -> Rows<'a, T> {
        assert!(self.layout().shape().len() == 1, "no vector");
        self.flat().expect("one row")
    }

    /// The view as one matrix, see [`Layout::flat`].
    pub(crate) fn flat(&self) -> Option<Rows<'a, T>> {
        self.layout().flat().map(|matrix| Rows { first: self.as_ptr(), matrix, elements: PhantomData })
    }
}

impl<T> ViewMut<'_, T> {
    /// The matrix of a view of rank 2.
    pub(crate) fn matrix(&mut self) -> RowsMut<'_, T> {
        let (offset, matrix) = matrix_of(self.layout(), 0);
        RowsMut { first: self.as_mut_ptr().wrapping_offset(offset), matrix, elements: PhantomData }
    }

    /// Every matrix, in C order of the axes before the last two.
    pub(crate) fn matrices(&mut self) -> impl ExactSizeIterator<Item = RowsMut<'_, T>> {
        // No element is in two matrices: the constructor refuses layouts that overlap themselves.
        let first = self.as_mut_ptr();
        let layout = self.layout();
        (0..layout.matrices().0.count()).map(move |index| {
            let (offset, matrix) = matrix_of(layout, index);
            RowsMut { first: first.wrapping_offset(offset), matrix, elements: PhantomData }
        })
    }

    /// The view as one matrix, see [`Layout::flat`].
    pub(crate) fn flat(&mut self) -> Option<RowsMut<'_, T>> {
        let first = self.as_mut_ptr();
        self.layout().flat().map(|matrix| RowsMut { first, matrix, elements: PhantomData })
    }
}

#[cfg(test)]
mod tests {
    use std::panic::{AssertUnwindSafe, catch_unwind};

    use super::*;

    fn is_refused<T>(work: impl FnOnce() -> T) -> bool {
        catch_unwind(AssertUnwindSafe(|| _ = work())).is_err()
    }

    #[test]
    fn a_part_of_a_part_is_where_its_elements_are() {
        let memory: Vec<u32> = (0..24).collect();
        let rows = Rows::of(&memory, 4, 6).part(1..4, 2..6);
        assert_eq!((rows.count(), rows.columns(), rows.get(0, 0), rows.get(2, 3)), (3, 4, 8, 23));
        let turned = rows.transposed().part(1..3, 2..3);
        assert_eq!((turned.count(), turned.columns(), turned.get(0, 0), turned.get(1, 0)), (2, 1, 21, 22));
        assert_eq!((rows.is_contiguous(), rows.transposed().is_contiguous()), (true, false));
    }

    #[test]
    fn blocks_are_every_element_once() {
        let mut memory = [0u32; 35];
        let rows = RowsMut::of(&mut memory, 5, 7);
        for (index, block) in rows.cut(&[0..2, 2..5], &[0..3, 3..3, 3..7]).unwrap().iter_mut().enumerate() {
            for row in 0..block.count() {
                (0..block.columns())
                    .for_each(|column| block.set(row, column, block.as_rows().get(row, column) + 1 + index as u32));
            }
        }
        let wanted = |row: usize, column: usize| [[1, 3], [4, 6]][usize::from(row >= 2)][usize::from(column >= 3)];
        assert!(memory.iter().enumerate().all(|(index, &found)| found == wanted(index / 7, index % 7)));
        assert_eq!(RowsMut::of(&mut memory, 5, 7).blocks(2).unwrap().len(), 3);
    }

    #[test]
    fn what_is_not_there_is_refused() {
        let mut memory = [0u32; 12];
        let rows = Rows::of(&memory, 3, 4);
        assert!(is_refused(|| Rows::of(&memory, 3, 5)));
        assert!(is_refused(|| rows.row(3)) && is_refused(|| rows.get(2, 4)));
        assert!(is_refused(|| rows.part(2..4, 0..1)) && is_refused(|| rows.part(0..1, 4..5)));
        assert!(rows.typed::<u32>().is_some() && rows.typed::<f32>().is_none());
        // From 2, steps of 8, -2 and 1: the elements from 0 to 11.
        let layout = Layout::new("a", &[2, 2, 2], &[8, -2, 1], 4).unwrap();
        // SAFETY: as said.
        let view = unsafe { View::from_raw(memory[2..].as_ptr(), layout) };
        assert!(!is_refused(|| view.matrix(1)) && is_refused(|| view.matrix(2)));
        assert!(
            !is_refused(|| view.matrix_at(8)) && is_refused(|| view.matrix_at(9)) && is_refused(|| view.matrix_at(-1))
        );
        let mut rows = RowsMut::of(&mut memory, 3, 4);
        assert!(is_refused(|| rows.set(0, 4, 1)) && is_refused(|| rows.set(3, 0, 1)));
        assert!(is_refused(|| rows.cut(&[0..2, 1..3], std::slice::from_ref(&(0..4)))));
    }

    #[test]
    fn leading_axes_are_one_matrix_where_one_step_leads_through_them() {
        let flat = |shape: &[usize], strides: &[isize]| {
            Layout::new("a", shape, strides, 4).unwrap().flat().map(|matrix| (matrix.rows, matrix.row_stride))
        };
        assert_eq!(flat(&[2, 3, 4], &[12, 4, 1]), Some((6, 4)));
        assert_eq!(flat(&[2, 1, 4], &[12, 99, 1]), Some((2, 12)));
        assert_eq!(flat(&[2, 3, 4], &[-15, -5, 1]), Some((6, -5)));
        assert_eq!(flat(&[2, 3, 4], &[13, 4, 1]), None);
        assert_eq!(flat(&[4], &[3]), Some((1, 0)));
        assert_eq!(flat(&[0, 3, 4], &[0, 0, 0]), Some((0, 0)));
    }
}
