//! 512-bit vectors: AVX-512 F, BW, DQ, VL, and what AVX2 has; with BF16 where the CPU has that too.

use std::arch::x86_64::*;
use std::mem::transmute;

use half::{bf16, f16};

use super::lanes::{Cpu, Dots, HalfLanes, Lanes};
use super::macros::{memory, proof, registers};
use super::sealed::Sealed;
use super::{DotsTask, Task};

proof! {
    /// AVX-512 F, BW, DQ and VL, and what [`Avx2`](super::avx2::Avx2) proves. The value proves that the CPU has them all.
    Avx512, run_avx512<Task>, is_x86_feature_detected:
    "avx2" "fma" "f16c" "bmi1" "bmi2" "lzcnt" "popcnt" "avx512f" "avx512bw" "avx512dq" "avx512vl"
}

proof! {
    /// What [`Avx512`] proves, and AVX-512 BF16. The value proves that the CPU has them all.
    Avx512Dots, run_avx512_dots<DotsTask>, is_x86_feature_detected:
    "avx2" "fma" "f16c" "bmi1" "bmi2" "lzcnt" "popcnt" "avx512f" "avx512bw" "avx512dq" "avx512vl" "avx512bf16"
}

impl Sealed for Avx512 {}
impl Sealed for Avx512Dots {}

impl Cpu for Avx512 {
    type F32 = Avx512F32;
    type F64 = Avx512F64;

    const REGISTERS: usize = 32;

    #[inline(always)]
    fn f32(self) -> Avx512F32 {
        Avx512F32(self)
    }

    #[inline(always)]
    fn f64(self) -> Avx512F64 {
        Avx512F64(self)
    }

    #[inline(always)]
    fn run<T: Task>(self, task: T) -> T::Output {
        // SAFETY: the CPU has the features, which `self` proves: `detect` asked for each of them.
        unsafe { run_avx512(self, task) }
    }

    #[inline(always)]
    fn run_dots<T: DotsTask>(self, task: T) -> T::Output {
        let dots = Avx512Dots::detect().expect("this CPU has no dot products of bfloat16");
        // SAFETY: the CPU has the features, which `dots` proves: `detect` asked for each of them.
        unsafe { run_avx512_dots(dots, task) }
    }

    #[inline(always)]
    fn prefetch<T>(self, at: *const T) {
        // SAFETY: SSE is part of x86-64; an address that is not there is ignored.
        unsafe { _mm_prefetch::<_MM_HINT_T0>(at.cast()) }
    }

    #[inline(always)]
    fn fence(self) {
        // SAFETY: SSE is part of x86-64.
        unsafe { _mm_sfence() }
    }
}

impl Avx512Dots {
    /// The part of the features that every task needs.
    #[inline(always)]
    fn cpu(self) -> Avx512 {
        Avx512(())
    }
}

impl Cpu for Avx512Dots {
    type F32 = Avx512F32;
    type F64 = Avx512F64;

    const REGISTERS: usize = Avx512::REGISTERS;

    #[inline(always)]
    fn f32(self) -> Avx512F32 {
        self.cpu().f32()
    }

    #[inline(always)]
    fn f64(self) -> Avx512F64 {
        self.cpu().f64()
    }

    #[inline(always)]
    fn run<T: Task>(self, task: T) -> T::Output {
        self.cpu().run(task)
    }

    #[inline(always)]
    fn fence(self) {
        self.cpu().fence();
    }
}

impl Dots for Avx512Dots {
    #[inline(always)]
    fn dot_pairs(self, a: __m512, b: __m512, c: __m512) -> __m512 {
        // SAFETY: `self` proves the instruction; the types are 512 bits that mean pairs of bfloat16.
        unsafe { _mm512_dpbf16_ps(c, transmute::<__m512, __m512bh>(a), transmute::<__m512, __m512bh>(b)) }
    }
}

/// Float32 lanes of AVX-512.
#[derive(Debug, Clone, Copy)]
pub struct Avx512F32(Avx512);

/// Float64 lanes of AVX-512.
#[derive(Debug, Clone, Copy)]
pub struct Avx512F64(Avx512);

impl Sealed for Avx512F32 {}
impl Sealed for Avx512F64 {}

/// Masks are integers.
macro_rules! masks {
    ($mask:ty) => {
        #[inline(always)]
        fn first(self, count: usize) -> $mask {
            if count >= Self::N { <$mask>::MAX } else { (1 << count) - 1 }
        }

        #[inline(always)]
        fn and(self, a: $mask, b: $mask) -> $mask {
            a & b
        }

        #[inline(always)]
        fn or(self, a: $mask, b: $mask) -> $mask {
            a | b
        }

        #[inline(always)]
        fn and_not(self, a: $mask, b: $mask) -> $mask {
            a & !b
        }

        #[inline(always)]
        fn bits(self, mask: $mask) -> u32 {
            u32::from(mask)
        }
    };
}

impl Lanes for Avx512F32 {
    type Scalar = f32;
    type V = __m512;
    type I = __m512i;
    type M = __mmask16;
    type Wide = [__m512d; 2];
    const N: usize = 16;

    memory! {
        unsafe fn load(self, from: *const f32) -> __m512 = _mm512_loadu_ps(from);
        unsafe fn load_first(self, from: *const f32, count: usize) -> __m512 =
            _mm512_maskz_loadu_ps(self.first(count), from);
        unsafe fn store(self, to: *mut f32, vector: __m512) = _mm512_storeu_ps(to, vector);
        unsafe fn store_first(self, to: *mut f32, count: usize, vector: __m512) =
            _mm512_mask_storeu_ps(to, self.first(count), vector);
        unsafe fn stream(self, to: *mut f32, vector: __m512) = _mm512_stream_ps(to, vector);
        unsafe fn int_load(self, from: *const i32) -> __m512i = _mm512_loadu_epi32(from);
        unsafe fn int_store(self, to: *mut i32, vector: __m512i) = _mm512_storeu_epi32(to, vector);
        // Compressing to memory is microcoded on Zen 4: compress to a register, then store all of it.
        unsafe fn int_compress(self, to: *mut i32, mask: __mmask16, vector: __m512i) -> usize = {
            _mm512_storeu_epi32(to, _mm512_maskz_compress_epi32(mask, vector));
            mask.count_ones() as usize
        };
        unsafe fn expand(self, from: *const f32, bits: u32) -> __m512 =
            _mm512_maskz_expand_ps(bits as __mmask16, _mm512_loadu_ps(from));
    }

    registers! {
        fn splat(self, value: f32) -> __m512 = _mm512_set1_ps(value);
        fn add(self, a: __m512, b: __m512) -> __m512 = _mm512_add_ps(a, b);
        fn sub(self, a: __m512, b: __m512) -> __m512 = _mm512_sub_ps(a, b);
        fn mul(self, a: __m512, b: __m512) -> __m512 = _mm512_mul_ps(a, b);
        fn div(self, a: __m512, b: __m512) -> __m512 = _mm512_div_ps(a, b);
        fn fma(self, a: __m512, b: __m512, c: __m512) -> __m512 = _mm512_fmadd_ps(a, b, c);
        fn fma_once(self, a: __m512, b: __m512, c: __m512) -> __m512 = _mm512_fmadd_ps(a, b, c);
        fn fnma(self, a: __m512, b: __m512, c: __m512) -> __m512 = _mm512_fnmadd_ps(a, b, c);
        fn min(self, a: __m512, b: __m512) -> __m512 = _mm512_min_ps(a, b);
        fn max(self, a: __m512, b: __m512) -> __m512 = _mm512_max_ps(a, b);
        fn lt(self, a: __m512, b: __m512) -> __mmask16 = _mm512_cmp_ps_mask::<_CMP_LT_OQ>(a, b);
        fn eq(self, a: __m512, b: __m512) -> __mmask16 = _mm512_cmp_ps_mask::<_CMP_EQ_OQ>(a, b);
        fn select(self, mask: __mmask16, a: __m512, b: __m512) -> __m512 = _mm512_mask_blend_ps(mask, b, a);
        fn sum(self, vector: __m512) -> f32 = _mm512_reduce_add_ps(vector);
        fn max_lane(self, vector: __m512) -> f32 = _mm512_reduce_max_ps(vector);

        fn wide_zero(self) -> [__m512d; 2] = [_mm512_setzero_pd(); 2];
        fn wide_add(self, sums: [__m512d; 2], vector: __m512) -> [__m512d; 2] = {
            let lower = _mm512_cvtps_pd(_mm512_castps512_ps256(vector));
            let upper = _mm512_cvtps_pd(_mm512_extractf32x8_ps::<1>(vector));
            [_mm512_add_pd(sums[0], lower), _mm512_add_pd(sums[1], upper)]
        };
        fn wide_sum(self, sums: [__m512d; 2]) -> f64 = _mm512_reduce_add_pd(_mm512_add_pd(sums[0], sums[1]));

        fn int_of(self, vector: __m512) -> __m512i = _mm512_castps_si512(vector);
        fn float_of(self, vector: __m512i) -> __m512 = _mm512_castsi512_ps(vector);
        fn int_splat(self, value: i32) -> __m512i = _mm512_set1_epi32(value);
        fn int_add(self, a: __m512i, b: __m512i) -> __m512i = _mm512_add_epi32(a, b);
        fn int_sub(self, a: __m512i, b: __m512i) -> __m512i = _mm512_sub_epi32(a, b);
        fn int_and(self, a: __m512i, b: __m512i) -> __m512i = _mm512_and_si512(a, b);
        fn int_xor(self, a: __m512i, b: __m512i) -> __m512i = _mm512_xor_si512(a, b);
        fn int_sign(self, a: __m512i) -> __m512i = _mm512_srai_epi32::<31>(a);
        fn int_to_exponent(self, a: __m512i) -> __m512i = _mm512_slli_epi32::<23>(a);
        fn int_min(self, a: __m512i, b: __m512i) -> __m512i = _mm512_min_epi32(a, b);
        fn int_max(self, a: __m512i, b: __m512i) -> __m512i = _mm512_max_epi32(a, b);
        fn int_gt(self, a: __m512i, b: __m512i) -> __mmask16 = _mm512_cmpgt_epi32_mask(a, b);
        fn int_select(self, mask: __mmask16, a: __m512i, b: __m512i) -> __m512i = _mm512_mask_blend_epi32(mask, b, a);
        fn count(self, count: __m512i, mask: __mmask16) -> __m512i = _mm512_mask_sub_epi32(count, mask, count, _mm512_set1_epi32(-1));
        fn total(self, count: __m512i) -> usize = _mm512_reduce_add_epi32(count) as u32 as usize;
        fn int_min_lane(self, a: __m512i) -> i32 = _mm512_reduce_min_epi32(a);
        fn int_max_lane(self, a: __m512i) -> i32 = _mm512_reduce_max_epi32(a);
    }

    masks!(__mmask16);
}

impl Lanes for Avx512F64 {
    type Scalar = f64;
    type V = __m512d;
    type I = __m512i;
    type M = __mmask8;
    type Wide = __m512d;
    const N: usize = 8;

    memory! {
        unsafe fn load(self, from: *const f64) -> __m512d = _mm512_loadu_pd(from);
        unsafe fn load_first(self, from: *const f64, count: usize) -> __m512d =
            _mm512_maskz_loadu_pd(self.first(count), from);
        unsafe fn store(self, to: *mut f64, vector: __m512d) = _mm512_storeu_pd(to, vector);
        unsafe fn store_first(self, to: *mut f64, count: usize, vector: __m512d) =
            _mm512_mask_storeu_pd(to, self.first(count), vector);
        unsafe fn stream(self, to: *mut f64, vector: __m512d) = _mm512_stream_pd(to, vector);
        unsafe fn int_load(self, from: *const i64) -> __m512i = _mm512_loadu_epi64(from);
        unsafe fn int_store(self, to: *mut i64, vector: __m512i) = _mm512_storeu_epi64(to, vector);
        // Compressing to memory is microcoded on Zen 4: compress to a register, then store all of it.
        unsafe fn int_compress(self, to: *mut i64, mask: __mmask8, vector: __m512i) -> usize = {
            _mm512_storeu_epi64(to, _mm512_maskz_compress_epi64(mask, vector));
            mask.count_ones() as usize
        };
        unsafe fn expand(self, from: *const f64, bits: u32) -> __m512d =
            _mm512_maskz_expand_pd(bits as __mmask8, _mm512_loadu_pd(from));
    }

    registers! {
        fn splat(self, value: f64) -> __m512d = _mm512_set1_pd(value);
        fn add(self, a: __m512d, b: __m512d) -> __m512d = _mm512_add_pd(a, b);
        fn sub(self, a: __m512d, b: __m512d) -> __m512d = _mm512_sub_pd(a, b);
        fn mul(self, a: __m512d, b: __m512d) -> __m512d = _mm512_mul_pd(a, b);
        fn div(self, a: __m512d, b: __m512d) -> __m512d = _mm512_div_pd(a, b);
        fn fma(self, a: __m512d, b: __m512d, c: __m512d) -> __m512d = _mm512_fmadd_pd(a, b, c);
        fn fma_once(self, a: __m512d, b: __m512d, c: __m512d) -> __m512d = _mm512_fmadd_pd(a, b, c);
        fn fnma(self, a: __m512d, b: __m512d, c: __m512d) -> __m512d = _mm512_fnmadd_pd(a, b, c);
        fn min(self, a: __m512d, b: __m512d) -> __m512d = _mm512_min_pd(a, b);
        fn max(self, a: __m512d, b: __m512d) -> __m512d = _mm512_max_pd(a, b);
        fn lt(self, a: __m512d, b: __m512d) -> __mmask8 = _mm512_cmp_pd_mask::<_CMP_LT_OQ>(a, b);
        fn eq(self, a: __m512d, b: __m512d) -> __mmask8 = _mm512_cmp_pd_mask::<_CMP_EQ_OQ>(a, b);
        fn select(self, mask: __mmask8, a: __m512d, b: __m512d) -> __m512d = _mm512_mask_blend_pd(mask, b, a);
        fn sum(self, vector: __m512d) -> f64 = _mm512_reduce_add_pd(vector);
        fn max_lane(self, vector: __m512d) -> f64 = _mm512_reduce_max_pd(vector);

        fn wide_zero(self) -> __m512d = _mm512_setzero_pd();
        fn wide_add(self, sums: __m512d, vector: __m512d) -> __m512d = _mm512_add_pd(sums, vector);
        fn wide_sum(self, sums: __m512d) -> f64 = _mm512_reduce_add_pd(sums);

        fn int_of(self, vector: __m512d) -> __m512i = _mm512_castpd_si512(vector);
        fn float_of(self, vector: __m512i) -> __m512d = _mm512_castsi512_pd(vector);
        fn int_splat(self, value: i64) -> __m512i = _mm512_set1_epi64(value);
        fn int_add(self, a: __m512i, b: __m512i) -> __m512i = _mm512_add_epi64(a, b);
        fn int_sub(self, a: __m512i, b: __m512i) -> __m512i = _mm512_sub_epi64(a, b);
        fn int_and(self, a: __m512i, b: __m512i) -> __m512i = _mm512_and_si512(a, b);
        fn int_xor(self, a: __m512i, b: __m512i) -> __m512i = _mm512_xor_si512(a, b);
        fn int_sign(self, a: __m512i) -> __m512i = _mm512_srai_epi64::<63>(a);
        fn int_to_exponent(self, a: __m512i) -> __m512i = _mm512_slli_epi64::<52>(a);
        fn int_min(self, a: __m512i, b: __m512i) -> __m512i = _mm512_min_epi64(a, b);
        fn int_max(self, a: __m512i, b: __m512i) -> __m512i = _mm512_max_epi64(a, b);
        fn int_gt(self, a: __m512i, b: __m512i) -> __mmask8 = _mm512_cmpgt_epi64_mask(a, b);
        fn int_select(self, mask: __mmask8, a: __m512i, b: __m512i) -> __m512i = _mm512_mask_blend_epi64(mask, b, a);
        fn count(self, count: __m512i, mask: __mmask8) -> __m512i = _mm512_mask_sub_epi64(count, mask, count, _mm512_set1_epi64(-1));
        fn total(self, count: __m512i) -> usize = _mm512_reduce_add_epi64(count) as u64 as usize;
        fn int_min_lane(self, a: __m512i) -> i64 = _mm512_reduce_min_epi64(a);
        fn int_max_lane(self, a: __m512i) -> i64 = _mm512_reduce_max_epi64(a);
    }

    masks!(__mmask8);
}

impl HalfLanes for Avx512F32 {
    #[inline(always)]
    unsafe fn load_f16(self, from: *const f16) -> __m512 {
        // SAFETY: the caller promises 16 readable elements, 32 bytes; `self` proves the instructions.
        unsafe { _mm512_cvtph_ps(_mm256_loadu_si256(from.cast())) }
    }

    #[inline(always)]
    unsafe fn store_f16(self, to: *mut f16, vector: __m512) {
        // SAFETY: the caller promises 16 writable elements, 32 bytes; `self` proves the instructions.
        unsafe { _mm256_storeu_si256(to.cast(), _mm512_cvtps_ph::<_MM_FROUND_TO_NEAREST_INT>(vector)) }
    }

    #[inline(always)]
    unsafe fn load_bf16(self, from: *const bf16) -> __m512 {
        // SAFETY: the caller promises 16 readable elements, 32 bytes; `self` proves the instructions.
        unsafe {
            let wide = _mm512_cvtepu16_epi32(_mm256_loadu_si256(from.cast()));
            _mm512_castsi512_ps(_mm512_slli_epi32::<16>(wide))
        }
    }

    // Not VCVTNEPS2BF16: it flushes denormals.
    #[inline(always)]
    unsafe fn store_bf16(self, to: *mut bf16, vector: __m512) {
        // SAFETY: the caller promises 16 writable elements, 32 bytes; `self` proves the instructions.
        unsafe {
            let bits = _mm512_castps_si512(vector);
            let even = _mm512_and_si512(_mm512_srli_epi32::<16>(bits), _mm512_set1_epi32(1));
            let rounded = _mm512_add_epi32(_mm512_add_epi32(bits, _mm512_set1_epi32(0x7fff)), even);
            let nan = _mm512_cmp_ps_mask::<_CMP_UNORD_Q>(vector, vector);
            let rounded = _mm512_mask_or_epi32(rounded, nan, bits, _mm512_set1_epi32(0x40_0000));
            let narrow = _mm512_cvtepi32_epi16(_mm512_srli_epi32::<16>(rounded));
            _mm256_storeu_si256(to.cast(), narrow);
        }
    }

    #[inline(always)]
    unsafe fn keep_u16(self, from: *const u16, to: *mut u16, mask: __mmask16) {
        // SAFETY: the caller promises 16 readable and 16 writable elements; `self` proves the instructions.
        unsafe {
            let kept = _mm256_maskz_mov_epi16(mask, _mm256_loadu_si256(from.cast()));
            _mm256_storeu_si256(to.cast(), kept);
        }
    }
}
