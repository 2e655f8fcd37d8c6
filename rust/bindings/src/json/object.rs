//! Fresh Python objects, or `MemoryError`: PyO3's own constructors panic where there is no memory for one.

use pyo3::ffi;
use pyo3::prelude::*;
use pyo3::types::{PyDict, PyList};

pub fn list(py: Python<'_>) -> PyResult<Bound<'_, PyList>> {
    // SAFETY: the function gives a new reference to a list, or null with an exception set.
    Ok(unsafe { Bound::from_owned_ptr_or_err(py, ffi::PyList_New(0))?.cast_into_unchecked() })
}

pub fn dict(py: Python<'_>) -> PyResult<Bound<'_, PyDict>> {
    // SAFETY: as in `list`, to a dict.
    Ok(unsafe { Bound::from_owned_ptr_or_err(py, ffi::PyDict_New())?.cast_into_unchecked() })
}

pub fn float(py: Python<'_>, value: f64) -> PyResult<Bound<'_, PyAny>> {
    // SAFETY: as in `list`, to a float.
    unsafe { Bound::from_owned_ptr_or_err(py, ffi::PyFloat_FromDouble(value)) }
}

pub fn integer(py: Python<'_>, value: i64) -> PyResult<Bound<'_, PyAny>> {
    // SAFETY: as in `list`, to an int.
    unsafe { Bound::from_owned_ptr_or_err(py, ffi::PyLong_FromLongLong(value)) }
}

/// Where a value starts and ends.
pub fn span(py: Python<'_>, (start, end): (usize, usize)) -> PyResult<Bound<'_, PyAny>> {
    // No text has more bytes than an `i64` can count.
    let (start, end) = (integer(py, start as i64)?, integer(py, end as i64)?);
    // SAFETY: as in `list`, to a tuple; it takes references of its own to the two objects that follow the number 2.
    unsafe { Bound::from_owned_ptr_or_err(py, ffi::PyTuple_Pack(2, start.as_ptr(), end.as_ptr())) }
}
