//! The floats that are searched.

use std::marker::PhantomData;

use crate::arch::{Lanes, Real};

/// The floats of one row, next to each other. They may be a caller's memory, which another thread of the caller's may
/// write to meanwhile: nothing that is found out about them is taken to be true at a second look.
#[derive(Debug, Clone, Copy)]
pub(crate) struct Floats<'a, R> {
    first: *const R,
    len: usize,
    memory: PhantomData<&'a R>,
}

impl<'a, R: Real> Floats<'a, R> {
    /// # Safety
    /// `len` floats at `first` may be read during `'a`.
    #[inline(always)]
    pub(crate) unsafe fn new(first: *const R, len: usize) -> Self {
        Self { first, len, memory: PhantomData }
    }

    /// How many there are.
    #[inline(always)]
    pub(crate) fn len(&self) -> usize {
        self.len
    }

    /// Where the first one is.
    #[inline(always)]
    pub(crate) fn as_ptr(&self) -> *const R {
        self.first
    }

    /// A vector from `index` on, or what is left of the row; the other lanes are 0.
    #[inline(always)]
    pub(crate) fn vector<L: Lanes<Scalar = R>>(&self, lanes: L, index: usize) -> L::V {
        assert!(index <= self.len);
        // SAFETY: at most as many floats are read as there are behind `index`.
        unsafe { lanes.load_first(self.first.add(index), (self.len - index).min(L::N)) }
    }
}

impl<'a, R: Real> From<&'a [R]> for Floats<'a, R> {
    #[inline(always)]
    fn from(floats: &'a [R]) -> Self {
        // SAFETY: they are borrowed during 'a.
        unsafe { Self::new(floats.as_ptr(), floats.len()) }
    }
}
