//! Keys: hashed once, compared natively where that cannot run Python code.

use std::ffi::c_int;
use std::sync::OnceLock;
use std::sync::atomic::{AtomicUsize, Ordering};

use pyo3::ffi;
use pyo3::prelude::*;
use pyo3::types::PyTuple;

/// What is known of a key's type: the exact built-in types compare without running Python code.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub enum Kind {
    /// An exact int that hashes to itself: equal hashes are equal keys.
    Small,
    /// Any other exact int.
    Int,
    Str,
    Bytes,
    /// An exact tuple of exact built-in values that hold no others.
    Tuple,
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
        match Self::native(object) {
            Some(key) => Ok(key),
            None => Ok(Self { object, hash: object.hash()? as u64, kind: Kind::Foreign }),
        }
    }

    /// A key of a built-in type, whose hash is that of C code; `None` for any other. Runs no Python code.
    #[inline(always)]
    pub fn native(object: &'a Bound<'py, PyAny>) -> Option<Self> {
        let pointer = object.as_ptr();
        // SAFETY: the object is alive; exact built-in types hash without running Python code and without failing.
        unsafe {
            let kind = if ffi::PyLong_CheckExact(pointer) != 0 {
                let mut overflow: c_int = 0;
                // Exact ints cannot fail: they are returned as they are, or overflow.
                let value = ffi::PyLong_AsLongLongAndOverflow(pointer, &raw mut overflow);
                // -1 is CPython's mark of an error, so it hashes to -2.
                if overflow == 0 && -MODULUS < value && value < MODULUS && value != -1 {
                    return Some(Self { object, hash: value as u64, kind: Kind::Small });
                }
                Kind::Int
            } else if ffi::PyUnicode_CheckExact(pointer) != 0 {
                Kind::Str
            } else if ffi::PyTuple_CheckExact(pointer) != 0 && is_tuple_of_atoms(pointer) {
                Kind::Tuple
            } else if ffi::PyBytes_CheckExact(pointer) != 0 {
                Kind::Bytes
            } else {
                return None;
            };
            Some(Self { object, hash: ffi::PyObject_Hash(pointer) as u64, kind })
        }
    }

    /// True if the garbage collector has to know of the key.
    pub fn is_tracked(&self) -> bool {
        self.kind == Kind::Foreign && is_tracked(self.object)
    }

    /// Compares with a key of equal hash. Runs no Python code and makes no object.
    #[inline]
    pub fn same(&self, other: &Py<PyAny>, kind: Kind) -> Same {
        let (left, right) = (self.object.as_ptr(), other.as_ptr());
        if left == right {
            return Same::Yes;
        }
        // SAFETY: both objects are alive and have exactly the types that their kinds say (`Key::native`).
        unsafe {
            match (self.kind, kind) {
                (Kind::Small, Kind::Small) => Same::Yes,
                (Kind::Str, Kind::Str) => Same::from(equal_str(left, right)),
                (Kind::Int, Kind::Int) => Same::from(equal_int(left, right)),
                (Kind::Bytes, Kind::Bytes) => Same::from(equal_bytes(left, right)),
                (Kind::Tuple, Kind::Tuple) => same_tuples(left, right),
                (Kind::Foreign, _) | (_, Kind::Foreign) => Same::Ask,
                _ => Same::No,
            }
        }
    }
}

impl From<bool> for Same {
    #[inline]
    fn from(equal: bool) -> Self {
        if equal { Self::Yes } else { Self::No }
    }
}

/// Where a tuple's items begin, in bytes; 0 if they have to be asked for one by one, at a call for each.
static ITEMS: AtomicUsize = AtomicUsize::new(0);

/// Finds out where a tuple's items begin: behind its `__basicsize__`, if a tuple agrees.
pub fn learn_tuples(py: Python<'_>) -> PyResult<()> {
    let offset: usize = py.get_type::<PyTuple>().getattr("__basicsize__")?.extract()?;
    let probe = PyTuple::new(py, ["first", "second", "third"])?;
    let word = size_of::<*mut ffi::PyObject>();
    let agrees = offset.is_multiple_of(word)
        && (0..probe.len()).all(|n| {
            // SAFETY: within the object, which has `__basicsize__` bytes and a word for each of its items.
            let found = unsafe { probe.as_ptr().byte_add(offset + n * word).cast::<*mut ffi::PyObject>().read() };
            probe.get_borrowed_item(n).is_ok_and(|item| item.as_ptr() == found)
        });
    ITEMS.store(if agrees { offset } else { 0 }, Ordering::Relaxed);
    Ok(())
}

/// # Safety
/// `tuple` is an exact tuple that is alive, and `n` is within it.
#[inline(always)]
unsafe fn item(tuple: *mut ffi::PyObject, n: ffi::Py_ssize_t) -> *mut ffi::PyObject {
    let offset = ITEMS.load(Ordering::Relaxed);
    // SAFETY: the caller's; `learn_tuples` has checked the offset.
    unsafe {
        if offset == 0 {
            return ffi::PyTuple_GetItem(tuple, n);
        }
        tuple.byte_add(offset).cast::<*mut ffi::PyObject>().offset(n).read()
    }
}

/// # Safety
/// `tuple` is an exact tuple that is alive.
#[inline]
unsafe fn is_tuple_of_atoms(tuple: *mut ffi::PyObject) -> bool {
    // SAFETY: the caller's; the indexes are within the tuple, which keeps its items alive.
    unsafe {
        (0..ffi::Py_SIZE(tuple)).all(|n| {
            let item = item(tuple, n);
            ffi::PyLong_CheckExact(item) != 0
                || ffi::PyUnicode_CheckExact(item) != 0
                || ffi::PyFloat_CheckExact(item) != 0
                || ffi::PyBytes_CheckExact(item) != 0
                || ffi::PyBool_Check(item) != 0
                || item == ffi::Py_None()
        })
    }
}

/// # Safety
/// Both are tuples that passed [`is_tuple_of_atoms`].
unsafe fn same_tuples(left: *mut ffi::PyObject, right: *mut ffi::PyObject) -> Same {
    // SAFETY: the caller's; the indexes are within both tuples, and equal types are told before they are compared.
    unsafe {
        let length = ffi::Py_SIZE(left);
        if length != ffi::Py_SIZE(right) {
            return Same::No;
        }
        for n in 0..length {
            let (left, right) = (item(left, n), item(right, n));
            if left == right {
                continue;
            }
            let kind = ffi::Py_TYPE(left);
            if kind != ffi::Py_TYPE(right) {
                // 1, 1.0 and True are equal.
                return Same::Ask;
            }
            let equal = if kind == &raw mut ffi::PyUnicode_Type {
                equal_str(left, right)
            } else if kind == &raw mut ffi::PyLong_Type {
                equal_int(left, right)
            } else if kind == &raw mut ffi::PyBytes_Type {
                equal_bytes(left, right)
            } else if kind == &raw mut ffi::PyFloat_Type {
                ffi::PyFloat_AsDouble(left) == ffi::PyFloat_AsDouble(right)
            } else {
                // True, False and None are only themselves.
                false
            };
            if !equal {
                return Same::No;
            }
        }
        Same::Yes
    }
}

/// # Safety
/// Both are exact ints that are alive.
unsafe fn equal_int(left: *mut ffi::PyObject, right: *mut ffi::PyObject) -> bool {
    static COMPARE: OnceLock<ffi::richcmpfunc> = OnceLock::new();
    // SAFETY: the caller's; the comparison of ints calls nothing else, cannot fail, and returns True or False.
    unsafe {
        let compare = COMPARE.get_or_init(|| comparison(&raw mut ffi::PyLong_Type));
        is_true(compare(left, right, ffi::Py_EQ))
    }
}

/// # Safety
/// Both are exact bytes that are alive.
unsafe fn equal_bytes(left: *mut ffi::PyObject, right: *mut ffi::PyObject) -> bool {
    static COMPARE: OnceLock<ffi::richcmpfunc> = OnceLock::new();
    // SAFETY: the caller's; the comparison of bytes calls nothing else, cannot fail, and returns True or False.
    unsafe {
        let compare = COMPARE.get_or_init(|| comparison(&raw mut ffi::PyBytes_Type));
        is_true(compare(left, right, ffi::Py_EQ))
    }
}

/// # Safety
/// Both are exact strings that are alive.
unsafe fn equal_str(left: *mut ffi::PyObject, right: *mut ffi::PyObject) -> bool {
    // SAFETY: the caller's; the comparison of strings calls nothing else, cannot fail, and returns True or False.
    unsafe { is_true(ffi::PyUnicode_RichCompare(left, right, ffi::Py_EQ)) }
}

/// The comparison of a built-in type itself. `PyObject_RichCompare` would raise at the bottom of a deep recursion, and
/// an exception is an object: making one may start a collection.
///
/// # Safety
/// `kind` is a built-in type that compares.
unsafe fn comparison(kind: *mut ffi::PyTypeObject) -> ffi::richcmpfunc {
    // SAFETY: the slot holds a function of this signature, in every Python that has the type.
    unsafe { std::mem::transmute(ffi::PyType_GetSlot(kind, ffi::Py_tp_richcompare)) }
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
