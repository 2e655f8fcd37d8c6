//! Arrays of numbers, read and written.

use half::f16;
use proptest::prelude::*;

use super::read::PARALLEL_BYTES;
use super::*;
use crate::view::View;

fn parsed<T: Datatype>(text: &str) -> Result<(Vec<T>, Vec<usize>)> {
    let mut reader = Reader::new(text.as_bytes(), 100)?;
    let read = read::<T>(&mut reader, 1000)?;
    reader.finish()?;
    Ok(read)
}

#[test]
fn shapes() {
    assert_eq!(parsed::<f64>("[[1, 2], [3.5, -4e1]]"), Ok((vec![1.0, 2.0, 3.5, -40.0], vec![2, 2])));
    assert_eq!(parsed::<f32>("[]"), Ok((vec![], vec![0])));
    assert_eq!(parsed::<f32>("[[],[]]"), Ok((vec![], vec![2, 0])));
    assert_eq!(parsed::<bool>("[true,false]"), Ok((vec![true, false], vec![2])));
    assert_eq!(parsed::<i8>("[[[-128]],[[127]]]"), Ok((vec![-128, 127], vec![2, 1, 1])));
    assert_eq!(parsed::<u8>("[2.0, 1e2]"), Ok((vec![2, 100], vec![2])));
    for text in ["[-0]", "[-0                                                            ]"] {
        assert_eq!(parsed::<u8>(text), Ok((vec![0], vec![1])));
    }
}

#[test]
fn ragged() {
    for text in ["[[1],[2,3]]", "[1,[2]]", "[[1],2]", "[[],[1]]", "[[],[[]]]", "[[[1]],[2]]", "[[1],[]]", "[[[]],[]]"] {
        assert_eq!(parsed::<f64>(text), Err(Error::Ragged), "{text}");
    }
}

#[test]
fn elements_of_another_kind() {
    assert!(matches!(parsed::<f64>("[true]"), Err(Error::Element { given: "a boolean", .. })));
    assert!(matches!(parsed::<f64>("[null]"), Err(Error::Element { given: "null", .. })));
    assert!(matches!(parsed::<f64>("[\"1\"]"), Err(Error::Element { given: "text", .. })));
    assert!(matches!(parsed::<f64>("[{}]"), Err(Error::Element { given: "an object", .. })));
    assert!(matches!(parsed::<bool>("[1]"), Err(Error::Element { given: "a number", .. })));
    assert!(matches!(parsed::<i32>("[1.5]"), Err(Error::Element { .. })));
    assert!(matches!(parsed::<i32>("[\"NaN\"]"), Err(Error::Element { .. })));
    assert_eq!(parsed::<u8>("[256]"), Err(Error::Range { datatype: "UINT8" }));
    assert_eq!(parsed::<f32>("[1e39]"), Err(Error::Range { datatype: "FP32" }));
    assert_eq!(parsed::<f64>("[1e400]"), Err(Error::Range { datatype: "FP64" }));
    assert!(parsed::<f64>("[1e-400]").is_ok());
}

#[test]
fn limits() {
    let many = |count: usize, item: &str| format!("[{}]", vec![item; count].join(","));
    assert!(parsed::<u8>(&many(1000, "1")).is_ok());
    assert_eq!(parsed::<u8>(&many(1001, "1")), Err(Error::Elements { allowed: 1000 }));
    assert_eq!(parsed::<u8>(&many(1001, "[]")), Err(Error::Elements { allowed: 1000 }));
}

#[test]
fn given_shapes() {
    let shaped =
        |text: &str, shape: &[usize]| read_shaped::<f32>(&mut Reader::new(text.as_bytes(), 9).unwrap(), shape, 100);
    assert_eq!(shaped("[1,2,3,4]", &[2, 2]), Ok(vec![1.0, 2.0, 3.0, 4.0]));
    assert_eq!(shaped("[[1,2],[3,4]]", &[2, 2]), Ok(vec![1.0, 2.0, 3.0, 4.0]));
    assert_eq!(shaped("[[1,2],[3,4]]", &[4, 1]), Err(Error::Shape { given: vec![2, 2], needed: vec![4, 1] }));
    assert_eq!(shaped("[[1,2],[3,4]]", &[4]), Err(Error::Shape { given: vec![2, 2], needed: vec![4] }));
    assert_eq!(shaped("[[1,2],[3]]", &[3]), Err(Error::Ragged));
    assert_eq!(shaped("[1]", &[]), Ok(vec![1.0]));
    assert_eq!(shaped("[]", &[3, 0]), Ok(vec![]));
    assert_eq!(shaped("[1]", &[2]), Err(Error::Count { given: 1, needed: 2 }));
    assert_eq!(shaped("[]", &[101, 0]), Err(Error::Elements { allowed: 100 }));
    assert_eq!(shaped("[]", &[usize::MAX, 2]), Err(Error::Elements { allowed: 100 }));
    // No elements, and strides that nobody can count.
    let empty = read_shaped::<f64>(&mut Reader::new(b"[]", 9).unwrap(), &[0, 1 << 24, 1 << 24, 1 << 24], 1 << 24);
    assert_eq!(empty, Err(Error::Elements { allowed: 1 << 24 }));
}

/// 600 rows of 60 numbers, more than enough to be read on several threads, with `wrong` in place of one number.
fn long(separator: &str, wrong: Option<(usize, &str)>) -> (String, Vec<f64>) {
    let values: Vec<f64> = (0..36_000).map(|index| f64::from(index) / 7.0 - 1000.0).collect();
    let mut texts: Vec<String> = values.iter().map(f64::to_string).collect();
    if let Some((index, text)) = wrong {
        texts[index] = text.to_owned();
    }
    let rows: Vec<String> = texts.chunks(60).map(|row| format!("[{}]", row.join(separator))).collect();
    (format!("[{}]", rows.join(separator)), values)
}

fn read_long(text: &str) -> Result<(Vec<f64>, Vec<usize>)> {
    let mut reader = Reader::new(text.as_bytes(), 100)?;
    let read = read::<f64>(&mut reader, 36_000)?;
    reader.finish()?;
    Ok(read)
}

#[test]
fn long_rows_are_read_as_short_ones() {
    for separator in [",", ", ", " ,\n\t"] {
        let (text, values) = long(separator, None);
        assert!(text.len() > PARALLEL_BYTES);
        assert_eq!(read_long(&text), Ok((values.clone(), vec![600, 60])));
        let stacked = format!("[{text}{separator}{text}]");
        let mut reader = Reader::new(stacked.as_bytes(), 100).unwrap();
        let (read, shape) = read::<f64>(&mut reader, 72_000).unwrap();
        assert_eq!(shape, [2, 600, 60]);
        assert!(read[..36_000] == values && read[36_000..] == values);
    }
    for (text, value) in [("\"NaN\"", f64::NAN), ("\"-Infinity\"", f64::NEG_INFINITY), ("1e-300", 1e-300)] {
        let (read, _) = read_long(&long(", ", Some((20_000, text))).0).unwrap();
        assert!(read[20_000] == value || (read[20_000].is_nan() && value.is_nan()));
    }
}

#[test]
fn what_is_wrong_in_long_rows_is_what_is_wrong_in_short_ones() {
    for index in [100, 20_000, 35_999] {
        let wrong = |text| read_long(&long(", ", Some((index, text))).0);
        assert_eq!(
            wrong("1, 2"),
            Err(if index < 35_999 { Error::Ragged } else { Error::Elements { allowed: 36_000 } })
        );
        assert_eq!(wrong("[1]"), Err(Error::Ragged));
        assert_eq!(wrong("1e400"), Err(Error::Range { datatype: "FP64" }));
        assert!(matches!(wrong("01"), Err(Error::Syntax { .. })));
        assert!(matches!(wrong("\"]\""), Err(Error::Element { given: "text", .. })));
        assert!(matches!(wrong("true"), Err(Error::Element { given: "a boolean", .. })));
        assert!(matches!(wrong(""), Err(Error::Syntax { .. })));
        assert!(matches!(wrong("1], [2"), Err(Error::Ragged | Error::Elements { .. })));
    }
    let (text, _) = long(", ", None);
    for end in [text.len() - 1, text.len() - 2, text.len() / 2, text.rfind('[').unwrap()] {
        assert!(matches!(read_long(&text[..end]), Err(Error::Syntax { .. })));
    }
    let mut reader = Reader::new(text.as_bytes(), 100).unwrap();
    assert_eq!(read::<f64>(&mut reader, 35_999), Err(Error::Elements { allowed: 35_999 }));
}

fn round_trip<T: Datatype<Stored = T> + std::fmt::Debug>(values: &[T], shape: &[usize]) -> Vec<T> {
    let mut out = Vec::new();
    write::<T>(&View::from_slice("values", values, shape).unwrap(), &mut out).unwrap();
    let (read, found) = read::<T>(&mut Reader::new(&out, 10).unwrap(), usize::MAX).unwrap();
    assert_eq!(found, shape);
    read
}

proptest! {
    #[test]
    fn float64_round_trips(bits in proptest::collection::vec(any::<u64>(), 6)) {
        let values: Vec<f64> = bits.iter().map(|&bits| f64::from_bits(bits)).collect();
        for (read, value) in round_trip(&values, &[2, 3]).iter().zip(&values) {
            prop_assert!(read.to_bits() == value.to_bits() || (read.is_nan() && value.is_nan()));
        }
    }

    #[test]
    fn float32_round_trips(bits in proptest::collection::vec(any::<u32>(), 6)) {
        let values: Vec<f32> = bits.iter().map(|&bits| f32::from_bits(bits)).collect();
        for (read, value) in round_trip(&values, &[3, 1, 2]).iter().zip(&values) {
            prop_assert!(read.to_bits() == value.to_bits() || (read.is_nan() && value.is_nan()));
        }
    }

    #[test]
    fn float16_round_trips(bits in proptest::collection::vec(any::<u16>(), 6)) {
        let values: Vec<f16> = bits.iter().map(|&bits| f16::from_bits(bits)).collect();
        for (read, value) in round_trip(&values, &[6]).iter().zip(&values) {
            prop_assert!(read.to_bits() == value.to_bits() || (read.is_nan() && value.is_nan()));
        }
    }

    #[test]
    fn as_the_standard_library_reads(text in "-?(0|[1-9][0-9]{0,25})(\\.[0-9]{1,25})?([eE][+-]?[0-9]{1,3})?") {
        let expected: f64 = text.parse().unwrap();
        match parsed::<f64>(&format!("[{text}]")) {
            Ok((read, _)) => prop_assert_eq!(read[0].to_bits(), expected.to_bits()),
            Err(error) => {
                prop_assert_eq!(error, Error::Range { datatype: "FP64" });
                prop_assert!(expected.is_infinite());
            }
        }
    }

    #[test]
    fn integers_round_trip(values in proptest::collection::vec(any::<i64>(), 4)) {
        prop_assert_eq!(round_trip(&values, &[2, 2]), values);
    }
}
