//! What a product of matrices is given, and what its ways do to it alike.

use std::ops::Range;

use crate::Result;
use crate::arch::{Cpu, Element, Level, Task};
use crate::buffer::Buffer;
use crate::view::{Rows, RowsMut};

/// `out = tensor · weight + bias`, of one type; 16-bit ones are computed in float32 and rounded once, at the end.
///
/// How work is shared out never changes a bit: each element of the result is summed in an order that follows from the
/// shapes, the strides of the weight, and the level.
#[derive(Debug)]
pub(crate) struct MatMul<'a, T> {
    /// `[depth, columns]`, of any strides.
    pub(crate) weight: Rows<'a, T>,
    /// One row of `columns`; added once, after the sum.
    pub(crate) bias: Option<Rows<'a, T>>,
    /// Ascending ranges of the depth: their partial products are added in this order.
    pub(crate) shards: &'a [Range<usize>],
}

/// Rows of the tensor, and where their result goes.
pub(crate) type InOut<'a, T> = (Rows<'a, T>, RowsMut<'a, T>);

impl<T: Element> MatMul<'_, T> {
    /// The rows of all tensors behind each other, converted: few enough to stay in a cache.
    pub(super) fn packed(&self, level: Level, operands: &[InOut<'_, T>]) -> Result<Buffer<T::Real>> {
        let (depth, rows) = (self.weight.count(), operands.iter().map(|(tensor, _)| tensor.count()).sum::<usize>());
        let mut packed = Buffer::zeroed(rows.saturating_mul(depth))?;
        let mut rest = &mut packed[..];
        for (tensor, _) in operands {
            let to = rest.split_off_mut(..tensor.count() * depth).expect("room for all rows");
            level.run(Convert { from: *tensor, to });
        }
        Ok(packed)
    }
}

/// Converts rows.
pub(super) struct Convert<'a, T: Element> {
    pub(super) from: Rows<'a, T>,
    pub(super) to: &'a mut [T::Real],
}

impl<T: Element> Task for Convert<'_, T> {
    type Output = ();

    #[inline(always)]
    fn run<C: Cpu>(self, cpu: C) {
        if self.from.columns() > 0 {
            self.from.copy(cpu, 0, self.to, self.from.columns());
        }
    }
}

/// `range` in blocks of equal size, each at most `longest`.
pub(super) fn blocks(range: Range<usize>, longest: usize) -> impl Iterator<Item = Range<usize>> + Clone {
    let (count, length) = (range.len().div_ceil(longest), range.len());
    let cut = move |block: usize| range.start + block * (length / count) + block.min(length % count);
    (0..count).map(move |block| cut(block)..cut(block + 1))
}
