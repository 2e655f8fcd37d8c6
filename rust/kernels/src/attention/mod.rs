//! Attention: on a given matrix of scores or weights, and fused from queries, keys and values.

mod band;
mod fused;
mod matrix;
mod top_k;

pub use band::{Align, Band, Window, WindowSize};
pub use fused::{Attention, Mask};
pub(crate) use fused::{Checked, Operand};
pub use matrix::{Before, MatrixAttention, Normalization, kept};
pub use top_k::{Above, Cut, Floats, Keys, keys};
