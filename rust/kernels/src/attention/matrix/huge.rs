//! Matrices of more than 2^32 entries, of which next to nothing is in memory.

use half::f16;
use half::slice::HalfBitsSliceExt;

use super::cost::{PIECE_COST, ROWS_TOGETHER, rows_of_a_piece};
use super::{Before, MatrixAttention, Normalization};
use crate::arch::Level;
use crate::attention::{Align, WindowSize};
use crate::view::{Layout, View, ViewMut};

#[test]
fn only_the_band_is_read_and_of_a_zeroed_output_only_the_band_is_written() {
    // More than 2^32 entries, of which the input has a handful in memory and the output a few pages: whatever is
    // touched outside of the band is outside of the memory, or changes the canaries around the input.
    let n = 1usize << 25;
    let rows = (1usize << 7) + 8;
    let memory: Vec<f16> = (0..4).map(|i| f16::from_f32(i as f32 + 1.0)).collect();
    // Entry (i, j) is at offset j - i: -2 to 1 in the band.
    let layout = Layout::new("a", &[rows, n], &[-1, 1], 2).unwrap();
    // SAFETY: the kernel reads the entries of the band only; that this is so is what the test is about.
    let matrix = unsafe { View::from_raw(memory.as_ptr().add(2), layout) };
    let options =
        MatrixAttention { window_size: WindowSize::Pair(2, 1), align: Align::TopLeft, ..MatrixAttention::default() };
    // Rows of the output are n apart, 8.5 GiB in all: zero pages that cost nothing until they are written. The
    // allocator gives such pages for integers, while f16 would be written one by one.
    let mut zeros = vec![0u16; rows * n];
    let out: &mut [f16] = zeros.reinterpret_cast_mut();
    for level in Level::available() {
        let mut view = ViewMut::from_slice("out", out, &[rows, n]).unwrap();
        options.run(level, &matrix, &mut view, Before::Zeros).unwrap();
        for query in [0, 1, 2, rows - 1] {
            let band = &mut out[query * n + query.saturating_sub(2)..=query * n + query + 1];
            assert_eq!(band, &memory[2usize.saturating_sub(query)..]);
            band.fill(f16::NAN);
        }
    }
    if let Some(resident) = resident_bytes() {
        assert!(resident < 512 << 20, "{resident} bytes are resident");
    }
}

#[test]
fn a_row_of_2_to_the_33_entries_costs_no_more_than_its_window() {
    // In place, and only the last entries are in memory.
    let n = 1usize << 33;
    let options = MatrixAttention { window_size: WindowSize::Pair(2, 0), ..MatrixAttention::default() };
    for level in Level::available() {
        let mut memory = [1.0f32, 2.0, 3.0, 4.0, 5.0];
        let layout = Layout::contiguous("a", &[1, n], 4).unwrap();
        let first = memory.as_mut_ptr().wrapping_sub(n - 4);
        // SAFETY: the kernel reads and writes the entries of the band only, the last three; that this is so is what
        // the test is about.
        unsafe {
            let matrix = View::from_raw(first, layout.clone());
            let mut out = ViewMut::from_raw("out", first, layout).unwrap();
            let options = MatrixAttention { normalization: Normalization::Sum, ..options };
            options.run(level, &matrix, &mut out, Before::Zeros).unwrap();
        }
        assert_eq!(memory, [1.0, 2.0 / 9.0, 3.0 / 9.0, 4.0 / 9.0, 5.0]);
    }
}

#[test]
fn more_than_2_to_the_32_rows_or_entries_are_cut_into_pieces_that_cover_them() {
    let rows = (1usize << 33) + 5;
    for entries in [1, 3, 4096, 1 << 33, usize::MAX] {
        let piece = rows_of_a_piece(rows, entries);
        assert!((ROWS_TOGETHER..=PIECE_COST).contains(&piece), "{piece} rows");
        let last = (rows.div_ceil(piece) - 1) * piece;
        assert!(last < rows && rows <= last + piece);
    }
    assert_eq!(rows_of_a_piece(3, 1 << 33), 1);
}

/// The memory of this process that is in use, where the system says so.
fn resident_bytes() -> Option<usize> {
    let status = std::fs::read_to_string("/proc/self/statm").ok()?;
    Some(status.split(' ').nth(1)?.parse::<usize>().ok()? * 4096)
}
