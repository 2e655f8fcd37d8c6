//! The cache when there is no memory for it to grow.

use std::alloc::{GlobalAlloc, Layout, System};
use std::cell::Cell;
use std::collections::HashSet;
use std::ptr::null_mut;

use super::*;

/// The system's allocator, which refuses what is large to a thread that is starved.
struct Allocator;

#[global_allocator]
static ALLOCATOR: Allocator = Allocator;

thread_local! {
    /// How many large pieces of memory this thread still gets.
    static LEFT: Cell<Option<u32>> = const { Cell::new(None) };
}

/// What a program cannot be asked to do without.
const SMALL: usize = 256;

fn refuses(bytes: usize) -> bool {
    let left = if bytes < SMALL { None } else { LEFT.get() };
    LEFT.set(left.map_or(LEFT.get(), |left| Some(left.saturating_sub(1))));
    left == Some(0)
}

// SAFETY: the system's allocator keeps the contract, and null stands for memory that cannot be had.
unsafe impl GlobalAlloc for Allocator {
    unsafe fn alloc(&self, layout: Layout) -> *mut u8 {
        // SAFETY: the caller's.
        if refuses(layout.size()) { null_mut() } else { unsafe { System.alloc(layout) } }
    }

    // The system's zeros are pages that cost nothing until they are written; other tests rely on that.
    unsafe fn alloc_zeroed(&self, layout: Layout) -> *mut u8 {
        // SAFETY: the caller's.
        if refuses(layout.size()) { null_mut() } else { unsafe { System.alloc_zeroed(layout) } }
    }

    unsafe fn dealloc(&self, memory: *mut u8, layout: Layout) {
        // SAFETY: the caller's; the memory came from `System`.
        unsafe { System.dealloc(memory, layout) }
    }

    unsafe fn realloc(&self, memory: *mut u8, layout: Layout, bytes: usize) -> *mut u8 {
        // SAFETY: the caller's; the memory came from `System`.
        if refuses(bytes) { null_mut() } else { unsafe { System.realloc(memory, layout, bytes) } }
    }
}

/// Dropped by the caller only, never within the cache.
struct Entry(u64);

impl Drop for Entry {
    fn drop(&mut self) {
        assert_eq!(LEFT.get(), None, "dropped by the cache");
    }
}

/// Runs `act` with no more than so many large pieces of memory.
fn starved<R>(pieces: u32, act: impl FnOnce() -> R) -> R {
    LEFT.set(Some(pieces));
    let result = act();
    LEFT.set(None);
    result
}

#[test]
fn a_put_without_memory_is_an_error_and_leaves_the_cache_whole() {
    let timing = Timing { ttl: Some(3000), ..Timing::default() };
    for policy in [PolicyKind::Lru, PolicyKind::Sieve, PolicyKind::TinyLfu] {
        for (max_entries, max_bytes, timing) in [
            (Some(900), None, Timing::default()),
            (None, Some(60_000), Timing::default()),
            (Some(900), Some(60_000), timing),
        ] {
            let config = Config { max_entries, max_bytes, timing, policy, ..Config::default() };
            let mut cache = Cache::<Entry>::new(config).unwrap();
            let mut resident = HashSet::new();
            let mut failed = 0;
            for (now, bits) in (0i64..6000).zip((0u64..).map(hash::mix)) {
                let key = bits % 2000;
                // Now and then one that many have to make room for.
                let bytes = if max_bytes.is_none() {
                    0
                } else {
                    10 + (bits >> 32) % 50 + if bits >> 57 == 0 { 9000 } else { 0 }
                };
                let weight = Weight { bytes, owner: (bits >> 40).is_multiple_of(2).then_some(key as usize) };
                let terms = Terms { weight, ttl: Ttl::Default, now };
                let mut removed = Removed::default();
                let put = starved((bits >> 50) as u32 % 3 + if now % 8 == 0 { 100 } else { 0 }, || {
                    cache.expire(now, &mut removed)?;
                    match cache.find(key, |_, entry| entry.0 == key) {
                        None => cache.insert(key, || Entry(key), terms, &mut removed),
                        Some(slot) => {
                            let renew = |entry: &mut Entry, removed: &mut Removed<Entry>| {
                                removed.push(std::mem::replace(entry, Entry(key)), Cause::Replaced);
                            };
                            cache.replace(slot, renew, terms, &mut removed)
                        }
                    }
                });
                failed += u32::from(put.is_err());
                let mut left = Vec::new();
                removed.for_each(|entry, cause| left.push((entry.0, cause)));
                left.iter()
                    .filter(|(_, cause)| *cause == Cause::Expired)
                    .for_each(|(key, _)| assert!(resident.remove(key)));
                if put.is_ok() {
                    resident.insert(key);
                }
                // One that could not stay may be among them.
                let evicted = left.iter().filter(|(_, cause)| *cause == Cause::Size);
                evicted.for_each(|(evicted, _)| assert!(resident.remove(evicted) || put.is_err() && *evicted == key));
                if put.is_err() || now % 64 == 0 {
                    let keys: HashSet<_> = cache.order().unwrap().into_iter().map(|slot| cache.entry(slot).0).collect();
                    assert!(keys == resident, "what was handed over has left, the rest is there");
                }
                assert_eq!(cache.len(), resident.len());
                assert!(max_entries.is_none_or(|bound| cache.len() as u64 <= bound));
                assert!(max_bytes.is_none_or(|bound| cache.bytes() <= bound.into()));
            }
            assert!(failed > 10, "{failed} puts have failed");
            assert!(cache.len() > 500, "{} entries", cache.len());
            drop(cache.clear());
        }
    }
}
