//! Counters that a forked process starts anew.

use std::sync::atomic::{AtomicU64, Ordering};

/// How many are inside of something: the number in the low half, in the high half the process, since a forked one starts
/// anew.
pub(super) struct Count(AtomicU64);

impl Count {
    pub(super) const fn new() -> Self {
        Self(AtomicU64::new(0))
    }

    /// One more. Gives how many there were.
    pub(super) fn enter(&self) -> usize {
        let process = u64::from(std::process::id()) << 32;
        let count = |before: u64| if before >> 32 == process >> 32 { before + 1 } else { process + 1 };
        let before = self.0.fetch_update(Ordering::Relaxed, Ordering::Relaxed, |before| Some(count(before)));
        let (Ok(before) | Err(before)) = before;
        (count(before) as u32 - 1) as usize
    }

    pub(super) fn leave(&self) {
        let process = u64::from(std::process::id());
        let one_less = |count: u64| (count >> 32 == process && count as u32 > 0).then(|| count - 1);
        // What was counted in the process that this one was forked from is no longer there.
        _ = self.0.fetch_update(Ordering::Relaxed, Ordering::Relaxed, one_less);
    }

    pub(super) fn get(&self) -> usize {
        let count = self.0.load(Ordering::Relaxed);
        if count >> 32 == u64::from(std::process::id()) { count as u32 as usize } else { 0 }
    }
}
