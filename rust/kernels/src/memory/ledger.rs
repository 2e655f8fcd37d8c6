//! What the entries weigh: exact at every moment, memory that several entries share is charged once.

use hashbrown::HashTable;

use super::mix;

/// The weight of one entry.
#[derive(Debug, Clone, Copy, Default, PartialEq, Eq)]
pub struct Weight {
    /// Bytes, of the entry alone or of the whole memory that it shares. `u64::MAX` stands for more than any cache holds.
    pub bytes: u64,
    /// What owns the memory, by address; `None` for an entry that shares nothing.
    pub owner: Option<usize>,
}

#[derive(Debug)]
struct Owner {
    address: usize,
    bytes: u64,
    entries: u32,
}

/// The weights of the resident entries, by slot, and their sum.
#[derive(Debug, Default)]
pub(super) struct Ledger {
    // As wide as all slots full of the largest weight need.
    total: u128,
    weights: Vec<Weight>,
    owners: HashTable<Owner>,
}

fn key(address: usize) -> u64 {
    mix(address as u64)
}

impl Ledger {
    pub(super) fn total(&self) -> u128 {
        self.total
    }

    /// True if nothing was ever weighed.
    pub(super) fn is_unused(&self) -> bool {
        self.weights.is_empty()
    }

    /// What the total would grow by.
    pub(super) fn extra(&self, weight: Weight) -> u128 {
        match weight.owner {
            Some(address) if self.owners.find(key(address), |owner| owner.address == address).is_some() => 0,
            _ => weight.bytes.into(),
        }
    }

    #[inline]
    pub(super) fn charge(&mut self, slot: u32, weight: Weight) {
        // A cache that weighs nothing keeps no vector.
        if weight != Weight::default() || !self.weights.is_empty() {
            self.charge_weight(slot, weight);
        }
    }

    fn charge_weight(&mut self, slot: u32, weight: Weight) {
        let slot = slot as usize;
        if self.weights.len() <= slot {
            self.weights.resize(slot + 1, Weight::default());
        }
        self.weights[slot] = weight;
        let Some(address) = weight.owner else {
            self.total += u128::from(weight.bytes);
            return;
        };
        let found = self.owners.find_mut(key(address), |owner| owner.address == address);
        if let Some(owner) = found {
            owner.entries += 1;
        } else {
            let owner = Owner { address, bytes: weight.bytes, entries: 1 };
            self.owners.insert_unique(key(address), owner, |owner| key(owner.address));
            self.total += u128::from(weight.bytes);
        }
    }

    #[inline]
    pub(super) fn release(&mut self, slot: u32) {
        if !self.weights.is_empty() {
            self.release_weight(slot);
        }
    }

    fn release_weight(&mut self, slot: u32) {
        let Some(weight) = self.weights.get_mut(slot as usize) else { return };
        let Weight { bytes, owner } = std::mem::take(weight);
        let Some(address) = owner else {
            self.total -= u128::from(bytes);
            return;
        };
        if let Ok(mut found) = self.owners.find_entry(key(address), |owner| owner.address == address) {
            found.get_mut().entries -= 1;
            if found.get().entries == 0 {
                // The bytes that were charged; an array may have been resized in place since.
                self.total -= u128::from(found.remove().0.bytes);
            }
        }
    }
}
