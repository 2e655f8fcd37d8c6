//! Cutting arrays into shards and stages: partition arithmetic, sharded linear layers.

mod gather;
mod partition;
mod sharded;
#[cfg(test)]
mod tests;

pub use gather::Shard;
pub use partition::{ArraySplit, MOST_PARTS, array_split, axis_index, balanced_cuts};
pub use sharded::{Mode, ShardedLinear};
