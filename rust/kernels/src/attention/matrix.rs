//! Attention on a given matrix `[..., n_q, n_k]` of scores or weights: keep the k largest of each row, or those in a
//! window, drop the others, and normalise what is kept.

use super::band::{Align, Band, Window, WindowSize};
use super::row::{Row, Scratch};
use crate::arch::{Cpu, Element, Level, Task};
use crate::view::{Layout, LeadingAxes, MatrixLayout, View, ViewMut};
use crate::{Error, Result, parallel};

/// What becomes of the entries that are kept.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Default)]
pub enum Normalization {
    /// They come back bit for bit.
    #[default]
    None,
    /// The matrix holds scores: softmax over the kept ones. A row of only -inf becomes 0; +inf or NaN give NaN.
    Softmax,
    /// The matrix holds weights: the kept ones are divided by their sum. A sum of 0 gives a row of 0.
    Sum,
}

impl Normalization {
    /// The normalisation that has this name.
    pub fn named(name: &str) -> Result<Self> {
        match name {
            "none" => Ok(Normalization::None),
            "softmax" => Ok(Normalization::Softmax),
            "sum" => Ok(Normalization::Sum),
            _ => Err(Error::Range {
                argument: "normalization",
                given: format!("{name:?}"),
                allowed: "\"none\", \"softmax\" or \"sum\"",
            }),
        }
    }
}

/// Attention on a given matrix: which entries of a row are kept, and what becomes of them.
///
/// Allowed are the entries in the window, and under causal order those that are not in the query's future. Of these the
/// largest are kept if `sparsity_ratio` says so, otherwise all. Everything else becomes 0.
#[derive(Debug, Clone, Copy, PartialEq)]
pub struct MatrixAttention {
    /// The share of a row's entries to drop, 0 ≤ ratio < 1; see [`kept`]. `None` keeps every allowed entry.
    pub sparsity_ratio: Option<f64>,
    /// Which keys a query may look at.
    pub window_size: WindowSize,
    /// Whether a query may look at keys of its own position and before only.
    pub is_causal: bool,
    /// Where query 0 stands when there are more keys than queries, or fewer.
    pub align: Align,
    /// What becomes of the kept entries.
    pub normalization: Normalization,
    /// Scores are divided by it before the softmax; positive and finite, and 1 without softmax.
    pub temperature: f64,
}

impl Default for MatrixAttention {
    /// Keeps everything as it is.
    fn default() -> Self {
        Self {
            sparsity_ratio: None,
            window_size: WindowSize::Unbounded,
            is_causal: false,
            align: Align::BottomRight,
            normalization: Normalization::None,
            temperature: 1.0,
        }
    }
}

/// What the output holds before the call.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub enum Before {
    /// Anything.
    Anything,
    /// Zeros: what is dropped need not be written.
    Zeros,
}

/// How many of `n_k` entries are kept: `min(n_k, max(1, n_k - floor(ratio * n_k + 1e-9)))`. The small term makes 0.8
/// keep 2 of 10 although 0.8 * 10 is a little less than 8 in floating point.
pub fn kept(n_k: usize, ratio: f64) -> usize {
    let dropped = (ratio * n_k as f64 + 1e-9).floor() as usize;
    n_k.saturating_sub(dropped).max(1).min(n_k)
}

const PAGE_BYTES: usize = 4096;
/// Smaller outputs are not worth a system call.
const LARGE_BYTES: usize = 16 << 20;
/// A row has at least this many times the pages of its band if huge pages are not worth it.
const FEW_PAGES: usize = 8;
/// What an entry costs that is searched, normalised or not beside the next one, next to one that is copied or cleared:
/// 0.8 ns and 0.1 ns.
const SEARCHED: usize = 8;
/// From this much work on, in entries that are copied, a call goes to the thread pool: some 50 µs. `docs/matrix.md` has
/// the measurement.
const PARALLEL_WORK: usize = 1 << 19;
/// How much work one piece should have.
const PIECE_WORK: usize = 1 << 18;
/// From this many bytes on an output is written past the caches; what does not fit them is not read back from there.
const STREAMED_BYTES: usize = 16 << 20;
/// How many rows are gathered together when their entries are not next to each other: a cache line of float32.
const GATHERED_ROWS: usize = 16;

impl MatrixAttention {
    /// Writes the processed matrix to `out`, which may be the input itself.
    ///
    /// Whether `out` was zero before decides only how much is written. The result does not depend on the number of
    /// threads, nor, but for the rounding of normalised entries, on the level.
    ///
    /// # Errors
    /// A parameter out of range, a rank below 2, another shape than the input's, an `out` that overlaps the input.
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
        let work = Work {
            of_a_row: self.work_of_a_row(
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
            row: Row {
                keep: self.sparsity_ratio.map(|ratio| kept(from_layout.columns, ratio)),
                normalization: self.normalization,
                temperature: self.temperature,
                zeroed,
                streamed: bytes >= STREAMED_BYTES && !in_place,
            },
        };
        work.run(level);
        Ok(())
    }

    /// Whether a call on matrices of these layouts is so small that handing it to another thread, or only giving up a lock
    /// for its time, would cost more than it does.
    pub fn is_small(&self, from: &Layout, to: &Layout) -> bool {
        let (&[.., n_q, n_k], Ok(window)) = (from.shape(), self.check()) else { return true };
        let rows = from.len() / n_k.max(1);
        let strided = [from, to].iter().any(|layout| layout.strides().last() != Some(&1));
        let widest = Band::new(window, self.align, n_q, n_k).widest(n_q);
        self.work_of_a_row(n_k, widest, false, strided).saturating_mul(rows) < PARALLEL_WORK
    }

    /// What a row costs, in entries that are copied; at least 1.
    fn work_of_a_row(&self, columns: usize, widest: usize, zeroed: bool, strided: bool) -> usize {
        let searched = self.sparsity_ratio.is_some() || self.normalization != Normalization::None;
        let others = if zeroed { 0 } else { columns - widest.min(columns) };
        let cost = |entries: usize, dear: bool| if dear { entries.saturating_mul(SEARCHED) } else { entries };
        cost(widest, searched || strided).saturating_add(cost(others, strided)).max(1)
    }

    /// Whether a part of the output may be left to zeros that are there already ([`Before::Zeros`]).
    pub fn leaves_zeros(&self) -> bool {
        self.is_causal || self.window_size != WindowSize::Unbounded
    }

    /// Whether of a large output that is zero before only few pages are written, so that huge ones (512 times as large)
    /// would cost more than they save. See `docs/matrix.md` for the measurement.
    pub fn writes_few_pages(&self, layout: &Layout, item_size: usize) -> bool {
        let (&[.., n_q, n_k], Ok(window)) = (layout.shape(), self.check()) else { return false };
        if !self.leaves_zeros() || layout.len().saturating_mul(item_size) < LARGE_BYTES {
            return false;
        }
        let pages = |entries: usize| entries * item_size / PAGE_BYTES;
        pages(n_k) >= FEW_PAGES * (pages(Band::new(window, self.align, n_q, n_k).widest(n_q)) + 1)
    }

    /// Checks everything that does not depend on the matrix.
    pub fn check(&self) -> Result<Window> {
        if let Some(ratio) = self.sparsity_ratio
            && !(0.0..1.0).contains(&ratio)
        {
            return Err(Error::Range {
                argument: "sparsity_ratio",
                given: ratio.to_string(),
                allowed: "0 <= sparsity_ratio < 1",
            });
        }
        if !(self.temperature > 0.0 && self.temperature.is_finite()) {
            return Err(Error::Range {
                argument: "temperature",
                given: self.temperature.to_string(),
                allowed: "a positive, finite number",
            });
        }
        if self.temperature != 1.0 && self.normalization != Normalization::Softmax {
            return Err(Error::Conflict {
                argument: "temperature",
                problem: "only normalization=\"softmax\" has a temperature; leave it at 1.0 otherwise",
            });
        }
        Window::new(self.window_size, self.is_causal)
    }
}

/// A whole call. Rows are numbered through all matrices.
struct Work<'a, T> {
    from: *const T,
    from_layout: MatrixLayout,
    leading: LeadingAxes<'a>,
    to: *mut T,
    to_layout: MatrixLayout,
    out_leading: LeadingAxes<'a>,
    band: Band,
    row: Row,
    /// See [`MatrixAttention::work_of_a_row`].
    of_a_row: usize,
}

// SAFETY: pieces read shared elements and write rows of their own (`Piece::run`); `View` and `ViewMut`, whose pointers
// these are, are Sync for the same reason.
unsafe impl<T: Sync> Sync for Work<'_, T> {}

impl<T: Element> Work<'_, T> {
    fn run(&self, level: Level) {
        let rows = self.leading.count() * self.from_layout.rows;
        let parallel = self.of_a_row.saturating_mul(rows) >= PARALLEL_WORK;
        let piece = if parallel { rows_of_a_piece(rows, self.of_a_row) } else { rows };
        let pieces = rows.div_ceil(piece);
        let mut scratch: Vec<Scratch<T>> =
            (0..parallel::participants(pieces, parallel)).map(|_| Scratch::default()).collect();
        parallel::for_each_with(pieces, &mut scratch, |scratch, index| {
            let first = index * piece;
            level.run(Piece { work: self, scratch, first, last: (first + piece).min(rows) });
        });
    }
}

/// Into at least how many pieces parallel work is cut, if it has as many rows.
const PIECES: usize = 64;

/// How many of `rows` rows one piece of parallel work has, if each costs `work`.
fn rows_of_a_piece(rows: usize, work: usize) -> usize {
    let piece = (PIECE_WORK / work).next_multiple_of(GATHERED_ROWS).max(GATHERED_ROWS);
    // So few rows are spread one by one.
    piece.min(rows.div_ceil(PIECES))
}

/// A run of rows.
struct Piece<'a, T: Element> {
    work: &'a Work<'a, T>,
    scratch: &'a mut Scratch<T>,
    first: usize,
    last: usize,
}

impl<T: Element> Task for Piece<'_, T> {
    type Output = ();

    #[inline(always)]
    fn run<C: Cpu>(self, cpu: C) {
        let work = self.work;
        let queries = work.from_layout.rows;
        let mut row = self.first;
        while row < self.last {
            let (matrix, query) = (row / queries, row % queries);
            let last = (query + (self.last - row)).min(queries);
            let from = work.from.wrapping_offset(work.leading.offset(matrix));
            let to = work.to.wrapping_offset(work.out_leading.offset(matrix));
            row += last - query;
            if work.from_layout.column_stride == 1 && work.to_layout.column_stride == 1 {
                for query in query..last {
                    let from = from.wrapping_offset(query as isize * work.from_layout.row_stride);
                    let to = to.wrapping_offset(query as isize * work.to_layout.row_stride);
                    let keys = work.band.keys(query);
                    // SAFETY: both views hold every entry of this row (`View`, `ViewMut`), entries are next to each
                    // other, and no other piece writes this row. If the rows are not the same they do not overlap
                    // (`check_overlap`).
                    unsafe { work.row.run(cpu, self.scratch, from, to, work.from_layout.columns, keys) };
                }
            } else {
                for query in (query..last).step_by(GATHERED_ROWS) {
                    let rows = query..last.min(query + GATHERED_ROWS);
                    // SAFETY: as above, but for the entries being next to each other.
                    unsafe { work.gathered(cpu, self.scratch, from, to, rows) };
                }
            }
        }
        cpu.fence();
    }
}

impl<T: Element> Work<'_, T> {
    /// Some rows of one matrix by way of a buffer in which their entries are next to each other.
    ///
    /// # Safety
    /// `from` and `to` point to the beginning of a matrix of the layouts of this work; nobody else writes these rows.
    #[inline(always)]
    unsafe fn gathered<C: Cpu>(
        &self,
        cpu: C,
        scratch: &mut Scratch<T>,
        from: *const T,
        to: *mut T,
        rows: std::ops::Range<usize>,
    ) {
        let union = self.band.keys_of_any(rows.clone());
        // Every column that is written; the buffer holds these.
        let columns = if self.row.zeroed { union.clone() } else { 0..self.from_layout.columns };
        let mut buffer = std::mem::take(&mut scratch.rows);
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
        let kernel = if straight { self.row } else { Row { zeroed: false, streamed: false, ..self.row } };
        for query in rows.clone() {
            let keys = self.band.keys(query);
            let allowed = keys.start - columns.start..keys.end - columns.start;
            let row = buffer[place(query, columns.start)..][..columns.len()].as_mut_ptr();
            let to = if straight { to.wrapping_offset(entry(&self.to_layout, query, columns.start)) } else { row };
            // SAFETY: the buffer has a row of these columns there, and so has the output.
            unsafe { kernel.run(cpu, scratch, row, to, columns.len(), allowed) };
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
fn walk(
    layout: &MatrixLayout,
    rows: std::ops::Range<usize>,
    columns: std::ops::Range<usize>,
    mut visit: impl FnMut(usize, usize),
) {
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

#[cfg(test)]
mod huge;
#[cfg(test)]
mod tests;
