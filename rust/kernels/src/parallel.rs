//! The one file that names rayon: the pool, how many threads it has, and when a kernel stays on the calling thread.
//!
//! How work is split never depends on the number of threads: results are the same bits with one and with many.
//!
//! The calling thread always takes part, and a helper that comes too late finds the door closed, so a call waits for
//! nobody to wake up or to end another caller's work. Threads of the caller's own are counted:
//! while several of them are in kernels at once, each asks for fewer helpers. A process that was forked from one that
//! had the library loaded, or that says so itself ([`in_worker_process`]), is taken to be one of many and stays on one
//! thread unless it was told otherwise.

use std::any::Any;
use std::panic::{AssertUnwindSafe, catch_unwind, resume_unwind};
use std::sync::atomic::{AtomicBool, AtomicPtr, AtomicU32, AtomicU64, AtomicUsize, Ordering};
use std::sync::{Arc, Mutex, PoisonError};
use std::thread::Thread;
use std::time::{Duration, Instant};

use rayon::{ThreadPool, Yield};

use crate::{Error, Result};

/// The most threads that can be asked for.
const MOST: usize = 1024;

/// What was asked for; 0: nothing was.
static CHOSEN: AtomicUsize = AtomicUsize::new(0);
/// The process that loaded the library; 0: not noted yet.
static HOME: AtomicU32 = AtomicU32::new(0);
static WORKER: AtomicBool = AtomicBool::new(false);
/// How many calls want helpers at this moment (low half), in which process (high half: a forked process starts anew).
static CALLS: AtomicU64 = AtomicU64::new(0);

/// Reads `ZEROCOST_NUM_THREADS`, or `OMP_NUM_THREADS` (which joblib sets for its workers) where that is not set.
/// To be called once, when the library is loaded.
///
/// # Errors
/// `ZEROCOST_NUM_THREADS` is not a number from 1 to 1024.
pub fn configure_from_environment() -> Result<()> {
    note_process();
    match std::env::var("ZEROCOST_NUM_THREADS") {
        Ok(text) if !text.is_empty() => choose("ZEROCOST_NUM_THREADS", &text, text.trim().parse().ok()),
        _ => {
            // It may be a list, one number for each level of nesting. Whoever set it did not mean this library, so
            // what cannot be read is ignored.
            let text = std::env::var("OMP_NUM_THREADS").unwrap_or_default();
            let first = text.split(',').next().and_then(|first| first.trim().parse().ok());
            if let Some(threads) = first.filter(|threads| (1..=MOST).contains(threads)) {
                CHOSEN.store(threads, Ordering::Relaxed);
            }
            Ok(())
        }
    }
}

/// Sets how many threads kernels use from now on; 1 means that everything runs on the calling thread.
///
/// # Errors
/// It is not from 1 to 1024.
pub fn set_num_threads(threads: usize) -> Result<()> {
    choose("num_threads", &threads.to_string(), Some(threads))
}

fn choose(argument: &'static str, given: &str, threads: Option<usize>) -> Result<()> {
    let threads = threads.filter(|threads| (1..=MOST).contains(threads));
    let threads = threads.ok_or_else(|| out_of_range(argument, given.to_owned()))?;
    CHOSEN.store(threads, Ordering::Relaxed);
    Ok(())
}

/// The error for a number of threads that is not allowed.
pub fn out_of_range(argument: &'static str, given: String) -> Error {
    Error::Range { argument, given, allowed: "1 to 1024" }
}

/// Says that this process is one of several that share the machine: unless it is told otherwise it stays on one thread.
pub fn in_worker_process() {
    WORKER.store(true, Ordering::Relaxed);
}

/// How many threads kernels use: what was set, else 1 in a worker process, else the cores that this process may run on.
pub fn num_threads() -> usize {
    match CHOSEN.load(Ordering::Relaxed) {
        0 if WORKER.load(Ordering::Relaxed) || note_process() => 1,
        0 => cores(),
        threads => threads,
    }
}

/// Notes the process at the first call; whether this is a child of that process.
fn note_process() -> bool {
    let process = std::process::id();
    match HOME.compare_exchange(0, process, Ordering::Relaxed, Ordering::Relaxed) {
        Ok(_) => false,
        Err(home) => home != process,
    }
}

fn cores() -> usize {
    static CORES: AtomicUsize = AtomicUsize::new(0);
    match CORES.load(Ordering::Relaxed) {
        0 => {
            let cores = std::thread::available_parallelism().map_or(1, usize::from).min(MOST);
            CORES.store(cores, Ordering::Relaxed);
            cores
        }
        cores => cores,
    }
}

struct Pool {
    /// Threads do not survive a fork: a pool belongs to the process that made it.
    process: u32,
    helpers: usize,
    pool: ThreadPool,
}

/// The newest pool. A pointer and no lock, because a lock may be held at the moment of a fork. Pools are never freed:
/// a new one is made only when more helpers are wanted than before, and by a forked process.
static POOL: AtomicPtr<Pool> = AtomicPtr::new(std::ptr::null_mut());

fn pool(helpers: usize) -> Option<&'static ThreadPool> {
    let process = std::process::id();
    let mut seen = POOL.load(Ordering::Acquire);
    loop {
        // SAFETY: the pointer is null or comes from the `Box::leak` below.
        if let Some(newest) = unsafe { seen.as_ref() }
            && newest.process == process
            && newest.helpers >= helpers
        {
            return Some(&newest.pool);
        }
        let pool = rayon::ThreadPoolBuilder::new()
            .num_threads(helpers)
            .thread_name(|index| format!("zerocost-{index}"))
            .build()
            .ok()?;
        let made = Box::into_raw(Box::new(Pool { process, helpers, pool }));
        match POOL.compare_exchange(seen, made, Ordering::AcqRel, Ordering::Acquire) {
            // SAFETY: made above, and never freed from here on.
            Ok(_) => return Some(unsafe { &(*made).pool }),
            Err(newer) => {
                // SAFETY: made above, and nobody else has seen it.
                drop(unsafe { Box::from_raw(made) });
                seen = newer;
            }
        }
    }
}

/// Runs `work(index)` once for every index below `count`: on several threads when `parallel` is true and there is more
/// than one, otherwise on the calling thread in order.
pub fn for_each(count: usize, parallel: bool, work: impl Fn(usize) + Sync) {
    for_each_with(count, parallel, || (), |(), index| work(index));
}

/// As [`for_each`], with something of its own for each thread that takes part: `scratch()` is made once per thread and
/// call, never shared, and lent to every `work` on that thread. What is left in it must not change a result.
pub fn for_each_with<S>(
    count: usize,
    parallel: bool,
    scratch: impl Fn() -> S + Sync,
    work: impl Fn(&mut S, usize) + Sync,
) {
    let threads = if parallel && count > 1 { num_threads().min(count) } else { 1 };
    if threads > 1 {
        let call = Call::enter();
        let helpers = threads.saturating_sub(1 + call.others);
        if helpers > 0
            && let Some(pool) = pool(helpers)
        {
            let next = AtomicUsize::new(0);
            let take = || Some(next.fetch_add(1, Ordering::Relaxed)).filter(|&index| index < count);
            let run = || {
                let Some(mut index) = take() else { return };
                let mut scratch = scratch();
                loop {
                    work(&mut scratch, index);
                    match take() {
                        Some(another) => index = another,
                        None => return,
                    }
                }
            };
            return share(pool, helpers, &run);
        }
    }
    let mut scratch = scratch();
    (0..count).for_each(|index| work(&mut scratch, index));
}

/// Runs `run` on this thread, and on those of `helpers` others that come before it has ended here.
///
/// A scope of rayon's would end only after every helper has come, and one may be busy with another caller's long call.
fn share(pool: &ThreadPool, helpers: usize, run: &(dyn Fn() + Sync)) {
    // SAFETY: only the lifetime changes. Who calls it has entered the door, and this function ends, also by a panic,
    // only after the door is closed and everyone has left.
    let run: &'static (dyn Fn() + Sync) = unsafe { std::mem::transmute(run) };
    let door = Arc::new(Door { state: AtomicUsize::new(0), caller: std::thread::current(), panic: Mutex::new(None) });
    for _ in 0..helpers {
        let door = Arc::clone(&door);
        pool.spawn(move || {
            if door.enter() {
                if let Err(panic) = catch_unwind(AssertUnwindSafe(run)) {
                    door.panic.lock().unwrap_or_else(PoisonError::into_inner).get_or_insert(panic);
                }
                door.leave();
            }
        });
    }
    let result = catch_unwind(AssertUnwindSafe(run));
    door.close();
    let panic = door.panic.lock().unwrap_or_else(PoisonError::into_inner).take();
    if let Some(panic) = result.err().or(panic) {
        resume_unwind(panic);
    }
}

/// Lets helpers in until it is closed, and counts who is inside.
struct Door {
    /// Twice the number of those inside, and 1 if it is closed.
    state: AtomicUsize,
    caller: Thread,
    panic: Mutex<Option<Box<dyn Any + Send>>>,
}

impl Door {
    fn enter(&self) -> bool {
        let one_more = |state: usize| (state & 1 == 0).then_some(state + 2);
        self.state.fetch_update(Ordering::Acquire, Ordering::Relaxed, one_more).is_ok()
    }

    fn leave(&self) {
        if self.state.fetch_sub(2, Ordering::Release) == 3 {
            self.caller.unpark();
        }
    }

    /// Waits until nobody is inside.
    fn close(&self) {
        self.state.fetch_or(1, Ordering::Relaxed);
        let mut spins = 0;
        while self.state.load(Ordering::Acquire) != 1 {
            if spins < SPINS {
                spins += 1;
                std::hint::spin_loop();
            } else {
                std::thread::park();
            }
        }
    }
}

/// Looks at a helper that is still inside before the caller sleeps: some ten microseconds.
const SPINS: usize = 1 << 10;

/// Passes that are under way.
static AWAKE: AtomicUsize = AtomicUsize::new(0);
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
        if AWAKE.fetch_add(1, Ordering::Relaxed) == 0
            && helpers > 0
            && let Some(pool) = pool(helpers)
        {
            (0..helpers).for_each(|_| pool.spawn(stay_awake));
        }
        Self(())
    }
}

impl Drop for Awake {
    fn drop(&mut self) {
        AWAKE.fetch_sub(1, Ordering::Relaxed);
    }
}

/// What a helper does between the calls of a pass: it takes the next one's work as soon as it is there.
fn stay_awake() {
    let mut busy = Instant::now();
    while AWAKE.load(Ordering::Relaxed) > 0 && busy.elapsed() < PATIENCE {
        match rayon::yield_now() {
            Some(Yield::Executed) => busy = Instant::now(),
            _ => std::thread::yield_now(),
        }
    }
}

/// A call that is under way.
struct Call {
    /// How many others were when it began.
    others: usize,
}

impl Call {
    fn enter() -> Self {
        let process = u64::from(std::process::id()) << 32;
        let count = |calls: u64| if calls >> 32 == process >> 32 { calls + 1 } else { process + 1 };
        let before = CALLS.fetch_update(Ordering::Relaxed, Ordering::Relaxed, |calls| Some(count(calls)));
        let (Ok(before) | Err(before)) = before;
        Self { others: (count(before) as u32 - 1) as usize }
    }
}

impl Drop for Call {
    fn drop(&mut self) {
        CALLS.fetch_sub(1, Ordering::Relaxed);
    }
}

#[cfg(test)]
mod tests {
    use super::*;
    use std::collections::HashMap;
    use std::sync::Barrier;
    use std::thread;

    #[test]
    fn every_index_is_visited_once() {
        for (parallel, count) in [(false, 1000), (true, 1000), (true, 1), (true, 0)] {
            let visits: Vec<AtomicUsize> = (0..count).map(|_| AtomicUsize::new(0)).collect();
            for_each(visits.len(), parallel, |index| {
                visits[index].fetch_add(1, Ordering::Relaxed);
            });
            assert!(visits.iter().all(|count| count.load(Ordering::Relaxed) == 1));
        }
    }

    #[test]
    fn scratch_is_never_shared() {
        let made = AtomicUsize::new(0);
        let owners = Mutex::new(HashMap::new());
        let work = |&mut scratch: &mut usize, _| {
            let this = thread::current().id();
            assert_eq!(*owners.lock().unwrap().entry(scratch).or_insert(this), this);
        };
        for_each_with(1000, true, || made.fetch_add(1, Ordering::Relaxed), work);
        assert_eq!(owners.lock().unwrap().len(), made.load(Ordering::Relaxed));
    }

    #[test]
    fn calls_inside_calls_and_beside_calls_end() {
        thread::scope(|scope| {
            for _ in 0..8 {
                scope.spawn(|| {
                    let total = AtomicUsize::new(0);
                    for_each(20, true, |_| {
                        for_each(20, true, |index| {
                            total.fetch_add(index, Ordering::Relaxed);
                        });
                    });
                    assert_eq!(total.load(Ordering::Relaxed), 20 * 190);
                });
            }
        });
    }

    #[test]
    fn passes_beside_and_after_each_other_end() {
        thread::scope(|scope| {
            for _ in 0..4 {
                scope.spawn(|| {
                    for _ in 0..20 {
                        let _awake = Awake::new();
                        every_index_is_visited_once();
                    }
                });
            }
        });
        assert_eq!(AWAKE.load(Ordering::Relaxed), 0);
    }

    #[test]
    fn a_call_does_not_wait_for_helpers_that_are_busy_elsewhere() {
        // One helper, which stays inside the first call until the second one has ended.
        let pool = rayon::ThreadPoolBuilder::new().num_threads(1).build().unwrap();
        let (inside, ended) = (Barrier::new(3), Barrier::new(2));
        let visits = AtomicUsize::new(0);
        thread::scope(|scope| {
            scope.spawn(|| {
                let caller = thread::current().id();
                share(&pool, 1, &|| {
                    inside.wait();
                    if thread::current().id() != caller {
                        ended.wait();
                    }
                });
            });
            inside.wait();
            share(&pool, 1, &|| _ = visits.fetch_add(1, Ordering::Relaxed));
            assert_eq!(visits.load(Ordering::Relaxed), 1);
            ended.wait();
        });
    }

    #[test]
    fn a_panic_comes_out_and_the_next_call_works() {
        let call = || {
            for_each(100, true, |index| {
                assert!(index != 50, "on purpose");
            });
        };
        assert!(catch_unwind(AssertUnwindSafe(call)).is_err());
        every_index_is_visited_once();
    }

    #[test]
    fn no_threads_and_too_many_are_refused() {
        for threads in [0, 1025, usize::MAX] {
            assert!(matches!(set_num_threads(threads), Err(Error::Range { argument: "num_threads", .. })));
        }
    }
}
