//! Attention: on a given matrix of scores or weights, and fused from queries, keys and values.

mod band;
mod fused;
mod matrix;
mod top_k;

pub use band::{Align, Band, Window, WindowSize};
pub use fused::{Attention, Mask};
pub use matrix::{Before, MatrixAttention, Normalization, kept};
