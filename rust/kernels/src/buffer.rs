//! Scratch memory that begins on a cache line: a vector load that crosses one costs twice.

use std::marker::PhantomData;
use std::ops::{Deref, DerefMut};

use crate::arch::Real;

#[derive(Debug, Clone, Copy)]
#[repr(C, align(64))]
struct Line([u8; 64]);

/// Floats, aligned to 64 bytes, zero at first.
#[derive(Debug)]
pub(crate) struct Buffer<R> {
    lines: Vec<Line>,
    len: usize,
    elements: PhantomData<R>,
}

impl<R: Real> Buffer<R> {
    pub(crate) fn zeroed(len: usize) -> Self {
        let lines = (len * size_of::<R>()).div_ceil(size_of::<Line>());
        Self { lines: vec![Line([0; 64]); lines], len, elements: PhantomData }
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
