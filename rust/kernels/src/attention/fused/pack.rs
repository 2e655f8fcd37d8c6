//! Packing: a block of keys and values in the layout that the tile product reads, and rows of queries.
//!
//! Where the CPU multiplies bfloat16 as they are, two of them are an element of what is packed: two columns of a query
//! or of a key, a column of two values.

use crate::Result;
use crate::arch::{Cpu, Element, Lanes, Real, WIDEST};
use crate::buffer::Buffer;
use crate::product::padded;
use crate::view::Rows;

/// Keys of a block. Packed keys and values of 64 columns are 32 KiB each in float32, half of an L2 way.
pub(super) const KEYS: usize = 128;

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

impl<R: Real> Block<R> {
    /// For so many keys, at most [`KEYS`], and their values.
    pub(super) fn new<C: Cpu>(keys: usize, [d, d_v]: [usize; 2], pairs: bool) -> Result<Self> {
        let keys = keys.min(KEYS).next_multiple_of(WIDEST);
        let values = Buffer::zeroed(depth(keys, pairs).saturating_mul(padded::<C, R>(d_v)))?;
        Ok(Self { keys: Buffer::zeroed(keys.saturating_mul(depth(d, pairs)))?, values, is_finite: true, pairs })
    }

    /// Packs `count` keys and values from row `start` on. Panics if there are no such rows, more than [`KEYS`], or of
    /// other numbers of columns than the block was made for.
    #[inline(always)]
    pub(super) fn pack<C: Cpu, T: Element<Real = R>>(
        &mut self,
        cpu: C,
        (keys, values): (&Rows<'_, T>, &Rows<'_, T>),
        start: usize,
        count: usize,
    ) {
        self.pack_keys(cpu, keys, start, count);
        self.pack_values(cpu, values, start, count);
    }

    #[inline(always)]
    fn pack_keys<C: Cpu, T: Element<Real = R>>(&mut self, cpu: C, keys: &Rows<'_, T>, start: usize, count: usize) {
        let (n, columns) = (R::Lanes::<C>::N, keys.columns());
        assert!(count.next_multiple_of(n) * depth(columns, self.pairs) <= self.keys.len());
        if columns > 0 {
            let panels = self.keys.chunks_exact_mut(n * depth(columns, self.pairs));
            for (panel, first) in panels.zip((0..count).step_by(n)) {
                let (start, count) = (start + first, (count - first).min(n));
                if self.pairs {
                    if count < n {
                        panel.fill(R::ZERO);
                    }
                    for lane in 0..count {
                        keys.column_pairs(start + lane, &mut panel[lane..], n);
                    }
                } else {
                    keys.transpose(cpu, start, count, n, panel);
                }
            }
        }
    }

    /// Packs the values only, as [`Block::pack`] does.
    #[inline(always)]
    pub(super) fn pack_values<C: Cpu, T: Element<Real = R>>(
        &mut self,
        cpu: C,
        values: &Rows<'_, T>,
        start: usize,
        count: usize,
    ) {
        if values.columns() > 0 {
            let width = padded::<C, R>(values.columns());
            let to = &mut self.values[..depth(count, self.pairs) * width];
            self.is_finite =
                if self.pairs { values.row_pairs(start, count, to, width) } else { values.copy(cpu, start, to, width) };
        }
    }
}
