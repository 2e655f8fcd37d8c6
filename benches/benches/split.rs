//! Sharded linear layers, balanced stages and schedules.

use std::hint::black_box;

use criterion::{BenchmarkId, Criterion, Throughput, criterion_group, criterion_main};
use zerocost_benches::Seeded;
use zerocost_kernels::parallel;
use zerocost_kernels::split::{Kind, Mode, Schedule, ShardedLinear, balanced_cuts};
use zerocost_kernels::view::{View, ViewMut};

/// Products of growing size, with one thread and with all; the unsplit product (one shard) stands beside the shards.
fn linear(criterion: &mut Criterion) {
    let mut group = criterion.benchmark_group("linear");
    group.sample_size(10);
    let all = parallel::num_threads();
    for [rows, d_in, d_out] in [[1, 4096, 4096], [16, 1024, 1024], [256, 1024, 1024], [2048, 4096, 4096]] {
        let mut seeded = Seeded::new(1);
        let (tensor, weight) = (seeded.normals(rows * d_in), seeded.normals(d_in * d_out));
        let x = View::from_slice("tensor", &tensor, &[rows, d_in]).unwrap();
        let w = View::from_slice("weight", &weight, &[d_in, d_out]).unwrap();
        let mut out = vec![0.0; rows * d_out];
        group.throughput(Throughput::ElementsAndBytes {
            elements: 2 * (rows * d_in * d_out) as u64,
            bytes: 4 * (rows * d_in + d_in * d_out + rows * d_out) as u64,
        });
        for threads in [1, all] {
            parallel::set_num_threads(threads).unwrap();
            for (name, shards, mode) in
                [("unsplit", 1, Mode::Column), ("column-2", 2, Mode::Column), ("row-2", 2, Mode::Row)]
            {
                let id = BenchmarkId::new(format!("{rows}x{d_in}x{d_out}"), format!("{name}/threads-{threads}"));
                group.bench_function(id, |bencher| {
                    bencher.iter(|| {
                        let mut out = ViewMut::from_slice("out", &mut out, &[rows, d_out]).unwrap();
                        ShardedLinear { shards, mode }.run(black_box(&x), &w, None, &mut out).unwrap();
                    });
                });
            }
        }
    }
    parallel::set_num_threads(all).unwrap();
}

fn stages(criterion: &mut Criterion) {
    let mut group = criterion.benchmark_group("balanced_cuts");
    for slices in [100, 10_000, 1_000_000] {
        let mut seeded = Seeded::new(2);
        let costs: Vec<f64> = (0..slices).map(|_| f64::from(seeded.normal().abs())).collect();
        group.throughput(Throughput::Elements(slices as u64));
        group.bench_function(BenchmarkId::new(slices.to_string(), "8-stages"), |bencher| {
            bencher.iter(|| balanced_cuts(slices, 8, black_box(&costs)).unwrap());
        });
    }
}

fn schedules(criterion: &mut Criterion) {
    let mut group = criterion.benchmark_group("schedule");
    let durations = [1.0; 16];
    for micro_batches in [16, 1024] {
        for (name, kind) in [("gpipe", Kind::GPipe), ("1f1b", Kind::OneForwardOneBackward)] {
            group.throughput(Throughput::Elements(2 * 16 * micro_batches as u64));
            group.bench_function(BenchmarkId::new(format!("16x{micro_batches}"), name), |bencher| {
                let schedule = Schedule { kind, forward: &durations, backward: &durations, micro_batches };
                bencher.iter(|| black_box(&schedule).run().unwrap());
            });
        }
    }
}

criterion_group!(benches, linear, stages, schedules);
criterion_main!(benches);
