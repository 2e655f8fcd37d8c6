//! Rows of a tensor times a weight: which of the ways is taken.

use super::operands::{InOut, MatMul};
use super::{dots, few, many};
use crate::Result;
use crate::arch::{Element, Level};

impl<T: Element> MatMul<'_, T> {
    /// Multiplies. The operands' widths must be the weight's depth and columns. All memory is asked for before any work.
    pub(crate) fn run(&self, level: Level, is_parallel: bool, operands: Vec<InOut<'_, T>>) -> Result<()> {
        let rows: usize = operands.iter().map(|(tensor, _)| tensor.count()).sum();
        for (tensor, out) in &operands {
            assert!(tensor.count() == out.count());
            assert!(tensor.columns() == self.weight.count() && out.columns() == self.weight.columns());
        }
        if rows == 0 || self.weight.columns() == 0 {
            return Ok(());
        }
        if rows <= few::ROWS && self.weight.is_contiguous() {
            few::run(self, level, is_parallel, operands)
        } else if rows <= dots::ROWS && self.weight.transposed().is_contiguous() {
            dots::run(self, level, is_parallel, operands)
        } else {
            many::run(self, level, is_parallel, operands)
        }
    }
}
