//! The datatypes of tensors: the one table of their names, and what follows from it.

use numpy::{PyArrayDescr, PyArrayDescrMethods};
use pyo3::prelude::*;

/// Calls a macro with what it is given and every datatype: its Open Inference name, its NumPy name, NumPy's letter for
/// its kind, its bytes, and its Rust type.
macro_rules! with_table {
    ($apply:ident!($($given:tt)*)) => {
        $crate::datatype::$apply! { [$($given)*]
            "BOOL" "bool" b'b' 1 bool,
            "UINT8" "uint8" b'u' 1 u8,
            "UINT16" "uint16" b'u' 2 u16,
            "UINT32" "uint32" b'u' 4 u32,
            "UINT64" "uint64" b'u' 8 u64,
            "INT8" "int8" b'i' 1 i8,
            "INT16" "int16" b'i' 2 i16,
            "INT32" "int32" b'i' 4 i32,
            "INT64" "int64" b'i' 8 i64,
            "FP16" "float16" b'f' 2 ::half::f16,
            "FP32" "float32" b'f' 4 f32,
            "FP64" "float64" b'f' 8 f64,
            "BF16" "bfloat16" b'V' 2 ::half::bf16,
        }
    };
}

macro_rules! list {
    ([] $($name:literal $numpy:literal $kind:literal $bytes:literal $type:ty,)*) => {
        &[$(($name, $numpy, $kind, $bytes)),*]
    };
}

macro_rules! select {
    ([$datatype:expr, $T:ident => $body:expr, _ => $other:expr]
     $($name:literal $numpy:literal $kind:literal $bytes:literal $type:ty,)*) => {
        match $datatype {
            $($name => {
                type $T = $type;
                $body
            })*
            _ => $other,
        }
    };
}

/// Evaluates the expression with `T` bound to the element type of an Open Inference datatype name.
macro_rules! with_datatype {
    ($datatype:expr, $T:ident => $body:expr, _ => $other:expr) => {
        $crate::datatype::with_table!(select!($datatype, $T => $body, _ => $other))
    };
}

pub(crate) use {list, select, with_datatype, with_table};

const TABLE: &[(&str, &str, u8, usize)] = with_table!(list!());

/// The Open Inference name of a datatype that may be given by its NumPy name.
pub fn datatype_name(given: &str) -> &str {
    TABLE.iter().find(|(_, numpy, ..)| *numpy == given).map_or(given, |(name, ..)| name)
}

/// The Open Inference name of what an array holds, None where it has none (text, objects, big-endian, complex).
pub fn datatype_of(descriptor: &Bound<'_, PyArrayDescr>) -> Option<&'static str> {
    if descriptor.is_native_byteorder() == Some(false) {
        return None;
    }
    let (kind, bytes) = (descriptor.kind(), descriptor.itemsize());
    // Types that NumPy does not know itself all have the kind 'V'.
    let is_named = |numpy: &str| kind != b'V' || descriptor.typeobj().name().is_ok_and(|name| name == numpy);
    let same = |&&(_, numpy, of_kind, of_bytes): &&(&str, &str, u8, usize)| {
        of_kind == kind && of_bytes == bytes && is_named(numpy)
    };
    TABLE.iter().find(same).map(|&(name, ..)| name)
}

/// Adds `DATATYPES`: the Open Inference and the NumPy name of each.
pub fn register(module: &Bound<'_, PyModule>) -> PyResult<()> {
    let names: Vec<(&str, &str)> = TABLE.iter().map(|&(name, numpy, ..)| (name, numpy)).collect();
    module.add("DATATYPES", pyo3::types::PyTuple::new(module.py(), names)?)
}
