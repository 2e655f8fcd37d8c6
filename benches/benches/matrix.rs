//! Top-k and windows on a given matrix: every CPU level, one thread and all, sizes that show how cost grows, hard rows.

use std::hint::black_box;

use criterion::{BenchmarkId, Criterion, Throughput, criterion_group, criterion_main};
use half::{bf16, f16};
use zerocost_benches::Seeded;
use zerocost_kernels::arch::{Element, Level};
use zerocost_kernels::attention::{Before, MatrixAttention, Normalization, WindowSize};
use zerocost_kernels::view::{View, ViewMut};
use zerocost_kernels::{parallel, reference};

const TOP_K: MatrixAttention = MatrixAttention {
    sparsity_ratio: Some(0.8),
    window_size: WindowSize::Unbounded,
    is_causal: false,
    align: zerocost_kernels::attention::Align::BottomRight,
    normalization: Normalization::None,
    temperature: 1.0,
};
const WINDOW: MatrixAttention = MatrixAttention { sparsity_ratio: None, window_size: WindowSize::Keys(129), ..TOP_K };

fn run<T: Element>(level: Level, attention: MatrixAttention, matrix: &[T], out: &mut [T], shape: [usize; 2]) {
    let view = View::from_slice("attention_matrix", matrix, &shape).unwrap();
    let mut out = ViewMut::from_slice("out", out, &shape).unwrap();
    attention.run(level, black_box(&view), &mut out, Before::Anything).unwrap();
}

fn throughput<T>([rows, columns]: [usize; 2]) -> Throughput {
    let elements = (rows * columns) as u64;
    Throughput::ElementsAndBytes { elements, bytes: 2 * elements * size_of::<T>() as u64 }
}

/// Both kernels on growing matrices, beside a copy of the same bytes; the naive twin where it ends in reasonable time.
fn sizes(criterion: &mut Criterion) {
    let all = parallel::num_threads();
    for (name, attention) in [("top-k", TOP_K), ("window", WINDOW)] {
        let mut group = criterion.benchmark_group(name);
        group.sample_size(10);
        for n in [64, 512, 1024, 2048, 4096] {
            let matrix = Seeded::new(n as u64).normals(n * n);
            let mut out = vec![0.0; n * n];
            group.throughput(throughput::<f32>([n, n]));
            for threads in [1, all] {
                parallel::set_num_threads(threads).unwrap();
                for level in Level::available() {
                    let id = BenchmarkId::new(format!("{n}x{n}"), format!("{}/threads-{threads}", level.name()));
                    group.bench_function(id, |bencher| {
                        bencher.iter(|| run(level, attention, &matrix, &mut out, [n, n]));
                    });
                }
            }
            parallel::set_num_threads(all).unwrap();
            group.bench_function(BenchmarkId::new(format!("{n}x{n}"), "copy/threads-1"), |bencher| {
                bencher.iter(|| out.copy_from_slice(black_box(&matrix)));
            });
            if n <= 512 {
                group.bench_function(BenchmarkId::new(format!("{n}x{n}"), "naive"), |bencher| {
                    bencher.iter(|| reference::matrix_attention(&attention, black_box(&matrix), [n, n]));
                });
            }
        }
    }
}

/// Rows that are hard for a search, each beside the quickselect of the standard library.
fn hard_rows(criterion: &mut Criterion) {
    let mut group = criterion.benchmark_group("top-k-rows");
    let n = 4096;
    let mut seeded = Seeded::new(7);
    let normal = seeded.normals(n);
    let mut sorted = normal.clone();
    sorted.sort_unstable_by(f32::total_cmp);
    let mut outlier: Vec<f32> = normal.iter().map(|entry| entry * 1e-9).collect();
    outlier[7] = 3e38;
    let rows = [
        ("normal", normal.clone()),
        ("constant", vec![0.25; n]),
        ("four-values", (0..n).map(|_| (seeded.bits() >> 62) as f32).collect()),
        ("sorted", sorted),
        ("one-outlier", outlier),
        ("every-scale", normal.iter().map(|entry| (entry * 20.0).exp()).collect()),
        ("denormals", normal.iter().map(|entry| entry * 1e-40).collect()),
        ("nan", vec![f32::NAN; n]),
    ];
    let level = Level::current().unwrap();
    group.throughput(throughput::<f32>([1, n]));
    for (name, row) in &rows {
        for k in [1, n / 5, n - 1] {
            let attention = MatrixAttention { sparsity_ratio: Some(1.0 - k as f64 / n as f64), ..TOP_K };
            let mut out = vec![0.0; n];
            group.bench_function(BenchmarkId::new(format!("{name}/k-{k}"), level.name()), |bencher| {
                bencher.iter(|| run(level, attention, row, &mut out, [1, n]));
            });
            group.bench_function(BenchmarkId::new(format!("{name}/k-{k}"), "quickselect-alone"), |bencher| {
                let mut copy = row.clone();
                bencher.iter(|| {
                    copy.copy_from_slice(black_box(row));
                    *copy.select_nth_unstable_by(n - k, f32::total_cmp).1
                });
            });
        }
    }
}

/// Element types, and what normalising costs.
fn types(criterion: &mut Criterion) {
    fn one<T: Element<Real = R>, R: zerocost_kernels::arch::Real<Real = R>>(criterion: &mut Criterion, name: &str) {
        let mut group = criterion.benchmark_group("top-k-types");
        group.sample_size(10);
        let shape = [1024, 4096];
        let matrix: Vec<T> = Seeded::new(3)
            .normals(shape[0] * shape[1])
            .into_iter()
            .map(|entry| T::from_real(R::from_f64(f64::from(entry))))
            .collect();
        let mut out = vec![T::NULL; matrix.len()];
        let level = Level::current().unwrap();
        group.throughput(throughput::<T>(shape));
        for (what, normalization) in
            [("none", Normalization::None), ("softmax", Normalization::Softmax), ("sum", Normalization::Sum)]
        {
            group.bench_function(BenchmarkId::new(format!("1024x4096/{name}"), what), |bencher| {
                let attention = MatrixAttention { normalization, ..TOP_K };
                bencher.iter(|| run(level, attention, &matrix, &mut out, shape));
            });
        }
    }
    one::<f32, f32>(criterion, "f32");
    one::<f64, f64>(criterion, "f64");
    one::<f16, f32>(criterion, "f16");
    one::<bf16, f32>(criterion, "bf16");
}

criterion_group!(benches, sizes, hard_rows, types);
criterion_main!(benches);
