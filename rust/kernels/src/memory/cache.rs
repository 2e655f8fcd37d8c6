//! The cache: index, bounds, counters.

use hashbrown::HashTable;

use super::config::{Bounds, Config, Timing};
use super::expiry::{Expiry, Lifetime, NEVER, Ttl};
use super::grow;
use super::hash::mix;
use super::ledger::{Ledger, Weight};
use super::policy::{Contest, Policy};
use super::removed::{Cause, Removed};
use super::slab::{NIL, Slab};
use crate::Result;

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

/// What an entry is stored with.
#[derive(Debug, Clone, Copy, Default)]
pub struct Terms {
    /// What it weighs.
    pub weight: Weight,
    /// How long it lives.
    pub ttl: Ttl,
    /// The time.
    pub now: i64,
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
    /// [`Error::Conflict`](crate::Error::Conflict) without any bound, [`Error::Range`](crate::Error::Range) for a bound
    /// of 0, a time that is not positive and a jitter outside 0 to 1.
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
    pub fn version(&self, slot: u32) -> Option<u64> {
        self.slab.version(slot)
    }

    /// What remains of the entry's life.
    pub fn remaining(&self, slot: u32) -> Lifetime {
        self.expiry.as_ref().map_or(Lifetime { live: NEVER, idle: NEVER }, |expiry| expiry.remaining(slot))
    }

    /// Removes what has ended by `now`. Every operation on a timed cache begins with this.
    ///
    /// # Errors
    /// [`Error::Memory`](crate::Error::Memory), with some of it removed.
    #[inline]
    pub fn expire(&mut self, now: i64, removed: &mut Removed<E>) -> Result<()> {
        let over = self.expiry.as_mut().is_some_and(|expiry| expiry.is_over(now));
        if over { self.remove_ended(removed) } else { Ok(()) }
    }

    #[inline(never)]
    fn remove_ended(&mut self, removed: &mut Removed<E>) -> Result<()> {
        while let Some(slot) = self.expiry.as_mut().and_then(|expiry| expiry.ended()) {
            removed.reserve()?;
            removed.push(self.take(slot, Cause::Expired), Cause::Expired);
        }
        Ok(())
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

    /// True if one more entry would be one too many.
    #[inline]
    pub fn is_full(&self) -> bool {
        self.bounds.entries.is_some_and(|bound| self.slab.len() as u64 >= bound)
    }

    /// [`Cache::insert`] for a [plain](Cache::is_plain) cache that is not [full](Cache::is_full), and no weight.
    ///
    /// # Errors
    /// [`Error::Memory`](crate::Error::Memory), and nothing has changed.
    #[inline]
    pub fn insert_plain(&mut self, hash: u64, make: impl FnOnce() -> E) -> Result<()> {
        debug_assert!(self.is_plain() && !self.is_full(), "the entry has times or a weight, or must replace one");
        self.slab.reserve()?;
        self.reserve_index()?;
        self.link(hash, make(), 0);
        Ok(())
    }

    /// Gives the slot of the next victim of a [plain](Cache::is_plain), [full](Cache::is_full) cache to a new entry:
    /// its hash is `hash` now, it is the newest, and what it holds is for the caller to exchange.
    ///
    /// # Errors
    /// [`Error::Memory`](crate::Error::Memory), and nothing has changed.
    #[inline(always)]
    pub fn recycle(&mut self, hash: u64) -> Result<&mut E> {
        debug_assert!(self.is_plain() && self.is_full(), "another policy, or no need");
        // What was removed from the index leaves gaps that cannot all be filled, so it may have to grow.
        self.reserve_index()?;
        let slot = self.policy.victim(&self.slab, &mut Contest::default(), NIL);
        self.unlink(slot);
        self.slab.rename(slot, hash);
        self.index.insert_unique(mix(hash), slot, |&slot| mix(self.slab.hash(slot)));
        self.policy.hit(&mut self.slab, slot);
        self.stats.evictions[Cause::Size as usize] += 1;
        Ok(self.slab.get_mut(slot))
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
    ///
    /// # Errors
    /// [`Error::Memory`](crate::Error::Memory): the entry is not in the cache, others may have made room for it.
    pub fn insert(
        &mut self,
        hash: u64,
        make: impl FnOnce() -> E,
        terms: Terms,
        removed: &mut Removed<E>,
    ) -> Result<()> {
        self.untimed_until(terms);
        let Terms { weight, ttl, .. } = terms;
        if self.is_plain() && weight == Weight::default() && !ttl.ends() {
            if !self.is_full() {
                return self.insert_plain(hash, make);
            }
            removed.reserve()?;
            removed.push(std::mem::replace(self.recycle(hash)?, make()), Cause::Size);
            return Ok(());
        }
        let contests = self.policy.contests();
        if !contests {
            while self.bounds.exceeded_by(self.len() as u64 + 1, self.ledger.total() + self.ledger.extra(weight)) {
                removed.reserve()?;
                let slot = self.policy.victim(&self.slab, &mut Contest::default(), NIL);
                removed.push(self.take(slot, Cause::Size), Cause::Size);
            }
        }
        let slots = self.slab.reserve()?;
        self.reserve_index()?;
        self.policy.reserve(&self.slab, slots, weight.bytes)?;
        self.reserve_terms(slots, terms)?;
        let slot = self.link(hash, make(), weight.bytes);
        self.set_terms(slot, terms);
        if contests { self.shrink(slot, NIL, removed) } else { Ok(()) }
    }

    /// Puts another value into a resident entry, which `renew` does: a use of it, and its time starts anew. `renew` may
    /// hand over one entry.
    ///
    /// # Errors
    /// [`Error::Memory`](crate::Error::Memory): the entry is as it was, or, if others could not make room, has left.
    pub fn replace(
        &mut self,
        slot: u32,
        renew: impl FnOnce(&mut E, &mut Removed<E>),
        terms: Terms,
        removed: &mut Removed<E>,
    ) -> Result<()> {
        self.untimed_until(terms);
        removed.reserve()?;
        self.reserve_terms(self.slab.slots(), terms)?;
        self.stats.evictions[Cause::Replaced as usize] += 1;
        renew(self.slab.get_mut(slot), removed);
        self.ledger.release(slot);
        self.policy.replace(&mut self.slab, slot, terms.weight.bytes);
        self.set_terms(slot, terms);
        if self.bounds.bytes.is_some() { self.shrink(slot, slot, removed) } else { Ok(()) }
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
    ///
    /// # Errors
    /// [`Error::Memory`](crate::Error::Memory) if there is none for the list.
    pub fn order(&self) -> Result<Vec<u32>> {
        self.policy.order(&self.slab)
    }

    /// Every entry, in no order.
    pub fn entries(&self) -> impl Iterator<Item = &E> {
        self.slab.iter()
    }

    /// Room in the index for one more slot.
    #[inline]
    fn reserve_index(&mut self) -> Result<()> {
        grow::table(&mut self.index, |&slot| mix(self.slab.hash(slot)))
    }

    /// Room for the terms of an entry among so many slots.
    fn reserve_terms(&mut self, slots: usize, terms: Terms) -> Result<()> {
        self.ledger.reserve(slots, terms.weight)?;
        self.expiry.as_mut().map_or(Ok(()), |expiry| expiry.reserve(slots, terms.ttl))
    }

    fn set_terms(&mut self, slot: u32, terms: Terms) {
        self.ledger.charge(slot, terms.weight);
        if let Some(expiry) = &mut self.expiry {
            expiry.start(slot, terms.ttl);
        }
    }

    /// A new entry, for which there is room.
    #[inline]
    fn link(&mut self, hash: u64, entry: E, bytes: u64) -> u32 {
        let slot = self.slab.insert(hash, entry);
        self.index.insert_unique(mix(hash), slot, |&slot| mix(self.slab.hash(slot)));
        self.policy.insert(&mut self.slab, slot, bytes);
        slot
    }

    #[inline]
    fn unlink(&mut self, slot: u32) {
        if let Ok(found) = self.index.find_entry(mix(self.slab.hash(slot)), |&other| other == slot) {
            found.remove();
        }
    }

    fn take(&mut self, slot: u32, cause: Cause) -> E {
        self.stats.evictions[cause as usize] += 1;
        self.unlink(slot);
        self.policy.remove(&mut self.slab, slot);
        self.ledger.release(slot);
        if let Some(expiry) = &mut self.expiry {
            expiry.stop(slot);
        }
        self.slab.remove(slot)
    }

    /// Takes out, after the put of `own`, what is beyond the bounds; never `keep`.
    fn shrink(&mut self, own: u32, keep: u32, removed: &mut Removed<E>) -> Result<()> {
        let mut contest = self.policy.contest(&mut self.slab);
        while self.bounds.exceeded_by(self.len() as u64, self.ledger.total()) {
            if let Err(error) = removed.reserve() {
                // Without it, what was there is within the bounds.
                removed.push_last(self.take(own, Cause::Size), Cause::Size);
                return Err(error);
            }
            let slot = self.policy.victim(&self.slab, &mut contest, keep);
            removed.push(self.take(slot, Cause::Size), Cause::Size);
        }
        Ok(())
    }

    /// A cache without times has them from a put that has one until that entry is gone.
    fn untimed_until(&mut self, terms: Terms) {
        if terms.ttl.ends() && !self.is_timed() {
            let made = || Box::new(Expiry::new(self.config.timing, self.config.seed));
            self.expiry.get_or_insert_with(made).advance(terms.now);
        }
    }
}
