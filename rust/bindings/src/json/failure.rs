//! From what goes wrong with a text to the exception that a caller sees.

use pyo3::import_exception;
use pyo3::prelude::*;
use zerocost_kernels::json::Error;

use crate::error::{DatatypeError, OutOfMemory, RangeError, ShapeError};

import_exception!(zerocost.errors, LimitExceeded);
import_exception!(zerocost.errors, MalformedJSON);

/// What goes wrong with a text, with the name of the input once it is known.
pub enum Failure {
    Text(Error),
    Shape(String),
    Datatype(String),
    Python(PyErr),
}

impl From<Error> for Failure {
    fn from(error: Error) -> Self {
        Self::Text(error)
    }
}

impl From<PyErr> for Failure {
    fn from(error: PyErr) -> Self {
        Self::Python(error)
    }
}

impl From<Failure> for PyErr {
    fn from(failure: Failure) -> Self {
        match failure {
            Failure::Python(error) => error,
            unnamed => unnamed.exception(None),
        }
    }
}

impl Failure {
    /// The same failure with the name of the input, where it is about an input.
    pub fn of(self, argument: &str) -> Self {
        match self {
            Self::Text(Error::Syntax { .. } | Error::Duplicate { .. }) => self,
            unnamed => Self::Python(unnamed.exception(Some(argument))),
        }
    }

    fn exception(self, argument: Option<&str>) -> PyErr {
        let named = |text: String| match argument {
            Some(name) => (format!("{name}: {text}"), Some(name.to_owned())),
            None => (text, None),
        };
        match self {
            Self::Text(error) => text_exception(error, named),
            Self::Shape(text) => ShapeError::new_err(named(text)),
            Self::Datatype(text) => DatatypeError::new_err(named(text)),
            Self::Python(error) => error,
        }
    }
}

fn text_exception(error: Error, named: impl Fn(String) -> (String, Option<String>)) -> PyErr {
    let text = error.to_string();
    match error {
        Error::Syntax { .. } | Error::Duplicate { .. } => MalformedJSON::new_err((format!("not JSON: {text}"),)),
        Error::Depth { .. } | Error::Elements { .. } | Error::Values { .. } => LimitExceeded::new_err(named(text)),
        Error::Ragged | Error::Axes { .. } | Error::Count { .. } | Error::Shape { .. } => {
            ShapeError::new_err(named(text))
        }
        Error::Element { .. } => DatatypeError::new_err(named(text)),
        Error::Range { .. } => RangeError::new_err(named(text)),
        Error::OutOfMemory { .. } => OutOfMemory::new_err(named(text).0),
    }
}
