//! W-TinyLFU (Einziger et al., "TinyLFU", 2017; "Adaptive Software Cache Management", 2018), as Caffeine implements
//! it, without its hill climber and without its random admissions: new entries pass a small LRU window; what falls out
//! of it must have been seen more often than the victim of the main part to stay.

use super::sketch::Sketch;
use crate::Result;
use crate::memory::config::Bounds;
use crate::memory::grow;
use crate::memory::hash::mix;
use crate::memory::slab::{List, NIL, Slab};

#[derive(Debug, Clone, Copy, Default, PartialEq, Eq)]
enum Segment {
    #[default]
    Window,
    Probation,
    Protected,
}

/// One segment's LRU list, and its size in both units.
#[derive(Debug, Default)]
struct Queue {
    list: List,
    entries: u64,
    bytes: u128,
    bounds: Bounds,
}

impl Queue {
    fn exceeded(&self) -> bool {
        self.bounds.exceeded_by(self.entries, self.bytes)
    }
}

#[derive(Debug, Clone, Copy, Default)]
struct Resident {
    segment: Segment,
    bytes: u64,
    inserted: u64,
}

#[derive(Debug)]
pub(crate) struct TinyLfu {
    sketch: Sketch,
    bounds: Bounds,
    window: Queue,
    probation: Queue,
    protected: Queue,
    residents: Vec<Resident>,
    insertions: u64,
    /// An entry that is larger than the window and stands in probation unexamined.
    newcomer: u32,
}

/// A row of evictions: who came out of the window, and whom they are compared with.
#[derive(Debug)]
pub(crate) struct Contest {
    candidate: u32,
    candidates_from_window: bool,
    victim: u32,
    victims_from: Segment,
}

impl Default for Contest {
    fn default() -> Self {
        Self { candidate: NIL, candidates_from_window: false, victim: NIL, victims_from: Segment::Probation }
    }
}

fn share(bounds: Bounds, of: impl Fn(u64) -> u64) -> Bounds {
    Bounds { entries: bounds.entries.map(&of), bytes: bounds.bytes.map(&of) }
}

/// All but 99 %, rounded up: at least one entry.
fn window_share(bound: u64) -> u64 {
    bound - (bound / 100 * 99 + bound % 100 * 99 / 100)
}

fn protected_share(bound: u64) -> u64 {
    let main = bound - window_share(bound);
    main / 5 * 4 + main % 5 * 4 / 5
}

impl TinyLfu {
    pub(super) fn new(bounds: Bounds) -> Self {
        Self {
            sketch: Sketch::default(),
            bounds,
            window: Queue { bounds: share(bounds, window_share), ..Queue::default() },
            probation: Queue::default(),
            protected: Queue { bounds: share(bounds, protected_share), ..Queue::default() },
            residents: Vec::new(),
            insertions: 0,
            newcomer: NIL,
        }
    }

    fn queue(&mut self, segment: Segment) -> &mut Queue {
        match segment {
            Segment::Window => &mut self.window,
            Segment::Probation => &mut self.probation,
            Segment::Protected => &mut self.protected,
        }
    }

    fn enter<E>(&mut self, slab: &mut Slab<E>, slot: u32, segment: Segment) {
        self.residents[slot as usize].segment = segment;
        let bytes = self.residents[slot as usize].bytes;
        let queue = self.queue(segment);
        queue.list.push(slab, slot);
        queue.entries += 1;
        queue.bytes += u128::from(bytes);
    }

    fn leave<E>(&mut self, slab: &mut Slab<E>, slot: u32) {
        let Resident { segment, bytes, .. } = self.residents[slot as usize];
        let queue = self.queue(segment);
        queue.list.remove(slab, slot);
        queue.entries -= 1;
        queue.bytes -= u128::from(bytes);
    }

    /// Room for the last of so many entries, in so many slots.
    pub(super) fn reserve(&mut self, entries: usize, slots: usize, bytes: u64) -> Result<()> {
        grow::column(&mut self.residents, slots, Resident::default())?;
        // The sketch is made when the cache is half full, as a bound is often set far above what is used.
        let weight = self.window.bytes + self.probation.bytes + self.protected.bytes + u128::from(bytes);
        match self.bounds {
            Bounds { entries: Some(bound), .. } if entries as u64 >= bound / 2 => self.sketch.ensure(bound as usize),
            Bounds { bytes: Some(bound), .. } if weight >= u128::from(bound / 2) => self.sketch.ensure(entries),
            _ => Ok(()),
        }
    }

    pub(super) fn insert<E>(&mut self, slab: &mut Slab<E>, slot: u32, bytes: u64) {
        self.sketch.increment(mix(slab.hash(slot)));
        self.insertions += 1;
        self.residents[slot as usize] = Resident { segment: Segment::Window, bytes, inserted: self.insertions };
        if self.window.bounds.exceeded_by(1, bytes.into()) {
            self.newcomer = slot;
            self.enter(slab, slot, Segment::Probation);
        } else {
            self.enter(slab, slot, Segment::Window);
        }
    }

    pub(super) fn hit<E>(&mut self, slab: &mut Slab<E>, slot: u32) {
        self.sketch.increment(mix(slab.hash(slot)));
        let Resident { segment, bytes, .. } = self.residents[slot as usize];
        if segment == Segment::Probation && !self.protected.bounds.exceeded_by(1, bytes.into()) {
            self.leave(slab, slot);
            self.enter(slab, slot, Segment::Protected);
            self.demote(slab);
        } else {
            self.queue(segment).list.renew(slab, slot);
        }
    }

    fn demote<E>(&mut self, slab: &mut Slab<E>) {
        while self.protected.exceeded() {
            let slot = self.protected.list.tail();
            self.leave(slab, slot);
            self.enter(slab, slot, Segment::Probation);
        }
    }

    pub(super) fn replace<E>(&mut self, slab: &mut Slab<E>, slot: u32, bytes: u64) {
        let Resident { segment, bytes: before, .. } = self.residents[slot as usize];
        self.residents[slot as usize].bytes = bytes;
        let queue = self.queue(segment);
        queue.bytes = queue.bytes - u128::from(before) + u128::from(bytes);
        if segment == Segment::Window && self.window.bounds.exceeded_by(1, bytes.into()) {
            self.leave(slab, slot);
            self.enter(slab, slot, Segment::Probation);
            self.newcomer = slot;
            self.sketch.increment(mix(slab.hash(slot)));
        } else {
            self.hit(slab, slot);
            self.demote(slab);
        }
    }

    pub(super) fn remove<E>(&mut self, slab: &mut Slab<E>, slot: u32) {
        if self.newcomer == slot {
            self.newcomer = NIL;
        }
        self.leave(slab, slot);
    }

    /// Empties the window down to its bound; what leaves it is the row of candidates.
    pub(super) fn contest<E>(&mut self, slab: &mut Slab<E>) -> Contest {
        let mut candidate = std::mem::replace(&mut self.newcomer, NIL);
        while self.window.exceeded() {
            let slot = self.window.list.tail();
            self.leave(slab, slot);
            self.enter(slab, slot, Segment::Probation);
            if candidate == NIL {
                candidate = slot;
            }
        }
        Contest { candidate, victim: self.probation.list.tail(), ..Contest::default() }
    }

    /// A contest without candidates: what an eviction would take if nothing new had come.
    pub(super) fn uncontested(&self) -> Contest {
        Contest { candidates_from_window: true, victim: self.probation.list.tail(), ..Contest::default() }
    }

    /// The next to go; the cache must not be empty.
    pub(super) fn victim<E>(&mut self, slab: &Slab<E>, contest: &mut Contest) -> u32 {
        loop {
            if contest.candidate == NIL && !contest.candidates_from_window {
                contest.candidates_from_window = true;
                contest.candidate = self.window.list.tail();
            }
            let (candidate, victim) = (contest.candidate, contest.victim);
            if candidate == NIL && victim == NIL {
                (contest.victims_from, contest.victim) = match contest.victims_from {
                    Segment::Probation => (Segment::Protected, self.protected.list.tail()),
                    Segment::Protected | Segment::Window => (Segment::Window, self.window.list.tail()),
                };
                continue;
            }
            let evicted = if victim == NIL {
                candidate
            } else if candidate == NIL {
                victim
            } else if candidate == victim {
                contest.victim = slab.newer(victim);
                contest.candidate = NIL;
                return victim;
            } else if self.frequency(slab, candidate) > self.frequency(slab, victim) {
                // The candidate is in; the next one is compared with the next victim.
                contest.candidate = slab.newer(candidate);
                victim
            } else {
                candidate
            };
            if evicted == victim {
                contest.victim = slab.newer(victim);
            }
            if evicted == candidate {
                contest.candidate = slab.newer(candidate);
            }
            return evicted;
        }
    }

    fn frequency<E>(&self, slab: &Slab<E>, slot: u32) -> u64 {
        self.sketch.frequency(mix(slab.hash(slot)))
    }

    pub(super) fn order<E>(&self, slab: &Slab<E>, slots: &mut Vec<u32>) {
        for queue in [&self.window, &self.probation, &self.protected] {
            slots.extend(queue.list.oldest_first(slab));
        }
        slots.sort_unstable_by_key(|&slot| self.residents[slot as usize].inserted);
    }
}
