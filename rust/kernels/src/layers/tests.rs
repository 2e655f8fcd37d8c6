use proptest::prelude::*;

use super::activation::erf;
use super::*;
use crate::Error;
use crate::arch::{Cpu, Lanes, Level, Task};
use crate::reference;
use crate::view::{Layout, View, ViewMut};

fn wide(values: &[f32]) -> Vec<f64> {
    values.iter().map(|&value| f64::from(value)).collect()
}

fn floats(count: usize, range: f32, seed: u64) -> Vec<f32> {
    let mut state = seed.wrapping_mul(0x9e37_79b9_7f4a_7c15) | 1;
    (0..count)
        .map(|_| {
            state ^= state << 13;
            state ^= state >> 7;
            state ^= state << 17;
            ((state >> 40) as f32 / (1u64 << 23) as f32 - 1.0) * range
        })
        .collect()
}

/// The layer with a weight `[weight.len() / bias.len(), bias.len()]`.
fn linear(level: Level, weight: &[f32], bias: &[f32]) -> Linear {
    Linear::at(
        level,
        &View::from_slice("weight", weight, &[weight.len() / bias.len(), bias.len()]).unwrap(),
        &View::from_slice("bias", bias, &[bias.len()]).unwrap(),
    )
    .unwrap()
}

fn run(linear: &Linear, tensor: &[f32], activation: Activation, out: &mut [f32]) {
    let [d_in, d_out] = linear.shape();
    let rows = out.len() / d_out;
    let tensor = View::from_slice("tensor", tensor, &[rows, d_in]).unwrap();
    linear.run(&tensor, activation, &mut ViewMut::from_slice("out", out, &[rows, d_out]).unwrap()).unwrap();
}

struct Erf<'a>(&'a mut [f32]);

impl Task for Erf<'_> {
    type Output = ();

    #[inline(always)]
    fn run<C: Cpu>(self, cpu: C) {
        let lanes = cpu.f32();
        for chunk in self.0.chunks_mut(C::F32::N) {
            // SAFETY: a chunk has `chunk.len()` elements, at most N.
            unsafe {
                let x = lanes.load_first(chunk.as_ptr(), chunk.len());
                lanes.store_first(chunk.as_mut_ptr(), chunk.len(), erf(lanes, x));
            }
        }
    }
}

#[test]
fn the_reference_erf_has_the_published_values() {
    // Abramowitz and Stegun, table 7.1.
    for (x, wanted) in [(0.0, 0.0), (0.5, 0.520_499_877_8), (1.0, 0.842_700_792_9), (2.0, 0.995_322_265_0)] {
        assert!((reference::erf(x) - wanted).abs() < 5e-11, "erf({x})");
        assert!((reference::erf(-x) + wanted).abs() < 5e-11, "erf(-{x})");
    }
}

#[test]
fn erf_is_within_5e_7_everywhere() {
    let x: Vec<f32> = (-60_000..=60_000).map(|i| i as f32 * 1e-4).collect();
    for level in Level::available() {
        let mut y = x.clone();
        level.run(Erf(&mut y));
        for (&x, &y) in x.iter().zip(&y) {
            let exact = reference::erf(f64::from(x));
            assert!((f64::from(y) - exact).abs() <= 5e-7, "{level:?}: erf({x}) = {y}, not {exact}");
        }
        let mut ends = [f32::NEG_INFINITY, -0.0, f32::INFINITY, f32::NAN];
        level.run(Erf(&mut ends));
        assert!((ends[0] + 1.0).abs() < 5e-7 && ends[1] == 0.0 && (ends[2] - 1.0).abs() < 5e-7 && ends[3].is_nan());
    }
}

#[test]
fn a_nan_stays_visible_through_every_activation() {
    for activation in ["none", "gelu", "gelu_tanh", "relu"] {
        for level in Level::available() {
            let mut out = [0.0; 3];
            let linear = linear(level, &[f32::NAN, 1.0, -1.0], &[0.0; 3]);
            run(&linear, &[1.0], Activation::named(activation).unwrap(), &mut out);
            assert!(out[0].is_nan() && out[1] > 0.8 && out[2] <= 0.0, "{activation} {level:?} {out:?}");
        }
    }
    assert!(matches!(Activation::named("swish"), Err(Error::Range { argument: "activation", .. })));
}

#[test]
fn what_does_not_fit_is_refused_by_name() {
    let memory = [0.0f32; 24];
    let view = |name, shape: &[usize]| View::from_slice(name, &memory[..shape.iter().product()], shape).unwrap();
    let made = |weight: &[usize], bias: &[usize]| Linear::new(&view("weight", weight), &view("bias", bias));
    assert!(matches!(made(&[3], &[4]), Err(Error::Rank { argument: "weight", .. })));
    assert!(matches!(made(&[3, 4], &[3]), Err(Error::Shape { argument: "bias", .. })));
    let linear = made(&[3, 4], &[4]).unwrap();
    assert_eq!(linear.shape(), [3, 4]);
    let mut out = [0.0f32; 24];
    let mut run = |tensor: &[usize], shape: &[usize]| {
        let length = shape.iter().product();
        let mut out = ViewMut::from_slice("out", &mut out[..length], shape).unwrap();
        linear.run(&view("tensor", tensor), Activation::Identity, &mut out)
    };
    assert_eq!(run(&[2, 3], &[2, 4]), Ok(()));
    assert!(matches!(run(&[6], &[2, 4]), Err(Error::Rank { argument: "tensor", .. })));
    assert!(matches!(run(&[2, 4], &[2, 4]), Err(Error::Shape { argument: "tensor", .. })));
    assert!(matches!(run(&[2, 3], &[2, 3]), Err(Error::Shape { argument: "out", .. })));
    let turned = Layout::new("tensor", &[2, 3], &[1, 2], 4).unwrap();
    // SAFETY: six elements of `memory`, which lives on and is not written to.
    let turned = unsafe { View::from_raw(memory.as_ptr(), turned) };
    let mut out = [0.0f32; 8];
    let mut out = ViewMut::from_slice("out", &mut out, &[2, 4]).unwrap();
    let refused = linear.run(&turned, Activation::Identity, &mut out);
    assert!(matches!(refused, Err(Error::Conflict { argument: "tensor", .. })));

    let norm = LayerNorm { epsilon: f32::NAN };
    let (matrix, vector) = (view("tensor", &[2, 4]), view("weight", &[4]));
    let refused = norm.run(&matrix, &matrix, &vector, &vector, &mut out);
    assert!(matches!(refused, Err(Error::Range { argument: "epsilon", .. })));
    let refused = LayerNorm { epsilon: 0.0 }.run(&matrix, &view("residual", &[4, 2]), &vector, &vector, &mut out);
    assert!(matches!(refused, Err(Error::Shape { argument: "residual", .. })));
}

#[test]
fn a_weight_that_there_is_no_memory_for_is_an_error() {
    let element = [1.0f32];
    let layout = Layout::new("weight", &[1 << 42, 1], &[0, 0], 4).unwrap();
    // SAFETY: with steps of 0 there is no other offset than 0.
    let weight = unsafe { View::from_raw(element.as_ptr(), layout) };
    let refused = Linear::new(&weight, &View::from_slice("bias", &element, &[1]).unwrap());
    assert!(matches!(refused, Err(Error::Memory { bytes }) if bytes >= 1 << 44));
}

#[test]
fn an_activation_alone_gives_the_bits_of_the_fused_one() {
    let (rows, d_out) = (150, 300);
    let (sums, bias) = (floats(rows * d_out, 3.0, 1), floats(d_out, 1.0, 2));
    for activation in [Activation::Identity, Activation::Gelu, Activation::GeluTanh, Activation::Relu] {
        let mut alone = sums.clone();
        let bias = View::from_slice("bias", &bias, &[d_out]).unwrap();
        activation.run(&bias, &mut ViewMut::from_slice("tensor", &mut alone, &[rows, d_out]).unwrap()).unwrap();
        for (row, alone) in alone.chunks_exact(d_out).enumerate() {
            let linear =
                Linear::new(&View::from_slice("weight", &sums[row * d_out..][..d_out], &[1, d_out]).unwrap(), &bias);
            let mut fused = vec![f32::NAN; d_out];
            run(&linear.unwrap(), &[1.0], activation, &mut fused);
            assert_eq!(alone, fused);
        }
    }
}

#[test]
fn the_number_of_threads_changes_no_bit() {
    let (rows, d_in, d_out) = (150, 96, 800);
    let (tensor, weight, bias) = (floats(rows * d_in, 1.0, 1), floats(d_in * d_out, 1.0, 2), floats(d_out, 1.0, 3));
    let linear = linear(Level::current().unwrap(), &weight, &bias);
    let run = || {
        let mut out = vec![0.0; rows * d_out];
        run(&linear, &tensor, Activation::Gelu, &mut out);
        out
    };
    let threads = crate::parallel::num_threads();
    let many = run();
    crate::parallel::set_num_threads(1).unwrap();
    let one = run();
    crate::parallel::set_num_threads(threads).unwrap();
    assert!(many.iter().zip(&one).all(|(a, b)| a.to_bits() == b.to_bits()));
}

#[test]
fn the_rows_beside_it_change_no_bit_of_a_row() {
    let (rows, d_in, d_out) = (300, 40, 100);
    let (tensor, weight, bias) = (floats(rows * d_in, 1.0, 4), floats(d_in * d_out, 1.0, 5), floats(d_out, 1.0, 6));
    for level in Level::available() {
        let linear = linear(level, &weight, &bias);
        let mut together = vec![0.0; rows * d_out];
        run(&linear, &tensor, Activation::Gelu, &mut together);
        for count in [1, 5, 40] {
            let mut apart = vec![0.0; count * d_out];
            let first = rows - count;
            run(&linear, &tensor[first * d_in..], Activation::Gelu, &mut apart);
            let same = |(a, b): (&f32, &f32)| a.to_bits() == b.to_bits();
            assert!(apart.iter().zip(&together[first * d_out..]).all(same), "{level:?}, {count} rows");
        }
    }
}

proptest! {
    #[test]
    fn linear_layers_equal_their_reference(
        rows in 0usize..140, d_in in 0usize..40, d_out in 0usize..210, name in 0usize..4, seed: u64,
    ) {
        let activation = Activation::named(["none", "gelu", "gelu_tanh", "relu"][name]).unwrap();
        let (tensor, weight) = (floats(rows * d_in, 1.0, seed), floats(d_in * d_out, 1.0, seed ^ 1));
        let bias = floats(d_out, 2.0, seed ^ 2);
        let shape = [rows, d_in, d_out];
        let sums = reference::linear(&wide(&tensor), &wide(&weight), Some(&wide(&bias)), shape);
        for level in Level::available() {
            let mut out = vec![f32::NAN; rows * d_out];
            let linear = Linear::at(
                level,
                &View::from_slice("weight", &weight, &[d_in, d_out]).unwrap(),
                &View::from_slice("bias", &bias, &[d_out]).unwrap(),
            ).unwrap();
            linear.run(
                &View::from_slice("tensor", &tensor, &[rows, d_in]).unwrap(),
                activation,
                &mut ViewMut::from_slice("out", &mut out, &[rows, d_out]).unwrap(),
            ).unwrap();
            for (&got, &sum) in out.iter().zip(&sums) {
                let wanted = match activation {
                    Activation::Identity => sum,
                    Activation::Gelu => reference::gelu(sum),
                    Activation::GeluTanh => reference::gelu_tanh(sum),
                    Activation::Relu => sum.max(0.0),
                };
                let bound = 1e-6 * (d_in as f64 + 4.0);
                prop_assert!((f64::from(got) - wanted).abs() <= bound, "{level:?}: {got}, not {wanted}");
            }
        }
    }

    #[test]
    fn layer_norms_equal_their_reference(rows in 0usize..140, columns in 1usize..80, in_place: bool, seed: u64) {
        let (tensor, residual) = (floats(rows * columns, 3.0, seed), floats(rows * columns, 3.0, seed ^ 1));
        let (weight, bias) = (floats(columns, 2.0, seed ^ 2), floats(columns, 2.0, seed ^ 3));
        let epsilon = 1e-5;
        let sum: Vec<f64> = tensor.iter().zip(&residual).map(|(&a, &b)| f64::from(a) + f64::from(b)).collect();
        let wanted = reference::layer_norm(&sum, &wide(&weight), &wide(&bias), f64::from(epsilon));
        for level in Level::available() {
            let mut out = if in_place { residual.clone() } else { vec![f32::NAN; rows * columns] };
            let layout = Layout::contiguous("residual", &[rows, columns], 4).unwrap();
            let from = if in_place { out.as_ptr() } else { residual.as_ptr() };
            // SAFETY: the elements of `residual`, or of `out`, which the kernel reads before it writes them.
            let other = unsafe { View::from_raw(from, layout) };
            LayerNorm { epsilon }.run_at(
                level,
                [&View::from_slice("tensor", &tensor, &[rows, columns]).unwrap(), &other],
                &View::from_slice("weight", &weight, &[columns]).unwrap(),
                &View::from_slice("bias", &bias, &[columns]).unwrap(),
                &mut ViewMut::from_slice("out", &mut out, &[rows, columns]).unwrap(),
            ).unwrap();
            for ((&got, &wanted), at) in out.iter().zip(&wanted).zip(0..) {
                // A row with next to no variance is divided by next to nothing.
                let row = &sum[at / columns * columns..][..columns];
                let spread = row.iter().fold(0.0f64, |most, value| most.max((value - row[0]).abs()));
                let bound = 2e-5 * (1.0 + 1.0 / spread.max(1e-3));
                prop_assert!((f64::from(got) - wanted).abs() <= bound, "{level:?}: {got}, not {wanted}");
            }
        }
    }
}
