//! The operations that count most, where nothing needs Python: a key of a built-in type, a cache without times, and for
//! a put without weights and listener.

use pyo3::prelude::*;

use super::cache::{LRUCache, State};
use super::entry::Entry;
use super::key::{Key, is_tracked};
use super::lookup::{Found, find};

impl State {
    /// True if a put has nothing to weigh or to time, nobody to tell and nothing to call off.
    #[inline]
    fn stores_quickly(&self, py: Python<'_>) -> bool {
        let plain = self.settings.is_plain() && self.settings.on_evict.is_none() && self.cache.is_plain();
        plain && self.is_calm(py)
    }
}

// All return None if it takes more; then nothing has happened, and nothing was counted.
impl LRUCache {
    /// A look-up that counts; a miss only if `misses` says so.
    // Inlined, as results that pass through memory cost as much as the look-up.
    #[inline(always)]
    pub(super) fn get_quickly(&self, key: &Key<'_, '_>, misses: bool) -> Option<Option<Py<PyAny>>> {
        let py = key.object().py();
        self.state.with(py, |state| {
            let cache = &mut state.as_mut().filter(|state| !state.cache.is_timed())?.cache;
            match find(cache, key) {
                Found::At(slot) => Some(Some(cache.hit(slot).value.clone_ref(py))),
                Found::Perhaps(_) => None,
                Found::Nowhere if misses => {
                    cache.miss();
                    Some(None)
                }
                Found::Nowhere => None,
            }
        })
    }

    /// Whether a key is there; neither counts nor is a use.
    #[inline(always)]
    pub(super) fn has_quickly(&self, key: &Key<'_, '_>) -> Option<bool> {
        self.state.with(key.object().py(), |state| {
            let cache = &state.as_ref().filter(|state| !state.cache.is_timed())?.cache;
            match find(cache, key) {
                Found::At(_) => Some(true),
                Found::Nowhere => Some(false),
                Found::Perhaps(_) => None,
            }
        })
    }

    /// Stores a value.
    #[inline(always)]
    pub(super) fn put_quickly<'py>(&self, key: &Key<'_, 'py>, value: &Bound<'py, PyAny>) -> Option<()> {
        let py = value.py();
        let tracked = key.is_tracked() || is_tracked(value);
        let (mut old_key, mut old_value) = (None, None);
        let done = self.state.with(py, |state| {
            let state = state.as_mut().filter(|state| state.stores_quickly(py))?;
            let cache = &mut state.cache;
            match find(cache, key) {
                Found::At(slot) => {
                    let entry = cache.replace_plain(slot);
                    entry.tracked |= tracked;
                    old_value = Some(std::mem::replace(&mut entry.value, value.clone().unbind()));
                }
                Found::Perhaps(_) => return None,
                Found::Nowhere if cache.is_full() => {
                    let entry = cache.recycle(key.hash()).ok()?;
                    // Field by field: an entry that is moved as a whole is written in parts and read at once, for which
                    // a processor waits. Nothing is weighed here, so there is no owner.
                    old_key = Some(std::mem::replace(&mut entry.key, key.kept()));
                    old_value = Some(std::mem::replace(&mut entry.value, value.clone().unbind()));
                    entry.tracked = tracked;
                }
                Found::Nowhere => {
                    let make = || Entry { key: key.kept(), value: value.clone().unbind(), owner: None, tracked };
                    cache.insert_plain(key.hash(), make).ok()?;
                }
            }
            state.tracks |= tracked;
            Some(())
        });
        // The lock is free.
        if let Some(key) = old_key {
            key.drop_ref(py);
        }
        if let Some(value) = old_value {
            value.drop_ref(py);
        }
        done
    }
}
