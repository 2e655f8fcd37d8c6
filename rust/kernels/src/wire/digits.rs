//! Numbers as JSON: the shortest digits that read back to the same number in its own type.

use std::sync::OnceLock;

use half::{bf16, f16};

/// A type whose values can be written as JSON.
pub trait Digits: Copy {
    /// Zeros as list elements, each with its comma: results are often sparse, and copying is faster than writing.
    const ZEROS: &'static [u8];
    /// Bytes of one zero in [`Digits::ZEROS`].
    const ZERO_BYTES: usize;

    /// Whether this is the value that [`Digits::ZEROS`] is made of.
    fn is_zero(self) -> bool;

    /// Appends the value. Non-finite numbers are strings: `"NaN"`, `"Infinity"`, `"-Infinity"`.
    fn write(self, out: &mut Vec<u8>);
}

/// How many zeros are kept ready.
const ZEROS: usize = 64;
static FRACTIONS: [[u8; 4]; ZEROS] = [*b"0.0,"; ZEROS];
static INTEGERS: [[u8; 2]; ZEROS] = [*b"0,"; ZEROS];
static BOOLEANS: [[u8; 6]; ZEROS] = [*b"false,"; ZEROS];

/// Appends the elements of one list, with commas between them.
pub fn write_row<T: Digits>(elements: &[T], out: &mut Vec<u8>) {
    let mut rest = elements;
    while let Some((&first, others)) = rest.split_first() {
        if first.is_zero() {
            let run = rest.iter().take(ZEROS).take_while(|element| element.is_zero()).count();
            out.extend_from_slice(&T::ZEROS[..run * T::ZERO_BYTES]);
            rest = &rest[run..];
        } else {
            first.write(out);
            out.push(b',');
            rest = others;
        }
    }
    if !elements.is_empty() {
        out.pop();
    }
}

macro_rules! zeros {
    ($zeros:ident, $bytes:literal, |$value:ident| $is_zero:expr) => {
        const ZEROS: &'static [u8] = $zeros.as_flattened();
        const ZERO_BYTES: usize = $bytes;

        #[inline]
        fn is_zero(self) -> bool {
            let $value = self;
            $is_zero
        }
    };
}

macro_rules! float {
    ($($T:ty),*) => {$(
        impl Digits for $T {
            zeros!(FRACTIONS, 4, |value| value.to_bits() == 0);

            #[inline]
            fn write(self, out: &mut Vec<u8>) {
                if self.is_finite() {
                    out.extend_from_slice(zmij::Buffer::new().format_finite(self).as_bytes());
                } else {
                    write_non_finite(f64::from(self), out);
                }
            }
        }
    )*};
}
float!(f32, f64);

macro_rules! integer {
    ($($T:ty),*) => {$(
        impl Digits for $T {
            zeros!(INTEGERS, 2, |value| value == 0);

            #[inline]
            fn write(self, out: &mut Vec<u8>) {
                out.extend_from_slice(itoa::Buffer::new().format(self).as_bytes());
            }
        }
    )*};
}
integer!(u8, u16, u32, u64, i8, i16, i32, i64);

impl Digits for bool {
    zeros!(BOOLEANS, 6, |value| !value);

    fn write(self, out: &mut Vec<u8>) {
        out.extend_from_slice(if self { b"true" } else { b"false" });
    }
}

impl Digits for f16 {
    zeros!(FRACTIONS, 4, |value| value.to_bits() == 0);

    fn write(self, out: &mut Vec<u8>) {
        static TABLE: OnceLock<Table> = OnceLock::new();
        let table = TABLE
            .get_or_init(|| Table::new(|bits| f16::from_bits(bits).to_f64(), |value| f16::from_f64(value).to_bits()));
        table.write(self.to_bits(), out);
    }
}

impl Digits for bf16 {
    zeros!(FRACTIONS, 4, |value| value.to_bits() == 0);

    fn write(self, out: &mut Vec<u8>) {
        static TABLE: OnceLock<Table> = OnceLock::new();
        let table = TABLE
            .get_or_init(|| Table::new(|bits| bf16::from_bits(bits).to_f64(), |value| bf16::from_f64(value).to_bits()));
        table.write(self.to_bits(), out);
    }
}

fn write_non_finite(value: f64, out: &mut Vec<u8>) {
    out.extend_from_slice(match value {
        f64::INFINITY => b"\"Infinity\"".as_slice(),
        f64::NEG_INFINITY => b"\"-Infinity\"",
        _ => b"\"NaN\"",
    });
}

/// The digits of every number of a 16-bit type with a clear sign bit: half a megabyte, made when it is first needed.
struct Table {
    texts: Vec<u8>,
    ends: Vec<u32>,
}

impl Table {
    fn new(widen: impl Fn(u16) -> f64, narrow: impl Fn(f64) -> u16) -> Self {
        let mut table = Self { texts: Vec::new(), ends: Vec::with_capacity(1 << 15) };
        for bits in 0..1_u16 << 15 {
            let value = widen(bits);
            if value == 0.0 {
                table.texts.extend_from_slice(b"0.0");
            } else if value.is_finite() {
                let shortest = (0..8)
                    .map(|digits| format!("{value:.digits$e}"))
                    .find(|text| text.parse().is_ok_and(|read: f64| narrow(read) == bits));
                // Nine significant digits tell all float32 apart, so the search ends.
                let text = shortest.unwrap_or_else(|| format!("{value:.8e}"));
                let plain: f64 = text.parse().unwrap_or(value);
                table.texts.extend_from_slice(zmij::Buffer::new().format_finite(plain).as_bytes());
            } else {
                write_non_finite(value, &mut table.texts);
            }
            table.ends.push(table.texts.len() as u32);
        }
        table
    }

    fn write(&self, bits: u16, out: &mut Vec<u8>) {
        let index = usize::from(bits & 0x7fff);
        let start = if index == 0 { 0 } else { self.ends[index - 1] as usize };
        let text = &self.texts[start..self.ends[index] as usize];
        let is_negative = bits >> 15 == 1 && text != b"\"NaN\"";
        match (is_negative, text.first()) {
            (true, Some(b'"')) => write_non_finite(f64::NEG_INFINITY, out),
            (true, _) => {
                out.push(b'-');
                out.extend_from_slice(text);
            }
            (false, _) => out.extend_from_slice(text),
        }
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    fn text<T: Digits>(value: T) -> String {
        let mut out = Vec::new();
        value.write(&mut out);
        String::from_utf8(out).unwrap()
    }

    #[test]
    fn every_16_bit_number_reads_back() {
        for bits in 0..=u16::MAX {
            let (half, brain) = (f16::from_bits(bits), bf16::from_bits(bits));
            if half.is_finite() {
                assert_eq!(f16::from_f64(text(half).parse().unwrap()).to_bits(), bits, "{}", text(half));
            }
            if brain.is_finite() {
                assert_eq!(bf16::from_f64(text(brain).parse().unwrap()).to_bits(), bits, "{}", text(brain));
            }
        }
    }

    #[test]
    fn as_few_digits_as_the_type_needs() {
        assert_eq!(text(f16::from_f64(0.1)), "0.1");
        assert_eq!(text(bf16::from_f64(0.3)), "0.3");
        assert_eq!(text(0.1_f32), "0.1");
        assert_eq!(text(-0.0_f64), "-0.0");
        assert_eq!(text(f16::NEG_INFINITY), "\"-Infinity\"");
        assert_eq!(text(f32::NAN), "\"NaN\"");
        assert_eq!(text(f16::from_bits(0xfe00)), "\"NaN\"");
        assert_eq!(text(bf16::from_bits(0x8000)), "-0.0");
        assert_eq!(text(u64::MAX), "18446744073709551615");
    }
}
