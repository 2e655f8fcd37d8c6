use half::{bf16, f16};
use proptest::prelude::*;

use super::*;
use crate::reference;

/// Numbers with few digits, so that every type holds them; the generator is enough for a test.
fn numbers(count: usize, seed: usize) -> Vec<f64> {
    let mut state = seed as u64 + 1;
    let mut next = || {
        state = state.wrapping_mul(6_364_136_223_846_793_005).wrapping_add(1_442_695_040_888_963_407);
        ((state >> 33) % 257) as f64 / 64.0 - 2.0
    };
    (0..count).map(|_| next()).collect()
}

trait Number: Scalar {
    const EPSILON: f64;
    fn of(number: f64) -> Self;
    fn wide(self) -> f64;
}
macro_rules! number {
    ($T:ty, $epsilon:expr, $of:expr, $wide:expr) => {
        impl Number for $T {
            const EPSILON: f64 = $epsilon;
            fn of(number: f64) -> Self {
                $of(number)
            }
            fn wide(self) -> f64 {
                $wide(self)
            }
        }
    };
}
number!(f64, 1e-14, |x| x, |x| x);
number!(f32, 1e-6, |x| x as f32, f64::from);
number!(f16, 1e-3, f16::from_f64, f16::to_f64);
number!(bf16, 8e-3, bf16::from_f64, bf16::to_f64);

#[derive(Debug, Clone, Copy)]
struct Case {
    rows: usize,
    d_in: usize,
    d_out: usize,
    layer: ShardedLinear,
    bias: bool,
    transposed: bool,
}

fn check<T: Number>(case: Case) {
    check_at::<T>(Level::current().unwrap(), case);
}

fn check_at<T: Number>(level: Level, case: Case) {
    let Case { rows, d_in, d_out, layer, transposed, .. } = case;
    let typed = |count, seed| numbers(count, seed).into_iter().map(T::of).collect::<Vec<T>>();
    let wide = |numbers: &[T]| numbers.iter().map(|&number| number.wide()).collect::<Vec<f64>>();
    let (tensor, weight, bias) = (typed(rows * d_in, 1), typed(d_in * d_out, 2), typed(d_out, 3));
    // The transposed case reads both matrices with their axes swapped.
    let strides = |rows: usize, columns: usize| if transposed { [1, rows as isize] } else { [columns as isize, 1] };
    let layout = |rows, columns| Layout::new("a", &[rows, columns], &strides(rows, columns), size_of::<T>()).unwrap();
    let bias_view = case.bias.then(|| View::from_slice("bias", &bias, &[d_out]).unwrap());
    let mut out = vec![T::of(f64::NAN); rows * d_out];
    // SAFETY: both slices have as many elements as their layouts, which step over each of them once.
    let (x, w) = unsafe {
        (View::from_raw(tensor.as_ptr(), layout(rows, d_in)), View::from_raw(weight.as_ptr(), layout(d_in, d_out)))
    };
    let mut view = ViewMut::from_slice("out", &mut out, &[rows, d_out]).unwrap();
    layer.run_at(level, &x, &w, bias_view.as_ref(), &mut view).unwrap();

    let at = |data: &[f64], rows: usize, columns: usize, row: usize, column: usize| {
        let [row_stride, column_stride] = strides(rows, columns);
        data[(row as isize * row_stride + column as isize * column_stride) as usize]
    };
    let (tensor, weight, bias) = (wide(&tensor), wide(&weight), wide(&bias));
    let plain = |data: &[f64], rows: usize, columns: usize| -> Vec<f64> {
        (0..rows * columns).map(|index| at(data, rows, columns, index / columns, index % columns)).collect()
    };
    let (tensor, weight) = (plain(&tensor, rows, d_in), plain(&weight, d_in, d_out));
    let expected = reference::linear(&tensor, &weight, case.bias.then_some(&bias), [rows, d_in, d_out]);
    let magnitude = |data: &[f64]| data.iter().map(|number| number.abs()).collect::<Vec<f64>>();
    let scale = reference::linear(&magnitude(&tensor), &magnitude(&weight), None, [rows, d_in, d_out]);
    for (index, ((out, expected), scale)) in out.iter().zip(&expected).zip(&scale).enumerate() {
        let error = (out.wide() - expected).abs();
        assert!(error <= T::EPSILON * (scale + 2.0), "{case:?} [{index}] {} for {expected}", out.wide());
    }
}

fn check_all(case: Case) {
    check::<f64>(case);
    check::<f32>(case);
    check::<f16>(case);
    check::<bf16>(case);
}

#[test]
fn more_than_one_tile_and_more_than_one_block_of_depth() {
    for mode in [Mode::Column, Mode::Row] {
        for transposed in [false, true] {
            let layer = ShardedLinear { shards: 3, mode };
            check_all(Case { rows: 513, d_in: 514, d_out: 515, layer, bias: true, transposed });
        }
    }
}

#[test]
fn few_rows_at_every_level() {
    // More than one band in both directions, a width that no vector divides, and depths that do not fill a group.
    for level in Level::available() {
        for (rows, mode) in [(1, Mode::Column), (1, Mode::Row), (few::ROWS, Mode::Column), (few::ROWS + 1, Mode::Row)] {
            let layer = ShardedLinear { shards: 3, mode };
            let case = Case { rows, d_in: 203, d_out: 16999, layer, bias: true, transposed: false };
            check_at::<f64>(level, case);
            check_at::<f32>(level, case);
            check_at::<f16>(level, case);
            check_at::<bf16>(level, case);
        }
    }
}

#[test]
fn dot_products_of_contiguous_columns() {
    // The tensor is plain, the weight transposed: blocks of results that do not divide the shape.
    let (rows, d_in, d_out) = (37, 70, 45);
    let (tensor, weight) = (numbers(rows * d_in, 1), numbers(d_in * d_out, 2));
    let layout = Layout::new("weight", &[d_in, d_out], &[1, d_in as isize], 8).unwrap();
    // SAFETY: the slice has d_in × d_out elements, which the layout steps over once.
    let w = unsafe { View::from_raw(weight.as_ptr(), layout) };
    let x = View::from_slice("tensor", &tensor, &[rows, d_in]).unwrap();
    let mut out = vec![f64::NAN; rows * d_out];
    let mut view = ViewMut::from_slice("out", &mut out, &[rows, d_out]).unwrap();
    ShardedLinear { shards: 3, mode: Mode::Row }.run(&x, &w, None, &mut view).unwrap();
    let plain: Vec<f64> = (0..d_in * d_out).map(|index| weight[index / d_out + index % d_out * d_in]).collect();
    for (out, expected) in out.iter().zip(reference::linear(&tensor, &plain, None, [rows, d_in, d_out])) {
        assert!((out - expected).abs() < 1e-10);
    }
}

#[test]
fn the_bits_do_not_depend_on_the_number_of_threads() {
    let layer = ShardedLinear { shards: 3, mode: Mode::Row };
    for (rows, d_in, d_out) in [(600, 300, 700), (2, 3000, 700)] {
        let (tensor, weight) = (numbers(rows * d_in, 1), numbers(d_in * d_out, 2));
        let run = |threads| {
            parallel::set_num_threads(threads).unwrap();
            let mut out = vec![0.0; rows * d_out];
            let mut view = ViewMut::from_slice("out", &mut out, &[rows, d_out]).unwrap();
            let (x, w) =
                (View::from_slice("x", &tensor, &[rows, d_in]), View::from_slice("w", &weight, &[d_in, d_out]));
            layer.run(&x.unwrap(), &w.unwrap(), None, &mut view).unwrap();
            out
        };
        let before = parallel::num_threads();
        let (one, three) = (run(1), run(3));
        parallel::set_num_threads(before).unwrap();
        assert_eq!(one, three);
    }
}

#[test]
fn leading_axes_of_any_strides() {
    // [3, 2, 4] as every other matrix of [6, 2, 5] in reverse, without the last column: no single row step.
    let memory = numbers(60, 1);
    let layout = Layout::new("tensor", &[3, 2, 4], &[-20, 5, 1], 8).unwrap();
    // SAFETY: from 40 two steps of -20, one of 5 and three of 1 stay within 0..60.
    let tensor = unsafe { View::from_raw(memory[40..].as_ptr(), layout) };
    let rows: Vec<f64> =
        [40, 45, 20, 25, 0, 5].into_iter().flat_map(|start| memory[start..start + 4].to_vec()).collect();
    let weight = numbers(12, 2);
    let weight_view = View::from_slice("weight", &weight, &[4, 3]).unwrap();
    let expected = reference::linear(&rows, &weight, None, [6, 4, 3]);
    for mode in [Mode::Column, Mode::Row] {
        let mut out = vec![0.0; 18];
        let mut view = ViewMut::from_slice("out", &mut out, &[3, 2, 3]).unwrap();
        ShardedLinear { shards: 2, mode }.run(&tensor, &weight_view, None, &mut view).unwrap();
        for (out, expected) in out.iter().zip(&expected) {
            assert!((out - expected).abs() < 1e-12);
        }
    }
}

#[test]
fn shapes_that_do_not_fit_are_refused() {
    let elements = [0.0f32; 24];
    let view = |name, shape: &[usize]| View::from_slice(name, &elements[..shape.iter().product()], shape).unwrap();
    let run = |tensor: &[usize], weight: &[usize], bias: Option<&[usize]>, out: &[usize], shards: usize| {
        let mut memory = vec![0.0; out.iter().product()];
        let bias = bias.map(|shape| view("bias", shape));
        let mut out = ViewMut::from_slice("out", &mut memory, out).unwrap();
        ShardedLinear { shards, mode: Mode::Column }
            .run(&view("tensor", tensor), &view("weight", weight), bias.as_ref(), &mut out)
            .map_err(|error| error.to_string())
    };
    let error = |result: std::result::Result<(), String>| result.unwrap_err().split(':').next().unwrap().to_owned();
    assert_eq!(run(&[2, 3], &[3, 4], Some(&[4]), &[2, 4], 2), Ok(()));
    assert_eq!(error(run(&[2, 3], &[3], None, &[2, 4], 2)), "weight");
    assert_eq!(error(run(&[2, 3], &[4, 3], None, &[2, 3], 2)), "weight");
    assert_eq!(error(run(&[], &[1, 3], None, &[3], 2)), "tensor");
    assert_eq!(error(run(&[2, 3], &[3, 4], Some(&[3]), &[2, 4], 2)), "bias");
    assert_eq!(error(run(&[2, 3], &[3, 4], Some(&[1, 4]), &[2, 4], 2)), "bias");
    assert_eq!(error(run(&[2, 3], &[3, 4], None, &[2, 3], 2)), "out");
    assert_eq!(error(run(&[2, 3], &[3, 4], None, &[2, 4], 0)), "num_splits");
    assert_eq!(ShardedLinear::out_shape(&[2, 3], 1, &[3, 4]), Ok(vec![2, 4]));
    assert!(matches!(ShardedLinear::out_shape(&[2, 3], 0, &[3, 4]), Err(Error::Range { argument: "axis", .. })));
}

#[test]
fn an_output_over_an_input_is_refused() {
    let mut memory = vec![0.0f64; 16];
    let data = memory.as_mut_ptr();
    let layout = Layout::contiguous("a", &[2, 2], 8).unwrap();
    // SAFETY: all within the 16 elements; the run refuses before it reads or writes.
    unsafe {
        let tensor = View::from_raw(data, layout.clone());
        let weight = View::from_raw(data.add(8), layout.clone());
        let mut out = ViewMut::from_raw("out", data.add(2), layout).unwrap();
        let refused = ShardedLinear { shards: 1, mode: Mode::Row }.run(&tensor, &weight, None, &mut out);
        assert!(matches!(refused, Err(Error::Overlap { .. })));
    }
}

proptest! {
    #[test]
    fn shards_give_the_unsplit_product(
        (rows, d_in, d_out) in (0usize..9, 0usize..40, 0usize..40),
        shards in 1usize..7,
        row in any::<bool>(),
        bias in any::<bool>(),
        transposed in any::<bool>(),
    ) {
        let layer = ShardedLinear { shards, mode: if row { Mode::Row } else { Mode::Column } };
        check_all(Case { rows, d_in, d_out, layer, bias, transposed });
    }
}
