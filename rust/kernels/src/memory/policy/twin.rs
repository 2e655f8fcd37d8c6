//! W-TinyLFU with vectors, written after the loop of Caffeine's `BoundedLocalCache`, as the oracle of the tests.

use proptest::prelude::*;

use super::sketch::Sketch;
use crate::memory::{Cache, Config, PolicyKind, Removed, Ttl, Weight, mix};

/// Oldest first in each section.
#[derive(Default)]
struct Twin {
    maximum: u64,
    sketch: Sketch,
    window: Vec<u64>,
    probation: Vec<u64>,
    protected: Vec<u64>,
}

impl Twin {
    fn len(&self) -> u64 {
        (self.window.len() + self.probation.len() + self.protected.len()) as u64
    }

    fn window_maximum(&self) -> u64 {
        self.maximum - (0.99 * self.maximum as f64) as u64
    }

    fn protected_maximum(&self) -> u64 {
        (0.8 * (self.maximum - self.window_maximum()) as f64) as u64
    }

    fn get(&mut self, key: u64) -> bool {
        for section in [&mut self.window, &mut self.protected] {
            if let Some(position) = section.iter().position(|&other| other == key) {
                self.sketch.increment(mix(key));
                section.remove(position);
                section.push(key);
                return true;
            }
        }
        let Some(position) = self.probation.iter().position(|&other| other == key) else { return false };
        self.sketch.increment(mix(key));
        self.probation.remove(position);
        if self.protected_maximum() == 0 {
            self.probation.push(key);
            return true;
        }
        self.protected.push(key);
        while self.protected.len() as u64 > self.protected_maximum() {
            let demoted = self.protected.remove(0);
            self.probation.push(demoted);
        }
        true
    }

    fn put(&mut self, key: u64) {
        self.window.push(key);
        if self.len() >= self.maximum / 2 {
            self.sketch.ensure(self.maximum as usize);
        }
        self.sketch.increment(mix(key));
        let mut candidate = None;
        while self.window.len() as u64 > self.window_maximum() {
            let moved = self.window.remove(0);
            candidate = candidate.or(Some(moved));
            self.probation.push(moved);
        }
        while self.len() > self.maximum {
            // One entry comes, so one goes: the candidate, or the victim if it was seen less often.
            let victim = self.probation.first().copied();
            let evicted = match (candidate, victim) {
                (Some(candidate), Some(victim)) if candidate == victim => candidate,
                (Some(candidate), Some(victim)) => {
                    let admitted = self.sketch.frequency(mix(candidate)) > self.sketch.frequency(mix(victim));
                    if admitted { victim } else { candidate }
                }
                (candidate, victim) => candidate.or(victim).unwrap_or_else(|| self.protected[0]),
            };
            self.probation.retain(|&other| other != evicted);
            self.protected.retain(|&other| other != evicted);
        }
    }
}

proptest! {
    #[test]
    fn tinylfu_holds_what_the_twin_holds(
        maximum in 1..120u64,
        requests in proptest::collection::vec((0..6u64, 0..60u64), 1..600),
    ) {
        let config = Config { max_entries: Some(maximum), policy: PolicyKind::TinyLfu, ..Config::default() };
        let mut cache = Cache::new(config).unwrap();
        let mut twin = Twin { maximum, ..Twin::default() };
        for (round, (scale, base)) in requests.into_iter().enumerate() {
            // Some keys often, many keys rarely.
            let key = base * scale * scale + if scale == 5 { round as u64 * 1000 } else { 0 };
            let slot = cache.find(key, |_, &entry| entry == key);
            prop_assert_eq!(slot.is_some(), twin.get(key));
            match slot {
                Some(slot) => { cache.hit(slot); }
                None => {
                    let mut removed = Removed::default();
                    cache.insert(key, key, Weight::default(), Ttl::Default, 0, &mut removed);
                    twin.put(key);
                }
            }
            let mut ours: Vec<u64> = cache.entries().copied().collect();
            let mut theirs = [&twin.window[..], &twin.probation, &twin.protected].concat();
            ours.sort_unstable();
            theirs.sort_unstable();
            prop_assert_eq!(ours, theirs);
        }
    }
}
