//! Vectors that grow, or say that they cannot: the standard library's own ways end the process.

use super::error::{Error, Result};

/// Makes room for `additional` more items; if there is too little, for twice as many as there was for, so that a vector
/// that grows step by step is not moved at every step.
#[inline]
pub fn reserve<T>(items: &mut Vec<T>, additional: usize) -> Result<()> {
    items.try_reserve(additional).map_err(|_| refused::<T>(items.len(), additional))
}

/// Appends `text`.
#[inline]
pub fn append(out: &mut Vec<u8>, text: &[u8]) -> Result<()> {
    reserve(out, text.len())?;
    out.extend_from_slice(text);
    Ok(())
}

#[cold]
fn refused<T>(length: usize, additional: usize) -> Error {
    Error::OutOfMemory { bytes: length.saturating_add(additional).saturating_mul(size_of::<T>()) }
}
