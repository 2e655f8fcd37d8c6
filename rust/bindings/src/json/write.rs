//! Python objects and arrays as JSON.

use numpy::{Element as NumpyElement, PyArrayDyn, PyArrayMethods, PyReadonlyArrayDyn};
use numpy::{PyUntypedArray, PyUntypedArrayMethods};
use pyo3::exceptions::PyTypeError;
use pyo3::intern;
use pyo3::prelude::*;
use pyo3::types::{PyBool, PyBytes, PyDict, PyFloat, PyInt, PyList, PyString, PyTuple};
use zerocost_kernels::wire::digits::Digits;
use zerocost_kernels::wire::tensor::{self, Element};

use super::DETACH_BYTES;
use crate::datatype::{datatype_of, with_datatype};

/// `value` as JSON, arrays as nested lists, or with `typed` as `{"dtype", "shape", "data"}` with flat data.
///
/// Dicts with text as keys, lists, tuples, text, numbers, booleans, None, and NumPy arrays and scalars.
#[pyfunction]
#[pyo3(signature = (value, *, typed=false))]
pub fn write_json<'py>(py: Python<'py>, value: &Bound<'py, PyAny>, typed: bool) -> PyResult<Bound<'py, PyBytes>> {
    let mut out = Vec::new();
    write_value(value, typed, &mut out, 0)?;
    Ok(PyBytes::new(py, &out))
}

/// Recursion that a result cannot reach unless it contains itself.
const MAX_WRITE_DEPTH: usize = 500;

fn write_value(value: &Bound<'_, PyAny>, typed: bool, out: &mut Vec<u8>, depth: usize) -> PyResult<()> {
    if depth > MAX_WRITE_DEPTH {
        return Err(PyTypeError::new_err("a result nested deeper than 500 levels has no JSON form"));
    }
    if let Ok(text) = value.cast::<PyString>() {
        write_text(text.to_str()?, out);
    } else if value.is_none() {
        out.extend_from_slice(b"null");
    } else if let Ok(boolean) = value.cast::<PyBool>() {
        boolean.is_true().write(out);
    } else if let Ok(float) = value.cast::<PyFloat>() {
        float.value().write(out);
    } else if let Ok(integer) = value.cast::<PyInt>() {
        match integer.extract::<i64>() {
            Ok(small) => small.write(out),
            Err(_) => out.extend_from_slice(integer.str()?.to_str()?.as_bytes()),
        }
    } else if let Ok(dict) = value.cast::<PyDict>() {
        out.push(b'{');
        for (index, (key, item)) in dict.iter().enumerate() {
            if index > 0 {
                out.push(b',');
            }
            write_text(key.str()?.to_str()?, out);
            out.push(b':');
            write_value(&item, typed, out, depth + 1)?;
        }
        out.push(b'}');
    } else if let Ok(array) = value.cast::<PyUntypedArray>() {
        write_array(array, typed, out)?;
    } else if value.cast::<PyList>().is_ok() || value.cast::<PyTuple>().is_ok() {
        out.push(b'[');
        for (index, item) in value.try_iter()?.enumerate() {
            if index > 0 {
                out.push(b',');
            }
            write_value(&item?, typed, out, depth + 1)?;
        }
        out.push(b']');
    } else if value.hasattr(intern!(value.py(), "dtype"))? && value.hasattr(intern!(value.py(), "ndim"))? {
        // A NumPy scalar: a tensor without axes.
        let array = value.py().import("numpy")?.call_method1("asarray", (value,))?;
        write_array(array.cast::<PyUntypedArray>()?, false, out)?;
    } else {
        return Err(PyTypeError::new_err(format!("{} has no JSON form", value.get_type().name()?)));
    }
    Ok(())
}

fn write_array(array: &Bound<'_, PyUntypedArray>, typed: bool, out: &mut Vec<u8>) -> PyResult<()> {
    let py = array.py();
    let datatype = datatype_of(&array.dtype());
    let shape = array.shape().to_vec();
    let Some(datatype) = datatype else {
        // Text and other objects: as the nested lists that NumPy makes of them.
        return write_value(&array.call_method0(intern!(py, "tolist"))?, false, out, 0);
    };
    let contiguous = if array.is_c_contiguous() && array.is_aligned() {
        array.clone()
    } else {
        array.call_method1(intern!(py, "copy"), ("C",))?.cast_into()?
    };
    if typed {
        out.extend_from_slice(b"{\"dtype\":\"");
        out.extend_from_slice(datatype.as_bytes());
        out.extend_from_slice(b"\",\"shape\":");
        tensor::write(&shape.iter().map(|&length| length as u64).collect::<Vec<_>>(), &[shape.len()], out);
        out.extend_from_slice(b",\"data\":");
    }
    let flat = [shape.iter().product::<usize>()];
    let shape: &[usize] = if typed { &flat } else { &shape };
    with_datatype!(datatype, T => write_elements::<T>(&contiguous, shape, out)?, _ => ());
    if typed {
        out.push(b'}');
    }
    Ok(())
}

fn write_elements<T: Element + NumpyElement>(
    array: &Bound<'_, PyUntypedArray>,
    shape: &[usize],
    out: &mut Vec<u8>,
) -> PyResult<()> {
    let array: PyReadonlyArrayDyn<'_, T> = array.cast::<PyArrayDyn<T>>()?.try_readonly()?;
    let elements = array.as_slice()?;
    // A zero of a float with its comma is four bytes, most other numbers are longer.
    out.reserve(4 * elements.len());
    if elements.len() < DETACH_BYTES / 8 {
        tensor::write(elements, shape, out);
    } else {
        array.py().detach(|| tensor::write(elements, shape, out));
    }
    Ok(())
}

fn write_text(text: &str, out: &mut Vec<u8>) {
    out.push(b'"');
    let mut pending = 0;
    for (index, byte) in text.bytes().enumerate() {
        if byte >= 0x20 && byte != b'"' && byte != b'\\' {
            continue;
        }
        out.extend_from_slice(&text.as_bytes()[pending..index]);
        match byte {
            b'"' | b'\\' => out.extend_from_slice(&[b'\\', byte]),
            b'\n' => out.extend_from_slice(b"\\n"),
            b'\r' => out.extend_from_slice(b"\\r"),
            b'\t' => out.extend_from_slice(b"\\t"),
            _ => out.extend_from_slice(format!("\\u{byte:04x}").as_bytes()),
        }
        pending = index + 1;
    }
    out.extend_from_slice(&text.as_bytes()[pending..]);
    out.push(b'"');
}
