//! What one thread at a time may touch.

use pyo3::PyTraverseError;
use pyo3::prelude::*;

#[cfg(not(Py_GIL_DISABLED))]
use std::cell::{Cell, UnsafeCell};

/// A value behind the GIL where there is one, behind a mutex where there is none.
///
/// What is given to [`Guarded::with`] must run no Python code (no comparison, no destructor of an arbitrary object, no
/// making of a Python object, which may start a collection): it could come back here, or give up the GIL. Whoever comes
/// while the value is in use panics, or deadlocks at the mutex; nobody gets a second reference.
#[cfg(not(Py_GIL_DISABLED))]
pub struct Guarded<T> {
    busy: Cell<bool>,
    value: UnsafeCell<T>,
}

// SAFETY: both fields are touched by threads with the GIL only, one at a time: `with` takes the token that proves it,
// `traverse` has its caller promise it. A thread that gives up the GIL within `with` leaves `busy` set, so that nobody
// gets to the value before it is back. The value is used, and dropped, by other threads than its maker: it is `Send`.
#[cfg(not(Py_GIL_DISABLED))]
unsafe impl<T: Send> Sync for Guarded<T> {}

/// While it exists, the value is in use.
#[cfg(not(Py_GIL_DISABLED))]
struct Use<'a>(&'a Cell<bool>);

#[cfg(not(Py_GIL_DISABLED))]
impl<'a> Use<'a> {
    #[inline]
    fn begin(busy: &'a Cell<bool>) -> Option<Self> {
        (!busy.replace(true)).then(|| Self(busy))
    }
}

#[cfg(not(Py_GIL_DISABLED))]
impl Drop for Use<'_> {
    #[inline]
    fn drop(&mut self) {
        self.0.set(false);
    }
}

#[cfg(not(Py_GIL_DISABLED))]
impl<T> Guarded<T> {
    pub fn new(value: T) -> Self {
        Self { busy: Cell::new(false), value: UnsafeCell::new(value) }
    }

    /// # Panics
    /// If the value is in use: Python code ran where it must not.
    #[inline]
    pub fn with<R>(&self, _py: Python<'_>, act: impl FnOnce(&mut T) -> R) -> R {
        let _use = Use::begin(&self.busy).expect("no Python code runs while a cache is locked");
        // SAFETY: references are made here and in `traverse` only, after `busy` was found to be false, and end before
        // it is false again; so this is the only one.
        act(unsafe { &mut *self.value.get() })
    }

    /// For the garbage collector, which has no token to give. It keeps what it is not shown, so a value that is in use
    /// is passed over.
    ///
    /// # Safety
    /// The caller is a `tp_traverse` function, which the interpreter calls with the GIL.
    pub unsafe fn traverse(&self, look: impl FnOnce(&T) -> Result<(), PyTraverseError>) -> Result<(), PyTraverseError> {
        let Some(_use) = Use::begin(&self.busy) else { return Ok(()) };
        // SAFETY: as in `with`.
        look(unsafe { &*self.value.get() })
    }
}

/// See above.
#[cfg(Py_GIL_DISABLED)]
pub struct Guarded<T>(std::sync::Mutex<T>);

#[cfg(Py_GIL_DISABLED)]
impl<T> Guarded<T> {
    pub fn new(value: T) -> Self {
        Self(value.into())
    }

    /// Waits while attached: who holds the mutex runs no Python code and so comes to no point where it would stop.
    pub fn with<R>(&self, _py: Python<'_>, act: impl FnOnce(&mut T) -> R) -> R {
        act(&mut self.0.lock().unwrap_or_else(std::sync::PoisonError::into_inner))
    }

    /// # Safety
    /// None; for the other kind of builds.
    pub unsafe fn traverse(&self, look: impl FnOnce(&T) -> Result<(), PyTraverseError>) -> Result<(), PyTraverseError> {
        match self.0.try_lock() {
            Ok(value) => look(&value),
            Err(std::sync::TryLockError::Poisoned(value)) => look(&value.into_inner()),
            Err(std::sync::TryLockError::WouldBlock) => Ok(()),
        }
    }
}
