//! How query, key, value, mask, sinks and output fit together: every axis is checked here, once.

use crate::view::Layout;
use crate::{Error, Result};

/// One array as `[leading axes…, heads, rows, columns]`; the stride of an axis that is broadcast is 0.
#[derive(Debug, Clone)]
pub(super) struct Operand {
    leading: Vec<isize>,
    head: isize,
    /// Elements from one row to the next.
    pub(super) row: isize,
    /// Elements from one column to the next.
    pub(super) column: isize,
}

/// The sizes of a call, and where each of its matrices begins.
#[derive(Debug, Clone)]
pub(super) struct Problem {
    /// The leading axes of the output: those of all inputs, broadcast.
    leading: Vec<usize>,
    /// Heads of the query, and of the output.
    pub(super) h_q: usize,
    /// Heads of key and value.
    pub(super) h_kv: usize,
    pub(super) n_q: usize,
    pub(super) n_k: usize,
    pub(super) d: usize,
    pub(super) d_v: usize,
    /// The rank that the output has: heads and leading axes may be absent.
    rank: usize,
    pub(super) query: Operand,
    pub(super) key: Operand,
    pub(super) value: Operand,
}

/// A layout with axes of length 1 in front, to a common rank.
struct Padded<'a> {
    layout: &'a Layout,
    missing: usize,
}

impl<'a> Padded<'a> {
    fn new(layout: &'a Layout, rank: usize) -> Self {
        Self { layout, missing: rank - layout.shape().len() }
    }

    fn length(&self, axis: usize) -> usize {
        axis.checked_sub(self.missing).map_or(1, |axis| self.layout.shape()[axis])
    }

    /// 0 where the axis has length 1 (it may be broadcast).
    fn stride(&self, axis: usize) -> isize {
        if self.length(axis) == 1 { 0 } else { self.layout.strides()[axis - self.missing] }
    }

    fn operand(&self) -> Operand {
        let axes = self.missing + self.layout.shape().len();
        Operand {
            leading: (0..axes - 3).map(|axis| self.stride(axis)).collect(),
            head: self.stride(axes - 3),
            row: self.stride(axes - 2),
            column: self.stride(axes - 1),
        }
    }
}

impl Problem {
    /// Checks the shapes of the three inputs against each other.
    pub(super) fn new(query: &Layout, key: &Layout, value: &Layout) -> Result<Self> {
        let inputs = [("query", query), ("key", key), ("value", value)];
        for (argument, layout) in inputs {
            if layout.shape().len() < 2 {
                let allowed = "at least 2 axes ([n, d], or with heads and leading axes [..., heads, n, d])";
                return Err(Error::Rank { argument, given: layout.shape().len(), allowed });
            }
        }
        let rank = inputs.iter().map(|(_, layout)| layout.shape().len()).max().unwrap_or(2);
        let axes = rank.max(3);
        let [q, k, v] = [query, key, value].map(|layout| Padded::new(layout, axes));
        let wrong = |argument, layout: &Layout, allowed| {
            Err(Error::Shape { argument, given: layout.shape().to_vec(), allowed })
        };
        let [h_q, n_q, d] = [q.length(axes - 3), q.length(axes - 2), q.length(axes - 1)];
        let [h_kv, n_k, d_v] = [k.length(axes - 3), k.length(axes - 2), v.length(axes - 1)];
        if k.length(axes - 1) != d {
            return wrong("key", key, format!("a last axis of {d}, as query's"));
        }
        if v.length(axes - 2) != n_k {
            return wrong("value", value, format!("{n_k} rows, as key's"));
        }
        if v.length(axes - 3) != h_kv {
            return wrong("value", value, format!("{h_kv} heads, as key's"));
        }
        if h_kv == 0 && h_q != 0 || h_kv != 0 && h_q % h_kv != 0 {
            return wrong("key", key, format!("a number of heads that divides query's {h_q}"));
        }
        let mut leading = vec![1usize; axes - 3];
        for (argument, layout, padded) in [("query", query, &q), ("key", key, &k), ("value", value, &v)] {
            for (axis, common) in leading.iter_mut().enumerate() {
                match (*common, padded.length(axis)) {
                    (1, length) => *common = length,
                    (common, length) if length == 1 || length == common => {}
                    _ => return wrong(argument, layout, "leading axes that broadcast with the others'".to_owned()),
                }
            }
        }
        let [query, key, value] = [q, k, v].map(|padded| padded.operand());
        Ok(Self { leading, h_q, h_kv, n_q, n_k, d, d_v, rank, query, key, value })
    }

    /// The shape of the output: `[..., h_q, n_q, d_v]`, with as many axes as the input that has the most.
    pub(super) fn output_shape(&self) -> Vec<usize> {
        let all = self.leading.iter().copied().chain([self.h_q, self.n_q, self.d_v]);
        all.skip(self.leading.len() + 3 - self.rank).collect()
    }

    /// The output's strides.
    pub(super) fn output(&self, out: &Layout) -> Result<Operand> {
        let shape = self.output_shape();
        if out.shape() != shape {
            return Err(Error::Shape { argument: "out", given: out.shape().to_vec(), allowed: format!("{shape:?}") });
        }
        Ok(Padded::new(out, self.leading.len() + 3).operand())
    }

    /// The mask's strides: it broadcasts to `[..., h_q, n_q, n_k]`.
    pub(super) fn mask(&self, mask: &Layout) -> Result<Operand> {
        let whole: Vec<usize> = self.leading.iter().copied().chain([self.h_q, self.n_q, self.n_k]).collect();
        let fits = mask.shape().len() <= self.rank
            && mask.shape().iter().rev().zip(whole.iter().rev()).all(|(&given, &needed)| given == 1 || given == needed);
        if !fits {
            let whole = &whole[whole.len() - self.rank..];
            let allowed = format!("a shape that broadcasts to {whole:?}");
            return Err(Error::Shape { argument: "attn_mask", given: mask.shape().to_vec(), allowed });
        }
        Ok(Padded::new(mask, whole.len()).operand())
    }

    /// The step from one head's sink to the next.
    pub(super) fn sinks(&self, sinks: &Layout) -> Result<isize> {
        if sinks.shape() != [self.h_q] {
            let (given, allowed) = (sinks.shape().to_vec(), format!("[{}], one for each head of query", self.h_q));
            return Err(Error::Shape { argument: "sinks", given, allowed });
        }
        Ok(sinks.strides()[0])
    }

    /// How many times the heads are repeated: the number of elements of the leading axes.
    pub(super) fn batches(&self) -> usize {
        self.leading.iter().product()
    }

    /// How many heads of the query share a head of key and value.
    pub(super) fn group(&self) -> usize {
        self.h_q.checked_div(self.h_kv).unwrap_or(0)
    }

    /// The offset of an operand's matrix, for a batch (counted in C order) and one of the operand's own heads.
    pub(super) fn offset(&self, operand: &Operand, batch: usize, head: usize) -> isize {
        let mut rest = batch;
        let mut offset = head as isize * operand.head;
        for (&length, &stride) in self.leading.iter().zip(&operand.leading).rev() {
            offset += (rest % length) as isize * stride;
            rest /= length;
        }
        offset
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    fn contiguous(shape: &[usize]) -> Layout {
        Layout::contiguous("a", shape, 4).unwrap()
    }

    fn problem(query: &[usize], key: &[usize], value: &[usize]) -> Result<Problem> {
        Problem::new(&contiguous(query), &contiguous(key), &contiguous(value))
    }

    #[test]
    fn the_output_has_the_axes_of_the_input_that_has_the_most() {
        assert_eq!(problem(&[4, 8], &[5, 8], &[5, 3]).unwrap().output_shape(), [4, 3]);
        assert_eq!(problem(&[6, 4, 8], &[2, 5, 8], &[2, 5, 3]).unwrap().output_shape(), [6, 4, 3]);
        assert_eq!(problem(&[6, 4, 8], &[5, 8], &[5, 3]).unwrap().output_shape(), [6, 4, 3]);
        let broadcast = problem(&[7, 1, 6, 4, 8], &[3, 2, 5, 8], &[1, 2, 5, 3]).unwrap();
        assert_eq!(broadcast.output_shape(), [7, 3, 6, 4, 3]);
        assert_eq!((broadcast.batches(), broadcast.group()), (21, 3));
    }

    #[test]
    fn a_batch_is_found_in_operands_that_are_broadcast() {
        let problem = problem(&[7, 1, 6, 4, 8], &[3, 2, 5, 8], &[1, 2, 5, 3]).unwrap();
        // Batch 4 of [7, 3] is (1, 1).
        assert_eq!(problem.offset(&problem.query, 4, 2), 6 * 4 * 8 + 2 * 4 * 8);
        assert_eq!(problem.offset(&problem.key, 4, 1), 2 * 5 * 8 + 5 * 8);
        assert_eq!(problem.offset(&problem.value, 4, 1), 5 * 3);
    }

    #[test]
    fn matrices_beyond_2_to_the_32_elements_are_found() {
        let problem = problem(&[3, 8, 1 << 30, 8], &[3, 2, 1 << 33, 8], &[3, 2, 1 << 33, 8]).unwrap();
        assert_eq!(problem.offset(&problem.query, 2, 7), (2 * 8 + 7) << 33);
        assert_eq!(problem.offset(&problem.key, 2, 1), (2 * 2 + 1) << 36);
    }

    #[test]
    fn what_does_not_fit_is_refused_by_name() {
        let named = |result: Result<Problem>| match result.unwrap_err() {
            Error::Shape { argument, .. } | Error::Rank { argument, .. } => argument,
            other => panic!("{other}"),
        };
        assert_eq!(named(problem(&[8], &[5, 8], &[5, 3])), "query");
        assert_eq!(named(problem(&[4, 8], &[5, 7], &[5, 3])), "key");
        assert_eq!(named(problem(&[4, 8], &[5, 8], &[6, 3])), "value");
        assert_eq!(named(problem(&[4, 4, 8], &[2, 5, 8], &[1, 5, 3])), "value");
        assert_eq!(named(problem(&[4, 4, 8], &[3, 5, 8], &[3, 5, 3])), "key");
        assert_eq!(named(problem(&[4, 4, 8], &[0, 5, 8], &[0, 5, 3])), "key");
        assert_eq!(named(problem(&[2, 4, 4, 8], &[3, 4, 5, 8], &[3, 4, 5, 3])), "key");
        let fine = problem(&[2, 4, 4, 8], &[2, 4, 5, 8], &[2, 4, 5, 3]).unwrap();
        assert!(fine.mask(&contiguous(&[4, 5])).is_ok());
        assert!(fine.mask(&contiguous(&[2, 1, 1, 5])).is_ok());
        assert!(fine.mask(&contiguous(&[5, 4])).is_err());
        assert!(fine.mask(&contiguous(&[1, 2, 4, 4, 5])).is_err());
        assert!(fine.sinks(&contiguous(&[3])).is_err());
        assert!(fine.output(&contiguous(&[2, 4, 4, 5])).is_err());
    }
}
