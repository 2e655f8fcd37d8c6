//! The online softmax.

use std::ops::Range;

use super::product::ROWS;
use super::work::Work;
use crate::arch::{Cpu, Element, Lanes, Real, exp_below};

impl<T: Element> Work<'_, T> {
    /// Turns the scores of a tile into weights `exp(score - top)`, and gives the factors by which the sums so far
    /// shrink as the tops rise.
    #[inline(always)]
    pub(super) fn weigh<C: Cpu>(
        &mut self,
        cpu: C,
        tile: Range<usize>,
        columns: Range<usize>,
        is_finite: bool,
    ) -> [T::Real; ROWS] {
        let lanes = T::Real::lanes(cpu);
        let n = <T::Real as Real>::Lanes::<C>::N;
        if !is_finite {
            self.takes_part.clear();
            let scores = &self.scores[..tile.len() * self.stride];
            self.takes_part.extend(scores.iter().map(|&score| score != T::Real::NEG_INFINITY));
        }
        // Room for whole vectors.
        let mut factors = [T::Real::ZERO; 16];
        for (index, row) in tile.clone().enumerate() {
            let mut top = lanes.splat(T::Real::NEG_INFINITY);
            for scores in self.scores[index * self.stride..][columns.clone()].chunks_exact(n) {
                // SAFETY: the chunk is a whole vector. A NaN is passed over; the sum gets it.
                top = lanes.max(unsafe { lanes.load(scores.as_ptr()) }, top);
            }
            let (old, new) = (self.tops[row], lanes.max_lane(top));
            self.tops[row] = if new > old { new } else { old };
            factors[index] = old - finite(self.tops[row]);
        }
        for factors in factors[..ROWS.next_multiple_of(n)].chunks_exact_mut(n) {
            // SAFETY: the chunk is a whole vector.
            unsafe {
                let factor = exp_below(lanes, lanes.load(factors.as_ptr()));
                lanes.store(factors.as_mut_ptr(), factor);
            }
        }
        for (index, row) in tile.enumerate() {
            let top = lanes.splat(finite(self.tops[row]));
            let mut sum = lanes.splat(T::Real::ZERO);
            for scores in self.scores[index * self.stride..][columns.clone()].chunks_exact_mut(n) {
                // SAFETY: the chunk is a whole vector.
                unsafe {
                    let weight = exp_below(lanes, lanes.sub(lanes.load(scores.as_ptr()), top));
                    sum = lanes.add(sum, weight);
                    lanes.store(scores.as_mut_ptr(), weight);
                }
            }
            self.sums[row] = self.sums[row] * factors[index] + lanes.sum(sum);
        }
        let mut result = [T::Real::ZERO; ROWS];
        result.copy_from_slice(&factors[..ROWS]);
        result
    }
}

/// What scores are compared with: `top`, or 0 while no score is above -inf.
#[inline(always)]
pub(super) fn finite<R: Real>(top: R) -> R {
    if top == R::NEG_INFINITY { R::ZERO } else { top }
}
