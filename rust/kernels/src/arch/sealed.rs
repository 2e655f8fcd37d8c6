//! What closes the traits that unsafe code trusts. [`Sealed`] stands above each of them, and nobody outside of this
//! crate can name it:
//!
//! ```compile_fail,E0603
//! use zerocost_kernels::arch::sealed::Sealed;
//! ```
//!
//! So an implementation elsewhere, complete as this one is, lacks a bound that it cannot have:
//!
//! ```compile_fail,E0277
//! use zerocost_kernels::arch::{Cpu, Task};
//!
//! #[derive(Clone, Copy)]
//! struct Mine<C>(C);
//!
//! impl<C: Cpu> Cpu for Mine<C> {
//!     type F32 = C::F32;
//!     type F64 = C::F64;
//!     const REGISTERS: usize = 16;
//!
//!     fn f32(self) -> C::F32 {
//!         self.0.f32()
//!     }
//!
//!     fn f64(self) -> C::F64 {
//!         self.0.f64()
//!     }
//!
//!     fn run<T: Task>(self, task: T) -> T::Output {
//!         task.run(self)
//!     }
//!
//!     fn fence(self) {}
//! }
//! ```

/// A type of this crate that keeps the contract of its trait.
pub trait Sealed {}
