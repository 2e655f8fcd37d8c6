//! Python objects and arrays as JSON.

use numpy::{PyArrayDescrMethods, PyUntypedArray, PyUntypedArrayMethods};
use pyo3::exceptions::PyTypeError;
use pyo3::intern;
use pyo3::prelude::*;
use pyo3::types::iter::BoundDictIterator;
use pyo3::types::{PyBool, PyBytes, PyDict, PyFloat, PyInt, PyIterator, PyList, PyString, PyTuple, PyType};
use zerocost_kernels::json::{self, Datatype, Digits, MAX_DEPTH, append};
use zerocost_kernels::view::{Layout, View};

use super::failure::Failure;
use super::limits::DETACH_BYTES;
use crate::datatype::{datatype_of, with_datatype};
use crate::error::KernelError;

/// `value` as JSON, arrays as nested lists, or with `typed` as `{"dtype", "shape", "data"}` with flat data.
///
/// Dicts with text as keys, lists, tuples, text, numbers, booleans, None, and NumPy arrays and scalars, up to 500 levels
/// inside each other. Another thread may write to an array meanwhile: each element is read once.
#[pyfunction]
#[pyo3(signature = (value, *, typed=false))]
pub fn write_json<'py>(py: Python<'py>, value: &Bound<'py, PyAny>, typed: bool) -> PyResult<Bound<'py, PyBytes>> {
    let mut out = Vec::new();
    write_value(value, typed, &mut out)?;
    PyBytes::new_with(py, out.len(), |bytes| {
        bytes.copy_from_slice(&out);
        Ok(())
    })
}

/// A list, a dict or an array of objects whose end has not been written yet.
struct Open<'py> {
    items: Items<'py>,
    /// Whether none of its items has been written.
    is_fresh: bool,
    /// Whether arrays in it are written as typed tensors.
    typed: bool,
}

enum Items<'py> {
    List(Bound<'py, PyIterator>),
    /// Of a copy: who changes a dict while it is written changes nothing here.
    Dict(BoundDictIterator<'py>),
    /// What an array of objects is as lists, which has no brackets of its own.
    Array(Option<Bound<'py, PyAny>>),
}

impl<'py> Open<'py> {
    /// The next item, after what stands in front of it; at the end None, after what stands there.
    fn next(&mut self, out: &mut Vec<u8>) -> PyResult<Option<Bound<'py, PyAny>>> {
        let is_first = std::mem::replace(&mut self.is_fresh, false);
        let comma = |out: &mut Vec<u8>| if is_first { Ok(()) } else { append_text(out, b",") };
        match &mut self.items {
            Items::List(items) => match items.next() {
                Some(item) => comma(out).and(item).map(Some),
                None => append_text(out, b"]").map(|()| None),
            },
            Items::Dict(items) => match items.next() {
                Some((key, item)) => {
                    comma(out)?;
                    write_text(key.str()?.to_str()?, out)?;
                    append_text(out, b":")?;
                    Ok(Some(item))
                }
                None => append_text(out, b"}").map(|()| None),
            },
            Items::Array(item) => Ok(item.take()),
        }
    }
}

/// What is open is kept in a list, not in calls: no value is too deep for a thread's stack.
fn write_value(value: &Bound<'_, PyAny>, typed: bool, out: &mut Vec<u8>) -> PyResult<()> {
    let mut open: Vec<Open<'_>> = Vec::new();
    let (mut value, mut typed) = (value.clone(), typed);
    loop {
        if open.len() > MAX_DEPTH {
            let text =
                format!("a result nested deeper than {MAX_DEPTH} levels has no JSON form; does it contain itself?");
            return Err(PyTypeError::new_err(text));
        }
        if let Some(items) = begin(&value, typed, out)? {
            typed &= !matches!(items, Items::Array(_));
            open.push(Open { items, is_fresh: true, typed });
        }
        value = loop {
            let Some(innermost) = open.last_mut() else { return Ok(()) };
            if let Some(item) = innermost.next(out)? {
                typed = innermost.typed;
                break item;
            }
            open.pop();
        };
    }
}

/// Writes a value, or the beginning of one with items, which it returns.
fn begin<'py>(value: &Bound<'py, PyAny>, typed: bool, out: &mut Vec<u8>) -> PyResult<Option<Items<'py>>> {
    let py = value.py();
    json::reserve(out, 32).map_err(Failure::from)?; // more than a number, a boolean or None has
    if let Ok(text) = value.cast::<PyString>() {
        write_text(text.to_str()?, out)?;
    } else if value.is_none() {
        out.extend_from_slice(b"null");
    } else if let Ok(boolean) = value.cast::<PyBool>() {
        boolean.is_true().write(out);
    } else if let Ok(float) = value.cast::<PyFloat>() {
        float.value().write(out);
    } else if let Ok(integer) = value.cast::<PyInt>() {
        match integer.extract::<i64>() {
            Ok(small) => small.write(out),
            // As int does it, not as a subclass may.
            Err(_) => {
                let digits = py.get_type::<PyInt>().call_method1(intern!(py, "__repr__"), (integer,))?;
                append_text(out, digits.cast::<PyString>()?.to_str()?.as_bytes())?;
            }
        }
    } else if let Ok(dict) = value.cast::<PyDict>() {
        out.push(b'{');
        return Ok(Some(Items::Dict(dict.copy()?.into_iter())));
    } else if let Ok(array) = value.cast::<PyUntypedArray>() {
        return write_array(array, typed, out);
    } else if value.is_instance_of::<PyList>() || value.is_instance_of::<PyTuple>() {
        out.push(b'[');
        return Ok(Some(Items::List(value.try_iter()?)));
    } else if value.hasattr(intern!(py, "dtype"))? && value.hasattr(intern!(py, "ndim"))? {
        // A NumPy scalar: a tensor without axes.
        let array = py.import(intern!(py, "numpy"))?.call_method1(intern!(py, "asarray"), (value,))?;
        let array = array.cast_into::<PyUntypedArray>()?;
        // What NumPy cannot read is an object to it, the same one again.
        if array.ndim() > 0 || array.dtype().kind() != b'O' {
            return write_array(&array, false, out);
        }
        return Err(no_form(&value.get_type(), ""));
    } else {
        return Err(no_form(&value.get_type(), ""));
    }
    Ok(None)
}

fn no_form(kind: &Bound<'_, PyType>, what: &str) -> PyErr {
    match kind.name() {
        Ok(name) => PyTypeError::new_err(format!("{name}{what} has no JSON form")),
        Err(error) => error,
    }
}

/// Writes an array of numbers, or returns what another one is as lists.
fn write_array<'py>(
    array: &Bound<'py, PyUntypedArray>,
    typed: bool,
    out: &mut Vec<u8>,
) -> PyResult<Option<Items<'py>>> {
    let py = array.py();
    if datatype_of(&array.dtype()).is_none() {
        return Ok(Some(Items::Array(Some(as_lists(array)?))));
    }
    // From here on nobody but NumPy is asked, and what is read is what it says now: a subclass may override anything.
    let array = if array.is_c_contiguous() && array.is_aligned() {
        array.clone()
    } else {
        py.get_type::<PyUntypedArray>().call_method1(intern!(py, "copy"), (array, "C"))?.cast_into()?
    };
    let descriptor = array.dtype();
    let (Some(datatype), true, true) = (datatype_of(&descriptor), array.is_c_contiguous(), array.is_aligned()) else {
        return Err(no_form(&array.get_type(), ""));
    };
    let shape = array.shape().to_vec();
    if !typed {
        with_datatype!(datatype, T => write_elements::<T>(&array, &shape, out)?, _ => ());
        return Ok(None);
    }
    append_text(out, b"{\"dtype\":\"")?;
    append_text(out, datatype.as_bytes())?;
    append_text(out, b"\",\"shape\":")?;
    let lengths: Vec<u64> = shape.iter().map(|&length| length as u64).collect();
    let lengths = View::from_slice("shape", &lengths, &[shape.len()]).map_err(KernelError::from)?;
    json::write::<u64>(&lengths, out).map_err(Failure::from)?;
    append_text(out, b",\"data\":")?;
    let flat = [shape.iter().product()];
    with_datatype!(datatype, T => write_elements::<T>(&array, &flat, out)?, _ => ());
    append_text(out, b"}")?;
    Ok(None)
}

/// The nested lists that NumPy makes of text, of objects, and of numbers in a foreign byte order or of a foreign type.
fn as_lists<'py>(array: &Bound<'py, PyUntypedArray>) -> PyResult<Bound<'py, PyAny>> {
    let descriptor = array.dtype();
    let has_lists = match descriptor.kind() {
        b'b' | b'i' | b'u' | b'O' | b'S' | b'T' | b'U' => true,
        b'f' => descriptor.itemsize() <= size_of::<f64>(),
        // Types that NumPy does not know itself, but no records and no raw memory.
        b'V' => !descriptor.typeobj().is(array.py().import("numpy")?.getattr("void")?),
        _ => false,
    };
    if !has_lists {
        return Err(no_form(&array.get_type(), &format!(" of dtype {descriptor}")));
    }
    array.call_method0(intern!(array.py(), "tolist"))
}

/// Writes a C-contiguous and aligned array of `T`, whose elements are as many as `shape` says.
fn write_elements<T: Datatype>(array: &Bound<'_, PyUntypedArray>, shape: &[usize], out: &mut Vec<u8>) -> PyResult<()> {
    let layout = Layout::contiguous("value", shape, size_of::<T::Stored>()).map_err(KernelError::from)?;
    let detached = layout.len() >= DETACH_BYTES / 8;
    // SAFETY: `write_array` checked type, alignment and layout, the array's own shape has as many elements as this one,
    // all of them memory that it owns or keeps, and the caller keeps the array. Whatever another thread writes to them
    // is a value of `Stored`, and `json::write` loads each one once.
    let elements: View<'_, T::Stored> = unsafe { View::from_raw((*array.as_array_ptr()).fields.data.cast(), layout) };
    let mut write = || json::write::<T>(&elements, out);
    let written = if detached { array.py().detach(write) } else { write() };
    Ok(written.map_err(Failure::from)?)
}

#[inline]
fn append_text(out: &mut Vec<u8>, text: &[u8]) -> PyResult<()> {
    Ok(append(out, text).map_err(Failure::from)?)
}

fn write_text(text: &str, out: &mut Vec<u8>) -> PyResult<()> {
    json::reserve(out, text.len() + 2).map_err(Failure::from)?;
    out.push(b'"');
    let mut rest = text.as_bytes();
    while let Some(plain) = rest.iter().position(|&byte| byte < 0x20 || byte == b'"' || byte == b'\\') {
        append_text(out, &rest[..plain])?;
        match rest[plain] {
            byte @ (b'"' | b'\\') => append_text(out, &[b'\\', byte]),
            b'\n' => append_text(out, b"\\n"),
            b'\r' => append_text(out, b"\\r"),
            b'\t' => append_text(out, b"\\t"),
            byte => append_text(out, format!("\\u{byte:04x}").as_bytes()),
        }?;
        rest = &rest[plain + 1..];
    }
    append_text(out, rest)?;
    append_text(out, b"\"")
}
