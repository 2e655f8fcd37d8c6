//! Kernel errors and panics become the exceptions of `zerocost.errors`.

use std::any::Any;
use std::panic::{AssertUnwindSafe, catch_unwind};

use pyo3::import_exception;
use pyo3::prelude::*;
use zerocost_kernels::Error;

import_exception!(zerocost.errors, DatatypeError);
import_exception!(zerocost.errors, KernelPanic);
import_exception!(zerocost.errors, OutOfMemory);
import_exception!(zerocost.errors, OverlapError);
import_exception!(zerocost.errors, RangeError);
import_exception!(zerocost.errors, ShapeError);

/// Carries a kernel's error to the boundary: `Result<T, KernelError>` and `?` do the rest.
pub struct KernelError(Error);

impl From<Error> for KernelError {
    fn from(error: Error) -> Self {
        Self(error)
    }
}

impl From<KernelError> for PyErr {
    fn from(KernelError(error): KernelError) -> Self {
        let text = error.to_string();
        match error {
            Error::Rank { argument, .. } | Error::Shape { argument, .. } | Error::Overflow { argument, .. } => {
                ShapeError::new_err((text, argument))
            }
            Error::Range { argument, .. } | Error::Conflict { argument, .. } => RangeError::new_err((text, argument)),
            Error::Overlap { argument, .. } => OverlapError::new_err((text, argument)),
            Error::Memory { .. } => OutOfMemory::new_err((text,)),
        }
    }
}

/// Runs a kernel without the GIL. A panic in it becomes `KernelPanic`, not an abort and not a `BaseException`.
pub fn detached<T: Send>(py: Python<'_>, kernel: impl FnOnce() -> zerocost_kernels::Result<T> + Send) -> PyResult<T> {
    py.detach(|| attached(kernel))
}

/// As [`detached`], but keeps the GIL: for calls so small that giving it up costs more than they do.
pub fn attached<T>(kernel: impl FnOnce() -> zerocost_kernels::Result<T>) -> PyResult<T> {
    // The closure only writes to outputs that the caller drops with the error.
    match catch_unwind(AssertUnwindSafe(kernel)) {
        Ok(result) => result.map_err(|error| KernelError(error).into()),
        Err(panic) => Err(KernelPanic::new_err(panic_text(&*panic))),
    }
}

fn panic_text(panic: &(dyn Any + Send)) -> String {
    let text = panic.downcast_ref::<&str>().copied().or_else(|| panic.downcast_ref::<String>().map(String::as_str));
    format!("a kernel panicked: {}", text.unwrap_or("no message"))
}
