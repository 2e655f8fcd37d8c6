//! Sharded linear layers, as in Megatron-LM (Shoeybi et al. 2019, arXiv:1909.08053).
//!
//! A column shard owns some columns of the weight and gives the same columns of the result. A row shard owns some rows
//! of the weight, reads the same columns of the tensor and gives a partial product of the result's whole shape.
//!
//! The product is one, for both: threads share its blocks, so all shards advance at the same time and share the threads
//! whatever their number is. The partial products of row shards are added block by block, in the order of the shards, so
//! no partial result is ever stored whole.

use crate::arch::{Element, Level};
use crate::buffer::{append, collected};
use crate::product::MatMul;
use crate::split::{array_split, axis_index};
use crate::view::{View, ViewMut};
use crate::{Error, Result};

/// Below this many multiplications the calling thread is done before others have woken up.
const PARALLEL_PRODUCTS: usize = 1 << 20;

/// How the weight is cut.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub enum Mode {
    /// Along its columns (`d_out`): each shard gives some columns of the result.
    Column,
    /// Along its rows (`d_in`), and the tensor with it: the result is the sum of what the shards give.
    Row,
}

impl Mode {
    /// The mode that is called `name`: "column" or "row".
    pub fn named(name: &str) -> Result<Self> {
        match name {
            "column" => Ok(Self::Column),
            "row" => Ok(Self::Row),
            _ => Err(Error::name("mode", name, "\"column\" or \"row\"")),
        }
    }
}

/// A linear layer whose weight is cut into `shards` parts, as [`array_split`] cuts.
#[derive(Debug, Clone, Copy)]
pub struct ShardedLinear {
    /// Number of shards, at least 1; shards beyond the length of the axis are empty.
    pub shards: usize,
    /// The axis of the weight that is cut.
    pub mode: Mode,
}

impl ShardedLinear {
    /// The shape of the result for these shapes of tensor and weight; `axis` must name the tensor's last one.
    pub fn out_shape(tensor: &[usize], axis: isize, weight: &[usize]) -> Result<Vec<usize>> {
        let [d_in, d_out] = *weight else {
            return Err(Error::Rank { argument: "weight", given: weight.len(), allowed: "2 ([d_in, d_out])" });
        };
        let Some((&width, leading)) = tensor.split_last() else {
            return Err(Error::Rank { argument: "tensor", given: 0, allowed: "at least 1 ([..., d_in])" });
        };
        if axis_index(tensor.len(), axis)? != leading.len() {
            let allowed = "with a weight -1, the last axis,";
            return Err(Error::Range { argument: "axis", given: axis.to_string(), allowed });
        }
        if width != d_in {
            let allowed = format!("[{width}, d_out] (the tensor's last axis has length {width})");
            return Err(Error::Shape { argument: "weight", given: weight.to_vec(), allowed });
        }
        Ok([leading, &[d_out]].concat())
    }

    /// `out = tensor · weight + bias`, with shapes `[..., d_in]`, `[d_in, d_out]`, `[d_out]` and `[..., d_out]`.
    ///
    /// 16-bit types are computed in float32 and rounded once, at the end. The bias is added once, after the sum.
    pub fn run<T: Element>(
        &self,
        tensor: &View<'_, T>,
        weight: &View<'_, T>,
        bias: Option<&View<'_, T>>,
        out: &mut ViewMut<'_, T>,
    ) -> Result<()> {
        self.run_at(Level::current()?, tensor, weight, bias, out)
    }

    pub(super) fn run_at<T: Element>(
        &self,
        level: Level,
        tensor: &View<'_, T>,
        weight: &View<'_, T>,
        bias: Option<&View<'_, T>>,
        out: &mut ViewMut<'_, T>,
    ) -> Result<()> {
        let shape = Self::out_shape(tensor.shape(), -1, weight.shape())?;
        let (d_in, d_out) = (weight.shape()[0], weight.shape()[1]);
        if let Some(bias) = bias.filter(|bias| bias.shape() != [d_out]) {
            return Err(Error::Shape { argument: "bias", given: bias.shape().to_vec(), allowed: format!("[{d_out}]") });
        }
        if out.shape() != shape {
            let allowed = format!("{shape:?}");
            return Err(Error::Shape { argument: "out", given: out.shape().to_vec(), allowed });
        }
        for input in [Some(tensor), Some(weight), bias].into_iter().flatten() {
            out.check_overlap("out", input, false)?;
        }

        // A column shard gives the same columns of the product: nothing is cut for it. (A wrong number is refused.)
        array_split("num_splits", d_out, self.shards)?;
        let shards = match self.mode {
            Mode::Column => array_split("num_splits", d_in, 1)?,
            Mode::Row => array_split("num_splits", d_in, self.shards)?,
        };
        let shards = collected(shards.filter(|shard| !shard.is_empty()))?;
        let is_parallel = out.layout().len().saturating_mul(d_in) >= PARALLEL_PRODUCTS;
        let mut operands = Vec::new();
        // One matrix of rows where the leading axes lie behind each other.
        if let Some(tensor) = tensor.flat().filter(|_| out.layout().flat().is_some()) {
            operands.extend(out.flat().map(|out| (tensor, out)));
        } else {
            let count = tensor.layout().matrices().0.count();
            append(&mut operands, (0..count).map(|index| tensor.matrix(index)).zip(out.matrices()))?;
        }
        let bias = bias.map(View::vector);
        MatMul { weight: weight.matrix(0), bias, shards: &shards }.run(level, is_parallel, operands)
    }
}
