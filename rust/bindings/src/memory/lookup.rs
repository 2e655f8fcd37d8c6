//! Finding a key: natively under the lock, through Python's comparison outside of it.

use pyo3::exceptions::PyRuntimeError;
use pyo3::prelude::*;
use zerocost_kernels::buffer::push;
use zerocost_kernels::memory::{Cache, Removed};

use super::cache::{LRUCache, State};
use super::entry::Entry;
use super::key::{Equality, Key};
use crate::error::KernelError;

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
    let found = cache.find(key.hash(), |slot, entry| match key.equality(&entry.key) {
        Equality::Equal => true,
        Equality::Different => false,
        Equality::Unknown => {
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

/// An entry whose key may be the one that is looked for: only Python can tell.
struct Candidate {
    slot: u32,
    version: Option<u64>,
    key: Py<PyAny>,
}

impl Candidate {
    fn new(py: Python<'_>, cache: &Cache<Entry>, slot: u32) -> Self {
        Self { slot, version: cache.version(slot), key: cache.entry(slot).key.object().clone_ref(py) }
    }
}

/// How often a look-up compares before it gives up on a cache that changes meanwhile.
const MAX_ROUNDS: usize = 1000;

impl LRUCache {
    /// Finds `key` and runs `act` on the state with its slot, under one lock. `act` must run no Python code.
    ///
    /// What ends by `now` is removed before; what `act` removes is dropped afterwards, with the lock free.
    #[inline]
    pub(super) fn lookup<R>(
        &self,
        key: &Key<'_, '_>,
        now: i64,
        act: impl FnOnce(&mut State, Option<u32>, &mut Removed<Entry>) -> R,
    ) -> PyResult<R> {
        let py = key.object().py();
        let mut removed = Removed::default();
        let (mut act, mut suspect, mut failed) = (Some(act), None, None);
        let done = self.with(py, |state| {
            if let Err(error) = state.cache.expire(now, &mut removed) {
                failed = Some(error);
                return None;
            }
            let slot = match find(&state.cache, key) {
                Found::At(slot) => Some(slot),
                Found::Nowhere => None,
                Found::Perhaps(slot) => {
                    suspect = Some(Candidate::new(py, &state.cache, slot));
                    return None;
                }
            };
            act.take().map(|act| act(state, slot, &mut removed))
        })?;
        // One by one, as what is moved through memory costs as much as the look-up.
        let result = if let Some(done) = done {
            Ok(done)
        } else if let Some(error) = failed {
            Err(KernelError::from(error).into())
        } else if let Some(act) = act {
            self.ask(key, &mut suspect, &mut removed, act)
        } else {
            unreachable!("what acts returns something")
        };
        if !removed.is_empty() {
            self.let_go(py, removed);
        }
        result
    }

    /// The look-up when only Python can tell whether `suspect`, which has the key's hash, is the key.
    #[inline(never)]
    fn ask<R, F>(
        &self,
        key: &Key<'_, '_>,
        suspect: &mut Option<Candidate>,
        removed: &mut Removed<Entry>,
        act: F,
    ) -> PyResult<R>
    where
        F: FnOnce(&mut State, Option<u32>, &mut Removed<Entry>) -> R,
    {
        let py = key.object().py();
        let mut act = Some(act);
        let mut candidates = Vec::new();
        // Versions of the entries that Python said are different, sorted once a round is over.
        let mut different = Vec::new();
        // One round is what it takes, or two where several entries have this hash; unless the cache changes under the
        // comparisons.
        for _ in 0..MAX_ROUNDS {
            let mut equal = None;
            for candidate in suspect.iter().chain(&candidates) {
                // The resident key on the left, as dict has it.
                if candidate.key.bind(py).eq(key.object())? {
                    equal = Some((candidate.slot, candidate.version));
                    break;
                }
                push(&mut different, candidate.version).map_err(KernelError::from)?;
            }
            *suspect = None;
            candidates.clear();
            different.sort_unstable();
            let mut complete = Ok(());
            let done = self.with(py, |state| {
                let cache = &state.cache;
                let slot = match equal {
                    Some((slot, version)) if cache.version(slot) == version => Some(slot),
                    // Also after nothing was equal: an equal key may have come meanwhile.
                    _ => cache.find(key.hash(), |slot, entry| match key.equality(&entry.key) {
                        Equality::Equal => true,
                        Equality::Different => false,
                        Equality::Unknown => {
                            if different.binary_search(&cache.version(slot)).is_err() && complete.is_ok() {
                                complete = push(&mut candidates, Candidate::new(py, cache, slot));
                            }
                            false
                        }
                    }),
                };
                if slot.is_none() && (complete.is_err() || !candidates.is_empty()) {
                    return None;
                }
                act.take().map(|act| act(state, slot, removed))
            })?;
            if let Some(done) = done {
                return Ok(done);
            }
            complete.map_err(KernelError::from)?;
        }
        let text = "the comparisons of a key changed the cache each time in 1,000 attempts to find it";
        Err(PyRuntimeError::new_err(text))
    }
}
