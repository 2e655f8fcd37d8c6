//! What the mapping protocol is made of: its longer answers, which [`mapping`](super::mapping) gives their names.

use pyo3::basic::CompareOp;
use pyo3::exceptions::{PyAttributeError, PyKeyError, PyRuntimeError, PyValueError};
use pyo3::prelude::*;
use pyo3::types::{PyDict, PyList, PyMapping};
use pyo3::{import_exception, intern};
use zerocost_kernels::memory::{Cache, Cause, Config, Lifetime, Ttl};

use super::entry::cause_name;
use super::key::Key;
use super::{LRUCache, Settings, Stored, quick, settings};
use crate::error::KernelError;

import_exception!(zerocost.errors, LimitExceeded);

/// A key, its value, seconds to live and seconds to idle.
pub(super) type Row<'py> = (Bound<'py, PyAny>, Bound<'py, PyAny>, f64, f64);

/// Which part of the entries a snapshot has.
#[derive(Clone, Copy)]
pub(super) enum Part {
    Keys,
    Values,
    Items,
}

impl LRUCache {
    pub(super) fn begin(&self, py: Python<'_>, config: Config, settings: Settings) -> PyResult<()> {
        let cache = Cache::new(config).map_err(KernelError::from)?;
        let twice = self.inner.with(py, |inner| {
            if inner.cache.is_some() {
                return Some((cache, settings));
            }
            inner.cache = Some(cache);
            inner.settings = settings;
            None
        });
        match twice {
            Some(_) => Err(PyRuntimeError::new_err("LRUCache.__init__ was called twice")),
            None => Ok(()),
        }
    }

    pub(super) fn set_item(&self, key: &Bound<'_, PyAny>, value: &Bound<'_, PyAny>) -> PyResult<()> {
        if self.put_key(&Key::new(key)?, value, Ttl::Default)? {
            return Ok(());
        }
        Err(self.too_large(key.py()))
    }

    pub(super) fn put_key<'py>(&self, key: &Key<'_, 'py>, value: &Bound<'py, PyAny>, ttl: Ttl) -> PyResult<bool> {
        Ok(matches!(self.store(key, value, ttl, |_, _| false)?, Stored::Now))
    }

    pub(super) fn pop_value(&self, key: &Bound<'_, PyAny>) -> PyResult<Option<Py<PyAny>>> {
        self.take(&Key::new(key)?, None)
    }

    #[cold]
    pub(super) fn missing(slf: &Bound<'_, Self>, key: &Bound<'_, PyAny>) -> PyResult<Py<PyAny>> {
        let py = slf.py();
        let absent = || PyKeyError::new_err((key.clone().unbind(),));
        let kind = slf.get_type();
        if quick::is_class(&kind) {
            return Err(absent());
        }
        match kind.getattr(intern!(py, "__missing__")) {
            Ok(missing) => Ok(missing.call1((slf, key))?.unbind()),
            Err(error) if error.is_instance_of::<PyAttributeError>(py) => Err(absent()),
            Err(error) => Err(error),
        }
    }

    #[cold]
    pub(super) fn too_large(&self, py: Python<'_>) -> PyErr {
        let bound = self.inner.with(py, |inner| inner.cache.as_ref().and_then(|cache| cache.config().max_bytes));
        let text = format!("value: weighs more than the whole cache, {} bytes are allowed", bound.unwrap_or(0));
        LimitExceeded::new_err((text, "value"))
    }

    pub(super) fn snapshot_of<'py>(&self, py: Python<'py>, part: Part) -> PyResult<Bound<'py, PyList>> {
        let entries = self.look(py, |cache| {
            let item = |slot: u32| {
                let entry = cache.entry(slot);
                (entry.key.clone_ref(py), entry.value.clone_ref(py))
            };
            cache.order().into_iter().map(item).collect::<Vec<_>>()
        })?;
        match part {
            Part::Keys => PyList::new(py, entries.into_iter().map(|(key, _)| key)),
            Part::Values => PyList::new(py, entries.into_iter().map(|(_, value)| value)),
            Part::Items => PyList::new(py, entries),
        }
    }

    pub(super) fn get_or_put<'py>(&self, key: &Key<'_, 'py>, default: Bound<'py, PyAny>) -> PyResult<Py<PyAny>> {
        let py = key.object.py();
        let stored = if self.inner.with(py, |inner| inner.settings.is_plain()) {
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
            self.store(key, &default, Ttl::Default, keep)?
        } else {
            if let Some(value) = self.look_up(key)? {
                return Ok(value);
            }
            self.store(key, &default, Ttl::Default, |_, slot| slot.is_some())?
        };
        match stored {
            Stored::Kept(Some(resident)) => Ok(resident),
            Stored::Now if self.inner.with(py, |inner| inner.settings.freeze) => {
                Ok(self.look_at(key)?.unwrap_or_else(|| default.unbind()))
            }
            Stored::Now | Stored::Kept(None) => Ok(default.unbind()),
            Stored::TooLarge => Err(self.too_large(py)),
        }
    }

    pub(super) fn put_all(
        &self,
        py: Python<'_>,
        other: Option<&Bound<'_, PyAny>>,
        kwargs: Option<&Bound<'_, PyDict>>,
    ) -> PyResult<()> {
        if let Some(other) = other {
            let keys = intern!(py, "keys");
            if let Ok(other) = other.cast_exact::<PyDict>() {
                self.put_items(other)?;
            } else if other.hasattr(keys)? {
                for key in other.call_method0(keys)?.try_iter()? {
                    let key = key?;
                    self.set_item(&key, &other.get_item(&key)?)?;
                }
            } else {
                for pair in other.try_iter()? {
                    let pair = pair?.try_iter()?.collect::<PyResult<Vec<_>>>()?;
                    let [key, value] = &pair[..] else {
                        let text = format!("update(): an item has {} parts, key and value are needed", pair.len());
                        return Err(PyValueError::new_err(text));
                    };
                    self.set_item(key, value)?;
                }
            }
        }
        kwargs.map_or(Ok(()), |kwargs| self.put_items(kwargs))
    }

    /// Of a copy: what is called meanwhile may change the dict.
    fn put_items(&self, items: &Bound<'_, PyDict>) -> PyResult<()> {
        items.items().iter().try_for_each(|item| {
            let (key, value) = item.extract::<(Bound<'_, PyAny>, Bound<'_, PyAny>)>()?;
            self.set_item(&key, &value)
        })
    }

    /// Puts entries with what remains of their time; returns the keys of those that are larger than the whole cache.
    /// What can fail comes before the first put.
    pub(super) fn put_rows<'py>(&self, py: Python<'py>, rows: &[Row<'py>]) -> PyResult<Vec<Bound<'py, PyAny>>> {
        let mut ready = Vec::with_capacity(rows.len());
        for (key, value, live, idle) in rows {
            let nanoseconds = |seconds: f64| settings::nanoseconds(seconds).max(1);
            let ttl = Ttl::Remaining(Lifetime { live: nanoseconds(*live), idle: nanoseconds(*idle) });
            ready.push((Key::new(key)?, self.prepare(key, value)?, ttl));
        }
        let now = self.time(py)?;
        let mut refused = Vec::new();
        for (key, (value, weighed), ttl) in &ready {
            if !matches!(self.store_weighed(key, value, weighed, *ttl, now, |_, _| false)?, Stored::Now) {
                refused.push(key.object.clone());
            }
        }
        Ok(refused)
    }

    pub(super) fn compared(slf: &Bound<'_, Self>, other: &Bound<'_, PyAny>, op: CompareOp) -> PyResult<Py<PyAny>> {
        let py = slf.py();
        if !matches!(op, CompareOp::Eq | CompareOp::Ne) || other.cast::<PyMapping>().is_err() {
            return Ok(py.NotImplemented());
        }
        let own = PyDict::from_sequence(slf.get().snapshot_of(py, Part::Items)?.as_any())?;
        let items = other.call_method0(intern!(py, "items"))?;
        let others = py.get_type::<PyDict>().call1((items,))?;
        Ok(own.rich_compare(others, op)?.unbind())
    }

    pub(super) fn described(slf: &Bound<'_, Self>) -> PyResult<String> {
        let py = slf.py();
        let name = slf.get_type().qualname()?;
        let bound = |bound: Option<u64>| bound.map_or("None".to_owned(), |bound| bound.to_string());
        slf.get().look(py, |cache| {
            let config = cache.config();
            format!(
                "{name}(max_entries={}, max_bytes={}, policy='{}', entries={}, bytes={})",
                bound(config.max_entries),
                bound(config.max_bytes),
                settings::policy_name(config.policy),
                cache.len(),
                cache.bytes()
            )
        })
    }

    pub(super) fn counters<'py>(&self, py: Python<'py>) -> PyResult<Bound<'py, PyDict>> {
        let (stats, bytes, entries) = self.look(py, |cache| (cache.stats(), cache.bytes(), cache.len()))?;
        let (loads, load_seconds) = self.inner.with(py, |inner| (inner.loads, inner.load_seconds));
        let evictions = PyDict::new(py);
        for cause in [Cause::Size, Cause::Expired, Cause::Replaced, Cause::Explicit] {
            evictions.set_item(cause_name(cause), stats.evictions[cause as usize])?;
        }
        let result = PyDict::new(py);
        result.set_item("hits", stats.hits)?;
        result.set_item("misses", stats.misses)?;
        result.set_item("loads", loads)?;
        result.set_item("load_seconds", load_seconds)?;
        result.set_item("evictions", evictions)?;
        result.set_item("rejected", stats.rejected)?;
        result.set_item("bytes", bytes)?;
        result.set_item("entries", entries)?;
        Ok(result)
    }
}
