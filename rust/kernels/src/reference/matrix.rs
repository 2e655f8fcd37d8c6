//! The twin of attention on a given matrix: sorts every row, in float64.

use std::cmp::Ordering;

use crate::arch::{Element, Real};
use crate::attention::{Align, MatrixAttention, Normalization, WindowSize};

/// Which entries of a C-contiguous matrix `[n_q, n_k]` are kept, and what every entry becomes.
///
/// The parameters are taken to be in range.
pub fn matrix_attention<T: Element>(
    options: &MatrixAttention,
    matrix: &[T],
    [n_q, n_k]: [usize; 2],
) -> (Vec<bool>, Vec<f64>) {
    let entries: Vec<f64> = matrix.iter().map(|entry| entry.to_real().to_f64()).collect();
    let (mut all_kept, mut result) = (vec![false; n_q * n_k], vec![0.0; n_q * n_k]);
    for query in 0..n_q {
        let row = &entries[query * n_k..][..n_k];
        let mut order: Vec<usize> = (0..n_k).filter(|&key| allowed(options, query, key, [n_q, n_k])).collect();
        if let Some(ratio) = options.sparsity_ratio {
            // Stable: ties stay in the order of their indices.
            order.sort_by(|&a, &b| largest_first(row[a], row[b]));
            let dropped = (ratio * n_k as f64 + 1e-9).floor() as usize;
            order.truncate((n_k - dropped).max(1));
        }
        let kept: Vec<f64> = order.iter().map(|&key| row[key]).collect();
        let processed = normalize(options, &kept);
        for (key, entry) in order.into_iter().zip(processed) {
            all_kept[query * n_k + key] = true;
            result[query * n_k + key] = entry;
        }
    }
    (all_kept, result)
}

/// Descending; NaN first, zeros equal.
fn largest_first(a: f64, b: f64) -> Ordering {
    b.partial_cmp(&a).unwrap_or_else(|| b.is_nan().cmp(&a.is_nan()))
}

fn allowed(options: &MatrixAttention, query: usize, key: usize, [n_q, n_k]: [usize; 2]) -> bool {
    let shift = if options.align == Align::BottomRight { n_k as i128 - n_q as i128 } else { 0 };
    let (position, key) = (query as i128 + shift, key as i128);
    let (left, right) = match options.window_size {
        WindowSize::Unbounded => (-1, -1),
        WindowSize::Keys(width) if options.is_causal => (width - 1, 0),
        WindowSize::Keys(width) => (width / 2, width / 2),
        WindowSize::Pair(left, right) => (left, right),
    };
    (left == -1 || position - i128::from(left) <= key)
        && (right == -1 || key <= position + i128::from(right))
        && (!options.is_causal || key <= position)
}

fn normalize(options: &MatrixAttention, kept: &[f64]) -> Vec<f64> {
    let divided = |terms: Vec<f64>| {
        let sum: f64 = terms.iter().sum();
        terms.into_iter().map(|term| if sum == 0.0 { 0.0 } else { term / sum }).collect()
    };
    match options.normalization {
        Normalization::None => kept.to_vec(),
        Normalization::Sum => divided(kept.to_vec()),
        Normalization::Softmax => {
            let most = kept.iter().copied().fold(f64::NEG_INFINITY, f64::max);
            let most = if most == f64::NEG_INFINITY { 0.0 } else { most };
            divided(kept.iter().map(|entry| ((entry - most) / options.temperature).exp()).collect())
        }
    }
}
