//! The bytes of a text that Python hands over.

use std::ops::{Deref, Range};

use pyo3::buffer::PyBuffer;
use pyo3::exceptions::PyTypeError;
use pyo3::intern;
use pyo3::prelude::*;
use pyo3::types::{PyBytes, PyMemoryView};
use zerocost_kernels::json;

use super::failure::Failure;

/// A text that nobody changes while it is read: `bytes` where they are; a copy of everything else, which another thread
/// may write to.
pub enum Text<'py> {
    Shared(Bound<'py, PyBytes>, Range<usize>),
    Copied(Vec<u8>),
}

impl<'py> Text<'py> {
    pub fn new(py: Python<'py>, buffer: &PyBuffer<u8>) -> PyResult<Self> {
        if !buffer.is_c_contiguous() {
            return Err(PyTypeError::new_err("a contiguous buffer of bytes is needed"));
        }
        if let Some(shared) = Self::shared(py, buffer)? {
            return Ok(shared);
        }
        let mut copy = Vec::new();
        json::reserve(&mut copy, buffer.len_bytes()).map_err(Failure::from)?;
        copy.resize(buffer.len_bytes(), 0);
        buffer.copy_to_slice(py, &mut copy)?;
        Ok(Self::Copied(copy))
    }

    /// The text where it is, if that is in a `bytes` object or a view of one: its address tells, not what it says of
    /// itself.
    fn shared(py: Python<'py>, buffer: &PyBuffer<u8>) -> PyResult<Option<Self>> {
        let Some(mut owner) = buffer.obj(py).cloned() else { return Ok(None) };
        if owner.is_instance_of::<PyMemoryView>() {
            owner = owner.getattr(intern!(py, "obj"))?;
        }
        let Ok(bytes) = owner.cast_into::<PyBytes>() else { return Ok(None) };
        let start = buffer.buf_ptr().addr().wrapping_sub(bytes.as_bytes().as_ptr().addr());
        let span = start..start.wrapping_add(buffer.len_bytes());
        Ok(bytes.as_bytes().get(span.clone()).is_some().then_some(Self::Shared(bytes, span)))
    }
}

impl Deref for Text<'_> {
    type Target = [u8];

    fn deref(&self) -> &[u8] {
        match self {
            Self::Shared(bytes, span) => &bytes.as_bytes()[span.clone()],
            Self::Copied(bytes) => bytes,
        }
    }
}
