//! What a cache does.

use numpy::PyUntypedArray;
use pyo3::prelude::*;
use pyo3::{import_exception, intern};
use zerocost_kernels::memory::{Cache, Cause, Removed, Terms, Ttl};

use super::cache::{LRUCache, State};
use super::entry::Entry;
use super::key::{Key, is_tracked};
use super::weigh::Weighed;
use crate::error::{DatatypeError, KernelError};

import_exception!(zerocost.errors, LimitExceeded);

/// What became of a put.
pub(super) enum Stored {
    Now,
    TooLarge,
    /// The put was called off; this is what is resident.
    Kept(Option<Py<PyAny>>),
}

impl LRUCache {
    /// A look-up that counts.
    #[inline]
    pub(super) fn look_up(&self, key: &Key<'_, '_>) -> PyResult<Option<Py<PyAny>>> {
        let py = key.object().py();
        let now = self.now(py, Ttl::Default)?;
        self.lookup(key, now, |state, slot, _| {
            if slot.is_none() {
                state.cache.miss();
            }
            slot.map(|slot| state.cache.hit(slot).value.clone_ref(py))
        })
    }

    /// A look-up that changes nothing.
    pub(super) fn look_at(&self, key: &Key<'_, '_>) -> PyResult<Option<Py<PyAny>>> {
        let py = key.object().py();
        let now = self.now(py, Ttl::Default)?;
        self.lookup(key, now, |state, slot, _| slot.map(|slot| state.cache.entry(slot).value.clone_ref(py)))
    }

    /// The value as it will be stored, and its weight. Runs Python code.
    pub(super) fn prepare<'py>(
        &self,
        key: &Key<'_, 'py>,
        value: &Bound<'py, PyAny>,
    ) -> PyResult<(Bound<'py, PyAny>, Weighed)> {
        let py = value.py();
        let settings = |state: &mut State| (state.settings.weighing.clone_ref(py), state.settings.freeze);
        let (weighing, freeze) = self.with(py, settings)?;
        let value = if freeze { frozen(value)? } else { value.clone() };
        let weighed = weighing.weigh(key.object(), &value)?;
        Ok((value, weighed))
    }

    pub(super) fn put_key<'py>(&self, key: &Key<'_, 'py>, value: &Bound<'py, PyAny>, ttl: Ttl) -> PyResult<bool> {
        Ok(matches!(self.store(key, value, ttl, |_, _| false)?, Stored::Now))
    }

    /// Stores a value, unless `keep` says that a resident one stays.
    #[inline]
    pub(super) fn store<'py>(
        &self,
        key: &Key<'_, 'py>,
        value: &Bound<'py, PyAny>,
        ttl: Ttl,
        keep: impl FnOnce(&mut Cache<Entry>, Option<u32>) -> bool,
    ) -> PyResult<Stored> {
        if self.with(value.py(), |state| state.settings.is_plain())? {
            return self.store_weighed(key, value, &Weighed::default(), ttl, self.now(value.py(), ttl)?, keep);
        }
        let (value, weighed) = self.prepare(key, value)?;
        self.store_weighed(key, &value, &weighed, ttl, self.now(value.py(), ttl)?, keep)
    }

    /// Stores a value as it is. The caller's references live longer than the lock is held: what is not stored in the
    /// end does not die under it.
    #[inline]
    pub(super) fn store_weighed<'py>(
        &self,
        key: &Key<'_, 'py>,
        value: &Bound<'py, PyAny>,
        weighed: &Weighed,
        ttl: Ttl,
        now: i64,
        keep: impl FnOnce(&mut Cache<Entry>, Option<u32>) -> bool,
    ) -> PyResult<Stored> {
        let py = value.py();
        let terms = Terms { weight: weighed.weight, ttl, now };
        let owner = || weighed.owner.as_ref().map(|owner| owner.clone_ref(py));
        let tracked = key.is_tracked()
            || is_tracked(value)
            || weighed.owner.as_ref().is_some_and(|owner| is_tracked(owner.bind(py)));
        // What a listener does not have to see needs no entry.
        let (mut replaced, mut failed) = (None, None);
        let stored = self.lookup(key, now, |state, slot, removed| {
            if keep(&mut state.cache, slot) {
                return Stored::Kept(slot.map(|slot| state.cache.entry(slot).value.clone_ref(py)));
            }
            if state.cache.rejects(terms.weight) {
                return Stored::TooLarge;
            }
            state.supersede(key);
            state.tracks |= tracked;
            let listened = state.settings.on_evict.is_some();
            let value = || value.clone().unbind();
            let put = match slot {
                None => {
                    let make = || Entry { key: key.kept(), value: value(), owner: owner(), tracked };
                    state.cache.insert(key.hash(), make, terms, removed)
                }
                Some(slot) => {
                    let renew = |entry: &mut Entry, removed: &mut Removed<Entry>| {
                        entry.tracked |= tracked;
                        let value = std::mem::replace(&mut entry.value, value());
                        let owner = std::mem::replace(&mut entry.owner, owner());
                        if listened {
                            let old = Entry { key: entry.key.clone_ref(py), value, owner, tracked };
                            removed.push(old, Cause::Replaced);
                        } else {
                            replaced = Some((value, owner));
                        }
                    };
                    state.cache.replace(slot, renew, terms, removed)
                }
            };
            failed = put.err();
            Stored::Now
        });
        if let Some((value, owner)) = replaced {
            // Attached already, so the reference can go at once.
            value.drop_ref(py);
            drop(owner);
        }
        match failed {
            None => stored,
            Some(error) => Err(KernelError::from(error).into()),
        }
    }

    /// Stores a value, or removes the key, if `found` is what is stored, where `absent` stands for nothing.
    pub(super) fn exchange<'py>(
        &self,
        key: &Key<'_, 'py>,
        found: &Bound<'py, PyAny>,
        value: Option<&Bound<'py, PyAny>>,
        absent: &Bound<'py, PyAny>,
        ttl: Ttl,
    ) -> PyResult<Option<bool>> {
        let Some(value) = value else {
            return Ok(if !found.is(absent) {
                self.take(key, Some(found))?.map(|_| true)
            } else {
                self.look_at(key)?.is_none().then_some(false)
            });
        };
        let is_found = |cache: &mut Cache<Entry>, slot: Option<u32>| match slot {
            Some(slot) => cache.entry(slot).value.is(found),
            None => found.is(absent),
        };
        Ok(match self.store(key, value, ttl, |cache, slot| !is_found(cache, slot))? {
            Stored::Now => Some(true),
            Stored::TooLarge => Some(false),
            Stored::Kept(_) => None,
        })
    }

    /// The value of a key; stores the default if there is none. A look-up that counts.
    pub(super) fn get_or_put<'py>(&self, key: &Key<'_, 'py>, default: Bound<'py, PyAny>) -> PyResult<Py<PyAny>> {
        let py = default.py();
        let stored = if self.with(py, |state| state.settings.is_plain())? {
            // One look-up, as nothing has to be weighed.
            let keep = |cache: &mut Cache<_>, slot| match slot {
                Some(slot) => {
                    cache.hit(slot);
                    true
                }
                None => {
                    cache.miss();
                    false
                }
            };
            let now = self.now(py, Ttl::Default)?;
            self.store_weighed(key, &default, &Weighed::default(), Ttl::Default, now, keep)?
        } else {
            if let Some(value) = self.look_up(key)? {
                return Ok(value);
            }
            self.store(key, &default, Ttl::Default, |_, slot| slot.is_some())?
        };
        match stored {
            Stored::Kept(Some(resident)) => Ok(resident),
            Stored::Now if self.with(py, |state| state.settings.freeze)? => {
                Ok(self.look_at(key)?.unwrap_or_else(|| default.unbind()))
            }
            Stored::Now | Stored::Kept(None) => Ok(default.unbind()),
            Stored::TooLarge => Err(self.too_large(py)),
        }
    }

    #[cold]
    pub(super) fn too_large(&self, py: Python<'_>) -> PyErr {
        let bound = self.with(py, |state| state.cache.config().max_bytes).ok().flatten();
        let text = format!("value: weighs more than the whole cache, {} bytes are allowed", bound.unwrap_or(0));
        LimitExceeded::new_err((text, "value"))
    }

    /// Takes out the entry of a key, or, with `only`, the one that holds this very value.
    pub(super) fn take(&self, key: &Key<'_, '_>, only: Option<&Bound<'_, PyAny>>) -> PyResult<Option<Py<PyAny>>> {
        let py = key.object().py();
        let now = self.now(py, Ttl::Default)?;
        let taken = self.lookup(key, now, |state, slot, _| {
            if only.is_none() {
                state.supersede(key);
            }
            let slot = slot.filter(|&slot| only.is_none_or(|only| state.cache.entry(slot).value.is(only)));
            slot.map(|slot| state.cache.remove(slot))
        })?;
        let Some(entry) = taken else { return Ok(None) };
        let value = entry.value.clone_ref(py);
        entry.leave(py, Cause::Explicit, self.listener(py).as_ref());
        Ok(Some(value))
    }

    /// Takes out the policy's next victim.
    pub(super) fn take_next(&self, py: Python<'_>) -> PyResult<Option<(Py<PyAny>, Py<PyAny>)>> {
        let Some(entry) = self.look(py, |state| state.cache.pop())? else { return Ok(None) };
        let item = (entry.key.object().clone_ref(py), entry.value.clone_ref(py));
        entry.leave(py, Cause::Explicit, self.listener(py).as_ref());
        Ok(Some(item))
    }

    pub(super) fn take_all(&self, py: Python<'_>) -> PyResult<()> {
        let entries = self.look(py, |state| {
            state.supersede_all(py);
            state.tracks = false;
            state.cache.clear()
        })?;
        let listener = self.listener(py);
        entries.for_each(|entry| entry.leave(py, Cause::Explicit, listener.as_ref()));
        Ok(())
    }
}

/// An array as one read-only view; the caller's own stays as it is.
fn frozen<'py>(value: &Bound<'py, PyAny>) -> PyResult<Bound<'py, PyAny>> {
    let py = value.py();
    if value.is_instance_of::<PyUntypedArray>() {
        let view = value.call_method0(intern!(py, "view"))?;
        view.call_method1(intern!(py, "setflags"), (false,))?;
        return Ok(view);
    }
    if value.hasattr(intern!(py, "__dlpack__"))? {
        let text = format!("value: {} cannot be made read-only; pass a NumPy array under freeze", value.get_type());
        return Err(DatatypeError::new_err((text, "value")));
    }
    Ok(value.clone())
}
