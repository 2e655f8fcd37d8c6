//! Matrices and vectors as the layers take them.

use crate::view::{Layout, Rows, RowsMut, View, ViewMut};
use crate::{Error, Result};

/// A matrix whose rows are contiguous.
pub(super) fn matrix<'a>(argument: &'static str, view: &View<'a, f32>) -> Result<Rows<'a, f32>> {
    check_matrix(argument, view.layout())?;
    Ok(view.matrix(0))
}

/// As [`matrix`], to be written to.
pub(super) fn matrix_mut<'a>(argument: &'static str, view: &'a mut ViewMut<'_, f32>) -> Result<RowsMut<'a, f32>> {
    check_matrix(argument, view.layout())?;
    Ok(view.matrix())
}

pub(super) fn check_matrix(argument: &'static str, layout: &Layout) -> Result<()> {
    let (&[_, columns], &[_, across]) = (layout.shape(), layout.strides()) else {
        return Err(Error::Rank { argument, given: layout.shape().len(), allowed: "2" });
    };
    if columns > 1 && across != 1 && !layout.is_empty() {
        return Err(Error::Conflict { argument, problem: "its rows are not contiguous, contiguous rows are needed" });
    }
    Ok(())
}

/// A contiguous vector of `length` elements, as one row.
pub(super) fn vector<'a>(argument: &'static str, view: &View<'a, f32>, length: usize) -> Result<Rows<'a, f32>> {
    if view.shape() != [length] {
        return Err(Error::Shape { argument, given: view.shape().to_vec(), allowed: format!("[{length}]") });
    }
    if length > 1 && view.layout().strides() != [1] {
        return Err(Error::Conflict { argument, problem: "it is not contiguous, a contiguous vector is needed" });
    }
    Ok(view.vector())
}
