//! Every product of matrices stands here once.
//!
//! - `pack`: rows of an operand, converted, in the layout that a product reads
//! - `tile`: a few rows times packed vectors, with all the sums in registers
//! - `operands`: what a product is given
//! - `in_place`: a few rows of attention, times keys and values where they are
//! - `matmul`: the front, rows of a tensor times a weight; it takes one of
//!   - `few`: few rows, a weight whose rows are contiguous, read where it is
//!   - `dots`: few rows, a weight whose columns are contiguous, read where it is
//!   - `many`: many rows, a weight that is packed piece by piece

mod dots;
mod few;
mod in_place;
mod many;
mod matmul;
mod operands;
mod pack;
mod tile;

pub(crate) use in_place::{InPlaceScores, InPlaceSums};
pub(crate) use operands::MatMul;
pub(crate) use pack::{padded, strided};
pub(crate) use tile::{Onto, PanelProduct, Product, ROWS, Scaled, Shape, panel_width};
