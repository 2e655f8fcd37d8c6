//! The helpers: as many threads as the last parallel call was allowed, no more.

use std::hint::black_box;
use std::sync::atomic::{AtomicPtr, AtomicUsize, Ordering};
use std::sync::{Arc, Barrier, Mutex, MutexGuard, PoisonError};
use std::{io, thread};

use rayon::ThreadPool;

use crate::buffer::reserved;

/// Bytes of a helper's stack, which are taken as they are used.
const STACK: usize = 2 << 20;
/// Bytes of address space that a helper takes at most while it starts: its stack, the 64 MiB that the GNU C library sets
/// aside for the allocations of a thread, and some for what the standard library and rayon keep of it. More than 32 MiB are
/// always given back to the system, so that what was asked for is there afterwards.
const ROOM: usize = STACK + (64 << 20) + (4 << 20);

/// Bytes that rayon keeps of a helper before there is one, at most.
const PER_HELPER: usize = 16 << 10;

/// Asks for so many bytes, and gives them back.
fn there_is(bytes: usize) -> io::Result<()> {
    // The compiler leaves out an allocation that nobody looks at.
    black_box(reserved::<u8>(bytes).map_err(|_| io::ErrorKind::OutOfMemory)?);
    Ok(())
}

/// The helpers of one process.
pub(super) struct Pool {
    pub(super) helpers: usize,
    pub(super) threads: ThreadPool,
    /// Jobs that no helper has come for yet.
    pub(super) waiting: Arc<AtomicUsize>,
}

impl Pool {
    /// `None` if the system gives no more threads, or no memory for them.
    pub(super) fn new(helpers: usize) -> Option<Arc<Self>> {
        // Where memory ends while a thread starts, the process does: the system gives a thread its thread-local memory when
        // that is first used. So each is waited for, and what it may take is asked for first; so is what rayon keeps.
        there_is(helpers.checked_mul(PER_HELPER)?.checked_add(ROOM)?).ok()?;
        let started = Arc::new(Barrier::new(2));
        let start = |helper: rayon::ThreadBuilder| {
            there_is(ROOM)?;
            let name = format!("zerocost-{}", helper.index());
            thread::Builder::new().name(name).stack_size(STACK).spawn(|| helper.run())?;
            started.wait();
            Ok(())
        };
        let here = Arc::clone(&started);
        let builder = rayon::ThreadPoolBuilder::new().num_threads(helpers).spawn_handler(start);
        let threads = builder.start_handler(move |_| _ = here.wait()).build().ok()?;
        // What a thread takes when it first looks for work.
        threads.broadcast(|_| ());
        Some(Arc::new(Self { helpers, threads, waiting: Arc::default() }))
    }
}

/// The pool of one process. Threads do not survive a fork, and a lock may be held at the moment of one, so a child makes
/// a place of its own; that of its parent is left alone.
struct Place {
    process: u32,
    pool: Mutex<Option<Arc<Pool>>>,
}

/// The place of the process that asked last: null, or from `Box::into_raw` in [`place`] and never freed.
static PLACE: AtomicPtr<Place> = AtomicPtr::new(std::ptr::null_mut());

fn place() -> MutexGuard<'static, Option<Arc<Pool>>> {
    let process = std::process::id();
    let mut seen = PLACE.load(Ordering::Acquire);
    let found = loop {
        // SAFETY: see `PLACE`.
        if let Some(place) = unsafe { seen.as_ref() }
            && place.process == process
        {
            break place;
        }
        let made = Box::into_raw(Box::new(Place { process, pool: Mutex::new(None) }));
        match PLACE.compare_exchange(seen, made, Ordering::AcqRel, Ordering::Acquire) {
            // SAFETY: made above, and never freed from here on.
            Ok(_) => break unsafe { &*made },
            Err(newer) => {
                // SAFETY: made above, and nobody else has seen it.
                drop(unsafe { Box::from_raw(made) });
                seen = newer;
            }
        }
    };
    // Nothing that can panic runs under the lock but the making of a pool, which leaves the old one in its place.
    found.pool.lock().unwrap_or_else(PoisonError::into_inner)
}

/// The pool of exactly so many helpers, at least one; `None` if there can be none. Helpers of a pool of another size end
/// when they have done what they are at.
pub(super) fn pool(helpers: usize) -> Option<Arc<Pool>> {
    let mut place = place();
    if let Some(pool) = &*place
        && pool.helpers == helpers
    {
        return Some(Arc::clone(pool));
    }
    let made = Pool::new(helpers)?;
    let old = place.replace(Arc::clone(&made));
    // Whoever drops the last one waits for nobody, but takes locks of rayon's.
    drop(place);
    drop(old);
    Some(made)
}

/// Ends helpers if there are more than so many.
pub(super) fn at_most(helpers: usize) {
    let mut place = place();
    let surplus = place.take_if(|pool| pool.helpers > helpers);
    drop(place);
    drop(surplus);
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn helpers_of_a_pool_of_another_size_end() {
        use std::sync::atomic::AtomicIsize;
        use std::time::{Duration, Instant};

        static ALIVE: AtomicIsize = AtomicIsize::new(0);
        struct Alive;
        impl Drop for Alive {
            fn drop(&mut self) {
                ALIVE.fetch_sub(1, Ordering::SeqCst);
            }
        }
        thread_local! {
            static HERE: Alive = {
                ALIVE.fetch_add(1, Ordering::SeqCst);
                Alive
            };
        }
        let pools: Vec<Arc<Pool>> = (1..=5).filter_map(Pool::new).collect();
        for pool in &pools {
            pool.threads.broadcast(|_| HERE.with(|_| ()));
        }
        assert_eq!(ALIVE.load(Ordering::SeqCst), 1 + 2 + 3 + 4 + 5);
        drop(pools);
        let end = Instant::now() + Duration::from_secs(30);
        while ALIVE.load(Ordering::SeqCst) > 0 {
            assert!(Instant::now() < end, "helpers of pools that are gone still run");
            std::thread::yield_now();
        }
    }
}
