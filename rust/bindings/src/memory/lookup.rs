//! Finding a key: natively under the lock, through Python's comparison outside of it.

use pyo3::exceptions::PyRuntimeError;
use pyo3::prelude::*;
use zerocost_kernels::Error;
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

    fn is_resident(&self, cache: &Cache<Entry>) -> bool {
        cache.version(self.slot) == self.version
    }
}

/// What a look under the lock has led to.
enum Looked<R, F> {
    Acted(R),
    /// Python must be asked first; `F` is what is to be done then.
    Ask(F, Vec<Candidate>),
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
        act: impl FnOnce(&mut State, Option<u32>, &mut Removed<Entry>) -> PyResult<R>,
    ) -> PyResult<R> {
        let py = key.object().py();
        let mut removed = Removed::default();
        let looked = self.state.with(py, |state| {
            let cache = state.cache()?;
            cache.expire(now, &mut removed).map_err(KernelError::from)?;
            let slot = match find(cache, key) {
                Found::At(slot) => Some(slot),
                Found::Nowhere => None,
                Found::Perhaps(slot) => return Ok(Looked::Ask(act, vec![Candidate::new(py, cache, slot)])),
            };
            act(state, slot, &mut removed).map(Looked::Acted)
        });
        let result = match looked {
            Ok(Looked::Acted(result)) => Ok(result),
            Ok(Looked::Ask(act, candidates)) => self.ask(key, candidates, &mut removed, act),
            Err(error) => Err(error),
        };
        if !removed.is_empty() {
            self.let_go(py, removed);
        }
        result
    }

    /// The look-up when only Python can tell which of the candidates, which have the key's hash, is the key.
    #[inline(never)]
    fn ask<R, F>(
        &self,
        key: &Key<'_, '_>,
        mut candidates: Vec<Candidate>,
        removed: &mut Removed<Entry>,
        mut act: F,
    ) -> PyResult<R>
    where
        F: FnOnce(&mut State, Option<u32>, &mut Removed<Entry>) -> PyResult<R>,
    {
        let py = key.object().py();
        // Versions of the entries that Python said are different, sorted once a round is over.
        let mut different = Vec::new();
        // One round is what it takes, or two where several entries have this hash; unless the cache changes under the
        // comparisons.
        for _ in 0..MAX_ROUNDS {
            let mut equal = None;
            for candidate in candidates {
                // The resident key on the left, as dict has it.
                if candidate.key.bind(py).eq(key.object())? {
                    equal = Some(candidate);
                    break;
                }
                push(&mut different, candidate.version)?;
            }
            different.sort_unstable();
            let looked = self.state.with(py, |state| {
                let cache = state.cache()?;
                if let Some(equal) = &equal
                    && equal.is_resident(cache)
                {
                    return act(state, Some(equal.slot), removed).map(Looked::Acted);
                }
                // Also after nothing was equal: an equal key may have come meanwhile.
                let mut candidates = Vec::new();
                let mut complete = Ok(());
                let found = cache.find(key.hash(), |slot, entry| match key.equality(&entry.key) {
                    Equality::Equal => true,
                    Equality::Different => false,
                    Equality::Unknown => {
                        if different.binary_search(&cache.version(slot)).is_err() && complete.is_ok() {
                            complete = push(&mut candidates, Candidate::new(py, cache, slot));
                        }
                        false
                    }
                });
                complete?;
                if found.is_none() && !candidates.is_empty() {
                    return Ok(Looked::Ask(act, candidates));
                }
                act(state, found, removed).map(Looked::Acted)
            });
            match looked? {
                Looked::Acted(result) => return Ok(result),
                Looked::Ask(later, others) => (act, candidates) = (later, others),
            }
        }
        let text = "the comparisons of a key changed the cache each time in 1,000 attempts to find it";
        Err(PyRuntimeError::new_err(text))
    }
}

/// As many as a caller makes collide, so without an abort.
fn push<T>(list: &mut Vec<T>, item: T) -> PyResult<()> {
    let error = Error::Memory { bytes: (list.len() + 1).saturating_mul(size_of::<T>()) };
    list.try_reserve(1).map_err(|_| KernelError::from(error))?;
    list.push(item);
    Ok(())
}
