//! JSON bodies: values as Python objects, declared tensors straight as arrays.

mod failure;
mod read;
mod write;

use pyo3::prelude::*;

/// Texts longer than this are read, and arrays larger than this written, without the GIL.
const DETACH_BYTES: usize = 16 << 10;

pub fn register(module: &Bound<'_, PyModule>) -> PyResult<()> {
    module.add_function(wrap_pyfunction!(read::read_json, module)?)?;
    module.add_function(wrap_pyfunction!(read::read_tensor, module)?)?;
    module.add_function(wrap_pyfunction!(read::json_spans, module)?)?;
    module.add_function(wrap_pyfunction!(write::write_json, module)?)?;
    Ok(())
}
