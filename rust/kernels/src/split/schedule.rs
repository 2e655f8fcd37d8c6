//! Pipeline schedules as data: who works on what, and when.
//!
//! - GPipe (Huang et al. 2019, arXiv:1811.06965): every stage runs all forward passes, then all backward passes, the
//!   last micro-batch first.
//! - 1F1B (PipeDream-Flush; Narayanan et al. 2021, arXiv:2104.04473): stage s of S runs S - 1 - s forward passes ahead,
//!   then one forward and one backward pass in turn, then the backward passes that are left.

use std::collections::VecDeque;

use crate::{Error, Result};

/// Which schedule.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub enum Kind {
    /// All forward passes before all backward passes.
    GPipe,
    /// One forward and one backward pass in turn.
    OneForwardOneBackward,
}

impl Kind {
    /// The kind that is called `name`: "gpipe" or "1f1b".
    pub fn named(name: &str) -> Result<Self> {
        match name {
            "gpipe" => Ok(Self::GPipe),
            "1f1b" => Ok(Self::OneForwardOneBackward),
            _ => {
                Err(Error::Range { argument: "schedule", given: format!("{name:?}"), allowed: "\"gpipe\" or \"1f1b\"" })
            }
        }
    }
}

/// The direction of a pass.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Hash)]
pub enum Direction {
    /// From the first stage to the last.
    Forward,
    /// From the last stage to the first.
    Backward,
}

impl Direction {
    /// "F" or "B".
    pub fn letter(self) -> &'static str {
        match self {
            Self::Forward => "F",
            Self::Backward => "B",
        }
    }
}

/// One pass of one micro-batch through one stage. Times have the unit of the durations that were given.
#[derive(Debug, Clone, Copy, PartialEq)]
pub struct Work {
    /// When it starts; the first work starts at 0.
    pub start: f64,
    /// How long it takes.
    pub duration: f64,
    /// The stage that does it.
    pub stage: usize,
    /// The micro-batch that it is done to.
    pub micro_batch: usize,
    /// Forward or backward.
    pub direction: Direction,
}

/// What a schedule is made from: the kind, how long each stage's passes take, and how many micro-batches there are.
#[derive(Debug, Clone, Copy)]
pub struct Schedule<'a> {
    /// Which schedule.
    pub kind: Kind,
    /// How long a forward pass of one micro-batch takes, one number for each stage.
    pub forward: &'a [f64],
    /// The same for the backward pass.
    pub backward: &'a [f64],
    /// How many micro-batches there are, at least 1.
    pub micro_batches: usize,
}

/// The largest number of passes, forward and backward together, that a schedule may have: what a list of them takes is
/// then bounded (1.2 GiB in Python), whatever numbers a caller types.
pub const MOST_PASSES: usize = 1 << 22;

/// How many passes a schedule has.
///
/// # Errors
/// A count of 0, or more passes than [`MOST_PASSES`].
pub fn passes(stages: usize, micro_batches: usize) -> Result<usize> {
    for (argument, count) in [("num_stages", stages), ("num_microbatches", micro_batches)] {
        if count == 0 {
            return Err(Error::Range { argument, given: "0".to_owned(), allowed: "an integer of at least 1" });
        }
    }
    let passes = stages.checked_mul(micro_batches).and_then(|pairs| pairs.checked_mul(2));
    passes.filter(|&passes| passes <= MOST_PASSES).ok_or_else(|| Error::Range {
        argument: if stages > micro_batches { "num_stages" } else { "num_microbatches" },
        given: format!("{stages} stages × {micro_batches} micro-batches"),
        allowed: "a product of at most 2097152",
    })
}

impl Schedule<'_> {
    /// Every pass, by start, then by stage. Each starts as soon as its stage has done what comes before it in the
    /// schedule's order and the neighbouring stage has handed over the micro-batch.
    ///
    /// # Errors
    /// As [`passes`]; durations of unequal number, negative or not finite, or so long that their sum is not finite.
    pub fn run(&self) -> Result<Vec<Work>> {
        let passes = self.check()?;
        let stages = self.forward.len();
        let orders: Vec<Vec<(Direction, usize)>> = (0..stages).map(|stage| self.order(stage)).collect();
        // When each pass ended; NaN while it has not.
        let mut ends = [vec![f64::NAN; passes / 2], vec![f64::NAN; passes / 2]];
        let mut done = vec![0; stages];
        let mut free = vec![0.0; stages];
        let mut works = Vec::with_capacity(passes);
        // Stages that may have something to do: at first all, then the neighbours of those that have done something.
        let mut waiting: VecDeque<usize> = (0..stages).collect();
        while let Some(stage) = waiting.pop_front() {
            let before = done[stage];
            while let Some(&(direction, micro_batch)) = orders[stage].get(done[stage]) {
                let end = |direction: Direction, stage: usize| {
                    ends[direction as usize][stage * self.micro_batches + micro_batch]
                };
                let (ready, duration) = match direction {
                    Direction::Forward if stage == 0 => (0.0, self.forward[stage]),
                    Direction::Forward => (end(Direction::Forward, stage - 1), self.forward[stage]),
                    Direction::Backward if stage == stages - 1 => {
                        (end(Direction::Forward, stage), self.backward[stage])
                    }
                    Direction::Backward => (end(Direction::Backward, stage + 1), self.backward[stage]),
                };
                if ready.is_nan() {
                    break;
                }
                let start = f64::max(ready, free[stage]);
                free[stage] = start + duration;
                ends[direction as usize][stage * self.micro_batches + micro_batch] = free[stage];
                done[stage] += 1;
                works.push(Work { start, duration, stage, micro_batch, direction });
            }
            if done[stage] > before {
                waiting.extend(stage.checked_sub(1));
                waiting.extend(Some(stage + 1).filter(|&next| next < stages));
            }
        }
        works.sort_by(|a, b| a.start.total_cmp(&b.start).then(a.stage.cmp(&b.stage)));
        Ok(works)
    }

    fn check(&self) -> Result<usize> {
        let stages = self.forward.len();
        let passes = passes(stages, self.micro_batches)?;
        if stages != self.backward.len() {
            let allowed = format!("[{stages}] (as many as forward)");
            return Err(Error::Shape { argument: "backward", given: vec![self.backward.len()], allowed });
        }
        let mut whole = 0.0;
        for (argument, durations) in [("forward", self.forward), ("backward", self.backward)] {
            if let Some(bad) = durations.iter().find(|duration| !duration.is_finite() || **duration < 0.0) {
                let allowed = "finite numbers of at least 0";
                return Err(Error::Range { argument, given: bad.to_string(), allowed });
            }
            // No makespan is longer than all work one after another, no idle time of all stages longer than that of
            // each; `passes` more than covers both, and rounding.
            whole += durations.iter().sum::<f64>() * passes as f64;
            if !whole.is_finite() {
                let longest = durations.iter().copied().fold(0.0, f64::max);
                let allowed = "a duration with which the time of all passes is finite";
                return Err(Error::Range { argument, given: format!("{longest:e}"), allowed });
            }
        }
        Ok(passes)
    }

    /// What `stage` does, in order.
    fn order(&self, stage: usize) -> Vec<(Direction, usize)> {
        let forward = |micro_batch| (Direction::Forward, micro_batch);
        let backward = |micro_batch| (Direction::Backward, micro_batch);
        let count = self.micro_batches;
        match self.kind {
            Kind::GPipe => (0..count).map(forward).chain((0..count).rev().map(backward)).collect(),
            Kind::OneForwardOneBackward => {
                let ahead = count.min(self.forward.len() - 1 - stage);
                let in_turn = (ahead..count).flat_map(|index| [forward(index), backward(index - ahead)]);
                (0..ahead).map(forward).chain(in_turn).chain((count - ahead..count).map(backward)).collect()
            }
        }
    }
}

/// When the last work ends.
pub fn makespan(works: &[Work]) -> f64 {
    works.iter().map(|work| work.start + work.duration).fold(0.0, f64::max)
}

/// How long each of `stages` has nothing to do until everything ends: the makespan minus its own work.
pub fn idle(works: &[Work], stages: usize) -> Vec<f64> {
    let mut worked = vec![0.0; stages];
    for work in works {
        worked[work.stage] += work.duration;
    }
    let makespan = makespan(works);
    worked.into_iter().map(|worked| makespan - worked).collect()
}

/// The largest number of micro-batches that each of `stages` holds at one time: those whose forward pass has started
/// and whose backward pass has not ended.
pub fn peak(works: &[Work], stages: usize) -> Vec<usize> {
    let (mut alive, mut peak) = (vec![0usize; stages], vec![0; stages]);
    for work in works {
        match work.direction {
            Direction::Forward => alive[work.stage] += 1,
            Direction::Backward => alive[work.stage] -= 1,
        }
        peak[work.stage] = peak[work.stage].max(alive[work.stage]);
    }
    peak
}

#[cfg(test)]
mod tests {
    use std::collections::HashMap;

    use proptest::prelude::*;

    use super::*;

    const KINDS: [Kind; 2] = [Kind::GPipe, Kind::OneForwardOneBackward];

    fn equal(kind: Kind, stages: usize, micro_batches: usize, forward: f64, backward: f64) -> Vec<Work> {
        let (forward, backward) = (vec![forward; stages], vec![backward; stages]);
        Schedule { kind, forward: &forward, backward: &backward, micro_batches }.run().unwrap()
    }

    /// Everything once, one thing at a time on a stage, and each as soon as its stage and what it needs are ready.
    fn check(works: &[Work], stages: usize, micro_batches: usize) {
        assert_eq!(works.len(), 2 * stages * micro_batches);
        let ends: HashMap<_, _> = works
            .iter()
            .map(|work| ((work.direction, work.stage, work.micro_batch), work.start + work.duration))
            .collect();
        assert_eq!(ends.len(), works.len());
        let mut free = vec![0.0; stages];
        for work in works {
            let before = match work.direction {
                Direction::Forward if work.stage == 0 => None,
                Direction::Forward => Some((Direction::Forward, work.stage - 1)),
                Direction::Backward if work.stage == stages - 1 => Some((Direction::Forward, work.stage)),
                Direction::Backward => Some((Direction::Backward, work.stage + 1)),
            };
            let ready = before.map_or(0.0, |(direction, stage)| ends[&(direction, stage, work.micro_batch)]);
            assert_eq!(work.start, f64::max(ready, free[work.stage]), "{work:?}");
            free[work.stage] = work.start + work.duration;
        }
    }

    #[test]
    fn bubble_and_peak_are_the_formulas() {
        for (stages, micro_batches) in (1..=16).flat_map(|stages| (1..=16).map(move |count| (stages, count))) {
            for (forward, backward) in [(1.0, 2.0), (3.0, 1.0), (1.0, 1.0)] {
                for kind in KINDS {
                    let works = equal(kind, stages, micro_batches, forward, backward);
                    check(&works, stages, micro_batches);
                    let bubble = (stages - 1) as f64 * (forward + backward);
                    let fraction = (stages - 1) as f64 / (micro_batches + stages - 1) as f64;
                    let (idle, peak) = (idle(&works, stages), peak(&works, stages));
                    for stage in 0..stages {
                        assert_eq!(idle[stage], bubble, "{kind:?} {stages} {micro_batches}");
                        assert!((idle[stage] / makespan(&works) - fraction).abs() < 1e-12);
                        let alive = match kind {
                            Kind::GPipe => micro_batches,
                            Kind::OneForwardOneBackward => micro_batches.min(stages - stage),
                        };
                        assert_eq!(peak[stage], alive, "{kind:?} {stages} {micro_batches} {stage}");
                    }
                }
            }
        }
    }

    #[test]
    fn what_cannot_be_scheduled_is_refused() {
        let schedule = Schedule { kind: Kind::GPipe, forward: &[1.0], backward: &[1.0], micro_batches: 1 };
        let argument = |schedule: Schedule<'_>| match schedule.run().unwrap_err() {
            Error::Range { argument, .. } | Error::Shape { argument, .. } => argument,
            other => panic!("{other}"),
        };
        assert_eq!(argument(Schedule { micro_batches: 0, ..schedule }), "num_microbatches");
        assert_eq!(argument(Schedule { forward: &[], backward: &[], ..schedule }), "num_stages");
        assert_eq!(argument(Schedule { backward: &[1.0, 2.0], ..schedule }), "backward");
        assert_eq!(argument(Schedule { forward: &[f64::NAN], ..schedule }), "forward");
        assert_eq!(argument(Schedule { backward: &[-1.0], ..schedule }), "backward");
        let long = [f64::MAX / 1.5];
        assert_eq!(argument(Schedule { forward: &long, ..schedule }), "forward");
        assert_eq!(argument(Schedule { backward: &long, ..schedule }), "backward");
        assert!(Kind::named("zigzag").is_err());
    }

    #[test]
    fn counts_that_no_list_can_hold_are_refused() {
        assert_eq!(passes(1, MOST_PASSES / 2), Ok(MOST_PASSES));
        for (stages, micro_batches) in
            [(1, MOST_PASSES / 2 + 1), (1, usize::MAX), (4, 1 << 62), (1 << 32, 1 << 32), (usize::MAX, 2)]
        {
            let error = passes(stages, micro_batches).unwrap_err();
            assert!(matches!(error, Error::Range { .. }), "{error}");
            assert!(error.to_string().contains(&format!("at most {}", MOST_PASSES / 2)), "{error}");
        }
        // Many stages cost as much as many micro-batches: each pass is looked at a few times.
        assert_eq!(equal(Kind::GPipe, MOST_PASSES / 2, 1, 1.0, 1.0).len(), MOST_PASSES);
    }

    proptest! {
        #[test]
        fn unequal_stages_respect_every_dependency(
            durations in prop::collection::vec((0u8..9, 0u8..9), 1..7),
            micro_batches in 1usize..9,
        ) {
            let (forward, backward): (Vec<f64>, Vec<f64>) =
                durations.into_iter().map(|(forward, backward)| (f64::from(forward), f64::from(backward))).unzip();
            for kind in KINDS {
                let works = Schedule { kind, forward: &forward, backward: &backward, micro_batches }.run().unwrap();
                check(&works, forward.len(), micro_batches);
                // Every micro-batch goes through all stages, and every stage does all of its work.
                let through: f64 = forward.iter().chain(&backward).sum();
                prop_assert!(makespan(&works) >= through);
                prop_assert!(idle(&works, forward.len()).into_iter().all(|idle| idle >= 0.0));
            }
        }
    }
}
