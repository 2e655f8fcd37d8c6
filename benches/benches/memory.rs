//! The cache core: hits, and puts that evict, by policy and by number of entries; the standard map beside them.

use std::collections::HashMap;
use std::hint::black_box;

use criterion::{BenchmarkId, Criterion, Throughput, criterion_group, criterion_main};
use zerocost_benches::Seeded;
use zerocost_kernels::memory::{Cache, Config, PolicyKind, Removed, Ttl, Weight};

const POLICIES: [(&str, PolicyKind); 3] =
    [("lru", PolicyKind::Lru), ("sieve", PolicyKind::Sieve), ("w-tinylfu", PolicyKind::TinyLfu)];

fn cache(entries: u64, policy: PolicyKind) -> Cache<u64> {
    Cache::new(Config { max_entries: Some(entries), policy, ..Config::default() }).expect("a positive bound")
}

fn put(cache: &mut Cache<u64>, key: u64) {
    let mut removed = Removed::default();
    cache.insert(key, key, Weight::default(), Ttl::Default, 0, &mut removed);
    removed.for_each(|entry, _| {
        black_box(entry);
    });
}

/// Random hits in a full cache. The cost is that of memory, not of the number of entries.
fn hits(criterion: &mut Criterion) {
    let mut group = criterion.benchmark_group("memory/hit");
    for entries in [1_000u64, 10_000, 1_000_000] {
        let mut seeded = Seeded::new(1);
        let keys: Vec<u64> = (0..10_000).map(|_| seeded.bits() % entries).collect();
        group.throughput(Throughput::Elements(keys.len() as u64));
        for (name, policy) in POLICIES {
            let mut cache = cache(entries, policy);
            (0..entries).for_each(|key| put(&mut cache, key));
            group.bench_function(BenchmarkId::new(entries.to_string(), name), |bencher| {
                bencher.iter(|| {
                    for &key in &keys {
                        if let Some(slot) = cache.find(key, |_, &entry| entry == key) {
                            black_box(cache.hit(slot));
                        }
                    }
                });
            });
        }
        let map: HashMap<u64, u64> = (0..entries).map(|key| (key, key)).collect();
        group.bench_function(BenchmarkId::new(entries.to_string(), "std-hashmap"), |bencher| {
            bencher.iter(|| keys.iter().for_each(|key| assert!(black_box(map.get(key)).is_some())));
        });
    }
    group.finish();
}

/// Puts of new keys into a full cache: each evicts one. Dense keys, and keys at a stride of 4096.
fn evictions(criterion: &mut Criterion) {
    let mut group = criterion.benchmark_group("memory/put-evict");
    group.throughput(Throughput::Elements(1));
    for (keys, stride) in [("dense", 1), ("stride-4096", 4096)] {
        for (name, policy) in POLICIES {
            let mut cache = cache(10_000, policy);
            let mut key = 0;
            group.bench_function(BenchmarkId::new(keys, name), |bencher| {
                bencher.iter(|| {
                    key += stride;
                    put(&mut cache, key);
                });
            });
        }
    }
    group.finish();
}

criterion_group!(benches, hits, evictions);
criterion_main!(benches);
