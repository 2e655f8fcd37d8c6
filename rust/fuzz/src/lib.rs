//! What the fuzz targets share: the datatypes by number, and naive readers to compare with.

use std::fmt::Debug;

use half::{bf16, f16};
use zerocost_kernels::json::{Datatype, Error, MAX_AXES, Reader, Result};

/// Evaluates the expression with `T` bound to a datatype, chosen by a number.
#[macro_export]
macro_rules! with_datatype {
    ($number:expr, $T:ident => $body:expr) => {
        $crate::with_datatype!(@ $number, $T => $body,
            0 f64, 1 f32, 2 half::f16, 3 half::bf16, 4 bool, 5 u8, 6 u16, 7 u32, 8 u64, 9 i8, 10 i16, 11 i32, 12 i64)
    };
    (@ $number:expr, $T:ident => $body:expr, $($index:literal $type:ty),*) => {
        match $number % 13 {
            $($index => { type $T = $type; $body })*
            _ => unreachable!(),
        }
    };
}

/// A datatype that knows what the standard library makes of a number.
pub trait Checked: Datatype + Debug {
    /// The number, None if the type cannot hold it.
    fn naive(text: &str, is_integer: bool) -> Option<Self>;

    /// The element of these bytes; what is missing counts as zeros.
    fn stored(bytes: &[u8]) -> Self::Stored;

    /// The element as it lies in memory.
    fn to_stored(self) -> Self::Stored;

    /// Whether both are one value to the last bit, all NaNs being one.
    fn same(self, other: Self) -> bool;
}

macro_rules! float {
    ($($T:ty, $bytes:literal, |$text:ident| $read:expr;)*) => {$(
        impl Checked for $T {
            fn naive($text: &str, _: bool) -> Option<Self> {
                let value: $T = $read;
                value.is_finite().then_some(value)
            }

            fn stored(bytes: &[u8]) -> Self {
                Self::from_le_bytes(padded(bytes))
            }

            fn to_stored(self) -> Self {
                self
            }

            fn same(self, other: Self) -> bool {
                self.to_bits() == other.to_bits() || (self.is_nan() && other.is_nan())
            }
        }
    )*};
}
float! {
    f64, 8, |text| text.parse().unwrap();
    f32, 4, |text| text.parse().unwrap();
    // By way of the nearest float64, as the kernels do it.
    f16, 2, |text| f16::from_f64(text.parse().unwrap());
    bf16, 2, |text| bf16::from_f64(text.parse().unwrap());
}

macro_rules! integer {
    ($($T:ty),*) => {$(
        impl Checked for $T {
            fn naive(text: &str, is_integer: bool) -> Option<Self> {
                if is_integer {
                    return text.parse::<i128>().ok().and_then(|value| value.try_into().ok());
                }
                // 3.0 and 1e3 are whole, up to 2^53.
                let value: f64 = text.parse().unwrap();
                let is_whole = value.fract() == 0.0 && value.abs() <= 2_f64.powi(53);
                is_whole.then_some(value as i64).and_then(|value| value.try_into().ok())
            }

            fn stored(bytes: &[u8]) -> Self {
                Self::from_le_bytes(padded(bytes))
            }

            fn to_stored(self) -> Self {
                self
            }

            fn same(self, other: Self) -> bool {
                self == other
            }
        }
    )*};
}
integer!(u8, u16, u32, u64, i8, i16, i32, i64);

impl Checked for bool {
    fn naive(_: &str, _: bool) -> Option<Self> {
        None
    }

    fn stored(bytes: &[u8]) -> u8 {
        bytes.first().copied().unwrap_or(0)
    }

    fn to_stored(self) -> u8 {
        u8::from(self)
    }

    fn same(self, other: Self) -> bool {
        self == other
    }
}

fn padded<const N: usize>(bytes: &[u8]) -> [u8; N] {
    let mut padded = [0; N];
    let known = bytes.len().min(N);
    padded[..known].copy_from_slice(&bytes[..known]);
    padded
}

/// Nested lists of numbers, one element after the other; None for whatever is not to be read.
pub fn naive_array<T: Checked>(reader: &mut Reader<'_>, max_elements: usize) -> Option<(Vec<T>, Vec<usize>)> {
    let mut elements = Vec::new();
    let mut shape = Vec::new();
    let is_read = naive_level(reader, 0, max_elements, &mut elements, &mut shape, &mut None);
    is_read.ok().map(|()| (elements, shape))
}

fn naive_level<T: Checked>(
    reader: &mut Reader<'_>,
    axis: usize,
    max_elements: usize,
    elements: &mut Vec<T>,
    shape: &mut Vec<usize>,
    rank: &mut Option<usize>,
) -> Result<()> {
    let is_first = shape.len() == axis;
    if is_first {
        shape.push(0);
    }
    let mut length = 0;
    reader.array(|reader| {
        length += 1;
        match reader.peek()? {
            b'[' if axis + 1 < MAX_AXES && rank.is_none_or(|rank| axis + 1 < rank) => {
                naive_level(reader, axis + 1, max_elements, elements, shape, rank)?;
            }
            b'[' => return Err(Error::Ragged),
            first => {
                if *rank.get_or_insert(axis + 1) != axis + 1 {
                    return Err(Error::Ragged);
                }
                let element = match first {
                    b'"' => match &*reader.string()? {
                        "NaN" => T::from_float(f64::NAN),
                        "Infinity" => T::from_float(f64::INFINITY),
                        "-Infinity" => T::from_float(f64::NEG_INFINITY),
                        _ => None,
                    },
                    b't' | b'f' => T::from_boolean(reader.boolean()?),
                    _ => {
                        let number = reader.number()?;
                        T::naive(number.text, number.is_integer)
                    }
                };
                elements.push(element.ok_or(Error::Ragged)?);
            }
        }
        if length > max_elements || elements.len() > max_elements { Err(Error::Ragged) } else { Ok(()) }
    })?;
    if length == 0 && *rank.get_or_insert(axis + 1) != axis + 1 {
        return Err(Error::Ragged);
    }
    if is_first {
        shape[axis] = length;
    } else if shape[axis] != length {
        return Err(Error::Ragged);
    }
    Ok(())
}
