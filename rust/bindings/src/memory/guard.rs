//! What one thread at a time may touch.

use pyo3::prelude::*;

/// A value behind the GIL where there is one, behind a mutex where there is none.
///
/// The closure given to [`Guarded::with`] must run no Python code (no comparison, no destructor of an arbitrary object,
/// no allocation of a Python object, which may start a collection): it could come back here, or give up the GIL.
pub struct Guarded<T>(Inner<T>);

#[cfg(Py_GIL_DISABLED)]
type Inner<T> = std::sync::Mutex<T>;

#[cfg(not(Py_GIL_DISABLED))]
struct Inner<T> {
    value: std::cell::UnsafeCell<T>,
    #[cfg(debug_assertions)]
    busy: std::cell::Cell<bool>,
}

// SAFETY: `with` takes a token that only the thread with the GIL has, and its closure neither gives the GIL up nor comes
// back (see the type); so one thread at a time touches the value, and moves it only if it can be sent.
#[cfg(not(Py_GIL_DISABLED))]
unsafe impl<T: Send> Sync for Inner<T> {}

/// Notices who comes back. Not left behind by a panic.
#[cfg(all(debug_assertions, not(Py_GIL_DISABLED)))]
struct Busy<'a>(&'a std::cell::Cell<bool>);

#[cfg(all(debug_assertions, not(Py_GIL_DISABLED)))]
impl<'a> Busy<'a> {
    fn new(busy: &'a std::cell::Cell<bool>) -> Self {
        assert!(!busy.replace(true), "Python code ran where it must not");
        Self(busy)
    }
}

#[cfg(all(debug_assertions, not(Py_GIL_DISABLED)))]
impl Drop for Busy<'_> {
    fn drop(&mut self) {
        self.0.set(false);
    }
}

impl<T> Guarded<T> {
    #[cfg(Py_GIL_DISABLED)]
    pub fn new(value: T) -> Self {
        Self(std::sync::Mutex::new(value))
    }

    #[cfg(Py_GIL_DISABLED)]
    pub fn with<R>(&self, _py: Python<'_>, work: impl FnOnce(&mut T) -> R) -> R {
        // Waits while attached: who holds the mutex runs no Python code and so comes to no point where it would stop.
        work(&mut self.0.lock().unwrap_or_else(std::sync::PoisonError::into_inner))
    }

    #[cfg(not(Py_GIL_DISABLED))]
    pub fn new(value: T) -> Self {
        Self(Inner {
            value: value.into(),
            #[cfg(debug_assertions)]
            busy: false.into(),
        })
    }

    #[cfg(not(Py_GIL_DISABLED))]
    #[inline]
    pub fn with<R>(&self, _py: Python<'_>, work: impl FnOnce(&mut T) -> R) -> R {
        #[cfg(debug_assertions)]
        let _busy = Busy::new(&self.0.busy);
        // SAFETY: as for `Sync` above; the reference does not outlive the closure.
        work(unsafe { &mut *self.0.value.get() })
    }

    /// For the garbage collector, which stops every thread and holds no token.
    ///
    /// # Safety
    /// The caller is a `tp_traverse` function, and `look` only reads.
    pub unsafe fn traverse<R>(&self, look: impl FnOnce(&T) -> R) -> R {
        #[cfg(Py_GIL_DISABLED)]
        let result = {
            // Threads stop where Python code can run, and none does while the mutex is held: so it is free.
            match self.0.try_lock() {
                Ok(guard) => look(&guard),
                Err(std::sync::TryLockError::Poisoned(guard)) => look(&guard.into_inner()),
                Err(std::sync::TryLockError::WouldBlock) => unreachable!("a collection began under the lock"),
            }
        };
        #[cfg(not(Py_GIL_DISABLED))]
        // SAFETY: a collection begins where Python objects are made, which is never within `with`.
        let result = look(unsafe { &*self.0.value.get() });
        result
    }
}
