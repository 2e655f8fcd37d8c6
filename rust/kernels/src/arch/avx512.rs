//! 512-bit vectors: AVX-512 F, BW, DQ, VL.

use std::arch::x86_64::*;

use half::{bf16, f16};

use super::lanes::{Cpu, Dots, HalfLanes, Lanes};
use super::{DotsTask, Task, run_avx512, run_avx512_dots};

/// AVX-512. The value proves that the CPU has it.
#[derive(Debug, Clone, Copy)]
pub struct Avx512(());

impl Avx512 {
    /// # Safety
    /// The CPU has AVX2, FMA, F16C and AVX-512 F, BW, DQ and VL.
    #[inline(always)]
    pub(super) unsafe fn new() -> Self {
        Self(())
    }
}

impl Cpu for Avx512 {
    type F32 = Avx512F32;
    type F64 = Avx512F64;

    const REGISTERS: usize = 32;

    #[inline(always)]
    fn f32(self) -> Avx512F32 {
        Avx512F32(())
    }

    #[inline(always)]
    fn f64(self) -> Avx512F64 {
        Avx512F64(())
    }

    #[inline(always)]
    fn run<T: Task>(self, task: T) -> T::Output {
        // SAFETY: the CPU has what the level needs, which `self` proves.
        unsafe { run_avx512(task) }
    }

    #[inline(always)]
    fn has_dots(self) -> bool {
        is_x86_feature_detected!("avx512bf16")
    }

    #[inline(always)]
    fn run_dots<T: DotsTask>(self, task: T) -> T::Output {
        assert!(self.has_dots(), "this CPU has no dot products of bfloat16");
        // SAFETY: the CPU has what the level needs, which `self` proves, and the dot products, asserted above.
        unsafe { run_avx512_dots(task) }
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

/// AVX-512 with BF16. The value proves that the CPU has both.
#[derive(Debug, Clone, Copy)]
pub struct Avx512Dots(Avx512);

impl Avx512Dots {
    /// # Safety
    /// As for [`Avx512::new`], and AVX-512 BF16.
    #[inline(always)]
    pub(super) unsafe fn new() -> Self {
        // SAFETY: the caller's promise.
        Self(unsafe { Avx512::new() })
    }
}

impl Cpu for Avx512Dots {
    type F32 = Avx512F32;
    type F64 = Avx512F64;

    const REGISTERS: usize = Avx512::REGISTERS;

    #[inline(always)]
    fn f32(self) -> Avx512F32 {
        self.0.f32()
    }

    #[inline(always)]
    fn f64(self) -> Avx512F64 {
        self.0.f64()
    }

    #[inline(always)]
    fn run<T: Task>(self, task: T) -> T::Output {
        self.0.run(task)
    }

    #[inline(always)]
    fn fence(self) {
        self.0.fence();
    }
}

impl Dots for Avx512Dots {
    #[inline(always)]
    fn dot_pairs(self, a: __m512, b: __m512, c: __m512) -> __m512 {
        // SAFETY: `self` proves the instruction; the types are 512 bits that mean pairs of bfloat16.
        unsafe {
            _mm512_dpbf16_ps(c, std::mem::transmute::<__m512, __m512bh>(a), std::mem::transmute::<__m512, __m512bh>(b))
        }
    }
}

/// Float32 lanes of AVX-512.
#[derive(Debug, Clone, Copy)]
pub struct Avx512F32(());

/// Float64 lanes of AVX-512.
#[derive(Debug, Clone, Copy)]
pub struct Avx512F64(());

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
        $lanes:ident, $real:ident, $int:ident, $unsigned:ident, $v:ident, $mask:ident, $n:literal, $mantissa:literal,
        $set1:ident, $loadu:ident, $maskz_loadu:ident, $storeu:ident, $mask_storeu:ident, $stream:ident,
        $add:ident, $sub:ident, $mul:ident, $div:ident, $fmadd:ident, $fnmadd:ident, $min:ident, $max:ident,
        $cmp:ident, $blend:ident, $reduce_add:ident, $reduce_max:ident, $cast_int:ident, $cast_real:ident,
        $int_set1:ident, $int_loadu:ident, $int_storeu:ident, $compress:ident, $expand:ident, $int_add:ident, $int_sub:ident,
        $srai:ident, $slli:ident, $int_min:ident, $int_max:ident, $cmpgt:ident, $int_blend:ident,
        $int_mask_sub:ident, $reduce_int_add:ident, $reduce_int_min:ident, $reduce_int_max:ident,
        $wide:ty, $wide_zero:expr, $wide_add:expr, $wide_sum:expr
    ) => {
        impl $lanes {
            #[inline(always)]
            fn first_bits(count: usize) -> $mask {
                if count >= $n { $mask::MAX >> ($mask::BITS - $n) } else { (1 << count) - 1 }
            }
        }

        impl Lanes for $lanes {
            type Scalar = $real;
            type V = $v;
            type I = __m512i;
            type M = $mask;
            type Wide = $wide;
            const N: usize = $n;

            #[inline(always)]
            unsafe fn load(self, from: *const $real) -> $v {
                // SAFETY: the caller promises N readable elements; `self` proves the instruction.
                unsafe { $loadu(from) }
            }

            #[inline(always)]
            unsafe fn load_first(self, from: *const $real, count: usize) -> $v {
                // SAFETY: lanes outside of the mask are not read, the caller promises the others.
                unsafe { $maskz_loadu(Self::first_bits(count), from) }
            }

            #[inline(always)]
            unsafe fn store(self, to: *mut $real, vector: $v) {
                // SAFETY: the caller promises N writable elements; `self` proves the instruction.
                unsafe { $storeu(to, vector) }
            }

            #[inline(always)]
            unsafe fn store_first(self, to: *mut $real, count: usize, vector: $v) {
                // SAFETY: lanes outside of the mask are not written, the caller promises the others.
                unsafe { $mask_storeu(to, Self::first_bits(count), vector) }
            }

            #[inline(always)]
            unsafe fn stream(self, to: *mut $real, vector: $v) {
                // SAFETY: the caller promises N writable, aligned elements; `self` proves the instruction.
                unsafe { $stream(to.cast(), vector) }
            }

            #[inline(always)]
            fn splat(self, value: $real) -> $v {
                // SAFETY: `self` proves the instruction.
                unsafe { $set1(value) }
            }

            registers! {
                fn add(a: V, b: V) -> $v = $add(a, b);
                fn sub(a: V, b: V) -> $v = $sub(a, b);
                fn mul(a: V, b: V) -> $v = $mul(a, b);
                fn div(a: V, b: V) -> $v = $div(a, b);
                fn fma(a: V, b: V, c: V) -> $v = $fmadd(a, b, c);
                fn fma_once(a: V, b: V, c: V) -> $v = $fmadd(a, b, c);
                fn fnma(a: V, b: V, c: V) -> $v = $fnmadd(a, b, c);
                fn min(a: V, b: V) -> $v = $min(a, b);
                fn max(a: V, b: V) -> $v = $max(a, b);
                fn lt(a: V, b: V) -> $mask = $cmp::<_CMP_LT_OQ>(a, b);
                fn eq(a: V, b: V) -> $mask = $cmp::<_CMP_EQ_OQ>(a, b);
                fn select(mask: M, a: V, b: V) -> $v = $blend(mask, b, a);
                fn sum(vector: V) -> $real = $reduce_add(vector);
                fn max_lane(vector: V) -> $real = $reduce_max(vector);
                fn wide_zero() -> $wide = $wide_zero();
                fn wide_add(sums: Wide, vector: V) -> $wide = $wide_add(sums, vector);
                fn wide_sum(sums: Wide) -> f64 = $wide_sum(sums);
                fn int_of(vector: V) -> __m512i = $cast_int(vector);
                fn float_of(vector: I) -> $v = $cast_real(vector);
                fn int_add(a: I, b: I) -> __m512i = $int_add(a, b);
                fn int_sub(a: I, b: I) -> __m512i = $int_sub(a, b);
                fn int_and(a: I, b: I) -> __m512i = _mm512_and_si512(a, b);
                fn int_xor(a: I, b: I) -> __m512i = _mm512_xor_si512(a, b);
                fn int_sign(a: I) -> __m512i = $srai::<{ $int::BITS - 1 }>(a);
                fn int_to_exponent(a: I) -> __m512i = $slli::<$mantissa>(a);
                fn int_min(a: I, b: I) -> __m512i = $int_min(a, b);
                fn int_max(a: I, b: I) -> __m512i = $int_max(a, b);
                fn int_gt(a: I, b: I) -> $mask = $cmpgt(a, b);
                fn int_select(mask: M, a: I, b: I) -> __m512i = $int_blend(mask, b, a);
                fn count(count: I, mask: M) -> __m512i = $int_mask_sub(count, mask, count, $int_set1(-1));
                fn total(count: I) -> usize = $reduce_int_add(count) as $unsigned as usize;
                fn int_min_lane(a: I) -> $int = $reduce_int_min(a);
                fn int_max_lane(a: I) -> $int = $reduce_int_max(a);
            }

            #[inline(always)]
            fn first(self, count: usize) -> $mask {
                Self::first_bits(count)
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

            #[inline(always)]
            fn int_splat(self, value: $int) -> __m512i {
                // SAFETY: `self` proves the instruction.
                unsafe { $int_set1(value) }
            }

            #[inline(always)]
            unsafe fn int_load(self, from: *const $int) -> __m512i {
                // SAFETY: the caller promises N readable integers; `self` proves the instruction.
                unsafe { $int_loadu(from) }
            }

            #[inline(always)]
            unsafe fn int_store(self, to: *mut $int, vector: __m512i) {
                // SAFETY: the caller promises N writable integers; `self` proves the instruction.
                unsafe { $int_storeu(to, vector) }
            }

            // Compressing to memory is microcoded on Zen 4: compress to a register, then store all of it.
            #[inline(always)]
            unsafe fn int_compress(self, to: *mut $int, mask: $mask, vector: __m512i) -> usize {
                // SAFETY: the caller promises N writable integers; `self` proves the instructions.
                unsafe { $int_storeu(to, $compress(mask, vector)) };
                mask.count_ones() as usize
            }

            #[inline(always)]
            unsafe fn expand(self, from: *const $real, bits: u32) -> $v {
                // SAFETY: the caller promises N readable elements; `self` proves the instructions.
                unsafe { $expand(bits as $mask, $loadu(from)) }
            }
        }
    };
}

lanes!(
    Avx512F32,
    f32,
    i32,
    u32,
    __m512,
    __mmask16,
    16,
    23,
    _mm512_set1_ps,
    _mm512_loadu_ps,
    _mm512_maskz_loadu_ps,
    _mm512_storeu_ps,
    _mm512_mask_storeu_ps,
    _mm512_stream_ps,
    _mm512_add_ps,
    _mm512_sub_ps,
    _mm512_mul_ps,
    _mm512_div_ps,
    _mm512_fmadd_ps,
    _mm512_fnmadd_ps,
    _mm512_min_ps,
    _mm512_max_ps,
    _mm512_cmp_ps_mask,
    _mm512_mask_blend_ps,
    _mm512_reduce_add_ps,
    _mm512_reduce_max_ps,
    _mm512_castps_si512,
    _mm512_castsi512_ps,
    _mm512_set1_epi32,
    _mm512_loadu_epi32,
    _mm512_storeu_epi32,
    _mm512_maskz_compress_epi32,
    _mm512_maskz_expand_ps,
    _mm512_add_epi32,
    _mm512_sub_epi32,
    _mm512_srai_epi32,
    _mm512_slli_epi32,
    _mm512_min_epi32,
    _mm512_max_epi32,
    _mm512_cmpgt_epi32_mask,
    _mm512_mask_blend_epi32,
    _mm512_mask_sub_epi32,
    _mm512_reduce_add_epi32,
    _mm512_reduce_min_epi32,
    _mm512_reduce_max_epi32,
    [__m512d; 2],
    zero_pair,
    add_pair,
    sum_pair
);
lanes!(
    Avx512F64,
    f64,
    i64,
    u64,
    __m512d,
    __mmask8,
    8,
    52,
    _mm512_set1_pd,
    _mm512_loadu_pd,
    _mm512_maskz_loadu_pd,
    _mm512_storeu_pd,
    _mm512_mask_storeu_pd,
    _mm512_stream_pd,
    _mm512_add_pd,
    _mm512_sub_pd,
    _mm512_mul_pd,
    _mm512_div_pd,
    _mm512_fmadd_pd,
    _mm512_fnmadd_pd,
    _mm512_min_pd,
    _mm512_max_pd,
    _mm512_cmp_pd_mask,
    _mm512_mask_blend_pd,
    _mm512_reduce_add_pd,
    _mm512_reduce_max_pd,
    _mm512_castpd_si512,
    _mm512_castsi512_pd,
    _mm512_set1_epi64,
    _mm512_loadu_epi64,
    _mm512_storeu_epi64,
    _mm512_maskz_compress_epi64,
    _mm512_maskz_expand_pd,
    _mm512_add_epi64,
    _mm512_sub_epi64,
    _mm512_srai_epi64,
    _mm512_slli_epi64,
    _mm512_min_epi64,
    _mm512_max_epi64,
    _mm512_cmpgt_epi64_mask,
    _mm512_mask_blend_epi64,
    _mm512_mask_sub_epi64,
    _mm512_reduce_add_epi64,
    _mm512_reduce_min_epi64,
    _mm512_reduce_max_epi64,
    __m512d,
    _mm512_setzero_pd,
    _mm512_add_pd,
    _mm512_reduce_add_pd
);

/// # Safety
/// AVX-512.
#[inline(always)]
unsafe fn zero_pair() -> [__m512d; 2] {
    // SAFETY: the caller's promise.
    unsafe { [_mm512_setzero_pd(); 2] }
}

/// Adds the lower and the upper half of the lanes.
///
/// # Safety
/// AVX-512.
#[inline(always)]
unsafe fn add_pair([low, high]: [__m512d; 2], vector: __m512) -> [__m512d; 2] {
    // SAFETY: the caller's promise.
    unsafe {
        let lower = _mm512_cvtps_pd(_mm512_castps512_ps256(vector));
        let upper = _mm512_cvtps_pd(_mm512_extractf32x8_ps::<1>(vector));
        [_mm512_add_pd(low, lower), _mm512_add_pd(high, upper)]
    }
}

/// # Safety
/// AVX-512.
#[inline(always)]
unsafe fn sum_pair([low, high]: [__m512d; 2]) -> f64 {
    // SAFETY: the caller's promise.
    unsafe { _mm512_reduce_add_pd(_mm512_add_pd(low, high)) }
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
