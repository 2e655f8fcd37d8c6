//! `LRUCache`: the cache core as a Python mapping.
//!
//! Three rules keep it alive. No Python code runs while the lock is held ([`guard`]); what leaves the cache is dropped,
//! and listeners are called, afterwards ([`LRUCache::let_go`]); and a comparison that only Python can make happens
//! outside the lock and is forgotten if the entry left meanwhile ([`lookup`]).

mod compute;
mod entry;
mod flight;
mod guard;
mod key;
mod lookup;
mod mapping;
mod protocol;
mod quick;
mod settings;
mod weigh;

use std::sync::OnceLock;
use std::time::Instant;

use numpy::PyUntypedArray;
use pyo3::exceptions::PyRuntimeError;
use pyo3::intern;
use pyo3::prelude::*;
use zerocost_kernels::memory::{Cache, Cause, Config, Removed, Ttl};

use crate::error::{DatatypeError, RangeError};
use entry::Entry;
use guard::Guarded;
use key::{Key, is_tracked};
use weigh::Weighed;

/// How values are weighed.
#[derive(Debug, Default)]
enum Weighing {
    #[default]
    Nothing,
    Native,
    Asked(Py<PyAny>),
}

impl Weighing {
    fn new(sizeof: Option<Py<PyAny>>, config: &Config) -> Self {
        match sizeof {
            Some(sizeof) => Self::Asked(sizeof),
            None if config.max_bytes.is_some() => Self::Native,
            None => Self::Nothing,
        }
    }
}

#[derive(Debug, Default)]
struct Settings {
    weighing: Weighing,
    on_evict: Option<Py<PyAny>>,
    clock: Option<Py<PyAny>>,
    freeze: bool,
}

impl Settings {
    /// True if values are stored as they come.
    fn is_plain(&self) -> bool {
        matches!(self.weighing, Weighing::Nothing) && !self.freeze
    }
}

/// Everything that the lock guards.
#[derive(Debug, Default)]
pub(crate) struct Inner {
    cache: Option<Cache<Entry>>,
    settings: Settings,
    /// True once something was stored that the garbage collector must visit.
    tracks: bool,
    loads: u64,
    load_seconds: f64,
    /// The computations in progress, by key, and the process that they belong to.
    flights: Option<(u32, Py<LRUCache>)>,
}

impl Inner {
    #[inline]
    fn cache(&mut self) -> PyResult<&mut Cache<Entry>> {
        self.cache.as_mut().ok_or_else(|| PyRuntimeError::new_err("LRUCache.__init__ has not been called"))
    }
}

/// A cache that is bounded by entries, by bytes, or by both, exactly, at every moment.
///
/// Args:
///     max_entries: at most this many entries.
///     max_bytes: at most this many bytes of values. Arrays and memoryviews count what owns their memory, once for all
///         entries that share it; bytes and str their length; DLPack tensors shape times item size; JSON values their
///         encoded length. Anything else needs `sizeof`.
///     ttl: seconds from the put until an entry ends.
///     tti: seconds from its last use until an entry ends; the earlier of both wins.
///     ttl_jitter: a time to live t is drawn from [t * (1 - ttl_jitter), t].
///     policy: "lru" (least recently used), "sieve" (Zhang et al., NSDI 2024) or "w-tinylfu" (Einziger et al., 2017).
///     on_evict: called as on_evict(key, value, cause) with everything that leaves; cause is "size", "expired",
///         "replaced" or "explicit". What it raises goes to sys.unraisablehook.
///     sizeof: called as sizeof(key, value); its int replaces the native weight.
///     freeze: store arrays as one read-only view, and return that.
///     clock: called for the time in seconds; a monotonic clock by default.
///
/// At least one bound is needed. Values are held, not copied: what comes out is what went in.
#[pyclass(frozen, subclass, mapping, weakref, module = "zerocost._kernels", name = "_LRUCache")]
pub(crate) struct LRUCache {
    inner: Guarded<Inner>,
}

impl LRUCache {
    /// The time for an operation; 0 for one that does not ask for it.
    #[inline]
    fn now(&self, py: Python<'_>, ttl: Ttl) -> PyResult<i64> {
        let timed = self.inner.with(py, |inner| inner.cache.as_ref().is_some_and(Cache::is_timed));
        if timed || !matches!(ttl, Ttl::Default | Ttl::Never) { self.time(py) } else { Ok(0) }
    }

    fn time(&self, py: Python<'_>) -> PyResult<i64> {
        let clock = self.inner.with(py, |inner| inner.settings.clock.as_ref().map(|clock| clock.clone_ref(py)));
        let Some(clock) = clock else { return Ok(monotonic()) };
        let time = clock.bind(py).call0()?;
        let seconds: f64 = time.extract().map_err(|_| {
            let text = format!("clock: returned {}, a number of seconds is needed", time.get_type());
            DatatypeError::new_err((text, "clock"))
        })?;
        if seconds.is_nan() {
            return Err(RangeError::new_err(("clock: returned nan", "clock")));
        }
        Ok(settings::nanoseconds(seconds))
    }

    /// Drops what left the cache, after the listener has seen it. The lock must be free.
    fn let_go(&self, py: Python<'_>, removed: Removed<Entry>) {
        let listener = self.listener(py);
        removed.for_each(|entry, cause| entry.leave(py, cause, listener.as_ref()));
    }

    fn listener(&self, py: Python<'_>) -> Option<Py<PyAny>> {
        self.inner.with(py, |inner| inner.settings.on_evict.as_ref().map(|listener| listener.clone_ref(py)))
    }

    /// The value as it will be stored, and its weight. Runs Python code.
    fn prepare<'py>(
        &self,
        key: &Bound<'py, PyAny>,
        value: &Bound<'py, PyAny>,
    ) -> PyResult<(Bound<'py, PyAny>, Weighed)> {
        let py = key.py();
        let (weighing, freeze) = self.inner.with(py, |inner| {
            let weighing = match &inner.settings.weighing {
                Weighing::Nothing => Weighing::Nothing,
                Weighing::Native => Weighing::Native,
                Weighing::Asked(sizeof) => Weighing::Asked(sizeof.clone_ref(py)),
            };
            (weighing, inner.settings.freeze)
        });
        let value = if freeze { frozen(value)? } else { value.clone() };
        let weighed = match weighing {
            Weighing::Nothing => Weighed::default(),
            Weighing::Native => weigh::native(&value)?,
            Weighing::Asked(sizeof) => weigh::asked(sizeof.bind(py), key, &value)?,
        };
        Ok((value, weighed))
    }

    /// Stores a value, unless `keep` says that a resident one stays.
    #[inline]
    fn store<'py>(
        &self,
        key: &Key<'_, 'py>,
        value: &Bound<'py, PyAny>,
        ttl: Ttl,
        keep: impl FnOnce(&mut Cache<Entry>, Option<u32>) -> bool,
    ) -> PyResult<Stored> {
        if self.inner.with(value.py(), |inner| inner.settings.is_plain()) {
            return self.store_weighed(key, value, &Weighed::default(), ttl, self.now(value.py(), ttl)?, keep);
        }
        // Both are kept until the lock is free: what is not stored in the end must not die under it.
        let (value, weighed) = self.prepare(key.object, value)?;
        self.store_weighed(key, &value, &weighed, ttl, self.now(value.py(), ttl)?, keep)
    }

    #[inline]
    fn store_weighed<'py>(
        &self,
        key: &Key<'_, 'py>,
        value: &Bound<'py, PyAny>,
        weighed: &Weighed,
        ttl: Ttl,
        now: i64,
        keep: impl FnOnce(&mut Cache<Entry>, Option<u32>) -> bool,
    ) -> PyResult<Stored> {
        let py = value.py();
        let Weighed { weight, owner } = weighed;
        let weight = *weight;
        let owner_tracked = owner.as_ref().is_some_and(|owner| is_tracked(owner.bind(py)));
        let tracked = key.is_tracked() || is_tracked(value) || owner_tracked;
        // What a listener does not have to see needs no entry.
        let mut replaced = None;
        let stored = self.lookup(key, now, |inner, slot, removed| {
            let Some(cache) = &mut inner.cache else { return Stored::TooLarge };
            if keep(cache, slot) {
                return Stored::Kept(slot.map(|slot| cache.entry(slot).value.clone_ref(py)));
            }
            if cache.rejects(weight) {
                return Stored::TooLarge;
            }
            inner.supersede(key);
            let Some(cache) = &mut inner.cache else { return Stored::TooLarge };
            inner.tracks |= tracked;
            let owner = owner.as_ref().map(|owner| owner.clone_ref(py));
            let value = value.clone().unbind();
            let Some(slot) = slot else {
                let entry = Entry { key: key.object.clone().unbind(), value, owner, kind: key.kind, tracked };
                cache.insert(key.hash, entry, weight, ttl, now, removed);
                return Stored::Now;
            };
            let listened = inner.settings.on_evict.is_some();
            let renew = |entry: &mut Entry, removed: &mut Removed<Entry>| {
                entry.tracked |= tracked;
                let value = std::mem::replace(&mut entry.value, value);
                let owner = std::mem::replace(&mut entry.owner, owner);
                if listened {
                    let key = entry.key.clone_ref(py);
                    removed.push(Entry { key, value, owner, ..*entry }, Cause::Replaced);
                } else {
                    replaced = Some((value, owner));
                }
            };
            cache.replace(slot, renew, weight, ttl, now, removed);
            Stored::Now
        });
        if let Some((value, owner)) = replaced {
            // Attached already, so the reference can go at once.
            value.drop_ref(py);
            drop(owner);
        }
        stored
    }

    /// A look-up that counts.
    #[inline]
    fn look_up(&self, key: &Key<'_, '_>) -> PyResult<Option<Py<PyAny>>> {
        let py = key.object.py();
        let now = self.now(py, Ttl::Default)?;
        self.lookup(key, now, |inner, slot, _| {
            let cache = inner.cache.as_mut()?;
            match slot {
                Some(slot) => Some(cache.hit(slot).value.clone_ref(py)),
                None => {
                    cache.miss();
                    None
                }
            }
        })
    }

    /// A look-up that changes nothing.
    fn look_at(&self, key: &Key<'_, '_>) -> PyResult<Option<Py<PyAny>>> {
        let py = key.object.py();
        let now = self.now(py, Ttl::Default)?;
        self.lookup(key, now, |inner, slot, _| {
            slot.and_then(|slot| Some(inner.cache.as_ref()?.entry(slot).value.clone_ref(py)))
        })
    }

    /// Takes out the entry of a key, or, with `only`, the one that holds this very value.
    fn take(&self, key: &Key<'_, '_>, only: Option<&Bound<'_, PyAny>>) -> PyResult<Option<Py<PyAny>>> {
        let py = key.object.py();
        let now = self.now(py, Ttl::Default)?;
        let taken = self.lookup(key, now, |inner, slot, _| {
            if only.is_none() {
                inner.supersede(key);
            }
            let cache = inner.cache.as_mut()?;
            let slot = slot.filter(|&slot| only.is_none_or(|only| cache.entry(slot).value.is(only)))?;
            Some(cache.remove(slot))
        })?;
        let Some(entry) = taken else { return Ok(None) };
        let value = entry.value.clone_ref(py);
        entry.leave(py, Cause::Explicit, self.listener(py).as_ref());
        Ok(Some(value))
    }

    /// Looks at the cache once what has ended is removed.
    fn look<R>(&self, py: Python<'_>, look: impl FnOnce(&mut Cache<Entry>) -> R) -> PyResult<R> {
        self.look_inside(py, |inner| inner.cache().map(look))
    }

    fn look_inside<R>(&self, py: Python<'_>, look: impl FnOnce(&mut Inner) -> PyResult<R>) -> PyResult<R> {
        let now = self.now(py, Ttl::Default)?;
        let mut removed = Removed::default();
        let result = self.inner.with(py, |inner| {
            let cache = inner.cache()?;
            cache.expire(now, &mut removed);
            look(inner)
        });
        if !removed.is_empty() {
            self.let_go(py, removed);
        }
        result
    }

    fn clear_all(&self, py: Python<'_>) -> PyResult<()> {
        let entries = self.look_inside(py, |inner| {
            inner.supersede_all(py);
            inner.tracks = false;
            inner.cache().map(Cache::clear)
        })?;
        let listener = self.listener(py);
        entries.for_each(|entry| entry.leave(py, Cause::Explicit, listener.as_ref()));
        Ok(())
    }
}

/// What became of a put.
enum Stored {
    Now,
    TooLarge,
    /// The put was called off; this is what is resident.
    Kept(Option<Py<PyAny>>),
}

fn monotonic() -> i64 {
    static START: OnceLock<Instant> = OnceLock::new();
    i64::try_from(START.get_or_init(Instant::now).elapsed().as_nanos()).unwrap_or(i64::MAX)
}

/// An array as one read-only view; the caller's own stays as it is.
fn frozen<'py>(value: &Bound<'py, PyAny>) -> PyResult<Bound<'py, PyAny>> {
    let py = value.py();
    if value.is_instance_of::<PyUntypedArray>() {
        let view = value.call_method0(intern!(py, "view"))?;
        view.call_method1(intern!(py, "setflags"), (false,))?;
        return Ok(view);
    }
    if value.hasattr(intern!(py, "__dlpack__"))? {
        let text = format!("value: {} cannot be made read-only; pass a NumPy array under freeze", value.get_type());
        return Err(DatatypeError::new_err((text, "value")));
    }
    Ok(value.clone())
}

pub(crate) fn register(module: &Bound<'_, PyModule>) -> PyResult<()> {
    let py = module.py();
    key::learn_tuples(py)?;
    let base = py.get_type::<LRUCache>();
    let class = quick::class(&base)?;
    // Also of the base, which the table of flights is.
    py.import("collections.abc")?.getattr("MutableMapping")?.call_method1("register", (base,))?;
    module.add("LRUCache", class)?;
    module.add_class::<compute::Seat>()?;
    Ok(())
}
