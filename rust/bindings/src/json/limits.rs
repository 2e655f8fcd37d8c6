//! What a caller allows of a text, and from when on the GIL is given up for one.

use pyo3::exceptions::PyOverflowError;
use pyo3::prelude::*;
use zerocost_kernels::json::{Error, MAX_AXES};

use crate::error::{RangeError, ShapeError};
use crate::options::given;

/// Texts longer than this are read, and arrays larger than this written, without the GIL.
pub const DETACH_BYTES: usize = 16 << 10;

/// How many values were read, and how many there may be.
pub struct Limits {
    values: usize,
    max_values: usize,
    /// Of each array.
    pub max_elements: usize,
}

impl Limits {
    pub fn new(max_values: usize, max_elements: usize) -> Self {
        Self { values: 0, max_values, max_elements }
    }

    pub fn count_value(&mut self) -> Result<(), Error> {
        self.values += 1;
        if self.values > self.max_values { Err(Error::Values { allowed: self.max_values }) } else { Ok(()) }
    }
}

pub fn max_depth(value: &Bound<'_, PyAny>) -> PyResult<usize> {
    limit(value, "max_depth")
}

pub fn max_values(value: &Bound<'_, PyAny>) -> PyResult<usize> {
    limit(value, "max_values")
}

pub fn max_elements(value: &Bound<'_, PyAny>) -> PyResult<usize> {
    limit(value, "max_elements")
}

fn limit(value: &Bound<'_, PyAny>, argument: &'static str) -> PyResult<usize> {
    out_of_range(value.extract(), value, |given| {
        RangeError::new_err((format!("{argument}: {given} was given, 0 to {} is allowed", usize::MAX), argument))
    })
}

/// The length of each axis.
pub fn shape(value: &Bound<'_, PyAny>) -> PyResult<Vec<usize>> {
    out_of_range(lengths(value), value, |given| {
        let text = format!("shape: {given} was given, lengths from 0 to {} are allowed", usize::MAX);
        ShapeError::new_err((text, "shape"))
    })
}

/// As many as an array may have, and one more: what is beyond that is refused whatever it is.
fn lengths(value: &Bound<'_, PyAny>) -> PyResult<Vec<usize>> {
    value.try_iter()?.take(MAX_AXES + 1).map(|length| length?.extract()).collect()
}

fn out_of_range<T>(number: PyResult<T>, value: &Bound<'_, PyAny>, error: impl FnOnce(String) -> PyErr) -> PyResult<T> {
    number.map_err(
        |raised| {
            if raised.is_instance_of::<PyOverflowError>(value.py()) { error(given(value)) } else { raised }
        },
    )
}
