//! Single flight: one computation per key, for threads here and for tasks in `zerocost.artifacts.memory.flights`.

use std::sync::OnceLock;
use std::time::Instant;

use pyo3::PyTraverseError;
use pyo3::exceptions::{PyBaseException, PyException};
use pyo3::gc::PyVisit;
use pyo3::prelude::*;
use zerocost_kernels::memory::{Cache, Config, Ttl};

use super::entry::Entry;
use super::flight::{Computing, Edge, Flight, Outcome, Owner};
use super::guard::Guarded;
use super::key::{Key, Kind, Same};
use super::{Inner, LRUCache, Stored, settings};

impl Inner {
    /// True while nothing is computed.
    #[inline]
    pub(super) fn is_calm(&self, py: Python<'_>) -> bool {
        self.flights.as_ref().is_none_or(|(_, table)| {
            table.get().inner.with(py, |table| table.cache.as_ref().is_none_or(Cache::is_empty))
        })
    }

    /// `key` is put or deleted: a flight that is under way will not store its result. Where only Python can tell
    /// whether a flight is the key's, it is taken for it: what it brings is still returned.
    pub(super) fn supersede(&self, key: &Key<'_, '_>) {
        let py = key.object.py();
        let Some((_, table)) = &self.flights else { return };
        table.get().inner.with(py, |table| {
            let Some(cache) = &table.cache else { return };
            cache.find(key.hash, |_, entry| {
                if !matches!(key.same(&entry.key, entry.kind), Same::No) {
                    flight_of(py, entry).inspect(|flight| flight.get().supersede());
                }
                false
            });
        });
    }

    /// As [`Inner::supersede`], for every key.
    pub(super) fn supersede_all(&self, py: Python<'_>) {
        let Some((_, table)) = &self.flights else { return };
        table.get().inner.with(py, |table| {
            let entries = table.cache.iter().flat_map(Cache::entries);
            entries.filter_map(|entry| flight_of(py, entry)).for_each(|flight| flight.get().supersede());
        });
    }
}

/// What an entry of the table of flights holds.
fn flight_of<'a, 'py>(py: Python<'py>, entry: &'a Entry) -> Option<&'a Bound<'py, Flight>> {
    entry.value.bind(py).cast::<Flight>().ok()
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
        // What is left over is dropped here, not under the lock.
        let (table, _parents) = self.inner.with(py, |inner| match known(inner) {
            Some(table) => (table, None),
            None => (fresh.clone_ref(py), inner.flights.replace((process, fresh.clone_ref(py)))),
        });
        Ok(table)
    }

    /// The flight for `key`, and whether the caller leads it. One that has ended and is still in the table, as its
    /// leader could not find it there, is nobody's.
    fn join<'py>(&self, key: &Key<'_, 'py>, who: Owner) -> PyResult<(Bound<'py, Flight>, bool)> {
        let py = key.object.py();
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
    fn leave(&self, key: &Key<'_, '_>, flight: &Bound<'_, Flight>, outcome: Outcome) -> PyResult<()> {
        let py = flight.py();
        let woken = flight.get().finish(py, outcome);
        let taken = self.flights(py).and_then(|table| table.get().take(key, Some(flight.as_any())).map(drop));
        woken.and(taken)
    }

    /// The value of a key that was missed, from a flight in progress or from `load`.
    pub(super) fn compute<'py>(&self, key: &Key<'_, 'py>, load: &Bound<'py, PyAny>, ttl: Ttl) -> PyResult<Py<PyAny>> {
        let py = load.py();
        loop {
            let (flight, leads) = self.join(key, Owner::new(None))?;
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
    fn loaded(&self, py: Python<'_>, seconds: f64) {
        self.inner.with(py, |inner| {
            inner.loads += 1;
            inner.load_seconds += seconds;
        });
    }

    /// Stores what a flight brought, unless it was superseded. Returns what the callers get: the value that is resident
    /// in the end, or the flight's if it was not stored.
    fn land<'py>(
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

/// A task's place in a flight, as a context manager: entering joins, and leaving, however it comes about, leaves.
/// In Python code an exception can come up between any two steps, but not between those of a `with`.
#[pyclass(frozen, module = "zerocost._kernels")]
pub(crate) struct Seat {
    cache: Py<LRUCache>,
    key: Py<PyAny>,
    hash: u64,
    kind: Kind,
    who: Owner,
    /// Once it is entered: the flight, and whether this is its leader.
    joined: OnceLock<(Py<Flight>, bool)>,
    landed: OnceLock<Py<PyAny>>,
    edge: Guarded<Option<Edge>>,
}

impl Seat {
    fn flight<'py>(&self, py: Python<'py>) -> PyResult<(&Bound<'py, Flight>, bool)> {
        let joined = self.joined.get().map(|(flight, leads)| (flight.bind(py), *leads));
        joined.ok_or_else(|| pyo3::exceptions::PyRuntimeError::new_err("the seat was not entered"))
    }

    fn with_key<R>(&self, py: Python<'_>, work: impl FnOnce(&Key<'_, '_>) -> R) -> R {
        work(&Key { object: self.key.bind(py), hash: self.hash, kind: self.kind })
    }
}

#[pymethods]
impl Seat {
    #[new]
    fn new(cache: Py<LRUCache>, key: &Bound<'_, PyAny>, task: Option<&Bound<'_, PyAny>>) -> PyResult<Self> {
        let Key { hash, kind, .. } = Key::new(key)?;
        Ok(Self {
            cache,
            key: key.clone().unbind(),
            hash,
            kind,
            who: Owner::new(task),
            joined: OnceLock::new(),
            landed: OnceLock::new(),
            edge: Guarded::new(None),
        })
    }

    fn __enter__<'py>(slf: &Bound<'py, Self>) -> PyResult<Bound<'py, Self>> {
        let (py, seat) = (slf.py(), slf.get());
        let key = Key { object: seat.key.bind(py), hash: seat.hash, kind: seat.kind };
        let (flight, leads) = seat.cache.get().join(&key, seat.who)?;
        let _ = seat.joined.set((flight.unbind(), leads));
        Ok(slf.clone())
    }

    fn __exit__(
        &self,
        py: Python<'_>,
        _kind: &Bound<'_, PyAny>,
        error: &Bound<'_, PyAny>,
        _traceback: &Bound<'_, PyAny>,
    ) -> PyResult<()> {
        drop(self.edge.with(py, Option::take));
        let (flight, leads) = self.flight(py)?;
        if !leads {
            return Ok(());
        }
        let outcome = match (self.landed.get(), error.cast::<PyBaseException>()) {
            (Some(value), _) => Outcome::Value(value.clone_ref(py)),
            (None, Ok(error)) if error.is_instance_of::<PyException>() => Outcome::Error(error.clone().unbind()),
            (None, _) => Outcome::GivenUp,
        };
        self.with_key(py, |key| self.cache.get().leave(key, flight, outcome))
    }

    /// True for who computes, False for who waits.
    #[getter]
    fn leads(&self, py: Python<'_>) -> PyResult<bool> {
        Ok(self.flight(py)?.1)
    }

    /// Stores what was computed and returns what the callers get.
    fn land<'py>(&self, value: &Bound<'py, PyAny>, ttl: Option<&Bound<'py, PyAny>>) -> PyResult<Py<PyAny>> {
        let py = value.py();
        let (flight, _) = self.flight(py)?;
        let key = Key { object: self.key.bind(py), hash: self.hash, kind: self.kind };
        let result = self.cache.get().land(&key, value, settings::ttl(ttl)?, flight.get())?;
        Ok(self.landed.get_or_init(|| result).clone_ref(py))
    }

    /// Counts a load.
    fn loaded(&self, py: Python<'_>, seconds: f64) {
        self.cache.get().loaded(py, seconds);
    }

    /// Has `wake` called, on any thread, once the flight is over; False if it is over.
    ///
    /// Raises:
    ///     RuntimeError: the task would wait for itself, directly or through others.
    fn wait(&self, wake: &Bound<'_, PyAny>) -> PyResult<bool> {
        let py = wake.py();
        let (flight, _) = self.flight(py)?;
        let edge = Edge::new(flight, self.who)?;
        drop(self.edge.with(py, |old| old.replace(edge)));
        Ok(flight.get().call_when_done(wake))
    }

    /// What the flight brought; the default if its leader gave up.
    fn outcome<'py>(&self, default: &Bound<'py, PyAny>) -> PyResult<Py<PyAny>> {
        let (flight, _) = self.flight(default.py())?;
        Ok(flight.get().outcome(default.py())?.unwrap_or_else(|| default.clone().unbind()))
    }

    fn __traverse__(&self, visit: PyVisit<'_>) -> Result<(), PyTraverseError> {
        visit.call(&self.cache)?;
        visit.call(&self.key)?;
        visit.call(self.landed.get())?;
        visit.call(self.joined.get().map(|(flight, _)| flight))
    }
}
