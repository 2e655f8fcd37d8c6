//! The layers of an encoder besides attention, at the sizes of a small sentence encoder (width 384).
//!
//! A linear layer's throughput is in flops (criterion's "elements"): 2 rows d_in d_out. A layer norm's is in bytes: the
//! tensor and the residual read, the result written. The naive float64 twins stand beside them at the smallest size,
//! and the unsplit product of a weight that was not laid out before (the `gemm` crate's) beside the linear layers.

use std::hint::black_box;

use criterion::measurement::WallTime;
use criterion::{BenchmarkGroup, BenchmarkId, Criterion, Throughput, criterion_group, criterion_main};
use zerocost_benches::Seeded;
use zerocost_kernels::arch::Level;
use zerocost_kernels::layers::{Activation, LayerNorm, Linear};
use zerocost_kernels::split::{Mode, ShardedLinear};
use zerocost_kernels::view::{View, ViewMut};
use zerocost_kernels::{parallel, reference};

const ROWS: [usize; 4] = [1, 16, 128, 1024];
const WIDTH: usize = 384;
const INNER: usize = 1536;

fn wide(values: &[f32]) -> Vec<f64> {
    values.iter().map(|&value| f64::from(value)).collect()
}

fn with_threads(group: &mut BenchmarkGroup<'_, WallTime>, shape: &str, name: &str, mut call: impl FnMut()) {
    let all = parallel::num_threads();
    for threads in [1, all] {
        parallel::set_num_threads(threads).unwrap();
        let id = BenchmarkId::new(shape, format!("{name}/threads-{threads}"));
        group.bench_function(id, |bencher| bencher.iter(&mut call));
    }
    parallel::set_num_threads(all).unwrap();
}

fn linear(criterion: &mut Criterion) {
    let mut group = criterion.benchmark_group("linear-laid-out");
    let all = parallel::num_threads();
    group.sample_size(20);
    for [d_in, d_out] in [[WIDTH, WIDTH], [WIDTH, INNER], [INNER, WIDTH]] {
        let mut seeded = Seeded::new(1);
        let (weight, bias) = (seeded.normals(d_in * d_out), seeded.normals(d_out));
        let w = View::from_slice("weight", &weight, &[d_in, d_out]).unwrap();
        let b = View::from_slice("bias", &bias, &[d_out]).unwrap();
        let layer = Linear::new(&w, &b).unwrap();
        for rows in ROWS {
            let tensor = seeded.normals(rows * d_in);
            let x = View::from_slice("tensor", &tensor, &[rows, d_in]).unwrap();
            let mut out = vec![0.0; rows * d_out];
            group.throughput(Throughput::Elements(2 * (rows * d_in * d_out) as u64));
            let shape = format!("{rows}x{d_in}x{d_out}");
            for (name, activation) in [("bias", Activation::Identity), ("bias-gelu", Activation::Gelu)] {
                with_threads(&mut group, &shape, name, || {
                    let mut out = ViewMut::from_slice("out", &mut out, &[rows, d_out]).unwrap();
                    layer.run(black_box(&x), activation, &mut out).unwrap();
                });
            }
            for level in Level::available() {
                let layer = Linear::at(level, &w, &b).unwrap();
                parallel::set_num_threads(1).unwrap();
                group.bench_function(BenchmarkId::new(&shape, format!("bias/{}", level.name())), |bencher| {
                    bencher.iter(|| {
                        let mut out = ViewMut::from_slice("out", &mut out, &[rows, d_out]).unwrap();
                        layer.run(black_box(&x), Activation::Identity, &mut out).unwrap();
                    });
                });
                parallel::set_num_threads(all).unwrap();
            }
            with_threads(&mut group, &shape, "gemm-crate", || {
                let mut out = ViewMut::from_slice("out", &mut out, &[rows, d_out]).unwrap();
                ShardedLinear { shards: 1, mode: Mode::Column }.run(black_box(&x), &w, Some(&b), &mut out).unwrap();
            });
            if rows == ROWS[0] {
                let (x, w, b) = (wide(&tensor), wide(&weight), wide(&bias));
                group.bench_function(BenchmarkId::new(&shape, "naive-f64"), |bencher| {
                    bencher.iter(|| reference::linear(black_box(&x), &w, Some(&b), [rows, d_in, d_out]));
                });
            }
        }
    }
}

fn layer_norm(criterion: &mut Criterion) {
    let mut group = criterion.benchmark_group("residual-layer-norm");
    for rows in ROWS {
        let mut seeded = Seeded::new(2);
        let (tensor, residual) = (seeded.normals(rows * WIDTH), seeded.normals(rows * WIDTH));
        let (weight, bias) = (seeded.normals(WIDTH), seeded.normals(WIDTH));
        let x = View::from_slice("tensor", &tensor, &[rows, WIDTH]).unwrap();
        let r = View::from_slice("residual", &residual, &[rows, WIDTH]).unwrap();
        let w = View::from_slice("weight", &weight, &[WIDTH]).unwrap();
        let b = View::from_slice("bias", &bias, &[WIDTH]).unwrap();
        let mut out = vec![0.0; rows * WIDTH];
        group.throughput(Throughput::Bytes(12 * (rows * WIDTH) as u64));
        let shape = format!("{rows}x{WIDTH}");
        with_threads(&mut group, &shape, "f32", || {
            let mut out = ViewMut::from_slice("out", &mut out, &[rows, WIDTH]).unwrap();
            LayerNorm { epsilon: 1e-12 }.run(black_box(&x), &r, &w, &b, &mut out).unwrap();
        });
        if rows == ROWS[0] {
            let sum: Vec<f64> = tensor.iter().zip(&residual).map(|(&a, &b)| f64::from(a) + f64::from(b)).collect();
            let (w, b) = (wide(&weight), wide(&bias));
            group.bench_function(BenchmarkId::new(&shape, "naive-f64"), |bencher| {
                bencher.iter(|| reference::layer_norm(black_box(&sum), &w, &b, 1e-12));
            });
        }
    }
}

criterion_group!(benches, linear, layer_norm);
criterion_main!(benches);
