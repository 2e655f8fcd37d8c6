//! What the core holds for Python.

use pyo3::PyTraverseError;
use pyo3::gc::PyVisit;
use pyo3::prelude::*;

use zerocost_kernels::memory::Cause;

use super::key::Kind;

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
    /// The entry has left the cache, whose lock is free: tells the listener, and drops it.
    #[inline]
    pub fn leave(self, py: Python<'_>, cause: Cause, listener: Option<&Py<PyAny>>) {
        if let Some(listener) = listener {
            let listener = listener.bind(py);
            if let Err(error) = listener.call1((&self.key, &self.value, cause_name(cause))) {
                error.write_unraisable(py, Some(listener));
            }
        }
        self.drop_ref(py);
    }

    /// Lets go of the objects at once, as this thread is attached; the lock must be free.
    #[inline]
    pub fn drop_ref(self, py: Python<'_>) {
        let Self { key, value, owner, .. } = self;
        key.drop_ref(py);
        value.drop_ref(py);
        if let Some(owner) = owner {
            owner.drop_ref(py);
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

/// A cause as listeners and counters name it.
pub fn cause_name(cause: Cause) -> &'static str {
    match cause {
        Cause::Size => "size",
        Cause::Expired => "expired",
        Cause::Replaced => "replaced",
        Cause::Explicit => "explicit",
    }
}
