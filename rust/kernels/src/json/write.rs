//! Arrays as nested lists.

use super::datatype::Datatype;
use super::digits::{BLOCK, LONGEST, write_elements};
use super::error::{Error, Result};
use super::grow::{append, reserve};
use crate::view::View;

/// Appends an array as lists nested by its shape; without axes as one number.
///
/// Another thread may write to the array meanwhile: each element is loaded once, and what it was then is written.
///
/// # Errors
/// [`Error::OutOfMemory`].
pub fn write<T: Datatype>(array: &View<'_, T::Stored>, out: &mut Vec<u8>) -> Result<()> {
    reserve(out, usual_bytes(array.shape()).ok_or(Error::OutOfMemory { bytes: usize::MAX })?)?;
    let mut writer = Writer::<T> { out, block: [T::default(); BLOCK] };
    // SAFETY: it begins where the view does, with the view's own shape and strides.
    unsafe { writer.lists(array.as_ptr(), array.shape(), array.layout().strides()) }?;
    out.pop(); // the comma
    Ok(())
}

/// About what the text takes, so that it seldom has to move: a zero of a float has four bytes with its comma, most other
/// numbers have more, and the brackets of a list with its comma are three. None beyond the address space.
fn usual_bytes(shape: &[usize]) -> Option<usize> {
    let (mut lists, mut length) = (0_usize, 1_usize);
    for &axis in shape {
        lists = lists.checked_add(length)?;
        length = length.checked_mul(axis)?;
    }
    lists.checked_mul(3)?.checked_add(length.checked_mul(4)?)
}

struct Writer<'a, T> {
    out: &'a mut Vec<u8>,
    /// Elements on their way: nobody else writes to them here, so what is counted is what is written.
    block: [T; BLOCK],
}

impl<T: Datatype> Writer<'_, T> {
    /// Appends one part of an array, with a comma behind it.
    ///
    /// # Safety
    /// `start` is where a part of this shape and these strides begins in the array of a [`View`].
    unsafe fn lists(&mut self, start: *const T::Stored, shape: &[usize], strides: &[isize]) -> Result<()> {
        let (Some((&length, inner)), Some((&stride, steps))) = (shape.split_first(), strides.split_first()) else {
            // SAFETY: a part without axes is one element.
            return unsafe { self.elements(start, 1, 0) };
        };
        append(self.out, b"[")?;
        if inner.is_empty() {
            // SAFETY: the elements along the only axis.
            unsafe { self.elements(start, length, stride) }?;
        } else {
            for index in 0..length {
                // SAFETY: the index is within the first axis, and what is there has the shape of the others.
                unsafe { self.lists(at(start, index, stride), inner, steps) }?;
            }
        }
        if length > 0 {
            self.out.pop(); // the last one's comma
        }
        append(self.out, b"],")
    }

    /// Appends elements, each with a comma behind it.
    ///
    /// # Safety
    /// There is an element of the array of a [`View`] at each of `length` steps from `start`.
    unsafe fn elements(&mut self, start: *const T::Stored, length: usize, stride: isize) -> Result<()> {
        for first in (0..length).step_by(BLOCK) {
            let block = &mut self.block[..BLOCK.min(length - first)];
            for (index, element) in (first..length).zip(&mut *block) {
                // SAFETY: the caller's promise. Volatile, so that it is one load whatever is done with the value; that
                // another thread may write to it meanwhile is what `Stored` allows any bytes for.
                *element = T::from_stored(unsafe { at(start, index, stride).read_volatile() });
            }
            reserve(self.out, block.len() * LONGEST)?;
            write_elements(block, self.out);
        }
        Ok(())
    }
}

/// Where the element or part at `index` of an axis begins. An array without elements may have any strides.
fn at<T>(start: *const T, index: usize, stride: isize) -> *const T {
    start.wrapping_offset((index as isize).wrapping_mul(stride))
}
