//! Attention: on a given matrix of scores or weights, and fused from queries, keys and values.

mod band;
mod fused;

pub use band::{Align, Band, Window, WindowSize};
pub use fused::{Attention, Mask};
pub(crate) use fused::{Checked, Operand};
