//! W-TinyLFU (Einziger et al., "TinyLFU", 2017; "Adaptive Software Cache Management", 2018), as Caffeine implements
//! it, without its hill climber and without its random admissions: new entries pass a small LRU window; what falls out
//! of it must have been seen more often than the victim of the main part to stay.

use super::Bounds;
use super::sketch::Sketch;
use crate::memory::mix;
use crate::memory::slab::{List, NIL, Slab};

#[derive(Debug, Clone, Copy, PartialEq, Eq)]
enum Part {
    Window,
    Probation,
    Protected,
}

/// One LRU list and its size, in both units.
#[derive(Debug, Default)]
struct Section {
    list: List,
    entries: u64,
    bytes: u128,
    bounds: Bounds,
}

impl Section {
    fn exceeded(&self) -> bool {
        self.bounds.exceeded_by(self.entries, self.bytes)
    }
}

#[derive(Debug, Clone, Copy)]
struct Resident {
    part: Part,
    bytes: u64,
    inserted: u64,
}

#[derive(Debug)]
pub(crate) struct TinyLfu {
    sketch: Sketch,
    bounds: Bounds,
    window: Section,
    probation: Section,
    protected: Section,
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
    victims_from: Part,
}

impl Default for Contest {
    fn default() -> Self {
        Self { candidate: NIL, candidates_from_window: false, victim: NIL, victims_from: Part::Probation }
    }
}

fn share(bounds: Bounds, part: impl Fn(u64) -> u64) -> Bounds {
    Bounds { entries: bounds.entries.map(&part), bytes: bounds.bytes.map(&part) }
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
            window: Section { bounds: share(bounds, window_share), ..Section::default() },
            probation: Section::default(),
            protected: Section { bounds: share(bounds, protected_share), ..Section::default() },
            residents: Vec::new(),
            insertions: 0,
            newcomer: NIL,
        }
    }

    fn section(&mut self, part: Part) -> &mut Section {
        match part {
            Part::Window => &mut self.window,
            Part::Probation => &mut self.probation,
            Part::Protected => &mut self.protected,
        }
    }

    fn enter<E>(&mut self, slab: &mut Slab<E>, slot: u32, part: Part) {
        self.residents[slot as usize].part = part;
        let bytes = self.residents[slot as usize].bytes;
        let section = self.section(part);
        section.list.push(slab, slot);
        section.entries += 1;
        section.bytes += u128::from(bytes);
    }

    fn leave<E>(&mut self, slab: &mut Slab<E>, slot: u32) {
        let Resident { part, bytes, .. } = self.residents[slot as usize];
        let section = self.section(part);
        section.list.remove(slab, slot);
        section.entries -= 1;
        section.bytes -= u128::from(bytes);
    }

    pub(super) fn insert<E>(&mut self, slab: &mut Slab<E>, slot: u32, bytes: u64) {
        // The sketch is made when the cache is half full, as a bound is often set far above what is used.
        let (entries, weight) = (slab.len() as u64, self.window.bytes + self.probation.bytes + self.protected.bytes);
        if self.bounds.entries.is_some_and(|bound| entries >= bound / 2) {
            self.sketch.ensure(self.bounds.entries.unwrap_or(entries) as usize);
        } else if self.bounds.bytes.is_some_and(|bound| weight + u128::from(bytes) >= u128::from(bound / 2)) {
            self.sketch.ensure(slab.len());
        }
        self.sketch.increment(mix(slab.hash(slot)));
        self.insertions += 1;
        let resident = Resident { part: Part::Window, bytes, inserted: self.insertions };
        if self.residents.len() <= slot as usize {
            self.residents.resize(slot as usize + 1, resident);
        }
        self.residents[slot as usize] = resident;
        if self.window.bounds.exceeded_by(1, bytes.into()) {
            self.newcomer = slot;
            self.enter(slab, slot, Part::Probation);
        } else {
            self.enter(slab, slot, Part::Window);
        }
    }

    pub(super) fn hit<E>(&mut self, slab: &mut Slab<E>, slot: u32) {
        self.sketch.increment(mix(slab.hash(slot)));
        let Resident { part, bytes, .. } = self.residents[slot as usize];
        if part == Part::Probation && !self.protected.bounds.exceeded_by(1, bytes.into()) {
            self.leave(slab, slot);
            self.enter(slab, slot, Part::Protected);
            self.demote(slab);
        } else {
            self.section(part).list.renew(slab, slot);
        }
    }

    fn demote<E>(&mut self, slab: &mut Slab<E>) {
        while self.protected.exceeded() {
            let slot = self.protected.list.tail();
            self.leave(slab, slot);
            self.enter(slab, slot, Part::Probation);
        }
    }

    pub(super) fn replace<E>(&mut self, slab: &mut Slab<E>, slot: u32, bytes: u64) {
        let Resident { part, bytes: before, .. } = self.residents[slot as usize];
        self.residents[slot as usize].bytes = bytes;
        let section = self.section(part);
        section.bytes = section.bytes - u128::from(before) + u128::from(bytes);
        if part == Part::Window && self.window.bounds.exceeded_by(1, bytes.into()) {
            self.leave(slab, slot);
            self.enter(slab, slot, Part::Probation);
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
            self.enter(slab, slot, Part::Probation);
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
                    Part::Probation => (Part::Protected, self.protected.list.tail()),
                    Part::Protected | Part::Window => (Part::Window, self.window.list.tail()),
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

    pub(super) fn order<E>(&self, slab: &Slab<E>) -> Vec<u32> {
        let sections = [&self.window, &self.probation, &self.protected];
        let mut slots: Vec<u32> = sections.iter().flat_map(|section| section.list.oldest_first(slab)).collect();
        slots.sort_unstable_by_key(|&slot| self.residents[slot as usize].inserted);
        slots
    }
}
