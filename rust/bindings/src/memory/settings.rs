//! What a cache was asked to be: conversions of arguments, each with a clear error.

use pyo3::prelude::*;
use pyo3::types::{PyBool, PyInt};
use zerocost_kernels::memory::{PolicyKind, Ttl};

use crate::error::{DatatypeError, RangeError};

type Argument<'a, 'py> = Option<&'a Bound<'py, PyAny>>;

/// A bound: a positive int, or None.
pub fn bound(name: &'static str, value: Argument<'_, '_>) -> PyResult<Option<u64>> {
    let Some(value) = value else { return Ok(None) };
    if value.is_instance_of::<PyBool>() {
        return Err(wrong_type(name, value, "an int or None"));
    }
    // NumPy's integers are none of Python's, but have an index.
    let number = value.call_method0("__index__").map_err(|_| wrong_type(name, value, "an int or None"))?;
    let number = number.cast_into::<PyInt>()?;
    match number.extract::<u64>() {
        Ok(bound) if bound > 0 => Ok(Some(bound)),
        Err(_) if number.gt(0)? => Ok(Some(u64::MAX)),
        _ => Err(out_of_range(name, value, "a number of 1 or more")),
    }
}

/// A time in seconds as nanoseconds; None for one that never ends.
pub fn seconds(name: &'static str, value: &Bound<'_, PyAny>) -> PyResult<Option<i64>> {
    let seconds: f64 = match value.extract() {
        Ok(seconds) if !value.is_instance_of::<PyBool>() => seconds,
        _ => return Err(wrong_type(name, value, "a number of seconds")),
    };
    if seconds.is_nan() || seconds <= 0.0 {
        return Err(out_of_range(name, value, "more than 0 seconds"));
    }
    let nanoseconds = nanoseconds(seconds);
    Ok((nanoseconds < i64::MAX).then_some(nanoseconds.max(1)))
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
        let text = format!("policy: '{name}' was given, 'lru', 'sieve' or 'w-tinylfu' is allowed");
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
    match value.repr() {
        Ok(given) => RangeError::new_err((format!("{name}: {given} was given, {allowed} is allowed"), name)),
        Err(error) => error,
    }
}
