//! JSON bodies: values as Python objects, declared tensors straight as arrays.

mod failure;
mod limits;
mod object;
mod read;
mod text;
mod write;

use pyo3::prelude::*;

pub fn register(module: &Bound<'_, PyModule>) -> PyResult<()> {
    module.add_function(wrap_pyfunction!(read::read_json, module)?)?;
    module.add_function(wrap_pyfunction!(read::read_tensor, module)?)?;
    module.add_function(wrap_pyfunction!(read::json_spans, module)?)?;
    module.add_function(wrap_pyfunction!(write::write_json, module)?)?;
    Ok(())
}
