//! What a thread waits at. CPython's own lock, as waiting for it ends when a signal comes; opened without a Python
//! call, which may fail at the bottom of the stack.

use std::ffi::{c_int, c_longlong, c_void};
use std::ptr::NonNull;
use std::sync::Arc;

use pyo3::exceptions::PyMemoryError;
use pyo3::prelude::*;

// In CPython's stable ABI, and not declared by pyo3.
unsafe extern "C" {
    fn PyThread_allocate_lock() -> *mut c_void;
    fn PyThread_free_lock(lock: *mut c_void);
    fn PyThread_acquire_lock_timed(lock: *mut c_void, microseconds: c_longlong, interruptible: c_int) -> c_int;
    fn PyThread_release_lock(lock: *mut c_void);
}

/// `PY_LOCK_ACQUIRED`.
const ACQUIRED: c_int = 1;

/// Held from `latch` until it is opened.
struct Lock(NonNull<c_void>);

// SAFETY: CPython's locks are for use by several threads, and any may release one.
unsafe impl Send for Lock {}
// SAFETY: as above.
unsafe impl Sync for Lock {}

impl Drop for Lock {
    fn drop(&mut self) {
        // SAFETY: the lock was allocated in `latch` and lives until here. Nobody waits for it, as who does shares it. It
        // must be free to be destroyed, whoever held it.
        unsafe {
            PyThread_acquire_lock_timed(self.0.as_ptr(), 0, 0);
            PyThread_release_lock(self.0.as_ptr());
            PyThread_free_lock(self.0.as_ptr());
        }
    }
}

/// Opens a latch. There is one for each, and it is used up by that.
pub(super) struct Opener(Arc<Lock>);

/// Waits at a latch.
pub(super) struct Waiter(Arc<Lock>);

/// A closed latch.
pub(super) fn latch() -> PyResult<(Opener, Waiter)> {
    // SAFETY: a lock that was just allocated is free, so taking it does not wait.
    let lock = unsafe {
        let lock = NonNull::new(PyThread_allocate_lock()).ok_or_else(|| PyMemoryError::new_err("no lock"))?;
        PyThread_acquire_lock_timed(lock.as_ptr(), 0, 0);
        Arc::new(Lock(lock))
    };
    Ok((Opener(lock.clone()), Waiter(lock)))
}

impl Opener {
    pub(super) fn open(self) {
        // SAFETY: `self` keeps the lock allocated. It is held since `latch`: nobody else releases it, and this is not
        // done twice, as the only opener is gone.
        unsafe { PyThread_release_lock(self.0.0.as_ptr()) }
    }
}

impl Waiter {
    /// Blocks this thread until the latch is open.
    ///
    /// # Errors
    /// What a signal handler raises.
    pub(super) fn wait(self, py: Python<'_>) -> PyResult<()> {
        loop {
            // SAFETY: `self` keeps the lock allocated.
            let got = py.detach(|| unsafe { PyThread_acquire_lock_timed(self.0.0.as_ptr(), -1, 1) });
            if got == ACQUIRED {
                return Ok(());
            }
            py.check_signals()?;
        }
    }
}
