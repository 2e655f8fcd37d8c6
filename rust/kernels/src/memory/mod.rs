//! The cache core: a map that holds what was used last, within bounds on entries and on bytes.
//!
//! It is generic over the entry and knows neither hashing nor equality: the caller brings hashes and says which entry
//! is the one it looks for ([`Cache::find`]). So whatever must not happen while a lock is held (foreign comparisons,
//! destructors, listeners) stays with the caller: what leaves the cache is handed over in [`Removed`].
//!
//! - `slab`: the entries, and the `u32` links between them
//! - [`policy`]: which entry goes next: LRU, SIEVE, W-TinyLFU
//! - `ledger`: what the entries weigh, one charge for each owner of memory
//! - `expiry`: when they end

mod cache;
mod expiry;
mod ledger;
pub mod policy;
mod slab;
#[cfg(test)]
mod tests;

pub use cache::{Cache, Cause, Config, Removed, Stats};
pub use expiry::{Lifetime, NEVER, Timing, Ttl};
pub use ledger::Weight;
pub use policy::PolicyKind;

/// Spreads a hash over all its bits: CPython's integers hash to themselves, the index takes the top and bottom bits.
fn mix(hash: u64) -> u64 {
    // A folded multiplication; the factor is 2^64 over the golden ratio, as in Fibonacci hashing.
    let product = u128::from(hash ^ 0x2545_f491_4f6c_dd1d) * 0x9e37_79b9_7f4a_7c15;
    (product as u64) ^ (product >> 64) as u64
}
