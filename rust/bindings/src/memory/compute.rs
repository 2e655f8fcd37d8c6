//! Single flight: one computation per key, for threads here and for tasks in `zerocost.artifacts.memory.flights`.

use std::time::Instant;

use pyo3::prelude::*;
use zerocost_kernels::memory::{Cache, Ttl};

use super::cache::LRUCache;
use super::entry::Entry;
use super::flight::{Caller, Computing, Flight, Outcome};
use super::flights::flight_of;
use super::key::Key;
use super::operations::Stored;

impl LRUCache {
    /// The flight for `key`, and whether the caller leads it. One that has ended and is still in the table, as its
    /// leader could not find it there, is nobody's.
    pub(super) fn join<'py>(&self, key: &Key<'_, 'py>, who: Caller) -> PyResult<(Bound<'py, Flight>, bool)> {
        let py = key.object().py();
        let own = Bound::new(py, Flight::new(who))?;
        let is_open = |cache: &mut Cache<Entry>, slot: Option<u32>| {
            let flight = slot.and_then(|slot| flight_of(py, cache.entry(slot)));
            flight.is_some_and(|flight| flight.get().is_open(py))
        };
        match self.flights(py)?.get().store(key, own.as_any(), Ttl::Default, is_open)? {
            Stored::Kept(Some(flight)) => Ok((flight.into_bound(py).cast_into::<Flight>()?, false)),
            Stored::Kept(None) | Stored::Now | Stored::TooLarge => Ok((own, true)),
        }
    }

    /// The leader's flight is over.
    pub(super) fn leave(&self, key: &Key<'_, '_>, flight: &Bound<'_, Flight>, outcome: Outcome) -> PyResult<()> {
        let py = flight.py();
        let woken = flight.get().finish(py, outcome);
        let taken = self.flights(py).and_then(|table| table.get().take(key, Some(flight.as_any())).map(drop));
        woken.and(taken)
    }

    /// The value of a key that was missed, from a flight in progress or from `load`.
    pub(super) fn compute<'py>(&self, key: &Key<'_, 'py>, load: &Bound<'py, PyAny>, ttl: Ttl) -> PyResult<Py<PyAny>> {
        let py = load.py();
        loop {
            let (flight, leads) = self.join(key, Caller::new(None))?;
            if leads {
                // No signal handler runs between these lines.
                let computing = Computing::new();
                let result = self.lead(key, load, ttl, &flight);
                drop(computing);
                let left = self.leave(key, &flight, Outcome::of(py, &result));
                return result.and_then(|value| left.map(|()| value));
            }
            if let Some(value) = Flight::wait(&flight)? {
                return Ok(value);
            }
        }
    }

    fn lead<'py>(
        &self,
        key: &Key<'_, 'py>,
        load: &Bound<'py, PyAny>,
        ttl: Ttl,
        flight: &Bound<'py, Flight>,
    ) -> PyResult<Py<PyAny>> {
        // Another flight may have landed since the miss.
        if let Some(value) = self.look_at(key)? {
            return Ok(value);
        }
        let started = Instant::now();
        let value = load.call0();
        self.loaded(load.py(), started.elapsed().as_secs_f64());
        self.land(key, &value?, ttl, flight.get())
    }

    /// Counts a load, also one that brought nothing.
    pub(super) fn loaded(&self, py: Python<'_>, seconds: f64) {
        // One whose computation ran has been initialised.
        let _ = self.with(py, |state| {
            state.loads += 1;
            state.load_seconds += seconds;
        });
    }

    /// Stores what a flight brought, unless it was superseded. Returns what the callers get: the value that is resident
    /// in the end, or the flight's if it was not stored.
    pub(super) fn land<'py>(
        &self,
        key: &Key<'_, 'py>,
        value: &Bound<'py, PyAny>,
        ttl: Ttl,
        flight: &Flight,
    ) -> PyResult<Py<PyAny>> {
        // The key was absent when the flight began: one that is resident was put.
        let keep = |_: &mut Cache<_>, slot: Option<u32>| slot.is_some() || flight.superseded();
        match self.store(key, value, ttl, keep)? {
            Stored::Kept(Some(resident)) => Ok(resident),
            Stored::Now => Ok(self.look_at(key)?.unwrap_or_else(|| value.clone().unbind())),
            Stored::Kept(None) | Stored::TooLarge => Ok(value.clone().unbind()),
        }
    }
}
