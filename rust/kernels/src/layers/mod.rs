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

pub use activation::Activation;
pub use linear::Linear;
pub use norm::LayerNorm;

use crate::view::{Layout, Rows, RowsMut, View, ViewMut};
use crate::{Error, Result};

/// A matrix whose rows are contiguous.
fn matrix<'a>(argument: &'static str, view: &View<'a, f32>) -> Result<Rows<'a, f32>> {
    check_matrix(argument, view.layout())?;
    Ok(view.matrix(0))
}

/// As [`matrix`], to be written to.
fn matrix_mut<'a>(argument: &'static str, view: &'a mut ViewMut<'_, f32>) -> Result<RowsMut<'a, f32>> {
    check_matrix(argument, view.layout())?;
    Ok(view.matrix())
}

fn check_matrix(argument: &'static str, layout: &Layout) -> Result<()> {
    let (&[_, columns], &[_, across]) = (layout.shape(), layout.strides()) else {
        return Err(Error::Rank { argument, given: layout.shape().len(), allowed: "2" });
    };
    if columns > 1 && across != 1 && !layout.is_empty() {
        return Err(Error::Conflict { argument, problem: "its rows are not contiguous, contiguous rows are needed" });
    }
    Ok(())
}

/// A contiguous vector of `length` elements, as one row.
fn vector<'a>(argument: &'static str, view: &View<'a, f32>, length: usize) -> Result<Rows<'a, f32>> {
    if view.shape() != [length] {
        return Err(Error::Shape { argument, given: view.shape().to_vec(), allowed: format!("[{length}]") });
    }
    if length > 1 && view.layout().strides() != [1] {
        return Err(Error::Conflict { argument, problem: "it is not contiguous, a contiguous vector is needed" });
    }
    Ok(view.vector())
}

#[cfg(test)]
mod tests;
