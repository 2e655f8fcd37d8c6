//! Views of shards and stages, sharded linear layers.

use std::ops::Range;

use numpy::npyffi::{NPY_ARRAY_WRITEABLE, PY_ARRAY_API, PyArrayObject, npy_intp};
use numpy::{PyArrayDescr, PyArrayDescrMethods, PyUntypedArray, PyUntypedArrayMethods};
use pyo3::exceptions::PyOverflowError;
use pyo3::prelude::*;
use pyo3::types::{PyBool, PyList, PySlice, PyTuple};
use zerocost_kernels::buffer::{push, reserved};
use zerocost_kernels::split::{Mode, Shard, ShardedLinear, array_split, axis_index, balanced_cuts};

use crate::array::{Float, FloatArray, owner_of, with_float};
use crate::error::{DatatypeError, KernelError, RangeError, detached};
use crate::options::{given, is_refusal};

/// A Python integer; bools and floats are none.
fn integer(value: &Bound<'_, PyAny>, argument: &str) -> PyResult<isize> {
    let wrong = || -> PyResult<isize> {
        let text = format!("{argument}: {} {} was given, an integer is needed", value.get_type().name()?, given(value));
        Err(DatatypeError::new_err((text, argument.to_owned())))
    };
    if value.is_instance_of::<PyBool>() {
        return wrong();
    }
    value.extract().or_else(|error: PyErr| {
        if error.is_instance_of::<PyOverflowError>(value.py()) {
            let text = format!("{argument}: {} was given, no array is that long", given(value));
            return Err(RangeError::new_err((text, argument.to_owned())));
        }
        if is_refusal(value.py(), &error) { wrong() } else { Err(error) }
    })
}

/// An integer of at least 1; `argument` is the name that errors carry.
#[pyfunction]
fn positive(value: &Bound<'_, PyAny>, argument: &str) -> PyResult<usize> {
    let count = integer(value, argument)?;
    usize::try_from(count).ok().filter(|&count| count > 0).ok_or_else(|| {
        let text = format!("{argument}: {count} was given, an integer of at least 1 is allowed");
        RangeError::new_err((text, argument.to_owned()))
    })
}

/// Any array; what is none goes through `as_tensor`, which converts, counts the copy, or raises.
fn tensor_of<'py>(value: &Bound<'py, PyAny>, argument: &'static str) -> PyResult<Bound<'py, PyUntypedArray>> {
    if let Ok(array) = value.cast::<PyUntypedArray>() {
        return Ok(array.clone());
    }
    let convert = value.py().import("zerocost.core.arrays")?.getattr("as_tensor")?;
    Ok(convert.call1((value, argument))?.cast_into()?)
}

/// NumPy's own views of the ranges along an axis, so that a subclass slices itself as it always does.
fn views<'py>(
    array: &Bound<'py, PyUntypedArray>,
    axis: usize,
    ranges: impl Iterator<Item = Range<usize>>,
) -> PyResult<Bound<'py, PyList>> {
    let py = array.py();
    let slice = py.get_type::<PySlice>();
    let mut index: Vec<Bound<'py, PyAny>> = vec![PySlice::full(py).into_any(); axis + 1];
    let list = PyList::empty(py);
    for range in ranges {
        index[axis] = slice.call1((range.start, range.end))?;
        list.append(array.get_item(PyTuple::new(py, &index)?)?)?;
    }
    Ok(list)
}

/// `num_splits` views of an array of any dtype along `axis`, as `numpy.array_split` cuts.
#[pyfunction]
fn split<'py>(
    tensor: &Bound<'py, PyAny>,
    num_splits: &Bound<'py, PyAny>,
    axis: &Bound<'py, PyAny>,
) -> PyResult<Bound<'py, PyList>> {
    let (parts, axis) = (positive(num_splits, "num_splits")?, integer(axis, "axis")?);
    let tensor = tensor_of(tensor, "tensor")?;
    let axis = axis_index(tensor.ndim(), axis).map_err(KernelError::from)?;
    let ranges = array_split("num_splits", tensor.shape()[axis], parts).map_err(KernelError::from)?;
    views(&tensor, axis, ranges)
}

/// The views of `num_stages` contiguous stages along `axis`: equal in length, or, with one cost for each slice, with the
/// largest stage as cheap as can be.
#[pyfunction]
fn split_stages<'py>(
    tensor: &Bound<'py, PyAny>,
    num_stages: &Bound<'py, PyAny>,
    axis: &Bound<'py, PyAny>,
    costs: Option<&Bound<'py, PyAny>>,
) -> PyResult<Bound<'py, PyList>> {
    let (parts, axis) = (positive(num_stages, "num_stages")?, integer(axis, "axis")?);
    let tensor = tensor_of(tensor, "tensor")?;
    let axis = axis_index(tensor.ndim(), axis).map_err(KernelError::from)?;
    let length = tensor.shape()[axis];
    let Some(costs) = costs else {
        return views(&tensor, axis, array_split("num_stages", length, parts).map_err(KernelError::from)?);
    };
    let costs = FloatArray::new(costs, "costs")?;
    if costs.float() != Float::F64 {
        let text = format!("costs: dtype {} was given, float64 is needed", costs.array().dtype());
        return Err(DatatypeError::new_err((text, "costs")));
    }
    let view = costs.view::<f64>()?;
    let ranges = detached(tensor.py(), || balanced_cuts(length, parts, &view))?;
    views(&tensor, axis, ranges.into_iter())
}

/// One view of the arrays, in this order along `axis`, if they are views of one root array that lie side by side;
/// otherwise None.
#[pyfunction]
fn gather_view<'py>(
    tensors: &Bound<'py, PyList>,
    axis: &Bound<'py, PyAny>,
) -> PyResult<Option<Bound<'py, PyUntypedArray>>> {
    // What a list says of its length may be anything.
    let mut arrays = reserved(tensors.len()).map_err(KernelError::from)?;
    for tensor in tensors {
        push(&mut arrays, tensor.cast_into::<PyUntypedArray>()?).map_err(KernelError::from)?;
    }
    let tensors = arrays;
    let axis = integer(axis, "axis")?;
    let axis = tensors.first().map_or(Ok(0), |first| axis_index(first.ndim(), axis)).map_err(KernelError::from)?;
    let shard = |array: &Bound<'py, PyUntypedArray>| Shard {
        // SAFETY: the array object is alive and its header is only read.
        address: unsafe { (*array.as_array_ptr()).fields.data as usize },
        shape: array.shape().to_vec(),
        strides: array.strides().to_vec(),
    };
    let gathered = Shard::gathered(tensors.iter().map(shard), axis).map_err(KernelError::from)?;
    let Some(gathered) = gathered else { return Ok(None) };
    let Some(first) = tensors.first() else { return Ok(None) };
    let owner = owner_of(first);
    let mut writeable = true;
    for array in &tensors {
        if !owner_of(array).is(&owner) || !array.dtype().is_equiv_to(&first.dtype()) {
            return Ok(None);
        }
        // SAFETY: the array object is alive and its header is only read.
        writeable &= unsafe { (*array.as_array_ptr()).fields.flags & NPY_ARRAY_WRITEABLE != 0 };
    }
    view_of(&owner, first.dtype(), &gathered, writeable).map(Some)
}

/// A view of memory of `owner`.
fn view_of<'py>(
    owner: &Bound<'py, PyUntypedArray>,
    dtype: Bound<'py, PyArrayDescr>,
    shard: &Shard,
    writeable: bool,
) -> PyResult<Bound<'py, PyUntypedArray>> {
    let py = owner.py();
    let mut shape: Vec<npy_intp> = shard.shape.iter().map(|&length| length as npy_intp).collect();
    let mut strides: Vec<npy_intp> = shard.strides.iter().map(|&stride| stride as npy_intp).collect();
    // SAFETY: `Shard::gathered` promises that every element is one of the shards', which are views of `owner`'s memory;
    // `PyArray_SetBaseObject` makes the result hold a reference to it. Both steal the reference that they are given.
    unsafe {
        let kind = numpy::npyffi::get_type_object(py, numpy::npyffi::NpyTypes::PyArray_Type);
        let array = PY_ARRAY_API.PyArray_NewFromDescr(
            py,
            kind,
            dtype.into_dtype_ptr(),
            shape.len() as i32,
            shape.as_mut_ptr(),
            strides.as_mut_ptr(),
            shard.address as *mut std::ffi::c_void,
            if writeable { NPY_ARRAY_WRITEABLE } else { 0 },
            std::ptr::null_mut(),
        );
        let array = Bound::from_owned_ptr_or_err(py, array)?;
        let base = owner.clone().into_ptr();
        if PY_ARRAY_API.PyArray_SetBaseObject(py, array.as_ptr().cast::<PyArrayObject>(), base) != 0 {
            return Err(PyErr::fetch(py));
        }
        Ok(array.cast_into_unchecked())
    }
}

/// `tensor · weight + bias` with the weight cut into `num_splits` shards along its columns or its rows.
#[pyfunction]
fn sharded_linear<'py>(
    tensor: &Bound<'py, PyAny>,
    weight: &Bound<'py, PyAny>,
    num_splits: &Bound<'py, PyAny>,
    axis: &Bound<'py, PyAny>,
    bias: Option<&Bound<'py, PyAny>>,
    mode: &str,
) -> PyResult<Bound<'py, PyUntypedArray>> {
    let layer = ShardedLinear {
        shards: positive(num_splits, "num_splits")?,
        mode: Mode::named(mode).map_err(KernelError::from)?,
    };
    let axis = integer(axis, "axis")?;
    let tensor = FloatArray::new(tensor, "tensor")?;
    let weight = FloatArray::new(weight, "weight")?;
    let bias = bias.map(|bias| FloatArray::new(bias, "bias")).transpose()?;
    weight.same_type_as(&tensor)?;
    bias.as_ref().map_or(Ok(()), |bias| bias.same_type_as(&tensor))?;
    let shape =
        ShardedLinear::out_shape(tensor.layout().shape(), axis, weight.layout().shape()).map_err(KernelError::from)?;
    let mut out = tensor.empty(&shape)?;
    with_float!(tensor.float(), T => {
        let (x, w, b) = (tensor.view::<T>()?, weight.view::<T>()?, bias.as_ref().map(|bias| bias.view::<T>()).transpose()?);
        let mut y = out.view_mut::<T>()?;
        detached(weight.array().py(), || layer.run(&x, &w, b.as_ref(), &mut y))?;
    });
    Ok(out.into_array())
}

pub fn register(module: &Bound<'_, PyModule>) -> PyResult<()> {
    module.add_function(wrap_pyfunction!(positive, module)?)?;
    module.add_function(wrap_pyfunction!(split, module)?)?;
    module.add_function(wrap_pyfunction!(split_stages, module)?)?;
    module.add_function(wrap_pyfunction!(gather_view, module)?)?;
    module.add_function(wrap_pyfunction!(sharded_linear, module)?)?;
    Ok(())
}
