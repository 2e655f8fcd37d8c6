//! The datatypes of numbers, and how JSON's values become their elements.

use half::{bf16, f16};

use super::decimal::{Decimal, nearest};
use super::digits::Digits;
use super::reader::Number;

mod sealed {
    pub trait Sealed {}
}

/// A datatype of the Open Inference Protocol whose elements are numbers or booleans. Sealed: [`write`](super::write())
/// reads memory as what this says.
pub trait Datatype: Digits + Default + Send + Sync + 'static + sealed::Sealed {
    /// An element as it lies in memory: any bytes are one. A boolean is a byte, since memory may hold other ones than 0
    /// and 1.
    type Stored: Copy + Sync;
    /// Its name.
    const NAME: &'static str;
    /// What the elements are, for errors.
    const NEEDED: &'static str;

    /// The element that lies in memory as `stored`.
    fn from_stored(stored: Self::Stored) -> Self;

    /// The number, correctly rounded; None if the type cannot hold it.
    fn from_number(number: Number<'_>) -> Option<Self>;

    /// As [`Datatype::from_number`] for numbers of the usual lengths; None where that must decide.
    fn from_decimal(_: Decimal) -> Option<Self> {
        None
    }

    /// `true` or `false` as an element.
    fn from_boolean(_: bool) -> Option<Self> {
        None
    }

    /// `"NaN"`, `"Infinity"` or `"-Infinity"` as an element.
    fn from_float(_: f64) -> Option<Self> {
        None
    }
}

macro_rules! stored_as_it_is {
    () => {
        type Stored = Self;

        #[inline]
        fn from_stored(stored: Self) -> Self {
            stored
        }
    };
}

macro_rules! float {
    ($($T:ty, $name:literal, |$number:ident| $read:expr, |$decimal:ident| $quick:expr, |$value:ident| $convert:expr;)*) => {$(
        impl sealed::Sealed for $T {}

        impl Datatype for $T {
            stored_as_it_is!();
            const NAME: &'static str = $name;
            const NEEDED: &'static str = "a number, \"NaN\", \"Infinity\" or \"-Infinity\"";

            #[inline]
            fn from_number($number: Number<'_>) -> Option<Self> {
                let value: $T = $read;
                value.is_finite().then_some(value)
            }

            #[inline(always)]
            fn from_decimal($decimal: Decimal) -> Option<Self> {
                $quick
            }

            fn from_float($value: f64) -> Option<Self> {
                Some($convert)
            }
        }
    )*};
}

float! {
    f64, "FP64", |number| number.double(), |decimal| nearest(decimal), |value| value;
    f32, "FP32", |number| fast_float2::parse(number.text).unwrap_or(f32::INFINITY), |decimal| nearest(decimal),
        |value| value as f32;
    f16, "FP16", |number| f16::from_f64(number.double()),
        |decimal| nearest(decimal).map(f16::from_f64).filter(|half| half.is_finite()), |value| f16::from_f64(value);
    bf16, "BF16", |number| bf16::from_f64(number.double()),
        |decimal| nearest(decimal).map(bf16::from_f64).filter(|brain| brain.is_finite()), |value| bf16::from_f64(value);
}

macro_rules! integer {
    ($($T:ty, $name:literal;)*) => {$(
        impl sealed::Sealed for $T {}

        impl Datatype for $T {
            stored_as_it_is!();
            const NAME: &'static str = $name;
            const NEEDED: &'static str = "a whole number";

            #[inline]
            fn from_number(number: Number<'_>) -> Option<Self> {
                if number.is_integer {
                    // The standard library takes no minus in front of what has no sign.
                    return number.text.parse().ok().or((number.text == "-0").then_some(0));
                }
                // 3.0 and 1e3 are whole; beyond 2^53 a float64 could no longer tell.
                let value = number.double();
                let fits = value.fract() == 0.0 && value.abs() <= 9_007_199_254_740_992.0;
                (fits && value >= <$T>::MIN as f64 && value <= <$T>::MAX as f64).then_some(value as $T)
            }

            #[inline(always)]
            fn from_decimal(decimal: Decimal) -> Option<Self> {
                if !decimal.is_integer {
                    return None;
                }
                let size = decimal.digits as i64; // eight digits at most
                <$T>::try_from(if decimal.is_negative { -size } else { size }).ok()
            }
        }
    )*};
}

integer! {
    u8, "UINT8"; u16, "UINT16"; u32, "UINT32"; u64, "UINT64";
    i8, "INT8"; i16, "INT16"; i32, "INT32"; i64, "INT64";
}

impl sealed::Sealed for bool {}

impl Datatype for bool {
    type Stored = u8;
    const NAME: &'static str = "BOOL";
    const NEEDED: &'static str = "true or false";

    #[inline]
    fn from_stored(stored: u8) -> Self {
        stored != 0
    }

    fn from_number(_: Number<'_>) -> Option<Self> {
        None
    }

    fn from_boolean(value: bool) -> Option<Self> {
        Some(value)
    }
}

/// The non-finite number that a string stands for, as in protobuf's JSON mapping.
pub fn non_finite(text: &str) -> Option<f64> {
    match text {
        "NaN" => Some(f64::NAN),
        "Infinity" => Some(f64::INFINITY),
        "-Infinity" => Some(f64::NEG_INFINITY),
        _ => None,
    }
}
