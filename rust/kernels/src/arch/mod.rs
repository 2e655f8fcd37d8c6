//! The CPU levels. The best one that the CPU has is chosen once, at run time; `ZEROCOST_CPU` forces another.
//!
//! A kernel is written once, over [`Lanes`], and compiled once per level:
//!
//! ```
//! use zerocost_kernels::arch::{Cpu, Element, Lanes, Level, Real, Task, Vector};
//!
//! struct Scale<'a, T> { factor: T, values: &'a mut [T] }
//!
//! impl<T: Real> Task for Scale<'_, T> {
//!     type Output = ();
//!
//!     #[inline(always)] // into the wrapper of each level: only there may vector instructions be used
//!     fn run<C: Cpu>(self, cpu: C) {
//!         let lanes = T::lanes(cpu);
//!         let factor = lanes.splat(self.factor);
//!         for values in self.values.chunks_mut(T::Lanes::<C>::N) {
//!             // SAFETY: a chunk has `values.len()` elements, and no more than a vector has.
//!             unsafe {
//!                 let vector = T::load_first(cpu, values.as_ptr(), values.len());
//!                 T::store_first(cpu, values.as_mut_ptr(), values.len(), lanes.mul(vector, factor));
//!             }
//!         }
//!     }
//! }
//!
//! let mut values = [1.0f32, 2.0, 3.0];
//! Level::current()?.run(Scale { factor: 2.0, values: &mut values });
//! assert_eq!(values, [2.0, 4.0, 6.0]);
//! # Ok::<(), zerocost_kernels::Error>(())
//! ```
//!
//! - [`Task`] is what a level runs: data in its fields, [`Task::run`] generic over the level. [`Level::run`] is the safe
//!   front: it asks the CPU, makes the proof (a [`Cpu`] value) and calls the one `#[target_feature]` wrapper of the
//!   level, into which the task is inlined. Enter it once per tile or block of rows, not once per vector.
//! - Every function between `run` and the lanes must be `#[inline(always)]` and take the proof (`cpu: C` or
//!   `lanes: L`). A closure does not inherit the wrapper's instructions, so closures stay out of inner loops.
//! - [`Lanes`] of float32 and float64 ([`Real`]), and for arrays [`Element`], which adds f16 and bf16 (computed as
//!   float32, converted by [`Element::load`] and [`Element::store`]).
//! - A register-blocked kernel keeps `[[V; COLUMNS]; ROWS]` in local variables with const-generic sizes, all loops over
//!   them with constant bounds, at most [`Cpu::REGISTERS`] less the operands; an operand that is the same for all lanes
//!   is a [`Lanes::splat`] of a scalar just read (one load-and-broadcast).
//! - [`exp`] (for a softmax [`exp_below`]: its arguments are at most 0) gives exactly 0 for -inf and keeps NaN;
//!   [`tanh`] is for a softcap.
//! - Masks: [`Lanes::first`] for edges, [`Lanes::select`] to drop what must not leak, NaN included.
//! - The numbers of one level may differ from another's by rounding. Each level is deterministic.

mod element;
mod lanes;
mod math;
mod scalar;

#[cfg(target_arch = "x86_64")]
mod avx2;
#[cfg(target_arch = "x86_64")]
mod avx512;
#[cfg(target_arch = "aarch64")]
mod neon;
#[cfg(test)]
mod tests;

use std::sync::OnceLock;

pub use lanes::{Cpu, Dots, Element, HalfLanes, Lanes, Mask, Math, Real, Vector};
pub use math::{Difference, exp, exp_below, tanh};

use crate::{Error, Result};

/// Work that every CPU level has a version of.
pub trait Task {
    /// What it gives.
    type Output;

    /// The algorithm, generic over the level. Mark it `#[inline(always)]`.
    fn run<C: Cpu>(self, cpu: C) -> Self::Output;
}

/// Work for the levels that multiply bfloat16 as they are.
pub trait DotsTask {
    /// What it gives.
    type Output;

    /// The algorithm, generic over the level. Mark it `#[inline(always)]`.
    fn run<C: Dots>(self, cpu: C) -> Self::Output;
}

/// A set of vector instructions that every kernel has a version for.
#[derive(Debug, Clone, Copy, PartialEq, Eq, PartialOrd, Ord)]
pub enum Level {
    /// Portable code, no vector intrinsics.
    Scalar,
    /// 256-bit vectors (x86-64: AVX2, FMA, F16C).
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
            Level::Avx2 => {
                // Each is asked for: a virtual machine may hide any of them.
                is_x86_feature_detected!("avx2")
                    && is_x86_feature_detected!("fma")
                    && is_x86_feature_detected!("f16c")
                    && is_x86_feature_detected!("bmi1")
                    && is_x86_feature_detected!("bmi2")
                    && is_x86_feature_detected!("lzcnt")
                    && is_x86_feature_detected!("popcnt")
            }
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

    /// Whether bfloat16 are multiplied as they are at this level, on this CPU.
    pub fn has_dots(self) -> bool {
        #[cfg(target_arch = "x86_64")]
        return self == Level::Avx512 && self.is_available() && is_x86_feature_detected!("avx512bf16");
        #[cfg(not(target_arch = "x86_64"))]
        false
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
        assert!(self.is_available(), "this CPU does not have the level {}", self.name());
        match self {
            #[cfg(target_arch = "x86_64")]
            // SAFETY: the CPU has what the level needs, asserted above.
            Level::Avx2 => unsafe { run_avx2(task) },
            #[cfg(target_arch = "x86_64")]
            // SAFETY: the CPU has what the level needs, asserted above.
            Level::Avx512 => unsafe { run_avx512(task) },
            #[cfg(target_arch = "aarch64")]
            // SAFETY: the CPU has what the level needs, asserted above.
            Level::Neon => unsafe { run_neon(task) },
            _ => run_scalar(task),
        }
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

#[inline(never)]
fn run_scalar<T: Task>(task: T) -> T::Output {
    task.run(scalar::Scalar)
}

#[cfg(target_arch = "x86_64")]
#[target_feature(enable = "avx2,fma,f16c,bmi1,bmi2,lzcnt,popcnt")]
#[inline(never)] // one function of each task, however often it is needed
fn run_avx2<T: Task>(task: T) -> T::Output {
    // SAFETY: this function's own features.
    task.run(unsafe { avx2::Avx2::new() })
}

#[cfg(target_arch = "x86_64")]
#[target_feature(enable = "avx2,fma,f16c,bmi1,bmi2,lzcnt,popcnt,avx512f,avx512bw,avx512dq,avx512vl")]
#[inline(never)] // one function of each task, however often it is needed
fn run_avx512<T: Task>(task: T) -> T::Output {
    // SAFETY: this function's own features.
    task.run(unsafe { avx512::Avx512::new() })
}

#[cfg(target_arch = "x86_64")]
#[target_feature(enable = "avx2,fma,f16c,bmi1,bmi2,lzcnt,popcnt,avx512f,avx512bw,avx512dq,avx512vl,avx512bf16")]
#[inline(never)] // one function of each task, however often it is needed
fn run_avx512_dots<T: DotsTask>(task: T) -> T::Output {
    // SAFETY: this function's own features.
    task.run(unsafe { avx512::Avx512Dots::new() })
}

#[cfg(target_arch = "aarch64")]
#[target_feature(enable = "neon")]
#[inline(never)] // one function of each task, however often it is needed
fn run_neon<T: Task>(task: T) -> T::Output {
    // SAFETY: this function's own feature.
    task.run(unsafe { neon::Neon::new() })
}
