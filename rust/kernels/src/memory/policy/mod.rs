//! Which entry goes next. Each policy keeps the slots in lists of the slab and knows nothing of keys and weights.

mod lru;
mod sieve;
mod sketch;
mod tinylfu;
#[cfg(test)]
mod twin;

pub(super) use tinylfu::Contest;

use super::slab::Slab;
use lru::Lru;
use sieve::Sieve;
use tinylfu::TinyLfu;

/// The policies by name.
#[derive(Debug, Clone, Copy, Default, PartialEq, Eq)]
pub enum PolicyKind {
    /// Least recently used.
    #[default]
    Lru,
    /// SIEVE (Zhang et al., NSDI 2024).
    Sieve,
    /// W-TinyLFU (Einziger et al., 2017), as Caffeine has it, without its hill climber.
    TinyLfu,
}

/// Bounds, or a share of them, in entries and in bytes.
#[derive(Debug, Clone, Copy, Default)]
pub(super) struct Bounds {
    pub(super) entries: Option<u64>,
    pub(super) bytes: Option<u64>,
}

impl Bounds {
    pub(super) fn exceeded_by(&self, entries: u64, bytes: u128) -> bool {
        self.entries.is_some_and(|bound| entries > bound) || self.bytes.is_some_and(|bound| bytes > bound.into())
    }
}

#[derive(Debug)]
pub(super) enum Policy {
    Lru(Lru),
    Sieve(Sieve),
    TinyLfu(Box<TinyLfu>),
}

impl Policy {
    pub(super) fn new(kind: PolicyKind, bounds: Bounds) -> Self {
        match kind {
            PolicyKind::Lru => Self::Lru(Lru::default()),
            PolicyKind::Sieve => Self::Sieve(Sieve::default()),
            PolicyKind::TinyLfu => Self::TinyLfu(Box::new(TinyLfu::new(bounds))),
        }
    }

    pub(super) fn is_lru(&self) -> bool {
        matches!(self, Self::Lru(_))
    }

    /// True if a new entry must be resident before the victims are chosen, as it may be one of them.
    pub(super) fn contests(&self) -> bool {
        matches!(self, Self::TinyLfu(_))
    }

    pub(super) fn insert<E>(&mut self, slab: &mut Slab<E>, slot: u32, bytes: u64) {
        match self {
            Self::Lru(lru) => lru.insert(slab, slot),
            Self::Sieve(sieve) => sieve.insert(slab, slot),
            Self::TinyLfu(lfu) => lfu.insert(slab, slot, bytes),
        }
    }

    pub(super) fn hit<E>(&mut self, slab: &mut Slab<E>, slot: u32) {
        match self {
            Self::Lru(lru) => lru.hit(slab, slot),
            Self::Sieve(sieve) => sieve.hit(slot),
            Self::TinyLfu(lfu) => lfu.hit(slab, slot),
        }
    }

    /// The entry stays and now weighs `bytes`.
    pub(super) fn replace<E>(&mut self, slab: &mut Slab<E>, slot: u32, bytes: u64) {
        match self {
            Self::TinyLfu(lfu) => lfu.replace(slab, slot, bytes),
            _ => self.hit(slab, slot),
        }
    }

    pub(super) fn remove<E>(&mut self, slab: &mut Slab<E>, slot: u32) {
        match self {
            Self::Lru(lru) => lru.remove(slab, slot),
            Self::Sieve(sieve) => sieve.remove(slab, slot),
            Self::TinyLfu(lfu) => lfu.remove(slab, slot),
        }
    }

    /// What is fixed at the beginning of a row of evictions.
    pub(super) fn contest<E>(&mut self, slab: &mut Slab<E>) -> Contest {
        match self {
            Self::TinyLfu(lfu) => lfu.contest(slab),
            _ => Contest::default(),
        }
    }

    /// As [`Policy::contest`], for an eviction that nothing new has caused.
    pub(super) fn uncontested(&self) -> Contest {
        match self {
            Self::TinyLfu(lfu) => lfu.uncontested(),
            _ => Contest::default(),
        }
    }

    /// The next to go, never `keep` (except under W-TinyLFU, where nobody is safe).
    pub(super) fn victim<E>(&mut self, slab: &Slab<E>, contest: &mut Contest, keep: u32) -> u32 {
        match self {
            Self::Lru(lru) => lru.victim(slab, keep),
            Self::Sieve(sieve) => sieve.victim(slab, keep),
            Self::TinyLfu(lfu) => lfu.victim(slab, contest),
        }
    }

    /// The slots: next victim first for LRU, in order of insertion otherwise.
    pub(super) fn order<E>(&self, slab: &Slab<E>) -> Vec<u32> {
        match self {
            Self::Lru(lru) => lru.order(slab),
            Self::Sieve(sieve) => sieve.order(slab),
            Self::TinyLfu(lfu) => lfu.order(slab),
        }
    }
}
