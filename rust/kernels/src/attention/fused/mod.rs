//! Fused attention: queries, keys and values in, the weighted values out, and never a matrix of n_q × n_k in memory.
//!
//! - `options`: what a caller chooses, and its checks
//! - `shape`: how the inputs fit together
//! - `plan`: how a call is cut into items
//! - `item`: one item, some rows of the output against a run of keys
//! - `call`: what all items of a call share
//! - `work`: the buffers of a thread, and the rows of an item while its keys go by
//! - `scores`: products with keys, cap, mask, the largest ones
//! - `softmax`: the online softmax
//! - `values`: products with values
//! - `pack`: blocks of keys and values as the tile product reads them
//! - `output`: the rows of the result
//!
//! `docs/fused.md` says where the time goes and what was tried.

mod call;
#[cfg(test)]
mod edges;
mod item;
mod options;
mod output;
mod pack;
mod plan;
mod scores;
mod shape;
mod softmax;
#[cfg(test)]
mod tests;
mod values;
#[cfg(test)]
mod visits;
mod work;

pub use options::{Attention, Mask};
