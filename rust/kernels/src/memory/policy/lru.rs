//! Least recently used: one list, what was used goes to its head, the tail goes.

use crate::memory::slab::{List, Slab};

#[derive(Debug, Default)]
pub(crate) struct Lru(List);

impl Lru {
    pub(super) fn insert<E>(&mut self, slab: &mut Slab<E>, slot: u32) {
        self.0.push(slab, slot);
    }

    pub(super) fn hit<E>(&mut self, slab: &mut Slab<E>, slot: u32) {
        self.0.renew(slab, slot);
    }

    pub(super) fn remove<E>(&mut self, slab: &mut Slab<E>, slot: u32) {
        self.0.remove(slab, slot);
    }

    pub(super) fn victim<E>(&self, slab: &Slab<E>, keep: u32) -> u32 {
        match self.0.tail() {
            tail if tail == keep => slab.newer(tail),
            tail => tail,
        }
    }

    pub(super) fn order<E>(&self, slab: &Slab<E>) -> Vec<u32> {
        self.0.oldest_first(slab).collect()
    }
}
