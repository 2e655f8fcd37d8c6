//! What a cache was asked to be, and the conversions of arguments, each with a clear error.

use pyo3::PyTraverseError;
use pyo3::exceptions::PyOverflowError;
use pyo3::gc::PyVisit;
use pyo3::prelude::*;
use pyo3::types::PyBool;
use zerocost_kernels::excerpt;
use zerocost_kernels::memory::{PolicyKind, Ttl};

use super::weigh::Weighing;
use crate::error::{DatatypeError, RangeError};
use crate::options::{given, is_refusal, number};

/// An argument that may be left out.
pub type Argument<'a, 'py> = Option<&'a Bound<'py, PyAny>>;

/// The signature of `LRUCache`, which pyo3 keeps to itself.
pub const SIGNATURE: &str = "(max_entries=None, max_bytes=None, *, ttl=None, tti=None, ttl_jitter=0.0, \
    policy='lru', on_evict=None, sizeof=None, freeze=False, clock=None)";

/// What the core does not know of.
#[derive(Default)]
pub struct Settings {
    pub weighing: Weighing,
    pub on_evict: Option<Py<PyAny>>,
    pub clock: Option<Py<PyAny>>,
    pub freeze: bool,
}

impl Settings {
    /// True if values are stored as they come.
    pub fn is_plain(&self) -> bool {
        matches!(self.weighing, Weighing::Nothing) && !self.freeze
    }

    pub fn traverse(&self, visit: &PyVisit<'_>) -> Result<(), PyTraverseError> {
        visit.call(&self.on_evict)?;
        visit.call(&self.clock)?;
        self.weighing.traverse(visit)
    }
}

/// A bound: a positive int, or None.
pub fn bound(name: &'static str, value: Argument<'_, '_>) -> PyResult<Option<u64>> {
    let Some(value) = value else { return Ok(None) };
    if value.is_instance_of::<PyBool>() {
        return Err(wrong_type(name, value, "an int or None"));
    }
    match value.extract::<u64>() {
        Ok(bound) if bound > 0 => Ok(Some(bound)),
        Err(error) if !is_refusal(value.py(), &error) => Err(error),
        Err(error) if !error.is_instance_of::<PyOverflowError>(value.py()) => {
            Err(wrong_type(name, value, "an int or None"))
        }
        Err(_) if value.gt(0)? => Ok(Some(u64::MAX)),
        _ => Err(out_of_range(name, value, "a number of 1 or more")),
    }
}

/// A time in seconds as nanoseconds; None for one that never ends.
pub fn seconds(name: &'static str, value: &Bound<'_, PyAny>) -> PyResult<Option<i64>> {
    let seconds: f64 = match value.extract() {
        Ok(seconds) if !value.is_instance_of::<PyBool>() => seconds,
        Err(error) if error.is_instance_of::<PyOverflowError>(value.py()) && value.gt(0)? => f64::INFINITY,
        Err(error) if !is_refusal(value.py(), &error) => return Err(error),
        _ => return Err(wrong_type(name, value, "a number of seconds")),
    };
    if seconds.is_nan() || seconds <= 0.0 {
        return Err(out_of_range(name, value, "more than 0 seconds"));
    }
    let nanoseconds = nanoseconds(seconds);
    Ok((nanoseconds < i64::MAX).then_some(nanoseconds.max(1)))
}

/// What share of a time to live is left to chance.
pub fn jitter(value: &Bound<'_, PyAny>) -> PyResult<f64> {
    number(value, "ttl_jitter")
}

/// Saturates at both ends.
pub fn nanoseconds(seconds: f64) -> i64 {
    (seconds * 1e9).round() as i64
}

/// The time to live that a put asks for.
pub fn ttl(value: Argument<'_, '_>) -> PyResult<Ttl> {
    let Some(value) = value else { return Ok(Ttl::Default) };
    Ok(seconds("ttl", value)?.map_or(Ttl::Never, Ttl::For))
}

/// A policy by its name.
pub fn policy(name: &str) -> PyResult<PolicyKind> {
    let policies = [PolicyKind::Lru, PolicyKind::Sieve, PolicyKind::TinyLfu];
    policies.into_iter().find(|&policy| policy_name(policy) == name).ok_or_else(|| {
        let text = format!("policy: '{}' was given, 'lru', 'sieve' or 'w-tinylfu' is allowed", excerpt(name));
        RangeError::new_err((text, "policy"))
    })
}

/// The name of a policy.
pub fn policy_name(policy: PolicyKind) -> &'static str {
    match policy {
        PolicyKind::Lru => "lru",
        PolicyKind::Sieve => "sieve",
        PolicyKind::TinyLfu => "w-tinylfu",
    }
}

/// Something to call, or None.
pub fn callable(name: &'static str, value: Argument<'_, '_>) -> PyResult<Option<Py<PyAny>>> {
    match value {
        Some(value) if !value.is_callable() => Err(wrong_type(name, value, "a callable or None")),
        value => Ok(value.map(|value| value.clone().unbind())),
    }
}

fn wrong_type(name: &'static str, value: &Bound<'_, PyAny>, allowed: &str) -> PyErr {
    DatatypeError::new_err((format!("{name}: {} was given, {allowed} is needed", value.get_type()), name))
}

fn out_of_range(name: &'static str, value: &Bound<'_, PyAny>, allowed: &str) -> PyErr {
    RangeError::new_err((format!("{name}: {} was given, {allowed} is allowed", given(value)), name))
}
