//! 256-bit vectors: AVX2, FMA, F16C.

use std::arch::x86_64::*;

use half::{bf16, f16};

use super::lanes::{Cpu, HalfLanes, Lanes};
use super::{Task, run_avx2};

/// AVX2 with FMA and F16C. The value proves that the CPU has them.
#[derive(Debug, Clone, Copy)]
pub struct Avx2(());

impl Avx2 {
    /// # Safety
    /// The CPU has AVX2, FMA and F16C.
    #[inline(always)]
    pub(super) unsafe fn new() -> Self {
        Self(())
    }
}

impl Cpu for Avx2 {
    type F32 = Avx2F32;
    type F64 = Avx2F64;

    const REGISTERS: usize = 16;

    #[inline(always)]
    fn f32(self) -> Avx2F32 {
        Avx2F32(())
    }

    #[inline(always)]
    fn f64(self) -> Avx2F64 {
        Avx2F64(())
    }

    #[inline(always)]
    fn run<T: Task>(self, task: T) -> T::Output {
        // SAFETY: the CPU has what the level needs, which `self` proves.
        unsafe { run_avx2(task) }
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

/// Float32 lanes of AVX2.
#[derive(Debug, Clone, Copy)]
pub struct Avx2F32(());

/// Float64 lanes of AVX2.
#[derive(Debug, Clone, Copy)]
pub struct Avx2F64(());

/// From which lane to which integer goes, for each mask of eight: those that the mask sets come first.
static COMPRESS_8: [[i32; 8]; 256] = {
    let mut table = [[0; 8]; 256];
    let mut mask = 0;
    while mask < 256 {
        let (mut lane, mut kept) = (0, 0);
        while lane < 8 {
            if mask >> lane & 1 == 1 {
                table[mask][kept] = lane;
                kept += 1;
            }
            lane += 1;
        }
        mask += 1;
    }
    table
};

/// As [`COMPRESS_8`] for four lanes of twice the size, in halves.
static COMPRESS_4: [[i32; 8]; 16] = {
    let mut table = [[0; 8]; 16];
    let mut mask = 0;
    while mask < 16 {
        let (mut lane, mut kept) = (0, 0);
        while lane < 4 {
            if mask >> lane & 1 == 1 {
                table[mask][2 * kept] = 2 * lane;
                table[mask][2 * kept + 1] = 2 * lane + 1;
                kept += 1;
            }
            lane += 1;
        }
        mask += 1;
    }
    table
};

/// The way back: from which lane each lane comes, for each mask of eight; the sign is set for those that are 0.
static EXPAND_8: [[i32; 8]; 256] = {
    let mut table = [[i32::MIN; 8]; 256];
    let mut mask = 0;
    while mask < 256 {
        let (mut lane, mut kept) = (0, 0);
        while lane < 8 {
            if mask >> lane & 1 == 1 {
                table[mask][lane] = kept;
                kept += 1;
            }
            lane += 1;
        }
        mask += 1;
    }
    table
};

/// As [`EXPAND_8`] for four lanes of twice the size, in halves.
static EXPAND_4: [[i32; 8]; 16] = {
    let mut table = [[i32::MIN; 8]; 16];
    let mut mask = 0;
    while mask < 16 {
        let (mut lane, mut kept) = (0, 0);
        while lane < 4 {
            if mask >> lane & 1 == 1 {
                table[mask][2 * lane] = 2 * kept;
                table[mask][2 * lane + 1] = 2 * kept + 1;
                kept += 1;
            }
            lane += 1;
        }
        mask += 1;
    }
    table
};

/// Loading 8 from `8 - count` gives a mask of the first `count` lanes.
static FIRST_8: [i32; 16] = [-1, -1, -1, -1, -1, -1, -1, -1, 0, 0, 0, 0, 0, 0, 0, 0];
static FIRST_4: [i64; 8] = [-1, -1, -1, -1, 0, 0, 0, 0];

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
        $lanes:ident, $real:ident, $int:ident, $v:ident, $n:literal, $mantissa:literal, $first:ident, $compress:ident, $expand:ident,
        $set1:ident, $loadu:ident, $maskload:ident, $storeu:ident, $maskstore:ident, $stream:ident,
        $add:ident, $sub:ident, $mul:ident, $div:ident, $fmadd:ident, $fnmadd:ident, $min:ident, $max:ident,
        $cmp:ident, $blendv:ident, $and:ident, $or:ident, $andnot:ident, $movemask:ident, $cast_int:ident,
        $cast_real:ident, $int_set1:ident, $int_add:ident, $int_sub:ident, $slli:ident, $cmpgt:ident,
        $wide:ty, $wide_zero:expr, $wide_add:expr, $wide_sum:expr
    ) => {
        impl $lanes {
            #[inline(always)]
            fn first_lanes(count: usize) -> __m256i {
                // SAFETY: from at most N before the middle of the table, N integers are within it; this is AVX, which
                // every value of this type proves.
                unsafe { _mm256_loadu_si256($first.as_ptr().add($n - count.min($n)).cast()) }
            }

            #[inline(always)]
            fn array(vector: $v) -> [$real; $n] {
                let mut lanes = [0.0; $n];
                // SAFETY: the array has exactly N elements.
                unsafe { $storeu(lanes.as_mut_ptr(), vector) };
                lanes
            }

            #[inline(always)]
            fn int_array(vector: __m256i) -> [$int; $n] {
                let mut lanes = [0; $n];
                // SAFETY: the array has exactly N elements.
                unsafe { _mm256_storeu_si256(lanes.as_mut_ptr().cast(), vector) };
                lanes
            }
        }

        impl Lanes for $lanes {
            type Scalar = $real;
            type V = $v;
            type I = __m256i;
            type M = $v;
            type Wide = $wide;
            const N: usize = $n;

            #[inline(always)]
            fn splat(self, value: $real) -> $v {
                // SAFETY: `self` proves the instruction.
                unsafe { $set1(value) }
            }

            #[inline(always)]
            unsafe fn load(self, from: *const $real) -> $v {
                // SAFETY: the caller promises N readable elements; `self` proves the instruction.
                unsafe { $loadu(from) }
            }

            #[inline(always)]
            unsafe fn load_first(self, from: *const $real, count: usize) -> $v {
                // SAFETY: lanes outside of the mask are not read, the caller promises the others.
                unsafe { $maskload(from, Self::first_lanes(count)) }
            }

            #[inline(always)]
            unsafe fn store(self, to: *mut $real, vector: $v) {
                // SAFETY: the caller promises N writable elements; `self` proves the instruction.
                unsafe { $storeu(to, vector) }
            }

            #[inline(always)]
            unsafe fn store_first(self, to: *mut $real, count: usize, vector: $v) {
                // SAFETY: lanes outside of the mask are not written, the caller promises the others.
                unsafe { $maskstore(to, Self::first_lanes(count), vector) }
            }

            #[inline(always)]
            unsafe fn stream(self, to: *mut $real, vector: $v) {
                // SAFETY: the caller promises N writable, aligned elements; `self` proves the instruction.
                unsafe { $stream(to, vector) }
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
                fn lt(a: V, b: V) -> $v = $cmp::<_CMP_LT_OQ>(a, b);
                fn eq(a: V, b: V) -> $v = $cmp::<_CMP_EQ_OQ>(a, b);
                fn select(mask: M, a: V, b: V) -> $v = $blendv(b, a, mask);
                fn and(a: M, b: M) -> $v = $and(a, b);
                fn or(a: M, b: M) -> $v = $or(a, b);
                fn and_not(a: M, b: M) -> $v = $andnot(b, a);
                fn bits(mask: M) -> u32 = $movemask(mask) as u32;
                fn wide_zero() -> $wide = $wide_zero();
                fn wide_add(sums: Wide, vector: V) -> $wide = $wide_add(sums, vector);
                fn wide_sum(sums: Wide) -> f64 = $wide_sum(sums);
                fn int_of(vector: V) -> __m256i = $cast_int(vector);
                fn float_of(vector: I) -> $v = $cast_real(vector);
                fn int_add(a: I, b: I) -> __m256i = $int_add(a, b);
                fn int_sub(a: I, b: I) -> __m256i = $int_sub(a, b);
                fn int_and(a: I, b: I) -> __m256i = _mm256_and_si256(a, b);
                fn int_xor(a: I, b: I) -> __m256i = _mm256_xor_si256(a, b);
                // There is no 64-bit arithmetic shift.
                fn int_sign(a: I) -> __m256i = $cmpgt(_mm256_setzero_si256(), a);
                fn int_to_exponent(a: I) -> __m256i = $slli::<$mantissa>(a);
                // There is no 64-bit minimum either; for 32 bits LLVM makes one instruction of this.
                fn int_min(a: I, b: I) -> __m256i = _mm256_blendv_epi8(a, b, $cmpgt(a, b));
                fn int_max(a: I, b: I) -> __m256i = _mm256_blendv_epi8(b, a, $cmpgt(a, b));
                fn int_gt(a: I, b: I) -> $v = $cast_real($cmpgt(a, b));
                fn int_select(mask: M, a: I, b: I) -> __m256i = _mm256_blendv_epi8(b, a, $cast_int(mask));
                fn count(count: I, mask: M) -> __m256i = $int_sub(count, $cast_int(mask));
            }

            #[inline(always)]
            fn first(self, count: usize) -> $v {
                // SAFETY: `self` proves the instruction; only registers are touched.
                unsafe { $cast_real(Self::first_lanes(count)) }
            }

            #[inline(always)]
            fn sum(self, vector: $v) -> $real {
                let lanes = Self::array(vector);
                let mut width = $n / 2;
                let mut sums = lanes;
                while width > 0 {
                    for i in 0..width {
                        sums[i] += sums[i + width];
                    }
                    width /= 2;
                }
                sums[0]
            }

            #[inline(always)]
            fn max_lane(self, vector: $v) -> $real {
                Self::array(vector).into_iter().fold($real::NEG_INFINITY, $real::max)
            }

            #[inline(always)]
            fn int_splat(self, value: $int) -> __m256i {
                // SAFETY: `self` proves the instruction.
                unsafe { $int_set1(value) }
            }

            #[inline(always)]
            unsafe fn int_load(self, from: *const $int) -> __m256i {
                // SAFETY: the caller promises N readable integers; `self` proves the instruction.
                unsafe { _mm256_loadu_si256(from.cast()) }
            }

            #[inline(always)]
            unsafe fn int_store(self, to: *mut $int, vector: __m256i) {
                // SAFETY: the caller promises N writable integers; `self` proves the instruction.
                unsafe { _mm256_storeu_si256(to.cast(), vector) }
            }

            #[inline(always)]
            unsafe fn int_compress(self, to: *mut $int, mask: $v, vector: __m256i) -> usize {
                let bits = self.bits(mask);
                // SAFETY: a mask of N bits is an index within the table; the caller promises N writable integers;
                // `self` proves the instructions.
                unsafe {
                    let order = _mm256_loadu_si256($compress[bits as usize].as_ptr().cast());
                    _mm256_storeu_si256(to.cast(), _mm256_permutevar8x32_epi32(vector, order));
                }
                bits.count_ones() as usize
            }

            #[inline(always)]
            unsafe fn expand(self, from: *const $real, bits: u32) -> $v {
                // SAFETY: the caller promises N readable elements and a mask of N bits, which is an index within the
                // table; `self` proves the instructions.
                unsafe {
                    let order = _mm256_loadu_si256($expand[bits as usize].as_ptr().cast());
                    let lanes = $cast_real(_mm256_permutevar8x32_epi32($cast_int($loadu(from)), order));
                    $blendv(lanes, $set1(0.0), $cast_real(order))
                }
            }

            #[inline(always)]
            fn total(self, count: __m256i) -> usize {
                Self::int_array(count).into_iter().map(|lane| lane as usize).sum()
            }

            #[inline(always)]
            fn int_min_lane(self, a: __m256i) -> $int {
                Self::int_array(a).into_iter().fold($int::MAX, $int::min)
            }

            #[inline(always)]
            fn int_max_lane(self, a: __m256i) -> $int {
                Self::int_array(a).into_iter().fold($int::MIN, $int::max)
            }
        }
    };
}

lanes!(
    Avx2F32,
    f32,
    i32,
    __m256,
    8,
    23,
    FIRST_8,
    COMPRESS_8,
    EXPAND_8,
    _mm256_set1_ps,
    _mm256_loadu_ps,
    _mm256_maskload_ps,
    _mm256_storeu_ps,
    _mm256_maskstore_ps,
    _mm256_stream_ps,
    _mm256_add_ps,
    _mm256_sub_ps,
    _mm256_mul_ps,
    _mm256_div_ps,
    _mm256_fmadd_ps,
    _mm256_fnmadd_ps,
    _mm256_min_ps,
    _mm256_max_ps,
    _mm256_cmp_ps,
    _mm256_blendv_ps,
    _mm256_and_ps,
    _mm256_or_ps,
    _mm256_andnot_ps,
    _mm256_movemask_ps,
    _mm256_castps_si256,
    _mm256_castsi256_ps,
    _mm256_set1_epi32,
    _mm256_add_epi32,
    _mm256_sub_epi32,
    _mm256_slli_epi32,
    _mm256_cmpgt_epi32,
    [__m256d; 2],
    zero_pair,
    add_pair,
    sum_pair
);
lanes!(
    Avx2F64,
    f64,
    i64,
    __m256d,
    4,
    52,
    FIRST_4,
    COMPRESS_4,
    EXPAND_4,
    _mm256_set1_pd,
    _mm256_loadu_pd,
    _mm256_maskload_pd,
    _mm256_storeu_pd,
    _mm256_maskstore_pd,
    _mm256_stream_pd,
    _mm256_add_pd,
    _mm256_sub_pd,
    _mm256_mul_pd,
    _mm256_div_pd,
    _mm256_fmadd_pd,
    _mm256_fnmadd_pd,
    _mm256_min_pd,
    _mm256_max_pd,
    _mm256_cmp_pd,
    _mm256_blendv_pd,
    _mm256_and_pd,
    _mm256_or_pd,
    _mm256_andnot_pd,
    _mm256_movemask_pd,
    _mm256_castpd_si256,
    _mm256_castsi256_pd,
    _mm256_set1_epi64x,
    _mm256_add_epi64,
    _mm256_sub_epi64,
    _mm256_slli_epi64,
    _mm256_cmpgt_epi64,
    __m256d,
    _mm256_setzero_pd,
    _mm256_add_pd,
    sum_wide
);

/// # Safety
/// AVX2.
#[inline(always)]
unsafe fn zero_pair() -> [__m256d; 2] {
    // SAFETY: the caller's promise.
    unsafe { [_mm256_setzero_pd(); 2] }
}

/// Adds the lower and the upper half of the lanes.
///
/// # Safety
/// AVX2.
#[inline(always)]
unsafe fn add_pair([low, high]: [__m256d; 2], vector: __m256) -> [__m256d; 2] {
    // SAFETY: the caller's promise.
    unsafe {
        let lower = _mm256_cvtps_pd(_mm256_castps256_ps128(vector));
        let upper = _mm256_cvtps_pd(_mm256_extractf128_ps::<1>(vector));
        [_mm256_add_pd(low, lower), _mm256_add_pd(high, upper)]
    }
}

/// # Safety
/// AVX2.
#[inline(always)]
unsafe fn sum_pair([low, high]: [__m256d; 2]) -> f64 {
    // SAFETY: the caller's promise.
    unsafe { sum_wide(_mm256_add_pd(low, high)) }
}

/// # Safety
/// AVX2.
#[inline(always)]
unsafe fn sum_wide(sums: __m256d) -> f64 {
    let mut lanes = [0.0; 4];
    // SAFETY: the array has four elements; the caller's promise.
    unsafe { _mm256_storeu_pd(lanes.as_mut_ptr(), sums) };
    (lanes[0] + lanes[2]) + (lanes[1] + lanes[3])
}

impl HalfLanes for Avx2F32 {
    #[inline(always)]
    unsafe fn load_f16(self, from: *const f16) -> __m256 {
        // SAFETY: the caller promises 8 readable elements, 16 bytes; `self` proves the instructions.
        unsafe { _mm256_cvtph_ps(_mm_loadu_si128(from.cast())) }
    }

    #[inline(always)]
    unsafe fn store_f16(self, to: *mut f16, vector: __m256) {
        // SAFETY: the caller promises 8 writable elements, 16 bytes; `self` proves the instructions.
        unsafe { _mm_storeu_si128(to.cast(), _mm256_cvtps_ph::<_MM_FROUND_TO_NEAREST_INT>(vector)) }
    }

    #[inline(always)]
    unsafe fn load_bf16(self, from: *const bf16) -> __m256 {
        // SAFETY: the caller promises 8 readable elements, 16 bytes; `self` proves the instructions.
        unsafe {
            let wide = _mm256_cvtepu16_epi32(_mm_loadu_si128(from.cast()));
            _mm256_castsi256_ps(_mm256_slli_epi32::<16>(wide))
        }
    }

    #[inline(always)]
    unsafe fn store_bf16(self, to: *mut bf16, vector: __m256) {
        // SAFETY: the caller promises 8 writable elements, 16 bytes; `self` proves the instructions.
        unsafe {
            let bits = _mm256_castps_si256(vector);
            let even = _mm256_and_si256(_mm256_srli_epi32::<16>(bits), _mm256_set1_epi32(1));
            let rounded = _mm256_add_epi32(_mm256_add_epi32(bits, _mm256_set1_epi32(0x7fff)), even);
            let nan = _mm256_castps_si256(_mm256_cmp_ps::<_CMP_UNORD_Q>(vector, vector));
            let quiet = _mm256_or_si256(bits, _mm256_set1_epi32(0x40_0000));
            let high = _mm256_srli_epi32::<16>(_mm256_blendv_epi8(rounded, quiet, nan));
            let narrow = _mm_packus_epi32(_mm256_castsi256_si128(high), _mm256_extracti128_si256::<1>(high));
            _mm_storeu_si128(to.cast(), narrow);
        }
    }

    #[inline(always)]
    unsafe fn keep_u16(self, from: *const u16, to: *mut u16, mask: __m256) {
        // SAFETY: the caller promises 8 readable and 8 writable elements; `self` proves the instructions.
        unsafe {
            let mask = _mm256_castps_si256(mask);
            // All ones are -1, which stays -1 in 16 bits.
            let narrow = _mm_packs_epi32(_mm256_castsi256_si128(mask), _mm256_extracti128_si256::<1>(mask));
            _mm_storeu_si128(to.cast(), _mm_and_si128(_mm_loadu_si128(from.cast()), narrow));
        }
    }
}
