//! Attention, splitting and LRU memory for CPUs. There is no Python in this crate.
//!
//! - [`view`]: shape and strides of an array, checked once, then trusted
//! - [`parallel`]: the thread pool, and when a kernel goes parallel
//! - [`arch`]: the CPU levels, chosen at run time
//! - [`attention`]: top-k and window on a given matrix, and fused attention
//! - [`layers`]: linear layers with their activation, layer norms
//! - [`split`]: partition arithmetic, sharded linear layers
//! - [`memory`]: the cache core
//! - [`wire`]: JSON straight into arrays and back
//! - [`reference`](mod@reference): naive float64 twins, the oracle of the tests and the baseline of the benches

pub mod arch;
pub mod attention;
mod buffer;
mod error;
pub mod layers;
pub mod memory;
pub mod parallel;
pub mod reference;
pub mod split;
pub mod view;
pub mod wire;

pub use error::{Error, Result};
