//! What a transformer encoder needs besides attention: linear layers with their activation, and layer norms with the
//! residual that they follow. float32, the type that encoders are published in.
//!
//! Matrix products are this module's own: a weight is laid out once and multiplied many times, which no library that is
//! handed it row by row can make use of. With 16 rows that is the difference between reading the weight once and copying
//! it at every call. What comes after a product (bias, activation) runs over a panel's sums while they are in the first
//! level of cache. A norm is a pass of its own: it needs whole rows, and takes one per cent of a layer.

mod activation;
mod linear;
mod norm;

pub use activation::Activation;
pub use linear::Linear;
pub use norm::LayerNorm;

use crate::view::Layout;
use crate::{Error, Result};

/// A matrix whose rows are contiguous.
struct Rows {
    rows: usize,
    columns: usize,
    /// Elements from one row to the next.
    step: isize,
}

impl Rows {
    fn of(argument: &'static str, layout: &Layout) -> Result<Self> {
        let (&[rows, columns], &[step, across]) = (layout.shape(), layout.strides()) else {
            return Err(Error::Rank { argument, given: layout.shape().len(), allowed: "2" });
        };
        if columns > 1 && across != 1 && !layout.is_empty() {
            return Err(Error::Conflict {
                argument,
                problem: "its rows are not contiguous, contiguous rows are needed",
            });
        }
        Ok(Self { rows, columns, step })
    }
}

/// Checks that `layout` is a contiguous vector of `length` elements.
fn check_vector(argument: &'static str, layout: &Layout, length: usize) -> Result<()> {
    if layout.shape() != [length] {
        return Err(Error::Shape { argument, given: layout.shape().to_vec(), allowed: format!("[{length}]") });
    }
    if length > 1 && layout.strides() != [1] {
        return Err(Error::Conflict { argument, problem: "it is not contiguous, a contiguous vector is needed" });
    }
    Ok(())
}

#[cfg(test)]
mod tests;
