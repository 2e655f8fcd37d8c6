//! What all items of a call share, and which rows one of them has.

use std::ops::Range;

use super::options::{Attention, Checked};
use super::shape::Operand;
use crate::arch::{Element, Real};
use crate::view::{Rows, View};

/// Everything that all items of a call share.
#[derive(Debug)]
pub(super) struct Call<'a, T: Element> {
    pub(super) attention: &'a Attention<'a, T>,
    pub(super) checked: &'a Checked,
    pub(super) query: &'a View<'a, T>,
    pub(super) key: &'a View<'a, T>,
    pub(super) value: &'a View<'a, T>,
    pub(super) out: Output<T>,
    pub(super) scale: Scale<T::Real>,
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

/// The scale as two factors, so that products of large queries and keys overflow only if the scaled ones do.
#[derive(Debug, Clone, Copy)]
pub(super) struct Scale<R> {
    /// A power of two, at most 1: queries are multiplied by it, which rounds nothing that does not
    /// become denormal.
    pub(super) query: R,
    /// What is left: products are multiplied by it.
    pub(super) product: R,
}

impl<R: Real> Scale<R> {
    pub(super) fn new(scale: f64) -> Self {
        // The exponent of a float64 that is no denormal; of those the bits of the exponent are 0.
        let exponent = (scale.to_bits() >> 52 & 0x7ff) as i32 - 1023;
        let power = 2f64.powi(exponent.min(0)).max(R::SMALLEST.to_f64());
        Self { query: R::from_f64(power), product: R::from_f64(scale / power) }
    }
}

impl<'a, T: Element> Call<'a, T> {
    /// The queries of one head.
    pub(super) fn queries(&self, batch: usize, head: usize) -> Rows<'a, T> {
        self.rows(self.query, &self.checked.problem.query, batch, head)
    }

    /// Keys and values of one head.
    pub(super) fn keys_and_values(&self, batch: usize, head: usize) -> (Rows<'a, T>, Rows<'a, T>) {
        let problem = &self.checked.problem;
        (self.rows(self.key, &problem.key, batch, head), self.rows(self.value, &problem.value, batch, head))
    }

    fn rows(&self, view: &View<'a, T>, operand: &Operand, batch: usize, head: usize) -> Rows<'a, T> {
        view.matrix_at(self.checked.problem.offset(operand, batch, head))
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
    /// Head and query of each row.
    pub(super) fn rows(&self) -> impl Iterator<Item = (usize, usize)> {
        self.heads.clone().flat_map(|head| self.queries.clone().map(move |query| (head, query)))
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn both_factors_of_a_scale_are_the_scale() {
        for scale in [1.0, -1.0, 0.125, 0.3, -0.3, 3.0, 1e30, 1e-30, 1e-44, 0.0] {
            let Scale { query, product } = Scale::<f32>::new(scale);
            assert!(query <= 1.0 && query.to_bits().trailing_zeros() >= 23, "{query} is no power of two");
            assert_eq!((f64::from(query) * f64::from(product)) as f32, scale as f32);
            assert!(scale == 0.0 || scale.abs() < 1e-37 || (1.0..2.0).contains(&product.abs()) || query == 1.0);
        }
    }
}
