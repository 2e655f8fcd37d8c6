//! Arrays so long that several threads read them: the same as one thread reads, errors included.

#![no_main]

use std::fmt::Debug;

use libfuzzer_sys::fuzz_target;
use zerocost_fuzz::{Checked, with_datatype};
use zerocost_kernels::json::{self, Reader};
use zerocost_kernels::parallel;

/// A little more than what is read on several threads.
const BYTES: usize = 300 << 10;

fuzz_target!(|data: &[u8]| {
    let [datatype, place, rest @ ..] = data else { return };
    let mut parts = rest.split(|&byte| byte == b'|');
    let (row, separator, other) =
        (parts.next().unwrap_or(b""), parts.next().unwrap_or(b""), parts.next().unwrap_or(b""));
    // Many copies of one row, another one somewhere among them, and something between them.
    let count = BYTES / (row.len() + separator.len() + 3) + 1;
    let place = usize::from(*place) * count / 256;
    let mut text = b"[".to_vec();
    for index in 0..count {
        if index > 0 {
            text.push(b',');
            text.extend_from_slice(separator);
        }
        text.push(b'[');
        text.extend_from_slice(if index == place { other } else { row });
        text.push(b']');
    }
    text.push(b']');
    with_datatype!(datatype, T => compare::<T>(&text));
});

fn compare<T: Checked>(text: &[u8]) {
    let read = |threads| {
        parallel::set_num_threads(threads).unwrap();
        let mut reader = Reader::new(text, 100)?;
        json::read::<T>(&mut reader, BYTES)
    };
    match (read(1), read(2)) {
        (Ok((one, shape)), Ok((two, same_shape))) => {
            assert_eq!(shape, same_shape);
            assert_eq!(one.len(), two.len());
            assert!(one.iter().zip(&two).all(|(&one, &two)| one.same(two)));
        }
        (one, two) => assert_eq!(error(one), error(two)),
    }
}

fn error<T: Debug>(read: json::Result<T>) -> Option<json::Error> {
    read.err()
}
