//! Arrays of numbers: from nested JSON lists straight into one vector, and back.

use half::{bf16, f16};

use super::digits::Digits;
use super::json::{Error, Number, Reader, Result};

/// An element type of a tensor.
pub trait Element: Copy + Default + Send + Sync + Digits + 'static {
    /// The name of the datatype in the Open Inference Protocol.
    const DATATYPE: &'static str;
    /// What the elements are, for errors.
    const NEEDED: &'static str;

    /// The number, correctly rounded; None if the type cannot hold it.
    fn from_number(number: Number<'_>) -> Option<Self>;

    /// `true` or `false` as an element.
    fn from_boolean(_: bool) -> Option<Self> {
        None
    }

    /// `"NaN"`, `"Infinity"` or `"-Infinity"` as an element.
    fn from_float(_: f64) -> Option<Self> {
        None
    }
}

macro_rules! float {
    ($($T:ty, $name:literal, |$number:ident| $read:expr, |$value:ident| $convert:expr;)*) => {$(
        impl Element for $T {
            const DATATYPE: &'static str = $name;
            const NEEDED: &'static str = "a number, \"NaN\", \"Infinity\" or \"-Infinity\"";

            #[inline]
            fn from_number($number: Number<'_>) -> Option<Self> {
                let value: $T = $read;
                value.is_finite().then_some(value)
            }

            fn from_float($value: f64) -> Option<Self> {
                Some($convert)
            }
        }
    )*};
}

float! {
    f64, "FP64", |number| double(number), |value| value;
    f32, "FP32", |number| fast_float2::parse(number.text).unwrap_or(f32::INFINITY), |value| value as f32;
    f16, "FP16", |number| f16::from_f64(double(number)), |value| f16::from_f64(value);
    bf16, "BF16", |number| bf16::from_f64(double(number)), |value| bf16::from_f64(value);
}

/// The nearest float64; infinite beyond its range.
#[inline]
pub fn double(number: Number<'_>) -> f64 {
    // JSON's grammar is a part of what the parser takes, so it never refuses.
    fast_float2::parse(number.text).unwrap_or(f64::INFINITY)
}

macro_rules! integer {
    ($($T:ty, $name:literal;)*) => {$(
        impl Element for $T {
            const DATATYPE: &'static str = $name;
            const NEEDED: &'static str = "a whole number";

            #[inline]
            fn from_number(number: Number<'_>) -> Option<Self> {
                if number.is_integer {
                    return number.text.parse().ok();
                }
                // 3.0 and 1e3 are whole; beyond 2^53 a float64 could no longer tell.
                let value = double(number);
                let fits = value.fract() == 0.0 && value.abs() <= 9_007_199_254_740_992.0;
                (fits && value >= <$T>::MIN as f64 && value <= <$T>::MAX as f64).then_some(value as $T)
            }
        }
    )*};
}

integer! {
    u8, "UINT8"; u16, "UINT16"; u32, "UINT32"; u64, "UINT64";
    i8, "INT8"; i16, "INT16"; i32, "INT32"; i64, "INT64";
}

impl Element for bool {
    const DATATYPE: &'static str = "BOOL";
    const NEEDED: &'static str = "true or false";

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

/// Reads nested lists of one length per level. Returns the elements in row-major order, and the shape.
///
/// Refuses ragged lists, elements of another kind, and more than `max_elements`.
pub fn read<T: Element>(reader: &mut Reader<'_>, max_elements: usize) -> Result<(Vec<T>, Vec<usize>)> {
    let mut lists = Lists { elements: Vec::new(), shape: Vec::new(), rank: None, max_elements };
    lists.level(reader, 0)?;
    Ok((lists.elements, lists.shape))
}

/// Reads flat or nested lists that must fill `shape`.
pub fn read_shaped<T: Element>(reader: &mut Reader<'_>, shape: &[usize], max_elements: usize) -> Result<Vec<T>> {
    let needed = shape
        .iter()
        .try_fold(1_usize, |product, &length| product.checked_mul(length))
        .filter(|&product| product <= max_elements && shape.iter().all(|&length| length <= max_elements))
        .ok_or(Error::Elements { allowed: max_elements })?;
    let (elements, found) = read::<T>(reader, max_elements)?;
    if elements.len() != needed {
        return Err(Error::Count { given: elements.len(), needed });
    }
    if found.len() != 1 && found != shape {
        return Err(Error::Ragged);
    }
    Ok(elements)
}

struct Lists<T> {
    elements: Vec<T>,
    shape: Vec<usize>,
    rank: Option<usize>,
    max_elements: usize,
}

impl<T: Element> Lists<T> {
    fn level(&mut self, reader: &mut Reader<'_>, axis: usize) -> Result<()> {
        let is_first = self.shape.len() == axis;
        if is_first {
            self.shape.push(0);
        }
        let start = reader.remaining();
        let mut length = 0;
        reader.array(|reader| {
            if reader.peek()? == b'[' {
                if self.rank.is_some_and(|rank| axis + 1 >= rank) {
                    return Err(Error::Ragged);
                }
                self.level(reader, axis + 1)?;
            } else {
                if *self.rank.get_or_insert(axis + 1) != axis + 1 {
                    return Err(Error::Ragged);
                }
                self.element(reader)?;
            }
            length += 1;
            // Also where rows are empty: a million empty lists are a million lists.
            if length > self.max_elements {
                return Err(Error::Elements { allowed: self.max_elements });
            }
            Ok(())
        })?;
        if length == 0 && *self.rank.get_or_insert(axis + 1) != axis + 1 {
            return Err(Error::Ragged);
        }
        if is_first {
            self.shape[axis] = length;
            if self.rank == Some(axis + 1) && self.elements.len() == length {
                // The first row is a good guess for the others.
                let row = (start - reader.remaining()).max(1);
                let guess = (reader.remaining() / row + 1).saturating_mul(length);
                self.elements.reserve_exact(guess.min(self.max_elements).min(reader.remaining() / 2));
            }
        } else if self.shape[axis] != length {
            return Err(Error::Ragged);
        }
        Ok(())
    }

    #[inline]
    fn element(&mut self, reader: &mut Reader<'_>) -> Result<()> {
        if self.elements.len() == self.max_elements {
            return Err(Error::Elements { allowed: self.max_elements });
        }
        let wrong = |given| Error::Element { given, needed: T::NEEDED };
        let element = match reader.peek()? {
            b'-' | b'0'..=b'9' => {
                let number = reader.number()?;
                T::from_number(number).ok_or_else(|| match (T::DATATYPE, number.is_integer) {
                    ("BOOL", _) => wrong("a number"),
                    (datatype, true) => Error::Range { datatype },
                    (datatype, false) if T::from_float(0.0).is_some() => Error::Range { datatype },
                    _ => wrong("a fraction, or a number out of range"),
                })?
            }
            b'"' => {
                let text = reader.string()?;
                non_finite(&text).and_then(T::from_float).ok_or_else(|| wrong("text"))?
            }
            b't' | b'f' => T::from_boolean(reader.boolean()?).ok_or_else(|| wrong("a boolean"))?,
            b'n' => {
                reader.null()?;
                return Err(wrong("null"));
            }
            b'{' => return Err(wrong("an object")),
            _ => return Err(reader.no_value()),
        };
        self.elements.push(element);
        Ok(())
    }
}

/// Writes row-major `elements` as lists nested by `shape`; without axes as one number.
pub fn write<T: Element>(elements: &[T], shape: &[usize], out: &mut Vec<u8>) {
    let Some((&length, inner)) = shape.split_first() else {
        elements[0].write(out);
        return;
    };
    out.push(b'[');
    if inner.is_empty() {
        for (index, element) in elements.iter().enumerate() {
            if index > 0 {
                out.push(b',');
            }
            element.write(out);
        }
    } else {
        let step = inner.iter().product::<usize>();
        for index in 0..length {
            if index > 0 {
                out.push(b',');
            }
            write(&elements[index * step..(index + 1) * step], inner, out);
        }
    }
    out.push(b']');
}

#[cfg(test)]
mod tests;
