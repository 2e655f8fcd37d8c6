//! LRU and SIEVE, the slow and obvious way, as the oracle of the tests.

use super::{Cause, Config, PolicyKind, Weight};

/// LRU or SIEVE as a list of (key, value, weight, visited), oldest first.
#[derive(Default)]
pub(super) struct Model {
    pub(super) config: Config,
    pub(super) entries: Vec<(u64, u64, Weight, bool)>,
    pub(super) hand: Option<u64>,
    pub(super) left: Vec<(u64, Cause)>,
}

impl Model {
    pub(super) fn bytes(&self) -> u128 {
        let alone: u128 =
            self.entries.iter().filter(|entry| entry.2.owner.is_none()).map(|entry| u128::from(entry.2.bytes)).sum();
        let mut owners: Vec<(usize, u64)> =
            self.entries.iter().filter_map(|entry| Some((entry.2.owner?, entry.2.bytes))).collect();
        owners.sort_unstable();
        owners.dedup_by_key(|owner| owner.0);
        alone + owners.iter().map(|owner| u128::from(owner.1)).sum::<u128>()
    }

    fn fits(&self) -> bool {
        let Config { max_entries, max_bytes, .. } = self.config;
        max_entries.is_none_or(|bound| self.entries.len() as u64 <= bound)
            && max_bytes.is_none_or(|bound| self.bytes() <= bound.into())
    }

    pub(super) fn position(&self, key: u64) -> Option<usize> {
        self.entries.iter().position(|entry| entry.0 == key)
    }

    pub(super) fn remove(&mut self, position: usize, cause: Cause) {
        if self.hand == Some(self.entries[position].0) {
            self.hand = self.entries.get(position + 1).map(|entry| entry.0);
        }
        self.left.push((self.entries.remove(position).0, cause));
    }

    pub(super) fn victim(&mut self, keep: Option<u64>) -> usize {
        if self.config.policy == PolicyKind::Lru {
            return self.entries.iter().position(|entry| Some(entry.0) != keep).unwrap();
        }
        let mut position = self.hand.map_or(0, |hand| self.position(hand).unwrap());
        loop {
            let entry = &mut self.entries[position];
            if !entry.3 && Some(entry.0) != keep {
                self.hand = Some(entry.0);
                return position;
            }
            entry.3 = false;
            position = (position + 1) % self.entries.len();
        }
    }

    fn touch(&mut self, position: usize) {
        self.entries[position].3 = true;
        if self.config.policy == PolicyKind::Lru {
            let entry = self.entries.remove(position);
            self.entries.push(entry);
        }
    }

    pub(super) fn get(&mut self, key: u64) -> Option<u64> {
        let position = self.position(key)?;
        let value = self.entries[position].1;
        self.touch(position);
        Some(value)
    }

    pub(super) fn put(&mut self, key: u64, value: u64, weight: Weight) -> bool {
        if self.config.max_bytes.is_some_and(|bound| weight.bytes > bound) {
            return false;
        }
        if let Some(position) = self.position(key) {
            self.left.push((key, Cause::Replaced));
            self.entries[position].1 = value;
            self.entries[position].2 = weight;
            self.touch(position);
            while !self.fits() {
                let victim = self.victim(Some(key));
                self.remove(victim, Cause::Size);
            }
            return true;
        }
        loop {
            self.entries.push((key, value, weight, false));
            let fits = self.fits();
            self.entries.pop();
            if fits {
                break;
            }
            let victim = self.victim(None);
            self.remove(victim, Cause::Size);
        }
        self.entries.push((key, value, weight, false));
        true
    }
}
