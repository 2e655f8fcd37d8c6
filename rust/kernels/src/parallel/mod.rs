//! The one room that names rayon: the helpers, how many there are, and how a call is shared with them.
//!
//! No bit of a result depends on how work is split between threads: it is the same with one and with many.
//!
//! The calling thread always takes part, and a helper that comes too late finds the door closed, so a call waits for
//! nobody to wake up or to end another caller's work. Threads of the caller's own are counted:
//! while several of them are in kernels at once, each asks for fewer helpers. A process that was forked from one that
//! had the library loaded, or that says so itself ([`in_worker_process`]), is taken to be one of many and stays on one
//! thread unless it was told otherwise.
//!
//! - `threads`: how many threads kernels use
//! - `pool`: the helpers of a process
//! - `share`: one call, shared with the helpers that come in time
//! - `awake`: helpers that stay awake between the calls of a pass
//! - `count`: counters that a forked process starts anew

mod awake;
mod count;
mod pool;
mod share;
mod threads;

use std::sync::atomic::{AtomicUsize, Ordering};

pub use awake::Awake;
pub use threads::{configure_from_environment, in_worker_process, num_threads, out_of_range, set_num_threads};

use count::Count;

/// Calls that want helpers at this moment.
static CALLS: Count = Count::new();

/// On how many threads, at most, a call of `count` pieces runs: one unless it is `parallel`.
pub fn participants(count: usize, parallel: bool) -> usize {
    if parallel { num_threads().min(count).max(1) } else { 1 }
}

/// Runs `work(index)` once for every index below `count`: on several threads when `parallel` is true and there is more
/// than one, otherwise on the calling thread in order.
pub fn for_each(count: usize, parallel: bool, work: impl Fn(usize) + Sync) {
    let mut nothing = vec![(); participants(count, parallel)];
    for_each_with(count, &mut nothing, |(), index| work(index));
}

/// As [`for_each`], over the items of a slice: each is lent to one thread.
pub fn for_each_mut<T: Send>(items: &mut [T], parallel: bool, work: impl Fn(usize, &mut T) + Sync) {
    let mut nothing = vec![(); participants(items.len(), parallel)];
    for_each_mut_with(items, &mut nothing, |(), index, item| work(index, item));
}

/// As [`for_each_with`], over the items of a slice: each is lent to one thread.
pub fn for_each_mut_with<T: Send, S: Send>(
    items: &mut [T],
    scratch: &mut [S],
    work: impl Fn(&mut S, usize, &mut T) + Sync,
) {
    let first = Apart(items.as_mut_ptr());
    for_each_with(items.len(), scratch, |scratch, index| {
        // SAFETY: the index is below the length, and `for_each_with` gives each index to one thread, once, while `items`
        // is borrowed.
        work(scratch, index, unsafe { first.item(index) });
    });
}

/// As [`for_each`], on at most as many threads as there are items of `scratch` ([`participants`] says how many are
/// useful): each thread that takes part has one of its own for the whole call. What is left in it must not change a
/// result.
///
/// # Panics
/// There is no scratch at all.
pub fn for_each_with<S: Send>(count: usize, scratch: &mut [S], work: impl Fn(&mut S, usize) + Sync) {
    let threads = scratch.len().min(count);
    if threads > 1 {
        let call = Entered::enter();
        let helpers = threads.saturating_sub(1 + call.others);
        if helpers > 0
            && let Some(pool) = pool::pool(num_threads().max(threads) - 1)
        {
            let (next, taken) = (AtomicUsize::new(0), AtomicUsize::new(0));
            let take = || Some(next.fetch_add(1, Ordering::Relaxed)).filter(|&index| index < count);
            let (scratch, threads) = (Apart(scratch.as_mut_ptr()), scratch.len());
            let run = || {
                let Some(mut index) = take() else { return };
                let place = taken.fetch_add(1, Ordering::Relaxed);
                assert!(place < threads, "more threads took part than were asked for");
                // SAFETY: the place is below the length, and no two threads take the same one, while `scratch` is
                // borrowed.
                let scratch = unsafe { scratch.item(place) };
                loop {
                    work(scratch, index);
                    match take() {
                        Some(another) => index = another,
                        None => return,
                    }
                }
            };
            return share::share(&pool, helpers, &run);
        }
    }
    if count > 0 {
        let scratch = scratch.first_mut().expect("scratch for one thread at least");
        (0..count).for_each(|index| work(scratch, index));
    }
}

/// Items that threads take apart: each of them is lent to one thread only.
struct Apart<T>(*mut T);

// SAFETY: an item goes to one thread only (`Apart::item`), and may be sent there.
unsafe impl<T: Send> Sync for Apart<T> {}

impl<T> Apart<T> {
    /// # Safety
    /// There is such an item, it is borrowed for as long as the result is used, and nobody else asks for it meanwhile.
    #[expect(clippy::mut_from_ref, reason = "that nobody else has it is the caller's promise")]
    unsafe fn item(&self, index: usize) -> &mut T {
        // SAFETY: the caller's promise.
        unsafe { &mut *self.0.add(index) }
    }
}

/// A call that is under way.
struct Entered {
    /// How many others were when it began.
    others: usize,
}

impl Entered {
    fn enter() -> Self {
        Self { others: CALLS.enter() }
    }
}

impl Drop for Entered {
    fn drop(&mut self) {
        CALLS.leave();
    }
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::Error;
    use std::collections::HashMap;
    use std::panic::{AssertUnwindSafe, catch_unwind};
    use std::sync::Mutex;
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
        let mut scratch: Vec<(usize, usize)> = (0..num_threads()).map(|index| (index, 0)).collect();
        let owners = Mutex::new(HashMap::new());
        for_each_with(1000, &mut scratch, |(index, visits), _| {
            let this = thread::current().id();
            assert_eq!(*owners.lock().unwrap().entry(*index).or_insert(this), this);
            *visits += 1;
        });
        assert_eq!(scratch.iter().map(|(_, visits)| visits).sum::<usize>(), 1000);
    }

    #[test]
    fn every_item_is_lent_once() {
        for parallel in [false, true] {
            let mut items: Vec<usize> = (0..1000).collect();
            for_each_mut(&mut items, parallel, |index, item| {
                assert_eq!(*item, index);
                *item += 1000;
            });
            assert!(items.iter().enumerate().all(|(index, &item)| item == index + 1000));
        }
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
