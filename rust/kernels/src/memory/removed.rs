//! What leaves the cache, and why.

use super::grow;
use crate::Result;

/// Why an entry left.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub enum Cause {
    /// Room was needed.
    Size,
    /// Its time was over.
    Expired,
    /// Another value was put under its key.
    Replaced,
    /// It was deleted, popped or cleared.
    Explicit,
}

/// What an operation took out, in order, for the caller to drop once nothing is locked.
#[derive(Debug)]
pub struct Removed<E> {
    // Nearly always none or one: no allocation for those.
    first: Option<(E, Cause)>,
    rest: Vec<(E, Cause)>,
    /// What left as there was no memory to make `rest` longer.
    last: Option<(E, Cause)>,
}

impl<E> Default for Removed<E> {
    fn default() -> Self {
        Self { first: None, rest: Vec::new(), last: None }
    }
}

impl<E> Removed<E> {
    /// True if nothing was taken out.
    pub fn is_empty(&self) -> bool {
        self.first.is_none() && self.last.is_none()
    }

    /// Room for one more.
    #[inline]
    pub(super) fn reserve(&mut self) -> Result<()> {
        if self.first.is_none() { Ok(()) } else { grow::vector(&mut self.rest, 1) }
    }

    /// Adds an entry.
    #[inline]
    pub fn push(&mut self, entry: E, cause: Cause) {
        if self.first.is_none() {
            self.first = Some((entry, cause));
        } else {
            self.rest.push((entry, cause));
        }
    }

    /// Adds the last entry, for which nothing could be reserved.
    pub(super) fn push_last(&mut self, entry: E, cause: Cause) {
        debug_assert!(self.last.is_none(), "an operation fails once");
        self.last = Some((entry, cause));
    }

    /// Hands over every entry, in order.
    #[inline]
    pub fn for_each(self, mut each: impl FnMut(E, Cause)) {
        for (entry, cause) in self.first.into_iter().chain(self.rest).chain(self.last) {
            each(entry, cause);
        }
    }
}
