//! The cache: index, bounds, counters.

use hashbrown::HashTable;

use super::expiry::{Expiry, Lifetime, NEVER, Timing, Ttl};
use super::ledger::{Ledger, Weight};
use super::mix;
use super::policy::{Bounds, Contest, Policy, PolicyKind};
use super::slab::{NIL, Slab};
use crate::{Error, Result};

/// What a cache is made with.
#[derive(Debug, Clone, Copy, Default)]
pub struct Config {
    /// At most this many entries.
    pub max_entries: Option<u64>,
    /// At most this many bytes.
    pub max_bytes: Option<u64>,
    /// How long entries live.
    pub timing: Timing,
    /// Which entry goes next.
    pub policy: PolicyKind,
    /// Where the drawing of jitter begins.
    pub seed: u64,
}

impl Config {
    fn check(&self) -> Result<()> {
        let positive = |argument, bound: Option<u64>| match bound {
            Some(0) => Err(Error::Range { argument, given: "0".to_owned(), allowed: "a number of 1 or more" }),
            _ => Ok(()),
        };
        positive("max_entries", self.max_entries)?;
        positive("max_bytes", self.max_bytes)?;
        if self.max_entries.is_none() && self.max_bytes.is_none() {
            let problem = "max_entries and max_bytes are both None, at least one bound is needed";
            return Err(Error::Conflict { argument: "max_entries", problem });
        }
        if !(0.0..=1.0).contains(&self.timing.jitter) {
            let given = self.timing.jitter.to_string();
            return Err(Error::Range { argument: "ttl_jitter", given, allowed: "a number from 0 to 1" });
        }
        let lasting = |argument, time: Option<i64>| match time {
            Some(time) if time <= 0 => {
                let given = (time as f64 / 1e9).to_string();
                Err(Error::Range { argument, given, allowed: "more than 0 seconds" })
            }
            _ => Ok(()),
        };
        lasting("ttl", self.timing.ttl)?;
        lasting("tti", self.timing.tti)
    }
}

/// Why an entry left.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub enum Cause {
    /// Room was needed.
    Size,
    /// Its time was over.
    Expired,
    /// Another value was put under its key.
    Replaced,
    /// It was deleted, popped or cleared.
    Explicit,
}

/// What an operation took out, in order, for the caller to drop once nothing is locked.
#[derive(Debug)]
pub struct Removed<E> {
    // Nearly always none or one: no allocation for those.
    first: Option<E>,
    cause: Cause,
    rest: Vec<(E, Cause)>,
}

impl<E> Default for Removed<E> {
    fn default() -> Self {
        Self { first: None, cause: Cause::Size, rest: Vec::new() }
    }
}

impl<E> Removed<E> {
    /// True if nothing was taken out.
    pub fn is_empty(&self) -> bool {
        self.first.is_none()
    }

    /// Adds an entry.
    #[inline]
    pub fn push(&mut self, entry: E, cause: Cause) {
        if self.first.is_none() {
            self.first = Some(entry);
            self.cause = cause;
        } else {
            self.rest.push((entry, cause));
        }
    }

    /// Hands over every entry, in order.
    #[inline]
    pub fn for_each(self, mut each: impl FnMut(E, Cause)) {
        if let Some(entry) = self.first {
            each(entry, self.cause);
        }
        for (entry, cause) in self.rest {
            each(entry, cause);
        }
    }
}

/// Counters since the cache was made.
#[derive(Debug, Clone, Copy, Default, PartialEq, Eq)]
pub struct Stats {
    /// Look-ups that found something.
    pub hits: u64,
    /// Look-ups that did not.
    pub misses: u64,
    /// Values larger than the whole cache.
    pub rejected: u64,
    /// Entries that left, by [`Cause`], in the order of its variants.
    pub evictions: [u64; 4],
}

/// A map within bounds. Slots are stable while their entry is resident; [`Cache::version`] tells when they are not.
#[derive(Debug)]
pub struct Cache<E> {
    slab: Slab<E>,
    index: HashTable<u32>,
    policy: Policy,
    ledger: Ledger,
    expiry: Option<Box<Expiry>>,
    bounds: Bounds,
    config: Config,
    stats: Stats,
}

impl<E> Cache<E> {
    /// An empty cache.
    ///
    /// # Errors
    /// [`Error::Conflict`] without any bound, [`Error::Range`] for a bound of 0, a time that is not positive and a
    /// jitter outside 0 to 1.
    pub fn new(config: Config) -> Result<Self> {
        config.check()?;
        // Slots are `u32`, the last one stands for none.
        let bounds = Bounds { entries: config.max_entries.map(|n| n.min(u64::from(NIL - 1))), bytes: config.max_bytes };
        let Timing { ttl, tti, .. } = config.timing;
        let timed = ttl.is_some() || tti.is_some();
        Ok(Self {
            slab: Slab::default(),
            index: HashTable::new(),
            policy: Policy::new(config.policy, bounds),
            ledger: Ledger::default(),
            expiry: timed.then(|| Box::new(Expiry::new(config.timing, config.seed))),
            bounds,
            config,
            stats: Stats::default(),
        })
    }

    /// What the cache was made with.
    pub fn config(&self) -> &Config {
        &self.config
    }

    /// Number of entries.
    pub fn len(&self) -> usize {
        self.slab.len()
    }

    /// True if there is no entry.
    pub fn is_empty(&self) -> bool {
        self.len() == 0
    }

    /// What the entries weigh together.
    pub fn bytes(&self) -> u128 {
        self.ledger.total()
    }

    /// The counters.
    pub fn stats(&self) -> Stats {
        self.stats
    }

    /// True if entries can end, so that operations need the time.
    #[inline]
    pub fn is_timed(&self) -> bool {
        self.expiry.as_ref().is_some_and(|expiry| expiry.is_needed())
    }

    /// The slot with this hash whose entry `is_it`.
    #[inline]
    pub fn find(&self, hash: u64, mut is_it: impl FnMut(u32, &E) -> bool) -> Option<u32> {
        let found =
            self.index.find(mix(hash), |&slot| self.slab.hash(slot) == hash && is_it(slot, self.slab.get(slot)));
        found.copied()
    }

    /// The entry of a slot that [`Cache::find`] gave.
    pub fn entry(&self, slot: u32) -> &E {
        self.slab.get(slot)
    }

    /// The hash of a slot's entry.
    pub fn hash(&self, slot: u32) -> u64 {
        self.slab.hash(slot)
    }

    /// A number that no other entry of this cache has had; `None` for an empty slot.
    pub fn version(&self, slot: u32) -> Option<u32> {
        self.slab.version(slot)
    }

    /// What remains of the entry's life.
    pub fn remaining(&self, slot: u32) -> Lifetime {
        self.expiry.as_ref().map_or(Lifetime { live: NEVER, idle: NEVER }, |expiry| expiry.remaining(slot))
    }

    /// Removes what has ended by `now`. Every operation on a timed cache begins with this.
    #[inline]
    pub fn expire(&mut self, now: i64, removed: &mut Removed<E>) {
        if self.is_timed() {
            self.expire_by(now, removed);
        }
    }

    fn expire_by(&mut self, now: i64, removed: &mut Removed<E>) {
        let Some(expiry) = &mut self.expiry else { return };
        expiry.advance(now);
        while let Some(slot) = self.expiry.as_mut().and_then(|expiry| expiry.ended()) {
            let entry = self.take(slot, Cause::Expired);
            removed.push(entry, Cause::Expired);
        }
    }

    /// The slot was found by a look-up that counts: a hit, and a use of the entry.
    #[inline]
    pub fn hit(&mut self, slot: u32) -> &E {
        self.stats.hits += 1;
        self.policy.hit(&mut self.slab, slot);
        if let Some(expiry) = &mut self.expiry {
            expiry.renew(slot);
        }
        self.slab.get(slot)
    }

    /// A look-up that counts found nothing.
    pub fn miss(&mut self) {
        self.stats.misses += 1;
    }

    /// True if `weight` is more than the whole cache holds; counts it.
    pub fn rejects(&mut self, weight: Weight) -> bool {
        let rejected = weight.bytes == u64::MAX || self.bounds.bytes.is_some_and(|bound| weight.bytes > bound);
        self.stats.rejected += u64::from(rejected);
        rejected
    }

    /// True if there is nothing but a bound on entries and their order: no times, no weights, no other policy.
    #[inline]
    pub fn is_plain(&self) -> bool {
        !self.is_timed() && self.bounds.bytes.is_none() && self.ledger.is_unused() && self.policy.is_lru()
    }

    /// [`Cache::insert`] for a [plain](Cache::is_plain) cache and no weight: returns the entry that made room, if one
    /// did.
    #[inline]
    pub fn insert_plain(&mut self, hash: u64, entry: E) -> Option<E> {
        if self.is_full() {
            return Some(std::mem::replace(self.recycle(hash), entry));
        }
        let slot = self.slab.insert(hash, entry);
        self.index.insert_unique(mix(hash), slot, |&slot| mix(self.slab.hash(slot)));
        self.policy.insert(&mut self.slab, slot, 0);
        None
    }

    /// True if one more entry would be one too many.
    #[inline]
    pub fn is_full(&self) -> bool {
        self.bounds.entries.is_some_and(|bound| self.slab.len() as u64 >= bound)
    }

    /// Gives the slot of the next victim of a [plain](Cache::is_plain), [full](Cache::is_full) cache to a new entry:
    /// its hash is `hash` now, it is the newest, and what it holds is for the caller to exchange.
    #[inline(always)]
    pub fn recycle(&mut self, hash: u64) -> &mut E {
        debug_assert!(self.is_plain() && self.is_full(), "another policy, or no need");
        let slot = self.policy.victim(&self.slab, &mut Contest::default(), NIL);
        if let Ok(found) = self.index.find_entry(mix(self.slab.hash(slot)), |&other| other == slot) {
            found.remove();
        }
        self.slab.rename(slot, hash);
        self.index.insert_unique(mix(hash), slot, |&slot| mix(self.slab.hash(slot)));
        self.policy.hit(&mut self.slab, slot);
        self.stats.evictions[Cause::Size as usize] += 1;
        self.slab.get_mut(slot)
    }

    /// [`Cache::replace`] for a [plain](Cache::is_plain) cache and no weight: the entry, for its value to be exchanged.
    #[inline]
    pub fn replace_plain(&mut self, slot: u32) -> &mut E {
        debug_assert!(self.is_plain(), "the entry has times, a weight or another policy");
        self.stats.evictions[Cause::Replaced as usize] += 1;
        self.policy.hit(&mut self.slab, slot);
        self.slab.get_mut(slot)
    }

    /// Adds an entry whose key [`Cache::find`] does not find and whose weight the cache does not
    /// [reject](Cache::rejects).
    pub fn insert(&mut self, hash: u64, entry: E, weight: Weight, ttl: Ttl, now: i64, removed: &mut Removed<E>) {
        self.untimed_until(ttl, now);
        if self.is_plain() && weight == Weight::default() && !matches!(ttl, Ttl::For(_) | Ttl::Remaining(_)) {
            if let Some(evicted) = self.insert_plain(hash, entry) {
                removed.push(evicted, Cause::Size);
            }
            return;
        }
        let contests = self.policy.contests();
        if !contests {
            while self.bounds.exceeded_by(self.len() as u64 + 1, self.ledger.total() + self.ledger.extra(weight)) {
                let slot = self.policy.victim(&self.slab, &mut Default::default(), NIL);
                removed.push(self.take(slot, Cause::Size), Cause::Size);
            }
        }
        let slot = self.slab.insert(hash, entry);
        self.index.insert_unique(mix(hash), slot, |&slot| mix(self.slab.hash(slot)));
        self.ledger.charge(slot, weight);
        self.policy.insert(&mut self.slab, slot, weight.bytes);
        if let Some(expiry) = &mut self.expiry {
            expiry.start(slot, ttl);
        }
        if contests {
            self.shrink(NIL, removed);
        }
    }

    /// Puts another value into a resident entry, which `renew` does: a use of it, and its time starts anew.
    pub fn replace(
        &mut self,
        slot: u32,
        renew: impl FnOnce(&mut E, &mut Removed<E>),
        weight: Weight,
        ttl: Ttl,
        now: i64,
        removed: &mut Removed<E>,
    ) {
        self.untimed_until(ttl, now);
        self.stats.evictions[Cause::Replaced as usize] += 1;
        renew(self.slab.get_mut(slot), removed);
        self.ledger.release(slot);
        self.ledger.charge(slot, weight);
        self.policy.replace(&mut self.slab, slot, weight.bytes);
        if let Some(expiry) = &mut self.expiry {
            expiry.start(slot, ttl);
        }
        if self.bounds.bytes.is_some() {
            self.shrink(slot, removed);
        }
    }

    /// Takes an entry out.
    pub fn remove(&mut self, slot: u32) -> E {
        self.take(slot, Cause::Explicit)
    }

    /// Takes out the policy's next victim.
    pub fn pop(&mut self) -> Option<E> {
        if self.is_empty() {
            return None;
        }
        let mut contest = self.policy.uncontested();
        let slot = self.policy.victim(&self.slab, &mut contest, NIL);
        Some(self.remove(slot))
    }

    /// Takes everything out, in no order; counters stay.
    pub fn clear(&mut self) -> impl Iterator<Item = E> + use<E> {
        self.stats.evictions[Cause::Explicit as usize] += self.len() as u64;
        self.index = HashTable::new();
        self.policy = Policy::new(self.config.policy, self.bounds);
        self.ledger = Ledger::default();
        if let Some(expiry) = &mut self.expiry {
            expiry.clear();
        }
        self.slab.take_all()
    }

    /// The slots: next victim first for LRU, in order of insertion otherwise.
    pub fn order(&self) -> Vec<u32> {
        self.policy.order(&self.slab)
    }

    /// Every entry, in no order.
    pub fn entries(&self) -> impl Iterator<Item = &E> {
        self.slab.iter()
    }

    fn take(&mut self, slot: u32, cause: Cause) -> E {
        self.stats.evictions[cause as usize] += 1;
        let hash = mix(self.slab.hash(slot));
        if let Ok(found) = self.index.find_entry(hash, |&other| other == slot) {
            found.remove();
        }
        self.policy.remove(&mut self.slab, slot);
        self.ledger.release(slot);
        if let Some(expiry) = &mut self.expiry {
            expiry.stop(slot);
        }
        self.slab.remove(slot)
    }

    fn shrink(&mut self, keep: u32, removed: &mut Removed<E>) {
        let mut contest = self.policy.contest(&mut self.slab);
        while self.bounds.exceeded_by(self.len() as u64, self.ledger.total()) {
            let slot = self.policy.victim(&self.slab, &mut contest, keep);
            removed.push(self.take(slot, Cause::Size), Cause::Size);
        }
    }

    /// A cache without times has them from a put that has one until that entry is gone.
    fn untimed_until(&mut self, ttl: Ttl, now: i64) {
        let ends = match ttl {
            Ttl::For(_) => true,
            Ttl::Remaining(rest) => rest.live != NEVER,
            Ttl::Default | Ttl::Never => false,
        };
        if ends && !self.is_timed() {
            let made = || Box::new(Expiry::new(self.config.timing, self.config.seed));
            self.expiry.get_or_insert_with(made).advance(now);
        }
    }
}
