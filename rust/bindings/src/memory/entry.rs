//! What the core holds for Python.

use pyo3::PyTraverseError;
use pyo3::gc::PyVisit;
use pyo3::prelude::*;

use super::key::{Key, Kind, is_tracked};

/// A key with its value.
#[derive(Debug)]
pub struct Entry {
    pub key: Py<PyAny>,
    pub value: Py<PyAny>,
    /// What the weight was charged to, where the value may let go of it.
    pub owner: Option<Py<PyAny>>,
    pub kind: Kind,
    /// True if the garbage collector must know of the key or the value.
    pub tracked: bool,
}

impl Entry {
    pub fn new(key: &Key<'_, '_>, value: Bound<'_, PyAny>, owner: Option<Py<PyAny>>) -> Self {
        let tracked = (key.kind == Kind::Foreign && is_tracked(key.object)) || is_tracked(&value) || owner.is_some();
        Self { key: key.object.clone().unbind(), value: value.unbind(), owner, kind: key.kind, tracked }
    }

    /// Takes the newer entry's value and gives the old one back under the resident key.
    pub fn renew(&mut self, py: Python<'_>, newer: Self) -> Self {
        let tracked = self.tracked || newer.tracked;
        Self {
            key: self.key.clone_ref(py),
            value: std::mem::replace(&mut self.value, newer.value),
            owner: std::mem::replace(&mut self.owner, newer.owner),
            kind: self.kind,
            tracked: std::mem::replace(&mut self.tracked, tracked),
        }
    }

    pub fn traverse(&self, visit: &PyVisit<'_>) -> Result<(), PyTraverseError> {
        if self.tracked {
            visit.call(&self.key)?;
            visit.call(&self.value)?;
            visit.call(&self.owner)?;
        }
        Ok(())
    }
}
