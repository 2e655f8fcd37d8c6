//! Which keys a query may look at by position alone: causal order and a window, both along the diagonal.

use std::ops::Range;

use crate::{Error, Result};

/// Which key stands opposite query 0 when there are more keys than queries, or fewer.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Default)]
pub enum Align {
    /// The last query stands opposite the last key: query i is at position i + n_k - n_q. What a KV cache needs.
    #[default]
    BottomRight,
    /// Query 0 stands opposite key 0. What PyTorch's `is_causal` and ONNX without a cache mean.
    TopLeft,
}

impl Align {
    /// The alignment that has this name.
    pub fn named(name: &str) -> Result<Self> {
        match name {
            "bottom_right" => Ok(Align::BottomRight),
            "top_left" => Ok(Align::TopLeft),
            _ => Err(Error::name("align", name, "\"bottom_right\" or \"top_left\"")),
        }
    }
}

/// `window_size` as a caller gives it.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Default)]
pub enum WindowSize {
    /// No window.
    #[default]
    Unbounded,
    /// `w`: `w / 2` keys on each side (Longformer); when causal the query's own key and `w - 1` before it (Mistral).
    Keys(i64),
    /// `(left, right)`, inclusive, -1 is unbounded (FlashAttention, ONNX).
    Pair(i64, i64),
}

impl WindowSize {
    /// The error for a number that is none of these.
    pub fn out_of_range(given: String) -> Error {
        Error::Range {
            argument: "window_size",
            given,
            allowed: "None, a whole number of at least 1, or a pair (left, right) of numbers of at least -1",
        }
    }
}

/// The keys from `position - left` to `position + right`, both included; `None` is unbounded.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Default)]
pub struct Window {
    /// How many keys before the query's own.
    pub left: Option<usize>,
    /// How many keys after the query's own.
    pub right: Option<usize>,
}

impl Window {
    /// The window that `window_size` means; causal order cuts its right edge to 0.
    pub fn new(window_size: WindowSize, is_causal: bool) -> Result<Self> {
        let side = |edge: i64, given: &dyn Fn() -> String| match edge {
            -1 => Ok(None),
            edge => usize::try_from(edge).map(Some).map_err(|_| WindowSize::out_of_range(given())),
        };
        let (left, right) = match window_size {
            WindowSize::Unbounded => (None, None),
            WindowSize::Keys(keys) => {
                let keys = usize::try_from(keys)
                    .ok()
                    .filter(|&keys| keys > 0)
                    .ok_or_else(|| WindowSize::out_of_range(keys.to_string()))?;
                if is_causal { (Some(keys - 1), Some(0)) } else { (Some(keys / 2), Some(keys / 2)) }
            }
            WindowSize::Pair(left, right) => {
                let given = || format!("({left}, {right})");
                (side(left, &given)?, side(right, &given)?)
            }
        };
        Ok(Self { left, right: if is_causal { Some(0) } else { right } })
    }
}

/// A [`Window`] laid over a matrix of `n_q` queries and `n_k` keys.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub struct Band {
    window: Window,
    /// The position of query 0, counted in keys.
    first: isize,
    n_k: usize,
}

impl Band {
    /// The band of `window` in a matrix of this size.
    pub fn new(window: Window, align: Align, n_q: usize, n_k: usize) -> Self {
        let first = match align {
            // Lengths of axes of an array fit an isize.
            Align::BottomRight => n_k as isize - n_q as isize,
            Align::TopLeft => 0,
        };
        Self { window, first, n_k }
    }

    /// The keys that `query` may look at.
    pub fn keys(&self, query: usize) -> Range<usize> {
        let position = self.first.saturating_add_unsigned(query);
        let edge = |edge: isize| usize::try_from(edge).unwrap_or(0).min(self.n_k);
        let start = self.window.left.map_or(0, |left| edge(position.saturating_sub_unsigned(left)));
        let end =
            self.window.right.map_or(self.n_k, |right| edge(position.saturating_add_unsigned(right).saturating_add(1)));
        start..end.max(start)
    }

    /// The keys that any of `queries` may look at, as one range.
    pub fn keys_of_any(&self, queries: Range<usize>) -> Range<usize> {
        if queries.is_empty() {
            return 0..0;
        }
        // Both edges grow with the query.
        self.keys(queries.start).start..self.keys(queries.end - 1).end
    }

    /// About how many keys the query with the most of them may look at, out of `n_q` queries.
    pub fn widest(&self, n_q: usize) -> usize {
        // The edges of the matrix cut into the bands of the first and the last queries.
        let some = [0, n_q / 2, n_q.saturating_sub(1)].map(|query| self.keys(query).len());
        some.into_iter().max().unwrap_or(0)
    }

    /// No query may look at more keys.
    pub fn most(&self) -> usize {
        match self.window {
            Window { left: Some(left), right: Some(right) } => {
                left.saturating_add(right).saturating_add(1).min(self.n_k)
            }
            _ => self.n_k,
        }
    }

    /// Whether every query may look at every key.
    pub fn is_everything(&self) -> bool {
        self.window == Window::default()
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    fn keys(window_size: WindowSize, is_causal: bool, align: Align, n_q: usize, n_k: usize) -> Vec<Range<usize>> {
        let band = Band::new(Window::new(window_size, is_causal).unwrap(), align, n_q, n_k);
        (0..n_q).map(|query| band.keys(query)).collect()
    }

    #[test]
    fn both_edges_are_included() {
        let pair = keys(WindowSize::Pair(1, 2), false, Align::TopLeft, 5, 5);
        assert_eq!(pair, [0..3, 0..4, 1..5, 2..5, 3..5]);
        assert_eq!(keys(WindowSize::Keys(3), false, Align::TopLeft, 3, 5), [0..2, 0..3, 1..4]);
    }

    #[test]
    fn an_even_width_is_cut_in_half_and_a_causal_one_has_exactly_that_many_keys() {
        let half = Window::new(WindowSize::Keys(4), false);
        assert_eq!(half, Ok(Window { left: Some(2), right: Some(2) }));
        assert_eq!(Window::new(WindowSize::Keys(1), false), Ok(Window { left: Some(0), right: Some(0) }));
        assert_eq!(keys(WindowSize::Keys(2), true, Align::TopLeft, 4, 4), [0..1, 0..2, 1..3, 2..4]);
    }

    #[test]
    fn causal_order_cuts_the_right_edge_of_a_pair() {
        assert_eq!(keys(WindowSize::Pair(1, 7), true, Align::TopLeft, 3, 3), [0..1, 0..2, 1..3]);
        assert_eq!(keys(WindowSize::Pair(-1, 7), true, Align::TopLeft, 3, 3), [0..1, 0..2, 0..3]);
    }

    #[test]
    fn the_last_query_stands_opposite_the_last_key_or_the_first_opposite_the_first() {
        assert_eq!(keys(WindowSize::Unbounded, true, Align::BottomRight, 2, 5), [0..4, 0..5]);
        assert_eq!(keys(WindowSize::Unbounded, true, Align::TopLeft, 2, 5), [0..1, 0..2]);
        let nothing_yet = keys(WindowSize::Unbounded, true, Align::BottomRight, 4, 2);
        assert_eq!(nothing_yet, [0..0, 0..0, 0..1, 0..2]);
        assert_eq!(keys(WindowSize::Pair(0, 0), false, Align::TopLeft, 4, 2)[3], 2..2);
    }

    #[test]
    fn edges_beyond_the_matrix_saturate() {
        assert_eq!(keys(WindowSize::Pair(i64::MAX, i64::MAX), false, Align::BottomRight, 2, 3), [0..3, 0..3]);
        assert_eq!(keys(WindowSize::Keys(i64::MAX), true, Align::BottomRight, 2, 3), [0..2, 0..3]);
    }

    #[test]
    fn the_union_of_a_run_of_queries_is_one_range() {
        let band = Band::new(Window { left: Some(1), right: Some(1) }, Align::TopLeft, 10, 10);
        assert_eq!(band.keys_of_any(3..6), 2..7);
        assert_eq!(band.keys_of_any(3..3), 0..0);
    }

    #[test]
    fn no_query_looks_at_more_keys_than_the_most() {
        for (n_q, n_k) in [(10, 3), (3, 10), (5, 5), (1, 1)] {
            for (left, right) in
                [(Some(1), Some(1)), (Some(0), Some(4)), (None, Some(0)), (Some(2), None), (None, None)]
            {
                for align in [Align::TopLeft, Align::BottomRight] {
                    let band = Band::new(Window { left, right }, align, n_q, n_k);
                    assert!((0..n_q).all(|query| band.keys(query).len() <= band.most()));
                }
            }
        }
    }

    #[test]
    fn other_widths_and_names_are_refused() {
        for window_size in [WindowSize::Keys(0), WindowSize::Keys(-3), WindowSize::Pair(-2, 0), WindowSize::Pair(0, -9)]
        {
            assert!(matches!(Window::new(window_size, false), Err(Error::Range { argument: "window_size", .. })));
        }
        assert!(matches!(Align::named("left"), Err(Error::Range { argument: "align", .. })));
    }
}
