//! Options as Python gives them: numbers, flags, windows. What is of another type is a `DatatypeError` by name.

use pyo3::prelude::*;
use pyo3::types::PyBool;
use zerocost_kernels::attention::{Align, Normalization, WindowSize};

use crate::error::{DatatypeError, KernelError};

fn wrong(value: &Bound<'_, PyAny>, argument: &'static str, needed: &str) -> PyErr {
    let given = value.repr().map_or_else(|_| value.get_type().to_string(), |repr| repr.to_string());
    DatatypeError::new_err((format!("{argument}: {given} was given, {needed} is needed"), argument))
}

/// A number; bools and text are none.
pub fn number(value: &Bound<'_, PyAny>, argument: &'static str) -> PyResult<f64> {
    if value.is_instance_of::<PyBool>() {
        return Err(wrong(value, argument, "a number"));
    }
    value.extract().map_err(|_| wrong(value, argument, "a number"))
}

/// True or False, of Python or of NumPy.
pub fn flag(value: &Bound<'_, PyAny>, argument: &'static str) -> PyResult<bool> {
    value.extract().map_err(|_| wrong(value, argument, "True or False"))
}

/// None, a whole number, or a pair of them (in JSON a list).
pub fn window_size(value: &Bound<'_, PyAny>) -> PyResult<WindowSize> {
    if value.is_none() {
        return Ok(WindowSize::Unbounded);
    }
    let error = || wrong(value, "window_size", "None, a whole number or a pair of them");
    if value.is_instance_of::<PyBool>() {
        return Err(error());
    }
    if let Ok(keys) = value.extract() {
        return Ok(WindowSize::Keys(keys));
    }
    let [left, right]: [Bound<'_, PyAny>; 2] = value.extract().map_err(|_| error())?;
    if left.is_instance_of::<PyBool>() || right.is_instance_of::<PyBool>() {
        return Err(error());
    }
    Ok(WindowSize::Pair(left.extract().map_err(|_| error())?, right.extract().map_err(|_| error())?))
}

/// The name of an alignment.
pub fn align(value: &Bound<'_, PyAny>) -> PyResult<Align> {
    let name: String = value.extract().map_err(|_| wrong(value, "align", "\"bottom_right\" or \"top_left\""))?;
    Ok(Align::named(&name).map_err(KernelError::from)?)
}

/// The name of a normalisation.
pub fn normalization(value: &Bound<'_, PyAny>) -> PyResult<Normalization> {
    let name: String =
        value.extract().map_err(|_| wrong(value, "normalization", "\"none\", \"softmax\" or \"sum\""))?;
    Ok(Normalization::named(&name).map_err(KernelError::from)?)
}
