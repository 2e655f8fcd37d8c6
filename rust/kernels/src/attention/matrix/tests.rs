//! The kernels of a given matrix against their twin: every level, type, layout and parameter.

use half::{bf16, f16};
use proptest::prelude::*;

use super::rows::STREAMED_BYTES;
use super::{Before, MatrixAttention, Normalization, kept};
use crate::arch::{Element, Level, Real};
use crate::attention::{Align, WindowSize};
use crate::view::{Layout, View, ViewMut};
use crate::{Error, parallel, reference};

/// How the axes of a matrix lie in memory.
#[derive(Debug, Clone, Copy)]
struct Storage {
    transposed: bool,
    /// Unused elements between those of the inner axis.
    gap: usize,
    reversed: [bool; 2],
}

const PLAIN: Storage = Storage { transposed: false, gap: 0, reversed: [false; 2] };

/// A matrix in memory of its own; what is not part of it holds a canary.
struct Matrix<T> {
    memory: Vec<T>,
    first: isize,
    layout: Layout,
}

impl<T: Element> Matrix<T> {
    fn new([rows, columns]: [usize; 2], storage: Storage, entries: &[T], canary: T) -> Self {
        let step = 1 + storage.gap;
        let (row, column) = if storage.transposed { (step, step * rows + 1) } else { (step * columns + 1, step) };
        let mut strides = [row as isize, column as isize];
        let mut first = 0;
        for (axis, length) in [rows, columns].into_iter().enumerate() {
            if storage.reversed[axis] && length > 0 {
                first += strides[axis] * (length as isize - 1);
                strides[axis] = -strides[axis];
            }
        }
        let layout = Layout::new("a", &[rows, columns], &strides, size_of::<T>()).unwrap();
        let mut matrix = Self { memory: vec![canary; row * rows + column * columns + 1], first, layout };
        for (index, &entry) in entries.iter().enumerate() {
            let place = matrix.place(index);
            matrix.memory[place] = entry;
        }
        matrix
    }

    fn place(&self, index: usize) -> usize {
        let columns = self.layout.shape()[1];
        let [row, column] = [index / columns, index % columns];
        (self.first + row as isize * self.layout.strides()[0] + column as isize * self.layout.strides()[1]) as usize
    }

    fn view(&self) -> View<'_, T> {
        // SAFETY: `new` made memory for every offset of the layout from `first` on.
        unsafe { View::from_raw(self.memory.as_ptr().offset(self.first), self.layout.clone()) }
    }

    fn view_mut(&mut self) -> ViewMut<'_, T> {
        // SAFETY: as in `view`, and the memory is borrowed mutably.
        let data = unsafe { self.memory.as_mut_ptr().offset(self.first) };
        // SAFETY: as above.
        unsafe { ViewMut::from_raw("out", data, self.layout.clone()) }.unwrap()
    }

    fn entries(&self) -> Vec<T> {
        (0..self.layout.len()).map(|index| self.memory[self.place(index)]).collect()
    }
}

/// Bits of an entry, and how far a normalised one may be off.
trait Bits: Element {
    /// Relative, beside the rounding to the type itself.
    const TOLERANCE: f64;
    fn bits(self) -> u64;
    fn of(value: f64) -> Self {
        Self::from_real(Self::Real::from_f64(value))
    }
}

macro_rules! bits {
    ($($kind:ty: $tolerance:expr),*) => {$(
        impl Bits for $kind {
            const TOLERANCE: f64 = $tolerance;
            fn bits(self) -> u64 {
                u64::from(self.to_bits())
            }
        }
    )*};
}
bits!(f64: 1e-13, f32: 1e-6, f16: 1e-3, bf16: 8e-3);

/// Compares a result with the twin's.
fn check<T: Bits>(
    options: &MatrixAttention,
    matrix: &[T],
    shape: [usize; 2],
    given: &[T],
    what: &dyn std::fmt::Debug,
) -> std::result::Result<(), TestCaseError> {
    let (kept, wanted) = reference::matrix_attention(options, matrix, shape);
    let n_k = shape[1];
    for (index, &entry) in given.iter().enumerate() {
        let (row, value) = (index / n_k, entry.to_real().to_f64());
        let about = || format!("{what:?} {options:?}: row {row}, key {}: {entry:?}", index % n_k);
        if !kept[index] {
            prop_assert_eq!(entry.bits(), 0, "{} is dropped", about());
        } else if options.normalization == Normalization::None {
            prop_assert_eq!(entry.bits(), matrix[index].bits(), "{} was {:?}", about(), matrix[index]);
        } else if wanted[index].is_nan() {
            prop_assert!(value.is_nan(), "{}", about());
        } else {
            // The entries of a sum may cancel; then the sum is off by a share of what was added up.
            let row = index - index % n_k..index - index % n_k + n_k;
            let parts = row.clone().filter(|&index| kept[index]).map(|index| matrix[index].to_real().to_f64());
            let cancelled = match options.normalization {
                Normalization::Sum => {
                    let (sum, sizes) = parts.fold((0.0, 0.0), |(sum, sizes), part| (sum + part, sizes + part.abs()));
                    sizes / f64::abs(sum)
                }
                _ => 1.0,
            };
            let tolerance = T::TOLERANCE * wanted[index].abs() + 1e-15 * cancelled * wanted[index].abs();
            // Below the type's normal numbers only an absolute error makes sense.
            let smallest = if T::TOLERANCE == 1e-3 { 6e-5 } else { T::Real::SMALLEST.to_f64() };
            prop_assert!(
                (value - wanted[index]).abs() <= tolerance + smallest
                    || value == T::of(wanted[index]).to_real().to_f64(),
                "{} is not {}",
                about(),
                wanted[index]
            );
        }
    }
    Ok(())
}

/// Runs every level on every layout, with a fresh output, a zeroed one and in place.
fn check_all<T: Bits>(
    options: &MatrixAttention,
    entries: &[T],
    shape: [usize; 2],
    [from, to]: [Storage; 2],
) -> std::result::Result<(), TestCaseError> {
    let canary = T::of(-7.0);
    for level in Level::available() {
        let matrix = Matrix::new(shape, from, entries, canary);
        let mut out = Matrix::new(shape, to, &vec![canary; entries.len()], canary);
        options.run(level, &matrix.view(), &mut out.view_mut(), Before::Anything).unwrap();
        check(options, entries, shape, &out.entries(), &(level, from, to))?;
        prop_assert_eq!(
            out.memory.iter().filter(|&&entry| entry.bits() == canary.bits()).count()
                - out.entries().iter().filter(|&&entry| entry.bits() == canary.bits()).count(),
            out.memory.len() - entries.len(),
            "nothing outside of the output is written"
        );
        let mut zeros = Matrix::new(shape, PLAIN, &vec![T::NULL; entries.len()], canary);
        options.run(level, &matrix.view(), &mut zeros.view_mut(), Before::Zeros).unwrap();
        prop_assert!(zeros.entries().iter().map(|e| e.bits()).eq(out.entries().iter().map(|e| e.bits())));
        let mut in_place = matrix;
        let layout = in_place.layout.clone();
        // SAFETY: the same elements as the output's; the kernel reads each before it writes it.
        let same = unsafe { View::from_raw(in_place.memory.as_ptr().offset(in_place.first), layout) };
        options.run(level, &same, &mut in_place.view_mut(), Before::Anything).unwrap();
        prop_assert!(in_place.entries().iter().map(|e| e.bits()).eq(out.entries().iter().map(|e| e.bits())));
    }
    Ok(())
}

fn storage() -> impl Strategy<Value = Storage> {
    (any::<bool>(), 0usize..2, any::<[bool; 2]>()).prop_map(|(transposed, gap, reversed)| Storage {
        transposed,
        gap,
        reversed,
    })
}

fn options() -> impl Strategy<Value = MatrixAttention> {
    let ratio = prop::option::of(prop_oneof![0.0..1.0, prop::sample::select(vec![0.0, 0.5, 0.8, 0.9, 0.999])]);
    let window = prop_oneof![
        Just(WindowSize::Unbounded),
        (1i64..40).prop_map(WindowSize::Keys),
        (-1i64..30, -1i64..30).prop_map(|(left, right)| WindowSize::Pair(left, right)),
    ];
    let normalization = prop_oneof![
        Just((Normalization::None, 1.0)),
        Just((Normalization::Sum, 1.0)),
        prop::sample::select(vec![1.0, 0.3, 0.7, 5.0]).prop_map(|t| (Normalization::Softmax, t)),
    ];
    let align = prop::sample::select(vec![Align::BottomRight, Align::TopLeft]);
    (ratio, window, normalization, any::<bool>(), align).prop_map(
        |(sparsity_ratio, window_size, (normalization, temperature), is_causal, align)| MatrixAttention {
            sparsity_ratio,
            window_size,
            is_causal,
            align,
            normalization,
            temperature,
        },
    )
}

/// Rows of several kinds: spread out, few distinct values, and everything that is special.
fn entries(count: usize) -> impl Strategy<Value = Vec<f64>> {
    let spread = prop::collection::vec(-9.0..9.0f64, count);
    let few = prop::collection::vec(prop::sample::select(vec![0.0, -0.0, 1.0, 2.0]), count);
    let special = vec![0.0, -0.0, 1e-40, -1e-40, 1.5, -3.0, f64::NAN, f64::INFINITY, f64::NEG_INFINITY, 3e38];
    let special = prop::collection::vec(prop::sample::select(special), count);
    let masked = prop::collection::vec(prop::sample::select(vec![f64::NEG_INFINITY, -2.0, 0.5]), count);
    prop_oneof![3 => spread, 1 => few, 1 => special, 1 => masked]
}

proptest! {
    #[test]
    fn every_level_does_what_the_twin_does(
        (shape, entries) in (0usize..6, prop_oneof![0usize..40, 120usize..150])
            .prop_flat_map(|(rows, columns)| (Just([rows, columns]), entries(rows * columns))),
        options in options(),
        from in storage(),
        to in storage(),
    ) {
        macro_rules! check {
            ($($kind:ty),*) => {$(
                let typed: Vec<$kind> = entries.iter().map(|&entry| Bits::of(entry)).collect();
                check_all(&options, &typed, shape, [from, to])?;
            )*};
        }
        check!(f32, f64, f16, bf16);
    }

    #[test]
    fn long_rows_are_cut_where_a_sort_would_cut_them(
        entries in (200usize..1500).prop_flat_map(entries),
        ratio in prop_oneof![0.0..1.0, prop::sample::select(vec![0.0, 0.001, 0.5, 0.8, 0.999, 0.9999])],
    ) {
        let options = MatrixAttention { sparsity_ratio: Some(ratio), ..Default::default() };
        let shape = [1, entries.len()];
        let narrow: Vec<f32> = entries.iter().map(|&entry| entry as f32).collect();
        check_all(&options, &narrow, shape, [PLAIN; 2])?;
        check_all(&options, &entries, shape, [PLAIN; 2])?;
    }
}

/// Rows that are hard for a search: what each is called, and its entry at an index.
fn hard_rows(n: usize) -> Vec<(&'static str, Vec<f32>)> {
    let row = |entry: &dyn Fn(usize) -> f32| (0..n).map(entry).collect::<Vec<_>>();
    let scrambled = |i: usize| (i as u32).wrapping_mul(2_654_435_761);
    vec![
        ("constant", row(&|_| 0.25)),
        ("two values", row(&|i| (scrambled(i) >> 31) as f32)),
        ("four values", row(&|i| (scrambled(i) >> 30) as f32)),
        ("ascending", row(&|i| i as f32)),
        ("descending", row(&|i| -(i as f32))),
        ("one outlier", row(&|i| if i == n / 3 { 3e38 } else { (scrambled(i) >> 8) as f32 * 1e-9 })),
        ("every scale", row(&|i| f32::from_bits(scrambled(i) & 0xff7f_ffff))),
        ("periodic", row(&|i| if i % 64 == 32 { 1e3 + i as f32 } else { (scrambled(i) >> 8) as f32 })),
        ("denormals", row(&|i| f32::from_bits(scrambled(i) >> 10))),
        ("nothing but -inf", row(&|_| f32::NEG_INFINITY)),
        ("nothing but NaN", row(&|_| f32::NAN)),
        ("NaN among numbers", row(&|i| if scrambled(i) >> 30 == 0 { f32::NAN } else { i as f32 })),
        ("squares", row(&|i| (i * i) as f32)),
        ("exponential", row(&|i| (i as f32 * 80.0 / n as f32).exp())),
    ]
}

#[test]
fn hard_rows_are_cut_right_at_every_k() {
    for n in [1usize, 63, 300, 1000] {
        for (name, row) in hard_rows(n) {
            for k in [1, 2, n / 5, n / 2, n.saturating_sub(1), n] {
                if !(1..=n).contains(&k) {
                    continue;
                }
                let options = MatrixAttention { sparsity_ratio: Some(1.0 - k as f64 / n as f64), ..Default::default() };
                assert_eq!(kept(n, 1.0 - k as f64 / n as f64), k);
                check_all(&options, &row, [1, n], [PLAIN; 2]).unwrap_or_else(|error| panic!("{name}, {k}: {error}"));
            }
        }
    }
}

#[test]
fn matrices_are_told_apart() {
    let entries: Vec<f32> = (0..2 * 3 * 2 * 2).map(|i| i as f32).collect();
    let matrix = View::from_slice("a", &entries, &[2, 3, 2, 2]).unwrap();
    for level in Level::available() {
        let mut out = vec![f32::NAN; entries.len()];
        let mut view = ViewMut::from_slice("out", &mut out, &[2, 3, 2, 2]).unwrap();
        let causal = MatrixAttention { is_causal: true, ..Default::default() };
        causal.run(level, &matrix, &mut view, Before::Anything).unwrap();
        let wanted: Vec<f32> = entries.iter().map(|&e| if e as usize % 4 == 1 { 0.0 } else { e }).collect();
        assert_eq!(out, wanted);
    }
}

#[test]
fn the_number_of_threads_changes_no_bit_and_large_outputs_are_written_past_the_caches() {
    let (rows, columns) = (1030, 4100);
    let entries: Vec<f32> = (0..rows * columns).map(|i| ((i * 7919) % 10_007) as f32 * 1e-3).collect();
    assert!(size_of_val(&entries[..]) >= STREAMED_BYTES);
    let matrix = View::from_slice("a", &entries, &[rows, columns]).unwrap();
    let before = parallel::num_threads();
    for normalization in [Normalization::None, Normalization::Softmax] {
        let options = MatrixAttention { sparsity_ratio: Some(0.9), normalization, ..Default::default() };
        let mut results = Vec::new();
        for threads in [1, 3] {
            parallel::set_num_threads(threads).unwrap();
            let mut out = vec![f32::NAN; entries.len()];
            let mut view = ViewMut::from_slice("out", &mut out, &[rows, columns]).unwrap();
            options.run(Level::current().unwrap(), &matrix, &mut view, Before::Anything).unwrap();
            results.push(out);
        }
        parallel::set_num_threads(before).unwrap();
        assert!(results[0].iter().zip(&results[1]).all(|(a, b)| a.to_bits() == b.to_bits()));
        let head = ..3 * columns;
        check(&options, &entries[head], [3, columns], &results[0][head], &"streamed").unwrap();
    }
}

#[test]
fn what_does_not_fit_is_refused() {
    let entries = [0.0f32; 6];
    let matrix = View::from_slice("a", &entries, &[2, 3]).unwrap();
    let run = |options: MatrixAttention, shape: &[usize]| {
        let mut out = [0.0f32; 6];
        let mut view = ViewMut::from_slice("out", &mut out, shape).unwrap();
        options.run(Level::Scalar, &matrix, &mut view, Before::Anything)
    };
    let plain = MatrixAttention::default();
    assert!(matches!(run(plain, &[3, 2]), Err(Error::Shape { argument: "out", .. })));
    for ratio in [-0.1, 1.0, f64::NAN, f64::INFINITY] {
        let options = MatrixAttention { sparsity_ratio: Some(ratio), ..plain };
        assert!(matches!(run(options, &[2, 3]), Err(Error::Range { argument: "sparsity_ratio", .. })));
    }
    for temperature in [0.0, -1.0, f64::NAN, f64::INFINITY] {
        let options = MatrixAttention { temperature, normalization: Normalization::Softmax, ..plain };
        assert!(matches!(run(options, &[2, 3]), Err(Error::Range { argument: "temperature", .. })));
    }
    let cold = MatrixAttention { temperature: 0.5, ..plain };
    assert!(matches!(run(cold, &[2, 3]), Err(Error::Conflict { argument: "temperature", .. })));
    let backwards = MatrixAttention { window_size: WindowSize::Pair(-2, 0), ..plain };
    assert!(matches!(run(backwards, &[2, 3]), Err(Error::Range { argument: "window_size", .. })));
    assert!(matches!(Normalization::named("l2"), Err(Error::Range { argument: "normalization", .. })));
    let row = View::from_slice("a", &entries, &[6]).unwrap();
    let mut out = [0.0f32; 6];
    let mut view = ViewMut::from_slice("out", &mut out, &[6]).unwrap();
    let rank = plain.run(Level::Scalar, &row, &mut view, Before::Anything);
    assert!(matches!(rank, Err(Error::Rank { argument: "attention_matrix", .. })));
}

#[test]
fn weights_whose_sum_overflows_are_divided_by_it_all_the_same() {
    for level in Level::available() {
        let matrix = [1e308f64, 1e308, 1e308, 1e308, 3.0, f64::INFINITY];
        let mut out = [f64::NAN; 6];
        let view = View::from_slice("a", &matrix, &[3, 2]).unwrap();
        let mut to = ViewMut::from_slice("out", &mut out, &[3, 2]).unwrap();
        let sum = MatrixAttention { normalization: Normalization::Sum, ..Default::default() };
        sum.run(level, &view, &mut to, Before::Anything).unwrap();
        assert!(out[..4].iter().all(|quotient| (quotient - 0.5).abs() < 1e-15), "{out:?}");
        assert!(out[4] == 0.0 && out[5].is_nan(), "{out:?}");
    }
}

#[test]
fn scratch_that_no_machine_has_is_an_error_before_anything_is_written() {
    // Broadcast entries, some of them in place, others far apart.
    let n = 1usize << 58;
    for (columns, normalization) in [(0, Normalization::None), (0, Normalization::Softmax)] {
        let entry = [1.0f32];
        // SAFETY: every entry is the one that there is; the output is never written, which is what the test is about.
        let (matrix, mut out) = unsafe {
            let layout = Layout::new("a", &[1, n], &[0, columns], 4).unwrap();
            let out = Layout::contiguous("out", &[1, n], 4).unwrap();
            let far = std::ptr::without_provenance_mut(1 << 60);
            (View::from_raw(entry.as_ptr(), layout), ViewMut::from_raw("out", far, out).unwrap())
        };
        let options = MatrixAttention { sparsity_ratio: Some(0.5), normalization, ..Default::default() };
        let error = options.run(Level::Scalar, &matrix, &mut out, Before::Anything).unwrap_err();
        assert!(matches!(error, Error::Memory { bytes } if bytes >= n), "{error}");
    }
}
