//! `f64`, `f32`, `f16` and `bf16` as elements, and the constants of the first two.

use half::{bf16, f16};

use super::lanes::{Cpu, Dots, Element, HalfLanes, LaneMask, Lanes, Math, Real, Vector, WIDEST};
use super::sealed::Sealed;

impl Real for f32 {
    type Int = i32;
    type Lanes<C: Cpu> = C::F32;

    const ZERO: f32 = 0.0;
    const ONE: f32 = 1.0;
    const NEG_INFINITY: f32 = f32::NEG_INFINITY;
    const SMALLEST: f32 = f32::MIN_POSITIVE;
    const LARGEST: f32 = f32::MAX;
    const MAGNITUDE: i32 = i32::MAX;
    const INFINITY_BITS: i32 = 0x7f80_0000;
    const INT_ONE: i32 = 1;
    const INT_MIN: i32 = i32::MIN;
    const INT_MAX: i32 = i32::MAX;
    const MATH: Math<f32> = Math {
        log2_e: std::f32::consts::LOG2_E,
        ln2_high: 0.693_359_4,
        ln2_low: -2.121_944_4e-4,
        round: 12_582_912.0 + 126.0,
        exp_high: 89.0,
        exp_low: -87.336_54,
        // Minimax on ±0.34665, relative error 3.1e-9.
        exp: &[2.0 * 1.381_458_1e-3, 2.0 * 8.368_725e-3, 2.0 * 4.166_839e-2, 2.0 * 0.166_665_2, 2.0 * 0.499_999_93],
        // Cephes, tanhf.c
        tanh_numerator: &[-5.704_988_7e-3, 2.063_908_8e-2, -5.373_971_6e-2, 0.133_314_42, -0.333_332_8],
        tanh_denominator: &[1.0],
    };

    #[inline(always)]
    fn lanes<C: Cpu>(cpu: C) -> C::F32 {
        cpu.f32()
    }

    #[inline(always)]
    fn from_f64(value: f64) -> f32 {
        value as f32
    }

    #[inline(always)]
    fn to_f64(self) -> f64 {
        f64::from(self)
    }

    #[inline(always)]
    fn of_bits(bits: i32) -> f32 {
        f32::from_bits(bits as u32)
    }

    #[inline(always)]
    fn int(value: i64) -> i32 {
        value as i32
    }

    #[inline(always)]
    fn dot_pairs<C: Dots>(cpu: C, a: Vector<C, f32>, b: Vector<C, f32>, c: Vector<C, f32>) -> Vector<C, f32> {
        cpu.dot_pairs(a, b, c)
    }
}

impl Real for f64 {
    type Int = i64;
    type Lanes<C: Cpu> = C::F64;

    const ZERO: f64 = 0.0;
    const ONE: f64 = 1.0;
    const NEG_INFINITY: f64 = f64::NEG_INFINITY;
    const SMALLEST: f64 = f64::MIN_POSITIVE;
    const LARGEST: f64 = f64::MAX;
    const MAGNITUDE: i64 = i64::MAX;
    const INFINITY_BITS: i64 = 0x7ff0_0000_0000_0000;
    const INT_ONE: i64 = 1;
    const INT_MIN: i64 = i64::MIN;
    const INT_MAX: i64 = i64::MAX;
    const MATH: Math<f64> = Math {
        log2_e: std::f64::consts::LOG2_E,
        ln2_high: 6.931_471_803_691_238e-1,
        ln2_low: 1.908_214_929_270_587_7e-10,
        round: 6_755_399_441_055_744.0 + 1022.0,
        exp_high: 710.0,
        exp_low: -708.396_418_532_264_1,
        // Minimax on ±0.34665, relative error 4.3e-17.
        exp: &[
            2.0 * 1.982_784_838_650_285e-9,
            2.0 * 2.506_348_641_137_414e-8,
            2.0 * 2.755_929_138_532_301e-7,
            2.0 * 2.755_733_593_016_667e-6,
            2.0 * 2.480_158_612_999_454e-5,
            2.0 * 1.984_126_982_438_928_5e-4,
            2.0 * 1.388_888_888_913_038_3e-3,
            2.0 * 8.333_333_333_337_467e-3,
            2.0 * 4.166_666_666_666_654_8e-2,
            2.0 * 1.666_666_666_666_664_3e-1,
            2.0 * 0.5,
        ],
        // Cephes, tanh.c
        tanh_numerator: &[-9.643_991_794_250_523e-1, -9.928_772_310_019_186e1, -1.614_687_684_417_084_5e3],
        tanh_denominator: &[1.0, 1.128_116_784_916_329_3e2, 2.235_488_390_601_004_5e3, 4.844_063_053_251_255e3],
    };

    #[inline(always)]
    fn lanes<C: Cpu>(cpu: C) -> C::F64 {
        cpu.f64()
    }

    #[inline(always)]
    fn from_f64(value: f64) -> f64 {
        value
    }

    #[inline(always)]
    fn to_f64(self) -> f64 {
        self
    }

    #[inline(always)]
    fn of_bits(bits: i64) -> f64 {
        f64::from_bits(bits as u64)
    }

    #[inline(always)]
    fn int(value: i64) -> i64 {
        value
    }

    #[inline(always)]
    fn dot_pairs<C: Dots>(_: C, _: Vector<C, f64>, _: Vector<C, f64>, _: Vector<C, f64>) -> Vector<C, f64> {
        unreachable!("bfloat16 is computed in float32")
    }
}

macro_rules! real_element {
    ($($real:ty),*) => {$(
        impl Sealed for $real {}

        impl Element for $real {
            type Real = $real;
            const NULL: $real = 0.0;
            const IS_REAL: bool = true;
            const IS_BFLOAT: bool = false;

            #[inline(always)]
            fn to_real(self) -> $real {
                self
            }

            #[inline(always)]
            fn from_real(value: $real) -> $real {
                value
            }

            #[inline(always)]
            unsafe fn load<C: Cpu>(cpu: C, from: *const $real) -> Vector<C, $real> {
                // SAFETY: the caller's promise is the same.
                unsafe { <$real as Real>::lanes(cpu).load(from) }
            }

            #[inline(always)]
            unsafe fn load_first<C: Cpu>(cpu: C, from: *const $real, count: usize) -> Vector<C, $real> {
                // SAFETY: the caller's promise is the same.
                unsafe { <$real as Real>::lanes(cpu).load_first(from, count) }
            }

            #[inline(always)]
            unsafe fn store<C: Cpu>(cpu: C, to: *mut $real, vector: Vector<C, $real>) {
                // SAFETY: the caller's promise is the same.
                unsafe { <$real as Real>::lanes(cpu).store(to, vector) }
            }

            #[inline(always)]
            unsafe fn store_first<C: Cpu>(cpu: C, to: *mut $real, count: usize, vector: Vector<C, $real>) {
                // SAFETY: the caller's promise is the same.
                unsafe { <$real as Real>::lanes(cpu).store_first(to, count, vector) }
            }

            #[inline(always)]
            unsafe fn keep<C: Cpu>(cpu: C, from: *const $real, to: *mut $real, mask: LaneMask<C, $real>) {
                let lanes = <$real as Real>::lanes(cpu);
                // SAFETY: the caller's promise is the same.
                unsafe { lanes.store(to, lanes.select(mask, lanes.load(from), lanes.splat(0.0))) }
            }

            #[inline(always)]
            unsafe fn keep_first<C: Cpu>(
                cpu: C,
                from: *const $real,
                to: *mut $real,
                count: usize,
                mask: LaneMask<C, $real>,
            ) {
                let lanes = <$real as Real>::lanes(cpu);
                // SAFETY: the caller's promise is the same.
                unsafe {
                    let kept = lanes.select(mask, lanes.load_first(from, count), lanes.splat(0.0));
                    lanes.store_first(to, count, kept);
                }
            }
        }
    )*};
}
real_element!(f32, f64);

/// A whole vector of zeros in memory. That one has room is asserted for each level for which this is compiled.
#[inline(always)]
fn whole<C: Cpu, T: Copy>(zero: T) -> [T; WIDEST] {
    const { assert!(<C::F32 as Lanes>::N <= WIDEST) };
    [zero; WIDEST]
}

macro_rules! half_element {
    ($($half:ty: $load:ident, $store:ident, $is_bfloat:literal;)*) => {$(
        impl Sealed for $half {}

        impl Element for $half {
            type Real = f32;
            const NULL: $half = <$half>::ZERO;
            const IS_REAL: bool = false;
            const IS_BFLOAT: bool = $is_bfloat;

            #[inline(always)]
            fn to_real(self) -> f32 {
                self.to_f32()
            }

            #[inline(always)]
            fn from_real(value: f32) -> $half {
                <$half>::from_f32(value)
            }

            #[inline(always)]
            unsafe fn load<C: Cpu>(cpu: C, from: *const $half) -> Vector<C, f32> {
                // SAFETY: the caller's promise is the same.
                unsafe { cpu.f32().$load(from) }
            }

            #[inline(always)]
            unsafe fn load_first<C: Cpu>(cpu: C, from: *const $half, count: usize) -> Vector<C, f32> {
                let mut whole = whole::<C, $half>(<$half>::ZERO);
                // SAFETY: the caller promises `count` readable elements and no more than there are lanes, for all of which
                // `whole` has room.
                unsafe {
                    std::ptr::copy_nonoverlapping(from, whole.as_mut_ptr(), count);
                    cpu.f32().$load(whole.as_ptr())
                }
            }

            #[inline(always)]
            unsafe fn store<C: Cpu>(cpu: C, to: *mut $half, vector: Vector<C, f32>) {
                // SAFETY: the caller's promise is the same.
                unsafe { cpu.f32().$store(to, vector) }
            }

            #[inline(always)]
            unsafe fn store_first<C: Cpu>(cpu: C, to: *mut $half, count: usize, vector: Vector<C, f32>) {
                let mut whole = whole::<C, $half>(<$half>::ZERO);
                // SAFETY: `whole` has room for all lanes; the caller promises `count` writable elements and no more than
                // there are lanes.
                unsafe {
                    cpu.f32().$store(whole.as_mut_ptr(), vector);
                    std::ptr::copy_nonoverlapping(whole.as_ptr(), to, count);
                }
            }

            #[inline(always)]
            unsafe fn keep<C: Cpu>(cpu: C, from: *const $half, to: *mut $half, mask: LaneMask<C, f32>) {
                // SAFETY: the caller's promise is the same; the type is 16 bits.
                unsafe { cpu.f32().keep_u16(from.cast(), to.cast(), mask) }
            }

            #[inline(always)]
            unsafe fn keep_first<C: Cpu>(
                cpu: C,
                from: *const $half,
                to: *mut $half,
                count: usize,
                mask: LaneMask<C, f32>,
            ) {
                let mut whole = whole::<C, $half>(<$half>::ZERO);
                // SAFETY: `whole` has room for all lanes; the caller promises `count` readable and `count` writable elements
                // and no more than there are lanes.
                unsafe {
                    std::ptr::copy_nonoverlapping(from, whole.as_mut_ptr(), count);
                    let whole = whole.as_mut_ptr();
                    Self::keep(cpu, whole, whole, mask);
                    std::ptr::copy_nonoverlapping(whole, to, count);
                }
            }
        }
    )*};
}
half_element! {
    f16: load_f16, store_f16, false;
    bf16: load_bf16, store_bf16, true;
}
