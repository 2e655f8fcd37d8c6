//! The writer: any bytes as elements of every datatype, with any strides, are JSON and read back to the last bit.

#![no_main]

use libfuzzer_sys::fuzz_target;
use serde_json::Value;
use zerocost_fuzz::{Checked, with_datatype};
use zerocost_kernels::json::{self, Reader};
use zerocost_kernels::view::{Layout, View};

fuzz_target!(|data: &[u8]| {
    let [datatype, rows, columns, row_step, column_step, rest @ ..] = data else { return };
    let shape = [usize::from(rows % 16), usize::from(*columns)];
    let steps = [*row_step as i8 as isize, *column_step as i8 as isize];
    with_datatype!(datatype, T => array::<T>(rest, &shape, &steps));
});

fn array<T: Checked>(bytes: &[u8], shape: &[usize], steps: &[isize]) {
    let elements: Vec<T::Stored> = bytes.chunks(size_of::<T::Stored>()).map(T::stored).collect();
    let flat = text::<T>(&View::from_slice("elements", &elements, &[elements.len()]).unwrap());
    assert_eq!(serde_json::from_slice::<Value>(&flat).unwrap().as_array().unwrap().len(), elements.len());
    let mut reader = Reader::new(&flat, 1).unwrap();
    let (read, _) = json::read::<T>(&mut reader, elements.len()).unwrap();
    reader.finish().unwrap();
    assert!(read.iter().zip(&elements).all(|(&read, &stored)| read.same(T::from_stored(stored))));

    // Rows and columns with steps between them, as far as there are elements.
    let layout = Layout::new("elements", shape, steps, size_of::<T::Stored>()).unwrap();
    let (low, high) = if layout.is_empty() { (0, 0) } else { layout.bounds() };
    if (high - low) as usize >= elements.len() {
        return;
    }
    // SAFETY: from the lowest to the highest offset there are no more elements than there are.
    let view = unsafe { View::from_raw(elements.as_ptr().offset(-low), layout) };
    let at =
        |row: usize, column: usize| elements[(row as isize * steps[0] + column as isize * steps[1] - low) as usize];
    let gathered: Vec<T::Stored> = (0..shape[0])
        .flat_map(|row| (0..shape[1]).map(move |column| (row, column)))
        .map(|(row, column)| at(row, column))
        .collect();
    assert_eq!(text::<T>(&view), text::<T>(&View::from_slice("gathered", &gathered, shape).unwrap()));
}

fn text<T: Checked>(view: &View<'_, T::Stored>) -> Vec<u8> {
    let mut out = Vec::new();
    json::write::<T>(view, &mut out).unwrap();
    out
}
