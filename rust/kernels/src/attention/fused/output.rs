//! From the sums of an item to rows of the result: parts over runs of keys are combined, denominators divide, sinks among
//! them.

use super::call::Span;
use super::softmax::finite;
use super::work::Work;
use crate::arch::{Cpu, Element, Lanes, Real, WIDEST};
use crate::product::padded;

/// The sums of some rows over a run of keys, to be combined with those over the others.
#[derive(Debug)]
pub(super) struct Part<'a, R> {
    /// The largest score of each row, -inf if there is none.
    tops: &'a mut [R],
    /// The sum of `exp(score - top)`.
    sums: &'a mut [R],
    /// `[row][column]`, the sum of `exp(score - top) * value`, columns padded to whole vectors.
    output: &'a mut [R],
}

impl<'a, R: Real> Part<'a, R> {
    /// How many elements a part of so many rows has.
    pub(super) fn len(rows: usize, width: usize) -> usize {
        rows.saturating_mul(width.saturating_add(2))
    }

    /// In memory of that length.
    pub(super) fn new(memory: &'a mut [R], rows: usize) -> Self {
        let (tops, rest) = memory.split_at_mut(rows);
        let (sums, output) = rest.split_at_mut(rows);
        Self { tops, sums, output }
    }
}

impl<T: Element> Work<'_, T> {
    /// Keeps the sums for later.
    pub(super) fn save(&self, part: &mut Part<'_, T::Real>) {
        part.tops.copy_from_slice(&self.tops);
        part.sums.copy_from_slice(&self.sums);
        part.output.copy_from_slice(&self.output[..part.output.len()]);
    }

    /// The sums over all keys from those over each run of them, in the order of the runs.
    #[inline(always)]
    pub(super) fn combine<C: Cpu>(&mut self, parts: &[Part<'_, T::Real>]) {
        let width = padded::<C, T::Real>(self.call.checked.problem.d_v);
        for part in parts {
            for (top, &other) in self.tops.iter_mut().zip(&*part.tops) {
                *top = if other > *top { other } else { *top };
            }
        }
        for part in parts {
            for row in 0..self.rows.len() {
                // A run without a key has a sum of 0 and nothing to add; -inf less -inf would be NaN.
                if part.tops[row] == T::Real::NEG_INFINITY && part.sums[row] == T::Real::ZERO {
                    continue;
                }
                let factor = T::Real::from_f64((part.tops[row].to_f64() - finite(self.tops[row]).to_f64()).exp());
                self.sums[row] = self.sums[row] + part.sums[row] * factor;
                let columns = row * width..(row + 1) * width;
                for (sum, &addend) in self.output[columns.clone()].iter_mut().zip(&part.output[columns]) {
                    *sum = *sum + addend * factor;
                }
            }
        }
    }

    /// The natural logarithm of what weights `exp(score - top)` of a row are divided by, and the top.
    fn log_denominator(&self, row: usize, sink: Option<f64>) -> f64 {
        let (top, sum) = (self.tops[row].to_f64(), self.sums[row].to_f64());
        let sink = sink.unwrap_or(f64::NEG_INFINITY);
        let common = top.max(sink);
        common + (sum * (top - common).exp() + (sink - common).exp()).ln()
    }

    /// Notes the sums that are not finite though what they are made of may be, and says whether there are any: a mean of
    /// large values is no larger than they are, but their sum is.
    #[inline(always)]
    pub(super) fn has_overflowed<C: Cpu>(&mut self, cpu: C) -> bool {
        let lanes = T::Real::lanes(cpu);
        let n = <T::Real as Real>::Lanes::<C>::N;
        let width = padded::<C, T::Real>(self.call.checked.problem.d_v);
        self.overflowed.clear();
        for row in 0..self.rows.len() {
            let mut trace = lanes.splat(T::Real::ZERO);
            for sums in self.output[row * width..][..width].chunks_exact(n) {
                // SAFETY: the chunk is a whole vector.
                trace = lanes.fma(unsafe { lanes.load(sums.as_ptr()) }, lanes.splat(T::Real::ZERO), trace);
            }
            let is_ordinary = self.sums[row].to_f64().is_finite() && self.tops[row].to_f64().is_finite();
            if lanes.sum(trace) != T::Real::ZERO && is_ordinary {
                self.overflowed.resize(self.rows.len() * width, false);
                let row = row * width..(row + 1) * width;
                for (overflowed, sum) in self.overflowed[row.clone()].iter_mut().zip(&self.output[row]) {
                    *overflowed = !sum.to_f64().is_finite();
                }
            }
        }
        !self.overflowed.is_empty()
    }

    /// Begins anew with what all weights will be divided by known, so that they are at most 1 in all and no sum of
    /// weighted values is larger than the largest value.
    pub(super) fn begin_divided<C: Cpu>(&mut self, span: &Span) {
        for (row, (head, _)) in span.rows().enumerate() {
            self.tops[row] = T::Real::from_f64(self.log_denominator(row, self.sink(head)));
        }
        self.forget_sums(padded::<C, T::Real>(self.call.checked.problem.d_v));
    }

    fn sink(&self, head: usize) -> Option<f64> {
        let sinks = self.call.attention.sinks.as_ref()?;
        // SAFETY: there is one sink for each head of the query.
        let sink = unsafe { sinks.as_ptr().offset(head as isize * self.call.checked.sink_stride).read() };
        Some(sink.to_real().to_f64())
    }

    /// What a row's sums are multiplied by.
    fn factor(&self, row: usize, head: usize) -> T::Real {
        let (top, sum) = (self.tops[row].to_f64(), self.sums[row]);
        if sum == T::Real::ZERO {
            T::Real::ZERO
        } else if let Some(sink) = self.sink(head) {
            let common = if sink > top { sink } else { top };
            let share = (top - common).exp();
            T::Real::from_f64(share / (sum.to_f64() * share + (sink - common).exp()))
        } else {
            T::Real::ONE / sum
        }
    }

    /// Stores the rows in the call's output, divided.
    #[inline(always)]
    pub(super) fn store<C: Cpu>(&self, cpu: C, span: &Span) {
        let (lanes, call) = (T::Real::lanes(cpu), self.call);
        let (n, problem, operand) = (<T::Real as Real>::Lanes::<C>::N, &call.checked.problem, &call.out.operand);
        let width = padded::<C, T::Real>(problem.d_v);
        for (row, (head, query)) in span.rows().enumerate() {
            let factor = lanes.splat(self.factor(row, head));
            let to = problem.offset(operand, span.batch, head) + query as isize * operand.row;
            for column in (0..problem.d_v).step_by(n) {
                let count = (problem.d_v - column).min(n);
                // SAFETY: `output` has whole vectors, and the output was checked to have these rows and columns, which no
                // other item writes.
                unsafe {
                    let vector = lanes.mul(lanes.load(self.output[row * width + column..][..n].as_ptr()), factor);
                    let to = call.out.first.offset(to + column as isize * operand.column);
                    if operand.column == 1 || count == 1 {
                        T::store_first(cpu, to, count, vector);
                    } else {
                        let mut line = [T::NULL; WIDEST];
                        T::store(cpu, line.as_mut_ptr(), vector);
                        for (lane, &element) in line.iter().enumerate().take(count) {
                            *to.offset(lane as isize * operand.column) = element;
                        }
                    }
                }
            }
        }
    }

    /// Stores what had overflowed and has been computed again, divided. All other elements stay as they are.
    pub(super) fn store_again<C: Cpu>(&self, span: &Span) {
        let (problem, operand) = (&self.call.checked.problem, &self.call.out.operand);
        let width = padded::<C, T::Real>(problem.d_v);
        for (row, (head, query)) in span.rows().enumerate() {
            let to = problem.offset(operand, span.batch, head) + query as isize * operand.row;
            for column in (0..problem.d_v).filter(|column| self.overflowed[row * width + column]) {
                let element = T::from_real(self.output[row * width + column]);
                // SAFETY: the output was checked to have these rows and columns, which no other item writes.
                unsafe { *self.call.out.first.offset(to + column as isize * operand.column) = element };
            }
        }
    }
}
