//! Single flight: the table of computations in progress. What flies, and who waits for whom, is decided in
//! `zerocost.artifacts.memory.flights`.

use std::sync::atomic::{AtomicBool, Ordering};

use pyo3::prelude::*;
use pyo3::types::PyTuple;
use zerocost_kernels::memory::{Cache, Config, Ttl};

use super::guard::Guarded;
use super::key::Key;
use super::{Inner, LRUCache, Stored};

/// A computation in progress. Its result is not stored if the key was put or deleted meanwhile.
#[pyclass(frozen, subclass, module = "zerocost._kernels")]
#[derive(Default)]
pub(crate) struct Flight {
    superseded: AtomicBool,
}

#[pymethods]
impl Flight {
    #[new]
    #[pyo3(signature = (*_args))]
    fn new(_args: &Bound<'_, PyTuple>) -> Self {
        Self::default()
    }

    /// True once the key was put or deleted during the flight.
    #[getter]
    fn superseded(&self) -> bool {
        self.superseded.load(Ordering::SeqCst)
    }
}

impl LRUCache {
    /// The table of flights of this process; a fork leaves the parent's behind.
    pub(super) fn flights(&self, py: Python<'_>) -> PyResult<Py<LRUCache>> {
        let process = std::process::id();
        let known = |inner: &mut Inner| match &inner.flights {
            Some((owner, table)) if *owner == process => Some(table.clone_ref(py)),
            _ => None,
        };
        if let Some(table) = self.inner.with(py, known) {
            return Ok(table);
        }
        let config = Config { max_entries: Some(u64::MAX), ..Config::default() };
        let cache = Cache::new(config).map_err(crate::error::KernelError::from)?;
        let fresh = Py::new(py, Self { inner: Guarded::new(Inner { cache: Some(cache), ..Inner::default() }) })?;
        let (table, _old) = self.inner.with(py, |inner| match known(inner) {
            Some(table) => (table, None),
            None => (fresh.clone_ref(py), inner.flights.replace((process, fresh))),
        });
        Ok(table)
    }

    /// A put or a delete of `key` begins: a flight that is under way will not store its result.
    #[inline]
    pub(super) fn supersede(&self, key: &Key<'_, '_>) -> PyResult<()> {
        let py = key.object.py();
        let flights = self.inner.with(py, |inner| inner.flights.as_ref().map(|(_, table)| table.clone_ref(py)));
        let Some(flights) = flights else { return Ok(()) };
        if let Some(flight) = flights.get().take(key, None)? {
            mark(flight.bind(py));
        }
        Ok(())
    }

    /// As [`LRUCache::supersede`], for every key.
    pub(super) fn supersede_all(&self, py: Python<'_>) -> PyResult<()> {
        let flights = self.inner.with(py, |inner| inner.flights.as_ref().map(|(_, table)| table.clone_ref(py)));
        let Some(flights) = flights else { return Ok(()) };
        let entries: Vec<_> = flights.get().look(py, Cache::clear)?.collect();
        entries.iter().for_each(|entry| mark(entry.value.bind(py)));
        Ok(())
    }

    /// Stores what a flight brought, unless it was superseded. Returns what the callers get: the value that is resident
    /// in the end, or the flight's if it was not stored.
    pub(super) fn land_flight<'py>(
        &self,
        key: &Key<'_, 'py>,
        value: &Bound<'py, PyAny>,
        ttl: Ttl,
        flight: &Bound<'py, Flight>,
    ) -> PyResult<Py<PyAny>> {
        // The key was absent when the flight began: one that is resident was put.
        let keep = |_: &mut Cache<_>, slot: Option<u32>| slot.is_some() || flight.get().superseded();
        match self.store(key, value, ttl, keep)? {
            Stored::Kept(Some(resident)) => Ok(resident),
            Stored::Now => Ok(self.look_at(key)?.unwrap_or_else(|| value.clone().unbind())),
            Stored::Kept(None) | Stored::TooLarge => Ok(value.clone().unbind()),
        }
    }
}

fn mark(flight: &Bound<'_, PyAny>) {
    if let Ok(flight) = flight.cast::<Flight>() {
        flight.get().superseded.store(true, Ordering::SeqCst);
    }
}
