//! Shape and strides of an array, checked once in a constructor, then trusted by every kernel.
//!
//! Strides count elements, not bytes, and may be negative or zero. A view never allocates for its elements and never
//! copies them.
//!
//! # Elements that change
//! A view of raw memory is of an array of the caller, whose other threads go on running and may write to it at any time.
//! That is a race, and by the letter of the language the outcome of a racing read is undefined. What makes it a wrong
//! number and nothing else is kept by every kernel:
//! - Elements are read and written through raw pointers. No `&[T]` and no `&mut [T]` of a view's elements is ever formed:
//!   the compiler may take for granted that what is behind one does not change, and read it twice.
//! - No bound, index or pointer depends on the value of an element that is read twice. What a value decides, it decides
//!   when it has been copied, or within the vector into which it was loaded.
//! - Every bit pattern is a value of the elements' type. (Bools are viewed as bytes.)

use std::marker::PhantomData;

use crate::{Error, Result};

/// The shape and the strides (in elements) of an array.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct Layout {
    shape: Vec<usize>,
    strides: Vec<isize>,
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
            let mut reach = 0isize;
            for (&length, &stride) in shape.iter().zip(strides) {
                let steps = isize::try_from(length - 1).map_err(|_| overflow())?;
                let span = steps.checked_mul(stride.checked_abs().ok_or_else(overflow)?).ok_or_else(overflow)?;
                reach = reach.checked_add(span).ok_or_else(overflow)?;
            }
            let bytes = reach.checked_add(1).and_then(|n| n.checked_mul(item_size as isize));
            bytes.ok_or_else(overflow)?;
        }
        Ok(Self { shape: shape.to_vec(), strides: strides.to_vec() })
    }

    /// The layout of a C-contiguous array.
    pub fn contiguous(argument: &'static str, shape: &[usize], item_size: usize) -> Result<Self> {
        let mut strides = vec![0isize; shape.len()];
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

/// Elements that a kernel reads. Nobody writes to those of a slice while the view lives; those of raw memory may change,
/// see the [module](self).
#[derive(Debug, Clone)]
pub struct View<'a, T> {
    data: *const T,
    layout: Layout,
    elements: PhantomData<&'a [T]>,
}

// SAFETY: what is reached through a View is shared, as through &[T], which is Send where T is Sync.
unsafe impl<T: Sync> Send for View<'_, T> {}
// SAFETY: as above, for &[T], which is Sync where T is.
unsafe impl<T: Sync> Sync for View<'_, T> {}

impl<'a, T> View<'a, T> {
    /// A view of raw memory.
    ///
    /// # Safety
    /// Every offset within `layout` from `data` is an aligned, initialised element that can be read during all of `'a`,
    /// and every bit pattern is a value of `T`. It may be written to at any time, by another thread or by the kernel itself
    /// through an output which [`ViewMut::check_overlap`] lets pass.
    pub unsafe fn from_raw(data: *const T, layout: Layout) -> Self {
        Self { data, layout, elements: PhantomData }
    }

    /// A C-contiguous view of a slice.
    pub fn from_slice(argument: &'static str, elements: &'a [T], shape: &[usize]) -> Result<Self> {
        let layout = Layout::contiguous(argument, shape, size_of::<T>())?;
        check_length(argument, layout.len(), elements.len(), shape)?;
        // SAFETY: the slice is borrowed for 'a and has exactly as many elements as the contiguous layout, checked above;
        // since nobody writes to it, each stays the value of T that it is.
        Ok(unsafe { Self::from_raw(elements.as_ptr(), layout) })
    }

    /// Where element 0 … 0 is.
    pub fn as_ptr(&self) -> *const T {
        self.data
    }

    /// Shape and strides.
    pub fn layout(&self) -> &Layout {
        &self.layout
    }

    /// The length of each axis.
    pub fn shape(&self) -> &[usize] {
        self.layout.shape()
    }
}

/// Elements that a kernel writes. Nobody else reads or writes those of a slice while the view lives; those of raw memory
/// may change, see the [module](self).
#[derive(Debug)]
pub struct ViewMut<'a, T> {
    data: *mut T,
    layout: Layout,
    elements: PhantomData<&'a mut [T]>,
}

// SAFETY: what is reached through a ViewMut is reached through nothing else of this crate, as through &mut [T], which is
// Send where T is.
unsafe impl<T: Send> Send for ViewMut<'_, T> {}
// SAFETY: as above; through a shared reference only shape, strides and the pointer's value are read.
unsafe impl<T: Sync> Sync for ViewMut<'_, T> {}

impl<'a, T> ViewMut<'a, T> {
    /// A view of raw memory. Refuses a layout in which two indexes may name one element.
    ///
    /// # Safety
    /// Every offset within `layout` from `data` is an aligned element that can be written during all of `'a`, and read if
    /// it is initialised; every bit pattern is a value of `T`. No other [`ViewMut`] of it is in use. It may be read and
    /// written to at any time by another thread of the caller.
    pub unsafe fn from_raw(argument: &'static str, data: *mut T, layout: Layout) -> Result<Self> {
        if overlaps_itself(&layout) {
            return Err(Error::Overlap { argument, problem: "two of its indexes may name one element" });
        }
        Ok(Self { data, layout, elements: PhantomData })
    }

    /// A C-contiguous view of a slice.
    pub fn from_slice(argument: &'static str, elements: &'a mut [T], shape: &[usize]) -> Result<Self> {
        let layout = Layout::contiguous(argument, shape, size_of::<T>())?;
        check_length(argument, layout.len(), elements.len(), shape)?;
        // SAFETY: the slice is borrowed mutably for 'a and has exactly as many elements as the contiguous layout, checked
        // above; since only kernels write to it, each stays a value of T.
        unsafe { Self::from_raw(argument, elements.as_mut_ptr(), layout) }
    }

    /// Where element 0 … 0 is.
    pub fn as_mut_ptr(&mut self) -> *mut T {
        self.data
    }

    /// Where element 0 … 0 is, for comparing.
    pub fn as_ptr(&self) -> *const T {
        self.data
    }

    /// Shape and strides.
    pub fn layout(&self) -> &Layout {
        &self.layout
    }

    /// The length of each axis.
    pub fn shape(&self) -> &[usize] {
        self.layout.shape()
    }

    /// Refuses an output that may overlap an input, unless it is exactly the same elements in the same order (`out=`
    /// may be the input itself where a kernel reads a row before it writes it). The input may have elements of another
    /// type. Only the ranges in memory are compared: elements that interleave without meeting are refused too.
    pub fn check_overlap<U>(&self, argument: &'static str, input: &View<'_, U>, same_is_fine: bool) -> Result<()> {
        fn range<E>(data: *const E, layout: &Layout) -> (usize, usize) {
            let (low, high) = layout.bounds();
            (data.wrapping_offset(low) as usize, data.wrapping_offset(high + 1) as usize)
        }
        if self.layout.is_empty() || input.layout.is_empty() {
            return Ok(());
        }
        let same = std::ptr::eq(self.data.cast(), input.data) && self.layout == input.layout;
        if same_is_fine && same && size_of::<T>() == size_of::<U>() {
            return Ok(());
        }
        let (a, b) = (range(self.data.cast_const(), &self.layout), range(input.data, &input.layout));
        if a.0 < b.1 && b.0 < a.1 {
            return Err(Error::Overlap { argument, problem: "it may overlap an input without being that input" });
        }
        Ok(())
    }
}

fn check_length(argument: &'static str, needed: usize, given: usize, shape: &[usize]) -> Result<()> {
    if needed == given {
        return Ok(());
    }
    Err(Error::Shape { argument, given: shape.to_vec(), allowed: format!("a shape with {given} elements") })
}

/// True if two indexes may name one element. Axes are sorted by stride; each must step over all that the smaller ones
/// reach. (Layouts that interleave without meeting are refused too: none of them comes from slicing or transposing.)
fn overlaps_itself(layout: &Layout) -> bool {
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

    #[test]
    fn an_output_with_a_broadcast_axis_is_refused() {
        let mut element = [0.0f32];
        let layout = Layout::new("out", &[3], &[0], 4).unwrap();
        // SAFETY: offset 0 is the only one.
        let view = unsafe { ViewMut::from_raw("out", element.as_mut_ptr(), layout) };
        assert!(matches!(view, Err(Error::Overlap { .. })));
    }

    #[test]
    fn partial_overlap_is_refused_and_the_same_elements_are_not() {
        let mut memory = [0.0f32; 12];
        let data = memory.as_mut_ptr();
        let layout = |shape: &[usize]| Layout::contiguous("a", shape, 4).unwrap();
        // SAFETY: all offsets are within the 12 elements, and nothing is read or written through the views.
        unsafe {
            let input = View::from_raw(data, layout(&[2, 3]));
            let same = ViewMut::from_raw("out", data, layout(&[2, 3])).unwrap();
            let shifted = ViewMut::from_raw("out", data.add(3), layout(&[2, 3])).unwrap();
            let apart = ViewMut::from_raw("out", data.add(6), layout(&[2, 3])).unwrap();
            assert!(same.check_overlap("out", &input, true).is_ok());
            assert!(same.check_overlap("out", &input, false).is_err());
            let refused = shifted.check_overlap("out", &input, true).unwrap_err().to_string();
            assert!(refused.contains("it may overlap an input without being that input"), "{refused}");
            assert!(apart.check_overlap("out", &input, true).is_ok());
        }
    }

    #[test]
    fn reversed_and_transposed_outputs_do_not_overlap_themselves() {
        assert!(!overlaps_itself(&Layout::new("a", &[3, 4], &[1, -3], 4).unwrap()));
        assert!(overlaps_itself(&Layout::new("a", &[3, 4], &[1, 2], 4).unwrap()));
    }
}
