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

mod dots;
mod element;
mod lanes;
mod level;
mod macros;
mod math;
mod scalar;
mod sealed;

#[cfg(target_arch = "x86_64")]
mod avx2;
#[cfg(target_arch = "x86_64")]
mod avx512;
#[cfg(target_arch = "aarch64")]
mod neon;
#[cfg(all(test, unix))]
mod pages;
#[cfg(test)]
mod tests;

#[cfg(test)]
pub(crate) use dots::force as force_dots;
pub(crate) use lanes::WIDEST;
pub use lanes::{Cpu, Dots, Element, HalfLanes, LaneMask, Lanes, Math, Real, Vector};
pub use level::Level;
pub use math::{Difference, exp, exp_below, tanh};

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
