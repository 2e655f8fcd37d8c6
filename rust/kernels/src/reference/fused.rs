//! Fused attention, element by element in float64, in the order in which it is defined.

use crate::Result;
use crate::arch::{Element, Real};
use crate::attention::{Attention, Checked, Mask, Operand};
use crate::view::View;

/// One row of the result, and what its rounding error is measured against.
#[derive(Debug, Clone, PartialEq)]
pub struct AttentionRow {
    /// `[d_v]`.
    pub output: Vec<f64>,
    /// The largest `|scale| · ‖q‖ · ‖k‖` of the keys that take part.
    pub sharpness: f64,
    /// The largest magnitude in the values that take part.
    pub largest: f64,
    /// By how much the smallest score that top-k keeps is above the largest one that it drops; infinite if it drops none.
    pub margin: f64,
}

/// What [`Attention::run`] computes: the rows of `[..., h_q, n_q]` in C order.
pub fn attention<T: Element>(
    attention: &Attention<'_, T>,
    query: &View<'_, T>,
    key: &View<'_, T>,
    value: &View<'_, T>,
) -> Result<Vec<AttentionRow>> {
    let checked = attention.check(query, key, value)?;
    let problem = &checked.problem;
    let mut rows = Vec::new();
    for batch in 0..problem.batches() {
        for head in 0..problem.h_q {
            let kv = head / problem.group();
            for i in 0..problem.n_q {
                // SAFETY: in `read`, every operand was checked against its own view's shape, and the indices are below
                // the lengths of the axes.
                let read = |view: &View<'_, T>, operand: &Operand, head: usize, row: usize, column: usize| unsafe {
                    let offset = problem.offset(operand, batch, head);
                    let offset = offset + row as isize * operand.row + column as isize * operand.column;
                    (*view.as_ptr().offset(offset)).to_real().to_f64()
                };
                let q = |c| read(query, &problem.query, head, i, c);
                let k = |j, c| read(key, &problem.key, kv, j, c);
                let v = |j, c| read(value, &problem.value, kv, j, c);
                let bias = |j| mask_bias(attention, &checked, batch, head, i, j);
                let sink = attention.sinks.as_ref().map(|sinks| {
                    // SAFETY: there is one sink for each head.
                    unsafe { (*sinks.as_ptr().offset(head as isize * checked.sink_stride)).to_real().to_f64() }
                });
                rows.push(row(&checked, i, q, k, v, bias, sink));
            }
        }
    }
    Ok(rows)
}

/// What the mask adds to a score: -inf takes the key out.
pub(crate) fn mask_bias<T: Element>(
    attention: &Attention<'_, T>,
    checked: &Checked,
    batch: usize,
    head: usize,
    i: usize,
    j: usize,
) -> f64 {
    let Some(operand) = &checked.mask else { return 0.0 };
    let offset = checked.problem.offset(operand, batch, head) + i as isize * operand.row + j as isize * operand.column;
    match &attention.mask {
        // SAFETY: the operand was checked against this mask's shape, and the indices are within it.
        Some(Mask::Bool(mask)) if unsafe { *mask.as_ptr().offset(offset) } == 0 => f64::NEG_INFINITY,
        // SAFETY: as above.
        Some(Mask::Float(mask)) => unsafe { (*mask.as_ptr().offset(offset)).to_real().to_f64() },
        _ => 0.0,
    }
}

fn row(
    checked: &Checked,
    i: usize,
    q: impl Fn(usize) -> f64,
    k: impl Fn(usize, usize) -> f64,
    v: impl Fn(usize, usize) -> f64,
    bias: impl Fn(usize) -> f64,
    sink: Option<f64>,
) -> AttentionRow {
    let problem = &checked.problem;
    let mut scores = Vec::new();
    for j in checked.band.keys(i) {
        let score = checked.scale * (0..problem.d).map(|c| q(c) * k(j, c)).sum::<f64>();
        let score = checked.softcap.map_or(score, |cap| cap * (score / cap).tanh());
        let bias = bias(j);
        if bias != f64::NEG_INFINITY {
            scores.push((j, score + bias));
        }
    }
    let mut margin = f64::INFINITY;
    if let Some(keep) = checked.keep {
        // NaN counts as the largest, ties go to the lower index: a stable sort, descending.
        let order = |score: f64| if score.is_nan() { f64::INFINITY } else { score };
        scores
            .sort_by(|a, b| (b.1.is_nan(), order(b.1)).partial_cmp(&(a.1.is_nan(), order(a.1))).expect("no NaN left"));
        if let [.., kept] = scores[..keep.min(scores.len())]
            && let Some(dropped) = scores.get(keep)
        {
            margin = kept.1 - dropped.1;
        }
        scores.truncate(keep);
        scores.sort_by_key(|&(j, _)| j);
    }
    scores.retain(|&(_, score)| score != f64::NEG_INFINITY);
    let mut output = vec![0.0; problem.d_v];
    let (mut sharpness, mut largest) = (0.0f64, 0.0f64);
    if !scores.is_empty() {
        let top = scores.iter().map(|&(_, score)| score).chain(sink).fold(f64::NEG_INFINITY, f64::max);
        let weights: Vec<f64> = scores.iter().map(|&(_, score)| (score - top).exp()).collect();
        let sum = weights.iter().sum::<f64>() + sink.map_or(0.0, |sink| (sink - top).exp());
        let norm = |element: &dyn Fn(usize) -> f64| (0..problem.d).map(|c| element(c).powi(2)).sum::<f64>().sqrt();
        let query = norm(&q);
        for (&(j, _), weight) in scores.iter().zip(&weights) {
            for (c, output) in output.iter_mut().enumerate() {
                *output += weight / sum * v(j, c);
                largest = largest.max(v(j, c).abs());
            }
            sharpness = sharpness.max(checked.scale.abs() * query * norm(&|c| k(j, c)));
        }
    }
    AttentionRow { output, sharpness, largest, margin }
}
