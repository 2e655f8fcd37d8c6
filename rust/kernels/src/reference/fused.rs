//! Fused attention, element by element in float64, in the order in which it is defined.

use crate::arch::{Element, Real};
use crate::attention::{Align, Attention, Mask, Window};
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

/// The sizes of a call.
struct Sizes {
    /// Leading axes, broadcast.
    leading: Vec<usize>,
    h_q: usize,
    h_kv: usize,
    n_q: usize,
    n_k: usize,
    d: usize,
    d_v: usize,
}

impl Sizes {
    /// Of shapes that fit.
    fn new(query: &[usize], key: &[usize], value: &[usize]) -> Self {
        let axis = |shape: &[usize], back: usize| shape.len().checked_sub(back).map_or(1, |axis| shape[axis]);
        let rank = query.len().max(key.len()).max(value.len()).max(3);
        let leading = (4..=rank).rev().map(|back| {
            let lengths = [query, key, value].map(|shape| axis(shape, back));
            // An axis of length 1 is repeated, also no times.
            lengths.into_iter().find(|&length| length != 1).unwrap_or(1)
        });
        Self {
            leading: leading.collect(),
            h_q: axis(query, 3),
            h_kv: axis(key, 3),
            n_q: axis(query, 2),
            n_k: axis(key, 2),
            d: axis(query, 1),
            d_v: axis(value, 1),
        }
    }

    /// Every index of the leading axes, in C order.
    fn batches(&self) -> Vec<Vec<usize>> {
        self.leading.iter().fold(vec![Vec::new()], |indexes, &length| {
            indexes.iter().flat_map(|index| (0..length).map(move |last| [&index[..], &[last]].concat())).collect()
        })
    }
}

/// The element at an index of as many axes as the view has, or of more in front; an axis of length 1 is repeated.
fn element<T: Copy>(view: &View<'_, T>, index: &[usize]) -> T {
    let (shape, strides) = (view.shape(), view.layout().strides());
    let mut offset = 0;
    for (axis, &index) in (0..shape.len()).rev().zip(index.iter().rev()) {
        assert!(shape[axis] == 1 || index < shape[axis], "an index outside of the twin's input");
        offset += if shape[axis] == 1 { 0 } else { index as isize * strides[axis] };
    }
    // SAFETY: the index is within the shape, and `View` promises every offset of its layout.
    unsafe { view.as_ptr().offset(offset).read() }
}

fn number<T: Element>(view: &View<'_, T>, batch: &[usize], last: [usize; 3]) -> f64 {
    element(view, &[batch, &last].concat()).to_real().to_f64()
}

/// Whether the window allows the key to the query.
fn is_near(window: Window, align: Align, sizes: &Sizes, query: usize, key: usize) -> bool {
    let shift = if align == Align::BottomRight { sizes.n_k as i128 - sizes.n_q as i128 } else { 0 };
    let distance = key as i128 - (query as i128 + shift);
    window.left.is_none_or(|left| -distance <= left as i128)
        && window.right.is_none_or(|right| distance <= right as i128)
}

/// What the mask adds to a score: -inf takes the key out.
fn bias<T: Element>(attention: &Attention<'_, T>, batch: &[usize], [head, query, key]: [usize; 3]) -> f64 {
    match &attention.mask {
        None => 0.0,
        Some(Mask::Bool(mask)) if element(mask, &[batch, &[head, query, key]].concat()) == 0 => f64::NEG_INFINITY,
        Some(Mask::Bool(_)) => 0.0,
        Some(Mask::Float(mask)) => number(mask, batch, [head, query, key]),
    }
}

/// Whether window and mask allow the key `j` to any query of the head `kv` of key and value.
#[cfg(test)]
pub(crate) fn takes_part<T: Element>(
    attention: &Attention<'_, T>,
    shapes: [&[usize]; 3],
    batch: usize,
    kv: usize,
    j: usize,
) -> bool {
    let sizes = Sizes::new(shapes[0], shapes[1], shapes[2]);
    let (batch, group) = (&sizes.batches()[batch], sizes.h_q / sizes.h_kv);
    (kv * group..(kv + 1) * group).any(|head| {
        (0..sizes.n_q).any(|i| {
            is_near(attention.window, attention.align, &sizes, i, j)
                && bias(attention, batch, [head, i, j]) != f64::NEG_INFINITY
        })
    })
}

/// What [`Attention::run`] computes: the rows of `[..., h_q, n_q]` in C order. Everything is taken to fit.
pub fn attention<T: Element>(
    attention: &Attention<'_, T>,
    query: &View<'_, T>,
    key: &View<'_, T>,
    value: &View<'_, T>,
) -> Vec<AttentionRow> {
    let sizes = Sizes::new(query.shape(), key.shape(), value.shape());
    let mut rows = Vec::new();
    for batch in sizes.batches() {
        for head in 0..sizes.h_q {
            let kv = head * sizes.h_kv / sizes.h_q;
            for i in 0..sizes.n_q {
                let q = |c| number(query, &batch, [head, i, c]);
                let k = |j, c| number(key, &batch, [kv, j, c]);
                let v = |j, c| number(value, &batch, [kv, j, c]);
                let near = (0..sizes.n_k).filter(|&j| is_near(attention.window, attention.align, &sizes, i, j));
                let allowed: Vec<(usize, f64)> = near
                    .map(|j| (j, bias(attention, &batch, [head, i, j])))
                    .filter(|&(_, bias)| bias != f64::NEG_INFINITY)
                    .collect();
                let sink = attention.sinks.as_ref().map(|sinks| element(sinks, &[head]).to_real().to_f64());
                rows.push(row(attention, &sizes, allowed, (q, k, v), sink));
            }
        }
    }
    rows
}

/// One row, from the keys that are allowed and what the mask adds to their scores.
fn row<T: Element>(
    attention: &Attention<'_, T>,
    sizes: &Sizes,
    allowed: Vec<(usize, f64)>,
    (q, k, v): (impl Fn(usize) -> f64, impl Fn(usize, usize) -> f64, impl Fn(usize, usize) -> f64),
    sink: Option<f64>,
) -> AttentionRow {
    let scale = attention.scale.unwrap_or_else(|| 1.0 / (sizes.d.max(1) as f64).sqrt());
    let mut scores: Vec<(usize, f64)> = allowed
        .into_iter()
        .map(|(j, bias)| {
            let score = scale * (0..sizes.d).map(|c| q(c) * k(j, c)).sum::<f64>();
            let cap = attention.softcap;
            (j, bias + if cap == 0.0 { score } else { cap * (score / cap).tanh() })
        })
        .collect();
    let mut margin = f64::INFINITY;
    if let Some(ratio) = attention.sparsity_ratio {
        let dropped = (ratio * sizes.n_k as f64 + 1e-9).floor() as usize;
        let keep = (sizes.n_k - dropped).max(1);
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
    let mut output = vec![0.0; sizes.d_v];
    let (mut sharpness, mut largest) = (0.0f64, 0.0f64);
    if !scores.is_empty() {
        let top = scores.iter().map(|&(_, score)| score).chain(sink).fold(f64::NEG_INFINITY, f64::max);
        let weights: Vec<f64> = scores.iter().map(|&(_, score)| (score - top).exp()).collect();
        let sum = weights.iter().sum::<f64>() + sink.map_or(0.0, |sink| (sink - top).exp());
        let norm = |element: &dyn Fn(usize) -> f64| (0..sizes.d).map(|c| element(c).powi(2)).sum::<f64>().sqrt();
        let query = norm(&q);
        for (&(j, _), weight) in scores.iter().zip(&weights) {
            for (c, output) in output.iter_mut().enumerate() {
                *output += weight / sum * v(j, c);
                largest = largest.max(v(j, c).abs());
            }
            sharpness = sharpness.max(scale.abs() * query * norm(&|c| k(j, c)));
        }
    }
    AttentionRow { output, sharpness, largest, margin }
}
