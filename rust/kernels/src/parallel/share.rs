//! One call shared between the calling thread and the helpers that come in time.

use std::any::Any;
use std::panic::{AssertUnwindSafe, catch_unwind, resume_unwind};
use std::sync::atomic::{AtomicUsize, Ordering};
use std::sync::{Arc, Mutex, PoisonError};
use std::thread::Thread;

use super::pool::Pool;

/// Looks at a helper that is still inside before the caller sleeps: some ten microseconds.
const SPINS: usize = 1 << 10;

/// Runs `run` on this thread, and on those of `helpers` others that come before it has ended here.
///
/// A scope of rayon's would end only after every helper has come, and one may be busy with another caller's long call.
pub(super) fn share(pool: &Pool, helpers: usize, run: &(dyn Fn() + Sync)) {
    let door = Arc::new(Door { state: AtomicUsize::new(0), caller: std::thread::current(), panic: Mutex::new(None) });
    let result = {
        let _closed = Closed(&door);
        // What nobody has come for yet waits for all helpers to be free; more of it would only pile up.
        let waiting = pool.waiting.load(Ordering::Relaxed);
        for _ in 0..helpers.min((2 * pool.helpers).saturating_sub(waiting)) {
            let (door, shared) = (Arc::clone(&door), Shared::of(run));
            let waiting = Arc::clone(&pool.waiting);
            waiting.fetch_add(1, Ordering::Relaxed);
            pool.threads.spawn(move || {
                waiting.fetch_sub(1, Ordering::Relaxed);
                let Some(inside) = Inside::enter(&door) else { return };
                // SAFETY: the caller is in `share` until everyone who has entered has left.
                if let Err(panic) = catch_unwind(AssertUnwindSafe(unsafe { shared.get() })) {
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
struct Shared(*const (dyn Fn() + Sync));

// SAFETY: what it points to is Sync.
unsafe impl Send for Shared {}

impl Shared {
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

#[cfg(test)]
mod tests {
    use super::*;
    use std::sync::Barrier;
    use std::thread;

    #[test]
    fn a_call_does_not_wait_for_helpers_that_are_busy_elsewhere() {
        // One helper, which stays inside the first call until the second one has ended.
        let pool = &*Pool::new(1).unwrap();
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
        let pool = &*Pool::new(3).unwrap();
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
}
