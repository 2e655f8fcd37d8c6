//! Cutting arrays into shards and stages: partition arithmetic, sharded linear layers, pipeline schedules.

mod gather;
mod linear;
mod partition;
mod schedule;

pub use gather::Part;
pub use linear::{Mode, Scalar, ShardedLinear};
pub use partition::{ArraySplit, MOST_PARTS, array_split, axis_index, balanced_cuts};
pub use schedule::{Direction, Kind, MOST_PASSES, Schedule, Work, idle, makespan, passes, peak};
