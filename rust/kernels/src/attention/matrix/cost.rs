//! What a call costs, when it is shared with other threads, and into which pieces it is cut.

use super::options::{MatrixAttention, Normalization};
use crate::attention::Band;
use crate::view::Layout;

const PAGE_BYTES: usize = 4096;
/// Smaller outputs are not worth a system call.
const LARGE_BYTES: usize = 16 << 20;
/// A row has at least this many times the pages of its band if huge pages are not worth it.
const FEW_PAGES: usize = 8;
/// What an entry costs that is searched, normalised or not beside the next one, next to one that is copied or cleared:
/// 0.8 ns and 0.1 ns.
const SEARCHED: usize = 8;
/// From this cost on, in entries that are copied, a call is shared with other threads: some 50 µs. `docs/matrix.md` has
/// the measurement.
const PARALLEL_COST: usize = 1 << 19;
/// What one piece should cost.
pub(super) const PIECE_COST: usize = 1 << 18;
/// How many rows are copied together when their entries are not next to each other: a cache line of float32.
pub(super) const ROWS_TOGETHER: usize = 16;
/// Into at least how many pieces a parallel call is cut, if it has as many rows.
const PIECES: usize = 64;

/// Whether rows that cost so much each are shared with other threads.
pub(super) fn is_parallel(rows: usize, row_cost: usize) -> bool {
    row_cost.saturating_mul(rows) >= PARALLEL_COST
}

/// How many of `rows` rows one piece of a parallel call has.
pub(super) fn rows_of_a_piece(rows: usize, row_cost: usize) -> usize {
    let piece = (PIECE_COST / row_cost).next_multiple_of(ROWS_TOGETHER).max(ROWS_TOGETHER);
    // So few rows are spread one by one.
    piece.min(rows.div_ceil(PIECES))
}

impl MatrixAttention {
    /// Whether a call on matrices of these layouts is so small that handing it to another thread, or only giving up a lock
    /// for its time, would cost more than it does.
    pub fn is_small(&self, from: &Layout, to: &Layout) -> bool {
        let (&[.., n_q, n_k], Ok(window)) = (from.shape(), self.check()) else { return true };
        let rows = from.len() / n_k.max(1);
        let strided = [from, to].iter().any(|layout| layout.strides().last() != Some(&1));
        let widest = Band::new(window, self.align, n_q, n_k).widest(n_q);
        !is_parallel(rows, self.row_cost(n_k, widest, false, strided))
    }

    /// What a row costs, in entries that are copied; at least 1.
    pub(super) fn row_cost(&self, columns: usize, widest: usize, zeroed: bool, strided: bool) -> usize {
        let searched = self.sparsity_ratio.is_some() || self.normalization != Normalization::None;
        let others = if zeroed { 0 } else { columns - widest.min(columns) };
        let cost = |entries: usize, dear: bool| if dear { entries.saturating_mul(SEARCHED) } else { entries };
        cost(widest, searched || strided).saturating_add(cost(others, strided)).max(1)
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
}
