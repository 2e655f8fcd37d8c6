//! `LRUCache`: the cache core as a Python mapping.
//!
//! Three rules keep it alive. No Python code runs while the lock is held ([`guard`]); what leaves the cache is dropped,
//! and listeners are called, afterwards ([`cache`]); and a comparison that only Python can make happens outside the
//! lock and is forgotten if the entry left meanwhile ([`lookup`]).
//!
//! From the leaves up:
//! - [`guard`], [`latch`], [`key`], [`entry`], [`weigh`], [`settings`]
//! - [`flight`]: a computation in progress, and who waits for whom
//! - [`cache`]: the class and its state
//! - [`flights`]: which keys are being computed
//! - [`lookup`], then [`operations`], [`snapshot`] and [`compute`]: what a cache does
//! - [`quick`]: the same for the calls that count most
//! - [`class`], [`protocol`], [`methods`], [`seat`]: what Python sees

mod cache;
mod class;
mod compute;
mod entry;
mod flight;
mod flights;
mod guard;
mod key;
mod latch;
mod lookup;
mod methods;
mod operations;
mod protocol;
mod quick;
mod seat;
mod settings;
mod snapshot;
mod weigh;

use pyo3::prelude::*;

pub(crate) fn register(module: &Bound<'_, PyModule>) -> PyResult<()> {
    let py = module.py();
    key::learn_tuples(py)?;
    let base = py.get_type::<cache::LRUCache>();
    let class = class::make(&base)?;
    // Also of the base, which the table of flights is.
    py.import("collections.abc")?.getattr("MutableMapping")?.call_method1("register", (base,))?;
    module.add("LRUCache", class)?;
    module.add_class::<seat::Seat>()
}
