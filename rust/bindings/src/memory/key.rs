//! Keys: hashed once, compared natively where that cannot run Python code.

use std::ffi::c_int;

use pyo3::ffi;
use pyo3::prelude::*;

/// What is known of a key's type: the exact built-in types compare without running Python code.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub enum Kind {
    /// An exact int that hashes to itself: equal hashes are equal keys.
    Small,
    /// Any other exact int.
    Int,
    Str,
    Bytes,
    Foreign,
}

/// CPython's integers hash to themselves modulo this prime.
#[cfg(target_pointer_width = "64")]
const MODULUS: i64 = (1 << 61) - 1;
#[cfg(target_pointer_width = "32")]
const MODULUS: i64 = (1 << 31) - 1;

/// A key that was hashed.
pub struct Key<'a, 'py> {
    pub object: &'a Bound<'py, PyAny>,
    pub hash: u64,
    pub kind: Kind,
}

/// What can be said of two keys with equal hashes without running Python code.
pub enum Same {
    Yes,
    No,
    Ask,
}

impl<'a, 'py> Key<'a, 'py> {
    #[inline]
    pub fn new(object: &'a Bound<'py, PyAny>) -> PyResult<Self> {
        let pointer = object.as_ptr();
        // SAFETY: the object is alive.
        let kind = unsafe {
            if ffi::PyLong_CheckExact(pointer) != 0 {
                let mut overflow: c_int = 0;
                // Exact ints cannot fail: they are returned as they are, or overflow.
                let value = ffi::PyLong_AsLongLongAndOverflow(pointer, &raw mut overflow);
                // -1 is CPython's mark of an error, so it hashes to -2.
                if overflow == 0 && -MODULUS < value && value < MODULUS && value != -1 {
                    return Ok(Self { object, hash: value as u64, kind: Kind::Small });
                }
                Kind::Int
            } else if ffi::PyUnicode_CheckExact(pointer) != 0 {
                Kind::Str
            } else if ffi::PyBytes_CheckExact(pointer) != 0 {
                Kind::Bytes
            } else {
                Kind::Foreign
            }
        };
        Ok(Self { object, hash: object.hash()? as u64, kind })
    }

    /// True if the garbage collector has to know of the key.
    pub fn is_tracked(&self) -> bool {
        self.kind == Kind::Foreign && is_tracked(self.object)
    }

    /// Compares with a key of equal hash. Runs no Python code and makes no object.
    #[inline]
    pub fn same(&self, other: &Py<PyAny>, kind: Kind) -> Same {
        if self.object.as_ptr() == other.as_ptr() {
            return Same::Yes;
        }
        let (left, right) = (self.object.as_ptr(), other.as_ptr());
        // SAFETY: both objects are alive and have exactly the types that their kinds say (`Key::new`), whose
        // comparisons are C code that calls nothing else, cannot fail, and returns one of two immortal objects.
        let equal = unsafe {
            match (self.kind, kind) {
                (Kind::Small, Kind::Small) => true,
                (Kind::Str, Kind::Str) => is_true(ffi::PyUnicode_RichCompare(left, right, ffi::Py_EQ)),
                (Kind::Int, Kind::Int) | (Kind::Bytes, Kind::Bytes) => {
                    is_true(ffi::PyObject_RichCompare(left, right, ffi::Py_EQ))
                }
                (Kind::Foreign, _) | (_, Kind::Foreign) => return Same::Ask,
                _ => false,
            }
        };
        if equal { Same::Yes } else { Same::No }
    }
}

/// # Safety
/// `result` is a new reference to True or False.
unsafe fn is_true(result: *mut ffi::PyObject) -> bool {
    // SAFETY: the caller's; True and False are never destroyed.
    unsafe {
        let truth = result == ffi::Py_True();
        ffi::Py_DECREF(result);
        truth
    }
}

/// True if the garbage collector has to know of references to this object.
pub fn is_tracked(object: &Bound<'_, PyAny>) -> bool {
    // SAFETY: the object is alive, and so is its type.
    unsafe { ffi::PyType_GetFlags(ffi::Py_TYPE(object.as_ptr())) & ffi::Py_TPFLAGS_HAVE_GC != 0 }
}
