//! NumPy arrays as views of `zerocost-kernels`, and fresh arrays for results.
//!
//! The fast way touches nothing but the array's header. Everything that a kernel cannot read as it is (lists, DLPack,
//! misaligned or otherwise impossible layouts) goes through `zerocost.core.arrays.as_floating`, which converts, counts
//! the copy, or raises; so there is one place for that, and it is in Python.

use half::{bf16, f16};
use numpy::npyffi::{PY_ARRAY_API, PyArray_Descr, PyArrayObject, npy_intp};
use numpy::{PyArrayDescr, PyArrayDescrMethods, PyUntypedArray, PyUntypedArrayMethods};
use pyo3::prelude::*;
use pyo3::sync::PyOnceLock;
use pyo3::types::PyType;
use smallvec::SmallVec;
use zerocost_kernels::arch::Element;
use zerocost_kernels::view::{Layout, View, ViewMut};

use crate::error::{DatatypeError, KernelError, OverlapError};

/// The floating-point types that kernels compute with.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub enum Float {
    F64,
    F32,
    F16,
    BF16,
}

impl Float {
    /// NumPy's own types by number, bfloat16 (ml_dtypes or another package's) by its descriptor.
    fn of(descriptor: &Bound<'_, PyArrayDescr>) -> Option<Self> {
        match descriptor.num() {
            // Big-endian arrays share the number.
            _ if descriptor.is_native_byteorder() == Some(false) => None,
            11 => Some(Self::F32),
            12 => Some(Self::F64),
            23 => Some(Self::F16),
            number if number >= 256 && is_bfloat16(descriptor) => Some(Self::BF16),
            _ => None,
        }
    }

    pub fn item_size(self) -> usize {
        match self {
            Self::F64 => 8,
            Self::F32 => 4,
            Self::F16 | Self::BF16 => 2,
        }
    }
}

fn is_bfloat16(descriptor: &Bound<'_, PyArrayDescr>) -> bool {
    static BFLOAT16: PyOnceLock<Py<PyType>> = PyOnceLock::new();
    let py = descriptor.py();
    let kind = descriptor.typeobj();
    if let Some(known) = BFLOAT16.get(py) {
        return kind.is(known);
    }
    // The first bfloat16 array of the process; a user's type of another name is never remembered.
    let found = descriptor.itemsize() == 2 && kind.name().is_ok_and(|name| name == "bfloat16");
    if found {
        let _ = BFLOAT16.set(py, kind.unbind());
    }
    found
}

/// Element types that a [`FloatArray`] can be viewed as; runs the same generic code for whichever it is.
///
/// `with_float!(array.float(), T => expression)` evaluates the expression with `T` bound to the Rust type.
macro_rules! with_float {
    ($float:expr, $T:ident => $body:expr) => {
        match $float {
            $crate::array::Float::F64 => {
                type $T = f64;
                $body
            }
            $crate::array::Float::F32 => {
                type $T = f32;
                $body
            }
            $crate::array::Float::F16 => {
                type $T = half::f16;
                $body
            }
            $crate::array::Float::BF16 => {
                type $T = half::bf16;
                $body
            }
        }
    };
}
pub(crate) use with_float;

/// The Rust type of each [`Float`].
pub trait Viewable: Element {
    const FLOAT: Float;
}

impl Viewable for f64 {
    const FLOAT: Float = Float::F64;
}

impl Viewable for f32 {
    const FLOAT: Float = Float::F32;
}

impl Viewable for f16 {
    const FLOAT: Float = Float::F16;
}

impl Viewable for bf16 {
    const FLOAT: Float = Float::BF16;
}

/// A floating-point array that kernels can read as it is.
pub struct FloatArray<'py> {
    array: Bound<'py, PyUntypedArray>,
    float: Float,
    layout: Layout,
    argument: &'static str,
}

impl<'py> FloatArray<'py> {
    /// Takes what the caller gave. Anything but a readable ndarray goes through `as_floating`.
    pub fn new(value: &Bound<'py, PyAny>, argument: &'static str) -> PyResult<Self> {
        if let Ok(array) = value.cast::<PyUntypedArray>()
            && let Some(readable) = Self::readable(array, argument)?
        {
            return Ok(readable);
        }
        let converted = value
            .py()
            .import("zerocost.core.arrays")?
            .getattr("as_floating")?
            .call1((value, argument))?
            .cast_into::<PyUntypedArray>()?;
        Self::readable(&converted, argument)?.ok_or_else(|| {
            let kind = converted.get_type();
            DatatypeError::new_err((format!("{argument}: {kind} cannot be read as floating point"), argument))
        })
    }

    fn readable(array: &Bound<'py, PyUntypedArray>, argument: &'static str) -> PyResult<Option<Self>> {
        let Some(float) = Float::of(&array.dtype()) else { return Ok(None) };
        let item = float.item_size() as isize;
        if !array.is_aligned() || steps(array).any(|step| step % item != 0) {
            return Ok(None);
        }
        let strides: SmallVec<[isize; 4]> = steps(array).map(|step| step / item).collect();
        let layout = Layout::new(argument, array.shape(), &strides, item as usize).map_err(KernelError::from)?;
        Ok(Some(Self { array: array.clone(), float, layout, argument }))
    }

    pub fn float(&self) -> Float {
        self.float
    }

    pub fn layout(&self) -> &Layout {
        &self.layout
    }

    pub fn array(&self) -> &Bound<'py, PyUntypedArray> {
        &self.array
    }

    pub fn is_writeable(&self) -> bool {
        // SAFETY: the array object is alive and its header is only read.
        unsafe { (*self.array.as_array_ptr()).fields.flags & numpy::npyffi::NPY_ARRAY_WRITEABLE != 0 }
    }

    /// `Err` with the names of both arguments and types if this array has another type than `other`.
    pub fn same_type_as(&self, other: &FloatArray<'py>) -> PyResult<()> {
        if self.float == other.float {
            return Ok(());
        }
        let text = format!(
            "{}: dtype {} was given, that of {} ({}) is needed",
            self.argument,
            self.array.dtype(),
            other.argument,
            other.array.dtype()
        );
        Err(DatatypeError::new_err((text, self.argument)))
    }

    /// The elements as `T`, which must be the type that [`FloatArray::float`] says.
    pub fn view<T: Viewable>(&self) -> PyResult<View<'_, T>> {
        assert!(T::FLOAT == self.float, "viewed as another type than it has");
        self.check_unchanged()?;
        // SAFETY: `readable` checked alignment and layout, `check_unchanged` that they are still what the array has, and
        // NumPy guarantees that every element within shape and strides is memory of the array. It stays, because `self`
        // holds a reference: `resize` refuses an array that somebody else holds, unless it is told not to look. T has the
        // size of the elements, asserted above, and every bit pattern is a value of an `Element`. Other threads may write
        // to it, as the contract allows.
        Ok(unsafe { View::from_raw((*self.array.as_array_ptr()).fields.data.cast(), self.layout.clone()) })
    }

    /// Code of the caller's may have run since the array was read (conversions of the arguments behind it), and an array
    /// can be made another one under the same name: `__setstate__`, `resize(refcheck=False)`.
    fn check_unchanged(&self) -> PyResult<()> {
        let (array, layout, item) = (&self.array, &self.layout, self.float.item_size() as isize);
        let is_same = array.is_aligned()
            && Float::of(&array.dtype()) == Some(self.float)
            && array.shape() == layout.shape()
            && steps(array)
                .zip(layout.strides())
                .zip(layout.shape())
                .all(|((step, stride), &length)| length <= 1 || step == stride * item);
        if is_same {
            return Ok(());
        }
        let text = format!("{}: the array was changed while the other arguments were read", self.argument);
        Err(DatatypeError::new_err((text, self.argument)))
    }

    /// The elements of an `out` argument as `T`. Refuses arrays that are read-only or that overlap themselves.
    pub fn view_mut<T: Viewable>(&mut self) -> PyResult<ViewMut<'_, T>> {
        assert!(T::FLOAT == self.float, "viewed as another type than it has");
        if !self.is_writeable() {
            let text = format!("{}: the array is read-only, a writeable one is needed", self.argument);
            return Err(OverlapError::new_err((text, self.argument)));
        }
        self.check_unchanged()?;
        // SAFETY: as in `view`, and writeable, checked above. Where it may overlap an input, the kernel refuses it
        // (`check_overlap`).
        let view = unsafe {
            ViewMut::from_raw(self.argument, (*self.array.as_array_ptr()).fields.data.cast(), self.layout.clone())
        };
        Ok(view.map_err(KernelError::from)?)
    }

    /// Checks that `value` is an ndarray of this array's type and of `shape`, to be written to.
    pub fn out(&self, value: &Bound<'py, PyAny>, shape: &[usize]) -> PyResult<FloatArray<'py>> {
        let wrong = |what: String| DatatypeError::new_err((format!("out: {what}"), "out"));
        let array = value
            .cast::<PyUntypedArray>()
            .map_err(|_| wrong(format!("{} was given, a numpy.ndarray is needed", value.get_type())))?;
        let out = FloatArray::readable(array, "out")?
            .ok_or_else(|| wrong("an aligned array of native byte order is needed".to_owned()))?;
        out.same_type_as(self)?;
        if out.layout.shape() != shape {
            let error = zerocost_kernels::Error::Shape {
                argument: "out",
                given: out.layout.shape().to_vec(),
                allowed: format!("{shape:?}"),
            };
            return Err(KernelError::from(error).into());
        }
        Ok(out)
    }

    /// A fresh C-contiguous array of this array's type, not initialised.
    pub fn empty(&self, shape: &[usize]) -> PyResult<FloatArray<'py>> {
        self.fresh(shape, false)
    }

    /// A fresh C-contiguous array of this array's type, all zero (large ones are pages that cost nothing until used).
    pub fn zeros(&self, shape: &[usize]) -> PyResult<FloatArray<'py>> {
        self.fresh(shape, true)
    }

    /// As [`FloatArray::zeros`], for an array of which only a few pages will be written: not in huge pages, which NumPy
    /// asks for and which come into memory whole.
    pub fn sparse_zeros(&self, shape: &[usize]) -> PyResult<FloatArray<'py>> {
        let zeros = self.zeros(shape)?;
        #[cfg(target_os = "linux")]
        {
            const PAGE: usize = 4096;
            let bytes = zeros.layout.len() * zeros.float.item_size();
            // SAFETY: the array object is alive and its header is only read.
            let start = unsafe { (*zeros.array.as_array_ptr()).fields.data };
            let before = start.align_offset(PAGE).min(bytes);
            // SAFETY: whole pages within the array's memory; the advice changes how they are mapped, never what is in
            // them, and one that is refused changes nothing.
            unsafe { libc::madvise(start.add(before).cast(), (bytes - before) / PAGE * PAGE, libc::MADV_NOHUGEPAGE) };
        }
        Ok(zeros)
    }

    fn fresh(&self, shape: &[usize], zeroed: bool) -> PyResult<FloatArray<'py>> {
        let py = self.array.py();
        let layout = Layout::contiguous("out", shape, self.float.item_size()).map_err(KernelError::from)?;
        let mut dims: Vec<npy_intp> = shape.iter().map(|&length| length as npy_intp).collect();
        let descriptor: *mut PyArray_Descr = self.array.dtype().into_dtype_ptr();
        // SAFETY: both are NumPy's own allocation functions, which read `dims.len()` lengths and steal the reference that
        // `into_dtype_ptr` gave. What they give is a new reference to an ndarray, or null with an exception set.
        let array = unsafe {
            let (rank, dims) = (dims.len() as i32, dims.as_mut_ptr());
            let array = if zeroed {
                PY_ARRAY_API.PyArray_Zeros(py, rank, dims, descriptor, 0)
            } else {
                PY_ARRAY_API.PyArray_Empty(py, rank, dims, descriptor, 0)
            };
            Bound::from_owned_ptr_or_err(py, array)?.cast_into_unchecked::<PyUntypedArray>()
        };
        Ok(FloatArray { array, float: self.float, layout, argument: "out" })
    }

    /// The array as Python's.
    pub fn into_array(self) -> Bound<'py, PyUntypedArray> {
        self.array
    }
}

/// Bytes from one element to the next along each axis. A step over an axis of length 0 or 1 is never taken; NumPy leaves
/// anything in it, and here it is 0.
pub fn steps(array: &Bound<'_, PyUntypedArray>) -> impl Iterator<Item = isize> {
    array.shape().iter().zip(array.strides()).map(|(&length, &stride)| if length > 1 { stride } else { 0 })
}

/// The last ndarray in the chain of bases: what owns the memory, or views memory that NumPy does not know. Read from the
/// headers: what a subclass says of its base may be anything.
pub fn owner_of<'py>(array: &Bound<'py, PyUntypedArray>) -> Bound<'py, PyUntypedArray> {
    let mut owner = array.clone();
    loop {
        let pointer: *mut PyArrayObject = owner.as_array_ptr();
        // SAFETY: `owner` keeps the array alive, which keeps its base alive until other code runs; the new reference is
        // taken before that. A base may be null.
        let base = unsafe { Bound::from_borrowed_ptr_or_opt(owner.py(), (*pointer).fields.base) };
        match base.and_then(|base| base.cast_into::<PyUntypedArray>().ok()) {
            Some(base) => owner = base,
            None => return owner,
        }
    }
}
