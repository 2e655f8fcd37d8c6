//! Nested lists of numbers, straight into one vector.

use super::datatype::{Datatype, non_finite};
use super::decimal::scan;
use super::error::{Error, Result};
use super::grow::reserve;
use super::reader::Reader;
use crate::buffer::made;
use crate::parallel;

/// The most axes that an array can have.
pub const MAX_AXES: usize = 32;

/// Reads nested lists of one length per level. Returns the elements in row-major order, and the shape.
///
/// Refuses ragged lists, elements of another kind, more than `max_elements`, and more than [`MAX_AXES`] axes.
pub fn read<T: Datatype>(reader: &mut Reader<'_>, max_elements: usize) -> Result<(Vec<T>, Vec<usize>)> {
    let mut lists = Lists { elements: Vec::new(), shape: Vec::new(), rank: None, max_elements };
    lists.level(reader, 0)?;
    Ok((lists.elements, lists.shape))
}

/// Reads flat or nested lists that must fill `shape`.
pub fn read_shaped<T: Datatype>(reader: &mut Reader<'_>, shape: &[usize], max_elements: usize) -> Result<Vec<T>> {
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
        return Err(Error::Shape { given: found, needed: shape.to_vec() });
    }
    Ok(elements)
}

/// Bytes of rows from which on they are read on several threads.
pub(super) const PARALLEL_BYTES: usize = 256 << 10;
/// Bytes of rows that one thread takes at a time.
const CHUNK_BYTES: usize = 64 << 10;

struct Lists<T> {
    elements: Vec<T>,
    shape: Vec<usize>,
    rank: Option<usize>,
    max_elements: usize,
}

impl<T: Datatype> Lists<T> {
    fn level(&mut self, reader: &mut Reader<'_>, axis: usize) -> Result<()> {
        if axis == MAX_AXES {
            reader.skip()?; // what is not JSON, or too deep for any value, is refused as such
            return Err(Error::Axes { allowed: MAX_AXES });
        }
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
                length += self.elements(reader)?;
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
                let guess = guess.min(self.max_elements).min(reader.remaining() / 2);
                let _ = self.elements.try_reserve_exact(guess); // what is needed is asked for where it is
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
        let (text, position) = reader.place();
        let Some(chunks) = rows(text, position, CHUNK_BYTES) else { return 0 };
        let bytes = chunks.iter().map(|chunk| chunk.1 - chunk.0).sum::<usize>();
        if bytes < PARALLEL_BYTES {
            return 0;
        }
        let Ok(mut read) = made::<Option<Vec<T>>>(chunks.len(), |_| Ok(None)) else { return 0 };
        let (from, max_elements) = (&*reader, self.max_elements);
        parallel::for_each_mut(&mut read, true, |index, read| {
            let mut rows = Lists { elements: Vec::new(), shape: Vec::new(), rank: None, max_elements };
            if rows.rows(&mut from.at(chunks[index]), length).is_ok() {
                *read = Some(rows.elements);
            }
        });
        if read.iter().any(Option::is_none) {
            return 0;
        }
        let read = || read.iter().flatten();
        let count = read().map(Vec::len).sum::<usize>();
        let room = self.max_elements - self.elements.len();
        if count > room || self.elements.try_reserve_exact(count).is_err() {
            return 0;
        }
        read().for_each(|elements: &Vec<T>| self.elements.extend_from_slice(elements));
        reader.take(|_, start| chunks.last().map_or(start, |chunk| chunk.1));
        count / length
    }

    /// Reads rows of one length, with commas between them, to the end of the text.
    fn rows(&mut self, reader: &mut Reader<'_>, length: usize) -> Result<()> {
        let _ = self.elements.try_reserve_exact(reader.remaining() / 8); // as in `level`
        loop {
            let before = self.elements.len();
            reader.array(|reader| self.elements(reader).map(drop))?;
            if self.elements.len() - before != length {
                return Err(Error::Ragged);
            }
            if reader.remaining() == 0 {
                return Ok(());
            }
            reader.comma()?;
        }
    }

    /// Reads one element or more, and returns how many.
    fn elements(&mut self, reader: &mut Reader<'_>) -> Result<usize> {
        let before = self.elements.len();
        if before == self.max_elements {
            return Err(Error::Elements { allowed: self.max_elements });
        }
        reserve(&mut self.elements, 1)?;
        let room = self.elements.capacity().min(self.max_elements) - before;
        reader.take(|text, start| read_usual(text, start, room, &mut self.elements));
        if self.elements.len() == before {
            let element = element(reader)?;
            self.elements.push(element);
        }
        Ok(self.elements.len() - before)
    }
}

fn element<T: Datatype>(reader: &mut Reader<'_>) -> Result<T> {
    let wrong = |given| Error::Element { given, needed: T::NEEDED };
    Ok(match reader.peek()? {
        b'-' | b'0'..=b'9' => {
            let number = reader.number()?;
            T::from_number(number).ok_or_else(|| match (T::NAME, number.is_integer) {
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
    })
}

/// The arrays behind the one that was just read, if there are any in the same array: spans of whole ones with their
/// commas, of at least `bytes` each but the last. Nothing inside them is checked.
fn rows(text: &[u8], position: usize, bytes: usize) -> Option<Vec<(usize, usize)>> {
    // Where the array behind a comma begins, None where something else follows.
    let next = |at: usize| {
        let (_, comma) = after_space(text, at).filter(|&(byte, _)| byte == b',')?;
        after_space(text, comma + 1).filter(|&(byte, _)| byte == b'[').map(|(_, start)| start)
    };
    let mut spans: Vec<(usize, usize)> = Vec::new();
    let mut start = next(position)?;
    let mut at = start;
    loop {
        let end = at + memchr::memchr(b']', &text[at..])? + 1;
        let following = next(end);
        if following.is_none() || end - start >= bytes {
            spans.try_reserve(1).ok()?;
            spans.push((start, end));
        }
        match following {
            Some(following) if end - start >= bytes => (start, at) = (following, following),
            Some(following) => at = following,
            None => return Some(spans),
        }
    }
}

/// The first byte from `at` that is no white space, and where it is.
fn after_space(text: &[u8], at: usize) -> Option<(u8, usize)> {
    let space = text.get(at..)?.iter().take_while(|byte| matches!(byte, b' ' | b'\n' | b'\r' | b'\t')).count();
    text.get(at + space).map(|&byte| (byte, at + space))
}

/// Reads numbers of the usual lengths for as long as one comes after the other, `room` at most.
/// Returns where the last one ends.
#[inline(never)] // its loop needs every register
fn read_usual<T: Datatype>(text: &[u8], start: usize, room: usize, elements: &mut Vec<T>) -> usize {
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
