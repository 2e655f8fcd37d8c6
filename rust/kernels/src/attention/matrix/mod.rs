//! Attention on a given matrix `[..., n_q, n_k]` of scores or weights: keep the k largest of each row, or those in a
//! window, drop the others, and normalise what is kept.
//!
//! - `options`: what a caller chooses
//! - `cost`: what a call costs, and into which pieces it is cut
//! - `rows`: a whole call
//! - `row`: one row
//! - `entries`: where the entries of a row are read and written
//! - `select`: the largest entries of a row
//! - `normalize`: softmax and sum

mod cost;
mod entries;
mod normalize;
mod options;
mod row;
mod rows;
mod select;

pub use options::{Before, MatrixAttention, Normalization, kept};

#[cfg(test)]
mod huge;
#[cfg(test)]
mod tests;
