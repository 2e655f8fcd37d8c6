//! Packing: a block of keys and values in the layout that the tile product reads, and rows of queries.

use crate::arch::{Cpu, Element, Lanes, Real, Vector};
use crate::buffer::Buffer;

/// Keys of a block. Packed keys and values of 64 columns are 32 KiB each in float32, half of an L2 way.
pub(super) const KEYS: usize = 128;

/// Rows of one matrix of an input.
#[derive(Debug)]
pub(super) struct Rows<T> {
    /// Row 0, column 0.
    pub(super) first: *const T,
    pub(super) row: isize,
    pub(super) column: isize,
    pub(super) columns: usize,
}

/// A block of up to [`KEYS`] keys and their values.
#[derive(Debug)]
pub(super) struct Block<R> {
    /// `[panel][column][lane]`: a panel holds as many keys as a vector has lanes, so a vector is one column of them.
    pub(super) keys: Buffer<R>,
    /// `[key][column]`, columns padded with zeros to whole vectors.
    pub(super) values: Buffer<R>,
    /// Whether all values are; the others take the slow way, because 0 times infinity is not 0.
    pub(super) is_finite: bool,
}

/// `columns` rounded up to whole vectors.
pub(super) fn padded<C: Cpu, R: Real>(columns: usize) -> usize {
    columns.next_multiple_of(R::Lanes::<C>::N)
}

impl<R: Real> Block<R> {
    pub(super) fn new<C: Cpu>(d: usize, d_v: usize) -> Self {
        let values = Buffer::zeroed(KEYS * padded::<C, R>(d_v));
        Self { keys: Buffer::zeroed(KEYS * d), values, is_finite: true }
    }

    /// Packs `count` keys and values from row `start` on.
    ///
    /// # Safety
    /// Both inputs have these rows, and `count` is at most [`KEYS`]; the block was made for their numbers of columns.
    #[inline(always)]
    pub(super) unsafe fn pack<C: Cpu, T: Element<Real = R>>(
        &mut self,
        cpu: C,
        (keys, values): (&Rows<T>, &Rows<T>),
        start: usize,
        count: usize,
    ) {
        // SAFETY: the caller's promise.
        unsafe {
            self.pack_keys(cpu, keys, start, count);
            self.pack_values(cpu, values, start, count);
        }
    }

    /// Packs the keys only.
    ///
    /// # Safety
    /// As for [`Block::pack`].
    #[inline(always)]
    unsafe fn pack_keys<C: Cpu, T: Element<Real = R>>(&mut self, cpu: C, keys: &Rows<T>, start: usize, count: usize) {
        let n = R::Lanes::<C>::N;
        if keys.columns > 0 {
            for (panel, first) in self.keys.chunks_exact_mut(n * keys.columns).zip((0..count).step_by(n)) {
                // SAFETY: these rows are among those that the caller promises.
                unsafe { keys.transpose(cpu, start + first, (count - first).min(n), panel) };
            }
        }
    }

    /// Packs the values only.
    ///
    /// # Safety
    /// As for [`Block::pack`].
    #[inline(always)]
    pub(super) unsafe fn pack_values<C: Cpu, T: Element<Real = R>>(
        &mut self,
        cpu: C,
        values: &Rows<T>,
        start: usize,
        count: usize,
    ) {
        if values.columns > 0 {
            let width = padded::<C, R>(values.columns);
            // SAFETY: the caller's promise.
            self.is_finite = unsafe { values.copy(cpu, start, &mut self.values[..count * width], width) };
        }
    }
}

impl<T: Element> Rows<T> {
    /// Writes rows from `start` on, one for each `width` elements of `to`, and says whether all of them are finite.
    ///
    /// # Safety
    /// The input has these rows, and `width` is its number of columns or that rounded up to whole vectors.
    #[inline(always)]
    pub(super) unsafe fn copy<C: Cpu>(&self, cpu: C, start: usize, to: &mut [T::Real], width: usize) -> bool {
        let lanes = T::Real::lanes(cpu);
        let (n, zero) = (<T::Real as Real>::Lanes::<C>::N, lanes.splat(T::Real::ZERO));
        // Four that do not wait for each other. They stay 0 while everything is finite.
        let mut traces = [zero; 4];
        for (row, to) in to.chunks_exact_mut(width).enumerate() {
            let mut from = self.first.wrapping_offset((start + row) as isize * self.row);
            let whole = if self.column == 1 { self.columns - self.columns % (4 * n) } else { 0 };
            for to in to[..whole].chunks_exact_mut(4 * n) {
                for (index, trace) in traces.iter_mut().enumerate() {
                    // SAFETY: the caller promises the row; four whole vectors of it are left, and four are written.
                    unsafe {
                        let vector = T::load(cpu, from.add(index * n));
                        *trace = lanes.fma(vector, zero, *trace);
                        lanes.store(to.as_mut_ptr().add(index * n), vector);
                    }
                }
                from = from.wrapping_add(4 * n);
            }
            for (column, to) in (whole..self.columns).step_by(n).zip(to[whole..].chunks_mut(n)) {
                let from = from.wrapping_offset((column - whole) as isize * self.column);
                // SAFETY: the caller promises the row; at most the columns that are left are read, and at most as many
                // elements are written as the chunk has.
                unsafe {
                    let vector = gather(cpu, from, self.column, (self.columns - column).min(n));
                    traces[0] = lanes.fma(vector, zero, traces[0]);
                    lanes.store_first(to.as_mut_ptr(), to.len(), vector);
                }
            }
        }
        let trace = lanes.add(lanes.add(traces[0], traces[1]), lanes.add(traces[2], traces[3]));
        lanes.sum(trace) == T::Real::ZERO
    }

    /// Writes `count` rows from `start` on as columns of a panel, `[column][lane]`; lanes without a row are 0.
    ///
    /// # Safety
    /// The input has these rows; `count` is at most the number of lanes.
    #[inline(always)]
    unsafe fn transpose<C: Cpu>(&self, cpu: C, start: usize, count: usize, panel: &mut [T::Real]) {
        let lanes = T::Real::lanes(cpu);
        let n = <T::Real as Real>::Lanes::<C>::N;
        if count < n {
            panel.fill(T::Real::ZERO);
        }
        assert!(panel.len() == n * self.columns);
        let mut line = [T::Real::ZERO; WIDEST];
        for lane in 0..count {
            let from = self.first.wrapping_offset((start + lane) as isize * self.row);
            for column in (0..self.columns).step_by(n) {
                let count = (self.columns - column).min(n);
                // SAFETY: the caller promises the row, and at most the columns that are left are read; `line` has a
                // whole vector, and the panel was asserted to have n elements for each column.
                unsafe {
                    let from = from.wrapping_offset(column as isize * self.column);
                    lanes.store(line.as_mut_ptr(), gather(cpu, from, self.column, count));
                    let to = panel.as_mut_ptr().add(column * n + lane);
                    if count == n {
                        // A number of steps that is known: unrolled.
                        for (index, &element) in line.iter().enumerate().take(n) {
                            *to.add(index * n) = element;
                        }
                    } else {
                        for (index, &element) in line.iter().enumerate().take(count) {
                            *to.add(index * n) = element;
                        }
                    }
                }
            }
        }
    }
}

/// The widest vector has 16 lanes of float32.
const WIDEST: usize = 16;

/// Loads `count` elements that are `stride` apart, converted; the other lanes are 0.
///
/// # Safety
/// These elements may be read; `count` is at most the number of lanes.
#[inline(always)]
pub(super) unsafe fn gather<C: Cpu, T: Element>(
    cpu: C,
    from: *const T,
    stride: isize,
    count: usize,
) -> Vector<C, T::Real> {
    let n = <T::Real as Real>::Lanes::<C>::N;
    // SAFETY: in all three ways only the elements that the caller promises are read; `line` has a whole vector.
    unsafe {
        if stride == 1 && count == n {
            T::load(cpu, from)
        } else if stride == 1 {
            T::load_first(cpu, from, count)
        } else {
            let mut line = [T::NULL; WIDEST];
            for (index, element) in line.iter_mut().enumerate().take(count) {
                *element = *from.offset(index as isize * stride);
            }
            T::load(cpu, line.as_ptr())
        }
    }
}
