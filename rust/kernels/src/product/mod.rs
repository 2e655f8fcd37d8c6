//! Every product of matrices stands here once.
//!
//! - `pack`: rows of an operand, converted, in the layout that a product reads
//! - `tile`: a few rows times packed vectors, with all the sums in registers

mod pack;
mod tile;

pub(crate) use pack::strided;
pub(crate) use tile::{Onto, PanelProduct, Product, ROWS, Scaled, Shape, VECTORS};
