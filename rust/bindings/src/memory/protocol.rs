//! The longer answers of the mapping protocol.

use pyo3::basic::CompareOp;
use pyo3::exceptions::{PyAttributeError, PyKeyError, PyValueError};
use pyo3::intern;
use pyo3::prelude::*;
use pyo3::types::{PyDict, PyList, PyMapping};
use zerocost_kernels::memory::{Cause, Ttl};

use super::cache::{LRUCache, State};
use super::class;
use super::entry::cause_name;
use super::key::Key;
use super::settings::{Argument, policy_name};

impl LRUCache {
    pub(super) fn set_item(&self, key: &Bound<'_, PyAny>, value: &Bound<'_, PyAny>) -> PyResult<()> {
        if self.put_key(&Key::new(key)?, value, Ttl::Default)? {
            return Ok(());
        }
        Err(self.too_large(key.py()))
    }

    #[cold]
    pub(super) fn missing(slf: &Bound<'_, Self>, key: &Bound<'_, PyAny>) -> PyResult<Py<PyAny>> {
        let py = slf.py();
        let absent = || PyKeyError::new_err((key.clone().unbind(),));
        let kind = slf.get_type();
        if class::is_class(&kind) {
            return Err(absent());
        }
        match kind.getattr(intern!(py, "__missing__")) {
            Ok(missing) => Ok(missing.call1((slf, key))?.unbind()),
            Err(error) if error.is_instance_of::<PyAttributeError>(py) => Err(absent()),
            Err(error) => Err(error),
        }
    }

    pub(super) fn put_all(
        &self,
        py: Python<'_>,
        other: Argument<'_, '_>,
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
                    // No more than three are asked for: there may be no end to them.
                    let mut parts = pair?.try_iter()?;
                    let mut part = || parts.next().transpose();
                    let (Some(key), Some(value), None) = (part()?, part()?, part()?) else {
                        let text = "update(): an item has fewer or more than two parts, key and value are needed";
                        return Err(PyValueError::new_err(text));
                    };
                    self.set_item(&key, &value)?;
                }
            }
        }
        kwargs.map_or(Ok(()), |kwargs| self.put_items(kwargs))
    }

    /// Of a copy, which Python makes: what is called meanwhile may change the dict.
    fn put_items(&self, items: &Bound<'_, PyDict>) -> PyResult<()> {
        let py = items.py();
        let items = py.get_type::<PyList>().call1((items.call_method0(intern!(py, "items"))?,))?;
        items.cast::<PyList>()?.iter().try_for_each(|item| {
            let (key, value) = item.extract::<(Bound<'_, PyAny>, Bound<'_, PyAny>)>()?;
            self.set_item(&key, &value)
        })
    }

    pub(super) fn compared(slf: &Bound<'_, Self>, other: &Bound<'_, PyAny>, op: CompareOp) -> PyResult<Py<PyAny>> {
        let py = slf.py();
        if !matches!(op, CompareOp::Eq | CompareOp::Ne) || other.cast::<PyMapping>().is_err() {
            return Ok(py.NotImplemented());
        }
        let own = PyDict::from_sequence(slf.get().list_items(py)?.as_any())?;
        let items = other.call_method0(intern!(py, "items"))?;
        let others = py.get_type::<PyDict>().call1((items,))?;
        Ok(own.rich_compare(others, op)?.unbind())
    }

    pub(super) fn described(slf: &Bound<'_, Self>) -> PyResult<String> {
        let py = slf.py();
        let name = slf.get_type().qualname()?;
        let bound = |bound: Option<u64>| bound.map_or("None".to_owned(), |bound| bound.to_string());
        let (config, entries, bytes) =
            slf.get().look(py, |state| (*state.cache.config(), state.cache.len(), state.cache.bytes()))?;
        Ok(format!(
            "{name}(max_entries={}, max_bytes={}, policy='{}', entries={entries}, bytes={bytes})",
            bound(config.max_entries),
            bound(config.max_bytes),
            policy_name(config.policy),
        ))
    }

    pub(super) fn counters<'py>(&self, py: Python<'py>) -> PyResult<Bound<'py, PyDict>> {
        let counted = |state: &mut State| {
            let cache = &state.cache;
            (cache.stats(), cache.bytes(), cache.len(), state.loads, state.load_seconds)
        };
        let (stats, bytes, entries, loads, load_seconds) = self.look(py, counted)?;
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
