//! The one file that names rayon: the pool, how many threads it has, and when a kernel stays on the calling thread.
//!
//! How work is split never depends on the number of threads: results are the same bits with one and with many.

use std::sync::atomic::{AtomicU32, AtomicUsize, Ordering};
use std::sync::{Arc, Mutex};

use rayon::prelude::*;

use crate::{Error, Result};

struct Pool {
    /// rayon's threads do not survive a fork: a pool belongs to the process that made it.
    process: u32,
    threads: usize,
    pool: Arc<rayon::ThreadPool>,
}

static POOL: Mutex<Option<Pool>> = Mutex::new(None);
/// 0: not decided yet.
static THREADS: AtomicUsize = AtomicUsize::new(0);
static LAST_PROCESS: AtomicU32 = AtomicU32::new(0);

/// How many threads kernels use: what [`set_num_threads`] said, or `ZEROCOST_NUM_THREADS`, or the cores that this
/// process may run on.
pub fn num_threads() -> usize {
    match THREADS.load(Ordering::Relaxed) {
        0 => {
            let wanted = std::env::var("ZEROCOST_NUM_THREADS").ok().and_then(|text| text.parse().ok());
            let threads = wanted
                .filter(|&threads| threads > 0)
                .unwrap_or_else(|| std::thread::available_parallelism().map_or(1, usize::from));
            THREADS.store(threads, Ordering::Relaxed);
            threads
        }
        threads => threads,
    }
}

/// Sets how many threads kernels use from now on; 1 means that everything runs on the calling thread.
pub fn set_num_threads(threads: usize) -> Result<()> {
    if threads == 0 || threads > 1024 {
        return Err(Error::Range { argument: "num_threads", given: threads.to_string(), allowed: "1 to 1024" });
    }
    THREADS.store(threads, Ordering::Relaxed);
    Ok(())
}

fn pool() -> Option<Arc<rayon::ThreadPool>> {
    let (process, threads) = (std::process::id(), num_threads());
    if LAST_PROCESS.swap(process, Ordering::Relaxed) != process {
        // First use in this process. After a fork the lock may have been held by a thread that does not exist here.
        if let Ok(mut slot) = POOL.try_lock()
            && let Some(stale) = slot.take_if(|pool| pool.process != process)
        {
            // Dropping it would wait for threads that are not there.
            std::mem::forget(stale);
        }
    }
    let mut slot = POOL.lock().unwrap_or_else(|poisoned| poisoned.into_inner());
    if let Some(current) = slot.as_ref().filter(|pool| pool.process == process && pool.threads == threads) {
        return Some(Arc::clone(&current.pool));
    }
    let pool = rayon::ThreadPoolBuilder::new()
        .num_threads(threads)
        .thread_name(|index| format!("zerocost-{index}"))
        .build()
        .ok()?;
    let pool = Arc::new(pool);
    *slot = Some(Pool { process, threads, pool: Arc::clone(&pool) });
    Some(pool)
}

/// Runs `work(index)` for every index below `count`, on the pool when `parallel` is true and there is more than one
/// thread, otherwise on the calling thread in order. The pool is entered once.
pub fn for_each(count: usize, parallel: bool, work: impl Fn(usize) + Sync) {
    if parallel
        && count > 1
        && num_threads() > 1
        && let Some(pool) = pool()
    {
        pool.install(|| (0..count).into_par_iter().with_max_len(1).for_each(&work));
        return;
    }
    (0..count).for_each(work);
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn every_index_is_visited_once() {
        for parallel in [false, true] {
            let visits: Vec<AtomicUsize> = (0..1000).map(|_| AtomicUsize::new(0)).collect();
            for_each(visits.len(), parallel, |index| {
                visits[index].fetch_add(1, Ordering::Relaxed);
            });
            assert!(visits.iter().all(|count| count.load(Ordering::Relaxed) == 1));
        }
    }

    #[test]
    fn no_threads_is_refused() {
        assert!(matches!(set_num_threads(0), Err(Error::Range { .. })));
    }
}
