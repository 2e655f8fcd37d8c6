//! Cutting arrays into shards and stages: partition arithmetic, sharded linear layers.

mod gather;
mod linear;
mod partition;

pub use gather::Part;
pub use linear::{Mode, Scalar, ShardedLinear};
pub use partition::{ArraySplit, MOST_PARTS, array_split, axis_index, balanced_cuts};
