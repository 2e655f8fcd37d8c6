//! A whole call: rows numbered through all matrices, cut into pieces.

use std::ops::Range;

use super::cost::{ROWS_TOGETHER, is_parallel, rows_of_a_piece};
use super::options::{Before, MatrixAttention, kept};
use super::row::{RowScratch, Rule};
use crate::arch::{Cpu, Element, Level, Task};
use crate::attention::Band;
use crate::buffer::made;
use crate::view::{LeadingAxes, MatrixLayout, View, ViewMut};
use crate::{Error, Result, parallel};

/// From this many bytes on an output is written past the caches; what does not fit them is not read back from there.
pub(super) const STREAMED_BYTES: usize = 16 << 20;

impl MatrixAttention {
    /// Writes the processed matrix to `out`, which may be the input itself.
    ///
    /// Whether `out` was zero before decides only how much is written. The result does not depend on the number of
    /// threads, nor, but for the rounding of normalised entries, on the level.
    ///
    /// # Errors
    /// A parameter out of range, a rank below 2, another shape than the input's, an `out` that overlaps the input;
    /// scratch memory that cannot be had. Then nothing has been written.
    pub fn run<T: Element>(
        &self,
        level: Level,
        matrix: &View<'_, T>,
        out: &mut ViewMut<'_, T>,
        before: Before,
    ) -> Result<()> {
        let window = self.check()?;
        let given = matrix.shape();
        if given.len() < 2 {
            return Err(Error::Rank {
                argument: "attention_matrix",
                given: given.len(),
                allowed: "at least 2 ([..., n_q, n_k])",
            });
        }
        if out.shape() != given {
            return Err(Error::Shape { argument: "out", given: out.shape().to_vec(), allowed: format!("{given:?}") });
        }
        out.check_overlap("out", matrix, true)?;
        if matrix.layout().is_empty() {
            return Ok(());
        }
        let in_place = std::ptr::eq(out.as_ptr(), matrix.as_ptr());
        let (to, bytes) = (out.as_mut_ptr(), size_of::<T>() * out.layout().len());
        let (leading, from_layout) = matrix.layout().matrices();
        let (out_leading, to_layout) = out.layout().matrices();
        let band = Band::new(window, self.align, from_layout.rows, from_layout.columns);
        let zeroed = before == Before::Zeros;
        let call = MatrixCall {
            row_cost: self.row_cost(
                from_layout.columns,
                band.widest(from_layout.rows),
                zeroed,
                from_layout.column_stride != 1 || to_layout.column_stride != 1,
            ),
            from: matrix.as_ptr(),
            from_layout,
            leading,
            to,
            to_layout,
            out_leading,
            band,
            rule: Rule {
                keep: self.sparsity_ratio.map(|ratio| kept(from_layout.columns, ratio)),
                normalization: self.normalization,
                temperature: self.temperature,
                zeroed,
                streamed: bytes >= STREAMED_BYTES && !in_place,
            },
        };
        call.run(level)
    }
}

/// A whole call. Rows are numbered through all matrices.
struct MatrixCall<'a, T> {
    from: *const T,
    from_layout: MatrixLayout,
    leading: LeadingAxes<'a>,
    to: *mut T,
    to_layout: MatrixLayout,
    out_leading: LeadingAxes<'a>,
    band: Band,
    rule: Rule,
    /// See [`MatrixAttention::row_cost`].
    row_cost: usize,
}

// SAFETY: pieces read shared elements and write rows of their own (`Piece::run`); `View` and `ViewMut`, whose pointers
// these are, are Sync for the same reason.
unsafe impl<T: Sync> Sync for MatrixCall<'_, T> {}

impl<T: Element> MatrixCall<'_, T> {
    fn run(&self, level: Level) -> Result<()> {
        let rows = self.leading.count() * self.from_layout.rows;
        let parallel = is_parallel(rows, self.row_cost);
        let piece = if parallel { rows_of_a_piece(rows, self.row_cost) } else { rows };
        let pieces = rows.div_ceil(piece);
        let (most, together) = (self.band.most(), self.entries_together());
        let threads = parallel::participants(pieces, parallel);
        let mut scratch = made(threads, |_| RowScratch::new(&self.rule, most, together))?;
        parallel::for_each_with(pieces, &mut scratch, |scratch, index| {
            let first = index * piece;
            level.run(Piece { call: self, scratch, first, last: (first + piece).min(rows) });
        });
        Ok(())
    }

    /// Whether the entries of a row are next to each other, where they are read and where they are written.
    fn is_straight(&self) -> bool {
        self.from_layout.column_stride == 1 && self.to_layout.column_stride == 1
    }

    /// At most how many entries of [`ROWS_TOGETHER`] rows are copied together.
    fn entries_together(&self) -> usize {
        let Self { from_layout: MatrixLayout { rows, columns, .. }, .. } = *self;
        let columns =
            if self.rule.zeroed { columns.min(self.band.most().saturating_add(ROWS_TOGETHER)) } else { columns };
        if self.is_straight() { 0 } else { columns.saturating_mul(rows.min(ROWS_TOGETHER)) }
    }
}

/// A run of rows.
struct Piece<'a, T: Element> {
    call: &'a MatrixCall<'a, T>,
    scratch: &'a mut RowScratch<T>,
    first: usize,
    last: usize,
}

impl<T: Element> Task for Piece<'_, T> {
    type Output = ();

    #[inline(always)]
    fn run<C: Cpu>(self, cpu: C) {
        let call = self.call;
        let queries = call.from_layout.rows;
        let mut row = self.first;
        while row < self.last {
            let (matrix, query) = (row / queries, row % queries);
            let last = (query + (self.last - row)).min(queries);
            let from = call.from.wrapping_offset(call.leading.offset(matrix));
            let to = call.to.wrapping_offset(call.out_leading.offset(matrix));
            row += last - query;
            if call.is_straight() {
                for query in query..last {
                    let from = from.wrapping_offset(query as isize * call.from_layout.row_stride);
                    let to = to.wrapping_offset(query as isize * call.to_layout.row_stride);
                    let keys = call.band.keys(query);
                    // SAFETY: both views hold every entry of this row (`View`, `ViewMut`), entries are next to each
                    // other, and no other piece writes this row. If the rows are not the same they do not overlap
                    // (`check_overlap`).
                    unsafe { call.rule.run(cpu, self.scratch, (from, to), call.from_layout.columns, keys) };
                }
            } else {
                for query in (query..last).step_by(ROWS_TOGETHER) {
                    let rows = query..last.min(query + ROWS_TOGETHER);
                    // SAFETY: as above, but for the entries being next to each other.
                    unsafe { call.together(cpu, self.scratch, (from, to), rows) };
                }
            }
        }
        cpu.fence();
    }
}

impl<T: Element> MatrixCall<'_, T> {
    /// Some rows of one matrix by way of a buffer in which their entries are next to each other.
    ///
    /// # Safety
    /// `from` and `to` point to the beginning of a matrix of the layouts of this call; nobody else writes these rows.
    #[inline(always)]
    unsafe fn together<C: Cpu>(
        &self,
        cpu: C,
        scratch: &mut RowScratch<T>,
        (from, to): (*const T, *mut T),
        rows: Range<usize>,
    ) {
        let union = self.band.keys_of_any(rows.clone());
        // Every column that is written; the buffer holds these.
        let columns = if self.rule.zeroed { union.clone() } else { 0..self.from_layout.columns };
        let mut buffer = std::mem::take(&mut scratch.rows);
        // The memory is there, see `entries_together`.
        buffer.resize(buffer.len().max(rows.len() * columns.len()), T::NULL);
        let entry = |layout: &MatrixLayout, row: usize, column: usize| {
            row as isize * layout.row_stride + column as isize * layout.column_stride
        };
        let place = |row: usize, column: usize| (row - rows.start) * columns.len() + (column - columns.start);
        walk(&self.from_layout, rows.clone(), union, |row, column| {
            // SAFETY: the entry is in the matrix, and the buffer has a place for each of these rows and columns.
            unsafe {
                *buffer.get_unchecked_mut(place(row, column)) = *from.offset(entry(&self.from_layout, row, column))
            }
        });
        let straight = self.to_layout.column_stride == 1;
        // A buffer is read back at once, and it held something else before.
        let rule = if straight { self.rule } else { Rule { zeroed: false, streamed: false, ..self.rule } };
        for query in rows.clone() {
            let keys = self.band.keys(query);
            let allowed = keys.start - columns.start..keys.end - columns.start;
            let row = buffer[place(query, columns.start)..][..columns.len()].as_mut_ptr();
            let to = if straight { to.wrapping_offset(entry(&self.to_layout, query, columns.start)) } else { row };
            // SAFETY: the buffer has a row of these columns there, and so has the output.
            unsafe { rule.run(cpu, scratch, (row.cast_const(), to), columns.len(), allowed) };
        }
        if !straight {
            walk(&self.to_layout, rows.clone(), columns.clone(), |row, column| {
                // SAFETY: as above; every row has been read before it is written.
                unsafe { *to.offset(entry(&self.to_layout, row, column)) = *buffer.get_unchecked(place(row, column)) }
            });
        }
        scratch.rows = buffer;
    }
}

/// Visits entries in the order in which they stand in memory.
#[inline(always)]
fn walk(layout: &MatrixLayout, rows: Range<usize>, columns: Range<usize>, mut visit: impl FnMut(usize, usize)) {
    if layout.row_stride.unsigned_abs() < layout.column_stride.unsigned_abs() {
        for column in columns {
            for row in rows.clone() {
                visit(row, column);
            }
        }
    } else {
        for row in rows {
            for column in columns.clone() {
                visit(row, column);
            }
        }
    }
}
