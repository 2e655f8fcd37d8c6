//! What a caller chooses, and the checks that do not depend on the matrix.

use crate::attention::{Align, Window, WindowSize};
use crate::{Error, Result};

/// What becomes of the entries that are kept.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Default)]
pub enum Normalization {
    /// They come back bit for bit.
    #[default]
    None,
    /// The matrix holds scores: softmax over the kept ones. A row of only -inf becomes 0; +inf or NaN give NaN.
    Softmax,
    /// The matrix holds weights: the kept ones are divided by their sum. A sum of 0 gives a row of 0.
    Sum,
}

impl Normalization {
    /// The normalisation that has this name.
    pub fn named(name: &str) -> Result<Self> {
        match name {
            "none" => Ok(Normalization::None),
            "softmax" => Ok(Normalization::Softmax),
            "sum" => Ok(Normalization::Sum),
            _ => Err(Error::name("normalization", name, "\"none\", \"softmax\" or \"sum\"")),
        }
    }
}

/// Attention on a given matrix: which entries of a row are kept, and what becomes of them.
///
/// Allowed are the entries in the window, and under causal order those that are not in the query's future. Of these the
/// largest are kept if `sparsity_ratio` says so, otherwise all. Everything else becomes 0.
#[derive(Debug, Clone, Copy, PartialEq)]
pub struct MatrixAttention {
    /// The share of a row's entries to drop, 0 ≤ ratio < 1; see [`kept`]. `None` keeps every allowed entry.
    pub sparsity_ratio: Option<f64>,
    /// Which keys a query may look at.
    pub window_size: WindowSize,
    /// Whether a query may look at keys of its own position and before only.
    pub is_causal: bool,
    /// Where query 0 stands when there are more keys than queries, or fewer.
    pub align: Align,
    /// What becomes of the kept entries.
    pub normalization: Normalization,
    /// Scores are divided by it before the softmax; at least 1e-30 and finite, and 1 without softmax.
    pub temperature: f64,
}

impl Default for MatrixAttention {
    /// Keeps everything as it is.
    fn default() -> Self {
        Self {
            sparsity_ratio: None,
            window_size: WindowSize::Unbounded,
            is_causal: false,
            align: Align::BottomRight,
            normalization: Normalization::None,
            temperature: 1.0,
        }
    }
}

/// The lowest temperature: float32 holds the inverse of no much lower one.
const COLDEST: f64 = 1e-30;

/// What the output holds before the call.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub enum Before {
    /// Anything.
    Anything,
    /// Zeros: what is dropped need not be written.
    Zeros,
}

/// How many of `n_k` entries are kept: `min(n_k, max(1, n_k - floor(ratio * n_k + 1e-9)))`. The small term makes 0.8
/// keep 2 of 10 although 0.8 * 10 is a little less than 8 in floating point.
pub fn kept(n_k: usize, ratio: f64) -> usize {
    let dropped = (ratio * n_k as f64 + 1e-9).floor() as usize;
    n_k.saturating_sub(dropped).max(1).min(n_k)
}

impl MatrixAttention {
    /// Whether a part of the output may be left to zeros that are there already ([`Before::Zeros`]).
    pub fn leaves_zeros(&self) -> bool {
        self.is_causal || self.window_size != WindowSize::Unbounded
    }

    /// Checks everything that does not depend on the matrix.
    pub fn check(&self) -> Result<Window> {
        if let Some(ratio) = self.sparsity_ratio
            && !(0.0..1.0).contains(&ratio)
        {
            return Err(Error::Range {
                argument: "sparsity_ratio",
                given: ratio.to_string(),
                allowed: "0 <= sparsity_ratio < 1",
            });
        }
        if !(self.temperature >= COLDEST && self.temperature.is_finite()) {
            return Err(Error::Range {
                argument: "temperature",
                given: self.temperature.to_string(),
                allowed: "a finite number of at least 1e-30",
            });
        }
        if self.temperature != 1.0 && self.normalization != Normalization::Softmax {
            return Err(Error::Conflict {
                argument: "temperature",
                problem: "only normalization=\"softmax\" has a temperature; leave it at 1.0 otherwise",
            });
        }
        Window::new(self.window_size, self.is_causal)
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn as_many_are_kept_as_the_ratio_says() {
        assert_eq!([10, 5, 128].map(|n_k| kept(n_k, 0.8)), [2, 1, 26]);
        assert_eq!([kept(0, 0.5), kept(1, 0.99), kept(7, 0.0), kept(3, 0.8)], [0, 1, 7, 1]);
        assert_eq!(kept(1 << 40, 0.5), 1 << 39);
    }

    #[test]
    fn a_temperature_whose_inverse_a_type_may_not_hold_is_refused() {
        let softmax = MatrixAttention { normalization: Normalization::Softmax, ..Default::default() };
        assert!(MatrixAttention { temperature: 1e-30, ..softmax }.check().is_ok());
        for temperature in [9e-31, 0.0, -1.0, f64::NAN, f64::INFINITY] {
            let error = MatrixAttention { temperature, ..softmax }.check().unwrap_err();
            assert!(matches!(error, Error::Range { argument: "temperature", .. }));
            assert!(error.to_string().contains("at least 1e-30"), "{error}");
        }
    }
}
