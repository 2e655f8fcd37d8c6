//! What a caller chooses, and the checks of it and of the inputs.

use super::shape::{Operand, Problem};
use crate::arch::{Element, Real};
use crate::attention::{Align, Band, Window, kept};
use crate::view::View;
use crate::{Error, Result};

/// What takes part besides the band; broadcasts to `[..., h_q, n_q, n_k]` as in NumPy.
#[derive(Debug, Clone)]
pub enum Mask<'a, T> {
    /// Bytes: a key takes part where the byte is not 0.
    Bool(View<'a, u8>),
    /// Added to the scores; -inf masks.
    Float(View<'a, T>),
}

/// Scaled dot product attention: `softmax(mask(softcap(scale · q kᵀ))) v`, computed tile by tile (online softmax).
///
/// A key takes part for a query if the window allows it, the mask does, its score is not -inf, and it is among the
/// largest when there is a `sparsity_ratio`. Keys and values that take no part are never seen in the result, whatever
/// is in them. A row in which no key takes part is 0.
#[derive(Debug, Clone)]
pub struct Attention<'a, T> {
    /// Multiplies `q · k`; `None` is `1 / sqrt(d)`.
    pub scale: Option<f64>,
    /// The keys around a query's position that it may look at; causal order is a right edge of 0.
    pub window: Window,
    /// Which key stands opposite query 0.
    pub align: Align,
    /// A cap `c` turns a score `s` into `c · tanh(s / c)`; 0 is none.
    pub softcap: f64,
    /// Drops this share of `n_k` keys in each row, the smallest scores first.
    pub sparsity_ratio: Option<f64>,
    /// See [`Mask`].
    pub mask: Option<Mask<'a, T>>,
    /// `[h_q]`: a logit for each head that is added to the denominator only, neither scaled nor capped.
    pub sinks: Option<View<'a, T>>,
}

impl<T> Default for Attention<'_, T> {
    fn default() -> Self {
        Self {
            scale: None,
            window: Window::default(),
            align: Align::default(),
            softcap: 0.0,
            sparsity_ratio: None,
            mask: None,
            sinks: None,
        }
    }
}

/// A call whose arguments have been checked: numbers, shapes, strides.
#[derive(Debug)]
pub(crate) struct Checked {
    pub(crate) problem: Problem,
    pub(crate) band: Band,
    pub(crate) scale: f64,
    pub(crate) softcap: Option<f64>,
    /// How many keys a row keeps.
    pub(crate) keep: Option<usize>,
    pub(crate) mask: Option<Operand>,
    /// The step from one head's sink to the next.
    pub(crate) sink_stride: isize,
}

impl<T: Element> Attention<'_, T> {
    /// Checks everything but the output.
    pub(crate) fn check(&self, query: &View<'_, T>, key: &View<'_, T>, value: &View<'_, T>) -> Result<Checked> {
        let problem = Problem::new(query.layout(), key.layout(), value.layout())?;
        let scale = match self.scale {
            // No product at all is a score of 0, however it is scaled.
            None if problem.d == 0 => 1.0,
            None => 1.0 / (problem.d as f64).sqrt(),
            Some(scale) if is_finite::<T::Real>(scale) => scale,
            Some(scale) => {
                let allowed = if T::Real::LARGEST.to_f64() == f64::MAX {
                    "a finite number (None is 1 / sqrt(d))"
                } else {
                    "a number of at most 3.4e38 either side of 0, as float32 holds it (None is 1 / sqrt(d)),"
                };
                return Err(Error::Range { argument: "scale", given: number(scale), allowed });
            }
        };
        if !(self.softcap >= 0.0 && is_finite::<T::Real>(self.softcap)) {
            let allowed = if T::Real::LARGEST.to_f64() == f64::MAX {
                "a finite number of at least 0 (0 is no cap)"
            } else {
                "a number from 0 (no cap) to 3.4e38, as float32 holds it,"
            };
            return Err(Error::Range { argument: "softcap", given: number(self.softcap), allowed });
        }
        let mask = match &self.mask {
            Some(Mask::Bool(mask)) => Some(problem.mask(mask.layout())?),
            Some(Mask::Float(mask)) => Some(problem.mask(mask.layout())?),
            None => None,
        };
        Ok(Checked {
            band: Band::new(self.window, self.align, problem.n_q, problem.n_k),
            scale,
            softcap: (self.softcap > 0.0).then_some(self.softcap),
            keep: self.sparsity_ratio.map(|ratio| checked_kept(ratio, problem.n_k)).transpose()?,
            mask,
            sink_stride: self.sinks.as_ref().map_or(Ok(0), |sinks| problem.sinks(sinks.layout()))?,
            problem,
        })
    }

    /// The shape of the output: `[..., h_q, n_q, d_v]`, leading axes broadcast. Checks every argument but the output.
    pub fn output_shape(&self, query: &View<'_, T>, key: &View<'_, T>, value: &View<'_, T>) -> Result<Vec<usize>> {
        Ok(self.check(query, key, value)?.problem.output_shape())
    }
}

/// Whether the type that is computed in holds this number.
fn is_finite<R: Real>(number: f64) -> bool {
    number.abs() <= R::LARGEST.to_f64()
}

/// As it would be written: 1e39 is not 40 digits.
fn number(number: f64) -> String {
    if number.abs() >= 1e16 { format!("{number:e}") } else { number.to_string() }
}

/// How many of `n_k` keys a `sparsity_ratio` keeps.
fn checked_kept(sparsity_ratio: f64, n_k: usize) -> Result<usize> {
    if !(0.0..1.0).contains(&sparsity_ratio) {
        let allowed = "a number of at least 0 and below 1";
        return Err(Error::Range { argument: "sparsity_ratio", given: sparsity_ratio.to_string(), allowed });
    }
    Ok(kept(n_k, sparsity_ratio))
}
