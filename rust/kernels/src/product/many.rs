//! Many rows times a weight, which is packed piece by piece: the depth is cut into pieces, and a piece of some columns is
//! laid out in panels that stay in the second level of cache while all rows of a block go by.
//!
//! Each sum is taken in the order of the depth within a piece, and pieces are added in their order, so no bit depends on
//! how the result is cut into blocks; that may follow the number of threads.

use std::ops::Range;

use super::operands::{Convert, InOut, MatMul, blocks};
use super::tile::{PanelProduct, VECTORS, panel_width};
use crate::Result;
use crate::arch::{Cpu, Element, Lanes, Level, Real, Task};
use crate::buffer::{Buffer, append, collected, made};
use crate::parallel;
use crate::view::{Rows, RowsMut};

/// The depth of a piece.
const DEPTH: usize = 512;
/// The most panels that are packed at a time: 480 KiB, half of a small second level of cache.
const PANELS: usize = 5;
/// The most rows that a packed piece is used for before the next one.
const TALL: usize = 1024;
/// Rows that are converted at a time, where they are not multiplied where they are.
const CONVERTED: usize = 64;

pub(super) fn run<T: Element>(
    product: &MatMul<'_, T>,
    level: Level,
    is_parallel: bool,
    operands: Vec<InOut<'_, T>>,
) -> Result<()> {
    let MatMul { weight, bias: bias_row, shards } = *product;
    let all = weight.columns();
    let width = panel_width::<T::Real>(level);
    let pieces = collected(
        shards.iter().flat_map(|shard| shard.clone().step_by(DEPTH).map(|start| start..shard.end.min(start + DEPTH))),
    )?;
    let deepest = pieces.iter().map(Range::len).max().unwrap_or(0);

    // Blocks of about the same number of panels, as many of them for each thread.
    let threads = parallel::participants(usize::MAX, is_parallel);
    let panels = all.div_ceil(width);
    let across = panels.div_ceil(PANELS).next_multiple_of(threads).min(panels);
    let columns = collected(
        blocks(0..panels, panels.div_ceil(across)).map(|panels| panels.start * width..all.min(panels.end * width)),
    )?;
    let mut parts = Vec::new();
    for (tensor, out) in operands {
        let down = tensor.count().div_ceil(TALL).max((2 * threads).div_ceil(columns.len()));
        let rows = collected(blocks(0..tensor.count(), tensor.count().div_ceil(down).max(CONVERTED)))?;
        let blocks = out.cut(&rows, &columns)?.into_iter().enumerate().map(|(index, out)| {
            let (rows, columns) = (&rows[index / columns.len()], &columns[index % columns.len()]);
            (tensor.part(rows.clone(), 0..weight.count()), columns.clone(), out)
        });
        append(&mut parts, blocks)?;
    }
    let mut bias = Buffer::zeroed(if bias_row.is_some() { all } else { 0 })?;
    if let Some(from) = bias_row {
        level.run(Convert { from, to: &mut bias });
    }
    let widest = columns.iter().map(|columns| columns.len().next_multiple_of(width)).max().unwrap_or(0);
    let is_converted = |tensor: &Rows<'_, T>| !(T::IS_REAL && tensor.is_contiguous());
    let is_summed_apart = |out: &RowsMut<'_, T>| !(T::IS_REAL && out.is_contiguous());
    let converts = parts.iter().any(|(tensor, ..)| is_converted(tensor));
    let apart =
        parts.iter().filter(|(.., out)| is_summed_apart(out)).map(|(.., out)| out.count() * out.columns()).max();
    let mut scratch = made(parallel::participants(parts.len(), is_parallel), |_| {
        Ok(PieceScratch {
            panels: Buffer::zeroed(deepest * widest)?,
            tensor: Buffer::zeroed(if converts { CONVERTED * deepest } else { 0 })?,
            sums: Buffer::zeroed(apart.unwrap_or(0))?,
        })
    })?;
    parallel::for_each_mut_with(&mut parts, &mut scratch, |scratch, _, (tensor, columns, out)| {
        let weight = weight.part(0..weight.count(), columns.clone());
        let bias = if bias.is_empty() { &bias[..] } else { &bias[columns.clone()] };
        level.run(PackedProduct { tensor: *tensor, weight, pieces: &pieces, bias, out, scratch });
    });
    Ok(())
}

/// What one thread needs.
#[derive(Debug)]
struct PieceScratch<R> {
    /// A piece of a block's columns.
    panels: Buffer<R>,
    /// Rows of the tensor, converted.
    tensor: Buffer<R>,
    /// A block of sums, where the result is of another type or its columns are not beside each other.
    sums: Buffer<R>,
}

/// A block of the result.
struct PackedProduct<'a, 'b, T: Element> {
    tensor: Rows<'a, T>,
    weight: Rows<'a, T>,
    pieces: &'a [Range<usize>],
    /// As long as the block is wide, or empty.
    bias: &'a [T::Real],
    out: &'a mut RowsMut<'b, T>,
    scratch: &'a mut PieceScratch<T::Real>,
}

impl<T: Element> Task for PackedProduct<'_, '_, T> {
    type Output = ();

    #[inline(always)]
    fn run<C: Cpu>(self, cpu: C) {
        let Self { tensor, weight, pieces, bias, out, scratch } = self;
        let (rows, columns) = (out.count(), out.columns());
        let PieceScratch { panels, tensor: converted, sums } = &mut *scratch;
        let in_place = out.reborrow().typed::<T::Real>().filter(RowsMut::is_contiguous);
        let is_apart = in_place.is_none();
        let mut sums = match in_place {
            Some(out) => out,
            None => RowsMut::of(&mut sums[..rows * columns], rows, columns),
        };
        let width = VECTORS * <T::Real as Real>::Lanes::<C>::N;
        // Without a depth the product is all zero, which nobody else would write.
        let pieces = if pieces.is_empty() { std::slice::from_ref(&(0..0)) } else { pieces };
        for (index, piece) in pieces.iter().enumerate() {
            let depth = piece.len();
            let panels = &mut panels[..depth * columns.next_multiple_of(width)];
            weight.part(piece.clone(), 0..columns).panels(cpu, width, panels);
            for start in (0..rows).step_by(CONVERTED) {
                let block = start..rows.min(start + CONVERTED);
                let tensor = tensor.part(block.clone(), piece.clone());
                let tensor = match tensor.typed::<T::Real>().filter(Rows::is_contiguous) {
                    Some(tensor) => tensor,
                    None => {
                        let converted = &mut converted[..block.len() * depth];
                        Convert { from: tensor, to: converted }.run(cpu);
                        Rows::of(converted, block.len(), depth)
                    }
                };
                for column in (0..columns).step_by(width) {
                    cpu.run(PanelProduct {
                        a: tensor,
                        panel: &panels[column * depth..][..width * depth],
                        out: sums.part(block.clone(), column..columns.min(column + width)),
                        adds: index > 0,
                    });
                }
            }
        }
        if !is_apart && bias.is_empty() {
            return;
        }
        let lanes = T::Real::lanes(cpu);
        let n = <T::Real as Real>::Lanes::<C>::N;
        for row in 0..rows {
            for column in (0..columns).step_by(n) {
                let count = n.min(columns - column);
                let sums = if is_apart {
                    Rows::of(&scratch.sums[..rows * columns], rows, columns)
                } else {
                    out.as_rows().typed().expect("sums in their place")
                };
                let mut sum = sums.load(cpu, row, column, count);
                if !bias.is_empty() {
                    sum = lanes.add(sum, Rows::of(bias, 1, columns).load(cpu, 0, column, count));
                }
                out.store(cpu, row, column, count, sum);
            }
        }
    }
}
