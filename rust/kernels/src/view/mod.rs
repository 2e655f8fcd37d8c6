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

mod array;
mod layout;
mod rows;

pub use array::{View, ViewMut};
pub use layout::{Layout, LeadingAxes, MatrixLayout};
pub(crate) use rows::{Rows, RowsMut, steps};
