//! What a cache is made with.

use crate::{Error, Result};

/// What a cache is made with.
#[derive(Debug, Clone, Copy, Default)]
pub struct Config {
    /// At most this many entries.
    pub max_entries: Option<u64>,
    /// At most this many bytes.
    pub max_bytes: Option<u64>,
    /// How long entries live.
    pub timing: Timing,
    /// Which entry goes next.
    pub policy: PolicyKind,
    /// Where the drawing of jitter begins.
    pub seed: u64,
}

/// How long the entries of a cache live unless their put says otherwise; nanoseconds.
#[derive(Debug, Clone, Copy, Default, PartialEq)]
pub struct Timing {
    /// From the put.
    pub ttl: Option<i64>,
    /// From the last use.
    pub tti: Option<i64>,
    /// A time to live `t` is drawn from `[t * (1 - jitter), t]`.
    pub jitter: f64,
}

/// The policies by name.
#[derive(Debug, Clone, Copy, Default, PartialEq, Eq)]
pub enum PolicyKind {
    /// Least recently used.
    #[default]
    Lru,
    /// SIEVE (Zhang et al., NSDI 2024).
    Sieve,
    /// W-TinyLFU (Einziger et al., 2017), as Caffeine has it, without its hill climber.
    TinyLfu,
}

impl Config {
    pub(super) fn check(&self) -> Result<()> {
        let positive = |argument, bound: Option<u64>| match bound {
            Some(0) => Err(Error::Range { argument, given: "0".to_owned(), allowed: "a number of 1 or more" }),
            _ => Ok(()),
        };
        positive("max_entries", self.max_entries)?;
        positive("max_bytes", self.max_bytes)?;
        if self.max_entries.is_none() && self.max_bytes.is_none() {
            let problem = "max_entries and max_bytes are both None, at least one bound is needed";
            return Err(Error::Conflict { argument: "max_entries", problem });
        }
        if !(0.0..=1.0).contains(&self.timing.jitter) {
            let given = self.timing.jitter.to_string();
            return Err(Error::Range { argument: "ttl_jitter", given, allowed: "a number from 0 to 1" });
        }
        let lasting = |argument, time: Option<i64>| match time {
            Some(time) if time <= 0 => {
                let given = (time as f64 / 1e9).to_string();
                Err(Error::Range { argument, given, allowed: "more than 0 seconds" })
            }
            _ => Ok(()),
        };
        lasting("ttl", self.timing.ttl)?;
        lasting("tti", self.timing.tti)
    }
}

/// Bounds, or a share of them, in entries and in bytes.
#[derive(Debug, Clone, Copy, Default)]
pub(super) struct Bounds {
    pub(super) entries: Option<u64>,
    pub(super) bytes: Option<u64>,
}

impl Bounds {
    pub(super) fn exceeded_by(&self, entries: u64, bytes: u128) -> bool {
        self.entries.is_some_and(|bound| entries > bound) || self.bytes.is_some_and(|bound| bytes > bound.into())
    }
}
