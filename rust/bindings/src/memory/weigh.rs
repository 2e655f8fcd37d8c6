//! What a value weighs, taken once, at the put. Runs Python code, so never under the lock.

use std::ffi::{c_int, c_void};

use numpy::{PyArrayDescrMethods, PyUntypedArray, PyUntypedArrayMethods};
use pyo3::PyTraverseError;
use pyo3::exceptions::PyOverflowError;
use pyo3::exceptions::PyTypeError;
use pyo3::ffi;
use pyo3::gc::PyVisit;
use pyo3::intern;
use pyo3::prelude::*;
use pyo3::types::{
    PyBool, PyBytes, PyCapsule, PyCapsuleMethods, PyDict, PyFloat, PyInt, PyList, PyMemoryView, PyString,
};
use zerocost_kernels::memory::Weight;

use crate::array::owner_of;
use crate::error::{DatatypeError, RangeError};
use crate::options::{given, is_refusal};

/// How values are weighed.
#[derive(Default)]
pub enum Weighing {
    #[default]
    Nothing,
    Native,
    Asked(Py<PyAny>),
}

impl Weighing {
    pub fn clone_ref(&self, py: Python<'_>) -> Self {
        match self {
            Self::Nothing => Self::Nothing,
            Self::Native => Self::Native,
            Self::Asked(sizeof) => Self::Asked(sizeof.clone_ref(py)),
        }
    }

    /// Runs Python code.
    pub fn weigh(&self, key: &Bound<'_, PyAny>, value: &Bound<'_, PyAny>) -> PyResult<Weighed> {
        match self {
            Self::Nothing => Ok(Weighed::default()),
            Self::Native => native(value),
            Self::Asked(sizeof) => asked(sizeof.bind(key.py()), key, value),
        }
    }

    pub fn traverse(&self, visit: &PyVisit<'_>) -> Result<(), PyTraverseError> {
        match self {
            Self::Asked(sizeof) => visit.call(sizeof),
            Self::Nothing | Self::Native => Ok(()),
        }
    }
}

/// A weight, and the reference that keeps a shared owner's address from being used again.
#[derive(Default)]
pub struct Weighed {
    pub weight: Weight,
    pub owner: Option<Py<PyAny>>,
}

impl Weighed {
    fn alone(bytes: u64) -> Self {
        Self { weight: Weight { bytes, owner: None }, owner: None }
    }

    /// `owner` is what the bytes are charged to; `value` keeps it alive unless Python lets go of it.
    fn shared(owner: Bound<'_, PyAny>, bytes: u64, value: &Bound<'_, PyAny>) -> Self {
        let weight = Weight { bytes, owner: Some(owner.as_ptr() as usize) };
        Self { weight, owner: (!owner.is(value)).then(|| owner.unbind()) }
    }
}

/// What `sizeof(key, value)` says.
fn asked(sizeof: &Bound<'_, PyAny>, key: &Bound<'_, PyAny>, value: &Bound<'_, PyAny>) -> PyResult<Weighed> {
    let size = sizeof.call1((key, value))?;
    match size.extract::<u64>() {
        Ok(bytes) => Ok(Weighed::alone(bytes)),
        Err(error) if !is_refusal(size.py(), &error) => Err(error),
        Err(error) if !error.is_instance_of::<PyOverflowError>(size.py()) => {
            Err(DatatypeError::new_err(("sizeof: must return an int, a number of bytes", "sizeof")))
        }
        // Larger than any cache.
        Err(_) if size.gt(0)? => Ok(Weighed::alone(u64::MAX)),
        _ => Err(RangeError::new_err((format!("sizeof: returned {}, 0 or more is allowed", given(&size)), "sizeof"))),
    }
}

/// The native weight: arrays and memoryviews by what owns their memory, other values by their length.
fn native(value: &Bound<'_, PyAny>) -> PyResult<Weighed> {
    if let Ok(array) = value.cast::<PyUntypedArray>() {
        return Ok(of_array(array, value));
    }
    if let Ok(bytes) = value.cast::<PyBytes>() {
        return Ok(Weighed::alone(bytes.as_bytes().len() as u64));
    }
    if let Ok(text) = value.cast::<PyString>() {
        return Ok(Weighed::alone(utf8_length(text)? as u64));
    }
    if let Ok(view) = value.cast::<PyMemoryView>() {
        return of_memoryview(view);
    }
    if let Some(length) = json_length(value)? {
        return Ok(Weighed::alone(length as u64));
    }
    if value.hasattr(intern!(value.py(), "__dlpack__"))? {
        return dlpack_bytes(value);
    }
    Err(unweighable(value, "ndarray, bytes, str, memoryview, DLPack tensors and JSON values have a known size"))
}

fn unweighable(value: &Bound<'_, PyAny>, why: &str) -> PyErr {
    let kind = value.get_type();
    let text = format!("value: {kind} was given under max_bytes; {why}; pass sizeof to LRUCache for others");
    DatatypeError::new_err((text, "value"))
}

/// The last ndarray in the chain of bases: what owns the memory, or views memory that NumPy does not know. The entry
/// keeps a reference to it, as `__setstate__` makes a view let go of its base.
fn of_array(array: &Bound<'_, PyUntypedArray>, value: &Bound<'_, PyAny>) -> Weighed {
    let root = owner_of(array);
    let bytes = root.len() as u64 * root.dtype().itemsize() as u64;
    Weighed::shared(root.into_any(), bytes, value)
}

/// A released memoryview lets go of its object, so the entry keeps a reference of its own.
fn of_memoryview(view: &Bound<'_, PyMemoryView>) -> PyResult<Weighed> {
    let object = view.getattr(intern!(view.py(), "obj"))?;
    if let Ok(array) = object.cast::<PyUntypedArray>() {
        return Ok(of_array(array, view.as_any()));
    }
    if object.is_none() {
        let bytes: u64 = view.getattr(intern!(view.py(), "nbytes"))?.extract()?;
        return Ok(Weighed::alone(bytes));
    }
    let bytes = PyMemoryView::from(&object)?.getattr(intern!(view.py(), "nbytes"))?.extract()?;
    Ok(Weighed::shared(object, bytes, view.as_any()))
}

fn utf8_length(text: &Bound<'_, PyString>) -> PyResult<usize> {
    let py = text.py();
    if text.call_method0(intern!(py, "isascii"))?.is_truthy()? {
        return text.len();
    }
    // The interpreter would keep the encoded form beside the string if it were asked for a pointer to it.
    // SAFETY: the string is alive, both names are C strings; a new reference, or null with an exception set.
    let encoded = unsafe {
        let bytes = ffi::PyUnicode_AsEncodedString(text.as_ptr(), c"utf-8".as_ptr(), c"surrogatepass".as_ptr());
        Bound::from_owned_ptr_or_err(py, bytes)?
    };
    encoded.len()
}

/// The encoded length of a JSON value; `None` if it is of no JSON type.
fn json_length(value: &Bound<'_, PyAny>) -> PyResult<Option<usize>> {
    let py = value.py();
    if value.is_none() {
        return Ok(Some(4));
    }
    if let Ok(truth) = value.cast::<PyBool>() {
        return Ok(Some(if truth.is_true() { 4 } else { 5 }));
    }
    if value.is_instance_of::<PyInt>() {
        return Ok(Some(match value.extract::<i64>() {
            Ok(number) => digits(number),
            // May be more than the interpreter agrees to write in decimal.
            Err(_) => value.call_method0(intern!(py, "bit_length"))?.extract::<usize>()? * 30103 / 100_000 + 1,
        }));
    }
    if let Ok(number) = value.cast::<PyFloat>() {
        // As a plain one, as NumPy's is a float too.
        return encoded(PyFloat::new(py, number.value()).as_any())?.len().map(Some);
    }
    if !value.is_instance_of::<PyDict>() && !value.is_instance_of::<PyList>() {
        return Ok(None);
    }
    match encoded(value) {
        Ok(encoded) => encoded.len().map(Some),
        Err(error) if error.is_instance_of::<PyTypeError>(py) => {
            Err(unweighable(value, &format!("it is not JSON ({})", error.value(py))))
        }
        Err(error) => Err(error),
    }
}

fn encoded<'py>(value: &Bound<'py, PyAny>) -> PyResult<Bound<'py, PyAny>> {
    let py = value.py();
    py.import(intern!(py, "orjson"))?.call_method1(intern!(py, "dumps"), (value,))
}

fn digits(number: i64) -> usize {
    number.unsigned_abs().checked_ilog10().map_or(1, |log| log as usize + 1) + usize::from(number < 0)
}

/// The beginning of a `DLManagedTensor`, from dlpack.h.
#[repr(C)]
struct DlTensor {
    data: *mut c_void,
    device_type: c_int,
    device_id: c_int,
    rank: c_int,
    type_code: u8,
    bits: u8,
    lanes: u16,
    shape: *const i64,
}

fn dlpack_bytes(value: &Bound<'_, PyAny>) -> PyResult<Weighed> {
    let capsule = value.call_method0(intern!(value.py(), "__dlpack__"))?;
    let capsule =
        capsule.cast_into::<PyCapsule>().map_err(|_| unweighable(value, "its __dlpack__ gives no capsule"))?;
    let pointer = capsule
        .pointer_checked(Some(c"dltensor"))
        .map_err(|_| unweighable(value, "its __dlpack__ gives another capsule than \"dltensor\""))?;
    // SAFETY: a capsule of that name, which was checked, holds a DLManagedTensor, which begins with the tensor. It lives as
    // long as the capsule: nobody consumes that, so its destructor frees the tensor.
    let tensor = unsafe { pointer.cast::<DlTensor>().as_ref() };
    let rank = usize::try_from(tensor.rank).unwrap_or(0);
    let shape = match rank {
        0 => &[],
        _ if tensor.shape.is_null() => return Err(unweighable(value, "its __dlpack__ gives no shape")),
        // SAFETY: `shape` points to `rank` lengths where it is not null, as dlpack.h has it.
        _ => unsafe { std::slice::from_raw_parts(tensor.shape, rank) },
    };
    let item = u128::from(tensor.bits) * u128::from(tensor.lanes);
    let bits = shape.iter().fold(item, |bits, &length| bits.saturating_mul(length.max(0) as u128));
    Ok(Weighed::alone(bits.div_ceil(8).try_into().unwrap_or(u64::MAX)))
}
