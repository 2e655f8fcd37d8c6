//! The portable level: small arrays, which compilers turn into whatever vectors every CPU of the target has.

use std::array::from_fn;
use std::ptr::copy_nonoverlapping;

use half::{bf16, f16};

use super::Task;
use super::lanes::{Cpu, HalfLanes, Lanes};
use super::macros::memory;
use super::sealed::Sealed;

/// The portable level, which is always there.
#[derive(Debug, Clone, Copy)]
pub struct Scalar;

impl Sealed for Scalar {}

impl Cpu for Scalar {
    type F32 = ScalarF32;
    type F64 = ScalarF64;

    const REGISTERS: usize = 16;

    #[inline(always)]
    fn f32(self) -> ScalarF32 {
        ScalarF32
    }

    #[inline(always)]
    fn f64(self) -> ScalarF64 {
        ScalarF64
    }

    #[inline(always)]
    fn run<T: Task>(self, task: T) -> T::Output {
        run_scalar(task)
    }

    #[inline(always)]
    fn fence(self) {}
}

#[inline(never)] // one function of each task, however often it is needed
fn run_scalar<T: Task>(task: T) -> T::Output {
    task.run(Scalar)
}

/// Float32 lanes of the portable level.
#[derive(Debug, Clone, Copy)]
pub struct ScalarF32;

/// Float64 lanes of the portable level.
#[derive(Debug, Clone, Copy)]
pub struct ScalarF64;

/// Methods of lanes that are one expression.
macro_rules! methods {
    ($(fn $name:ident($self:ident $(, $argument:ident: $type:ty)*) -> $result:ty = $body:expr;)*) => {$(
        #[inline(always)]
        fn $name($self $(, $argument: $type)*) -> $result {
            $body
        }
    )*};
}

macro_rules! lanes {
    ($lanes:ty, $real:ident, $int:ident, $unsigned:ident, $n:literal, $fma_once:path) => {
        impl Sealed for $lanes {}

        impl Lanes for $lanes {
            type Scalar = $real;
            type V = [$real; $n];
            type I = [$int; $n];
            type M = [bool; $n];
            type Wide = [f64; $n];
            const N: usize = $n;

            memory! {
                unsafe fn load(self, from: *const $real) -> Self::V = from.cast::<Self::V>().read();
                unsafe fn load_first(self, from: *const $real, count: usize) -> Self::V = {
                    let mut vector = [0.0; $n];
                    copy_nonoverlapping(from, vector.as_mut_ptr(), count);
                    vector
                };
                unsafe fn store(self, to: *mut $real, vector: Self::V) = to.cast::<Self::V>().write(vector);
                unsafe fn store_first(self, to: *mut $real, count: usize, vector: Self::V) =
                    copy_nonoverlapping(vector.as_ptr(), to, count);
                unsafe fn stream(self, to: *mut $real, vector: Self::V) = self.store(to, vector);
                unsafe fn int_load(self, from: *const $int) -> Self::I = from.cast::<Self::I>().read();
                unsafe fn int_store(self, to: *mut $int, vector: Self::I) = to.cast::<Self::I>().write(vector);
                unsafe fn int_compress(self, to: *mut $int, mask: Self::M, vector: Self::I) -> usize = {
                    let mut kept = 0;
                    for i in 0..$n {
                        to.add(kept).write(vector[i]); // kept <= i < N
                        kept += usize::from(mask[i]);
                    }
                    kept
                };
                unsafe fn expand(self, from: *const $real, bits: u32) -> Self::V = {
                    let mut kept = 0;
                    from_fn(|i| {
                        let is_set = bits >> i & 1 == 1;
                        let element = from.add(kept).read(); // kept <= i < N
                        kept += usize::from(is_set);
                        if is_set { element } else { 0.0 }
                    })
                };
            }

            methods! {
                fn splat(self, value: $real) -> Self::V = [value; $n];
                fn add(self, a: Self::V, b: Self::V) -> Self::V = from_fn(|i| a[i] + b[i]);
                fn sub(self, a: Self::V, b: Self::V) -> Self::V = from_fn(|i| a[i] - b[i]);
                fn mul(self, a: Self::V, b: Self::V) -> Self::V = from_fn(|i| a[i] * b[i]);
                fn div(self, a: Self::V, b: Self::V) -> Self::V = from_fn(|i| a[i] / b[i]);
                // Without the instruction, `mul_add` is a call to libm and costs a hundred times as much.
                fn fma(self, a: Self::V, b: Self::V, c: Self::V) -> Self::V = from_fn(|i| a[i] * b[i] + c[i]);
                fn fnma(self, a: Self::V, b: Self::V, c: Self::V) -> Self::V = from_fn(|i| c[i] - a[i] * b[i]);
                fn fma_once(self, a: Self::V, b: Self::V, c: Self::V) -> Self::V =
                    from_fn(|i| $fma_once(a[i], b[i], c[i]));
                fn min(self, a: Self::V, b: Self::V) -> Self::V = from_fn(|i| if a[i] < b[i] { a[i] } else { b[i] });
                fn max(self, a: Self::V, b: Self::V) -> Self::V = from_fn(|i| if a[i] > b[i] { a[i] } else { b[i] });
                fn lt(self, a: Self::V, b: Self::V) -> Self::M = from_fn(|i| a[i] < b[i]);
                fn eq(self, a: Self::V, b: Self::V) -> Self::M = from_fn(|i| a[i] == b[i]);
                fn select(self, mask: Self::M, a: Self::V, b: Self::V) -> Self::V =
                    from_fn(|i| if mask[i] { a[i] } else { b[i] });
                fn sum(self, vector: Self::V) -> $real = (0..$n / 2).map(|i| vector[i] + vector[i + $n / 2]).sum();
                fn max_lane(self, vector: Self::V) -> $real = vector.into_iter().fold($real::NEG_INFINITY, $real::max);

                fn wide_zero(self) -> Self::Wide = [0.0; $n];
                fn wide_add(self, sums: Self::Wide, vector: Self::V) -> Self::Wide =
                    from_fn(|i| sums[i] + f64::from(vector[i]));
                fn wide_sum(self, sums: Self::Wide) -> f64 = sums.into_iter().sum();

                fn first(self, count: usize) -> Self::M = from_fn(|i| i < count);
                fn and(self, a: Self::M, b: Self::M) -> Self::M = from_fn(|i| a[i] & b[i]);
                fn or(self, a: Self::M, b: Self::M) -> Self::M = from_fn(|i| a[i] | b[i]);
                fn and_not(self, a: Self::M, b: Self::M) -> Self::M = from_fn(|i| a[i] & !b[i]);
                fn bits(self, mask: Self::M) -> u32 = (0..$n).map(|i| u32::from(mask[i]) << i).sum();

                fn int_of(self, vector: Self::V) -> Self::I = vector.map(|value| value.to_bits() as $int);
                fn float_of(self, vector: Self::I) -> Self::V = vector.map(|bits| $real::from_bits(bits as $unsigned));
                fn int_splat(self, value: $int) -> Self::I = [value; $n];
                fn int_add(self, a: Self::I, b: Self::I) -> Self::I = from_fn(|i| a[i].wrapping_add(b[i]));
                fn int_sub(self, a: Self::I, b: Self::I) -> Self::I = from_fn(|i| a[i].wrapping_sub(b[i]));
                fn int_and(self, a: Self::I, b: Self::I) -> Self::I = from_fn(|i| a[i] & b[i]);
                fn int_xor(self, a: Self::I, b: Self::I) -> Self::I = from_fn(|i| a[i] ^ b[i]);
                fn int_sign(self, a: Self::I) -> Self::I = a.map(|value| value >> ($int::BITS - 1));
                fn int_to_exponent(self, a: Self::I) -> Self::I = a.map(|value| value << ($real::MANTISSA_DIGITS - 1));
                fn int_min(self, a: Self::I, b: Self::I) -> Self::I = from_fn(|i| a[i].min(b[i]));
                fn int_max(self, a: Self::I, b: Self::I) -> Self::I = from_fn(|i| a[i].max(b[i]));
                fn int_gt(self, a: Self::I, b: Self::I) -> Self::M = from_fn(|i| a[i] > b[i]);
                fn int_select(self, mask: Self::M, a: Self::I, b: Self::I) -> Self::I =
                    from_fn(|i| if mask[i] { a[i] } else { b[i] });
                fn count(self, count: Self::I, mask: Self::M) -> Self::I = from_fn(|i| count[i] + $int::from(mask[i]));
                fn total(self, count: Self::I) -> usize = count.into_iter().map(|lane| lane as usize).sum();
                fn int_min_lane(self, a: Self::I) -> $int = a.into_iter().fold($int::MAX, $int::min);
                fn int_max_lane(self, a: Self::I) -> $int = a.into_iter().fold($int::MIN, $int::max);
            }
        }
    };
}
lanes!(ScalarF32, f32, i32, u32, 4, fma_once);
lanes!(ScalarF64, f64, i64, u64, 2, f64::mul_add);

/// The product is exact in float64, so that the sum's rounding there is all but lost in the one to float32.
#[inline(always)]
fn fma_once(a: f32, b: f32, c: f32) -> f32 {
    (f64::from(a) * f64::from(b) + f64::from(c)) as f32
}

impl HalfLanes for ScalarF32 {
    #[inline(always)]
    unsafe fn load_f16(self, from: *const f16) -> Self::V {
        // SAFETY: the caller promises N readable elements.
        unsafe { from.cast::<[f16; Self::N]>().read() }.map(f16::to_f32)
    }

    #[inline(always)]
    unsafe fn store_f16(self, to: *mut f16, vector: Self::V) {
        // SAFETY: the caller promises N writable elements.
        unsafe { to.cast::<[f16; Self::N]>().write(vector.map(f16::from_f32)) }
    }

    #[inline(always)]
    unsafe fn load_bf16(self, from: *const bf16) -> Self::V {
        // SAFETY: the caller promises N readable elements.
        unsafe { from.cast::<[bf16; Self::N]>().read() }.map(bf16::to_f32)
    }

    #[inline(always)]
    unsafe fn store_bf16(self, to: *mut bf16, vector: Self::V) {
        // SAFETY: the caller promises N writable elements.
        unsafe { to.cast::<[bf16; Self::N]>().write(vector.map(bf16::from_f32)) }
    }

    #[inline(always)]
    unsafe fn keep_u16(self, from: *const u16, to: *mut u16, mask: Self::M) {
        // SAFETY: the caller promises N readable and N writable elements.
        unsafe {
            let from = from.cast::<[u16; Self::N]>().read();
            let kept: [u16; Self::N] = std::array::from_fn(|i| if mask[i] { from[i] } else { 0 });
            to.cast::<[u16; Self::N]>().write(kept);
        }
    }
}
