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
/// Calls that want helpers at this moment.
static CALLS: Count = Count::new();

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
    threads: ThreadPool,
    /// Jobs that no helper has come for yet.
    waiting: AtomicUsize,
}

impl Pool {
    fn new(process: u32, helpers: usize) -> Option<Self> {
        let builder = rayon::ThreadPoolBuilder::new();
        let threads = builder.num_threads(helpers).thread_name(|index| format!("zerocost-{index}")).build().ok()?;
        Some(Self { process, helpers, threads, waiting: AtomicUsize::new(0) })
    }
}

/// The newest pool. A pointer and no lock, because a lock may be held at the moment of a fork. Pools are never freed:
/// a new one is made only when more helpers are wanted than before, and by a forked process.
static POOL: AtomicPtr<Pool> = AtomicPtr::new(std::ptr::null_mut());

fn pool(helpers: usize) -> Option<&'static Pool> {
    let process = std::process::id();
    let mut seen = POOL.load(Ordering::Acquire);
    loop {
        // SAFETY: the pointer is null or comes from the `Box::leak` below.
        if let Some(newest) = unsafe { seen.as_ref() }
            && newest.process == process
            && newest.helpers >= helpers
        {
            return Some(newest);
        }
        let made = Box::into_raw(Box::new(Pool::new(process, helpers)?));
        match POOL.compare_exchange(seen, made, Ordering::AcqRel, Ordering::Acquire) {
            // SAFETY: made above, and never freed from here on.
            Ok(_) => return Some(unsafe { &*made }),
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
fn share(pool: &'static Pool, helpers: usize, run: &(dyn Fn() + Sync)) {
    let door = Arc::new(Door { state: AtomicUsize::new(0), caller: std::thread::current(), panic: Mutex::new(None) });
    let result = {
        let _closed = Closed(&door);
        // What nobody has come for yet waits for all helpers to be free; more of it would only pile up.
        let waiting = pool.waiting.load(Ordering::Relaxed);
        for _ in 0..helpers.min((2 * pool.helpers).saturating_sub(waiting)) {
            let (door, work) = (Arc::clone(&door), Work::of(run));
            pool.waiting.fetch_add(1, Ordering::Relaxed);
            pool.threads.spawn(move || {
                pool.waiting.fetch_sub(1, Ordering::Relaxed);
                let Some(inside) = Inside::enter(&door) else { return };
                // SAFETY: the caller is in `share` until everyone who has entered has left.
                if let Err(panic) = catch_unwind(AssertUnwindSafe(unsafe { work.get() })) {
                    inside.0.panic.lock().unwrap_or_else(PoisonError::into_inner).get_or_insert(panic);
                }
            });
        }
        catch_unwind(AssertUnwindSafe(run))
    };
    let panic = door.panic.lock().unwrap_or_else(PoisonError::into_inner).take();
    if let Some(panic) = result.err().or(panic) {
        resume_unwind(panic);
    }
}

/// What is shared, without its lifetime: a job may come when the call has long ended, and must not look at it then.
struct Work(*const (dyn Fn() + Sync));

// SAFETY: what it points to is Sync.
unsafe impl Send for Work {}

impl Work {
    fn of(run: &(dyn Fn() + Sync)) -> Self {
        // SAFETY: a pointer is made of a pointer; only the lifetime of what is behind it changes, which `get` asks for.
        Self(unsafe { std::mem::transmute::<*const (dyn Fn() + Sync + '_), *const (dyn Fn() + Sync)>(run) })
    }

    /// # Safety
    /// What it was made of lives as long as the result is used.
    unsafe fn get(&self) -> &(dyn Fn() + Sync) {
        // SAFETY: the caller's promise.
        unsafe { &*self.0 }
    }
}

/// Someone who is inside, until it is dropped.
struct Inside<'a>(&'a Door);

impl<'a> Inside<'a> {
    fn enter(door: &'a Door) -> Option<Self> {
        // Not `then_some`: who has not entered must not leave.
        door.enter().then(|| Self(door))
    }
}

impl Drop for Inside<'_> {
    fn drop(&mut self) {
        self.0.leave();
    }
}

/// Closes the door when it is dropped, however that comes about.
struct Closed<'a>(&'a Door);

impl Drop for Closed<'_> {
    fn drop(&mut self) {
        self.0.close();
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

/// A call that is under way.
struct Call {
    /// How many others were when it began.
    others: usize,
}

impl Call {
    fn enter() -> Self {
        Self { others: CALLS.enter() }
    }
}

impl Drop for Call {
    fn drop(&mut self) {
        CALLS.leave();
    }
}

/// How many are inside of something: the number in the low half, in the high half the process, since a forked one starts
/// anew.
struct Count(AtomicU64);

impl Count {
    const fn new() -> Self {
        Self(AtomicU64::new(0))
    }

    /// One more. Gives how many there were.
    fn enter(&self) -> usize {
        let process = u64::from(std::process::id()) << 32;
        let count = |before: u64| if before >> 32 == process >> 32 { before + 1 } else { process + 1 };
        let before = self.0.fetch_update(Ordering::Relaxed, Ordering::Relaxed, |before| Some(count(before)));
        let (Ok(before) | Err(before)) = before;
        (count(before) as u32 - 1) as usize
    }

    fn leave(&self) {
        let process = u64::from(std::process::id());
        let one_less = |count: u64| (count >> 32 == process && count as u32 > 0).then(|| count - 1);
        // What was counted in the process that this one was forked from is no longer there.
        _ = self.0.fetch_update(Ordering::Relaxed, Ordering::Relaxed, one_less);
    }

    fn get(&self) -> usize {
        let count = self.0.load(Ordering::Relaxed);
        if count >> 32 == u64::from(std::process::id()) { count as u32 as usize } else { 0 }
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
        assert_eq!(AWAKE.get(), 0);
    }

    #[test]
    fn a_call_does_not_wait_for_helpers_that_are_busy_elsewhere() {
        // One helper, which stays inside the first call until the second one has ended.
        let pool: &'static Pool = Box::leak(Box::new(Pool::new(0, 1).unwrap()));
        let (inside, ended) = (Barrier::new(3), Barrier::new(2));
        let visits = AtomicUsize::new(0);
        thread::scope(|scope| {
            scope.spawn(|| {
                let caller = thread::current().id();
                share(pool, 1, &|| {
                    inside.wait();
                    if thread::current().id() != caller {
                        ended.wait();
                    }
                });
            });
            inside.wait();
            share(pool, 1, &|| _ = visits.fetch_add(1, Ordering::Relaxed));
            assert_eq!(visits.load(Ordering::Relaxed), 1);
            ended.wait();
        });
    }

    #[test]
    fn helpers_that_come_late_change_nothing() {
        let pool: &'static Pool = Box::leak(Box::new(Pool::new(0, 3).unwrap()));
        thread::scope(|scope| {
            for _ in 0..3 {
                scope.spawn(|| {
                    for _ in 0..2000 {
                        let inside = AtomicUsize::new(0);
                        share(pool, 3, &|| {
                            inside.fetch_add(1, Ordering::Relaxed);
                            thread::yield_now();
                            inside.fetch_sub(1, Ordering::Relaxed);
                        });
                        assert_eq!(inside.into_inner(), 0);
                    }
                });
            }
        });
        while pool.waiting.load(Ordering::Relaxed) > 0 {
            thread::yield_now();
        }
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
