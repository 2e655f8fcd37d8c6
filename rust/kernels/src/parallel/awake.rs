//! Keeping helpers awake between the short calls of a pass.

use std::time::{Duration, Instant};

use rayon::Yield;

use super::count::Count;
use super::pool::pool;
use super::threads::num_threads;

/// Passes that are under way.
static AWAKE: Count = Count::new();
/// A helper that finds nothing to do for so long goes to sleep even within a pass.
const PATIENCE: Duration = Duration::from_micros(500);

/// Keeps the helpers awake while it lives: for a pass of many short calls, one after the other. A thread that sleeps
/// takes about 50 µs to wake up, by which time the caller has done half of such a call alone.
#[derive(Debug)]
pub struct Awake(());

impl Awake {
    /// Wakes the helpers.
    #[must_use]
    #[expect(clippy::new_without_default, reason = "it is a guard, not a value")]
    pub fn new() -> Self {
        let helpers = num_threads() - 1;
        if AWAKE.enter() == 0
            && helpers > 0
            && let Some(pool) = pool(helpers)
        {
            (0..helpers).for_each(|_| pool.threads.spawn(stay_awake));
        }
        Self(())
    }
}

impl Drop for Awake {
    fn drop(&mut self) {
        AWAKE.leave();
    }
}

/// What a helper does between the calls of a pass: it takes the next one's work as soon as it is there.
fn stay_awake() {
    let mut busy = Instant::now();
    while AWAKE.get() > 0 && busy.elapsed() < PATIENCE {
        match rayon::yield_now() {
            Some(Yield::Executed) => busy = Instant::now(),
            _ => std::thread::yield_now(),
        }
    }
}
