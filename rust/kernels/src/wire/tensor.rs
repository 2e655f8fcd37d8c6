//! Arrays of numbers: from nested JSON lists straight into one vector, and back.

use std::sync::OnceLock;

use half::{bf16, f16};

use crate::parallel;

use super::decimal::{Decimal, nearest, scan};
use super::digits::{Digits, write_row};
use super::json::{Error, Number, Reader, Result};

/// An element type of a tensor.
pub trait Element: Copy + Default + Send + Sync + Digits + 'static {
    /// The name of the datatype in the Open Inference Protocol.
    const DATATYPE: &'static str;
    /// What the elements are, for errors.
    const NEEDED: &'static str;

    /// The number, correctly rounded; None if the type cannot hold it.
    fn from_number(number: Number<'_>) -> Option<Self>;

    /// As [`Element::from_number`] for numbers of the usual lengths; None where that must decide.
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

macro_rules! float {
    ($($T:ty, $name:literal, |$number:ident| $read:expr, |$decimal:ident| $quick:expr, |$value:ident| $convert:expr;)*) => {$(
        impl Element for $T {
            const DATATYPE: &'static str = $name;
            const NEEDED: &'static str = "a number, \"NaN\", \"Infinity\" or \"-Infinity\"";

            #[inline]
            fn from_number($number: Number<'_>) -> Option<Self> {
                let value: $T = $read;
                value.is_finite().then_some(value)
            }

            #[inline]
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
    f64, "FP64", |number| double(number), |decimal| nearest(decimal), |value| value;
    f32, "FP32", |number| fast_float2::parse(number.text).unwrap_or(f32::INFINITY), |decimal| nearest(decimal),
        |value| value as f32;
    f16, "FP16", |number| f16::from_f64(double(number)),
        |decimal| nearest(decimal).map(f16::from_f64).filter(|half| half.is_finite()), |value| f16::from_f64(value);
    bf16, "BF16", |number| bf16::from_f64(double(number)),
        |decimal| nearest(decimal).map(bf16::from_f64).filter(|brain| brain.is_finite()), |value| bf16::from_f64(value);
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

            #[inline]
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
    // An axis of 0 hides nothing: an array has strides where it has no elements, and written out it is that many lists.
    let span = shape.iter().try_fold(1_usize, |product, &length| product.checked_mul(length.max(1)));
    let needed = span
        .filter(|&span| span <= max_elements && span <= isize::MAX as usize / size_of::<T>())
        .map(|_| shape.iter().product::<usize>())
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

/// Bytes of rows from which on they are read on several threads.
const PARALLEL_BYTES: usize = 256 << 10;
/// Bytes of rows that one thread takes at a time.
const CHUNK_BYTES: usize = 64 << 10;

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
                if length == 0 && self.rank == Some(axis + 2) {
                    length += self.more_rows(reader, self.shape[axis + 1]);
                }
            } else {
                if *self.rank.get_or_insert(axis + 1) != axis + 1 {
                    return Err(Error::Ragged);
                }
                let before = self.elements.len();
                self.elements(reader);
                if self.elements.len() == before {
                    self.element(reader)?;
                }
                length += self.elements.len() - before;
                return Ok(());
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

    /// Reads the rows behind the first one on several threads, where they are long together. Returns how many it read.
    ///
    /// It reads all of them or, where anything is not as it should be, none: then what is wrong is found one by one.
    fn more_rows(&mut self, reader: &mut Reader<'_>, length: usize) -> usize {
        if length == 0 || reader.remaining() < PARALLEL_BYTES || parallel::num_threads() == 1 {
            return 0;
        }
        let Some(chunks) = reader.rows(CHUNK_BYTES) else { return 0 };
        let bytes = chunks.iter().map(|chunk| chunk.1 - chunk.0).sum::<usize>();
        if bytes < PARALLEL_BYTES {
            return 0;
        }
        let read: Vec<OnceLock<Vec<T>>> = chunks.iter().map(|_| OnceLock::new()).collect();
        let (from, max_elements) = (&*reader, self.max_elements);
        parallel::for_each(chunks.len(), true, |index| {
            let mut rows = Lists { elements: Vec::new(), shape: Vec::new(), rank: None, max_elements };
            if rows.rows(&mut from.at(chunks[index]), length).is_ok() {
                let _ = read[index].set(rows.elements); // set once: every index comes once
            }
        });
        let read: Option<Vec<Vec<T>>> = read.into_iter().map(OnceLock::into_inner).collect();
        let Some(read) = read else { return 0 };
        let count = read.iter().map(Vec::len).sum::<usize>();
        if count > self.max_elements - self.elements.len() {
            return 0;
        }
        self.elements.reserve_exact(count);
        read.iter().for_each(|elements| self.elements.extend_from_slice(elements));
        reader.take(|_, start| chunks.last().map_or(start, |chunk| chunk.1));
        count / length
    }

    /// Reads rows of one length, with commas between them, to the end of the text.
    fn rows(&mut self, reader: &mut Reader<'_>, length: usize) -> Result<()> {
        self.elements.reserve_exact(reader.remaining() / 8);
        loop {
            let before = self.elements.len();
            reader.array(|reader| {
                let known = self.elements.len();
                self.elements(reader);
                if self.elements.len() == known { self.element(reader) } else { Ok(()) }
            })?;
            if self.elements.len() - before != length {
                return Err(Error::Ragged);
            }
            if reader.remaining() == 0 {
                return Ok(());
            }
            reader.comma()?;
        }
    }

    fn elements(&mut self, reader: &mut Reader<'_>) {
        let room = self.max_elements - self.elements.len();
        reader.take(|text, start| read_usual(text, start, room, &mut self.elements));
    }

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

/// Reads numbers of the usual lengths for as long as one comes after the other, `room` at most.
/// Returns where the last one ends.
#[inline(never)] // its loop needs every register
fn read_usual<T: Element>(text: &[u8], start: usize, room: usize, elements: &mut Vec<T>) -> usize {
    let (mut end, mut next) = (start, start);
    for _ in 0..room {
        let Some((decimal, after)) = scan(text, next) else { break };
        let Some(element) = T::from_decimal(decimal) else { break };
        elements.push(element);
        end = after;
        if text.get(end) != Some(&b',') {
            break;
        }
        next = end + 1;
        while matches!(text.get(next), Some(b' ' | b'\n' | b'\r' | b'\t')) {
            next += 1;
        }
    }
    end
}

/// Writes row-major `elements` as lists nested by `shape`; without axes as one number.
pub fn write<T: Element>(elements: &[T], shape: &[usize], out: &mut Vec<u8>) {
    let Some((&length, inner)) = shape.split_first() else {
        elements[0].write(out);
        return;
    };
    out.push(b'[');
    if inner.is_empty() {
        write_row(elements, out);
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
