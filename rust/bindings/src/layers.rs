//! The layers of an encoder: linear with activation, layer norm.

use numpy::{PyUntypedArray, PyUntypedArrayMethods};
use pyo3::prelude::*;
use pyo3::types::PyTuple;
use zerocost_kernels::layers::{self, Activation, LayerNorm};
use zerocost_kernels::parallel;

use crate::array::{Float, FloatArray};
use crate::error::{DatatypeError, KernelError, detached};

/// An array of float32, the only type that these kernels have.
fn float32<'py>(value: &Bound<'py, PyAny>, argument: &'static str) -> PyResult<FloatArray<'py>> {
    let array = FloatArray::new(value, argument)?;
    if array.float() == Float::F32 {
        return Ok(array);
    }
    let text = format!("{argument}: dtype {} was given, float32 is allowed", array.array().dtype());
    Err(DatatypeError::new_err((text, argument)))
}

/// A linear layer, laid out for products once: `weight [d_in, d_out]` of any strides and `bias [d_out]`, both float32.
///
/// Called on a tensor `[n, d_in]` it gives `activation(tensor @ weight + bias)`.
#[pyclass(frozen, module = "zerocost._kernels")]
struct Linear(layers::Linear);

#[pymethods]
impl Linear {
    #[new]
    fn new(weight: &Bound<'_, PyAny>, bias: &Bound<'_, PyAny>) -> PyResult<Self> {
        let py = weight.py();
        let (weight, bias) = (float32(weight, "weight")?, float32(bias, "bias")?);
        let (w, b) = (weight.view::<f32>(), bias.view::<f32>());
        detached(py, || layers::Linear::new(&w, &b)).map(Self)
    }

    /// `(d_in, d_out)`.
    #[getter]
    fn shape(&self) -> (usize, usize) {
        self.0.shape().into()
    }

    #[pyo3(signature = (tensor, activation="none", *, out=None))]
    fn __call__<'py>(
        &self,
        tensor: &Bound<'py, PyAny>,
        activation: &str,
        out: Option<&Bound<'py, PyAny>>,
    ) -> PyResult<Bound<'py, PyUntypedArray>> {
        let tensor = float32(tensor, "tensor")?;
        let activation = Activation::named(activation).map_err(KernelError::from)?;
        let shape = [tensor.layout().shape().first().copied().unwrap_or(0), self.0.shape()[1]];
        let mut result = match out {
            Some(out) => tensor.out(out, &shape)?,
            None => tensor.empty(&shape)?,
        };
        let x = tensor.view::<f32>();
        let mut view = result.view_mut::<f32>()?;
        detached(tensor.array().py(), || self.0.run(&x, activation, &mut view))?;
        Ok(result.into_array())
    }
}

/// `activation(tensor + bias)` for `[n, d]` and `[d]`, both float32, in place.
#[pyfunction]
fn activate(tensor: &Bound<'_, PyAny>, bias: &Bound<'_, PyAny>, activation: &str) -> PyResult<()> {
    let (given, bias) = (float32(tensor, "tensor")?, float32(bias, "bias")?);
    let activation = Activation::named(activation).map_err(KernelError::from)?;
    let mut target = given.out(tensor, given.layout().shape())?;
    let b = bias.view::<f32>();
    let mut view = target.view_mut::<f32>()?;
    detached(tensor.py(), || activation.run(&b, &mut view))
}

/// The layer norm of each row of `tensor + residual`: `[n, d]` twice, `[d]` twice, all float32.
#[pyfunction]
#[pyo3(signature = (tensor, residual, weight, bias, epsilon, *, out=None))]
fn layer_norm<'py>(
    tensor: &Bound<'py, PyAny>,
    residual: &Bound<'py, PyAny>,
    weight: &Bound<'py, PyAny>,
    bias: &Bound<'py, PyAny>,
    epsilon: f32,
    out: Option<&Bound<'py, PyAny>>,
) -> PyResult<Bound<'py, PyUntypedArray>> {
    let (tensor, residual) = (float32(tensor, "tensor")?, float32(residual, "residual")?);
    let (weight, bias) = (float32(weight, "weight")?, float32(bias, "bias")?);
    let shape = tensor.layout().shape().to_vec();
    let mut result = match out {
        Some(out) => tensor.out(out, &shape)?,
        None => tensor.empty(&shape)?,
    };
    let (x, r, w, b) = (tensor.view::<f32>(), residual.view::<f32>(), weight.view::<f32>(), bias.view::<f32>());
    let mut view = result.view_mut::<f32>()?;
    detached(tensor.array().py(), || LayerNorm { epsilon }.run(&x, &r, &w, &b, &mut view))?;
    Ok(result.into_array())
}

/// A context in which the helper threads stay awake: for a pass of many short calls, one after the other.
#[pyclass(module = "zerocost._kernels")]
#[derive(Default)]
struct Awake(Vec<parallel::Awake>);

#[pymethods]
impl Awake {
    #[new]
    fn new() -> Self {
        Self::default()
    }

    fn __enter__(&mut self) {
        self.0.push(parallel::Awake::new());
    }

    #[pyo3(signature = (*_exception))]
    fn __exit__(&mut self, _exception: &Bound<'_, PyTuple>) {
        self.0.pop();
    }
}

pub fn register(module: &Bound<'_, PyModule>) -> PyResult<()> {
    module.add_class::<Awake>()?;
    module.add_class::<Linear>()?;
    module.add_function(wrap_pyfunction!(activate, module)?)?;
    module.add_function(wrap_pyfunction!(layer_norm, module)?)?;
    Ok(())
}
