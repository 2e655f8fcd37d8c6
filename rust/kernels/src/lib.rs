//! Attention, splitting and LRU memory for CPUs. There is no Python in this crate.
//!
//! - [`view`]: shape and strides of an array, checked once, then trusted
//! - [`parallel`]: the thread pool, and when a kernel goes parallel
//! - [`arch`]: the CPU levels, chosen at run time
//! - [`buffer`]: memory that is asked for fallibly
//! - [`attention`]: top-k and window on a given matrix, and fused attention
//! - [`json`]: JSON straight into arrays and back
//! - [`layers`]: linear layers with their activation, layer norms
//! - [`split`]: partition arithmetic, sharded linear layers
//! - [`memory`]: the cache core
//! - [`reference`](mod@reference): naive float64 twins, the oracle of the tests and the baseline of the benches

pub mod arch;
pub mod attention;
pub mod buffer;
mod error;
pub mod json;
pub mod layers;
pub mod memory;
pub mod parallel;
mod product;
pub mod reference;
pub mod split;
pub mod view;

pub use error::{Error, Result, excerpt};
