//! JSON as Python objects, declared tensors straight as arrays.

use numpy::{Element as NumpyElement, PyArrayMethods};
use pyo3::buffer::PyBuffer;
use pyo3::intern;
use pyo3::prelude::*;
use pyo3::types::{PyBool, PyDict, PyInt, PyList, PyString};
use zerocost_kernels::excerpt;
use zerocost_kernels::json::{self, Datatype, Error, MAX_AXES, Number, Reader};

use super::failure::Failure;
use super::limits::{DETACH_BYTES, Limits, max_depth, max_elements, max_values, shape};
use super::object;
use super::text::Text;
use crate::datatype::{datatype_name, with_datatype};

/// Integers with more digits are refused: Python reads them in quadratic time.
const MAX_DIGITS: usize = 4300;

/// The JSON text in `data` as Python objects. Members of the outer object that `tensors` names become arrays.
///
/// `tensors` maps a name to (datatype of numbers, whether lists of booleans become BOOL, whether lists of 0 and 1 are
/// refused). A list becomes an array of that datatype, an object `{"dtype", "shape", "data"}` one of its own; anything
/// else stays what it is.
///
/// Bytes are read where they are, other buffers are copied first. Lists and objects may be inside each other up to
/// `max_depth` levels, and up to 500 whatever `max_depth` says.
#[pyfunction]
#[pyo3(signature = (data, tensors=None, *, max_depth=100, max_values=1_000_000, max_elements=1 << 24))]
pub fn read_json<'py>(
    py: Python<'py>,
    data: PyBuffer<u8>,
    tensors: Option<&Bound<'py, PyDict>>,
    #[pyo3(from_py_with = max_depth)] max_depth: usize,
    #[pyo3(from_py_with = max_values)] max_values: usize,
    #[pyo3(from_py_with = max_elements)] max_elements: usize,
) -> PyResult<Bound<'py, PyAny>> {
    let text = Text::new(py, &data)?;
    let mut limits = Limits::new(max_values, max_elements);
    let mut reader = reader(&text, max_depth)?;
    let value = match tensors {
        Some(tensors) if reader.peek().map_err(Failure::from)? == b'{' => {
            members(py, &mut reader, &mut limits, tensors)
        }
        _ => value(py, &mut reader, &mut limits),
    }?;
    reader.finish().map_err(Failure::from)?;
    Ok(value)
}

/// The spans in bytes of the values of the outer object by name, or of the outer array by index. Checks all of the text.
///
/// `max_depth` counts up to 500, as for `read_json`.
#[pyfunction]
#[pyo3(signature = (data, *, max_depth=100, max_values=1_000_000))]
pub fn json_spans<'py>(
    py: Python<'py>,
    data: PyBuffer<u8>,
    #[pyo3(from_py_with = max_depth)] max_depth: usize,
    #[pyo3(from_py_with = max_values)] max_values: usize,
) -> PyResult<Bound<'py, PyAny>> {
    let text = Text::new(py, &data)?;
    let mut reader = reader(&text, max_depth)?;
    let mut limits = Limits::new(max_values, 0);
    let spans = match reader.peek().map_err(Failure::from)? {
        b'{' => {
            let spans = object::dict(py)?;
            reader.object(|reader, name| {
                limits.count_value()?;
                let key = unused(py, reader, &spans, &name)?;
                Ok::<_, Failure>(spans.set_item(key, object::span(py, reader.skip()?)?)?)
            })?;
            spans.into_any()
        }
        b'[' => {
            let spans = object::list(py)?;
            reader.array(|reader| {
                limits.count_value()?;
                Ok::<_, Failure>(spans.append(object::span(py, reader.skip()?)?)?)
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
///
/// `max_depth` counts up to 500, as for `read_json`; an array has at most 32 axes.
#[pyfunction]
#[pyo3(signature = (data, datatype, shape, *, max_depth=100, max_elements=1 << 24))]
pub fn read_tensor<'py>(
    py: Python<'py>,
    data: PyBuffer<u8>,
    datatype: &str,
    #[pyo3(from_py_with = shape)] shape: Vec<usize>,
    #[pyo3(from_py_with = max_depth)] max_depth: usize,
    #[pyo3(from_py_with = max_elements)] max_elements: usize,
) -> PyResult<Bound<'py, PyAny>> {
    let text = Text::new(py, &data)?;
    let mut reader = reader(&text, max_depth)?;
    let array = with_datatype!(
        datatype,
        T => read_array::<T>(py, &mut reader, Some(&shape), max_elements),
        _ => Err(Failure::Datatype(format!("{:?} is no datatype of numbers", excerpt(datatype))))
    )?;
    reader.finish().map_err(Failure::from)?;
    Ok(array)
}

fn reader(bytes: &[u8], max_depth: usize) -> PyResult<Reader<'_>> {
    Ok(Reader::new(bytes, max_depth).map_err(Failure::from)?)
}

/// A list or an object whose end has not been read yet.
enum Open<'py> {
    List(Bound<'py, PyList>),
    /// With the name of the member that is being read.
    Object(Bound<'py, PyDict>, Bound<'py, PyString>),
}

/// The next value. What is open is kept in a list, not in calls: no text is too deep for a thread's stack.
fn value<'py>(py: Python<'py>, reader: &mut Reader<'_>, limits: &mut Limits) -> Result<Bound<'py, PyAny>, Failure> {
    let mut open = Vec::new();
    loop {
        limits.count_value()?;
        let mut value = match reader.peek()? {
            b'[' => {
                let list = object::list(py)?;
                if reader.open(b'[')? {
                    open.push(Open::List(list));
                    continue;
                }
                list.into_any()
            }
            b'{' => {
                let object = object::dict(py)?;
                if reader.open(b'{')? {
                    let name = reader.name()?;
                    let key = unused(py, reader, &object, &name)?;
                    open.push(Open::Object(object, key));
                    continue;
                }
                object.into_any()
            }
            first => flat(py, reader, first)?,
        };
        // A value has ended, and with it whatever it is the last one of.
        loop {
            match open.pop() {
                None => return Ok(value),
                Some(Open::List(list)) => {
                    list.append(value)?;
                    if reader.more(b'[')? {
                        break open.push(Open::List(list));
                    }
                    value = list.into_any();
                }
                Some(Open::Object(object, key)) => {
                    object.set_item(key, value)?;
                    if reader.more(b'{')? {
                        let name = reader.name()?;
                        let key = unused(py, reader, &object, &name)?;
                        break open.push(Open::Object(object, key));
                    }
                    value = object.into_any();
                }
            }
        }
    }
}

/// The name of a member as Python's, which its object must not have yet.
fn unused<'py>(
    py: Python<'py>,
    reader: &Reader<'_>,
    object: &Bound<'py, PyDict>,
    name: &str,
) -> Result<Bound<'py, PyString>, Failure> {
    let key = PyString::from_bytes(py, name.as_bytes())?;
    if object.contains(&key)? { Err(reader.duplicate(name).into()) } else { Ok(key) }
}

/// A value that has no others in it, by its first byte.
fn flat<'py>(py: Python<'py>, reader: &mut Reader<'_>, first: u8) -> Result<Bound<'py, PyAny>, Failure> {
    Ok(match first {
        b'"' => PyString::from_bytes(py, reader.string()?.as_bytes())?.into_any(),
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
        let double = number.double();
        if !double.is_finite() {
            return Err(Error::Range { datatype: "FP64" }.into());
        }
        return Ok(object::float(py, double)?);
    }
    if let Ok(small) = number.text.parse::<i64>() {
        return Ok(object::integer(py, small)?);
    }
    if number.text.len() > MAX_DIGITS {
        return Err(Error::Range { datatype: "an integer of 4300 digits" }.into());
    }
    Ok(py.get_type::<PyInt>().call1((number.text,))?)
}

/// The outer object, whose members are inputs.
fn members<'py>(
    py: Python<'py>,
    reader: &mut Reader<'_>,
    limits: &mut Limits,
    tensors: &Bound<'py, PyDict>,
) -> Result<Bound<'py, PyAny>, Failure> {
    let object = object::dict(py)?;
    reader.object(|reader, name| {
        let key = unused(py, reader, &object, &name)?;
        let member = match tensors.get_item(&key)? {
            Some(declared) => {
                let (datatype, takes_booleans, is_mask): (String, bool, bool) = declared.extract()?;
                let is_list = reader.peek()? == b'[';
                let tensor = declared_tensor(py, reader, limits, &datatype, takes_booleans);
                if let (Ok(tensor), true) = (&tensor, is_mask && is_list) {
                    let arrays = py.import(intern!(py, "zerocost.core.arrays"))?;
                    arrays.call_method1(intern!(py, "refuse_zero_one"), (tensor, &key))?;
                }
                tensor
            }
            None => value(py, reader, limits),
        };
        Ok::<_, Failure>(object.set_item(key, member.map_err(|error| error.of(&name))?)?)
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
                let other = excerpt(other);
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
    let dtype = if at.peek()? == b'"' { at.string()? } else { "".into() };
    let needed = || Failure::Shape("a typed tensor's shape must be a list of whole numbers of at least 0".to_owned());
    let (shape, axes) = json::read::<u64>(&mut reader.at(shape), 64).map_err(|_| needed())?;
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
        _ => Err(Failure::Datatype(format!("{:?} is no dtype of a typed tensor", excerpt(&dtype))))
    )
}

fn read_array<'py, T: Datatype + NumpyElement>(
    py: Python<'py>,
    reader: &mut Reader<'_>,
    shape: Option<&[usize]>,
    max_elements: usize,
) -> Result<Bound<'py, PyAny>, Failure> {
    if shape.is_some_and(|shape| shape.len() > MAX_AXES) {
        return Err(Error::Axes { allowed: MAX_AXES }.into());
    }
    let is_long = reader.remaining() > DETACH_BYTES;
    let mut read = || match shape {
        Some(shape) => json::read_shaped::<T>(reader, shape, max_elements).map(|elements| (elements, shape.to_vec())),
        None => json::read::<T>(reader, max_elements),
    };
    let (elements, shape) = if is_long { py.detach(read)? } else { read()? };
    if T::NAME == "BF16" {
        py.import("ml_dtypes")?; // registers bfloat16 with NumPy
    }
    Ok(numpy::PyArray1::from_vec(py, elements).reshape(shape)?.into_any())
}
