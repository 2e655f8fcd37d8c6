//! JSON bodies: values as Python objects, declared tensors straight as arrays.

use half::{bf16, f16};
use numpy::{
    Element as NumpyElement, PyArrayDescr, PyArrayDescrMethods, PyArrayDyn, PyArrayMethods, PyReadonlyArrayDyn,
};
use numpy::{PyUntypedArray, PyUntypedArrayMethods};
use pyo3::buffer::PyBuffer;
use pyo3::exceptions::PyTypeError;
use pyo3::import_exception;
use pyo3::intern;
use pyo3::prelude::*;
use pyo3::types::{PyBool, PyBytes, PyDict, PyFloat, PyInt, PyList, PyString, PyTuple};
use zerocost_kernels::wire::digits::Digits;
use zerocost_kernels::wire::json::{Error, Number, Reader};
use zerocost_kernels::wire::tensor::{self, Element};

use crate::error::{DatatypeError, RangeError, ShapeError};

import_exception!(zerocost.errors, LimitExceeded);
import_exception!(zerocost.errors, MalformedJSON);

/// Texts longer than this are read, and arrays larger than this written, without the GIL.
const DETACH_BYTES: usize = 16 << 10;

/// Integers with more digits are refused: Python reads them in quadratic time.
const MAX_DIGITS: usize = 4300;

/// What goes wrong in a reader, with the name of the input once it is known.
enum Failure {
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
    fn of(self, argument: &str) -> Self {
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
        Error::Syntax { .. } | Error::Duplicate { .. } => {
            MalformedJSON::new_err((format!("the body is no JSON: {text}"),))
        }
        Error::Depth { .. } | Error::Elements { .. } | Error::Values { .. } => LimitExceeded::new_err(named(text)),
        Error::Ragged | Error::Count { .. } => ShapeError::new_err(named(text)),
        Error::Element { .. } => DatatypeError::new_err(named(text)),
        Error::Range { .. } => RangeError::new_err(named(text)),
    }
}

/// Evaluates the expression with `T` bound to the element type of an Open Inference datatype name.
macro_rules! with_datatype {
    ($datatype:expr, $T:ident => $body:expr, _ => $other:expr) => {
        match $datatype {
            "FP64" => {
                type $T = f64;
                $body
            }
            "FP32" => {
                type $T = f32;
                $body
            }
            "FP16" => {
                type $T = f16;
                $body
            }
            "BF16" => {
                type $T = bf16;
                $body
            }
            "BOOL" => {
                type $T = bool;
                $body
            }
            "UINT8" => {
                type $T = u8;
                $body
            }
            "UINT16" => {
                type $T = u16;
                $body
            }
            "UINT32" => {
                type $T = u32;
                $body
            }
            "UINT64" => {
                type $T = u64;
                $body
            }
            "INT8" => {
                type $T = i8;
                $body
            }
            "INT16" => {
                type $T = i16;
                $body
            }
            "INT32" => {
                type $T = i32;
                $body
            }
            "INT64" => {
                type $T = i64;
                $body
            }
            _ => $other,
        }
    };
}

/// The limits of one text.
struct Limits {
    values: usize,
    max_values: usize,
    max_elements: usize,
}

impl Limits {
    fn count_value(&mut self) -> Result<(), Error> {
        self.values += 1;
        if self.values > self.max_values { Err(Error::Values { allowed: self.max_values }) } else { Ok(()) }
    }
}

/// The JSON text in `data` as Python objects. Members of the outer object that `tensors` names become arrays.
///
/// `tensors` maps a name to (datatype of numbers, whether lists of booleans become BOOL). A list becomes an array of that
/// datatype, an object `{"dtype", "shape", "data"}` one of its own; anything else stays what it is.
#[pyfunction]
#[pyo3(signature = (data, tensors=None, *, max_depth=100, max_values=1_000_000, max_elements=1 << 24))]
fn read_json<'py>(
    py: Python<'py>,
    data: PyBuffer<u8>,
    tensors: Option<&Bound<'py, PyDict>>,
    max_depth: usize,
    max_values: usize,
    max_elements: usize,
) -> PyResult<Bound<'py, PyAny>> {
    let bytes = contents(&data)?;
    let mut limits = Limits { values: 0, max_values, max_elements };
    let mut reader = reader(bytes, max_depth)?;
    let value = match tensors {
        Some(tensors) if reader.peek().map_err(Failure::from)? == b'{' => {
            members(py, &mut reader, &mut limits, Some(tensors))
        }
        _ => value(py, &mut reader, &mut limits),
    }?;
    reader.finish().map_err(Failure::from)?;
    Ok(value)
}

/// The spans in bytes of the values of the outer object by name, or of the outer array by index. Checks all of the text.
#[pyfunction]
#[pyo3(signature = (data, *, max_depth=100, max_values=1_000_000))]
fn json_spans<'py>(
    py: Python<'py>,
    data: PyBuffer<u8>,
    max_depth: usize,
    max_values: usize,
) -> PyResult<Bound<'py, PyAny>> {
    let bytes = contents(&data)?;
    let mut reader = reader(bytes, max_depth)?;
    let mut limits = Limits { values: 0, max_values, max_elements: 0 };
    let spans = match reader.peek().map_err(Failure::from)? {
        b'{' => {
            let spans = PyDict::new(py);
            reader.object(|reader, name| {
                limits.count_value()?;
                let name = PyString::new(py, &name);
                if spans.contains(&name)? {
                    return Err(Failure::from(reader.duplicate(name.to_str()?)));
                }
                Ok(spans.set_item(name, reader.skip()?)?)
            })?;
            spans.into_any()
        }
        b'[' => {
            let spans = PyList::empty(py);
            reader.array(|reader| {
                limits.count_value()?;
                Ok::<_, Failure>(spans.append(reader.skip()?)?)
            })?;
            spans.into_any()
        }
        _ => {
            reader.skip().map_err(Failure::from)?;
            py.None().into_bound(py)
        }
    };
    reader.finish().map_err(Failure::from)?;
    Ok(spans)
}

/// The numbers or booleans in `data`, flat or nested lists, as an array of an Open Inference datatype and a shape.
#[pyfunction]
#[pyo3(signature = (data, datatype, shape, *, max_depth=100, max_elements=1 << 24))]
fn read_tensor<'py>(
    py: Python<'py>,
    data: PyBuffer<u8>,
    datatype: &str,
    shape: Vec<usize>,
    max_depth: usize,
    max_elements: usize,
) -> PyResult<Bound<'py, PyAny>> {
    let mut reader = reader(contents(&data)?, max_depth)?;
    let array = with_datatype!(
        datatype,
        T => read_array::<T>(py, &mut reader, Some(&shape), max_elements),
        _ => Err(Failure::Datatype(format!("{datatype:?} is no datatype of numbers")))
    )?;
    reader.finish().map_err(Failure::from)?;
    Ok(array)
}

fn contents(data: &PyBuffer<u8>) -> PyResult<&[u8]> {
    if !data.is_c_contiguous() {
        return Err(PyTypeError::new_err("a contiguous buffer of bytes is needed"));
    }
    // SAFETY: the exporter keeps the memory in place while `data` lives, and it is contiguous. That another thread of
    // the caller writes to a bytearray meanwhile is the caller's data race, as with every use of the buffer protocol.
    Ok(unsafe { std::slice::from_raw_parts(data.buf_ptr().cast(), data.len_bytes()) })
}

fn reader(bytes: &[u8], max_depth: usize) -> PyResult<Reader<'_>> {
    Ok(Reader::new(bytes, max_depth).map_err(Failure::from)?)
}

fn value<'py>(py: Python<'py>, reader: &mut Reader<'_>, limits: &mut Limits) -> Result<Bound<'py, PyAny>, Failure> {
    limits.count_value()?;
    Ok(match reader.peek()? {
        b'{' => members(py, reader, limits, None)?,
        b'[' => {
            let list = PyList::empty(py);
            reader.array(|reader| Ok::<_, Failure>(list.append(value(py, reader, limits)?)?))?;
            list.into_any()
        }
        b'"' => PyString::new(py, &reader.string()?).into_any(),
        b't' | b'f' => PyBool::new(py, reader.boolean()?).to_owned().into_any(),
        b'n' => {
            reader.null()?;
            py.None().into_bound(py)
        }
        _ => number(py, reader.number()?)?,
    })
}

fn number<'py>(py: Python<'py>, number: Number<'_>) -> Result<Bound<'py, PyAny>, Failure> {
    if !number.is_integer {
        let double = tensor::double(number);
        if !double.is_finite() {
            return Err(Error::Range { datatype: "FP64" }.into());
        }
        return Ok(PyFloat::new(py, double).into_any());
    }
    if let Ok(small) = number.text.parse::<i64>() {
        return Ok(PyInt::new(py, small).into_any());
    }
    if number.text.len() > MAX_DIGITS {
        return Err(Error::Range { datatype: "an integer of 4300 digits" }.into());
    }
    Ok(py.get_type::<PyInt>().call1((number.text,))?)
}

fn members<'py>(
    py: Python<'py>,
    reader: &mut Reader<'_>,
    limits: &mut Limits,
    tensors: Option<&Bound<'py, PyDict>>,
) -> Result<Bound<'py, PyAny>, Failure> {
    let object = PyDict::new(py);
    reader.object(|reader, name| {
        let key = PyString::new(py, &name);
        if object.contains(&key)? {
            return Err(reader.duplicate(&name).into());
        }
        let declared = match tensors {
            Some(tensors) => tensors.get_item(&key)?,
            None => None,
        };
        let member = match declared {
            Some(declared) => {
                let (datatype, takes_booleans): (String, bool) = declared.extract()?;
                declared_tensor(py, reader, limits, &datatype, takes_booleans)
            }
            None => value(py, reader, limits),
        };
        // Only members of the outer object are inputs.
        let member = if tensors.is_some() { member.map_err(|error| error.of(&name)) } else { member }?;
        Ok::<_, Failure>(object.set_item(key, member)?)
    })?;
    Ok(object.into_any())
}

fn declared_tensor<'py>(
    py: Python<'py>,
    reader: &mut Reader<'_>,
    limits: &mut Limits,
    datatype: &str,
    takes_booleans: bool,
) -> Result<Bound<'py, PyAny>, Failure> {
    match reader.peek()? {
        b'[' => {
            let datatype = if takes_booleans && starts_with_boolean(reader) { "BOOL" } else { datatype };
            with_datatype!(datatype, T => read_array::<T>(py, reader, None, limits.max_elements), _ => value(py, reader, limits))
        }
        b'{' => typed_tensor(py, reader, limits),
        _ => value(py, reader, limits),
    }
}

/// Whether the first element of nested lists is `true` or `false`.
fn starts_with_boolean(reader: &mut Reader<'_>) -> bool {
    matches!(reader.first_element(), Some(b't' | b'f'))
}

/// `{"dtype": …, "shape": …, "data": …}`, in any order.
fn typed_tensor<'py>(
    py: Python<'py>,
    reader: &mut Reader<'_>,
    limits: &mut Limits,
) -> Result<Bound<'py, PyAny>, Failure> {
    let (mut dtype, mut shape, mut data) = (None, None, None);
    reader.object(|reader, name| {
        let place = match &*name {
            "dtype" => &mut dtype,
            "shape" => &mut shape,
            "data" => &mut data,
            other => {
                let text = format!("{other:?} is no member of a typed tensor; there are 'dtype', 'shape' and 'data'");
                return Err(Failure::Datatype(text));
            }
        };
        if place.replace(reader.skip()?).is_some() {
            return Err(reader.duplicate(&name).into());
        }
        Ok(())
    })?;
    let (Some(dtype), Some(shape), Some(data)) = (dtype, shape, data) else {
        return Err(Failure::Datatype("a typed tensor needs 'dtype', 'shape' and 'data'".to_owned()));
    };
    let mut at = reader.at(dtype);
    let dtype = if at.peek()? == b'"' { at.string()?.into_owned() } else { String::new() };
    let needed = || Failure::Shape("a typed tensor's shape must be a list of whole numbers of at least 0".to_owned());
    let (shape, axes) = tensor::read::<u64>(&mut reader.at(shape), 64).map_err(|_| needed())?;
    if axes.len() != 1 {
        return Err(needed());
    }
    let shape: Vec<usize> = shape.into_iter().map(|length| usize::try_from(length).unwrap_or(usize::MAX)).collect();
    let mut at = reader.at(data);
    if at.peek()? != b'[' {
        return Err(Failure::Datatype("a typed tensor's data must be a list".to_owned()));
    }
    with_datatype!(
        datatype_name(&dtype),
        T => read_array::<T>(py, &mut at, Some(&shape), limits.max_elements),
        _ => Err(Failure::Datatype(format!("{dtype:?} is no dtype of a typed tensor")))
    )
}

/// The Open Inference name of a datatype that may be given by its NumPy name.
fn datatype_name(name: &str) -> &str {
    match name {
        "float64" => "FP64",
        "float32" => "FP32",
        "float16" => "FP16",
        "bfloat16" => "BF16",
        "bool" => "BOOL",
        "uint8" => "UINT8",
        "uint16" => "UINT16",
        "uint32" => "UINT32",
        "uint64" => "UINT64",
        "int8" => "INT8",
        "int16" => "INT16",
        "int32" => "INT32",
        "int64" => "INT64",
        other => other,
    }
}

fn read_array<'py, T: Element + NumpyElement>(
    py: Python<'py>,
    reader: &mut Reader<'_>,
    shape: Option<&[usize]>,
    max_elements: usize,
) -> Result<Bound<'py, PyAny>, Failure> {
    let is_long = reader.remaining() > DETACH_BYTES;
    let mut read = || match shape {
        Some(shape) => tensor::read_shaped::<T>(reader, shape, max_elements).map(|elements| (elements, shape.to_vec())),
        None => tensor::read::<T>(reader, max_elements),
    };
    let (elements, shape) = if is_long { py.detach(read)? } else { read()? };
    if T::DATATYPE == "BF16" {
        py.import("ml_dtypes")?; // registers bfloat16 with NumPy
    }
    if shape.len() > 32 {
        return Err(Failure::Shape(format!("{} axes were given, at most 32 are allowed", shape.len())));
    }
    Ok(numpy::PyArray1::from_vec(py, elements).reshape(shape)?.into_any())
}

/// `value` as JSON, arrays as nested lists, or with `typed` as `{"dtype", "shape", "data"}` with flat data.
///
/// Dicts with text as keys, lists, tuples, text, numbers, booleans, None, and NumPy arrays and scalars.
#[pyfunction]
#[pyo3(signature = (value, *, typed=false))]
fn write_json<'py>(py: Python<'py>, value: &Bound<'py, PyAny>, typed: bool) -> PyResult<Bound<'py, PyBytes>> {
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
    if elements.len() < DETACH_BYTES / 8 {
        tensor::write(elements, shape, out);
    } else {
        array.py().detach(|| tensor::write(elements, shape, out));
    }
    Ok(())
}

/// The Open Inference name of what an array holds, None where it has none (text, objects, big-endian, complex).
fn datatype_of(descriptor: &Bound<'_, PyArrayDescr>) -> Option<&'static str> {
    if descriptor.is_native_byteorder() == Some(false) {
        return None;
    }
    Some(match (descriptor.kind(), descriptor.itemsize()) {
        (b'f', 8) => "FP64",
        (b'f', 4) => "FP32",
        (b'f', 2) => "FP16",
        (b'b', 1) => "BOOL",
        (b'u', 1) => "UINT8",
        (b'u', 2) => "UINT16",
        (b'u', 4) => "UINT32",
        (b'u', 8) => "UINT64",
        (b'i', 1) => "INT8",
        (b'i', 2) => "INT16",
        (b'i', 4) => "INT32",
        (b'i', 8) => "INT64",
        (_, 2) if descriptor.typeobj().name().is_ok_and(|name| name == "bfloat16") => "BF16",
        _ => return None,
    })
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

pub fn register(module: &Bound<'_, PyModule>) -> PyResult<()> {
    module.add_function(wrap_pyfunction!(read_json, module)?)?;
    module.add_function(wrap_pyfunction!(read_tensor, module)?)?;
    module.add_function(wrap_pyfunction!(json_spans, module)?)?;
    module.add_function(wrap_pyfunction!(write_json, module)?)?;
    Ok(())
}
