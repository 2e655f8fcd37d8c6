//! Which level runs: the best that the CPU has, unless `ZEROCOST_CPU` forces another.

use std::sync::OnceLock;

#[cfg(target_arch = "x86_64")]
use super::avx2::Avx2;
#[cfg(target_arch = "x86_64")]
use super::avx512::{Avx512, Avx512Dots};
use super::lanes::Cpu;
#[cfg(target_arch = "aarch64")]
use super::neon::Neon;
use super::scalar::Scalar;
use super::{Task, dots};
use crate::{Error, Result, excerpt};

/// A set of vector instructions that every kernel has a version for.
#[derive(Debug, Clone, Copy, PartialEq, Eq, PartialOrd, Ord)]
pub enum Level {
    /// Portable code, no vector intrinsics.
    Scalar,
    /// 256-bit vectors (x86-64: AVX2, FMA, F16C, BMI1, BMI2, LZCNT, POPCNT).
    Avx2,
    /// 512-bit vectors (x86-64: AVX-512 F, BW, DQ, VL, and what `Avx2` needs).
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
            Level::Avx2 => Avx2::detect().is_some(),
            #[cfg(target_arch = "x86_64")]
            Level::Avx512 => Avx512::detect().is_some(),
            #[cfg(target_arch = "aarch64")]
            Level::Neon => Neon::detect().is_some(),
            #[allow(unreachable_patterns, reason = "which levels are left depends on the target")]
            _ => false,
        }
    }

    /// Whether this CPU can multiply bfloat16 as they are at this level.
    pub fn has_dots(self) -> bool {
        #[cfg(target_arch = "x86_64")]
        return self == Level::Avx512 && Avx512Dots::detect().is_some();
        #[cfg(not(target_arch = "x86_64"))]
        false
    }

    /// Whether bfloat16 are multiplied as they are at this level: the CPU can, and is known to gain by it.
    pub fn gains_by_dots(self) -> bool {
        self.has_dots() && dots::gain()
    }

    /// Every level that this CPU has.
    pub fn available() -> impl Iterator<Item = Level> {
        Level::ALL.into_iter().filter(|level| level.is_available())
    }

    /// The best level that this CPU has.
    fn best() -> Level {
        Level::available().last().unwrap_or(Level::Scalar)
    }

    /// Runs a task at this level.
    ///
    /// # Panics
    /// If the CPU does not have it.
    pub fn run<T: Task>(self, task: T) -> T::Output {
        match self {
            Level::Scalar => Scalar.run(task),
            #[cfg(target_arch = "x86_64")]
            Level::Avx2 => self.proven(Avx2::detect()).run(task),
            #[cfg(target_arch = "x86_64")]
            Level::Avx512 => self.proven(Avx512::detect()).run(task),
            #[cfg(target_arch = "aarch64")]
            Level::Neon => self.proven(Neon::detect()).run(task),
            #[allow(unreachable_patterns, reason = "which levels are left depends on the target")]
            _ => self.proven::<Scalar>(None).run(task),
        }
    }

    fn proven<C>(self, cpu: Option<C>) -> C {
        cpu.unwrap_or_else(|| panic!("this CPU does not have the level {}", self.name()))
    }

    pub(super) fn named(name: &str) -> Result<Level> {
        Level::available().find(|level| level.name() == name).ok_or_else(|| Error::Range {
            argument: "ZEROCOST_CPU",
            given: excerpt(name),
            allowed: "scalar, avx2, avx512 or neon, as far as this CPU has it",
        })
    }

    /// The level in use: what `ZEROCOST_CPU` says, otherwise the best. An unknown or missing level is an error; it is
    /// read once, at the first call.
    pub fn current() -> Result<Level> {
        static CURRENT: OnceLock<Result<Level>> = OnceLock::new();
        CURRENT
            .get_or_init(|| match std::env::var_os("ZEROCOST_CPU") {
                Some(name) if !name.is_empty() => Level::named(&name.to_string_lossy()),
                _ => Ok(Level::best()),
            })
            .clone()
    }
}
