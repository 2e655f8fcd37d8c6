//! Finding a key: natively under the lock, through Python's comparison outside of it.

use pyo3::exceptions::PyRuntimeError;
use pyo3::prelude::*;
use zerocost_kernels::memory::{Cache, Removed};

use super::entry::Entry;
use super::key::{Key, Same};
use super::{Inner, LRUCache};

/// An entry whose key may be the one that is looked for: only Python can tell.
struct Candidate {
    slot: u32,
    version: u32,
    key: Py<PyAny>,
}

impl Candidate {
    fn new(py: Python<'_>, cache: &Cache<Entry>, slot: u32) -> Option<Self> {
        Some(Self { slot, version: cache.version(slot)?, key: cache.entry(slot).key.clone_ref(py) })
    }

    fn is_resident(&self, cache: &Cache<Entry>) -> bool {
        cache.version(self.slot) == Some(self.version)
    }
}

/// What can be said without Python code of where a key is.
pub(super) enum Found {
    At(u32),
    Nowhere,
    /// Only Python can tell whether the entry in this slot is the one.
    Perhaps(u32),
}

/// Finds a key. Runs no Python code.
#[inline(always)]
pub(super) fn find(cache: &Cache<Entry>, key: &Key<'_, '_>) -> Found {
    let mut suspect = None;
    let found = cache.find(key.hash, |slot, entry| match key.same(&entry.key, entry.kind) {
        Same::Yes => true,
        Same::No => false,
        Same::Ask => {
            suspect = Some(slot);
            false
        }
    });
    match (found, suspect) {
        (Some(slot), _) => Found::At(slot),
        (None, Some(slot)) => Found::Perhaps(slot),
        (None, None) => Found::Nowhere,
    }
}

/// How often a look-up compares before it gives up on a cache that changes meanwhile.
const MAX_ROUNDS: usize = 1000;

impl LRUCache {
    /// Finds `key` and runs `act` on the cache with its slot, under one lock. `act` must run no Python code.
    ///
    /// What ends by `now` is removed before; what `act` removes is dropped afterwards, with the lock free.
    #[inline]
    pub(super) fn lookup<R>(
        &self,
        key: &Key<'_, '_>,
        now: i64,
        act: impl FnOnce(&mut Inner, Option<u32>, &mut Removed<Entry>) -> R,
    ) -> PyResult<R> {
        let py = key.object.py();
        let mut removed = Removed::default();
        let mut act = Some(act);
        let mut candidate = None;
        let done = self.inner.with(py, |inner| {
            let cache = inner.cache.as_mut()?;
            cache.expire(now, &mut removed);
            let found = match find(cache, key) {
                Found::At(slot) => Some(slot),
                Found::Nowhere => None,
                Found::Perhaps(slot) => {
                    candidate = Some(slot);
                    return None;
                }
            };
            Some(act.take()?(inner, found, &mut removed))
        });
        let result = match (done, act) {
            (Some(done), _) => Ok(done),
            (None, Some(act)) => self.ask(key, candidate, &mut removed, act),
            (None, None) => unreachable!("what acts returns something"),
        };
        if !removed.is_empty() {
            self.let_go(py, removed);
        }
        result
    }

    /// The look-up when only Python can tell whether `suspect`, which has the key's hash, is the key.
    #[inline(never)]
    fn ask<R, F>(&self, key: &Key<'_, '_>, suspect: Option<u32>, removed: &mut Removed<Entry>, act: F) -> PyResult<R>
    where
        F: FnOnce(&mut Inner, Option<u32>, &mut Removed<Entry>) -> R,
    {
        let py = key.object.py();
        let mut act = Some(act);
        let mut candidate = self.inner.with(py, |inner| {
            let cache = inner.cache()?;
            // Another thread may have been here since; any entry of this hash will do.
            let suspect = suspect.filter(|&slot| cache.version(slot).is_some() && cache.hash(slot) == key.hash);
            PyResult::Ok(suspect.and_then(|slot| Candidate::new(py, cache, slot)))
        })?;
        let mut candidates = Vec::new();
        // Entries that Python said are different, by slot and version, sorted once a round is over.
        let mut different: Vec<(u32, u32)> = Vec::new();
        // One round is what it takes, a second one finds nothing new; unless the cache changes under the comparisons.
        for _ in 0..MAX_ROUNDS {
            while let Some(suspect) = candidate.take().or_else(|| candidates.pop()) {
                // The resident key on the left, as dict has it.
                if !suspect.key.bind(py).eq(key.object)? {
                    different.push((suspect.slot, suspect.version));
                    continue;
                }
                let done = self.inner.with(py, |inner| {
                    let resident = suspect.is_resident(inner.cache.as_ref()?);
                    if resident { Some(act.take()?(inner, Some(suspect.slot), removed)) } else { None }
                });
                if let Some(done) = done {
                    return Ok(done);
                }
                break;
            }
            candidates.clear();
            different.sort_unstable();
            // Also after nothing was equal: an equal key may have come meanwhile.
            let done = self.inner.with(py, |inner| {
                let cache = inner.cache.as_ref()?;
                let found = cache.find(key.hash, |slot, entry| match key.same(&entry.key, entry.kind) {
                    Same::Yes => true,
                    Same::No => false,
                    Same::Ask => {
                        let suspect = Candidate::new(py, cache, slot);
                        let known = |suspect: &Candidate| different.binary_search(&(slot, suspect.version)).is_ok();
                        candidates.extend(suspect.filter(|suspect| !known(suspect)));
                        false
                    }
                });
                if found.is_none() && !candidates.is_empty() {
                    return None;
                }
                Some(act.take()?(inner, found, removed))
            });
            if let Some(done) = done {
                return Ok(done);
            }
        }
        let text = "the comparisons of a key changed the cache each time in 1,000 attempts to find it";
        Err(PyRuntimeError::new_err(text))
    }
}
