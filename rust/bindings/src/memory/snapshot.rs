//! The entries at one moment, and putting them back.

use numpy::PyArray1;
use pyo3::call::PyCallArgs;
use pyo3::intern;
use pyo3::prelude::*;
use pyo3::types::PyList;
use zerocost_kernels::Error;
use zerocost_kernels::buffer::reserved;
use zerocost_kernels::memory::{Cache, Lifetime, NEVER, Ttl};

use super::cache::LRUCache;
use super::entry::Entry;
use super::key::Key;
use super::operations::Stored;
use super::settings::nanoseconds;
use crate::error::KernelError;

/// A key, its value, seconds to live and seconds to idle.
type SavedEntry<'py> = (Bound<'py, PyAny>, Bound<'py, PyAny>, f64, f64);

impl LRUCache {
    /// What `part` copies of each entry, in the order of the cache: under the lock, so without making a Python object.
    fn copied<T>(&self, py: Python<'_>, part: impl Fn(&Cache<Entry>, u32) -> T) -> PyResult<Vec<T>> {
        let copies: Result<_, Error> = self.look(py, |state| {
            let slots = state.cache.order()?;
            let mut copies = reserved(slots.len())?;
            copies.extend(slots.into_iter().map(|slot| part(&state.cache, slot)));
            Ok(copies)
        })?;
        Ok(copies.map_err(KernelError::from)?)
    }

    pub(super) fn list_keys<'py>(&self, py: Python<'py>) -> PyResult<Bound<'py, PyList>> {
        list(py, self.copied(py, |cache, slot| cache.entry(slot).key.object().clone_ref(py))?.into_iter())
    }

    pub(super) fn list_values<'py>(&self, py: Python<'py>) -> PyResult<Bound<'py, PyList>> {
        list(py, self.copied(py, |cache, slot| cache.entry(slot).value.clone_ref(py))?.into_iter())
    }

    pub(super) fn list_items<'py>(&self, py: Python<'py>) -> PyResult<Bound<'py, PyList>> {
        let item = |cache: &Cache<Entry>, slot| {
            let entry = cache.entry(slot);
            (entry.key.object().clone_ref(py), entry.value.clone_ref(py))
        };
        let items = self.copied(py, item)?;
        let keys = list(py, items.iter().map(|(key, _)| key.clone_ref(py)))?;
        let values = list(py, items.iter().map(|(_, value)| value.clone_ref(py)))?;
        tuples(py, (keys, values))
    }

    /// Every entry with what remains of its time; infinite where there is no end.
    pub(super) fn list_saved<'py>(&self, py: Python<'py>) -> PyResult<Bound<'py, PyList>> {
        let saved = |cache: &Cache<Entry>, slot| {
            let entry = cache.entry(slot);
            (entry.key.object().clone_ref(py), entry.value.clone_ref(py), cache.remaining(slot))
        };
        let saved = self.copied(py, saved)?;
        let keys = list(py, saved.iter().map(|(key, ..)| key.clone_ref(py)))?;
        let values = list(py, saved.iter().map(|(_, value, _)| value.clone_ref(py)))?;
        let live = seconds(py, saved.iter().map(|(_, _, rest)| rest.live))?;
        let idle = seconds(py, saved.iter().map(|(_, _, rest)| rest.idle))?;
        tuples(py, (keys, values, live, idle))
    }

    /// Puts entries with what remains of their time; returns the keys of those that are larger than the whole cache.
    /// What can fail comes before the first put, but for a lack of memory.
    pub(super) fn put_saved<'py>(&self, saved: &Bound<'py, PyList>) -> PyResult<Bound<'py, PyList>> {
        let py = saved.py();
        let refused = PyList::empty(py);
        let mut ready = reserved(saved.len()).map_err(KernelError::from)?;
        for entry in saved {
            let (key, value, live, idle) = entry.extract::<SavedEntry<'_>>()?;
            let nanoseconds = |seconds: f64| nanoseconds(seconds).max(1);
            let ttl = Ttl::Remaining(Lifetime { live: nanoseconds(live), idle: nanoseconds(idle) });
            let key = Key::new(&key)?;
            ready.push((key.kept(), key.hash(), self.prepare(&key, &value)?, ttl));
        }
        let now = self.time(py)?;
        for (key, hash, (value, weighed), ttl) in &ready {
            let key = key.hashed(py, *hash);
            if !matches!(self.store_weighed(&key, value, weighed, *ttl, now, |_, _| false)?, Stored::Now) {
                refused.append(key.object())?;
            }
        }
        Ok(refused)
    }
}

// A list can have more elements than there is memory for, and where pyo3 makes an object in vain it panics. So Python
// itself makes what is made once for each entry.

fn list<'py>(py: Python<'py>, items: impl ExactSizeIterator<Item = Py<PyAny>>) -> PyResult<Bound<'py, PyList>> {
    let list = PyList::new(py, [py.None()])?.as_sequence().repeat(items.len())?.cast_into::<PyList>()?;
    items.enumerate().try_for_each(|(index, item)| list.set_item(index, item))?;
    Ok(list)
}

fn seconds<'py>(py: Python<'py>, times: impl ExactSizeIterator<Item = i64>) -> PyResult<Bound<'py, PyAny>> {
    let mut seconds = reserved(times.len()).map_err(KernelError::from)?;
    seconds.extend(times.map(|time| if time == NEVER { f64::INFINITY } else { time as f64 / 1e9 }));
    PyArray1::from_vec(py, seconds).call_method0(intern!(py, "tolist"))
}

fn tuples<'py>(py: Python<'py>, columns: impl PyCallArgs<'py>) -> PyResult<Bound<'py, PyList>> {
    let tuples = py.import(intern!(py, "builtins"))?.getattr(intern!(py, "zip"))?.call1(columns)?;
    Ok(py.get_type::<PyList>().call1((tuples,))?.cast_into()?)
}
