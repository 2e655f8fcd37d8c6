//! What a transformer encoder needs besides attention: linear layers with their activation, and layer norms with the
//! residual that they follow. float32, the type that encoders are published in.
//!
//! Matrix products are not those of a library: a weight is laid out once and multiplied many times, which no library that is
//! handed it row by row can make use of. With 16 rows that is the difference between reading the weight once and copying
//! it at every call. What comes after a product (bias, activation) runs over a panel's sums while they are in the first
//! level of cache. A norm is a pass of its own: it needs whole rows, and takes one per cent of a layer.

mod activation;
mod linear;
mod norm;
mod operands;

pub use activation::Activation;
pub use linear::Linear;
pub use norm::LayerNorm;

#[cfg(test)]
mod tests;
