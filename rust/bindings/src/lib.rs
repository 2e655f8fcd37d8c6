//! The Python module `zerocost._kernels`: convert, detach, call, return. Algorithms live in `zerocost-kernels`.

#![allow(missing_docs, reason = "nobody links to this crate from Rust; the docstrings are for Python")]

mod array;
mod attention_fused;
mod attention_matrix;
mod datatype;
mod error;
mod json;
mod layers;
mod memory;
mod options;
mod runtime;
mod split;

use pyo3::prelude::*;

#[pymodule]
fn _kernels(module: &Bound<'_, PyModule>) -> PyResult<()> {
    memory::register(module)?;
    layers::register(module)?;
    datatype::register(module)?;
    json::register(module)?;
    runtime::register(module)?;
    attention_fused::register(module)?;
    attention_matrix::register(module)?;
    split::register(module)?;
    Ok(())
}
