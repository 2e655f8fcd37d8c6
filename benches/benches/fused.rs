//! Fused attention. Throughput is in flops (criterion's "elements"): 2 (d + d_v) for each query and key that may meet.

use std::hint::black_box;

use criterion::measurement::WallTime;
use criterion::{BenchmarkGroup, BenchmarkId, Criterion, Throughput, criterion_group, criterion_main};
use half::{bf16, f16};
use zerocost_benches::Seeded;
use zerocost_kernels::arch::{Element, Level, Real};
use zerocost_kernels::attention::{Align, Attention, Band, Mask, Window};
use zerocost_kernels::parallel;
use zerocost_kernels::view::{View, ViewMut};

/// Heads, queries, keys, columns.
type Shape = [usize; 4];

struct Inputs<T> {
    shape: Shape,
    query: Vec<T>,
    key: Vec<T>,
    value: Vec<T>,
    out: Vec<T>,
}

impl<T: Element> Inputs<T> {
    fn new(shape: Shape) -> Self {
        let [heads, n_q, n_k, d] = shape;
        let mut seeded = Seeded::new(7);
        let mut array = |n: usize| -> Vec<T> {
            (0..heads * n * d).map(|_| T::from_real(T::Real::from_f64(seeded.normal().into()))).collect()
        };
        let (query, key, value) = (array(n_q), array(n_k), array(n_k));
        Self { shape, query, key, value, out: vec![T::NULL; heads * n_q * d] }
    }

    fn run(&mut self, level: Level, attention: &Attention<'_, T>) {
        let [heads, n_q, n_k, d] = self.shape;
        let view = |argument, elements, n| View::from_slice(argument, elements, &[heads, n, d]).unwrap();
        let (query, key) = (view("query", &self.query, n_q), view("key", &self.key, n_k));
        let value = view("value", &self.value, n_k);
        let mut out = ViewMut::from_slice("out", &mut self.out, &[heads, n_q, d]).unwrap();
        attention.run_at(level, black_box(&query), &key, &value, &mut out).unwrap();
    }

    fn flops(&self, window: Window) -> Throughput {
        let [heads, n_q, n_k, d] = self.shape;
        let band = Band::new(window, Align::default(), n_q, n_k);
        let pairs: usize = (0..n_q).map(|query| band.keys(query).len()).sum();
        Throughput::Elements((4 * heads * pairs * d) as u64)
    }
}

fn name(shape: Shape) -> String {
    shape.map(|n| n.to_string()).join("x")
}

fn line<T: Element>(
    group: &mut BenchmarkGroup<'_, WallTime>,
    shape: Shape,
    variant: &str,
    level: Level,
    attention: &Attention<'_, T>,
) {
    let mut inputs = Inputs::<T>::new(shape);
    group.throughput(inputs.flops(attention.window));
    group.bench_function(BenchmarkId::new(name(shape), variant), |bencher| {
        bencher.iter(|| inputs.run(level, attention));
    });
}

/// The plain way, one query after the other: scores, softmax, values.
fn naive(inputs: &mut Inputs<f32>) {
    let [heads, n_q, n_k, d] = inputs.shape;
    let scale = 1.0 / (d as f32).sqrt();
    let mut scores = vec![0.0; n_k];
    for head in 0..heads {
        let keys = &inputs.key[head * n_k * d..(head + 1) * n_k * d];
        let values = &inputs.value[head * n_k * d..(head + 1) * n_k * d];
        for i in head * n_q..(head + 1) * n_q {
            let query = &inputs.query[i * d..(i + 1) * d];
            for (score, key) in scores.iter_mut().zip(keys.chunks_exact(d)) {
                *score = scale * query.iter().zip(key).map(|(a, b)| a * b).sum::<f32>();
            }
            let top = scores.iter().copied().fold(f32::NEG_INFINITY, f32::max);
            scores.iter_mut().for_each(|score| *score = (*score - top).exp());
            let sum: f32 = scores.iter().sum();
            let out = &mut inputs.out[i * d..(i + 1) * d];
            out.fill(0.0);
            for (weight, value) in scores.iter().zip(values.chunks_exact(d)) {
                out.iter_mut().zip(value).for_each(|(out, value)| *out += weight / sum * value);
            }
        }
    }
}

fn dense(criterion: &mut Criterion) {
    let mut group = criterion.benchmark_group("fused");
    group.sample_size(10);
    let (all, best) = (parallel::num_threads(), Level::current().unwrap());
    let plain = Attention::<f32>::default();
    // How cost grows with n, with one thread and with all.
    for n in [128, 512, 2048, 4096] {
        for threads in [1, all] {
            parallel::set_num_threads(threads).unwrap();
            line(&mut group, [8, n, n, 64], &format!("dense/threads-{threads}"), best, &plain);
        }
    }
    let mut inputs = Inputs::<f32>::new([8, 512, 512, 64]);
    group.throughput(inputs.flops(Window::default()));
    group.bench_function(BenchmarkId::new(name(inputs.shape), "naive"), |bencher| {
        bencher.iter(|| naive(black_box(&mut inputs)));
    });
    for level in Level::available() {
        line(&mut group, [8, 512, 512, 64], level.name(), level, &plain);
    }
    for d in [16, 32, 77, 80, 128, 256] {
        line(&mut group, [8, 1024, 1024, d], "head-size", best, &plain);
    }
    line::<f64>(&mut group, [8, 1024, 1024, 64], "float64", best, &Attention::default());
    line::<f16>(&mut group, [8, 1024, 1024, 64], "float16", best, &Attention::default());
    line::<bf16>(&mut group, [8, 1024, 1024, 64], "bfloat16", best, &Attention::default());
}

fn masked(criterion: &mut Criterion) {
    let mut group = criterion.benchmark_group("fused");
    group.sample_size(10);
    let best = Level::current().unwrap();
    let causal = Window { left: None, right: Some(0) };
    line::<f32>(&mut group, [8, 4096, 4096, 64], "causal", best, &Attention { window: causal, ..Attention::default() });
    // A window costs O(n · w).
    for n in [2048, 8192, 32768] {
        let window = Window { left: Some(64), right: Some(64) };
        line::<f32>(&mut group, [8, n, n, 64], "window-129", best, &Attention { window, ..Attention::default() });
    }
    let n = 1024;
    let mut seeded = Seeded::new(8);
    let bytes: Vec<u8> = (0..n * n).map(|_| u8::from(seeded.normal() < 1.0)).collect();
    let bias = seeded.normals(n * n);
    let bool_mask = Mask::Bool(View::from_slice("attn_mask", &bytes, &[n, n]).unwrap());
    let float_mask = Mask::Float(View::from_slice("attn_mask", &bias, &[n, n]).unwrap());
    for (variant, mask) in [("bool-mask", bool_mask), ("float-mask", float_mask)] {
        line::<f32>(&mut group, [8, n, n, 64], variant, best, &Attention { mask: Some(mask), ..Attention::default() });
    }
    line::<f32>(&mut group, [8, n, n, 64], "softcap", best, &Attention { softcap: 30.0, ..Attention::default() });
    let sparsity_ratio = Some(0.8);
    line::<f32>(&mut group, [8, n, n, 64], "sparse-80%", best, &Attention { sparsity_ratio, ..Attention::default() });
}

fn decode(criterion: &mut Criterion) {
    let mut group = criterion.benchmark_group("fused");
    group.sample_size(20);
    let best = Level::current().unwrap();
    for n_k in [1024, 8192, 32768] {
        line(&mut group, [8, 1, n_k, 64], "decode", best, &Attention::<f32>::default());
    }
    line(&mut group, [1, 3, 3, 3], "tiny", best, &Attention::<f32>::default());
}

criterion_group!(benches, dense, masked, decode);
criterion_main!(benches);
