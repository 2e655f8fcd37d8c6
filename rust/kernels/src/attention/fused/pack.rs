//! Packing: a block of keys and values in the layout that the tile product reads, and rows of queries.
//!
//! Where the CPU multiplies bfloat16 as they are, two of them are an element of what is packed: two columns of a query
//! or of a key, a column of two values.

use crate::Result;
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
    /// Whether all values are; the others take the slow way, because 0 times infinity is not 0. Pairs of bfloat16 with a
    /// tiny value take it too: the CPU makes denormals 0, those that a product gives too.
    pub(super) is_finite: bool,
    /// Whether an element is a pair of bfloat16: of columns of keys, of values.
    pub(super) pairs: bool,
}

/// How many elements hold `columns`.
pub(super) fn depth(columns: usize, pairs: bool) -> usize {
    if pairs { columns.div_ceil(2) } else { columns }
}

/// `columns` rounded up to whole vectors.
pub(super) fn padded<C: Cpu, R: Real>(columns: usize) -> usize {
    columns.next_multiple_of(R::Lanes::<C>::N)
}

impl<R: Real> Block<R> {
    pub(super) fn new<C: Cpu>(d: usize, d_v: usize, pairs: bool) -> Result<Self> {
        let values = Buffer::zeroed(depth(KEYS, pairs) * padded::<C, R>(d_v))?;
        Ok(Self { keys: Buffer::zeroed(KEYS.saturating_mul(depth(d, pairs)))?, values, is_finite: true, pairs })
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
            let panels = self.keys.chunks_exact_mut(n * depth(keys.columns, self.pairs));
            for (panel, first) in panels.zip((0..count).step_by(n)) {
                let (start, count) = (start + first, (count - first).min(n));
                // SAFETY: these rows are among those that the caller promises.
                unsafe {
                    if self.pairs {
                        if count < n {
                            panel.fill(R::ZERO);
                        }
                        for lane in 0..count {
                            keys.column_pairs(start + lane, &mut panel[lane..], n);
                        }
                    } else {
                        keys.transpose(cpu, start, count, panel);
                    }
                }
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
            let to = &mut self.values[..depth(count, self.pairs) * width];
            // SAFETY: the caller's promise.
            self.is_finite = unsafe {
                if self.pairs { values.row_pairs(start, count, to, width) } else { values.copy(cpu, start, to, width) }
            };
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

    /// The bits of an element, which has 16.
    ///
    /// # Safety
    /// The input has this row and this column.
    #[inline(always)]
    unsafe fn bits(&self, row: usize, column: usize) -> u32 {
        let from = self.first.wrapping_offset(row as isize * self.row + column as isize * self.column);
        // SAFETY: the caller's promise.
        u32::from(unsafe { from.cast::<u16>().read() })
    }

    /// Writes the columns of a row two by two, `step` elements apart; an odd one has a 0 beside it.
    ///
    /// # Safety
    /// The input has this row, and its type is bfloat16.
    #[inline(always)]
    pub(super) unsafe fn column_pairs(&self, row: usize, to: &mut [T::Real], step: usize) {
        assert!(T::IS_BFLOAT);
        let (whole, first) = (self.columns / 2, self.first.wrapping_offset(row as isize * self.row));
        // SAFETY: the caller promises the row and the type, which is computed in float32.
        unsafe {
            if self.column == 1 {
                for (pair, to) in to.iter_mut().step_by(step).take(whole).enumerate() {
                    let pair = first.cast::<u32>().add(pair).read_unaligned();
                    (&raw mut *to).cast::<u32>().write(pair);
                }
            } else {
                for (pair, to) in to.iter_mut().step_by(step).take(whole).enumerate() {
                    let pair = self.bits(row, 2 * pair) | self.bits(row, 2 * pair + 1) << 16;
                    (&raw mut *to).cast::<u32>().write(pair);
                }
            }
            if self.columns % 2 == 1 {
                (&raw mut to[whole * step]).cast::<u32>().write(self.bits(row, self.columns - 1));
            }
        }
    }

    /// Writes `count` rows from `start` on two by two, one for each `width` elements of `to`; an odd one has zeros beside
    /// it. Says whether all of them are finite and none but 0 is tiny.
    ///
    /// # Safety
    /// The input has these rows, and its type is bfloat16; `width` is at least the number of its columns.
    #[inline(always)]
    unsafe fn row_pairs(&self, start: usize, count: usize, to: &mut [T::Real], width: usize) -> bool {
        assert!(T::IS_BFLOAT);
        let mut is_delicate = false;
        for (pair, to) in to.chunks_exact_mut(width).enumerate() {
            let row = start + 2 * pair;
            let next = if 2 * pair + 1 < count { row + 1 } else { row };
            let upper = if next == row { 0 } else { 0xffff };
            // SAFETY: the chunk has so many elements of 32 bits.
            let to = unsafe { std::slice::from_raw_parts_mut(to.as_mut_ptr().cast::<u32>(), self.columns) };
            if self.column == 1 {
                // SAFETY: the caller promises the rows and the type.
                let (first, second) = unsafe {
                    let row_at = |row| self.first.wrapping_offset(row as isize * self.row).cast::<u16>();
                    let slice = |row| std::slice::from_raw_parts(row_at(row), self.columns);
                    (slice(row), slice(next))
                };
                for ((to, &first), &second) in to.iter_mut().zip(first).zip(second) {
                    let second = second & upper;
                    is_delicate |= needs_care(first) | needs_care(second);
                    *to = u32::from(first) | u32::from(second) << 16;
                }
            } else {
                for (column, to) in to.iter_mut().enumerate() {
                    // SAFETY: as above.
                    let (first, second) =
                        unsafe { (self.bits(row, column), self.bits(next, column) & u32::from(upper)) };
                    is_delicate |= needs_care(first as u16) | needs_care(second as u16);
                    *to = first | second << 16;
                }
            }
        }
        !is_delicate
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

/// The smallest value, 2^-87, of which a weight of 2^-39 is still a normal number: what is smaller is lost in any sum.
const TINY: u16 = 40 << 7;

/// Whether these bits of a bfloat16 are no finite number, or one so small that its product with a weight may be denormal.
#[inline(always)]
fn needs_care(bits: u16) -> bool {
    // One less than the magnitude: 0 becomes the largest.
    let magnitude = bits & 0x7fff;
    magnitude >= 0x7f80 || magnitude.wrapping_sub(1) < TINY - 1
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
