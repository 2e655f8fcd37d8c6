//! One item of work: some rows (heads × queries) of the output against a run of keys.

use std::ops::Range;
use std::sync::{PoisonError, RwLock};

use super::pack::{Block, KEYS, Rows, padded};
use super::product::ROWS;
use super::tile::{Keys, Work};
use super::{Attention, Checked, Operand};
use crate::arch::{Cpu, Element, Lanes, Real, Task};
use crate::view::View;

/// Everything that all items of a call share.
#[derive(Debug)]
pub(super) struct Call<'a, T> {
    pub(super) attention: &'a Attention<'a, T>,
    pub(super) checked: &'a Checked,
    pub(super) query: &'a View<'a, T>,
    pub(super) key: &'a View<'a, T>,
    pub(super) value: &'a View<'a, T>,
    pub(super) out: Output<T>,
    /// Whether what is packed is pairs of bfloat16.
    pub(super) pairs: bool,
}

/// Where the output is.
#[derive(Debug)]
pub(super) struct Output<T> {
    pub(super) first: *mut T,
    pub(super) operand: Operand,
}

// SAFETY: every element is written by one item only, and read by none.
unsafe impl<T: Send> Sync for Output<T> {}

impl<T: Element> Call<'_, T> {
    /// The queries of one head.
    pub(super) fn queries(&self, batch: usize, head: usize) -> Rows<T> {
        self.rows(self.query, &self.checked.problem.query, batch, head)
    }

    /// Keys and values of one head.
    pub(super) fn keys_and_values(&self, batch: usize, head: usize) -> (Rows<T>, Rows<T>) {
        let problem = &self.checked.problem;
        (self.rows(self.key, &problem.key, batch, head), self.rows(self.value, &problem.value, batch, head))
    }

    fn rows(&self, view: &View<'_, T>, operand: &Operand, batch: usize, head: usize) -> Rows<T> {
        Rows {
            first: view.as_ptr().wrapping_offset(self.checked.problem.offset(operand, batch, head)),
            row: operand.row,
            column: operand.column,
            columns: view.shape()[view.shape().len() - 1],
        }
    }
}

/// Which rows: all `queries` of all `heads`, in this order.
#[derive(Debug, Clone)]
pub(super) struct Span {
    pub(super) batch: usize,
    /// The head of key and value that all `heads` use.
    pub(super) kv: usize,
    pub(super) heads: Range<usize>,
    pub(super) queries: Range<usize>,
}

impl Span {
    pub(super) fn len(&self) -> usize {
        self.heads.len() * self.queries.len()
    }

    /// Head and query of each row.
    pub(super) fn rows(&self) -> impl Iterator<Item = (usize, usize)> {
        self.heads.clone().flat_map(|head| self.queries.clone().map(move |query| (head, query)))
    }
}

/// The sums of some rows over some keys, to be combined with those over the other keys.
#[derive(Debug)]
pub(super) struct Partial<R> {
    /// The largest score of each row, -inf if there is none.
    pub(super) tops: Vec<R>,
    /// The sum of `exp(score - top)`.
    pub(super) sums: Vec<R>,
    /// `[row][column]`, the sum of `exp(score - top) * value`, columns padded to whole vectors.
    pub(super) output: Vec<R>,
}

/// Where packed keys and values come from.
#[derive(Debug, Clone, Copy)]
pub(super) enum Blocks<'a, R> {
    /// Packed before, for all items; the list begins with the block of this key.
    Shared(&'a [RwLock<Block<R>>], usize),
    /// Packed here, each when its turn comes, or for at most [`ROWS`] rows not at all. A `sparsity_ratio` goes through
    /// the keys twice, so then there are no more rows than that.
    Own,
}

/// See the module.
#[derive(Debug)]
pub(super) struct Item<'a, T: Element> {
    pub(super) call: &'a Call<'a, T>,
    pub(super) span: Span,
    /// Begins where a block begins.
    pub(super) keys: Range<usize>,
    pub(super) blocks: Blocks<'a, T::Real>,
    /// Where the sums go; without it they are divided and stored in the output.
    pub(super) partial: Option<&'a mut Partial<T::Real>>,
}

impl<T: Element> Task for Item<'_, T> {
    type Output = ();

    #[inline(always)]
    fn run<C: Cpu>(self, cpu: C) {
        let problem = &self.call.checked.problem;
        let rows = self.span.len();
        let packs = matches!(self.blocks, Blocks::Shared(..)) || rows > ROWS;
        let mut work = Work::new(cpu, self.call, &self.span, &self.keys, self.call.pairs && packs);
        let keys = work.keys();
        let first = keys.start / KEYS * KEYS;
        let starts = (first..keys.end).step_by(KEYS);
        let tiles = (0..rows).step_by(ROWS).map(|row| row..(row + ROWS).min(rows));
        match self.blocks {
            Blocks::Own if packs => {
                let (keys, values) = self.call.keys_and_values(self.span.batch, self.span.kv);
                let mut block = Block::new::<C>(problem.d, problem.d_v, self.call.pairs);
                for start in starts {
                    let count = KEYS.min(problem.n_k - start);
                    // SAFETY: these rows are below n_k, and the block was made for this problem.
                    unsafe { block.pack(cpu, (&keys, &values), start, count) };
                    for tile in tiles.clone() {
                        work.attend(cpu, tile, &block, start);
                    }
                }
            }
            Blocks::Own => {
                let (keys, values) = self.call.keys_and_values(self.span.batch, self.span.kv);
                let mut block = Block::new::<C>(0, problem.d_v, false);
                if let Some(keep) = self.call.checked.keep {
                    work.forget_scores();
                    for start in starts.clone() {
                        work.score(cpu, 0..rows, Keys::InPlace(&keys), start, start - first);
                    }
                    work.keep_largest(cpu, 0..rows, keep, first);
                    // The sums so far are 0, which nothing shrinks.
                    work.weigh(cpu, 0..rows, 0..starts.len() * KEYS, false);
                    for start in starts {
                        let factors = [T::Real::ONE; ROWS];
                        work.add_own_values(cpu, (&values, &mut block), start, start - first, factors);
                    }
                } else {
                    for start in starts {
                        let columns = work.score(cpu, 0..rows, Keys::InPlace(&keys), start, 0);
                        if !columns.is_empty() {
                            let factors = work.weigh(cpu, 0..rows, columns, false);
                            work.add_own_values(cpu, (&values, &mut block), start, 0, factors);
                        }
                    }
                }
            }
            Blocks::Shared(blocks, zero) => {
                let block = |start: usize| blocks[(start - zero) / KEYS].read().unwrap_or_else(PoisonError::into_inner);
                if let Some(keep) = self.call.checked.keep {
                    let is_finite = starts.clone().all(|start| block(start).is_finite);
                    for tile in tiles {
                        work.forget_scores();
                        for start in starts.clone() {
                            work.score(cpu, tile.clone(), Keys::Packed(&block(start)), start, start - first);
                        }
                        work.keep_largest(cpu, tile.clone(), keep, first);
                        // The sums so far are 0, which nothing shrinks.
                        work.weigh(cpu, tile.clone(), 0..starts.len() * KEYS, is_finite);
                        for start in starts.clone() {
                            let factors = [T::Real::ONE; ROWS];
                            work.add_values(cpu, tile.clone(), &block(start), start, start - first, factors);
                        }
                    }
                } else {
                    for start in starts {
                        let block = block(start);
                        for tile in tiles.clone() {
                            work.attend(cpu, tile, &block, start);
                        }
                    }
                }
            }
        }
        let Work { tops, sums, output, .. } = work;
        match self.partial {
            Some(partial) => *partial = Partial { tops, sums, output: output.to_vec() },
            None => store(cpu, self.call, &self.span, Sums { tops: &tops, sums: &sums, output: &output }),
        }
    }
}

/// The sums over all keys from those over each run of them, in the order of the runs.
#[derive(Debug)]
pub(super) struct Combine<'a, T: Element> {
    pub(super) call: &'a Call<'a, T>,
    pub(super) span: Span,
    pub(super) partials: &'a [Partial<T::Real>],
}

impl<T: Element> Task for Combine<'_, T> {
    type Output = ();

    #[inline(always)]
    fn run<C: Cpu>(self, cpu: C) {
        let (rows, width) = (self.span.len(), padded::<C, T::Real>(self.call.checked.problem.d_v));
        let mut tops = vec![T::Real::NEG_INFINITY; rows];
        for partial in self.partials {
            for (top, &other) in tops.iter_mut().zip(&partial.tops) {
                *top = if other > *top { other } else { *top };
            }
        }
        let mut sums = vec![T::Real::ZERO; rows];
        let mut output = vec![T::Real::ZERO; rows * width];
        for partial in self.partials {
            for row in 0..rows {
                // A run without a key has a sum of 0 and nothing to add; -inf less -inf would be NaN.
                if partial.tops[row] == T::Real::NEG_INFINITY && partial.sums[row] == T::Real::ZERO {
                    continue;
                }
                let factor = T::Real::from_f64((partial.tops[row].to_f64() - finite(tops[row]).to_f64()).exp());
                sums[row] = sums[row] + partial.sums[row] * factor;
                let columns = row * width..(row + 1) * width;
                for (sum, &part) in output[columns.clone()].iter_mut().zip(&partial.output[columns]) {
                    *sum = *sum + part * factor;
                }
            }
        }
        store(cpu, self.call, &self.span, Sums { tops: &tops, sums: &sums, output: &output });
    }
}

/// What scores are compared with: `top`, or 0 while no score is above -inf.
#[inline(always)]
pub(super) fn finite<R: Real>(top: R) -> R {
    if top == R::NEG_INFINITY { R::ZERO } else { top }
}

/// As in [`Partial`], over all keys.
struct Sums<'a, R> {
    tops: &'a [R],
    sums: &'a [R],
    output: &'a [R],
}

/// Divides by the denominators, sinks included, and stores the rows in the call's output.
#[inline(always)]
fn store<C: Cpu, T: Element>(cpu: C, call: &Call<'_, T>, span: &Span, rows: Sums<'_, T::Real>) {
    let Sums { tops, sums, output } = rows;
    let lanes = T::Real::lanes(cpu);
    let (n, problem, operand) = (<T::Real as Real>::Lanes::<C>::N, &call.checked.problem, &call.out.operand);
    let width = padded::<C, T::Real>(problem.d_v);
    for (index, (head, query)) in span.rows().enumerate() {
        let factor = if sums[index] == T::Real::ZERO {
            T::Real::ZERO
        } else if let Some(sinks) = &call.attention.sinks {
            // SAFETY: there is one sink for each head of the query.
            let sink = unsafe { *sinks.as_ptr().offset(head as isize * call.checked.sink_stride) }.to_real().to_f64();
            let top = tops[index].to_f64();
            let common = if sink > top { sink } else { top };
            let share = (top - common).exp();
            T::Real::from_f64(share / (sums[index].to_f64() * share + (sink - common).exp()))
        } else {
            T::Real::ONE / sums[index]
        };
        let factor = lanes.splat(factor);
        let to = problem.offset(operand, span.batch, head) + query as isize * operand.row;
        for column in (0..problem.d_v).step_by(n) {
            let count = (problem.d_v - column).min(n);
            // SAFETY: `output` has whole vectors, and the output was checked to have these rows and columns, which no
            // other item writes.
            unsafe {
                let vector = lanes.mul(lanes.load(output[index * width + column..][..n].as_ptr()), factor);
                let to = call.out.first.offset(to + column as isize * operand.column);
                if operand.column == 1 || count == 1 {
                    T::store_first(cpu, to, count, vector);
                } else {
                    let mut line = [T::NULL; 16];
                    T::store(cpu, line.as_mut_ptr(), vector);
                    for (lane, &element) in line.iter().enumerate().take(count) {
                        *to.offset(lane as isize * operand.column) = element;
                    }
                }
            }
        }
    }
}
