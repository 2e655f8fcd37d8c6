//! 128-bit vectors: NEON, which every AArch64 has.

use std::arch::aarch64::*;
use std::array::from_fn;
use std::mem::transmute;
use std::ptr::copy_nonoverlapping;

use half::{bf16, f16};

use super::Task;
use super::lanes::{Cpu, HalfLanes, Lanes};
use super::macros::{memory, proof, registers};
use super::sealed::Sealed;

proof! {
    /// NEON. The value proves that the CPU has it.
    Neon, run_neon<Task>, is_aarch64_feature_detected:
    "neon"
}

impl Sealed for Neon {}

impl Cpu for Neon {
    type F32 = NeonF32;
    type F64 = NeonF64;

    const REGISTERS: usize = 32;

    #[inline(always)]
    fn f32(self) -> NeonF32 {
        NeonF32(self)
    }

    #[inline(always)]
    fn f64(self) -> NeonF64 {
        NeonF64(self)
    }

    #[inline(always)]
    fn run<T: Task>(self, task: T) -> T::Output {
        // SAFETY: the CPU has the feature, which `self` proves: `detect` asked for it.
        unsafe { run_neon(self, task) }
    }

    #[inline(always)]
    fn fence(self) {}
}

/// Float32 lanes of NEON.
#[derive(Debug, Clone, Copy)]
pub struct NeonF32(Neon);

/// Float64 lanes of NEON.
#[derive(Debug, Clone, Copy)]
pub struct NeonF64(Neon);

impl Sealed for NeonF32 {}
impl Sealed for NeonF64 {}

impl Lanes for NeonF32 {
    type Scalar = f32;
    type V = float32x4_t;
    type I = int32x4_t;
    type M = uint32x4_t;
    type Wide = [float64x2_t; 2];
    const N: usize = 4;

    memory! {
        unsafe fn load(self, from: *const f32) -> float32x4_t = vld1q_f32(from);
        unsafe fn load_first(self, from: *const f32, count: usize) -> float32x4_t = {
            let mut whole = [0.0; 4];
            copy_nonoverlapping(from, whole.as_mut_ptr(), count);
            transmute::<[f32; 4], float32x4_t>(whole)
        };
        unsafe fn store(self, to: *mut f32, vector: float32x4_t) = vst1q_f32(to, vector);
        unsafe fn store_first(self, to: *mut f32, count: usize, vector: float32x4_t) =
            copy_nonoverlapping(transmute::<float32x4_t, [f32; 4]>(vector).as_ptr(), to, count);
        unsafe fn stream(self, to: *mut f32, vector: float32x4_t) = vst1q_f32(to, vector);
        unsafe fn int_load(self, from: *const i32) -> int32x4_t = vld1q_s32(from);
        unsafe fn int_store(self, to: *mut i32, vector: int32x4_t) = vst1q_s32(to, vector);
        unsafe fn int_compress(self, to: *mut i32, mask: uint32x4_t, vector: int32x4_t) -> usize = {
            let bits = self.bits(mask);
            let mut kept = 0;
            for (i, lane) in transmute::<int32x4_t, [i32; 4]>(vector).into_iter().enumerate() {
                to.add(kept).write(lane); // kept <= i < N
                kept += (bits >> i & 1) as usize;
            }
            kept
        };
        unsafe fn expand(self, from: *const f32, bits: u32) -> float32x4_t = {
            let (mut lanes, mut kept) = ([0.0; 4], 0);
            for (i, lane) in lanes.iter_mut().enumerate() {
                if bits >> i & 1 == 1 {
                    *lane = from.add(kept).read(); // kept <= i < N
                    kept += 1;
                }
            }
            transmute::<[f32; 4], float32x4_t>(lanes)
        };
    }

    registers! {
        fn splat(self, value: f32) -> float32x4_t = vdupq_n_f32(value);
        fn add(self, a: float32x4_t, b: float32x4_t) -> float32x4_t = vaddq_f32(a, b);
        fn sub(self, a: float32x4_t, b: float32x4_t) -> float32x4_t = vsubq_f32(a, b);
        fn mul(self, a: float32x4_t, b: float32x4_t) -> float32x4_t = vmulq_f32(a, b);
        fn div(self, a: float32x4_t, b: float32x4_t) -> float32x4_t = vdivq_f32(a, b);
        fn fma(self, a: float32x4_t, b: float32x4_t, c: float32x4_t) -> float32x4_t = vfmaq_f32(c, a, b);
        fn fma_once(self, a: float32x4_t, b: float32x4_t, c: float32x4_t) -> float32x4_t = vfmaq_f32(c, a, b);
        fn fnma(self, a: float32x4_t, b: float32x4_t, c: float32x4_t) -> float32x4_t = vfmsq_f32(c, a, b);
        // FMIN and FMAX prefer a NaN, whichever argument it is.
        fn min(self, a: float32x4_t, b: float32x4_t) -> float32x4_t = vbslq_f32(vcltq_f32(a, b), a, b);
        fn max(self, a: float32x4_t, b: float32x4_t) -> float32x4_t = vbslq_f32(vcgtq_f32(a, b), a, b);
        fn lt(self, a: float32x4_t, b: float32x4_t) -> uint32x4_t = vcltq_f32(a, b);
        fn eq(self, a: float32x4_t, b: float32x4_t) -> uint32x4_t = vceqq_f32(a, b);
        fn select(self, mask: uint32x4_t, a: float32x4_t, b: float32x4_t) -> float32x4_t = vbslq_f32(mask, a, b);
        fn sum(self, vector: float32x4_t) -> f32 = vaddvq_f32(vector);
        fn max_lane(self, vector: float32x4_t) -> f32 = vmaxvq_f32(vector);

        fn wide_zero(self) -> [float64x2_t; 2] = [vdupq_n_f64(0.0); 2];
        fn wide_add(self, sums: [float64x2_t; 2], vector: float32x4_t) -> [float64x2_t; 2] = {
            let lower = vcvt_f64_f32(vget_low_f32(vector));
            [vaddq_f64(sums[0], lower), vaddq_f64(sums[1], vcvt_high_f64_f32(vector))]
        };
        fn wide_sum(self, sums: [float64x2_t; 2]) -> f64 = vaddvq_f64(vaddq_f64(sums[0], sums[1]));

        fn first(self, count: usize) -> uint32x4_t =
            transmute::<[u32; 4], uint32x4_t>(from_fn(|i| if i < count { u32::MAX } else { 0 }));
        fn and(self, a: uint32x4_t, b: uint32x4_t) -> uint32x4_t = vandq_u32(a, b);
        fn or(self, a: uint32x4_t, b: uint32x4_t) -> uint32x4_t = vorrq_u32(a, b);
        fn and_not(self, a: uint32x4_t, b: uint32x4_t) -> uint32x4_t = vbicq_u32(a, b);
        fn bits(self, mask: uint32x4_t) -> u32 = {
            let lanes = transmute::<uint32x4_t, [u32; 4]>(mask);
            (0..4).map(|i| ((lanes[i] & 1) as u32) << i).sum()
        };

        fn int_of(self, vector: float32x4_t) -> int32x4_t = vreinterpretq_s32_f32(vector);
        fn float_of(self, vector: int32x4_t) -> float32x4_t = vreinterpretq_f32_s32(vector);
        fn int_splat(self, value: i32) -> int32x4_t = vdupq_n_s32(value);
        fn int_add(self, a: int32x4_t, b: int32x4_t) -> int32x4_t = vaddq_s32(a, b);
        fn int_sub(self, a: int32x4_t, b: int32x4_t) -> int32x4_t = vsubq_s32(a, b);
        fn int_and(self, a: int32x4_t, b: int32x4_t) -> int32x4_t = vandq_s32(a, b);
        fn int_xor(self, a: int32x4_t, b: int32x4_t) -> int32x4_t = veorq_s32(a, b);
        fn int_sign(self, a: int32x4_t) -> int32x4_t = vshrq_n_s32::<31>(a);
        fn int_to_exponent(self, a: int32x4_t) -> int32x4_t = vshlq_n_s32::<23>(a);
        fn int_min(self, a: int32x4_t, b: int32x4_t) -> int32x4_t = vbslq_s32(vcgtq_s32(a, b), b, a);
        fn int_max(self, a: int32x4_t, b: int32x4_t) -> int32x4_t = vbslq_s32(vcgtq_s32(a, b), a, b);
        fn int_gt(self, a: int32x4_t, b: int32x4_t) -> uint32x4_t = vcgtq_s32(a, b);
        fn int_select(self, mask: uint32x4_t, a: int32x4_t, b: int32x4_t) -> int32x4_t = vbslq_s32(mask, a, b);
        fn count(self, count: int32x4_t, mask: uint32x4_t) -> int32x4_t = vsubq_s32(count, vreinterpretq_s32_u32(mask));
        fn total(self, count: int32x4_t) -> usize =
            transmute::<int32x4_t, [i32; 4]>(count).into_iter().map(|lane| lane as usize).sum();
        fn int_min_lane(self, a: int32x4_t) -> i32 =
            transmute::<int32x4_t, [i32; 4]>(a).into_iter().fold(i32::MAX, i32::min);
        fn int_max_lane(self, a: int32x4_t) -> i32 =
            transmute::<int32x4_t, [i32; 4]>(a).into_iter().fold(i32::MIN, i32::max);
    }
}

impl Lanes for NeonF64 {
    type Scalar = f64;
    type V = float64x2_t;
    type I = int64x2_t;
    type M = uint64x2_t;
    type Wide = float64x2_t;
    const N: usize = 2;

    memory! {
        unsafe fn load(self, from: *const f64) -> float64x2_t = vld1q_f64(from);
        unsafe fn load_first(self, from: *const f64, count: usize) -> float64x2_t = {
            let mut whole = [0.0; 2];
            copy_nonoverlapping(from, whole.as_mut_ptr(), count);
            transmute::<[f64; 2], float64x2_t>(whole)
        };
        unsafe fn store(self, to: *mut f64, vector: float64x2_t) = vst1q_f64(to, vector);
        unsafe fn store_first(self, to: *mut f64, count: usize, vector: float64x2_t) =
            copy_nonoverlapping(transmute::<float64x2_t, [f64; 2]>(vector).as_ptr(), to, count);
        unsafe fn stream(self, to: *mut f64, vector: float64x2_t) = vst1q_f64(to, vector);
        unsafe fn int_load(self, from: *const i64) -> int64x2_t = vld1q_s64(from);
        unsafe fn int_store(self, to: *mut i64, vector: int64x2_t) = vst1q_s64(to, vector);
        unsafe fn int_compress(self, to: *mut i64, mask: uint64x2_t, vector: int64x2_t) -> usize = {
            let bits = self.bits(mask);
            let mut kept = 0;
            for (i, lane) in transmute::<int64x2_t, [i64; 2]>(vector).into_iter().enumerate() {
                to.add(kept).write(lane); // kept <= i < N
                kept += (bits >> i & 1) as usize;
            }
            kept
        };
        unsafe fn expand(self, from: *const f64, bits: u32) -> float64x2_t = {
            let (mut lanes, mut kept) = ([0.0; 2], 0);
            for (i, lane) in lanes.iter_mut().enumerate() {
                if bits >> i & 1 == 1 {
                    *lane = from.add(kept).read(); // kept <= i < N
                    kept += 1;
                }
            }
            transmute::<[f64; 2], float64x2_t>(lanes)
        };
    }

    registers! {
        fn splat(self, value: f64) -> float64x2_t = vdupq_n_f64(value);
        fn add(self, a: float64x2_t, b: float64x2_t) -> float64x2_t = vaddq_f64(a, b);
        fn sub(self, a: float64x2_t, b: float64x2_t) -> float64x2_t = vsubq_f64(a, b);
        fn mul(self, a: float64x2_t, b: float64x2_t) -> float64x2_t = vmulq_f64(a, b);
        fn div(self, a: float64x2_t, b: float64x2_t) -> float64x2_t = vdivq_f64(a, b);
        fn fma(self, a: float64x2_t, b: float64x2_t, c: float64x2_t) -> float64x2_t = vfmaq_f64(c, a, b);
        fn fma_once(self, a: float64x2_t, b: float64x2_t, c: float64x2_t) -> float64x2_t = vfmaq_f64(c, a, b);
        fn fnma(self, a: float64x2_t, b: float64x2_t, c: float64x2_t) -> float64x2_t = vfmsq_f64(c, a, b);
        // FMIN and FMAX prefer a NaN, whichever argument it is.
        fn min(self, a: float64x2_t, b: float64x2_t) -> float64x2_t = vbslq_f64(vcltq_f64(a, b), a, b);
        fn max(self, a: float64x2_t, b: float64x2_t) -> float64x2_t = vbslq_f64(vcgtq_f64(a, b), a, b);
        fn lt(self, a: float64x2_t, b: float64x2_t) -> uint64x2_t = vcltq_f64(a, b);
        fn eq(self, a: float64x2_t, b: float64x2_t) -> uint64x2_t = vceqq_f64(a, b);
        fn select(self, mask: uint64x2_t, a: float64x2_t, b: float64x2_t) -> float64x2_t = vbslq_f64(mask, a, b);
        fn sum(self, vector: float64x2_t) -> f64 = vaddvq_f64(vector);
        fn max_lane(self, vector: float64x2_t) -> f64 = vmaxvq_f64(vector);

        fn wide_zero(self) -> float64x2_t = vdupq_n_f64(0.0);
        fn wide_add(self, sums: float64x2_t, vector: float64x2_t) -> float64x2_t = vaddq_f64(sums, vector);
        fn wide_sum(self, sums: float64x2_t) -> f64 = vaddvq_f64(sums);

        fn first(self, count: usize) -> uint64x2_t =
            transmute::<[u64; 2], uint64x2_t>(from_fn(|i| if i < count { u64::MAX } else { 0 }));
        fn and(self, a: uint64x2_t, b: uint64x2_t) -> uint64x2_t = vandq_u64(a, b);
        fn or(self, a: uint64x2_t, b: uint64x2_t) -> uint64x2_t = vorrq_u64(a, b);
        fn and_not(self, a: uint64x2_t, b: uint64x2_t) -> uint64x2_t = vbicq_u64(a, b);
        fn bits(self, mask: uint64x2_t) -> u32 = {
            let lanes = transmute::<uint64x2_t, [u64; 2]>(mask);
            (0..2).map(|i| ((lanes[i] & 1) as u32) << i).sum()
        };

        fn int_of(self, vector: float64x2_t) -> int64x2_t = vreinterpretq_s64_f64(vector);
        fn float_of(self, vector: int64x2_t) -> float64x2_t = vreinterpretq_f64_s64(vector);
        fn int_splat(self, value: i64) -> int64x2_t = vdupq_n_s64(value);
        fn int_add(self, a: int64x2_t, b: int64x2_t) -> int64x2_t = vaddq_s64(a, b);
        fn int_sub(self, a: int64x2_t, b: int64x2_t) -> int64x2_t = vsubq_s64(a, b);
        fn int_and(self, a: int64x2_t, b: int64x2_t) -> int64x2_t = vandq_s64(a, b);
        fn int_xor(self, a: int64x2_t, b: int64x2_t) -> int64x2_t = veorq_s64(a, b);
        fn int_sign(self, a: int64x2_t) -> int64x2_t = vshrq_n_s64::<63>(a);
        fn int_to_exponent(self, a: int64x2_t) -> int64x2_t = vshlq_n_s64::<52>(a);
        fn int_min(self, a: int64x2_t, b: int64x2_t) -> int64x2_t = vbslq_s64(vcgtq_s64(a, b), b, a);
        fn int_max(self, a: int64x2_t, b: int64x2_t) -> int64x2_t = vbslq_s64(vcgtq_s64(a, b), a, b);
        fn int_gt(self, a: int64x2_t, b: int64x2_t) -> uint64x2_t = vcgtq_s64(a, b);
        fn int_select(self, mask: uint64x2_t, a: int64x2_t, b: int64x2_t) -> int64x2_t = vbslq_s64(mask, a, b);
        fn count(self, count: int64x2_t, mask: uint64x2_t) -> int64x2_t = vsubq_s64(count, vreinterpretq_s64_u64(mask));
        fn total(self, count: int64x2_t) -> usize =
            transmute::<int64x2_t, [i64; 2]>(count).into_iter().map(|lane| lane as usize).sum();
        fn int_min_lane(self, a: int64x2_t) -> i64 =
            transmute::<int64x2_t, [i64; 2]>(a).into_iter().fold(i64::MAX, i64::min);
        fn int_max_lane(self, a: int64x2_t) -> i64 =
            transmute::<int64x2_t, [i64; 2]>(a).into_iter().fold(i64::MIN, i64::max);
    }
}

impl HalfLanes for NeonF32 {
    #[inline(always)]
    unsafe fn load_f16(self, from: *const f16) -> float32x4_t {
        // SAFETY: the caller promises 4 readable elements.
        let lanes = unsafe { from.cast::<[f16; 4]>().read() }.map(f16::to_f32);
        // SAFETY: the array has 4 elements.
        unsafe { self.load(lanes.as_ptr()) }
    }

    #[inline(always)]
    unsafe fn store_f16(self, to: *mut f16, vector: float32x4_t) {
        let mut lanes = [0.0; 4];
        // SAFETY: the array has 4 elements, and the caller promises 4 writable ones.
        unsafe {
            self.store(lanes.as_mut_ptr(), vector);
            to.cast::<[f16; 4]>().write(lanes.map(f16::from_f32));
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
            to.cast::<[bf16; 4]>().write(lanes.map(bf16::from_f32));
        }
    }

    #[inline(always)]
    unsafe fn keep_u16(self, from: *const u16, to: *mut u16, mask: uint32x4_t) {
        // SAFETY: the caller promises 4 readable and 4 writable elements; `self` proves the instructions.
        unsafe { vst1_u16(to, vand_u16(vld1_u16(from), vmovn_u32(mask))) }
    }
}
