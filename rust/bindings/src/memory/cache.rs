//! The class and its state.

use std::sync::OnceLock;
use std::time::Instant;

use pyo3::exceptions::PyRuntimeError;
use pyo3::prelude::*;
use zerocost_kernels::memory::{Cache, Config, Removed, Ttl};

use super::entry::Entry;
use super::guard::Guarded;
use super::settings::{Settings, nanoseconds};
use crate::error::{DatatypeError, KernelError, RangeError};
use crate::options::is_refusal;

/// Everything that the lock guards.
pub(super) struct State {
    pub cache: Cache<Entry>,
    pub settings: Settings,
    /// True once something was stored that the garbage collector must visit.
    pub tracks: bool,
    pub loads: u64,
    pub load_seconds: f64,
    /// The computations in progress, by key, and the process that they belong to.
    pub flights: Option<(u32, Py<LRUCache>)>,
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
    /// None until `__init__` has been called.
    pub(super) state: Guarded<Option<State>>,
}

impl LRUCache {
    /// One whose `__init__` has not been called.
    pub(super) fn blank() -> Self {
        Self { state: Guarded::new(None) }
    }

    pub(super) fn begin(&self, py: Python<'_>, config: Config, settings: Settings) -> PyResult<()> {
        let cache = Cache::new(config).map_err(KernelError::from)?;
        let fresh = State { cache, settings, tracks: false, loads: 0, load_seconds: 0.0, flights: None };
        let twice = self.state.with(py, |state| if state.is_some() { Some(fresh) } else { state.replace(fresh) });
        match twice {
            Some(_) => Err(PyRuntimeError::new_err("LRUCache.__init__ was called twice")),
            None => Ok(()),
        }
    }

    /// Locks the state for `act`, which must run no Python code.
    #[inline]
    pub(super) fn with<R>(&self, py: Python<'_>, act: impl FnOnce(&mut State) -> R) -> PyResult<R> {
        let done = self.state.with(py, |state| state.as_mut().map(act));
        done.ok_or_else(|| PyRuntimeError::new_err("LRUCache.__init__ has not been called"))
    }

    /// The time for an operation; 0 for one that does not ask for it.
    #[inline]
    pub(super) fn now(&self, py: Python<'_>, ttl: Ttl) -> PyResult<i64> {
        let timed = self.with(py, |state| state.cache.is_timed())?;
        if timed || !matches!(ttl, Ttl::Default | Ttl::Never) { self.time(py) } else { Ok(0) }
    }

    pub(super) fn time(&self, py: Python<'_>) -> PyResult<i64> {
        let clock = self.with(py, |state| state.settings.clock.as_ref().map(|clock| clock.clone_ref(py)))?;
        let Some(clock) = clock else { return Ok(monotonic()) };
        let time = clock.bind(py).call0()?;
        let seconds: f64 = time.extract().map_err(|error| {
            if !is_refusal(py, &error) {
                return error;
            }
            let text = format!("clock: returned {}, a number of seconds is needed", time.get_type());
            DatatypeError::new_err((text, "clock"))
        })?;
        if seconds.is_nan() {
            return Err(RangeError::new_err(("clock: returned nan", "clock")));
        }
        Ok(nanoseconds(seconds))
    }

    /// Who is told of what leaves.
    pub(super) fn listener(&self, py: Python<'_>) -> Option<Py<PyAny>> {
        self.with(py, |state| state.settings.on_evict.as_ref().map(|listener| listener.clone_ref(py))).ok()?
    }

    /// Drops what left the cache, after the listener has seen it. The lock must be free.
    pub(super) fn let_go(&self, py: Python<'_>, removed: Removed<Entry>) {
        let listener = self.listener(py);
        removed.for_each(|entry, cause| entry.leave(py, cause, listener.as_ref()));
    }

    /// Looks at the state once what has ended is removed.
    pub(super) fn look<R>(&self, py: Python<'_>, look: impl FnOnce(&mut State) -> R) -> PyResult<R> {
        let now = self.now(py, Ttl::Default)?;
        let mut removed = Removed::default();
        let result = self.with(py, |state| state.cache.expire(now, &mut removed).map(|()| look(state)));
        if !removed.is_empty() {
            self.let_go(py, removed);
        }
        Ok(result?.map_err(KernelError::from)?)
    }
}

fn monotonic() -> i64 {
    static START: OnceLock<Instant> = OnceLock::new();
    i64::try_from(START.get_or_init(Instant::now).elapsed().as_nanos()).unwrap_or(i64::MAX)
}
