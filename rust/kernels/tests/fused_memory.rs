//! What a fused call holds in memory, counted by the allocator of this test: nothing that grows with n_q × n_k.

use std::alloc::{GlobalAlloc, Layout, System};
use std::sync::atomic::{AtomicUsize, Ordering};

use zerocost_kernels::attention::{Attention, Window};
use zerocost_kernels::parallel;
use zerocost_kernels::view::{View, ViewMut};

struct Counting;

static HELD: AtomicUsize = AtomicUsize::new(0);
static PEAK: AtomicUsize = AtomicUsize::new(0);

// SAFETY: everything is handed to the system's allocator as it is.
unsafe impl GlobalAlloc for Counting {
    unsafe fn alloc(&self, layout: Layout) -> *mut u8 {
        let held = HELD.fetch_add(layout.size(), Ordering::Relaxed) + layout.size();
        PEAK.fetch_max(held, Ordering::Relaxed);
        // SAFETY: the caller's promise is the same.
        unsafe { System.alloc(layout) }
    }

    unsafe fn dealloc(&self, memory: *mut u8, layout: Layout) {
        HELD.fetch_sub(layout.size(), Ordering::Relaxed);
        // SAFETY: the caller's promise is the same.
        unsafe { System.dealloc(memory, layout) }
    }
}

#[global_allocator]
static ALLOCATOR: Counting = Counting;

const D: usize = 16;

/// The most bytes that a call has held at once, besides its inputs and its output.
fn scratch(n_q: usize, n_k: usize, attention: &Attention<'_, f32>) -> usize {
    let array = |n: usize| (0..n * D).map(|i| (i * 7919 % 1013) as f32 / 1013.0 - 0.5).collect::<Vec<f32>>();
    let (query, key, value, mut out) = (array(n_q), array(n_k), array(n_k), array(n_q));
    let view = |argument, elements, n| View::from_slice(argument, elements, &[n, D]).unwrap();
    let (query, key) = (view("query", &query, n_q), view("key", &key, n_k));
    let value = view("value", &value, n_k);
    let mut out = ViewMut::from_slice("out", &mut out, &[n_q, D]).unwrap();
    let before = HELD.load(Ordering::Relaxed);
    PEAK.store(before, Ordering::Relaxed);
    attention.run(&query, &key, &value, &mut out).unwrap();
    PEAK.load(Ordering::Relaxed) - before
}

#[test]
fn scratch_does_not_grow_with_queries_times_keys() {
    parallel::set_num_threads(2).unwrap();
    let dense = Attention::default();
    scratch(256, 256, &dense); // the pool of threads is made at the first call
    let base = scratch(2048, 2048, &dense);
    // Twice the queries: the same packed keys and values, the same scratch of each thread.
    let queries = scratch(4096, 2048, &dense);
    assert!(queries < base + (64 << 10), "{base} bytes became {queries}");
    // Twice the keys: at most twice the packed keys and values, which are as large as key and value.
    let inputs = 2 * 2048 * D * size_of::<f32>();
    let keys = scratch(2048, 4096, &dense);
    assert!(keys < base + inputs + inputs / 2, "{base} bytes became {keys}");
    // All of it is far below the matrix of scores.
    assert!(keys < 2048 * 4096 * size_of::<f32>() / 8, "{keys} bytes");

    // Few queries hold a block of keys for each thread, however long the keys are.
    let (short, long) = (scratch(1, 8192, &dense), scratch(1, 65536, &dense));
    assert!(long < short + (64 << 10), "{short} bytes became {long}");

    // One block of score rows at a time, for each thread.
    let sparse = Attention { sparsity_ratio: Some(0.5), ..Attention::default() };
    let (base, queries) = (scratch(2048, 2048, &sparse), scratch(4096, 2048, &sparse));
    assert!(queries < base + (64 << 10), "{base} bytes became {queries}");

    // A window packs only the keys that somebody looks at.
    let window = Window { left: Some(64), right: Some(0) };
    let narrow = scratch(256, 65536, &Attention { window, ..Attention::default() });
    assert!(narrow < 512 << 10, "{narrow} bytes");
}
