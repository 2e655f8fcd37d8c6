//! Where to cut: equal parts, and contiguous parts whose largest cost is the smallest possible.

use std::ops::Range;

use crate::buffer::{collected, made};
use crate::view::View;
use crate::{Error, Result};

/// The index of `axis`, which may count from the end, in an array of `rank` axes.
pub fn axis_index(rank: usize, axis: isize) -> Result<usize> {
    if rank == 0 {
        return Err(Error::Rank { argument: "tensor", given: 0, allowed: "at least 1" });
    }
    let index = if axis < 0 { axis.checked_add_unsigned(rank) } else { Some(axis) };
    match index.and_then(|index| usize::try_from(index).ok()) {
        Some(index) if index < rank => Ok(index),
        _ => Err(Error::Range {
            argument: "axis",
            given: axis.to_string(),
            allowed: "an axis that the tensor has (-rank to rank - 1)",
        }),
    }
}

/// The largest number of parts that anything is cut into: each one is an object in Python, also where it is empty.
pub const MOST_PARTS: usize = 1 << 24;

/// The parts that [`array_split`] yields.
#[derive(Debug, Clone)]
pub struct ArraySplit {
    parts: Range<usize>,
    size: usize,
    longer: usize,
}

/// Cuts `0..length` into `parts` contiguous ranges as `numpy.array_split` does: sizes differ by at most one, longer
/// parts come first, and there are empty parts when there are more parts than elements.
///
/// `argument` is the name under which a caller knows `parts`: 1 to [`MOST_PARTS`].
pub fn array_split(argument: &'static str, length: usize, parts: usize) -> Result<ArraySplit> {
    if parts == 0 {
        return Err(Error::Range { argument, given: "0".to_owned(), allowed: "an integer of at least 1" });
    }
    if parts > MOST_PARTS {
        return Err(Error::Range { argument, given: parts.to_string(), allowed: "at most 16777216" });
    }
    Ok(ArraySplit { parts: 0..parts, size: length / parts, longer: length % parts })
}

impl Iterator for ArraySplit {
    type Item = Range<usize>;

    fn next(&mut self) -> Option<Range<usize>> {
        let start = |part: usize| part * self.size + part.min(self.longer);
        self.parts.next().map(|part| start(part)..start(part + 1))
    }

    fn size_hint(&self) -> (usize, Option<usize>) {
        self.parts.size_hint()
    }
}

impl ExactSizeIterator for ArraySplit {}

/// Cuts `0..slices` into `parts` contiguous ranges so that the largest cost of a part is the smallest possible;
/// of all such partitions the one whose every cut is the earliest.
///
/// No part is empty while there are slices for all; with more parts than slices the first ones get one slice each and
/// the surplus at the end is empty. A part's cost is the float64 sum of its slices, added from its last to its first.
/// Costs must be finite and at least 0.
///
/// The optimum is found exactly: float64 numbers that are not negative are ordered as their bits are, so a bisection
/// over the bits ends at the smallest bound that some partition respects, after at most 64 passes.
pub fn balanced_cuts(slices: usize, parts: usize, costs: &View<'_, f64>) -> Result<Vec<Range<usize>>> {
    if costs.shape() != [slices] {
        let allowed = format!("[{slices}] (one for each slice)");
        return Err(Error::Shape { argument: "costs", given: costs.shape().to_vec(), allowed });
    }
    let split = array_split("num_stages", slices, parts)?;
    // Cuts follow from costs, so each of them is read once, whatever another thread writes there meanwhile.
    let costs = costs.vector();
    let costs = &made(slices, |slice| Ok(costs.get(0, slice)))?[..];
    let mut ranges = collected(split)?;
    if let Some((index, cost)) = costs.iter().enumerate().find(|(_, cost)| !cost.is_finite() || **cost < 0.0) {
        let given = format!("{cost} (for slice {index})");
        return Err(Error::Range { argument: "costs", given, allowed: "a finite number of at least 0" });
    }
    if parts >= slices {
        return Ok(ranges);
    }
    // No part can be cheaper than the dearest slice, and one part with everything always works (its sum may be inf).
    let mut low = costs.iter().fold(0.0, |largest, &cost| if cost > largest { cost } else { largest }).to_bits();
    let mut high = costs.iter().rev().fold(0.0f64, |sum, &cost| sum + cost).to_bits();
    while low < high {
        let middle = low + (high - low) / 2;
        if parts_within(costs, f64::from_bits(middle)) <= parts { high = middle } else { low = middle + 1 }
    }
    let bound = f64::from_bits(high);
    // Filling from the right makes every cut as early as any partition within the bound can have it, but for the
    // slices that the parts further left need so as not to be empty.
    let mut end = slices;
    for (part, range) in ranges.iter_mut().enumerate().rev() {
        let start = if part == 0 { 0 } else { start_within(costs, end, bound).max(part) };
        *range = start..end;
        end = start;
    }
    Ok(ranges)
}

/// The earliest start of a part that ends at `end` and costs at most `bound`.
fn start_within(costs: &[f64], end: usize, bound: f64) -> usize {
    let mut sum = 0.0;
    costs[..end]
        .iter()
        .rposition(|cost| {
            sum += cost;
            sum > bound
        })
        .map_or(0, |index| index + 1)
}

/// How many parts it takes when none may cost more than `bound`, which is at least the dearest slice.
fn parts_within(costs: &[f64], bound: f64) -> usize {
    let (mut parts, mut end) = (0, costs.len());
    while end > 0 {
        end = start_within(costs, end, bound);
        parts += 1;
    }
    parts
}

#[cfg(test)]
mod tests {
    use proptest::prelude::*;

    use super::*;

    fn cuts(slices: usize, parts: usize, costs: &[f64]) -> Result<Vec<Range<usize>>> {
        balanced_cuts(slices, parts, &View::from_slice("costs", costs, &[costs.len()])?)
    }

    fn cost(costs: &[f64], range: &Range<usize>) -> f64 {
        costs[range.clone()].iter().rev().sum()
    }

    /// Every way to cut `0..slices` into `parts` ranges that are not empty, earliest cuts first.
    fn partitions(start: usize, slices: usize, parts: usize) -> Vec<Vec<Range<usize>>> {
        if parts == 1 {
            return vec![std::iter::once(start..slices).collect()];
        }
        let mut all = Vec::new();
        for cut in start + 1..=slices + 1 - parts {
            for mut rest in partitions(cut, slices, parts - 1) {
                rest.insert(0, start..cut);
                all.push(rest);
            }
        }
        all
    }

    #[test]
    fn parts_are_those_of_numpy() {
        let parts = |length, parts| array_split("n", length, parts).unwrap().collect::<Vec<_>>();
        assert_eq!(parts(7, 3), [0..3, 3..5, 5..7]);
        assert_eq!(parts(2, 4), [0..1, 1..2, 2..2, 2..2]);
        assert_eq!(parts(0, 2), [0..0, 0..0]);
        assert_eq!(parts(usize::MAX, 2), [0..usize::MAX / 2 + 1, usize::MAX / 2 + 1..usize::MAX]);
    }

    #[test]
    fn no_parts_are_refused() {
        assert!(matches!(array_split("num_splits", 3, 0), Err(Error::Range { argument: "num_splits", .. })));
        assert!(matches!(cuts(1, 0, &[1.0]), Err(Error::Range { argument: "num_stages", .. })));
    }

    #[test]
    fn more_parts_than_can_be_held_are_refused() {
        assert_eq!(array_split("n", 3, MOST_PARTS).unwrap().len(), MOST_PARTS);
        for parts in [MOST_PARTS + 1, 10_usize.pow(13), usize::MAX] {
            let error = array_split("n", 3, parts).unwrap_err().to_string();
            assert!(error.contains(&format!("at most {MOST_PARTS}")), "{error}");
            assert!(matches!(cuts(3, parts, &[1.0; 3]), Err(Error::Range { argument: "num_stages", .. })));
        }
    }

    #[test]
    fn axes_count_from_both_ends() {
        assert_eq!(axis_index(3, -1), Ok(2));
        assert_eq!(axis_index(3, 2), Ok(2));
        for axis in [3, -4, isize::MIN, isize::MAX] {
            assert!(matches!(axis_index(3, axis), Err(Error::Range { argument: "axis", .. })), "{axis}");
        }
        assert!(matches!(axis_index(0, 0), Err(Error::Rank { .. })));
    }

    #[test]
    fn a_cost_that_is_no_cost_is_refused() {
        for bad in [f64::NAN, f64::INFINITY, -1.0] {
            let error = cuts(2, 1, &[1.0, bad]).unwrap_err();
            assert!(error.to_string().contains("slice 1"), "{error}");
        }
        assert!(matches!(cuts(3, 2, &[1.0; 2]), Err(Error::Shape { argument: "costs", .. })));
        assert!(cuts(3, 2, &[-0.0, 0.0, 0.0]).is_ok());
    }

    #[test]
    fn greedy_filling_is_not_the_optimum() {
        // Filling the first part up to the average of 10 would leave 11 or 13 for another one.
        assert_eq!(cuts(5, 3, &[6.0, 5.0, 3.0, 6.0, 10.0]).unwrap(), [0..2, 2..4, 4..5]);
    }

    #[test]
    fn sums_that_overflow_still_give_a_partition() {
        assert_eq!(cuts(4, 2, &[f64::MAX; 4]).unwrap(), [0..1, 1..4]);
        assert_eq!(cuts(4, 4, &[f64::MAX; 4]).unwrap(), [0..1, 1..2, 2..3, 3..4]);
    }

    proptest! {
        #[test]
        fn cuts_are_the_earliest_optimal_ones(
            costs in prop::collection::vec(prop_oneof![0u8..4, 0u8..=255], 1..9),
            parts in 1usize..6,
            scale in prop_oneof![Just(1.0), Just(0.1), Just(1e300)],
        ) {
            let costs: Vec<f64> = costs.into_iter().map(|cost| f64::from(cost) * scale).collect();
            let found = cuts(costs.len(), parts, &costs).unwrap();
            let used = parts.min(costs.len());
            let largest = |ranges: &[Range<usize>]| ranges.iter().map(|range| cost(&costs, range)).fold(0.0, f64::max);
            let all = partitions(0, costs.len(), used);
            let best = all.iter().map(|ranges| largest(ranges)).fold(f64::INFINITY, f64::min);
            let first = all.iter().find(|ranges| largest(ranges) == best).unwrap();
            prop_assert_eq!(&found[..used], &first[..]);
            prop_assert!(found[used..].iter().all(|range| *range == (costs.len()..costs.len())));
        }

        #[test]
        fn parts_cover_everything_once(length in 0usize..10_000, parts in 1usize..200) {
            let mut end = 0;
            let mut last = usize::MAX;
            for range in array_split("n", length, parts).unwrap() {
                prop_assert_eq!(range.start, end);
                prop_assert!(range.len() <= last && range.len() + 1 >= length.div_ceil(parts));
                (end, last) = (range.end, range.len());
            }
            prop_assert_eq!(end, length);
        }
    }
}
