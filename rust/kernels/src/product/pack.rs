//! Packing: rows of an operand, converted, in the layout that a product reads.
//!
//! Where the CPU multiplies bfloat16 as they are, two of them are an element of what is packed: two columns of a row, or
//! a column of two rows.

use crate::arch::{Cpu, Element, Lanes, Real, Vector, WIDEST};
use crate::view::{Rows, RowsMut};

/// Rows that are transposed beside each other: as many neighbours are written at once, and rows that are a power of two
/// apart still find room in the first level of cache together.
const BESIDE: usize = 8;

/// `columns` rounded up to whole vectors.
pub(crate) fn padded<C: Cpu, R: Real>(columns: usize) -> usize {
    columns.next_multiple_of(R::Lanes::<C>::N)
}

impl<T: Element> Rows<'_, T> {
    /// `count` columns of a row from `column` on, converted; the other lanes are 0.
    #[inline(always)]
    pub(crate) fn load<C: Cpu>(&self, cpu: C, row: usize, column: usize, count: usize) -> Vector<C, T::Real> {
        assert!(count <= <T::Real as Real>::Lanes::<C>::N);
        assert!(column <= self.columns() && count <= self.columns() - column, "no such columns");
        let from = self.row(row).wrapping_offset(column as isize * self.column_stride());
        // SAFETY: the row has these columns, and there are at most as many as lanes, asserted above.
        unsafe { strided(cpu, from, self.column_stride(), count) }
    }

    /// Writes rows from `start` on, one for each `width` elements of `to`, columns behind the last as 0, and says whether
    /// all of them are finite. Panics if there are no such rows, or the width is less than a row.
    #[inline(always)]
    pub(crate) fn copy<C: Cpu>(&self, cpu: C, start: usize, to: &mut [T::Real], width: usize) -> bool {
        let lanes = T::Real::lanes(cpu);
        let (n, zero) = (<T::Real as Real>::Lanes::<C>::N, lanes.splat(T::Real::ZERO));
        let (stride, columns) = (self.column_stride(), self.columns());
        let whole = if stride == 1 { columns - columns % (4 * n) } else { 0 };
        // Four that do not wait for each other. They stay 0 while everything is finite.
        let mut traces = [zero; 4];
        for (row, to) in to.chunks_exact_mut(width).enumerate() {
            let mut from = self.row(start + row);
            for to in to[..whole].chunks_exact_mut(4 * n) {
                for (index, trace) in traces.iter_mut().enumerate() {
                    // SAFETY: four whole vectors of the row are left, which `row` has checked, and four are written.
                    unsafe {
                        let vector = T::load(cpu, from.add(index * n));
                        *trace = lanes.fma(vector, zero, *trace);
                        lanes.store(to.as_mut_ptr().add(index * n), vector);
                    }
                }
                from = from.wrapping_add(4 * n);
            }
            for (column, to) in (whole..columns).step_by(n).zip(to[whole..].chunks_mut(n)) {
                let from = from.wrapping_offset((column - whole) as isize * stride);
                // SAFETY: at most the columns of the row that are left are read, and as many elements are written as the
                // chunk has, at most a vector.
                unsafe {
                    let vector = strided(cpu, from, stride, (columns - column).min(n));
                    traces[0] = lanes.fma(vector, zero, traces[0]);
                    lanes.store_first(to.as_mut_ptr(), to.len(), vector);
                }
            }
        }
        let trace = lanes.add(lanes.add(traces[0], traces[1]), lanes.add(traces[2], traces[3]));
        lanes.sum(trace) == T::Real::ZERO
    }

    /// Writes `count` rows from `start` on as columns of a panel, `[column][lane]`, `width` lanes wide; lanes without a row
    /// are 0. Panics if there are no such rows, or more than lanes, or the panel has another size.
    #[inline(always)]
    pub(crate) fn transpose<C: Cpu>(&self, cpu: C, start: usize, count: usize, width: usize, panel: &mut [T::Real]) {
        assert!(count <= width && panel.len() == width * self.columns());
        if count < width {
            panel.fill(T::Real::ZERO);
        }
        let stride = self.column_stride();
        let beside = if T::IS_REAL && stride == 1 { count - count % BESIDE } else { 0 };
        for lane in (0..beside).step_by(BESIDE) {
            let from: [*const T; BESIDE] = std::array::from_fn(|index| self.row(start + lane + index));
            let to = panel.as_mut_ptr().wrapping_add(lane);
            for column in 0..self.columns() {
                #[expect(clippy::needless_range_loop, reason = "a number of steps that is known: unrolled")]
                for index in 0..BESIDE {
                    // SAFETY: `row` has checked the rows, which have this column; the panel was asserted to have `width`
                    // lanes of it, and lane + index is below count.
                    unsafe { to.add(column * width + index).write(from[index].add(column).read().to_real()) }
                }
            }
        }
        let lanes = T::Real::lanes(cpu);
        let n = <T::Real as Real>::Lanes::<C>::N;
        let mut line = [T::Real::ZERO; WIDEST];
        for lane in beside..count {
            let from = self.row(start + lane);
            for column in (0..self.columns()).step_by(n) {
                let count = (self.columns() - column).min(n);
                // SAFETY: at most the columns of the row that are left are read; `line` has a whole vector, and the panel
                // was asserted to have `width` lanes of each column.
                unsafe {
                    lanes.store(
                        line.as_mut_ptr(),
                        strided(cpu, from.wrapping_offset(column as isize * stride), stride, count),
                    );
                    let to = panel.as_mut_ptr().add(column * width + lane);
                    if count == n {
                        // A number of steps that is known: unrolled.
                        for (index, &element) in line.iter().enumerate().take(n) {
                            *to.add(index * width) = element;
                        }
                    } else {
                        for (index, &element) in line.iter().enumerate().take(count) {
                            *to.add(index * width) = element;
                        }
                    }
                }
            }
        }
    }

    /// Writes all of them as panels, `[panel][row][lane]`, `width` lanes wide; lanes behind the last column are 0. Panics
    /// if that is not the size of `to`.
    #[inline(always)]
    pub(crate) fn panels<C: Cpu>(&self, cpu: C, width: usize, to: &mut [T::Real]) {
        let (depth, columns) = (self.count(), self.columns());
        assert!(to.len() == depth * columns.next_multiple_of(width));
        if self.row_stride().unsigned_abs() < self.column_stride().unsigned_abs() {
            let turned = self.transposed();
            for (first, panel) in (0..columns).step_by(width).zip(to.chunks_exact_mut((depth * width).max(1))) {
                turned.transpose(cpu, first, (columns - first).min(width), width, panel);
            }
            return;
        }
        let lanes = T::Real::lanes(cpu);
        let n = <T::Real as Real>::Lanes::<C>::N;
        assert!(width.is_multiple_of(n));
        for row in 0..depth {
            let from = self.row(row);
            for panel in 0..columns.div_ceil(width) {
                for lane in (0..width).step_by(n) {
                    let column = panel * width + lane;
                    let count = columns.saturating_sub(column).min(n);
                    // SAFETY: `row` has checked the row, and at most its columns from this one on are read; row and lane
                    // are within the panel, which is within `to`, asserted above.
                    unsafe {
                        let from = from.wrapping_offset(column as isize * self.column_stride());
                        let to = to.as_mut_ptr().add((panel * depth + row) * width + lane);
                        lanes.store(to, strided(cpu, from, self.column_stride(), count));
                    }
                }
            }
        }
    }

    /// The bits of an element, which has 16, read once.
    #[inline(always)]
    fn bits(&self, row: usize, column: usize) -> u32 {
        assert!(T::IS_BFLOAT && column < self.columns());
        let from = self.row(row).wrapping_offset(column as isize * self.column_stride());
        // SAFETY: the row has this column, and a bfloat16 is 16 bits.
        u32::from(unsafe { from.cast::<u16>().read() })
    }

    /// Writes the columns of a row two by two, `step` elements apart; an odd one has a 0 beside it. Panics if there is no
    /// such row, or the type is not bfloat16.
    #[inline(always)]
    pub(crate) fn column_pairs(&self, row: usize, to: &mut [T::Real], step: usize) {
        assert!(T::IS_BFLOAT);
        let (whole, first) = (self.columns() / 2, self.row(row));
        if self.column_stride() == 1 {
            for (pair, to) in to.iter_mut().step_by(step).take(whole).enumerate() {
                // SAFETY: `row` has checked the row, which has both columns; the type is computed in float32, so an
                // element of `to` is 32 bits too.
                unsafe { (&raw mut *to).cast::<u32>().write(first.cast::<u32>().add(pair).read_unaligned()) }
            }
        } else {
            for (pair, to) in to.iter_mut().step_by(step).take(whole).enumerate() {
                let pair = self.bits(row, 2 * pair) | self.bits(row, 2 * pair + 1) << 16;
                // SAFETY: an element of `to` is 32 bits.
                unsafe { (&raw mut *to).cast::<u32>().write(pair) }
            }
        }
        if self.columns() % 2 == 1 {
            // SAFETY: an element of `to` is 32 bits.
            unsafe { (&raw mut to[whole * step]).cast::<u32>().write(self.bits(row, self.columns() - 1)) }
        }
    }

    /// Writes `count` rows from `start` on two by two, one pair for each `width` elements of `to`; an odd row has zeros
    /// beside it. Says whether all of them are finite and none but 0 is tiny. Panics if there are no such rows, the width
    /// is less than a row, or the type is not bfloat16.
    #[inline(always)]
    pub(crate) fn row_pairs(&self, start: usize, count: usize, to: &mut [T::Real], width: usize) -> bool {
        assert!(T::IS_BFLOAT && width >= self.columns());
        let mut is_delicate = false;
        for (pair, to) in to.chunks_exact_mut(width).enumerate() {
            let row = start + 2 * pair;
            let next = if 2 * pair + 1 < count { row + 1 } else { row };
            let upper = if next == row { 0 } else { 0xffff };
            let (first, second) = (self.row(row).cast::<u16>(), self.row(next).cast::<u16>());
            let to = to.as_mut_ptr().cast::<u32>();
            for column in 0..self.columns() {
                let offset =
                    if self.column_stride() == 1 { column as isize } else { column as isize * self.column_stride() };
                // SAFETY: `row` has checked both rows, which have this column, and a bfloat16 is 16 bits; the chunk has as
                // many elements of 32 bits as a row has columns, asserted above.
                unsafe {
                    let (first, second) = (first.offset(offset).read(), second.offset(offset).read() & upper);
                    is_delicate |= needs_care(first) | needs_care(second);
                    to.add(column).write(u32::from(first) | u32::from(second) << 16);
                }
            }
        }
        !is_delicate
    }
}

impl<T: Element> RowsMut<'_, T> {
    /// Stores the first `count` lanes in a row from `column` on, converted. Panics if there is no such place.
    #[inline(always)]
    pub(crate) fn store<C: Cpu>(
        &mut self,
        cpu: C,
        row: usize,
        column: usize,
        count: usize,
        vector: Vector<C, T::Real>,
    ) {
        assert!(count <= <T::Real as Real>::Lanes::<C>::N);
        assert!(column <= self.columns() && count <= self.columns() - column, "no such columns");
        let stride = self.column_stride();
        let to = self.row(row).wrapping_offset(column as isize * stride);
        // SAFETY: the row has these columns, and there are at most as many as lanes, asserted above; `line` has a whole
        // vector.
        unsafe {
            if stride == 1 {
                T::store_first(cpu, to, count, vector);
            } else {
                let mut line = [T::NULL; WIDEST];
                T::store(cpu, line.as_mut_ptr(), vector);
                for (index, &element) in line.iter().enumerate().take(count) {
                    to.offset(index as isize * stride).write(element);
                }
            }
        }
    }
}

/// The smallest value, 2^-87, of which a weight of 2^-39 is still a normal number: what is smaller is lost in any sum.
const TINY: u16 = 40 << 7;

/// Whether these bits of a bfloat16 are no finite number, or one so small that its product with a weight may be denormal.
#[inline(always)]
fn needs_care(bits: u16) -> bool {
    // One less than the magnitude: 0 becomes the largest.
    let magnitude = bits & 0x7fff;
    magnitude >= 0x7f80 || magnitude.wrapping_sub(1) < TINY - 1
}

/// Loads `count` elements that are `stride` apart, converted; the other lanes are 0.
///
/// # Safety
/// These elements may be read; `count` is at most the number of lanes.
#[inline(always)]
pub(crate) unsafe fn strided<C: Cpu, T: Element>(
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
