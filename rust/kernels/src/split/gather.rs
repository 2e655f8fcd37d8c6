//! The inverse of a split: parts that lie side by side in memory are one array.

use crate::{Error, Result};

/// Where a part is: the address of its first element, its shape, and its strides in bytes.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct Part {
    /// The address of element 0 … 0.
    pub address: usize,
    /// The length of each axis.
    pub shape: Vec<usize>,
    /// The step of each axis, in bytes.
    pub strides: Vec<isize>,
}

impl Part {
    /// The one part that `parts`, in this order, are along `axis`; `None` where they do not lie side by side.
    ///
    /// Every element of the result is an element of one of the parts. Parts without elements take no room.
    ///
    /// # Errors
    /// Shapes that differ in another axis than `axis`, under the argument name "tensors".
    pub fn gathered(parts: &[Part], axis: usize) -> Result<Option<Part>> {
        let Some(first) = parts.first() else {
            return Err(Error::Range { argument: "tensors", given: "none".to_owned(), allowed: "at least one array" });
        };
        let others = |shape: &[usize]| [&shape[..axis], &shape[axis + 1..]].concat();
        let fits = |part: &&Part| part.shape.len() == first.shape.len() && others(&part.shape) == others(&first.shape);
        if let Some(part) = parts.iter().find(|part| !fits(part)) {
            let allowed = format!("that of the first array, {:?}, but for axis {axis},", first.shape);
            return Err(Error::Shape { argument: "tensors", given: part.shape.clone(), allowed });
        }
        let length = parts.iter().map(|part| part.shape[axis]).sum();
        let mut parts = parts.iter().filter(|part| !part.shape.contains(&0));
        let mut gathered = parts.next().unwrap_or(first).clone();
        for part in parts {
            let end = gathered.address.wrapping_add_signed(gathered.strides[axis] * gathered.shape[axis] as isize);
            // The step of an axis of length 1 is never taken, so it need not agree; that of the gathered axis will be.
            let steps = || (0..part.shape.len()).filter(|&other| other == axis || part.shape[other] > 1);
            if part.address != end || !steps().all(|other| part.strides[other] == gathered.strides[other]) {
                return Ok(None);
            }
            gathered.shape[axis] += part.shape[axis];
        }
        gathered.shape[axis] = length;
        Ok(Some(gathered))
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    fn part(address: usize, shape: &[usize], strides: &[isize]) -> Part {
        Part { address, shape: shape.to_vec(), strides: strides.to_vec() }
    }

    #[test]
    fn neighbours_are_one() {
        let parts = [part(1000, &[2, 3], &[40, 4]), part(1012, &[2, 2], &[40, 4]), part(1020, &[2, 0], &[8, 8])];
        assert_eq!(Part::gathered(&parts, 1), Ok(Some(part(1000, &[2, 5], &[40, 4]))));
        let reversed = [part(1000, &[2], &[-4]), part(992, &[1], &[-4])];
        assert_eq!(Part::gathered(&reversed, 0), Ok(Some(part(1000, &[3], &[-4]))));
    }

    #[test]
    fn what_lies_elsewhere_is_not() {
        let first = part(1000, &[2, 3], &[40, 4]);
        for other in [
            part(1016, &[2, 3], &[40, 4]),
            part(988, &[2, 3], &[40, 4]),
            part(1012, &[2, 3], &[44, 4]),
            part(1012, &[2, 3], &[40, 8]),
            part(1012, &[2, 1], &[40, 8]),
        ] {
            assert_eq!(Part::gathered(&[first.clone(), other], 1), Ok(None));
        }
    }

    #[test]
    fn parts_without_elements_take_no_room() {
        let empty = part(7, &[2, 0], &[8, 8]);
        let full = part(1000, &[2, 3], &[40, 4]);
        assert_eq!(Part::gathered(&[empty.clone(), full.clone()], 1), Ok(Some(full)));
        assert_eq!(Part::gathered(&[empty.clone(), empty.clone()], 1), Ok(Some(empty)));
        // All parts are empty because another axis is: the gathered axis still has their lengths.
        let rows = part(1000, &[0, 3], &[12, 4]);
        assert_eq!(Part::gathered(&[rows.clone(), rows], 1), Ok(Some(part(1000, &[0, 6], &[12, 4]))));
    }

    #[test]
    fn shapes_that_do_not_fit_are_refused() {
        let first = part(1000, &[2, 3], &[40, 4]);
        for other in [part(1012, &[3, 3], &[40, 4]), part(1012, &[3], &[4])] {
            assert!(matches!(Part::gathered(&[first.clone(), other], 1), Err(Error::Shape { .. })));
        }
        assert!(Part::gathered(&[], 0).is_err());
    }
}
