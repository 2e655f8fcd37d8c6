//! Cutting arrays into shards and stages: partition arithmetic, sharded linear layers, pipeline schedules.

mod gather;
mod linear;
mod partition;
mod schedule;

pub use gather::Part;
pub use linear::{Mode, Scalar, ShardedLinear};
pub use partition::{ArraySplit, array_split, axis_index, balanced_cuts};
pub use schedule::{Direction, Kind, Schedule, Work, idle, makespan, peak};
