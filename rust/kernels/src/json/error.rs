//! What goes wrong with a text: variants carry numbers, the words are made here.

use thiserror::Error as ThisError;

/// Why a text is not read, or not written.
#[derive(Debug, Clone, PartialEq, Eq, ThisError)]
pub enum Error {
    /// The text is not JSON.
    #[error("{problem} at byte {offset}")]
    Syntax {
        /// What was found or missing.
        problem: &'static str,
        /// Where, in bytes from the start.
        offset: usize,
    },
    /// An object with one name twice.
    #[error("{name:?} is a name that the object has already, at byte {offset}")]
    Duplicate {
        /// The name.
        name: String,
        /// Where its second value starts, in bytes from the start.
        offset: usize,
    },
    /// Lists and objects inside each other beyond the limit.
    #[error("nested deeper than {allowed} levels")]
    Depth {
        /// The limit.
        allowed: usize,
    },
    /// An array with more elements than the limit.
    #[error("more than {allowed} elements")]
    Elements {
        /// The limit.
        allowed: usize,
    },
    /// More values outside of arrays of numbers than the limit.
    #[error("more than {allowed} values")]
    Values {
        /// The limit.
        allowed: usize,
    },
    /// Rows of different lengths.
    #[error("ragged lists were given, all rows must have one length")]
    Ragged,
    /// Lists of numbers inside each other beyond what an array can have as axes.
    #[error("more than {allowed} axes were given, at most {allowed} are allowed")]
    Axes {
        /// The limit.
        allowed: usize,
    },
    /// An element of another kind than the array's.
    #[error("{given} was given among the elements, {needed} is needed")]
    Element {
        /// What was found.
        given: &'static str,
        /// What the datatype takes.
        needed: &'static str,
    },
    /// A number that the datatype cannot hold.
    #[error("a number is outside the range of {datatype}")]
    Range {
        /// The name of the datatype.
        datatype: &'static str,
    },
    /// A shape that the data does not fill, or overfills.
    #[error("the data has {given} elements, its shape asks for {needed}")]
    Count {
        /// Elements in the data.
        given: usize,
        /// The product of the shape.
        needed: usize,
    },
    /// Data that is nested as another shape says, with as many elements.
    #[error("the data is nested as {given:?}, its shape asks for {needed:?} or one flat list")]
    Shape {
        /// The lengths of the lists.
        given: Vec<usize>,
        /// The shape.
        needed: Vec<usize>,
    },
    /// Elements or text for which there is no memory.
    #[error("{bytes} bytes of memory are needed, which cannot be had")]
    OutOfMemory {
        /// How much was asked for.
        bytes: usize,
    },
}

/// A result of this module.
pub type Result<T> = std::result::Result<T, Error>;
