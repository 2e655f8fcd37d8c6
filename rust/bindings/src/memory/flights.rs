//! The table of flights: which keys are being computed, so that a put or a delete meanwhile wins.

use pyo3::prelude::*;
use zerocost_kernels::memory::Config;

use super::cache::{LRUCache, State};
use super::entry::Entry;
use super::flight::Flight;
use super::key::{Equality, Key};
use super::settings::Settings;

/// What an entry of the table holds.
pub(super) fn flight_of<'a, 'py>(py: Python<'py>, entry: &'a Entry) -> Option<&'a Bound<'py, Flight>> {
    entry.value.bind(py).cast::<Flight>().ok()
}

impl State {
    /// True while nothing is computed.
    #[inline]
    pub(super) fn is_calm(&self, py: Python<'_>) -> bool {
        self.flights.as_ref().is_none_or(|(_, table)| {
            table.get().state.with(py, |table| table.as_ref().is_none_or(|table| table.cache.is_empty()))
        })
    }

    /// `key` is put or deleted: a flight that is under way will not store its result. Where only Python can tell
    /// whether a flight is the key's, it is taken for it: what it brings is still returned.
    pub(super) fn supersede(&self, key: &Key<'_, '_>) {
        let py = key.object().py();
        let Some((_, table)) = &self.flights else { return };
        table.get().state.with(py, |table| {
            let Some(table) = table else { return };
            table.cache.find(key.hash(), |_, entry| {
                if !matches!(key.equality(&entry.key), Equality::Different) {
                    flight_of(py, entry).inspect(|flight| flight.get().supersede());
                }
                false
            });
        });
    }

    /// As [`State::supersede`], for every key.
    pub(super) fn supersede_all(&self, py: Python<'_>) {
        let Some((_, table)) = &self.flights else { return };
        table.get().state.with(py, |table| {
            let entries = table.iter().flat_map(|table| table.cache.entries());
            entries.filter_map(|entry| flight_of(py, entry)).for_each(|flight| flight.get().supersede());
        });
    }
}

impl LRUCache {
    /// The table of flights of this process; a fork leaves the parent's behind.
    pub(super) fn flights(&self, py: Python<'_>) -> PyResult<Py<LRUCache>> {
        let process = std::process::id();
        let known = |state: &mut State| match &state.flights {
            Some((owner, table)) if *owner == process => Some(table.clone_ref(py)),
            _ => None,
        };
        if let Some(table) = self.with(py, known)? {
            return Ok(table);
        }
        let fresh = Py::new(py, Self::blank())?;
        fresh.get().begin(py, Config { max_entries: Some(u64::MAX), ..Config::default() }, Settings::default())?;
        // What is left over is dropped here, not under the lock.
        let (table, _parents) = self.with(py, |state| match known(state) {
            Some(table) => (table, None),
            None => (fresh.clone_ref(py), state.flights.replace((process, fresh.clone_ref(py)))),
        })?;
        Ok(table)
    }
}
