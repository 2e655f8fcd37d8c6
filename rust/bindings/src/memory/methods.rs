//! The methods that Python sees.

use pyo3::basic::CompareOp;
use pyo3::exceptions::PyKeyError;
use pyo3::gc::PyVisit;
use pyo3::prelude::*;
use pyo3::sync::PyOnceLock;
use pyo3::types::{PyDict, PyIterator, PyList, PyTuple, PyType};
use pyo3::{PyTraverseError, intern};
use zerocost_kernels::memory::{Config, Timing, Ttl};

use super::cache::{LRUCache, State};
use super::key::Key;
use super::settings::{self, Argument, Settings};
use super::weigh::Weighing;

#[pymethods]
impl LRUCache {
    #[new]
    #[pyo3(signature = (*_args, **_kwargs))]
    fn new(_args: &Bound<'_, PyTuple>, _kwargs: Option<&Bound<'_, PyDict>>) -> Self {
        Self::blank()
    }

    #[pyo3(signature = (max_entries=None, max_bytes=None, *, ttl=None, tti=None, ttl_jitter=0.0, policy="lru",
                        on_evict=None, sizeof=None, freeze=false, clock=None))]
    #[expect(clippy::too_many_arguments, reason = "keyword-only options of a Python class")]
    fn __init__(
        &self,
        py: Python<'_>,
        max_entries: Argument<'_, '_>,
        max_bytes: Argument<'_, '_>,
        ttl: Argument<'_, '_>,
        tti: Argument<'_, '_>,
        #[pyo3(from_py_with = settings::jitter)] ttl_jitter: f64,
        policy: &str,
        on_evict: Argument<'_, '_>,
        sizeof: Argument<'_, '_>,
        freeze: bool,
        clock: Argument<'_, '_>,
    ) -> PyResult<()> {
        let time = |name, value: Argument<'_, '_>| match value {
            Some(value) => settings::seconds(name, value),
            None => Ok(None),
        };
        let config = Config {
            max_entries: settings::bound("max_entries", max_entries)?,
            max_bytes: settings::bound("max_bytes", max_bytes)?,
            timing: Timing { ttl: time("ttl", ttl)?, tti: time("tti", tti)?, jitter: ttl_jitter },
            policy: settings::policy(policy)?,
            // Different caches, here and in other processes, draw different times.
            seed: std::ptr::from_ref(self) as u64 ^ u64::from(std::process::id()) << 48,
        };
        let weighing = match settings::callable("sizeof", sizeof)? {
            Some(sizeof) => Weighing::Asked(sizeof),
            None if config.max_bytes.is_some() => Weighing::Native,
            None => Weighing::Nothing,
        };
        let (on_evict, clock) = (settings::callable("on_evict", on_evict)?, settings::callable("clock", clock)?);
        self.begin(py, config, Settings { weighing, on_evict, clock, freeze })
    }

    /// The value of a key, or the default; counts, and is a use of the entry.
    #[pyo3(signature = (key, default=None))]
    fn get<'py>(&self, key: &Bound<'py, PyAny>, default: Option<Bound<'py, PyAny>>) -> PyResult<Py<PyAny>> {
        Ok(match self.look_up(&Key::new(key)?)? {
            Some(value) => value,
            None => default.map_or_else(|| key.py().None(), Bound::unbind),
        })
    }

    fn __getitem__(slf: &Bound<'_, Self>, key: &Bound<'_, PyAny>) -> PyResult<Py<PyAny>> {
        match slf.get().look_up(&Key::new(key)?)? {
            Some(value) => Ok(value),
            None => Self::missing(slf, key),
        }
    }

    fn __setitem__(&self, key: &Bound<'_, PyAny>, value: &Bound<'_, PyAny>) -> PyResult<()> {
        self.set_item(key, value)
    }

    fn __delitem__(&self, key: &Bound<'_, PyAny>) -> PyResult<()> {
        self.take(&Key::new(key)?, None)?.map(drop).ok_or_else(|| PyKeyError::new_err((key.clone().unbind(),)))
    }

    fn __contains__(&self, key: &Bound<'_, PyAny>) -> PyResult<bool> {
        Ok(self.look_at(&Key::new(key)?)?.is_some())
    }

    fn __len__(&self, py: Python<'_>) -> PyResult<usize> {
        self.look(py, |state| state.cache.len())
    }

    fn __iter__<'py>(&self, py: Python<'py>) -> PyResult<Bound<'py, PyIterator>> {
        self.list_keys(py)?.try_iter()
    }

    fn __reversed__<'py>(&self, py: Python<'py>) -> PyResult<Bound<'py, PyIterator>> {
        let keys = self.list_keys(py)?;
        keys.reverse()?;
        keys.try_iter()
    }

    fn __richcmp__(slf: &Bound<'_, Self>, other: &Bound<'_, PyAny>, op: CompareOp) -> PyResult<Py<PyAny>> {
        Self::compared(slf, other, op)
    }

    fn __repr__(slf: &Bound<'_, Self>) -> PyResult<String> {
        Self::described(slf)
    }

    #[classmethod]
    fn __class_getitem__<'py>(kind: &Bound<'py, PyType>, item: &Bound<'py, PyAny>) -> PyResult<Bound<'py, PyAny>> {
        kind.py().import(intern!(kind.py(), "types"))?.call_method1(intern!(kind.py(), "GenericAlias"), (kind, item))
    }

    /// Stores a value; False if it weighs more than the whole cache: then nothing changes.
    ///
    /// `ttl` in seconds overrides the cache's; `math.inf` is never. Under "w-tinylfu" an entry that is stored may be
    /// the next that goes.
    #[pyo3(signature = (key, value, ttl=None))]
    fn put(&self, key: &Bound<'_, PyAny>, value: &Bound<'_, PyAny>, ttl: Argument<'_, '_>) -> PyResult<bool> {
        self.put_key(&Key::new(key)?, value, settings::ttl(ttl)?)
    }

    /// Stores a value, or removes the key for `absent`, if `found` is what is stored now, where `absent` stands for
    /// nothing. None if something else is; False if nothing could be removed, or the value is too large.
    #[pyo3(signature = (key, found, value, absent, ttl=None))]
    fn _exchange(
        &self,
        key: &Bound<'_, PyAny>,
        found: &Bound<'_, PyAny>,
        value: &Bound<'_, PyAny>,
        absent: &Bound<'_, PyAny>,
        ttl: Argument<'_, '_>,
    ) -> PyResult<Option<bool>> {
        let ttl = settings::ttl(ttl)?;
        self.exchange(&Key::new(key)?, found, (!value.is(absent)).then_some(value), absent, ttl)
    }

    /// The value of a key, or the default; neither counts nor is a use.
    #[pyo3(signature = (key, default=None))]
    fn peek<'py>(&self, key: &Bound<'py, PyAny>, default: Option<Bound<'py, PyAny>>) -> PyResult<Py<PyAny>> {
        Ok(match self.look_at(&Key::new(key)?)? {
            Some(value) => value,
            None => default.map_or_else(|| key.py().None(), Bound::unbind),
        })
    }

    /// Removes a key and returns its value, or the default; KeyError without one.
    #[pyo3(signature = (key, /, *default))]
    fn pop<'py>(&self, key: &Bound<'py, PyAny>, default: &Bound<'py, PyTuple>) -> PyResult<Py<PyAny>> {
        if default.len() > 1 {
            let text = format!("pop expected at most 2 arguments, got {}", default.len() + 1);
            return Err(pyo3::exceptions::PyTypeError::new_err(text));
        }
        match self.take(&Key::new(key)?, None)? {
            Some(value) => Ok(value),
            None if default.is_empty() => Err(PyKeyError::new_err((key.clone().unbind(),))),
            None => Ok(default.get_item(0)?.unbind()),
        }
    }

    /// Removes the policy's next victim and returns it as (key, value); KeyError if the cache is empty.
    fn popitem(&self, py: Python<'_>) -> PyResult<(Py<PyAny>, Py<PyAny>)> {
        self.take_next(py)?.ok_or_else(|| PyKeyError::new_err("popitem(): the cache is empty"))
    }

    /// The value of a key; stores the default and returns it if there is none. A look-up that counts.
    #[pyo3(signature = (key, default=None))]
    fn setdefault<'py>(&self, key: &Bound<'py, PyAny>, default: Option<Bound<'py, PyAny>>) -> PyResult<Py<PyAny>> {
        let default = default.unwrap_or_else(|| key.py().None().into_bound(key.py()));
        self.get_or_put(&Key::new(key)?, default)
    }

    /// Stores every item of a mapping or of an iterable of pairs, and every keyword.
    #[pyo3(signature = (other=None, /, **kwargs))]
    fn update(&self, py: Python<'_>, other: Argument<'_, '_>, kwargs: Option<&Bound<'_, PyDict>>) -> PyResult<()> {
        self.put_all(py, other, kwargs)
    }

    /// Removes everything; counters stay.
    fn clear(&self, py: Python<'_>) -> PyResult<()> {
        self.take_all(py)
    }

    /// The keys, as a view: next victim first for LRU, in order of insertion otherwise. Iteration works on a snapshot.
    fn keys<'py>(slf: &Bound<'py, Self>) -> PyResult<Bound<'py, PyAny>> {
        static VIEW: PyOnceLock<Py<PyAny>> = PyOnceLock::new();
        VIEW.import(slf.py(), "zerocost.artifacts.memory.views", "KeysView")?.call1((slf,))
    }

    /// The values, as a view; looking at it is no use of the entries.
    fn values<'py>(slf: &Bound<'py, Self>) -> PyResult<Bound<'py, PyAny>> {
        static VIEW: PyOnceLock<Py<PyAny>> = PyOnceLock::new();
        VIEW.import(slf.py(), "zerocost.artifacts.memory.views", "ValuesView")?.call1((slf,))
    }

    /// The (key, value) pairs, as a view; looking at it is no use of the entries.
    fn items<'py>(slf: &Bound<'py, Self>) -> PyResult<Bound<'py, PyAny>> {
        static VIEW: PyOnceLock<Py<PyAny>> = PyOnceLock::new();
        VIEW.import(slf.py(), "zerocost.artifacts.memory.views", "ItemsView")?.call1((slf,))
    }

    /// Counters by name: hits, misses, loads, load_seconds, evictions (a dict by cause), rejected, bytes, entries.
    fn stats<'py>(&self, py: Python<'py>) -> PyResult<Bound<'py, PyDict>> {
        self.counters(py)
    }

    /// At most this many entries; None without that bound.
    #[getter]
    fn max_entries(&self, py: Python<'_>) -> PyResult<Option<u64>> {
        self.with(py, |state| state.cache.config().max_entries)
    }

    /// At most this many bytes; None without that bound.
    #[getter]
    fn max_bytes(&self, py: Python<'_>) -> PyResult<Option<u64>> {
        self.with(py, |state| state.cache.config().max_bytes)
    }

    /// "lru", "sieve" or "w-tinylfu".
    #[getter]
    fn policy(&self, py: Python<'_>) -> PyResult<&'static str> {
        self.with(py, |state| settings::policy_name(state.cache.config().policy))
    }

    /// The value of a key; calls fn() and stores what it returns if there is none.
    ///
    /// Threads that ask for the same key meanwhile wait for that one call. What it raises goes to all of them and is
    /// not stored. A put during the call wins; after a delete the result is returned but not stored.
    ///
    /// Raises:
    ///     RuntimeError: the call would wait for itself, directly or through others.
    #[pyo3(signature = (key, r#fn, ttl=None))]
    fn get_or_compute<'py>(
        &self,
        key: &Bound<'py, PyAny>,
        r#fn: &Bound<'py, PyAny>,
        ttl: Argument<'_, 'py>,
    ) -> PyResult<Py<PyAny>> {
        let (key, ttl) = (Key::new(key)?, settings::ttl(ttl)?);
        match self.look_up(&key)? {
            Some(value) => Ok(value),
            None => self.compute(&key, r#fn, ttl),
        }
    }

    /// As `get_or_compute`, in a coroutine; what fn() returns is awaited if it can be.
    #[pyo3(signature = (key, r#fn, ttl=None))]
    fn aget_or_compute<'py>(
        slf: &Bound<'py, Self>,
        key: &Bound<'py, PyAny>,
        r#fn: &Bound<'py, PyAny>,
        ttl: Argument<'_, 'py>,
    ) -> PyResult<Bound<'py, PyAny>> {
        settings::ttl(ttl)?;
        static COMPUTE: PyOnceLock<Py<PyAny>> = PyOnceLock::new();
        COMPUTE.import(slf.py(), "zerocost.artifacts.memory.flights", "acompute")?.call1((slf, key, r#fn, ttl))
    }

    /// Writes every entry to one safetensors file: str keys, array or bytes values; no pickle.
    ///
    /// Order and remaining time to live are kept; time stands still while stored. The file is written beside and
    /// renamed.
    ///
    /// Raises:
    ///     DatatypeError: an entry that cannot be stored, by its key; nothing is written.
    fn snapshot(slf: &Bound<'_, Self>, path: &Bound<'_, PyAny>) -> PyResult<()> {
        slf.py().import("zerocost.artifacts.memory.snapshots")?.call_method1("write", (slf, path)).map(drop)
    }

    /// Puts every entry of a snapshot, in its order and with what remained of its time. Returns the keys of the
    /// entries that are larger than this whole cache, which are left out.
    ///
    /// Raises:
    ///     InvalidInput: the file is truncated, foreign or newer; the cache stays as it is.
    fn restore<'py>(slf: &Bound<'py, Self>, path: &Bound<'py, PyAny>) -> PyResult<Bound<'py, PyAny>> {
        slf.py().import("zerocost.artifacts.memory.snapshots")?.call_method1("read", (slf, path))
    }

    // What the package's own modules need of a cache.

    /// The values, or the items, as a list.
    fn _list<'py>(&self, py: Python<'py>, part: &str) -> PyResult<Bound<'py, PyList>> {
        if part == "values" { self.list_values(py) } else { self.list_items(py) }
    }

    /// Every entry as (key, value, seconds to live, seconds to idle); infinite where there is no end.
    fn _lifetimes<'py>(&self, py: Python<'py>) -> PyResult<Bound<'py, PyList>> {
        self.list_saved(py)
    }

    /// Puts entries as `_lifetimes` gives them; returns the keys of those that are larger than the whole cache.
    fn _restore<'py>(&self, entries: &Bound<'py, PyList>) -> PyResult<Bound<'py, PyList>> {
        self.put_saved(entries)
    }

    /// The value of a key; calls fn() and stores what it returns if there is none, without single flight.
    fn _compute<'py>(&self, key: &Bound<'py, PyAny>, r#fn: &Bound<'py, PyAny>) -> PyResult<Py<PyAny>> {
        let key = Key::new(key)?;
        if let Some(value) = self.look_up(&key)? {
            return Ok(value);
        }
        let value = r#fn.call0()?;
        // A call with the same arguments may have come first; it stays, as in functools.
        self.store(&key, &value, Ttl::Default, |_, slot| slot.is_some())?;
        Ok(value.unbind())
    }

    /// The computations in progress, by key.
    #[pyo3(name = "_flights")]
    fn flights_(&self, py: Python<'_>) -> PyResult<Py<Self>> {
        self.flights(py)
    }

    fn __traverse__(&self, visit: PyVisit<'_>) -> Result<(), PyTraverseError> {
        let look = |state: &Option<State>| {
            let Some(state) = state else { return Ok(()) };
            state.settings.traverse(&visit)?;
            visit.call(state.flights.as_ref().map(|(_, flights)| flights))?;
            if state.tracks { state.cache.entries().try_for_each(|entry| entry.traverse(&visit)) } else { Ok(()) }
        };
        // SAFETY: this is `tp_traverse`.
        unsafe { self.state.traverse(look) }
    }

    fn __clear__(&self) {
        Python::attach(|py| {
            // Out of the cache first, dropped when the lock is free.
            let _dropped =
                self.with(py, |state| (state.cache.clear(), std::mem::take(&mut state.settings), state.flights.take()));
        });
    }
}
