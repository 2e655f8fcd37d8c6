//! 128-bit vectors: NEON, which every AArch64 has.

use std::arch::aarch64::*;

use half::{bf16, f16};

use super::lanes::{Cpu, HalfLanes, Lanes};
use super::{Task, run_neon};

/// NEON. The value proves that the CPU has it.
#[derive(Debug, Clone, Copy)]
pub struct Neon(());

impl Neon {
    /// # Safety
    /// The CPU has NEON.
    #[inline(always)]
    pub(super) unsafe fn new() -> Self {
        Self(())
    }
}

impl Cpu for Neon {
    type F32 = NeonF32;
    type F64 = NeonF64;

    const REGISTERS: usize = 32;

    #[inline(always)]
    fn f32(self) -> NeonF32 {
        NeonF32(())
    }

    #[inline(always)]
    fn f64(self) -> NeonF64 {
        NeonF64(())
    }

    #[inline(always)]
    fn run<T: Task>(self, task: T) -> T::Output {
        // SAFETY: the CPU has what the level needs, which `self` proves.
        unsafe { run_neon(task) }
    }

    #[inline(always)]
    fn fence(self) {}
}

/// Float32 lanes of NEON.
#[derive(Debug, Clone, Copy)]
pub struct NeonF32(());

/// Float64 lanes of NEON.
#[derive(Debug, Clone, Copy)]
pub struct NeonF64(());

/// Methods that are one expression of intrinsics on registers.
macro_rules! registers {
    ($(fn $name:ident($($argument:ident: $kind:ident),*) -> $result:ty = $body:expr;)*) => {$(
        #[inline(always)]
        fn $name(self, $($argument: Self::$kind),*) -> $result {
            // SAFETY: the instructions are there, which `self` proves; only registers are touched.
            unsafe { $body }
        }
    )*};
}

macro_rules! lanes {
    (
        $lanes:ident, $real:ident, $int:ident, $unsigned:ident, $v:ident, $i:ident, $m:ident, $n:literal,
        $mantissa:literal, $dup:ident, $ld1:ident, $st1:ident, $add:ident, $sub:ident, $mul:ident, $div:ident,
        $fma:ident, $fms:ident, $clt:ident, $cgt:ident, $ceq:ident, $bsl:ident, $addv:ident, $maxv:ident,
        $and_mask:ident, $or_mask:ident, $bic_mask:ident, $ld1_mask:ident, $st1_mask:ident, $cast_int:ident,
        $cast_real:ident, $mask_int:ident, $int_dup:ident, $int_ld1:ident, $int_st1:ident, $int_add:ident,
        $int_sub:ident, $and:ident, $eor:ident, $shr:ident, $shl:ident, $int_cgt:ident, $int_bsl:ident,
        $wide:ty, $wide_zero:expr, $wide_add:expr, $wide_sum:expr
    ) => {
        impl $lanes {
            #[inline(always)]
            fn int_array(self, vector: $i) -> [$int; $n] {
                let mut lanes = [0; $n];
                // SAFETY: the array has exactly N elements; `self` proves the instruction.
                unsafe { $int_st1(lanes.as_mut_ptr(), vector) };
                lanes
            }
        }

        impl Lanes for $lanes {
            type Scalar = $real;
            type V = $v;
            type I = $i;
            type M = $m;
            type Wide = $wide;
            const N: usize = $n;

            #[inline(always)]
            fn splat(self, value: $real) -> $v {
                // SAFETY: `self` proves the instruction.
                unsafe { $dup(value) }
            }

            #[inline(always)]
            unsafe fn load(self, from: *const $real) -> $v {
                // SAFETY: the caller promises N readable elements; `self` proves the instruction.
                unsafe { $ld1(from) }
            }

            #[inline(always)]
            unsafe fn load_first(self, from: *const $real, count: usize) -> $v {
                let mut whole = [0.0; $n];
                // SAFETY: the caller promises `count` readable elements and `count <= N`.
                unsafe {
                    std::ptr::copy_nonoverlapping(from, whole.as_mut_ptr(), count);
                    $ld1(whole.as_ptr())
                }
            }

            #[inline(always)]
            unsafe fn store(self, to: *mut $real, vector: $v) {
                // SAFETY: the caller promises N writable elements; `self` proves the instruction.
                unsafe { $st1(to, vector) }
            }

            #[inline(always)]
            unsafe fn store_first(self, to: *mut $real, count: usize, vector: $v) {
                let mut whole = [0.0; $n];
                // SAFETY: the caller promises `count` writable elements and `count <= N`.
                unsafe {
                    $st1(whole.as_mut_ptr(), vector);
                    std::ptr::copy_nonoverlapping(whole.as_ptr(), to, count);
                }
            }

            #[inline(always)]
            unsafe fn stream(self, to: *mut $real, vector: $v) {
                // SAFETY: the caller promises N writable elements.
                unsafe { self.store(to, vector) }
            }

            registers! {
                fn add(a: V, b: V) -> $v = $add(a, b);
                fn sub(a: V, b: V) -> $v = $sub(a, b);
                fn mul(a: V, b: V) -> $v = $mul(a, b);
                fn div(a: V, b: V) -> $v = $div(a, b);
                fn fma(a: V, b: V, c: V) -> $v = $fma(c, a, b);
                fn fma_once(a: V, b: V, c: V) -> $v = $fma(c, a, b);
                fn fnma(a: V, b: V, c: V) -> $v = $fms(c, a, b);
                // FMIN and FMAX prefer a NaN, whichever argument it is.
                fn min(a: V, b: V) -> $v = $bsl($clt(a, b), a, b);
                fn max(a: V, b: V) -> $v = $bsl($cgt(a, b), a, b);
                fn lt(a: V, b: V) -> $m = $clt(a, b);
                fn eq(a: V, b: V) -> $m = $ceq(a, b);
                fn select(mask: M, a: V, b: V) -> $v = $bsl(mask, a, b);
                fn sum(vector: V) -> $real = $addv(vector);
                fn max_lane(vector: V) -> $real = $maxv(vector);
                fn and(a: M, b: M) -> $m = $and_mask(a, b);
                fn or(a: M, b: M) -> $m = $or_mask(a, b);
                fn and_not(a: M, b: M) -> $m = $bic_mask(a, b);
                fn wide_zero() -> $wide = $wide_zero();
                fn wide_add(sums: Wide, vector: V) -> $wide = $wide_add(sums, vector);
                fn wide_sum(sums: Wide) -> f64 = $wide_sum(sums);
                fn int_of(vector: V) -> $i = $cast_int(vector);
                fn float_of(vector: I) -> $v = $cast_real(vector);
                fn int_add(a: I, b: I) -> $i = $int_add(a, b);
                fn int_sub(a: I, b: I) -> $i = $int_sub(a, b);
                fn int_and(a: I, b: I) -> $i = $and(a, b);
                fn int_xor(a: I, b: I) -> $i = $eor(a, b);
                fn int_sign(a: I) -> $i = $shr::<{ $int::BITS as i32 - 1 }>(a);
                fn int_to_exponent(a: I) -> $i = $shl::<$mantissa>(a);
                fn int_min(a: I, b: I) -> $i = $int_bsl($int_cgt(a, b), b, a);
                fn int_max(a: I, b: I) -> $i = $int_bsl($int_cgt(a, b), a, b);
                fn int_gt(a: I, b: I) -> $m = $int_cgt(a, b);
                fn int_select(mask: M, a: I, b: I) -> $i = $int_bsl(mask, a, b);
                fn count(count: I, mask: M) -> $i = $int_sub(count, $mask_int(mask));
            }

            #[inline(always)]
            fn first(self, count: usize) -> $m {
                let lanes: [$unsigned; $n] = std::array::from_fn(|i| if i < count { $unsigned::MAX } else { 0 });
                // SAFETY: the array has exactly N elements; `self` proves the instruction.
                unsafe { $ld1_mask(lanes.as_ptr()) }
            }

            #[inline(always)]
            fn bits(self, mask: $m) -> u32 {
                let mut lanes: [$unsigned; $n] = [0; $n];
                // SAFETY: the array has exactly N elements; `self` proves the instruction.
                unsafe { $st1_mask(lanes.as_mut_ptr(), mask) };
                (0..$n).map(|i| ((lanes[i] & 1) as u32) << i).sum()
            }

            #[inline(always)]
            fn int_splat(self, value: $int) -> $i {
                // SAFETY: `self` proves the instruction.
                unsafe { $int_dup(value) }
            }

            #[inline(always)]
            unsafe fn int_load(self, from: *const $int) -> $i {
                // SAFETY: the caller promises N readable integers; `self` proves the instruction.
                unsafe { $int_ld1(from) }
            }

            #[inline(always)]
            unsafe fn int_store(self, to: *mut $int, vector: $i) {
                // SAFETY: the caller promises N writable integers; `self` proves the instruction.
                unsafe { $int_st1(to, vector) }
            }

            #[inline(always)]
            unsafe fn int_compress(self, to: *mut $int, mask: $m, vector: $i) -> usize {
                let (lanes, bits) = (self.int_array(vector), self.bits(mask));
                let mut kept = 0;
                for i in 0..$n {
                    // SAFETY: `kept <= i < N`, and the caller promises N writable integers.
                    unsafe { to.add(kept).write(lanes[i]) };
                    kept += (bits >> i & 1) as usize;
                }
                kept
            }

            #[inline(always)]
            unsafe fn expand(self, from: *const $real, bits: u32) -> $v {
                let (mut lanes, mut kept) = ([0.0; $n], 0);
                for (i, lane) in lanes.iter_mut().enumerate() {
                    if bits >> i & 1 == 1 {
                        // SAFETY: `kept <= i < N`, and the caller promises N readable elements.
                        *lane = unsafe { *from.add(kept) };
                        kept += 1;
                    }
                }
                // SAFETY: the array has N elements.
                unsafe { self.load(lanes.as_ptr()) }
            }

            #[inline(always)]
            fn total(self, count: $i) -> usize {
                self.int_array(count).into_iter().map(|lane| lane as usize).sum()
            }

            #[inline(always)]
            fn int_min_lane(self, a: $i) -> $int {
                self.int_array(a).into_iter().fold($int::MAX, $int::min)
            }

            #[inline(always)]
            fn int_max_lane(self, a: $i) -> $int {
                self.int_array(a).into_iter().fold($int::MIN, $int::max)
            }
        }
    };
}

lanes!(
    NeonF32,
    f32,
    i32,
    u32,
    float32x4_t,
    int32x4_t,
    uint32x4_t,
    4,
    23,
    vdupq_n_f32,
    vld1q_f32,
    vst1q_f32,
    vaddq_f32,
    vsubq_f32,
    vmulq_f32,
    vdivq_f32,
    vfmaq_f32,
    vfmsq_f32,
    vcltq_f32,
    vcgtq_f32,
    vceqq_f32,
    vbslq_f32,
    vaddvq_f32,
    vmaxvq_f32,
    vandq_u32,
    vorrq_u32,
    vbicq_u32,
    vld1q_u32,
    vst1q_u32,
    vreinterpretq_s32_f32,
    vreinterpretq_f32_s32,
    vreinterpretq_s32_u32,
    vdupq_n_s32,
    vld1q_s32,
    vst1q_s32,
    vaddq_s32,
    vsubq_s32,
    vandq_s32,
    veorq_s32,
    vshrq_n_s32,
    vshlq_n_s32,
    vcgtq_s32,
    vbslq_s32,
    [float64x2_t; 2],
    zero_pair,
    add_pair,
    sum_pair
);
lanes!(
    NeonF64,
    f64,
    i64,
    u64,
    float64x2_t,
    int64x2_t,
    uint64x2_t,
    2,
    52,
    vdupq_n_f64,
    vld1q_f64,
    vst1q_f64,
    vaddq_f64,
    vsubq_f64,
    vmulq_f64,
    vdivq_f64,
    vfmaq_f64,
    vfmsq_f64,
    vcltq_f64,
    vcgtq_f64,
    vceqq_f64,
    vbslq_f64,
    vaddvq_f64,
    vmaxvq_f64,
    vandq_u64,
    vorrq_u64,
    vbicq_u64,
    vld1q_u64,
    vst1q_u64,
    vreinterpretq_s64_f64,
    vreinterpretq_f64_s64,
    vreinterpretq_s64_u64,
    vdupq_n_s64,
    vld1q_s64,
    vst1q_s64,
    vaddq_s64,
    vsubq_s64,
    vandq_s64,
    veorq_s64,
    vshrq_n_s64,
    vshlq_n_s64,
    vcgtq_s64,
    vbslq_s64,
    float64x2_t,
    zero_wide,
    vaddq_f64,
    vaddvq_f64
);

/// # Safety
/// NEON.
#[inline(always)]
unsafe fn zero_wide() -> float64x2_t {
    // SAFETY: the caller's promise.
    unsafe { vdupq_n_f64(0.0) }
}

/// # Safety
/// NEON.
#[inline(always)]
unsafe fn zero_pair() -> [float64x2_t; 2] {
    // SAFETY: the caller's promise.
    unsafe { [zero_wide(); 2] }
}

/// Adds the lower and the upper half of the lanes.
///
/// # Safety
/// NEON.
#[inline(always)]
unsafe fn add_pair([low, high]: [float64x2_t; 2], vector: float32x4_t) -> [float64x2_t; 2] {
    // SAFETY: the caller's promise.
    unsafe {
        let lower = vcvt_f64_f32(vget_low_f32(vector));
        [vaddq_f64(low, lower), vaddq_f64(high, vcvt_high_f64_f32(vector))]
    }
}

/// # Safety
/// NEON.
#[inline(always)]
unsafe fn sum_pair([low, high]: [float64x2_t; 2]) -> f64 {
    // SAFETY: the caller's promise.
    unsafe { vaddvq_f64(vaddq_f64(low, high)) }
}

impl HalfLanes for NeonF32 {
    #[inline(always)]
    unsafe fn load_f16(self, from: *const f16) -> float32x4_t {
        // SAFETY: the caller promises 4 readable elements.
        let lanes = unsafe { from.cast::<[f16; 4]>().read_unaligned() }.map(f16::to_f32);
        // SAFETY: the array has 4 elements.
        unsafe { self.load(lanes.as_ptr()) }
    }

    #[inline(always)]
    unsafe fn store_f16(self, to: *mut f16, vector: float32x4_t) {
        let mut lanes = [0.0; 4];
        // SAFETY: the array has 4 elements, and the caller promises 4 writable ones.
        unsafe {
            self.store(lanes.as_mut_ptr(), vector);
            to.cast::<[f16; 4]>().write_unaligned(lanes.map(f16::from_f32));
        }
    }

    #[inline(always)]
    unsafe fn load_bf16(self, from: *const bf16) -> float32x4_t {
        // SAFETY: the caller promises 4 readable elements, 8 bytes; `self` proves the instructions.
        unsafe { vreinterpretq_f32_u32(vshll_n_u16::<16>(vld1_u16(from.cast()))) }
    }

    #[inline(always)]
    unsafe fn store_bf16(self, to: *mut bf16, vector: float32x4_t) {
        let mut lanes = [0.0; 4];
        // SAFETY: the array has 4 elements, and the caller promises 4 writable ones.
        unsafe {
            self.store(lanes.as_mut_ptr(), vector);
            to.cast::<[bf16; 4]>().write_unaligned(lanes.map(bf16::from_f32));
        }
    }

    #[inline(always)]
    unsafe fn keep_u16(self, from: *const u16, to: *mut u16, mask: uint32x4_t) {
        // SAFETY: the caller promises 4 readable and 4 writable elements; `self` proves the instructions.
        unsafe { vst1_u16(to, vand_u16(vld1_u16(from), vmovn_u32(mask))) }
    }
}
