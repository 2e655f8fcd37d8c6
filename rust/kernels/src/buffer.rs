//! Scratch memory: asked for fallibly, since it grows with the input, and before any work is done.

use std::marker::PhantomData;
use std::ops::{Deref, DerefMut};

use crate::arch::Real;
use crate::{Error, Result};

#[derive(Debug, Clone, Copy)]
#[repr(C, align(64))]
struct Line([u8; 64]);

/// Floats, aligned to 64 bytes (a vector load that crosses a cache line costs twice), zero at first.
#[derive(Debug)]
pub(crate) struct Buffer<R> {
    lines: Vec<Line>,
    len: usize,
    elements: PhantomData<R>,
}

impl<R: Real> Buffer<R> {
    pub(crate) fn zeroed(len: usize) -> Result<Self> {
        let bytes = len.checked_mul(size_of::<R>()).ok_or(Error::Memory { bytes: usize::MAX })?;
        let lines = filled(Line([0; 64]), bytes.div_ceil(size_of::<Line>()))?;
        Ok(Self { lines, len, elements: PhantomData })
    }
}

impl<R: Real> Deref for Buffer<R> {
    type Target = [R];

    #[inline(always)]
    fn deref(&self) -> &[R] {
        // SAFETY: `zeroed` made at least len elements' bytes, initialised and aligned to 64; R is f32 or f64, for which
        // every bit pattern is a value.
        unsafe { std::slice::from_raw_parts(self.lines.as_ptr().cast(), self.len) }
    }
}

impl<R: Real> DerefMut for Buffer<R> {
    #[inline(always)]
    fn deref_mut(&mut self) -> &mut [R] {
        // SAFETY: as in `deref`, and self is borrowed mutably.
        unsafe { std::slice::from_raw_parts_mut(self.lines.as_mut_ptr().cast(), self.len) }
    }
}

/// An empty vector with room for `len` elements.
pub fn reserved<T>(len: usize) -> Result<Vec<T>> {
    let mut vector = Vec::new();
    let error = |_| Error::Memory { bytes: len.saturating_mul(size_of::<T>()) };
    vector.try_reserve_exact(len).map_err(error)?;
    Ok(vector)
}

/// Appends an item.
#[inline]
pub fn push<T>(to: &mut Vec<T>, item: T) -> Result<()> {
    let bytes = (to.len() + 1).saturating_mul(size_of::<T>());
    to.try_reserve(1).map_err(|_| Error::Memory { bytes })?;
    to.push(item);
    Ok(())
}

/// `len` times the value.
pub(crate) fn filled<T: Clone>(value: T, len: usize) -> Result<Vec<T>> {
    let mut vector = reserved(len)?;
    vector.resize(len, value);
    Ok(vector)
}

/// `len` values that `make` gives, or its error.
pub(crate) fn made<T>(len: usize, mut make: impl FnMut(usize) -> Result<T>) -> Result<Vec<T>> {
    let mut vector = reserved(len)?;
    for index in 0..len {
        vector.push(make(index)?);
    }
    Ok(vector)
}

/// What an iterator gives, which is gone through twice: to count it, and to keep it.
pub(crate) fn collected<I: Iterator + Clone>(items: I) -> Result<Vec<I::Item>> {
    let mut collected = reserved(items.clone().count())?;
    collected.extend(items);
    Ok(collected)
}

/// Adds what an iterator gives.
pub(crate) fn append<T>(to: &mut Vec<T>, items: impl ExactSizeIterator<Item = T>) -> Result<()> {
    let bytes = items.len().saturating_mul(size_of::<T>());
    to.try_reserve_exact(items.len()).map_err(|_| Error::Memory { bytes })?;
    to.extend(items);
    Ok(())
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn memory_that_cannot_be_had_is_an_error_that_says_how_much() {
        assert_eq!(reserved::<u32>(1 << 60).unwrap_err(), Error::Memory { bytes: 1 << 62 });
        assert_eq!(filled(0u8, 1 << 62).unwrap_err(), Error::Memory { bytes: 1 << 62 });
        assert_eq!(Buffer::<f64>::zeroed(usize::MAX).unwrap_err(), Error::Memory { bytes: usize::MAX });
        assert!(Error::Memory { bytes: 1 << 62 }.to_string().contains("4611686018427387904 bytes"));
    }
}
