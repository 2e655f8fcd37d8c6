//! How many threads kernels use: what the environment says, what a caller sets, what a worker process takes.

use std::sync::atomic::{AtomicBool, AtomicU32, AtomicUsize, Ordering};

use super::pool;
use crate::{Error, Result, excerpt};

/// The most threads that can be asked for.
const MOST: usize = 1024;

/// What was asked for; 0: nothing was.
static CHOSEN: AtomicUsize = AtomicUsize::new(0);
/// The process that loaded the library; 0: not noted yet.
static HOME: AtomicU32 = AtomicU32::new(0);
static WORKER: AtomicBool = AtomicBool::new(false);

/// Reads `ZEROCOST_NUM_THREADS`, or `OMP_NUM_THREADS` (which joblib sets for its workers) where that is not set.
/// To be called once, when the library is loaded.
///
/// # Errors
/// `ZEROCOST_NUM_THREADS` is not a number from 1 to 1024.
pub fn configure_from_environment() -> Result<()> {
    note_process();
    match std::env::var_os("ZEROCOST_NUM_THREADS") {
        Some(text) if !text.is_empty() => {
            let text = text.to_string_lossy();
            choose("ZEROCOST_NUM_THREADS", &text, text.trim().parse().ok())
        }
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
    let threads = threads.ok_or_else(|| out_of_range(argument, excerpt(given)))?;
    CHOSEN.store(threads, Ordering::Relaxed);
    pool::at_most(threads - 1);
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
