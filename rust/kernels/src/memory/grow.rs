//! Memory that grows with the number of entries: had before anything changes, or an error.

use hashbrown::{HashTable, TryReserveError};

use crate::{Error, Result};

/// Room for `more` elements in a vector.
#[inline]
pub(super) fn vector<T>(vector: &mut Vec<T>, more: usize) -> Result<()> {
    // It at least doubles.
    let bytes = (vector.len() + more).max(2 * vector.capacity()).saturating_mul(size_of::<T>());
    vector.try_reserve(more).map_err(|_| Error::Memory { bytes })
}

/// A value for each of so many slots, `blank` where there was none.
pub(super) fn column<T: Clone>(values: &mut Vec<T>, slots: usize, blank: T) -> Result<()> {
    if values.len() < slots {
        vector(values, slots - values.len())?;
        values.resize(slots, blank);
    }
    Ok(())
}

/// Room for one more element in a table.
#[inline]
pub(super) fn table<T>(table: &mut HashTable<T>, hash: impl Fn(&T) -> u64) -> Result<()> {
    table.try_reserve(1, hash).map_err(|error| match error {
        TryReserveError::AllocError { layout } => Error::Memory { bytes: layout.size() },
        TryReserveError::CapacityOverflow => Error::Memory { bytes: usize::MAX },
    })
}
