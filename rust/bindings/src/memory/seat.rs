//! A task's place in a flight.

use std::sync::OnceLock;

use pyo3::PyTraverseError;
use pyo3::exceptions::{PyBaseException, PyException, PyRuntimeError};
use pyo3::gc::PyVisit;
use pyo3::prelude::*;

use super::cache::LRUCache;
use super::flight::{Caller, Edge, Flight, Outcome};
use super::guard::Guarded;
use super::key::{KeptKey, Key};
use super::settings::{self, Argument};

/// A task's place in a flight, as a context manager: entering joins, and leaving, however it comes about, leaves.
/// In Python code an exception can come up between any two steps, but not between those of a `with`.
#[pyclass(frozen, module = "zerocost._kernels")]
pub(crate) struct Seat {
    cache: Py<LRUCache>,
    key: KeptKey,
    hash: u64,
    who: Caller,
    /// Once it is entered: the flight, and whether this is its leader.
    joined: OnceLock<(Py<Flight>, bool)>,
    landed: OnceLock<Py<PyAny>>,
    edge: Guarded<Option<Edge>>,
}

impl Seat {
    fn flight<'py>(&self, py: Python<'py>) -> PyResult<(&Bound<'py, Flight>, bool)> {
        let joined = self.joined.get().map(|(flight, leads)| (flight.bind(py), *leads));
        joined.ok_or_else(|| PyRuntimeError::new_err("the seat was not entered"))
    }

    fn key<'a, 'py>(&'a self, py: Python<'py>) -> Key<'a, 'py> {
        self.key.hashed(py, self.hash)
    }
}

#[pymethods]
impl Seat {
    #[new]
    fn new(cache: Py<LRUCache>, key: &Bound<'_, PyAny>, task: Option<&Bound<'_, PyAny>>) -> PyResult<Self> {
        let key = Key::new(key)?;
        Ok(Self {
            cache,
            key: key.kept(),
            hash: key.hash(),
            who: Caller::new(task),
            joined: OnceLock::new(),
            landed: OnceLock::new(),
            edge: Guarded::new(None),
        })
    }

    fn __enter__<'py>(slf: &Bound<'py, Self>) -> PyResult<Bound<'py, Self>> {
        let (py, seat) = (slf.py(), slf.get());
        let (flight, leads) = seat.cache.get().join(&seat.key(py), seat.who)?;
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
        self.cache.get().leave(&self.key(py), flight, outcome)
    }

    /// True for who computes, False for who waits.
    #[getter]
    fn leads(&self, py: Python<'_>) -> PyResult<bool> {
        Ok(self.flight(py)?.1)
    }

    /// Stores what was computed and returns what the callers get.
    fn land<'py>(&self, value: &Bound<'py, PyAny>, ttl: Argument<'_, 'py>) -> PyResult<Py<PyAny>> {
        let py = value.py();
        let (flight, _) = self.flight(py)?;
        let result = self.cache.get().land(&self.key(py), value, settings::ttl(ttl)?, flight.get())?;
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
        visit.call(self.key.object())?;
        visit.call(self.landed.get())?;
        visit.call(self.joined.get().map(|(flight, _)| flight))
    }
}
