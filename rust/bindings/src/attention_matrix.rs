//! Attention on a given matrix.

use numpy::PyUntypedArray;
use pyo3::prelude::*;
use zerocost_kernels::arch::Level;
use zerocost_kernels::attention::{Before, MatrixAttention};

use crate::array::{FloatArray, with_float};
use crate::error::{KernelError, attached, detached};
use crate::options;

/// Keeps the largest entries of each row of a matrix.
#[pyfunction]
#[expect(clippy::too_many_arguments, reason = "the options of a Python function, each by its name")]
fn sparse_attention<'py>(
    py: Python<'py>,
    attention_matrix: &Bound<'py, PyAny>,
    sparsity_ratio: &Bound<'py, PyAny>,
    normalization: &Bound<'py, PyAny>,
    temperature: &Bound<'py, PyAny>,
    is_causal: &Bound<'py, PyAny>,
    align: &Bound<'py, PyAny>,
    out: Option<&Bound<'py, PyAny>>,
) -> PyResult<Bound<'py, PyUntypedArray>> {
    let attention = MatrixAttention {
        sparsity_ratio: Some(options::number(sparsity_ratio, "sparsity_ratio")?),
        normalization: options::normalization(normalization)?,
        temperature: options::number(temperature, "temperature")?,
        is_causal: options::flag(is_causal, "is_causal")?,
        align: options::align(align)?,
        ..MatrixAttention::default()
    };
    run(py, attention, attention_matrix, out)
}

/// Keeps the entries of a matrix that are in a window along its diagonal.
#[pyfunction]
#[expect(clippy::too_many_arguments, reason = "the options of a Python function, each by its name")]
fn sliding_window_attention<'py>(
    py: Python<'py>,
    attention_matrix: &Bound<'py, PyAny>,
    window_size: &Bound<'py, PyAny>,
    normalization: &Bound<'py, PyAny>,
    temperature: &Bound<'py, PyAny>,
    is_causal: &Bound<'py, PyAny>,
    align: &Bound<'py, PyAny>,
    out: Option<&Bound<'py, PyAny>>,
) -> PyResult<Bound<'py, PyUntypedArray>> {
    let attention = MatrixAttention {
        window_size: options::window_size(window_size)?,
        normalization: options::normalization(normalization)?,
        temperature: options::number(temperature, "temperature")?,
        is_causal: options::flag(is_causal, "is_causal")?,
        align: options::align(align)?,
        ..MatrixAttention::default()
    };
    run(py, attention, attention_matrix, out)
}

fn run<'py>(
    py: Python<'py>,
    attention: MatrixAttention,
    matrix: &Bound<'py, PyAny>,
    out: Option<&Bound<'py, PyAny>>,
) -> PyResult<Bound<'py, PyUntypedArray>> {
    // Before an output is made, which may be large.
    attention.check().map_err(KernelError::from)?;
    let level = Level::current().map_err(KernelError::from)?;
    let matrix = FloatArray::new(matrix, "attention_matrix")?;
    let shape = matrix.layout().shape();
    let (mut out, before) = match out {
        Some(out) => (matrix.out(out, shape)?, Before::Anything),
        None if attention.writes_few_pages(matrix.layout(), matrix.float().item_size()) => {
            (matrix.sparse_zeros(shape)?, Before::Zeros)
        }
        None if attention.leaves_zeros() => (matrix.zeros(shape)?, Before::Zeros),
        None => (matrix.empty(shape)?, Before::Anything),
    };
    with_float!(matrix.float(), T => {
        let from = matrix.view::<T>();
        let mut to = out.view_mut::<T>()?;
        let is_small = attention.is_small(from.layout(), to.layout());
        let kernel = || attention.run(level, &from, &mut to, before);
        if is_small { attached(kernel)? } else { detached(py, kernel)? }
    });
    Ok(out.into_array())
}

pub fn register(module: &Bound<'_, PyModule>) -> PyResult<()> {
    module.add_function(wrap_pyfunction!(sparse_attention, module)?)?;
    module.add_function(wrap_pyfunction!(sliding_window_attention, module)?)?;
    Ok(())
}
