//! Where to cut a row: the search, and what is done where it cannot tell NaNs apart.

use super::floats::Floats;
use super::order::Cut;
use super::search::Search;
use crate::Result;
use crate::arch::{Lanes, Real, WIDEST};
use crate::buffer::reserved;

/// Bytes of a page.
const PAGE: usize = 4096;

/// Room for the keys of one row; finds where to cut it.
#[derive(Debug)]
pub(crate) struct CutFinder<R: Real> {
    from: Vec<R::Int>,
    to: Vec<R::Int>,
    /// A row whose NaNs have been made the same.
    unified: Vec<R>,
}

impl<R: Real> CutFinder<R> {
    /// Room for rows of at most `len` floats; for 0 nothing is asked for.
    ///
    /// # Errors
    /// There is not so much memory.
    pub(crate) fn new(len: usize) -> Result<Self> {
        // A vector more, for the padding of candidates, at any level.
        let room = if len == 0 { 0 } else { len.next_multiple_of(WIDEST).saturating_add(WIDEST) };
        // Rarely needed; less than a page is not asked for before it is.
        let unified = reserved(if room > PAGE / size_of::<R>() { room } else { 0 })?;
        Ok(Self { from: reserved(room)?, to: reserved(room)?, unified })
    }

    /// Where to cut so that exactly `k` of the row's floats are kept, 1 ≤ `k` ≤ its length; and the row, or a copy of it
    /// in which all NaNs are positive and have the same bits.
    #[inline(always)]
    pub(crate) fn cut<'a, L>(&'a mut self, lanes: L, row: Floats<'a, R>, k: usize) -> (Cut<R::Int>, Floats<'a, R>)
    where
        L: Lanes<Scalar = R>,
    {
        debug_assert!(1 <= k && k <= row.len());
        let mut is_unified = false;
        let cut = loop {
            let floats = if is_unified { Floats::from(&self.unified[..row.len()]) } else { row };
            match Search::new(lanes, floats, &mut self.from, &mut self.to).run(k, is_unified) {
                Some(cut) => break cut,
                // With one kind of NaN there always is a cut.
                None if is_unified => break Cut { key: R::INT_MAX, ties: k },
                // Several kinds of NaN may have been told apart.
                None => unify(lanes, row, &mut self.unified),
            }
            is_unified = true;
        };
        (cut, if is_unified { Floats::from(&self.unified[..row.len()]) } else { row })
    }
}

/// The row with one kind of NaN, in `to`.
#[inline(always)]
fn unify<L: Lanes>(lanes: L, row: Floats<'_, L::Scalar>, to: &mut Vec<L::Scalar>) {
    to.resize(row.len().next_multiple_of(L::N), L::Scalar::ZERO);
    let nan = lanes.splat(L::Scalar::of_bits(L::Scalar::INT_MAX));
    for (index, to) in (0..row.len()).step_by(L::N).zip(to.chunks_exact_mut(L::N)) {
        let float = row.vector(lanes, index);
        // SAFETY: the chunk is a whole vector.
        unsafe { lanes.store(to.as_mut_ptr(), lanes.select(lanes.eq(float, float), float, nan)) };
    }
}
