//! SIEVE (Zhang et al., "SIEVE is Simpler than LRU", NSDI 2024): a queue, one bit for each entry, and a hand.

use crate::memory::slab::{List, NIL, Slab};

/// New entries at the head; the hand goes from tail to head, spares what was used since it last came by, and stays
/// where it found its victim.
#[derive(Debug)]
pub(crate) struct Sieve {
    queue: List,
    visited: Vec<bool>,
    hand: u32,
}

impl Default for Sieve {
    fn default() -> Self {
        Self { queue: List::default(), visited: Vec::new(), hand: NIL }
    }
}

impl Sieve {
    pub(super) fn insert<E>(&mut self, slab: &mut Slab<E>, slot: u32) {
        self.queue.push(slab, slot);
        if self.visited.len() <= slot as usize {
            self.visited.resize(slot as usize + 1, false);
        }
        self.visited[slot as usize] = false;
    }

    pub(super) fn hit(&mut self, slot: u32) {
        self.visited[slot as usize] = true;
    }

    pub(super) fn remove<E>(&mut self, slab: &mut Slab<E>, slot: u32) {
        if self.hand == slot {
            self.hand = slab.newer(slot);
        }
        self.queue.remove(slab, slot);
    }

    pub(super) fn victim<E>(&mut self, slab: &Slab<E>, keep: u32) -> u32 {
        loop {
            let slot = if self.hand == NIL { self.queue.tail() } else { self.hand };
            self.hand = slot;
            let spared = std::mem::take(&mut self.visited[slot as usize]);
            if !spared && slot != keep {
                return slot;
            }
            self.hand = slab.newer(slot);
        }
    }

    pub(super) fn order<E>(&self, slab: &Slab<E>) -> Vec<u32> {
        self.queue.oldest_first(slab).collect()
    }
}
