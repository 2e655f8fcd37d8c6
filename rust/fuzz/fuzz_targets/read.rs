//! The reader: values, spans and arrays of every datatype, under limits, against serde_json and naive readers.

#![no_main]

use std::collections::HashSet;

use libfuzzer_sys::fuzz_target;
use serde_json::{Map, Value};
use zerocost_fuzz::{Checked, naive_array, with_datatype};
use zerocost_kernels::json::{self, Error, Reader};
use zerocost_kernels::view::View;

fuzz_target!(|data: &[u8]| {
    let [what, max_depth, max_elements, text @ ..] = data else { return };
    let (max_depth, max_elements) = (usize::from(*max_depth), usize::from(*max_elements));
    match what % 16 {
        0 | 1 => values(text, max_depth),
        2 => spans(text, max_depth),
        datatype => with_datatype!(datatype - 3, T => array::<T>(text, max_depth, max_elements)),
    }
});

/// What is read is what serde_json reads; what is refused, serde_json refuses, but for what is stricter here.
fn values(text: &[u8], max_depth: usize) {
    let theirs = serde_json::from_slice::<Value>(text);
    let read = Reader::new(text, max_depth).and_then(|mut reader| {
        let value = value(&mut reader)?;
        reader.finish()?;
        Ok(value)
    });
    let skipped = Reader::new(text, max_depth).and_then(|mut reader| {
        let span = reader.skip()?;
        reader.finish()?;
        Ok(span)
    });
    match (&read, &theirs) {
        (Ok(ours), Ok(theirs)) => assert_eq!(ours, theirs),
        // serde_json goes no deeper than 127.
        (Ok(_), Err(error)) => assert!(max_depth > 127 && error.to_string().contains("recursion"), "{error}"),
        (Err(Error::Duplicate { .. } | Error::Depth { .. }), Ok(_)) => {}
        (Err(error), Ok(_)) => panic!("serde_json reads it: {error}"),
        (Err(_), Err(_)) => {}
    }
    // To skip is to read without the numbers' range and without names that are there twice.
    match (&read, &skipped) {
        (Ok(_), Ok((start, end))) => assert!(start < end && *end <= text.len()),
        (Err(Error::Duplicate { .. } | Error::Range { .. }), Ok(_)) => {}
        (Err(_), Err(_)) => {}
        (read, skipped) => panic!("{read:?}, {skipped:?}"),
    }
}

fn value(reader: &mut Reader<'_>) -> json::Result<Value> {
    Ok(match reader.peek()? {
        b'[' => {
            let mut items = Vec::new();
            reader.array(|reader| Ok::<_, Error>(items.push(value(reader)?)))?;
            Value::Array(items)
        }
        b'{' => {
            let mut members = Map::new();
            reader.object(|reader, name| {
                if members.contains_key(&*name) {
                    return Err(reader.duplicate(&name));
                }
                let member = value(reader)?;
                members.insert(name.into_owned(), member);
                Ok(())
            })?;
            Value::Object(members)
        }
        b'"' => Value::String(reader.string()?.into_owned()),
        b't' | b'f' => Value::Bool(reader.boolean()?),
        b'n' => reader.null().map(|()| Value::Null)?,
        _ => {
            let number = reader.number()?;
            let double = number.double();
            if !double.is_finite() {
                return Err(Error::Range { datatype: "FP64" });
            }
            assert_eq!(double.to_bits(), number.text.parse::<f64>().unwrap().to_bits());
            if number.text == "-0" {
                return Ok(Value::from(-0.0)); // to serde_json it is no integer
            }
            let whole =
                || number.text.parse::<u64>().map(Value::from).or_else(|_| number.text.parse::<i64>().map(Value::from));
            Some(whole)
                .filter(|_| number.is_integer)
                .and_then(|whole| whole().ok())
                .unwrap_or_else(|| Value::from(double))
        }
    })
}

/// Every span is a value of its own, and they follow each other.
fn spans(text: &[u8], max_depth: usize) {
    let Ok(mut reader) = Reader::new(text, max_depth) else { return };
    let mut spans = Vec::new();
    let mut names = HashSet::new();
    let is_read = match reader.peek() {
        Ok(b'{') => reader.object(|reader, name| {
            names.insert(name.into_owned());
            reader.skip().map(|span| spans.push(span))
        }),
        Ok(b'[') => reader.array(|reader| reader.skip().map(|span| spans.push(span))),
        _ => reader.skip().map(|span| spans.push(span)),
    };
    let is_read = is_read.and_then(|()| reader.finish()).is_ok();
    assert!(spans.is_sorted_by(|before, after| before.1 < after.0));
    for &span in &spans {
        let mut at = reader.at(span);
        assert_eq!(at.skip(), Ok(span));
        assert_eq!(at.finish(), Ok(()));
    }
    assert!(!is_read || Reader::new(text, max_depth).unwrap().skip().is_ok());
}

/// The quick way reads what the naive one reads, and what is written again is read as the same.
fn array<T: Checked>(text: &[u8], max_depth: usize, max_elements: usize) {
    let Ok(mut reader) = Reader::new(text, max_depth) else { return };
    let read = json::read::<T>(&mut reader, max_elements);
    let mut naive_reader = Reader::new(text, max_depth).unwrap();
    let naive = naive_array::<T>(&mut naive_reader, max_elements);
    let Ok((elements, shape)) = read else { return assert!(naive.is_none(), "{read:?}, {naive:?}") };
    let (expected, expected_shape) = naive.expect("what is read");
    assert_eq!(shape, expected_shape);
    assert_eq!(elements.len(), expected.len());
    assert!(elements.iter().zip(&expected).all(|(&read, &expected)| read.same(expected)), "{elements:?}, {expected:?}");
    assert_eq!(reader.remaining(), naive_reader.remaining());
    assert_eq!(elements.len(), shape.iter().product::<usize>());

    let mut at = Reader::new(text, max_depth).unwrap();
    assert_eq!(json::read_shaped::<T>(&mut at, &shape, usize::MAX).map(|read| read.len()), Ok(elements.len()));
    let mut at = Reader::new(text, max_depth).unwrap();
    assert!(json::read_shaped::<T>(&mut at, &[elements.len() + 1], usize::MAX).is_err());

    let stored: Vec<T::Stored> = elements.iter().map(|&element| T::to_stored(element)).collect();
    let mut out = Vec::new();
    json::write::<T>(&View::from_slice("elements", &stored, &shape).unwrap(), &mut out).unwrap();
    let (again, same_shape) = json::read::<T>(&mut Reader::new(&out, max_depth).unwrap(), max_elements).unwrap();
    assert_eq!(same_shape, shape);
    assert!(elements.iter().zip(&again).all(|(&read, &again)| read.same(again)));
}
