//! The CPU levels. The best one that the CPU has is chosen once, at run time; `ZEROCOST_CPU` forces another.

use std::sync::OnceLock;

use crate::{Error, Result};

/// A set of vector instructions that every kernel has a version for.
#[derive(Debug, Clone, Copy, PartialEq, Eq, PartialOrd, Ord)]
pub enum Level {
    /// Portable code, no vector intrinsics.
    Scalar,
    /// 256-bit vectors with fused multiply-add (x86-64).
    Avx2,
    /// 512-bit vectors (x86-64: AVX-512 F, BW, DQ, VL).
    Avx512,
    /// 128-bit vectors (AArch64).
    Neon,
}

impl Level {
    /// Every level, in ascending order.
    pub const ALL: [Level; 4] = [Level::Scalar, Level::Avx2, Level::Avx512, Level::Neon];

    /// The name that `ZEROCOST_CPU` takes.
    pub fn name(self) -> &'static str {
        match self {
            Level::Scalar => "scalar",
            Level::Avx2 => "avx2",
            Level::Avx512 => "avx512",
            Level::Neon => "neon",
        }
    }

    /// Whether this CPU has it.
    pub fn is_available(self) -> bool {
        match self {
            Level::Scalar => true,
            #[cfg(target_arch = "x86_64")]
            Level::Avx2 => is_x86_feature_detected!("avx2") && is_x86_feature_detected!("fma"),
            #[cfg(target_arch = "x86_64")]
            Level::Avx512 => {
                Level::Avx2.is_available()
                    && is_x86_feature_detected!("avx512f")
                    && is_x86_feature_detected!("avx512bw")
                    && is_x86_feature_detected!("avx512dq")
                    && is_x86_feature_detected!("avx512vl")
            }
            #[cfg(target_arch = "aarch64")]
            Level::Neon => true,
            #[allow(unreachable_patterns, reason = "which levels are left depends on the target")]
            _ => false,
        }
    }

    /// Every level that this CPU has.
    pub fn available() -> impl Iterator<Item = Level> {
        Level::ALL.into_iter().filter(|level| level.is_available())
    }

    /// The best level that this CPU has.
    fn best() -> Level {
        Level::available().last().unwrap_or(Level::Scalar)
    }

    fn named(name: &str) -> Result<Level> {
        Level::available().find(|level| level.name() == name).ok_or_else(|| Error::Range {
            argument: "ZEROCOST_CPU",
            given: name.to_owned(),
            allowed: "scalar, avx2, avx512 or neon, as far as this CPU has it",
        })
    }

    /// The level in use: what `ZEROCOST_CPU` says, otherwise the best. An unknown or missing level is an error; it is
    /// read once, at the first call.
    pub fn current() -> Result<Level> {
        static CURRENT: OnceLock<Result<Level>> = OnceLock::new();
        CURRENT
            .get_or_init(|| match std::env::var("ZEROCOST_CPU") {
                Ok(name) if !name.is_empty() => Level::named(&name),
                _ => Ok(Level::best()),
            })
            .clone()
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn the_portable_level_is_always_there() {
        assert!(Level::available().any(|level| level == Level::Scalar));
        assert_eq!(Level::named("scalar"), Ok(Level::Scalar));
        assert!(Level::named("sse9").is_err());
    }
}
