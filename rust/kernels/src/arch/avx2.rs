//! 256-bit vectors: AVX2, and what every CPU that has it has besides.

use std::arch::x86_64::*;
use std::mem::transmute;

use half::{bf16, f16};

use super::Task;
use super::lanes::{Cpu, HalfLanes, Lanes};
use super::macros::{memory, proof, registers};
use super::sealed::Sealed;

proof! {
    /// AVX2, FMA, F16C, BMI1, BMI2, LZCNT and POPCNT. The value proves that the CPU has them all.
    Avx2, run_avx2<Task>, is_x86_feature_detected:
    "avx2" "fma" "f16c" "bmi1" "bmi2" "lzcnt" "popcnt"
}

impl Sealed for Avx2 {}

impl Cpu for Avx2 {
    type F32 = Avx2F32;
    type F64 = Avx2F64;

    const REGISTERS: usize = 16;

    #[inline(always)]
    fn f32(self) -> Avx2F32 {
        Avx2F32(self)
    }

    #[inline(always)]
    fn f64(self) -> Avx2F64 {
        Avx2F64(self)
    }

    #[inline(always)]
    fn run<T: Task>(self, task: T) -> T::Output {
        // SAFETY: the CPU has the features, which `self` proves: `detect` asked for each of them.
        unsafe { run_avx2(self, task) }
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
pub struct Avx2F32(Avx2);

/// Float64 lanes of AVX2.
#[derive(Debug, Clone, Copy)]
pub struct Avx2F64(Avx2);

impl Sealed for Avx2F32 {}
impl Sealed for Avx2F64 {}

/// From which of the eight 32-bit lanes each one comes, for each mask of lanes, which have `parts` of them each: those
/// that the mask sets stand first.
const fn compress<const MASKS: usize>(parts: usize) -> [[i32; 8]; MASKS] {
    let mut table = [[0; 8]; MASKS];
    let mut mask = 0;
    while mask < MASKS {
        let (mut lane, mut kept) = (0, 0);
        while lane < 8 {
            if mask >> (lane / parts) & 1 == 1 {
                table[mask][kept] = lane as i32;
                kept += 1;
            }
            lane += 1;
        }
        mask += 1;
    }
    table
}

/// The way back. The sign is set for lanes that become 0.
const fn expand<const MASKS: usize>(parts: usize) -> [[i32; 8]; MASKS] {
    let mut table = [[i32::MIN; 8]; MASKS];
    let mut mask = 0;
    while mask < MASKS {
        let (mut lane, mut kept) = (0, 0);
        while lane < 8 {
            if mask >> (lane / parts) & 1 == 1 {
                table[mask][lane] = kept;
                kept += 1;
            }
            lane += 1;
        }
        mask += 1;
    }
    table
}

static COMPRESS_8: [[i32; 8]; 256] = compress(1);
static COMPRESS_4: [[i32; 8]; 16] = compress(2);
static EXPAND_8: [[i32; 8]; 256] = expand(1);
static EXPAND_4: [[i32; 8]; 16] = expand(2);

/// Loading 8 from `8 - count` gives a mask of the first `count` lanes.
static FIRST_8: [i32; 16] = [-1, -1, -1, -1, -1, -1, -1, -1, 0, 0, 0, 0, 0, 0, 0, 0];
static FIRST_4: [i64; 8] = [-1, -1, -1, -1, 0, 0, 0, 0];

/// The sum of some lanes, a power of two of them: the upper half is added to the lower one until one is left.
#[inline(always)]
fn halves<T: Copy + std::ops::AddAssign, const N: usize>(mut lanes: [T; N]) -> T {
    let mut width = N / 2;
    while width > 0 {
        for i in 0..width {
            let upper = lanes[i + width];
            lanes[i] += upper;
        }
        width /= 2;
    }
    lanes[0]
}

impl Avx2F32 {
    #[inline(always)]
    fn first_lanes(self, count: usize) -> __m256i {
        // SAFETY: from at most 8 before the middle of the table, 8 integers are within it; `self` proves AVX.
        unsafe { _mm256_loadu_si256(FIRST_8.as_ptr().add(8 - count.min(8)).cast()) }
    }
}

impl Lanes for Avx2F32 {
    type Scalar = f32;
    type V = __m256;
    type I = __m256i;
    type M = __m256;
    type Wide = [__m256d; 2];
    const N: usize = 8;

    memory! {
        unsafe fn load(self, from: *const f32) -> __m256 = _mm256_loadu_ps(from);
        unsafe fn load_first(self, from: *const f32, count: usize) -> __m256 =
            _mm256_maskload_ps(from, self.first_lanes(count));
        unsafe fn store(self, to: *mut f32, vector: __m256) = _mm256_storeu_ps(to, vector);
        unsafe fn store_first(self, to: *mut f32, count: usize, vector: __m256) =
            _mm256_maskstore_ps(to, self.first_lanes(count), vector);
        unsafe fn stream(self, to: *mut f32, vector: __m256) = _mm256_stream_ps(to, vector);
        unsafe fn int_load(self, from: *const i32) -> __m256i = _mm256_loadu_si256(from.cast());
        unsafe fn int_store(self, to: *mut i32, vector: __m256i) = _mm256_storeu_si256(to.cast(), vector);
        unsafe fn int_compress(self, to: *mut i32, mask: __m256, vector: __m256i) -> usize = {
            let bits = self.bits(mask);
            let order = _mm256_loadu_si256(COMPRESS_8[bits as usize].as_ptr().cast());
            _mm256_storeu_si256(to.cast(), _mm256_permutevar8x32_epi32(vector, order));
            bits.count_ones() as usize
        };
        unsafe fn expand(self, from: *const f32, bits: u32) -> __m256 = {
            let order = _mm256_loadu_si256(EXPAND_8[bits as usize].as_ptr().cast());
            let lanes = _mm256_permutevar8x32_epi32(_mm256_castps_si256(_mm256_loadu_ps(from)), order);
            _mm256_blendv_ps(_mm256_castsi256_ps(lanes), _mm256_setzero_ps(), _mm256_castsi256_ps(order))
        };
    }

    registers! {
        fn splat(self, value: f32) -> __m256 = _mm256_set1_ps(value);
        fn add(self, a: __m256, b: __m256) -> __m256 = _mm256_add_ps(a, b);
        fn sub(self, a: __m256, b: __m256) -> __m256 = _mm256_sub_ps(a, b);
        fn mul(self, a: __m256, b: __m256) -> __m256 = _mm256_mul_ps(a, b);
        fn div(self, a: __m256, b: __m256) -> __m256 = _mm256_div_ps(a, b);
        fn fma(self, a: __m256, b: __m256, c: __m256) -> __m256 = _mm256_fmadd_ps(a, b, c);
        fn fma_once(self, a: __m256, b: __m256, c: __m256) -> __m256 = _mm256_fmadd_ps(a, b, c);
        fn fnma(self, a: __m256, b: __m256, c: __m256) -> __m256 = _mm256_fnmadd_ps(a, b, c);
        fn min(self, a: __m256, b: __m256) -> __m256 = _mm256_min_ps(a, b);
        fn max(self, a: __m256, b: __m256) -> __m256 = _mm256_max_ps(a, b);
        fn lt(self, a: __m256, b: __m256) -> __m256 = _mm256_cmp_ps::<_CMP_LT_OQ>(a, b);
        fn eq(self, a: __m256, b: __m256) -> __m256 = _mm256_cmp_ps::<_CMP_EQ_OQ>(a, b);
        fn select(self, mask: __m256, a: __m256, b: __m256) -> __m256 = _mm256_blendv_ps(b, a, mask);
        fn sum(self, vector: __m256) -> f32 = halves(transmute::<__m256, [f32; 8]>(vector));
        fn max_lane(self, vector: __m256) -> f32 =
            transmute::<__m256, [f32; 8]>(vector).into_iter().fold(f32::NEG_INFINITY, f32::max);

        fn wide_zero(self) -> [__m256d; 2] = [_mm256_setzero_pd(); 2];
        fn wide_add(self, sums: [__m256d; 2], vector: __m256) -> [__m256d; 2] = {
            let lower = _mm256_cvtps_pd(_mm256_castps256_ps128(vector));
            let upper = _mm256_cvtps_pd(_mm256_extractf128_ps::<1>(vector));
            [_mm256_add_pd(sums[0], lower), _mm256_add_pd(sums[1], upper)]
        };
        fn wide_sum(self, sums: [__m256d; 2]) -> f64 = halves(transmute::<__m256d, [f64; 4]>(_mm256_add_pd(sums[0], sums[1])));

        fn first(self, count: usize) -> __m256 = _mm256_castsi256_ps(self.first_lanes(count));
        fn and(self, a: __m256, b: __m256) -> __m256 = _mm256_and_ps(a, b);
        fn or(self, a: __m256, b: __m256) -> __m256 = _mm256_or_ps(a, b);
        fn and_not(self, a: __m256, b: __m256) -> __m256 = _mm256_andnot_ps(b, a);
        fn bits(self, mask: __m256) -> u32 = _mm256_movemask_ps(mask) as u32;

        fn int_of(self, vector: __m256) -> __m256i = _mm256_castps_si256(vector);
        fn float_of(self, vector: __m256i) -> __m256 = _mm256_castsi256_ps(vector);
        fn int_splat(self, value: i32) -> __m256i = _mm256_set1_epi32(value);
        fn int_add(self, a: __m256i, b: __m256i) -> __m256i = _mm256_add_epi32(a, b);
        fn int_sub(self, a: __m256i, b: __m256i) -> __m256i = _mm256_sub_epi32(a, b);
        fn int_and(self, a: __m256i, b: __m256i) -> __m256i = _mm256_and_si256(a, b);
        fn int_xor(self, a: __m256i, b: __m256i) -> __m256i = _mm256_xor_si256(a, b);
        fn int_sign(self, a: __m256i) -> __m256i = _mm256_srai_epi32::<31>(a);
        fn int_to_exponent(self, a: __m256i) -> __m256i = _mm256_slli_epi32::<23>(a);
        fn int_min(self, a: __m256i, b: __m256i) -> __m256i = _mm256_min_epi32(a, b);
        fn int_max(self, a: __m256i, b: __m256i) -> __m256i = _mm256_max_epi32(a, b);
        fn int_gt(self, a: __m256i, b: __m256i) -> __m256 = _mm256_castsi256_ps(_mm256_cmpgt_epi32(a, b));
        fn int_select(self, mask: __m256, a: __m256i, b: __m256i) -> __m256i = _mm256_blendv_epi8(b, a, _mm256_castps_si256(mask));
        fn count(self, count: __m256i, mask: __m256) -> __m256i = _mm256_sub_epi32(count, _mm256_castps_si256(mask));
        fn total(self, count: __m256i) -> usize =
            transmute::<__m256i, [i32; 8]>(count).into_iter().map(|lane| lane as usize).sum();
        fn int_min_lane(self, a: __m256i) -> i32 =
            transmute::<__m256i, [i32; 8]>(a).into_iter().fold(i32::MAX, i32::min);
        fn int_max_lane(self, a: __m256i) -> i32 =
            transmute::<__m256i, [i32; 8]>(a).into_iter().fold(i32::MIN, i32::max);
    }
}

impl Avx2F64 {
    #[inline(always)]
    fn first_lanes(self, count: usize) -> __m256i {
        // SAFETY: from at most 4 before the middle of the table, 4 integers are within it; `self` proves AVX.
        unsafe { _mm256_loadu_si256(FIRST_4.as_ptr().add(4 - count.min(4)).cast()) }
    }
}

impl Lanes for Avx2F64 {
    type Scalar = f64;
    type V = __m256d;
    type I = __m256i;
    type M = __m256d;
    type Wide = __m256d;
    const N: usize = 4;

    memory! {
        unsafe fn load(self, from: *const f64) -> __m256d = _mm256_loadu_pd(from);
        unsafe fn load_first(self, from: *const f64, count: usize) -> __m256d =
            _mm256_maskload_pd(from, self.first_lanes(count));
        unsafe fn store(self, to: *mut f64, vector: __m256d) = _mm256_storeu_pd(to, vector);
        unsafe fn store_first(self, to: *mut f64, count: usize, vector: __m256d) =
            _mm256_maskstore_pd(to, self.first_lanes(count), vector);
        unsafe fn stream(self, to: *mut f64, vector: __m256d) = _mm256_stream_pd(to, vector);
        unsafe fn int_load(self, from: *const i64) -> __m256i = _mm256_loadu_si256(from.cast());
        unsafe fn int_store(self, to: *mut i64, vector: __m256i) = _mm256_storeu_si256(to.cast(), vector);
        unsafe fn int_compress(self, to: *mut i64, mask: __m256d, vector: __m256i) -> usize = {
            let bits = self.bits(mask);
            let order = _mm256_loadu_si256(COMPRESS_4[bits as usize].as_ptr().cast());
            _mm256_storeu_si256(to.cast(), _mm256_permutevar8x32_epi32(vector, order));
            bits.count_ones() as usize
        };
        unsafe fn expand(self, from: *const f64, bits: u32) -> __m256d = {
            let order = _mm256_loadu_si256(EXPAND_4[bits as usize].as_ptr().cast());
            let lanes = _mm256_permutevar8x32_epi32(_mm256_castpd_si256(_mm256_loadu_pd(from)), order);
            _mm256_blendv_pd(_mm256_castsi256_pd(lanes), _mm256_setzero_pd(), _mm256_castsi256_pd(order))
        };
    }

    registers! {
        fn splat(self, value: f64) -> __m256d = _mm256_set1_pd(value);
        fn add(self, a: __m256d, b: __m256d) -> __m256d = _mm256_add_pd(a, b);
        fn sub(self, a: __m256d, b: __m256d) -> __m256d = _mm256_sub_pd(a, b);
        fn mul(self, a: __m256d, b: __m256d) -> __m256d = _mm256_mul_pd(a, b);
        fn div(self, a: __m256d, b: __m256d) -> __m256d = _mm256_div_pd(a, b);
        fn fma(self, a: __m256d, b: __m256d, c: __m256d) -> __m256d = _mm256_fmadd_pd(a, b, c);
        fn fma_once(self, a: __m256d, b: __m256d, c: __m256d) -> __m256d = _mm256_fmadd_pd(a, b, c);
        fn fnma(self, a: __m256d, b: __m256d, c: __m256d) -> __m256d = _mm256_fnmadd_pd(a, b, c);
        fn min(self, a: __m256d, b: __m256d) -> __m256d = _mm256_min_pd(a, b);
        fn max(self, a: __m256d, b: __m256d) -> __m256d = _mm256_max_pd(a, b);
        fn lt(self, a: __m256d, b: __m256d) -> __m256d = _mm256_cmp_pd::<_CMP_LT_OQ>(a, b);
        fn eq(self, a: __m256d, b: __m256d) -> __m256d = _mm256_cmp_pd::<_CMP_EQ_OQ>(a, b);
        fn select(self, mask: __m256d, a: __m256d, b: __m256d) -> __m256d = _mm256_blendv_pd(b, a, mask);
        fn sum(self, vector: __m256d) -> f64 = halves(transmute::<__m256d, [f64; 4]>(vector));
        fn max_lane(self, vector: __m256d) -> f64 =
            transmute::<__m256d, [f64; 4]>(vector).into_iter().fold(f64::NEG_INFINITY, f64::max);

        fn wide_zero(self) -> __m256d = _mm256_setzero_pd();
        fn wide_add(self, sums: __m256d, vector: __m256d) -> __m256d = _mm256_add_pd(sums, vector);
        fn wide_sum(self, sums: __m256d) -> f64 = halves(transmute::<__m256d, [f64; 4]>(sums));

        fn first(self, count: usize) -> __m256d = _mm256_castsi256_pd(self.first_lanes(count));
        fn and(self, a: __m256d, b: __m256d) -> __m256d = _mm256_and_pd(a, b);
        fn or(self, a: __m256d, b: __m256d) -> __m256d = _mm256_or_pd(a, b);
        fn and_not(self, a: __m256d, b: __m256d) -> __m256d = _mm256_andnot_pd(b, a);
        fn bits(self, mask: __m256d) -> u32 = _mm256_movemask_pd(mask) as u32;

        fn int_of(self, vector: __m256d) -> __m256i = _mm256_castpd_si256(vector);
        fn float_of(self, vector: __m256i) -> __m256d = _mm256_castsi256_pd(vector);
        fn int_splat(self, value: i64) -> __m256i = _mm256_set1_epi64x(value);
        fn int_add(self, a: __m256i, b: __m256i) -> __m256i = _mm256_add_epi64(a, b);
        fn int_sub(self, a: __m256i, b: __m256i) -> __m256i = _mm256_sub_epi64(a, b);
        fn int_and(self, a: __m256i, b: __m256i) -> __m256i = _mm256_and_si256(a, b);
        fn int_xor(self, a: __m256i, b: __m256i) -> __m256i = _mm256_xor_si256(a, b);
        // There is no 64-bit arithmetic shift.
        fn int_sign(self, a: __m256i) -> __m256i = _mm256_cmpgt_epi64(_mm256_setzero_si256(), a);
        fn int_to_exponent(self, a: __m256i) -> __m256i = _mm256_slli_epi64::<52>(a);
        // There is no 64-bit minimum either.
        fn int_min(self, a: __m256i, b: __m256i) -> __m256i = _mm256_blendv_epi8(a, b, _mm256_cmpgt_epi64(a, b));
        fn int_max(self, a: __m256i, b: __m256i) -> __m256i = _mm256_blendv_epi8(b, a, _mm256_cmpgt_epi64(a, b));
        fn int_gt(self, a: __m256i, b: __m256i) -> __m256d = _mm256_castsi256_pd(_mm256_cmpgt_epi64(a, b));
        fn int_select(self, mask: __m256d, a: __m256i, b: __m256i) -> __m256i = _mm256_blendv_epi8(b, a, _mm256_castpd_si256(mask));
        fn count(self, count: __m256i, mask: __m256d) -> __m256i = _mm256_sub_epi64(count, _mm256_castpd_si256(mask));
        fn total(self, count: __m256i) -> usize =
            transmute::<__m256i, [i64; 4]>(count).into_iter().map(|lane| lane as usize).sum();
        fn int_min_lane(self, a: __m256i) -> i64 =
            transmute::<__m256i, [i64; 4]>(a).into_iter().fold(i64::MAX, i64::min);
        fn int_max_lane(self, a: __m256i) -> i64 =
            transmute::<__m256i, [i64; 4]>(a).into_iter().fold(i64::MIN, i64::max);
    }
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
