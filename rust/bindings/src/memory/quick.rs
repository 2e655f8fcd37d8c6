//! The operations that count most, where nothing needs Python: a key of a built-in type, a cache without times, and for
//! a put without weights and listener.
//!
//! `LRUCache` as Python sees it is a subclass of what pyo3 makes of [`LRUCache`](super::LRUCache): `get`, `put`, `[]`,
//! `[] =` and `in` come here first, read their two or three arguments where pyo3 parses a signature and hands results
//! on through memory, and go to pyo3's own functions with whatever is not of that kind.

use std::ffi::{CString, c_char, c_int, c_uint};
use std::panic::{AssertUnwindSafe, catch_unwind};
use std::ptr::null_mut;
use std::sync::OnceLock;

use pyo3::exceptions::PySystemError;
use pyo3::ffi::{self, Py_ssize_t, PyCFunctionFastWithKeywords, PyObject};
use pyo3::intern;
use pyo3::prelude::*;
use pyo3::sync::PyOnceLock;
use pyo3::types::PyType;

use super::entry::Entry;
use super::key::{Key, is_tracked};
use super::lookup::{Found, find};
use super::mapping::SIGNATURE;
use super::{Inner, LRUCache, Weighing};

impl Inner {
    /// True if a put has nothing to weigh, nobody to tell and nothing to call off.
    #[inline]
    fn stores_quickly(&self, py: Python<'_>) -> bool {
        let settings = &self.settings;
        matches!(settings.weighing, Weighing::Nothing)
            && !settings.freeze
            && settings.on_evict.is_none()
            && self.is_calm(py)
    }
}

// All return None if it takes more; then nothing has happened, and nothing was counted.
impl LRUCache {
    /// A look-up that counts; a miss only if `misses` says so.
    // Inlined, as results that pass through memory cost as much as the look-up.
    #[inline(always)]
    fn get_quickly(&self, key: &Key<'_, '_>, misses: bool) -> Option<Option<Py<PyAny>>> {
        let py = key.object.py();
        self.inner.with(py, |inner| {
            let cache = inner.cache.as_mut().filter(|cache| !cache.is_timed())?;
            match find(cache, key) {
                Found::At(slot) => Some(Some(cache.hit(slot).value.clone_ref(py))),
                Found::Perhaps(_) => None,
                Found::Nowhere if misses => {
                    cache.miss();
                    Some(None)
                }
                Found::Nowhere => None,
            }
        })
    }

    /// Whether a key is there; neither counts nor is a use.
    #[inline(always)]
    fn has_quickly(&self, key: &Key<'_, '_>) -> Option<bool> {
        self.inner.with(key.object.py(), |inner| {
            let cache = inner.cache.as_ref().filter(|cache| !cache.is_timed())?;
            match find(cache, key) {
                Found::At(_) => Some(true),
                Found::Nowhere => Some(false),
                Found::Perhaps(_) => None,
            }
        })
    }

    /// Stores a value.
    #[inline(always)]
    fn put_quickly<'py>(&self, key: &Key<'_, 'py>, value: &Bound<'py, PyAny>) -> Option<()> {
        let py = value.py();
        let tracked = key.is_tracked() || is_tracked(value);
        let (mut old_key, mut old_value) = (None, None);
        let done = self.inner.with(py, |inner| {
            if !inner.stores_quickly(py) {
                return None;
            }
            let cache = inner.cache.as_mut().filter(|cache| cache.is_plain())?;
            match find(cache, key) {
                Found::At(slot) => {
                    let entry = cache.replace_plain(slot);
                    entry.tracked |= tracked;
                    old_value = Some(std::mem::replace(&mut entry.value, value.clone().unbind()));
                }
                Found::Perhaps(_) => return None,
                Found::Nowhere if cache.is_full() => {
                    let entry = cache.recycle(key.hash);
                    // Field by field: an entry that is moved as a whole is written in parts and read at once, for which
                    // a processor waits. Nothing is weighed here, so there is no owner.
                    old_key = Some(std::mem::replace(&mut entry.key, key.object.clone().unbind()));
                    old_value = Some(std::mem::replace(&mut entry.value, value.clone().unbind()));
                    (entry.kind, entry.tracked) = (key.kind, tracked);
                }
                Found::Nowhere => {
                    let (object, value) = (key.object.clone().unbind(), value.clone().unbind());
                    let entry = Entry { key: object, value, owner: None, kind: key.kind, tracked };
                    let evicted = cache.insert_plain(key.hash, entry);
                    debug_assert!(evicted.is_none(), "there was room");
                }
            }
            inner.tracks |= tracked;
            Some(())
        });
        // The lock is free.
        if let Some(key) = old_key {
            key.drop_ref(py);
        }
        if let Some(value) = old_value {
            value.drop_ref(py);
        }
        done
    }
}

/// pyo3's functions for the operations of this file.
struct General {
    get: PyCFunctionFastWithKeywords,
    put: PyCFunctionFastWithKeywords,
    subscript: ffi::binaryfunc,
    assign: ffi::objobjargproc,
    contains: ffi::objobjproc,
}

static GENERAL: OnceLock<General> = OnceLock::new();

fn general() -> &'static General {
    GENERAL.get().expect("set before there is an instance")
}

/// `LRUCache.get(key, default=None)` as the interpreter calls it.
unsafe extern "C" fn get(
    this: *mut PyObject,
    arguments: *const *mut PyObject,
    count: Py_ssize_t,
    names: *mut PyObject,
) -> *mut PyObject {
    if names.is_null() && (count == 1 || count == 2) {
        // SAFETY: the interpreter calls a method of this type, attached, with an instance of it and `count` arguments,
        // which all outlive the call.
        let (this, key) = unsafe { (instance(&this), object(&*arguments)) };
        match or_pyo3(|| this.get().get_quickly(&Key::native(key)?, true)) {
            Some(Some(value)) => return value.into_ptr(),
            // SAFETY: as above.
            Some(None) if count == 2 => return unsafe { object(&*arguments.add(1)) }.clone().into_ptr(),
            Some(None) => return this.py().None().into_ptr(),
            None => {}
        }
    }
    // SAFETY: it is what pyo3 defined for this name, and takes what came here.
    unsafe { (general().get)(this, arguments, count, names) }
}

/// `LRUCache.put(key, value, ttl=None)` as the interpreter calls it.
unsafe extern "C" fn put(
    this: *mut PyObject,
    arguments: *const *mut PyObject,
    count: Py_ssize_t,
    names: *mut PyObject,
) -> *mut PyObject {
    if names.is_null() && count == 2 {
        // SAFETY: as in `get`.
        let (this, key, value) = unsafe { (instance(&this), object(&*arguments), object(&*arguments.add(1))) };
        if or_pyo3(|| this.get().put_quickly(&Key::native(key)?, value)).is_some() {
            // SAFETY: True lives as long as the interpreter.
            return unsafe { Bound::from_borrowed_ptr(this.py(), ffi::Py_True()) }.into_ptr();
        }
    }
    // SAFETY: as in `get`.
    unsafe { (general().put)(this, arguments, count, names) }
}

/// `cache[key]`.
unsafe extern "C" fn subscript(this: *mut PyObject, key: *mut PyObject) -> *mut PyObject {
    // SAFETY: the interpreter calls a slot of this type, attached, with an instance of it and objects, which all outlive
    // the call.
    let (cache, object) = unsafe { (instance(&this), object(&key)) };
    // Of a miss pyo3's function takes care: it is counted there, and `__missing__` asked.
    if let Some(Some(value)) = or_pyo3(|| cache.get().get_quickly(&Key::native(object)?, false)) {
        return value.into_ptr();
    }
    // SAFETY: it is what pyo3 defined for this slot.
    unsafe { (general().subscript)(this, key) }
}

/// `cache[key] = value`, and `del cache[key]` without a value.
unsafe extern "C" fn assign(this: *mut PyObject, key: *mut PyObject, value: *mut PyObject) -> c_int {
    if !value.is_null() {
        // SAFETY: as in `subscript`.
        let (cache, key, value) = unsafe { (instance(&this), object(&key), object(&value)) };
        if or_pyo3(|| cache.get().put_quickly(&Key::native(key)?, value)).is_some() {
            return 0;
        }
    }
    // SAFETY: as in `subscript`.
    unsafe { (general().assign)(this, key, value) }
}

/// `key in cache`.
unsafe extern "C" fn contains(this: *mut PyObject, key: *mut PyObject) -> c_int {
    // SAFETY: as in `subscript`.
    let (cache, object) = unsafe { (instance(&this), object(&key)) };
    if let Some(found) = or_pyo3(|| cache.get().has_quickly(&Key::native(object)?)) {
        return found.into();
    }
    // SAFETY: as in `subscript`.
    unsafe { (general().contains)(this, key) }
}

/// What `quick` returns; after a panic, which must not leave a C function, pyo3's function has to make an error of it.
#[inline(always)]
fn or_pyo3<T>(quick: impl FnOnce() -> Option<T>) -> Option<T> {
    catch_unwind(AssertUnwindSafe(quick)).unwrap_or(None)
}

/// # Safety
/// This thread is attached, and `this` is an `LRUCache` that lives for `'a`.
unsafe fn instance<'a>(this: &'a *mut PyObject) -> &'a Bound<'a, LRUCache> {
    // SAFETY: the caller's.
    unsafe { Bound::ref_from_ptr(Python::assume_attached(), this).cast_unchecked() }
}

/// # Safety
/// This thread is attached, and the object lives for `'a`.
unsafe fn object<'a>(object: &'a *mut PyObject) -> &'a Bound<'a, PyAny> {
    // SAFETY: the caller's.
    unsafe { Bound::ref_from_ptr(Python::assume_attached(), object) }
}

static CLASS: PyOnceLock<Py<PyType>> = PyOnceLock::new();

/// True for `LRUCache` itself, false for a subclass.
pub(super) fn is_class(kind: &Bound<'_, PyType>) -> bool {
    CLASS.get(kind.py()).is_some_and(|class| kind.is(class))
}

/// The class that Python sees, made of pyo3's.
pub(super) fn class<'py>(base: &Bound<'py, PyType>) -> PyResult<Bound<'py, PyType>> {
    let py = base.py();
    let empty = base.call_method1(intern!(py, "__new__"), (base,))?;
    let (get_, put_) = (empty.getattr(intern!(py, "get"))?, empty.getattr(intern!(py, "put"))?);
    // SAFETY: the functions of slots have the signatures of those slots, and pyo3's class defines all three.
    let fresh = unsafe {
        let slot = |slot| ffi::PyType_GetSlot(base.as_type_ptr(), slot);
        General {
            get: c_function(&get_)?,
            put: c_function(&put_)?,
            subscript: std::mem::transmute::<*mut std::ffi::c_void, ffi::binaryfunc>(slot(ffi::Py_mp_subscript)),
            assign: std::mem::transmute::<*mut std::ffi::c_void, ffi::objobjargproc>(slot(ffi::Py_mp_ass_subscript)),
            contains: std::mem::transmute::<*mut std::ffi::c_void, ffi::objobjproc>(slot(ffi::Py_sq_contains)),
        }
    };
    let _ = GENERAL.set(fresh);
    // The type refers to these as long as the process lives.
    let end = ffi::PyMethodDef::zeroed();
    let methods = Box::leak(Box::new([method(&get_, get)?, method(&put_, put)?, end]));
    // As the interpreter reads it: the signature first, which `inspect` then finds.
    let documentation = base.getattr(intern!(py, "__doc__"))?.extract::<String>()?;
    let documentation = CString::new(format!("LRUCache{SIGNATURE}\n--\n\n{documentation}"))?;
    let mut slots = [
        slot(ffi::Py_tp_methods, methods.as_mut_ptr().cast()),
        slot(ffi::Py_tp_doc, documentation.as_ptr().cast_mut().cast()),
        slot(ffi::Py_mp_subscript, subscript as *mut std::ffi::c_void),
        slot(ffi::Py_mp_ass_subscript, assign as *mut std::ffi::c_void),
        slot(ffi::Py_sq_contains, contains as *mut std::ffi::c_void),
        slot(0, null_mut()),
    ];
    let mut spec = ffi::PyType_Spec {
        name: c"zerocost.LRUCache".as_ptr(),
        // Nothing beyond what the base has.
        basicsize: 0,
        itemsize: 0,
        flags: (ffi::Py_TPFLAGS_DEFAULT | ffi::Py_TPFLAGS_BASETYPE) as c_uint,
        slots: slots.as_mut_ptr(),
    };
    // SAFETY: the specification is complete, and what the type keeps of it lives for ever.
    let class = unsafe {
        let class = ffi::PyType_FromSpecWithBases(&raw mut spec, base.as_ptr());
        Bound::from_owned_ptr_or_err(py, class)?.cast_into::<PyType>()?
    };
    CLASS.get_or_init(py, || class.clone().unbind());
    Ok(class)
}

fn slot(slot: c_int, pfunc: *mut std::ffi::c_void) -> ffi::PyType_Slot {
    ffi::PyType_Slot { slot, pfunc }
}

/// `call` under the name and with the documentation of pyo3's method.
fn method(general: &Bound<'_, PyAny>, call: PyCFunctionFastWithKeywords) -> PyResult<ffi::PyMethodDef> {
    let text = |name| general.getattr(name)?.extract::<String>();
    let (name, signature, documentation) = (text("__name__")?, text("__text_signature__")?, text("__doc__")?);
    let forever = |text: String| PyResult::Ok(CString::new(text)?.into_raw() as *const c_char);
    Ok(ffi::PyMethodDef {
        ml_doc: forever(format!("{name}{signature}\n--\n\n{documentation}"))?,
        ml_name: forever(name)?,
        ml_meth: ffi::PyMethodDefPointer { PyCFunctionFastWithKeywords: call },
        ml_flags: ffi::METH_FASTCALL | ffi::METH_KEYWORDS,
    })
}

/// The C function of a method of pyo3's.
fn c_function(method: &Bound<'_, PyAny>) -> PyResult<PyCFunctionFastWithKeywords> {
    let pointer = method.as_ptr();
    // SAFETY: flags and function are asked of a C function only; with these flags it has this signature.
    unsafe {
        let fast = ffi::METH_FASTCALL | ffi::METH_KEYWORDS;
        if ffi::PyCFunction_Check(pointer) != 0
            && ffi::PyCFunction_GetFlags(pointer) == fast
            && let Some(function) = ffi::PyCFunction_GetFunction(pointer)
        {
            return Ok(std::mem::transmute::<ffi::PyCFunction, PyCFunctionFastWithKeywords>(function));
        }
    }
    Err(PySystemError::new_err("pyo3 makes methods of another kind than this module was written for"))
}
