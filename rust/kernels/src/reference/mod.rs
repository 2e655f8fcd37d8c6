//! Naive float64 twins of every kernel: the oracle of the tests and the baseline of the benches.
//!
//! They share nothing with the kernels but views, layouts and the options that a caller chooses: no check, no
//! broadcasting, no band, no count of what is kept.

mod fused;
mod layers;
mod matrix;

#[cfg(test)]
pub(crate) use fused::takes_part;
pub use fused::{AttentionRow, attention};
pub use layers::{erf, gelu, gelu_tanh, layer_norm, linear};
pub use matrix::matrix_attention;
