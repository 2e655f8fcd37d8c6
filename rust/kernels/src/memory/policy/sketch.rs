//! How often a hash was seen lately: a count-min sketch of 4-bit counters that are halved from time to time
//! (Einziger et al., "TinyLFU: A Highly Efficient Cache Admission Policy", 2017; blocked as in Caffeine).

/// Four counters for each hash, all in one 64-byte block.
#[derive(Debug, Default)]
pub(super) struct Sketch {
    table: Vec<u64>,
    additions: u64,
}

const RESET_MASK: u64 = 0x7777_7777_7777_7777;
const ONE_MASK: u64 = 0x1111_1111_1111_1111;

impl Sketch {
    /// Makes room for the counts of this many entries; growing forgets what was counted.
    pub(super) fn ensure(&mut self, entries: usize) {
        if self.table.len() < entries || self.table.is_empty() {
            self.table = vec![0; entries.next_power_of_two().max(8)];
            self.additions = 0;
        }
    }

    /// Word and bit offset of the four counters.
    fn counters(&self, hash: u64) -> [(usize, u32); 4] {
        let block = (hash as usize & ((self.table.len() >> 3) - 1)) << 3;
        let bits = hash.wrapping_mul(0x9e37_79b9_7f4a_7c15) >> 32;
        std::array::from_fn(|row| {
            let byte = (bits >> (8 * row)) as u32;
            (block + (byte & 1) as usize + 2 * row, ((byte >> 1) & 15) * 4)
        })
    }

    pub(super) fn frequency(&self, hash: u64) -> u64 {
        if self.table.is_empty() {
            return 0;
        }
        self.counters(hash).iter().map(|&(word, offset)| (self.table[word] >> offset) & 15).min().unwrap_or(0)
    }

    pub(super) fn increment(&mut self, hash: u64) {
        if self.table.is_empty() {
            return;
        }
        let mut added = false;
        for (word, offset) in self.counters(hash) {
            if (self.table[word] >> offset) & 15 != 15 {
                self.table[word] += 1 << offset;
                added = true;
            }
        }
        self.additions += u64::from(added);
        if self.additions >= 10 * self.table.len() as u64 {
            self.halve();
        }
    }

    fn halve(&mut self) {
        let mut odd = 0;
        for word in &mut self.table {
            odd += u64::from((*word & ONE_MASK).count_ones());
            *word = (*word >> 1) & RESET_MASK;
        }
        self.additions = (self.additions - odd / 4) / 2;
    }
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::memory::mix;

    #[test]
    fn counts_up_to_fifteen_and_never_too_little() {
        let mut sketch = Sketch::default();
        sketch.ensure(512);
        for n in 1..=20 {
            sketch.increment(mix(7));
            assert_eq!(sketch.frequency(mix(7)), n.min(15));
        }
        for key in 0..100 {
            sketch.increment(mix(key));
            sketch.increment(mix(key));
        }
        assert!((0..100).all(|key| sketch.frequency(mix(key)) >= 2));
    }

    #[test]
    fn is_halved_after_ten_additions_for_each_entry() {
        let mut sketch = Sketch::default();
        sketch.ensure(8);
        for _ in 0..12 {
            sketch.increment(mix(1));
        }
        assert_eq!(sketch.frequency(mix(1)), 12);
        for key in 100..168 {
            sketch.increment(mix(key));
        }
        assert!(sketch.frequency(mix(1)) < 12, "the count is halved");
    }
}
