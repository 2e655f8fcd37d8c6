//! JSON as Python objects, declared tensors straight as arrays.

use numpy::{Element as NumpyElement, PyArrayMethods};
use pyo3::buffer::PyBuffer;
use pyo3::exceptions::PyTypeError;
use pyo3::prelude::*;
use pyo3::types::{PyBool, PyDict, PyFloat, PyInt, PyList, PyString};
use zerocost_kernels::wire::json::{Error, Number, Reader};
use zerocost_kernels::wire::tensor::{self, Element};

use super::DETACH_BYTES;
use super::failure::Failure;
use crate::datatype::{datatype_name, with_datatype};

/// Integers with more digits are refused: Python reads them in quadratic time.
const MAX_DIGITS: usize = 4300;

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
pub fn read_json<'py>(
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
pub fn json_spans<'py>(
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
pub fn read_tensor<'py>(
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
