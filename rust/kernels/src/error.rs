//! The one error of this crate: variants carry numbers, the text is made here.

use thiserror::Error as ThisError;

/// What a kernel refuses or cannot do, before any work is done.
#[derive(Debug, Clone, PartialEq, ThisError)]
pub enum Error {
    /// An argument has too few or too many axes.
    #[error("{argument}: rank {given} was given, {allowed} is needed")]
    Rank {
        /// The name of the argument.
        argument: &'static str,
        /// The rank that it has.
        given: usize,
        /// What is allowed, in words.
        allowed: &'static str,
    },
    /// An argument's shape does not fit the others.
    #[error("{argument}: shape {given:?} was given, {allowed} is needed")]
    Shape {
        /// The name of the argument.
        argument: &'static str,
        /// The shape that it has.
        given: Vec<usize>,
        /// What is allowed, in words and numbers.
        allowed: String,
    },
    /// A number is outside what is allowed.
    #[error("{argument}: {given} was given, {allowed} is allowed")]
    Range {
        /// The name of the argument.
        argument: &'static str,
        /// What was given, as text.
        given: String,
        /// What is allowed, in words.
        allowed: &'static str,
    },
    /// Two arguments that do not go together.
    #[error("{argument}: {problem}")]
    Conflict {
        /// The name of the argument.
        argument: &'static str,
        /// What does not fit.
        problem: &'static str,
    },
    /// An output shares memory with an input (or with itself) in a way that a kernel cannot honour.
    #[error("{argument}: {problem}")]
    Overlap {
        /// The name of the argument.
        argument: &'static str,
        /// What overlaps with what.
        problem: &'static str,
    },
    /// A shape whose number of elements or bytes does not fit the address space.
    #[error("{argument}: shape {given:?} has more elements than memory can hold")]
    Overflow {
        /// The name of the argument.
        argument: &'static str,
        /// The shape.
        given: Vec<usize>,
    },
    /// Scratch memory that the system does not give.
    #[error("{bytes} bytes of memory are needed besides inputs and output, and cannot be had")]
    Memory {
        /// How many bytes were asked for at once.
        bytes: usize,
    },
}

impl Error {
    /// A name that is none of those that an argument may have.
    pub(crate) fn name(argument: &'static str, given: &str, allowed: &'static str) -> Self {
        Self::Range { argument, given: format!("{:?}", excerpt(given)), allowed }
    }
}

/// What an error repeats of a text, which may be as long as the input: its first hundred characters.
pub fn excerpt(text: &str) -> String {
    match text.char_indices().nth(100) {
        Some((end, _)) => format!("{}…", &text[..end]),
        None => text.to_owned(),
    }
}

/// A result of this crate.
pub type Result<T> = std::result::Result<T, Error>;
