//! Options as Python gives them: numbers, flags, windows. What is of another type is a `DatatypeError` by name.

use numpy::PyUntypedArray;
use pyo3::exceptions::{PyOverflowError, PyTypeError, PyValueError};
use pyo3::intern;
use pyo3::prelude::*;
use pyo3::types::{PyBool, PyByteArray, PyBytes, PyFloat, PyInt, PyString, PyTuple};
use zerocost_kernels::attention::{Align, Normalization, WindowSize};
use zerocost_kernels::{Error, excerpt, parallel};

use crate::error::{DatatypeError, KernelError, RangeError};

/// A value as an error shows it: the beginning of a long one.
pub fn given(value: &Bound<'_, PyAny>) -> String {
    // Only the beginning is copied: a value's text may be as long as memory is.
    match value.repr().as_ref().map(|repr| repr.to_str()) {
        Ok(Ok(text)) => excerpt(text),
        _ => value.get_type().to_string(),
    }
}

/// Whether a conversion says that the value is none of the kind. Whatever else the caller's own code raises while it is
/// asked (an interrupt, for one) is the caller's.
pub fn is_refusal(py: Python<'_>, error: &PyErr) -> bool {
    error.is_instance_of::<PyTypeError>(py)
        || error.is_instance_of::<PyValueError>(py)
        || error.is_instance_of::<PyOverflowError>(py)
}

fn wrong(value: &Bound<'_, PyAny>, argument: &str, needed: &str) -> PyErr {
    let given = given(value);
    DatatypeError::new_err((format!("{argument}: {given} was given, {needed} is needed"), argument.to_owned()))
}

/// A number; bools and text are none. One of NumPy's is the number that it prints as: `float32(0.7)` is 0.7, not the
/// float32 nearest to it.
#[pyfunction]
pub fn number(value: &Bound<'_, PyAny>, argument: &str) -> PyResult<f64> {
    if let Ok(float) = value.cast::<PyFloat>() {
        return Ok(float.value());
    }
    let number = if value.is_instance_of::<PyBool>() {
        None
    } else if value.is_instance_of::<PyInt>() {
        Some(value.extract())
    } else {
        extracted(value).transpose()
    };
    match number {
        Some(Ok(number)) => Ok(number),
        Some(Err(error)) if error.is_instance_of::<PyOverflowError>(value.py()) => {
            let text = format!("{argument}: {} was given, a number that float64 can hold is allowed", given(value));
            Err(RangeError::new_err((text, argument.to_owned())))
        }
        Some(Err(error)) if !is_refusal(value.py(), &error) => Err(error),
        _ => Err(wrong(value, argument, "a number")),
    }
}

/// What is no number of Python's as a float; `None` if it is a value of NumPy's that is no number.
fn extracted(value: &Bound<'_, PyAny>) -> PyResult<Option<f64>> {
    let py = value.py();
    let is_array = value.cast::<PyUntypedArray>().is_ok();
    if !is_array && !value.is_instance(&py.import(intern!(py, "numpy"))?.getattr(intern!(py, "generic"))?)? {
        return value.extract().map(Some);
    }
    let kind: char = value.getattr(intern!(py, "dtype"))?.getattr(intern!(py, "kind"))?.extract()?;
    // Whole, not negative, floating; bfloat16 is a stranger to NumPy.
    if !matches!(kind, 'i' | 'u' | 'f' | 'V') {
        return Ok(None);
    }
    // The element of an array without axes; a scalar is its own.
    let text = value.get_item(PyTuple::empty(py))?.str()?;
    py.get_type::<PyFloat>().call1((text,))?.extract().map(Some)
}

/// How many threads to use.
pub fn num_threads(value: &Bound<'_, PyAny>) -> PyResult<usize> {
    const ARGUMENT: &str = "num_threads";
    if value.is_instance_of::<PyBool>() {
        return Err(wrong(value, ARGUMENT, "a whole number"));
    }
    value.extract().map_err(|error: PyErr| {
        if error.is_instance_of::<PyOverflowError>(value.py()) {
            return KernelError::from(parallel::out_of_range(ARGUMENT, given(value))).into();
        }
        if is_refusal(value.py(), &error) { wrong(value, ARGUMENT, "a whole number") } else { error }
    })
}

/// True or False, of Python or of NumPy.
pub fn flag(value: &Bound<'_, PyAny>, argument: &'static str) -> PyResult<bool> {
    value
        .extract()
        .map_err(|error| if is_refusal(value.py(), &error) { wrong(value, argument, "True or False") } else { error })
}

/// None, a whole number, or a pair of them (in JSON a list).
pub fn window_size(value: &Bound<'_, PyAny>) -> PyResult<WindowSize> {
    if value.is_none() {
        return Ok(WindowSize::Unbounded);
    }
    if let Some(keys) = keys(value, value)? {
        return Ok(WindowSize::Keys(keys));
    }
    let error = || wrong(value, "window_size", "None, a whole number or a pair of them");
    // Bytes are a sequence of whole numbers to Python.
    if value.is_instance_of::<PyBytes>() || value.is_instance_of::<PyByteArray>() {
        return Err(error());
    }
    let [left, right]: [Bound<'_, PyAny>; 2] =
        value.extract().map_err(|raised| if is_refusal(value.py(), &raised) { error() } else { raised })?;
    let side = |side| keys(side, value)?.ok_or_else(error);
    Ok(WindowSize::Pair(side(&left)?, side(&right)?))
}

/// How many keys a member of `window_size` (or all of it) says; `None` where it is no whole number.
fn keys(value: &Bound<'_, PyAny>, window_size: &Bound<'_, PyAny>) -> PyResult<Option<i64>> {
    if value.is_instance_of::<PyBool>() {
        return Ok(None);
    }
    match value.extract() {
        Ok(keys) => Ok(Some(keys)),
        // Beyond 64 bits: as good as any number that no axis reaches, or as wrong as any negative one.
        Err(error) if error.is_instance_of::<PyOverflowError>(value.py()) => {
            if value.gt(0)? {
                return Ok(Some(i64::MAX));
            }
            Err(KernelError::from(WindowSize::out_of_range(given(window_size))).into())
        }
        Err(error) if is_refusal(value.py(), &error) => Ok(None),
        Err(error) => Err(error),
    }
}

/// The name of an alignment.
pub fn align(value: &Bound<'_, PyAny>) -> PyResult<Align> {
    named(value, "align", "\"bottom_right\" or \"top_left\"", Align::named)
}

/// The name of a normalisation.
pub fn normalization(value: &Bound<'_, PyAny>) -> PyResult<Normalization> {
    named(value, "normalization", "\"none\", \"softmax\" or \"sum\"", Normalization::named)
}

fn named<T>(
    value: &Bound<'_, PyAny>,
    argument: &str,
    needed: &str,
    meaning: impl FnOnce(&str) -> Result<T, Error>,
) -> PyResult<T> {
    let name = value.cast::<PyString>().ok().and_then(|name| name.to_str().ok());
    let name = name.ok_or_else(|| wrong(value, argument, needed))?;
    Ok(meaning(name).map_err(KernelError::from)?)
}

pub fn register(module: &Bound<'_, PyModule>) -> PyResult<()> {
    module.add_function(wrap_pyfunction!(number, module)?)
}
