//! The allowed entries of one row: where they are read and where their results are written.

use std::marker::PhantomData;

use crate::arch::{Cpu, Element, Lanes, Real};
use crate::attention::top_k::Floats;

/// Entries that are next to each other. What is read may be a caller's memory, which another thread of the caller's may
/// write to meanwhile: no place that is read or written follows from an entry.
#[derive(Debug, Clone, Copy)]
pub(super) struct Entries<'a, T> {
    pub(super) from: *const T,
    pub(super) to: *mut T,
    pub(super) len: usize,
    memory: PhantomData<&'a T>,
}

/// Lanes of a vector of the type that entries are computed in.
#[inline(always)]
pub(super) const fn lanes<C: Cpu, T: Element>() -> usize {
    <<T::Real as Real>::Lanes<C> as Lanes>::N
}

impl<'a, T: Element> Entries<'a, T> {
    /// # Safety
    /// During `'a`, `len` entries at `from` may be read and `len` at `to` written, by nobody else; they are the same or do
    /// not overlap.
    #[inline(always)]
    pub(super) unsafe fn new(from: *const T, to: *mut T, len: usize) -> Self {
        Self { from, to, len, memory: PhantomData }
    }

    /// The entries in the type that they are computed in: themselves, or converted into `buffer`.
    #[inline(always)]
    pub(super) fn widen<C: Cpu>(&self, cpu: C, buffer: &'a mut Vec<T::Real>) -> Floats<'a, T::Real> {
        if T::IS_REAL {
            // SAFETY: the promise of `new`; the entries are of this type.
            return unsafe { Floats::new(self.from.cast(), self.len) };
        }
        let (lanes, n) = (T::Real::lanes(cpu), lanes::<C, T>());
        let room = self.len.next_multiple_of(n);
        if buffer.len() < room {
            buffer.resize(room, T::Real::ZERO);
        }
        let to = buffer.as_mut_ptr();
        let whole = self.len - self.len % n;
        // SAFETY: `len` entries may be read, and the buffer has room for them, rounded up to whole vectors.
        unsafe {
            for index in (0..whole).step_by(n) {
                lanes.store(to.add(index), T::load(cpu, self.from.add(index)));
            }
            if whole < self.len {
                let rest = T::load_first(cpu, self.from.add(whole), self.len - whole);
                lanes.store(to.add(whole), rest);
            }
        }
        Floats::from(&buffer[..self.len])
    }

    /// Copies all entries.
    #[inline(always)]
    pub(super) fn copy_all(&self) {
        // SAFETY: the promise of `new`; `copy` allows that both are the same.
        unsafe { std::ptr::copy(self.from, self.to, self.len) };
    }

    /// Writes zeros to all of them.
    #[inline(always)]
    pub(super) fn clear<C: Cpu>(&self, cpu: C, streamed: bool) {
        // SAFETY: the promise of `new`.
        unsafe { clear(cpu, self.to, self.len, streamed) };
    }
}

/// Writes zeros.
///
/// # Safety
/// `len` entries at `to` may be written.
#[inline(always)]
pub(super) unsafe fn clear<C: Cpu, T: Element>(cpu: C, to: *mut T, len: usize, streamed: bool) {
    let lanes = cpu.f32();
    let (vector, mut done) = (C::F32::N * size_of::<f32>(), 0);
    let (to, bytes) = (to.cast::<u8>(), len * size_of::<T>());
    // SAFETY: all within the bytes of the entries; all bits 0 is 0.0 in every type.
    unsafe {
        if streamed && bytes >= 2 * vector {
            done = to.align_offset(vector);
            to.write_bytes(0, done);
            while done + vector <= bytes {
                lanes.stream(to.add(done).cast(), lanes.splat(0.0));
                done += vector;
            }
        }
        to.add(done).write_bytes(0, bytes - done);
    }
}
