//! Numbers as JSON text and back: nested lists read straight into one vector, arrays written straight as text.
//!
//! - [`Reader`]: walks through a text and hands out its values one by one
//! - [`read`], [`read_shaped`]: lists of numbers as elements of a [`Datatype`]
//! - [`write()`]: an array as lists
//!
//! A text of any depth costs no stack: lists and objects inside each other are counted, not called, but for the axes of
//! an array, of which there are at most 32.

mod datatype;
mod decimal;
mod digits;
mod error;
mod grow;
mod read;
mod reader;
mod string;
#[cfg(test)]
mod tests;
mod write;

pub use datatype::Datatype;
pub use digits::Digits;
pub use error::{Error, Result};
pub use grow::{append, reserve};
pub use read::{MAX_AXES, read, read_shaped};
pub use reader::{MAX_DEPTH, Number, Reader};
pub use write::write;
