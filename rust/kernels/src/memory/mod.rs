//! The cache core: a map that holds what was used last, within bounds on entries and on bytes.
//!
//! It is generic over the entry and knows neither hashing nor equality: the caller brings hashes and says which entry
//! is the one it looks for ([`Cache::find`]). So whatever must not happen while a lock is held (foreign comparisons,
//! destructors, listeners) stays with the caller: what leaves the cache is handed over in [`Removed`].
//!
//! From the leaves up:
//! - `hash`, `grow`, `config`, `removed`
//! - `slab`: the entries, and the `u32` links between them
//! - `ledger`: what the entries weigh, one charge for each owner of memory
//! - `expiry`: when they end
//! - `policy`: which entry goes next: LRU, SIEVE, W-TinyLFU
//! - `cache`

mod cache;
mod config;
mod expiry;
mod grow;
mod hash;
mod ledger;
#[cfg(test)]
mod model;
mod policy;
mod removed;
mod slab;
#[cfg(test)]
mod starved;
#[cfg(test)]
mod tests;

pub use cache::{Cache, Stats, Terms};
pub use config::{Config, PolicyKind, Timing};
pub use expiry::{Lifetime, NEVER, Ttl};
pub use ledger::Weight;
pub use removed::{Cause, Removed};
