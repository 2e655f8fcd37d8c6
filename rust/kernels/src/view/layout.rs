//! Shape and strides: which elements an array has, and where.

use smallvec::SmallVec;

use crate::{Error, Result};

/// The shape and the strides (in elements) of an array.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct Layout {
    // Most arrays have few axes; a small call would spend more time on the memory of longer lists than on its work.
    shape: SmallVec<[usize; 4]>,
    strides: SmallVec<[isize; 4]>,
}

impl Layout {
    /// Checks that the shape has as many axes as the strides, and that every offset in it fits an `isize` when
    /// multiplied by `item_size`.
    pub fn new(argument: &'static str, shape: &[usize], strides: &[isize], item_size: usize) -> Result<Self> {
        let overflow = || Error::Overflow { argument, given: shape.to_vec() };
        if shape.len() != strides.len() {
            return Err(Error::Rank { argument, given: strides.len(), allowed: "one stride for each axis" });
        }
        // An empty array has no element, so no offset of it can overflow.
        if !shape.contains(&0) {
            // Broadcast axes take no memory, but are counted.
            shape.iter().try_fold(1usize, |len, &length| len.checked_mul(length)).ok_or_else(overflow)?;
            let mut reach = 0isize;
            for (&length, &stride) in shape.iter().zip(strides) {
                let steps = isize::try_from(length - 1).map_err(|_| overflow())?;
                let span = steps.checked_mul(stride.checked_abs().ok_or_else(overflow)?).ok_or_else(overflow)?;
                reach = reach.checked_add(span).ok_or_else(overflow)?;
            }
            let bytes = reach.checked_add(1).and_then(|n| n.checked_mul(item_size as isize));
            bytes.ok_or_else(overflow)?;
        }
        Ok(Self { shape: SmallVec::from_slice(shape), strides: SmallVec::from_slice(strides) })
    }

    /// The layout of a C-contiguous array.
    pub fn contiguous(argument: &'static str, shape: &[usize], item_size: usize) -> Result<Self> {
        let mut strides: SmallVec<[isize; 4]> = smallvec::smallvec![0; shape.len()];
        if !shape.contains(&0) {
            let mut step = 1usize;
            for (stride, &length) in strides.iter_mut().zip(shape).rev() {
                let overflow = || Error::Overflow { argument, given: shape.to_vec() };
                *stride = isize::try_from(step).map_err(|_| overflow())?;
                step = step.checked_mul(length).ok_or_else(overflow)?;
            }
        }
        Self::new(argument, shape, &strides, item_size)
    }

    /// The length of each axis.
    pub fn shape(&self) -> &[usize] {
        &self.shape
    }

    /// The step of each axis, in elements.
    pub fn strides(&self) -> &[isize] {
        &self.strides
    }

    /// How many elements there are. (A broadcast axis counts each time.)
    pub fn len(&self) -> usize {
        self.shape.iter().product()
    }

    /// Whether there is no element.
    pub fn is_empty(&self) -> bool {
        self.shape.contains(&0)
    }

    /// The lowest and the highest offset (in elements, both included) of an array that is not empty.
    pub fn bounds(&self) -> (isize, isize) {
        let (mut low, mut high) = (0, 0);
        for (&length, &stride) in self.shape.iter().zip(&self.strides) {
            let span = (length as isize - 1) * stride;
            if span < 0 { low += span } else { high += span }
        }
        (low, high)
    }

    /// Splits off the last two axes: leading axes, and rows and columns with their strides.
    ///
    /// The rank must be at least 2; callers check it with [`Error::Rank`] first.
    pub fn matrices(&self) -> (LeadingAxes<'_>, MatrixLayout) {
        let axes = self.shape.len() - 2;
        let matrix = MatrixLayout {
            rows: self.shape[axes],
            columns: self.shape[axes + 1],
            row_stride: self.strides[axes],
            column_stride: self.strides[axes + 1],
        };
        (LeadingAxes { shape: &self.shape[..axes], strides: &self.strides[..axes] }, matrix)
    }

    /// All axes but the last as the rows of one matrix, if one step leads from each row to the next.
    ///
    /// The rank must be at least 1; callers check it with [`Error::Rank`] first.
    pub(crate) fn flat(&self) -> Option<MatrixLayout> {
        let last = self.shape.len() - 1;
        let (mut step, mut next) = (None, 0);
        for (&length, &stride) in self.shape[..last].iter().zip(&self.strides).rev().filter(|(n, _)| **n != 1) {
            if step.is_some() && stride != next {
                return None;
            }
            step.get_or_insert(stride);
            next = stride.checked_mul(length as isize)?;
        }
        Some(MatrixLayout {
            rows: self.shape[..last].iter().product(),
            columns: self.shape[last],
            row_stride: step.unwrap_or(0),
            column_stride: self.strides[last],
        })
    }
}

/// The last two axes of a [`Layout`].
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub struct MatrixLayout {
    /// Length of the axis before the last.
    pub rows: usize,
    /// Length of the last axis.
    pub columns: usize,
    /// Elements from one row to the next.
    pub row_stride: isize,
    /// Elements from one column to the next.
    pub column_stride: isize,
}

/// The axes before the last two of a [`Layout`].
#[derive(Debug, Clone, Copy)]
pub struct LeadingAxes<'a> {
    shape: &'a [usize],
    strides: &'a [isize],
}

impl LeadingAxes<'_> {
    /// How many matrices there are.
    pub fn count(&self) -> usize {
        self.shape.iter().product()
    }

    /// The offset (in elements) of matrix number `index`, counted in C order.
    pub fn offset(&self, mut index: usize) -> isize {
        let mut offset = 0;
        for (&length, &stride) in self.shape.iter().zip(self.strides).rev() {
            offset += (index % length) as isize * stride;
            index /= length;
        }
        offset
    }
}

/// True if two indexes may name one element. Axes are sorted by stride; each must step over all that the smaller ones
/// reach. (Layouts that interleave without meeting are refused too: none of them comes from slicing or transposing.)
pub(super) fn overlaps_itself(layout: &Layout) -> bool {
    if layout.is_empty() {
        return false;
    }
    let mut axes: Vec<(usize, usize)> = layout
        .shape()
        .iter()
        .zip(layout.strides())
        .filter(|&(&length, _)| length > 1)
        .map(|(&length, &stride)| (stride.unsigned_abs(), length))
        .collect();
    axes.sort_unstable();
    let mut reach = 0;
    for (stride, length) in axes {
        if stride <= reach {
            return true;
        }
        reach += stride * (length - 1);
    }
    false
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn a_shape_that_cannot_be_addressed_is_refused() {
        let huge = [1 << 40, 1 << 40];
        assert!(matches!(Layout::contiguous("a", &huge, 4), Err(Error::Overflow { .. })));
        assert!(matches!(Layout::new("a", &[2], &[isize::MAX], 4), Err(Error::Overflow { .. })));
        assert!(Layout::contiguous("a", &[0, 1 << 40, 1 << 40], 4).is_ok());
    }

    #[test]
    fn more_than_2_to_the_31_elements_are_addressed() {
        let layout = Layout::contiguous("a", &[3, 1 << 16, 1 << 16], 4).unwrap();
        let (leading, matrix) = layout.matrices();
        assert_eq!(leading.offset(2), 2 << 32);
        assert_eq!(matrix.row_stride, 1 << 16);
        assert_eq!(layout.bounds(), (0, (3 << 32) - 1));
    }
}
