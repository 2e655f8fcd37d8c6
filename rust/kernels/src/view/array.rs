//! Arrays of elements: memory and its layout.

use std::marker::PhantomData;

use super::layout::{Layout, overlaps_itself};
use crate::{Error, Result};

/// Elements that a kernel reads. Nobody writes to those of a slice while the view lives; those of raw memory may change,
/// see the [module](super).
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
    /// and every bit pattern is a value of `T`. It may be written to at any time, by another thread or by the kernel
    /// itself through an output which [`ViewMut::check_overlap`] lets pass.
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
/// may change, see the [module](super).
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

#[cfg(test)]
mod tests {
    use super::*;

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
