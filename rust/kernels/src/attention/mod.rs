//! Attention: on a given matrix of scores or weights, and fused from queries, keys and values.

mod band;

pub use band::{Align, Band, Window, WindowSize};
