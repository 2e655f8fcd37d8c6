//! The k largest of a row: where to cut, found by counting. Nothing is sorted.
//!
//! Floats are compared as integers of the same order ([`keys`](order::keys)). A sample gives two integers that the k-th largest
//! should lie between (Floyd and Rivest, 1975); one pass over the row counts how many keys lie above them and moves
//! those in between together, and the same is done with what it has moved until so few are left that each is compared
//! with each. If the key is not in between, another pass moves the part that it is in. A step that leaves most of the
//! keys (few distinct values) is followed by one that halves the interval of integers and pulls its ends to keys that
//! exist. So no row, however it is distributed, takes more passes than twice the bits of a key; most take two over the
//! row and three over small parts of it.

mod finder;
mod floats;
mod order;
mod search;

pub(crate) use finder::CutFinder;
pub(crate) use floats::Floats;
pub(crate) use order::{Above, Cut, keys};
