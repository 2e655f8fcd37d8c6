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
    fn equals(&self, key: &Key<'_, '_>) -> PyResult<bool> {
        // The resident key on the left, as dict has it.
        self.key.bind(key.object.py()).eq(key.object)
    }

    fn is_resident(&self, cache: &Cache<Entry>) -> bool {
        cache.version(self.slot) == Some(self.version)
    }
}

/// How often a look-up compares before it gives up on a cache that changes meanwhile.
const MAX_ROUNDS: usize = 1000;

impl LRUCache {
    /// Finds `key` and runs `act` on the cache with its slot, under one lock. `act` must run no Python code.
    ///
    /// What ends by `now` is removed before; what `act` removes is dropped afterwards, with the lock free.
    pub(super) fn lookup<R>(
        &self,
        key: &Key<'_, '_>,
        now: i64,
        act: impl FnOnce(&mut Inner, Option<u32>, &mut Removed<Entry>) -> R,
    ) -> PyResult<R> {
        let py = key.object.py();
        let mut removed = Removed::default();
        let first = self.inner.with(py, |inner| {
            let cache = inner.cache()?;
            cache.expire(now, &mut removed);
            let mut candidate = None;
            let found = cache.find(key.hash, |slot, entry| match key.same(&entry.key, entry.kind) {
                Same::Yes => true,
                Same::No => false,
                Same::Ask => {
                    candidate.get_or_insert(slot);
                    false
                }
            });
            PyResult::Ok(match (found, candidate) {
                (None, Some(slot)) => {
                    let key = cache.entry(slot).key.clone_ref(py);
                    Err((Candidate { slot, version: cache.version(slot).unwrap_or_default(), key }, act))
                }
                (found, _) => Ok(act(inner, found, &mut removed)),
            })
        });
        let result = match first {
            Ok(Ok(done)) => Ok(done),
            Ok(Err((candidate, act))) => self.ask(key, candidate, &mut removed, act),
            Err(error) => Err(error),
        };
        self.let_go(py, removed);
        result
    }

    fn ask<R, F>(&self, key: &Key<'_, '_>, first: Candidate, removed: &mut Removed<Entry>, act: F) -> PyResult<R>
    where
        F: FnOnce(&mut Inner, Option<u32>, &mut Removed<Entry>) -> R,
    {
        let py = key.object.py();
        let mut act = act;
        // Entries that Python said are different, sorted.
        let mut different: Vec<(u32, u32)> = Vec::new();
        let mut candidates = vec![first];
        // One round is what it takes, a second one finds nothing new; unless the cache changes under the comparisons.
        for _ in 0..MAX_ROUNDS {
            let mut equal = None;
            for candidate in candidates {
                if candidate.equals(key)? {
                    equal = Some(candidate);
                    break;
                }
                different.push((candidate.slot, candidate.version));
            }
            different.sort_unstable();
            if let Some(candidate) = &equal {
                let tried = self.inner.with(py, |inner| match inner.cache() {
                    Ok(cache) if candidate.is_resident(cache) => Ok(act(inner, Some(candidate.slot), removed)),
                    _ => Err(act),
                });
                match tried {
                    Ok(done) => return Ok(done),
                    Err(again) => act = again,
                }
            }
            // Also after nothing was equal: an equal key may have come meanwhile.
            let next = self.inner.with(py, |inner| {
                let cache = inner.cache()?;
                let mut unknown = Vec::new();
                let found = cache.find(key.hash, |slot, entry| match key.same(&entry.key, entry.kind) {
                    Same::Yes => true,
                    Same::No => false,
                    Same::Ask => {
                        let version = cache.version(slot).unwrap_or_default();
                        if different.binary_search(&(slot, version)).is_err() {
                            unknown.push(Candidate { slot, version, key: entry.key.clone_ref(py) });
                        }
                        false
                    }
                });
                PyResult::Ok(match found {
                    None if !unknown.is_empty() => Err((unknown, act)),
                    found => Ok((act(inner, found, removed), unknown)),
                })
            })?;
            match next {
                // The candidates that were not needed are dropped here, with the lock free.
                Ok((done, _unneeded)) => return Ok(done),
                Err((unknown, again)) => (candidates, act) = (unknown, again),
            }
        }
        let text = "the comparisons of a key changed the cache each time in 1,000 attempts to find it";
        Err(PyRuntimeError::new_err(text))
    }
}
