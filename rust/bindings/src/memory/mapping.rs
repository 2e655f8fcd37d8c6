//! The methods that Python sees.

use pyo3::basic::CompareOp;
use pyo3::exceptions::{PyAttributeError, PyKeyError, PyRuntimeError, PyValueError};
use pyo3::gc::PyVisit;
use pyo3::prelude::*;
use pyo3::types::{PyDict, PyIterator, PyList, PyMapping, PyTuple, PyType};
use pyo3::{PyTraverseError, import_exception, intern};
use zerocost_kernels::memory::{Cache, Cause, Config, Lifetime, NEVER, Timing, Ttl};

use super::compute::Flight;
use super::entry::cause_name;
use super::guard::Guarded;
use super::key::Key;
use super::{Inner, LRUCache, Settings, Stored, Weighing, settings};
use crate::error::KernelError;

import_exception!(zerocost.errors, LimitExceeded);

type Argument<'a, 'py> = Option<&'a Bound<'py, PyAny>>;

/// A key, its value, seconds to live and seconds to idle.
type Aged = (Py<PyAny>, Py<PyAny>, f64, f64);

/// Which part of the entries a snapshot has.
#[derive(Clone, Copy)]
enum Part {
    Keys,
    Values,
    Items,
}

#[pymethods]
impl LRUCache {
    #[new]
    #[pyo3(signature = (*_args, **_kwargs))]
    fn new(_args: &Bound<'_, PyTuple>, _kwargs: Option<&Bound<'_, PyDict>>) -> Self {
        Self { inner: Guarded::new(Inner::default()) }
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
        ttl_jitter: f64,
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
        let fresh = Settings {
            weighing: match settings::callable("sizeof", sizeof)? {
                Some(sizeof) => Weighing::Asked(sizeof),
                None if config.max_bytes.is_some() => Weighing::Native,
                None => Weighing::Nothing,
            },
            on_evict: settings::callable("on_evict", on_evict)?,
            clock: settings::callable("clock", clock)?,
            freeze,
        };
        let cache = Cache::new(config).map_err(KernelError::from)?;
        let twice = self.inner.with(py, |inner| {
            if inner.cache.is_some() {
                return Some((cache, fresh));
            }
            inner.cache = Some(cache);
            inner.settings = fresh;
            None
        });
        match twice {
            Some(_) => Err(PyRuntimeError::new_err("LRUCache.__init__ was called twice")),
            None => Ok(()),
        }
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
        if self.put(key, value, None)? {
            return Ok(());
        }
        Err(self.too_large(key.py()))
    }

    fn __delitem__(&self, key: &Bound<'_, PyAny>) -> PyResult<()> {
        self.pop_value(key)?.map(drop).ok_or_else(|| PyKeyError::new_err((key.clone().unbind(),)))
    }

    fn __contains__(&self, key: &Bound<'_, PyAny>) -> PyResult<bool> {
        Ok(self.look_at(&Key::new(key)?)?.is_some())
    }

    fn __len__(&self, py: Python<'_>) -> PyResult<usize> {
        self.look(py, |cache| cache.len())
    }

    fn __iter__<'py>(&self, py: Python<'py>) -> PyResult<Bound<'py, PyIterator>> {
        self.snapshot_of(py, Part::Keys)?.try_iter()
    }

    fn __reversed__<'py>(&self, py: Python<'py>) -> PyResult<Bound<'py, PyIterator>> {
        let keys = self.snapshot_of(py, Part::Keys)?;
        keys.reverse()?;
        keys.try_iter()
    }

    fn __richcmp__(slf: &Bound<'_, Self>, other: &Bound<'_, PyAny>, op: CompareOp) -> PyResult<Py<PyAny>> {
        let py = slf.py();
        if !matches!(op, CompareOp::Eq | CompareOp::Ne) || other.cast::<PyMapping>().is_err() {
            return Ok(py.NotImplemented());
        }
        let own = PyDict::from_sequence(slf.get().snapshot_of(py, Part::Items)?.as_any())?;
        let items = other.call_method0(intern!(py, "items"))?;
        let others = py.get_type::<PyDict>().call1((items,))?;
        Ok(own.rich_compare(others, op)?.unbind())
    }

    fn __repr__(slf: &Bound<'_, Self>) -> PyResult<String> {
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
        let (ttl, key) = (settings::ttl(ttl)?, Key::new(key)?);
        self.supersede(&key)?;
        Ok(matches!(self.store(&key, value, ttl, |_, _| false)?, Stored::Now))
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
        match self.pop_value(key)? {
            Some(value) => Ok(value),
            None if default.is_empty() => Err(PyKeyError::new_err((key.clone().unbind(),))),
            None => Ok(default.get_item(0)?.unbind()),
        }
    }

    /// Removes the policy's next victim and returns it as (key, value); KeyError if the cache is empty.
    fn popitem(&self, py: Python<'_>) -> PyResult<(Py<PyAny>, Py<PyAny>)> {
        let Some(entry) = self.look(py, Cache::pop)? else {
            return Err(PyKeyError::new_err("popitem(): the cache is empty"));
        };
        let item = (entry.key.clone_ref(py), entry.value.clone_ref(py));
        entry.leave(py, Cause::Explicit, self.listener(py).as_ref());
        Ok(item)
    }

    /// The value of a key; stores the default and returns it if there is none. A look-up that counts.
    #[pyo3(signature = (key, default=None))]
    fn setdefault<'py>(&self, key: &Bound<'py, PyAny>, default: Option<Bound<'py, PyAny>>) -> PyResult<Py<PyAny>> {
        let py = key.py();
        let key = &Key::new(key)?;
        let default = default.unwrap_or_else(|| py.None().into_bound(py));
        self.supersede(key)?;
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

    /// Stores every item of a mapping or of an iterable of pairs, and every keyword.
    #[pyo3(signature = (other=None, /, **kwargs))]
    fn update(&self, py: Python<'_>, other: Argument<'_, '_>, kwargs: Option<&Bound<'_, PyDict>>) -> PyResult<()> {
        if let Some(other) = other {
            let keys = intern!(py, "keys");
            if let Ok(other) = other.cast_exact::<PyDict>() {
                for (key, value) in other {
                    self.__setitem__(&key, &value)?;
                }
            } else if other.hasattr(keys)? {
                for key in other.call_method0(keys)?.try_iter()? {
                    let key = key?;
                    self.__setitem__(&key, &other.get_item(&key)?)?;
                }
            } else {
                for pair in other.try_iter()? {
                    let pair = pair?.try_iter()?.collect::<PyResult<Vec<_>>>()?;
                    let [key, value] = &pair[..] else {
                        let text = format!("update(): an item has {} parts, key and value are needed", pair.len());
                        return Err(PyValueError::new_err(text));
                    };
                    self.__setitem__(key, value)?;
                }
            }
        }
        for (key, value) in kwargs.into_iter().flatten() {
            self.__setitem__(&key, &value)?;
        }
        Ok(())
    }

    /// Removes everything; counters stay.
    fn clear(&self, py: Python<'_>) -> PyResult<()> {
        self.supersede_all(py)?;
        self.clear_all(py)
    }

    /// The keys, as a view: next victim first for LRU, in order of insertion otherwise. Iteration works on a snapshot.
    fn keys<'py>(slf: &Bound<'py, Self>) -> PyResult<Bound<'py, PyAny>> {
        views(slf.py())?.call_method1(intern!(slf.py(), "KeysView"), (slf,))
    }

    /// The values, as a view; looking at it is no use of the entries.
    fn values<'py>(slf: &Bound<'py, Self>) -> PyResult<Bound<'py, PyAny>> {
        views(slf.py())?.call_method1(intern!(slf.py(), "ValuesView"), (slf,))
    }

    /// The (key, value) pairs, as a view; looking at it is no use of the entries.
    fn items<'py>(slf: &Bound<'py, Self>) -> PyResult<Bound<'py, PyAny>> {
        views(slf.py())?.call_method1(intern!(slf.py(), "ItemsView"), (slf,))
    }

    /// Counters by name: hits, misses, loads, load_seconds, evictions (a dict by cause), rejected, bytes, entries.
    fn stats<'py>(&self, py: Python<'py>) -> PyResult<Bound<'py, PyDict>> {
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

    /// At most this many entries; None without that bound.
    #[getter]
    fn max_entries(&self, py: Python<'_>) -> PyResult<Option<u64>> {
        self.inner.with(py, |inner| Ok(inner.cache()?.config().max_entries))
    }

    /// At most this many bytes; None without that bound.
    #[getter]
    fn max_bytes(&self, py: Python<'_>) -> PyResult<Option<u64>> {
        self.inner.with(py, |inner| Ok(inner.cache()?.config().max_bytes))
    }

    /// "lru", "sieve" or "w-tinylfu".
    #[getter]
    fn policy(&self, py: Python<'_>) -> PyResult<&'static str> {
        self.inner.with(py, |inner| Ok(settings::policy_name(inner.cache()?.config().policy)))
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
        slf: &Bound<'py, Self>,
        key: &Bound<'py, PyAny>,
        r#fn: &Bound<'py, PyAny>,
        ttl: Argument<'_, 'py>,
    ) -> PyResult<Py<PyAny>> {
        settings::ttl(ttl)?;
        if let Some(value) = slf.get().look_up(&Key::new(key)?)? {
            return Ok(value);
        }
        Ok(flights(slf.py())?.call_method1(intern!(slf.py(), "compute"), (slf, key, r#fn, ttl))?.unbind())
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
        flights(slf.py())?.call_method1(intern!(slf.py(), "acompute"), (slf, key, r#fn, ttl))
    }

    /// Writes every entry to one safetensors file: str keys, array or bytes values; no pickle.
    ///
    /// Order and remaining time to live are kept; time stands still while stored. The file is written beside and
    /// renamed.
    ///
    /// Raises:
    ///     DatatypeError: an entry that cannot be stored, by its key; nothing is written.
    fn snapshot(slf: &Bound<'_, Self>, path: &Bound<'_, PyAny>) -> PyResult<()> {
        snapshots(slf.py())?.call_method1(intern!(slf.py(), "write"), (slf, path)).map(drop)
    }

    /// Puts every entry of a snapshot, in its order and with what remained of its time.
    ///
    /// Raises:
    ///     InvalidInput: the file is truncated, foreign or newer; the cache stays as it is.
    fn restore(slf: &Bound<'_, Self>, path: &Bound<'_, PyAny>) -> PyResult<()> {
        snapshots(slf.py())?.call_method1(intern!(slf.py(), "read"), (slf, path)).map(drop)
    }

    // What the package's own modules need of a cache.

    /// The keys, values or items as a list.
    fn _list<'py>(&self, py: Python<'py>, part: &str) -> PyResult<Bound<'py, PyList>> {
        self.snapshot_of(
            py,
            match part {
                "keys" => Part::Keys,
                "values" => Part::Values,
                _ => Part::Items,
            },
        )
    }

    /// Every entry as (key, value, seconds to live, seconds to idle); infinite where there is no end.
    fn _lifetimes(&self, py: Python<'_>) -> PyResult<Vec<Aged>> {
        let seconds = |time: i64| if time == NEVER { f64::INFINITY } else { time as f64 / 1e9 };
        self.look(py, |cache| {
            let row = |slot: u32| {
                let (entry, Lifetime { live, idle }) = (cache.entry(slot), cache.remaining(slot));
                (entry.key.clone_ref(py), entry.value.clone_ref(py), seconds(live), seconds(idle))
            };
            cache.order().into_iter().map(row).collect()
        })
    }

    /// Puts an entry with exactly this much of its life left.
    fn _restore(&self, key: &Bound<'_, PyAny>, value: &Bound<'_, PyAny>, live: f64, idle: f64) -> PyResult<bool> {
        let nanoseconds = |seconds: f64| settings::nanoseconds(seconds).max(1);
        let ttl = Ttl::Remaining(Lifetime { live: nanoseconds(live), idle: nanoseconds(idle) });
        let key = Key::new(key)?;
        self.supersede(&key)?;
        Ok(matches!(self.store(&key, value, ttl, |_, _| false)?, Stored::Now))
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

    /// Stores what a flight brought and returns what its callers get.
    #[pyo3(signature = (key, value, ttl, flight, seconds))]
    fn _land<'py>(
        &self,
        key: &Bound<'py, PyAny>,
        value: &Bound<'py, PyAny>,
        ttl: Argument<'_, 'py>,
        flight: &Bound<'py, Flight>,
        seconds: f64,
    ) -> PyResult<Py<PyAny>> {
        self._loaded(key.py(), seconds);
        self.land_flight(&Key::new(key)?, value, settings::ttl(ttl)?, flight)
    }

    /// Counts a load that brought nothing, too.
    fn _loaded(&self, py: Python<'_>, seconds: f64) {
        self.inner.with(py, |inner| {
            inner.loads += 1;
            inner.load_seconds += seconds;
        });
    }

    /// Removes a key if it holds this very value.
    fn _discard(&self, key: &Bound<'_, PyAny>, value: &Bound<'_, PyAny>) -> PyResult<bool> {
        Ok(self.take(&Key::new(key)?, Some(value))?.is_some())
    }

    fn __traverse__(&self, visit: PyVisit<'_>) -> Result<(), PyTraverseError> {
        let look = |inner: &Inner| {
            let Settings { weighing, on_evict, clock, .. } = &inner.settings;
            visit.call(on_evict)?;
            visit.call(clock)?;
            if let Weighing::Asked(sizeof) = weighing {
                visit.call(sizeof)?;
            }
            if let Some((_, flights)) = &inner.flights {
                visit.call(flights)?;
            }
            match &inner.cache {
                Some(cache) if inner.tracks => cache.entries().try_for_each(|entry| entry.traverse(&visit)),
                _ => Ok(()),
            }
        };
        // SAFETY: this is `tp_traverse`, and the closure only visits.
        unsafe { self.inner.traverse(look) }
    }

    fn __clear__(&self) {
        Python::attach(|py| {
            // Out of the cache first, dropped when the lock is free.
            let _dropped = self.inner.with(py, |inner| {
                let entries = inner.cache.as_mut().map(|cache| cache.clear());
                (entries, std::mem::take(&mut inner.settings), inner.flights.take())
            });
        });
    }
}

impl LRUCache {
    fn pop_value(&self, key: &Bound<'_, PyAny>) -> PyResult<Option<Py<PyAny>>> {
        let key = Key::new(key)?;
        self.supersede(&key)?;
        self.take(&key, None)
    }

    #[cold]
    fn missing(slf: &Bound<'_, Self>, key: &Bound<'_, PyAny>) -> PyResult<Py<PyAny>> {
        let py = slf.py();
        let absent = || PyKeyError::new_err((key.clone().unbind(),));
        let kind = slf.get_type();
        if kind.is(py.get_type::<Self>()) {
            return Err(absent());
        }
        match kind.getattr(intern!(py, "__missing__")) {
            Ok(missing) => Ok(missing.call1((slf, key))?.unbind()),
            Err(error) if error.is_instance_of::<PyAttributeError>(py) => Err(absent()),
            Err(error) => Err(error),
        }
    }

    #[cold]
    fn too_large(&self, py: Python<'_>) -> PyErr {
        let bound = self.inner.with(py, |inner| inner.cache.as_ref().and_then(|cache| cache.config().max_bytes));
        let text = format!("value: weighs more than the whole cache, {} bytes are allowed", bound.unwrap_or(0));
        LimitExceeded::new_err((text, "value"))
    }

    fn snapshot_of<'py>(&self, py: Python<'py>, part: Part) -> PyResult<Bound<'py, PyList>> {
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
}

fn views(py: Python<'_>) -> PyResult<Bound<'_, PyModule>> {
    py.import(intern!(py, "zerocost.artifacts.memory.views"))
}

fn flights(py: Python<'_>) -> PyResult<Bound<'_, PyModule>> {
    py.import(intern!(py, "zerocost.artifacts.memory.flights"))
}

fn snapshots(py: Python<'_>) -> PyResult<Bound<'_, PyModule>> {
    py.import(intern!(py, "zerocost.artifacts.memory.snapshots"))
}
