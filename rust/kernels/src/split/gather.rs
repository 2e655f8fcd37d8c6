//! The inverse of a split: shards that lie side by side in memory are one array.

use crate::{Error, Result};

/// Where a shard is: the address of its first element, its shape, and its strides in bytes.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct Shard {
    /// The address of element 0 … 0.
    pub address: usize,
    /// The length of each axis.
    pub shape: Vec<usize>,
    /// The step of each axis, in bytes.
    pub strides: Vec<isize>,
}

impl Shard {
    /// The one array that `shards`, in this order, are along `axis`; `None` where they do not lie side by side.
    ///
    /// Every element of the result is an element of one of the shards. Shards without elements take no room.
    ///
    /// # Errors
    /// Shapes that differ in another axis than `axis`, under the argument name "tensors".
    pub fn gathered(shards: impl IntoIterator<Item = Shard>, axis: usize) -> Result<Option<Shard>> {
        let mut shards = shards.into_iter();
        let Some(first) = shards.next() else {
            return Err(Error::Range { argument: "tensors", given: "none".to_owned(), allowed: "at least one array" });
        };
        let others = |shape: &[usize]| [&shape[..axis], &shape[axis + 1..]].concat();
        let mut length = Some(first.shape[axis]);
        let mut gathered = if first.is_empty() { None } else { Some(first.clone()) };
        let mut apart = false;
        for shard in shards {
            if shard.shape.len() != first.shape.len() || others(&shard.shape) != others(&first.shape) {
                let allowed = format!("that of the first array, {:?}, but for axis {axis},", first.shape);
                return Err(Error::Shape { argument: "tensors", given: shard.shape, allowed });
            }
            length = length.and_then(|length| length.checked_add(shard.shape[axis]));
            match &mut gathered {
                _ if shard.is_empty() => {}
                None => gathered = Some(shard),
                Some(gathered) if gathered.is_followed_by(&shard, axis) => gathered.shape[axis] += shard.shape[axis],
                Some(_) => apart = true,
            }
        }
        let mut gathered = gathered.unwrap_or(first);
        let Some(length) = length.filter(|_| !apart) else { return Ok(None) };
        gathered.shape[axis] = length;
        Ok(Some(gathered))
    }

    fn is_empty(&self) -> bool {
        self.shape.contains(&0)
    }

    /// Whether `next`, whose other axes are as long, begins where this one ends along `axis`.
    fn is_followed_by(&self, next: &Shard, axis: usize) -> bool {
        let end = self.address.wrapping_add_signed(self.strides[axis].wrapping_mul(self.shape[axis] as isize));
        // The step of an axis of length 1 is never taken, so it need not agree; that of the gathered axis will be.
        let mut steps = (0..next.shape.len()).filter(|&other| other == axis || next.shape[other] > 1);
        next.address == end && steps.all(|other| next.strides[other] == self.strides[other])
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    fn shard(address: usize, shape: &[usize], strides: &[isize]) -> Shard {
        Shard { address, shape: shape.to_vec(), strides: strides.to_vec() }
    }

    #[test]
    fn neighbours_are_one() {
        let shards = [shard(1000, &[2, 3], &[40, 4]), shard(1012, &[2, 2], &[40, 4]), shard(1020, &[2, 0], &[8, 8])];
        assert_eq!(Shard::gathered(shards, 1), Ok(Some(shard(1000, &[2, 5], &[40, 4]))));
        let reversed = [shard(1000, &[2], &[-4]), shard(992, &[1], &[-4])];
        assert_eq!(Shard::gathered(reversed, 0), Ok(Some(shard(1000, &[3], &[-4]))));
    }

    #[test]
    fn what_lies_elsewhere_is_not() {
        let first = shard(1000, &[2, 3], &[40, 4]);
        for other in [
            shard(1016, &[2, 3], &[40, 4]),
            shard(988, &[2, 3], &[40, 4]),
            shard(1012, &[2, 3], &[44, 4]),
            shard(1012, &[2, 3], &[40, 8]),
            shard(1012, &[2, 1], &[40, 8]),
        ] {
            assert_eq!(Shard::gathered([first.clone(), other], 1), Ok(None));
        }
    }

    #[test]
    fn shards_without_elements_take_no_room() {
        let empty = shard(7, &[2, 0], &[8, 8]);
        let full = shard(1000, &[2, 3], &[40, 4]);
        assert_eq!(Shard::gathered([empty.clone(), full.clone()], 1), Ok(Some(full)));
        assert_eq!(Shard::gathered([empty.clone(), empty.clone()], 1), Ok(Some(empty)));
        // All shards are empty because another axis is: the gathered axis still has their lengths.
        let rows = shard(1000, &[0, 3], &[12, 4]);
        assert_eq!(Shard::gathered([rows.clone(), rows], 1), Ok(Some(shard(1000, &[0, 6], &[12, 4]))));
    }

    #[test]
    fn shapes_that_do_not_fit_are_refused() {
        let first = shard(1000, &[2, 3], &[40, 4]);
        for other in [shard(1012, &[3, 3], &[40, 4]), shard(1012, &[3], &[4])] {
            assert!(matches!(Shard::gathered([first.clone(), other], 1), Err(Error::Shape { .. })));
        }
        assert!(Shard::gathered([], 0).is_err());
    }
}
