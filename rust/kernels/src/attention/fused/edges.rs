//! Values at the edge of what the types hold, and memory that cannot be had.

use super::options::Attention;
use crate::Error;
use crate::arch::{Element, Level, Real};
use crate::view::{Layout, View, ViewMut};

/// `[n_q, d] [n_k, d] [n_k, d_v]` at every level.
fn check(
    attention: &Attention<'_, f32>,
    (query, key, value): (&[f32], &[f32], &[f32]),
    [n_q, n_k]: [usize; 2],
    expected: f64,
) {
    let (d, d_v) = (query.len() / n_q, value.len() / n_k);
    for level in Level::available() {
        let query = View::from_slice("query", query, &[n_q, d]).unwrap();
        let key = View::from_slice("key", key, &[n_k, d]).unwrap();
        let value = View::from_slice("value", value, &[n_k, d_v]).unwrap();
        let mut out = vec![f32::NAN; n_q * d_v];
        let mut view = ViewMut::from_slice("out", &mut out, &[n_q, d_v]).unwrap();
        attention.run_at(level, &query, &key, &value, &mut view).unwrap();
        let is_close = |&given: &f32| (f64::from(given) / expected - 1.0).abs() < 1e-5;
        assert!(out.iter().all(is_close), "{n_q} × {n_k} at {level:?}: {out:?}, not {expected}");
    }
}

/// Few rows read keys where they are, more pack them, many share what is packed; long keys are cut into runs.
const SIZES: [[usize; 2]; 5] = [[1, 7], [3, 300], [20, 300], [200, 130], [2, 70_000]];

#[test]
fn a_mean_of_large_values_is_no_larger_than_they_are() {
    for [n_q, n_k] in SIZES {
        let (query, key) = (vec![0.25; n_q * 8], vec![0.5; n_k * 8]);
        let value = vec![3e38; n_k * 5];
        check(&Attention::default(), (&query, &key, &value), [n_q, n_k], f64::from(3e38f32));
        let sinks = [1.0];
        let sinks = Some(View::from_slice("sinks", &sinks, &[1]).unwrap());
        // The sink's share: exp(1) of exp(1) + n_k exp(1 / sqrt(8)).
        let weight = n_k as f64 * (1.0 / 8f64.sqrt()).exp();
        let expected = f64::from(3e38f32) * weight / (weight + 1f64.exp());
        check(&Attention { sinks, ..Attention::default() }, (&query, &key, &value), [n_q, n_k], expected);
        let sparsity_ratio = Some(0.5);
        check(&Attention { sparsity_ratio, ..Attention::default() }, (&query, &key, &value), [n_q, n_k], 3e38);
    }
}

#[test]
fn only_rows_that_overflow_are_computed_again_and_infinite_values_stay() {
    // Row 0 looks at large values, row 1 at an infinite one, row 2 at ordinary ones.
    let query = [40.0f32, 0.0, 0.0, 0.0, 40.0, 0.0, 0.0, 0.0, 40.0];
    let (mut key, mut value) = (vec![0.0f32; 300 * 3], vec![0.0f32; 300]);
    for row in 0..300 {
        key[row * 3 + row % 3] = 40.0;
        value[row] = [3e38, f32::INFINITY, 0.125][row % 3];
    }
    for level in Level::available() {
        let mut out = [f32::NAN; 3];
        let query = View::from_slice("query", &query, &[3, 3]).unwrap();
        let key = View::from_slice("key", &key, &[300, 3]).unwrap();
        let value = View::from_slice("value", &value, &[300, 1]).unwrap();
        let mut view = ViewMut::from_slice("out", &mut out, &[3, 1]).unwrap();
        let mask: Vec<u8> = (0..900).map(|index| u8::from(index / 300 == index % 300 % 3)).collect();
        let mask = Some(super::Mask::Bool(View::from_slice("mask", &mask, &[3, 300]).unwrap()));
        Attention { mask, ..Attention::default() }.run_at(level, &query, &key, &value, &mut view).unwrap();
        assert!((out[0] / 3e38 - 1.0).abs() < 1e-5 && out[1] == f32::INFINITY && out[2] == 0.125, "{out:?}");
    }
}

#[test]
fn products_of_large_queries_and_keys_overflow_only_if_scaled_they_do() {
    for [n_q, n_k] in SIZES {
        // q · k is 8e38, and scaled 8.
        let (query, key): (Vec<f32>, Vec<f32>) = (vec![1e19; n_q * 8], vec![1e19; n_k * 8]);
        let value = vec![0.5; n_k * 3];
        check(&Attention { scale: Some(1e-38), ..Attention::default() }, (&query, &key, &value), [n_q, n_k], 0.5);
    }
}

#[test]
fn what_the_type_of_the_computation_does_not_hold_is_refused() {
    fn refused<T: Element>(attention: &Attention<'_, T>) -> Error {
        let zero = [T::from_real(T::Real::ZERO)];
        let view = View::from_slice("a", &zero, &[1, 1]).unwrap();
        attention.output_shape(&view, &view, &view).unwrap_err()
    }
    let text = refused::<f32>(&Attention { scale: Some(1e39), ..Attention::default() }).to_string();
    assert!(text.starts_with("scale: 1e39 was given, ") && text.contains("float32"), "{text}");
    let text = refused::<half::f16>(&Attention { softcap: 1e39, ..Attention::default() }).to_string();
    assert!(text.starts_with("softcap: 1e39 was given, ") && text.contains("float32"), "{text}");
    assert!(matches!(
        refused::<f64>(&Attention { scale: Some(f64::INFINITY), ..Attention::default() }),
        Error::Range { argument: "scale", .. }
    ));
    let element = [0.0f64];
    let view = View::from_slice("a", &element, &[1, 1]).unwrap();
    assert!(Attention { scale: Some(1e39), softcap: 1e300, ..Attention::default() }.check(&view, &view, &view).is_ok());
}

#[test]
fn scratch_that_no_machine_has_is_an_error_that_says_how_much() {
    // Broadcast keys, of which whole rows of scores are needed.
    let element = [0.0f32; 4];
    let layout = |n: usize| Layout::new("a", &[n, 4], &[0, 1], 4).unwrap();
    let before = [0.75f32; 6 * 4];
    for n_q in [1, 6] {
        // SAFETY: every row is the one that there is.
        let (query, long) = unsafe {
            (View::from_raw(element.as_ptr(), layout(n_q)), View::from_raw(element.as_ptr(), layout(1 << 55)))
        };
        let mut out = before;
        let mut view = ViewMut::from_slice("out", &mut out[..n_q * 4], &[n_q, 4]).unwrap();
        let attention = Attention { sparsity_ratio: Some(0.5), ..Attention::default() };
        let error = attention.run(&query, &long, &long, &mut view).unwrap_err();
        assert!(matches!(error, Error::Memory { bytes } if bytes >= 1 << 57), "{error}");
        assert_eq!(out, before);
    }
}
