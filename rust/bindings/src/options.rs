//! Options as Python gives them: numbers, flags, windows. What is of another type is a `DatatypeError` by name.

use pyo3::exceptions::PyOverflowError;
use pyo3::prelude::*;
use pyo3::types::PyBool;
use zerocost_kernels::attention::{Align, Normalization, WindowSize};
use zerocost_kernels::parallel;

use crate::error::{DatatypeError, KernelError};

fn given(value: &Bound<'_, PyAny>) -> String {
    value.repr().map_or_else(|_| value.get_type().to_string(), |repr| repr.to_string())
}

fn wrong(value: &Bound<'_, PyAny>, argument: &'static str, needed: &str) -> PyErr {
    let given = given(value);
    DatatypeError::new_err((format!("{argument}: {given} was given, {needed} is needed"), argument))
}

/// A number; bools and text are none.
pub fn number(value: &Bound<'_, PyAny>, argument: &'static str) -> PyResult<f64> {
    if value.is_instance_of::<PyBool>() {
        return Err(wrong(value, argument, "a number"));
    }
    value.extract().map_err(|_| wrong(value, argument, "a number"))
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
        wrong(value, ARGUMENT, "a whole number")
    })
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
    if let Some(keys) = keys(value, value)? {
        return Ok(WindowSize::Keys(keys));
    }
    let error = || wrong(value, "window_size", "None, a whole number or a pair of them");
    let [left, right]: [Bound<'_, PyAny>; 2] = value.extract().map_err(|_| error())?;
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
        Err(_) => Ok(None),
    }
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
