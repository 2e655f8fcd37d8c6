//! Fused attention.

use numpy::{PyArrayDescrMethods, PyUntypedArray, PyUntypedArrayMethods};
use pyo3::prelude::*;
use smallvec::SmallVec;
use zerocost_kernels::attention::{Attention, Mask, Window};
use zerocost_kernels::view::{Layout, View};

use crate::array::{FloatArray, steps, with_float};
use crate::error::{DatatypeError, KernelError, detached};
use crate::options;

/// Which keys take part: booleans, or floats that are added to the scores.
enum MaskArray<'py> {
    Bool(Bound<'py, PyUntypedArray>, Layout),
    Float(FloatArray<'py>),
}

/// The number of NumPy's boolean type, and what `as_tensor` may give back.
const BOOL: i32 = 0;
const MASKS: [&str; 5] = ["BOOL", "FP64", "FP32", "FP16", "BF16"];

impl<'py> MaskArray<'py> {
    fn new(value: &Bound<'py, PyAny>) -> PyResult<Self> {
        let array = match value.cast::<PyUntypedArray>() {
            // bfloat16 is a stranger to NumPy.
            Ok(array) if matches!(array.dtype().kind(), b'b' | b'f' | b'V') => array.clone(),
            _ => value
                .py()
                .import("zerocost.core.arrays")?
                .getattr("as_tensor")?
                .call1((value, "attn_mask", MASKS))?
                .cast_into()?,
        };
        if array.dtype().num() != BOOL {
            return FloatArray::new(array.as_any(), "attn_mask").map(Self::Float);
        }
        let strides: SmallVec<[isize; 4]> = steps(&array).collect();
        let layout = Layout::new("attn_mask", array.shape(), &strides, 1).map_err(KernelError::from)?;
        Ok(Self::Bool(array, layout))
    }

    fn bytes<'a>(array: &'a Bound<'py, PyUntypedArray>, layout: &Layout) -> PyResult<View<'a, u8>> {
        let is_same = array.dtype().num() == BOOL
            && array.shape() == layout.shape()
            && steps(array).eq(layout.strides().iter().copied());
        if !is_same {
            let text = "attn_mask: the array was changed while the other arguments were read";
            return Err(DatatypeError::new_err((text, "attn_mask")));
        }
        // SAFETY: NumPy guarantees that every element within shape and strides, which are still the layout's, is memory
        // of the array, one byte each. It stays, because a reference to the array is borrowed.
        Ok(unsafe { View::from_raw((*array.as_array_ptr()).fields.data.cast(), layout.clone()) })
    }
}

/// Computes ``softmax(mask(softcap(scale * query @ key.T))) @ value`` without the matrix of scores.
#[pyfunction]
#[expect(clippy::too_many_arguments, reason = "the options of a Python function, each by its name")]
fn scaled_dot_product_attention<'py>(
    py: Python<'py>,
    query: &Bound<'py, PyAny>,
    key: &Bound<'py, PyAny>,
    value: &Bound<'py, PyAny>,
    attn_mask: Option<&Bound<'py, PyAny>>,
    is_causal: &Bound<'py, PyAny>,
    scale: Option<&Bound<'py, PyAny>>,
    window_size: &Bound<'py, PyAny>,
    sparsity_ratio: Option<&Bound<'py, PyAny>>,
    softcap: &Bound<'py, PyAny>,
    sinks: Option<&Bound<'py, PyAny>>,
    align: &Bound<'py, PyAny>,
    out: Option<&Bound<'py, PyAny>>,
) -> PyResult<Bound<'py, PyUntypedArray>> {
    let query = FloatArray::new(query, "query")?;
    let key = FloatArray::new(key, "key")?;
    let value = FloatArray::new(value, "value")?;
    key.same_type_as(&query)?;
    value.same_type_as(&query)?;
    let mask = attn_mask.map(MaskArray::new).transpose()?;
    if let Some(MaskArray::Float(mask)) = &mask {
        mask.same_type_as(&query)?;
    }
    let sinks = sinks.map(|sinks| FloatArray::new(sinks, "sinks")).transpose()?;
    if let Some(sinks) = &sinks {
        sinks.same_type_as(&query)?;
    }
    let scale = scale.map(|scale| options::number(scale, "scale")).transpose()?;
    let sparsity_ratio = sparsity_ratio.map(|ratio| options::number(ratio, "sparsity_ratio")).transpose()?;
    let softcap = options::number(softcap, "softcap")?;
    let is_causal = options::flag(is_causal, "is_causal")?;
    let window = Window::new(options::window_size(window_size)?, is_causal).map_err(KernelError::from)?;
    let align = options::align(align)?;
    with_float!(query.float(), T => {
        let mask = match &mask {
            Some(MaskArray::Bool(array, layout)) => Some(Mask::Bool(MaskArray::bytes(array, layout)?)),
            Some(MaskArray::Float(mask)) => Some(Mask::Float(mask.view::<T>()?)),
            None => None,
        };
        let sinks = sinks.as_ref().map(FloatArray::view::<T>).transpose()?;
        let attention = Attention { scale, window, align, softcap, sparsity_ratio, mask, sinks };
        let (q, k, v) = (query.view::<T>()?, key.view::<T>()?, value.view::<T>()?);
        let shape = attention.output_shape(&q, &k, &v).map_err(KernelError::from)?;
        let mut out = match out {
            Some(out) => query.out(out, &shape)?,
            None => query.empty(&shape)?,
        };
        {
            let mut view = out.view_mut::<T>()?;
            detached(py, || attention.run(&q, &k, &v, &mut view))?;
        }
        Ok(out.into_array())
    })
}

pub fn register(module: &Bound<'_, PyModule>) -> PyResult<()> {
    module.add_function(wrap_pyfunction!(scaled_dot_product_attention, module)?)?;
    Ok(())
}
