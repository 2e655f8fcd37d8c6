//! What a CPU level offers to kernels: vectors of floats, of the integers with the same bits, and masks.

use half::{bf16, f16};

use super::sealed::Sealed;
use super::{DotsTask, Task};

/// A CPU level that is there. The value proves it: the one function that makes it asks the CPU for every feature of the
/// level first, which is why the methods of its lanes are safe. Nobody else can implement it.
pub trait Cpu: Sealed + Copy + Send + Sync + 'static {
    /// Lanes of float32.
    type F32: HalfLanes;
    /// Lanes of float64.
    type F64: Lanes<Scalar = f64>;

    /// How many vector registers there are; a register-blocked kernel keeps its accumulators in fewer.
    const REGISTERS: usize;

    /// Lanes of float32.
    fn f32(self) -> Self::F32;
    /// Lanes of float64.
    fn f64(self) -> Self::F64;

    /// Runs a task at this level as a function of its own: for what is large and needed in several places.
    fn run<T: Task>(self, task: T) -> T::Output;

    /// As [`Cpu::run`], with the instructions of [`Dots`].
    ///
    /// # Panics
    /// If there are none ([`Level::has_dots`](super::Level::has_dots)).
    #[inline(always)]
    fn run_dots<T: DotsTask>(self, _: T) -> T::Output {
        panic!("this level has no dot products of bfloat16")
    }

    /// Asks for a cache line that will be read soon. Any address is allowed.
    #[inline(always)]
    fn prefetch<T>(self, _: *const T) {}

    /// Orders the stores of [`Lanes::stream`] before everything that follows. Once, at the end of a task that streamed.
    fn fence(self);
}

/// A level that multiplies bfloat16 as they are. Whether that is faster, [`Level::gains_by_dots`] says.
///
/// [`Level::gains_by_dots`]: super::Level::gains_by_dots
pub trait Dots: Cpu {
    /// `a · b + c`: each lane of a and b holds two bfloat16, the first one in the lower half. Products are exact, sums
    /// are rounded to float32, denormals count as 0.
    fn dot_pairs(self, a: Vector<Self, f32>, b: Vector<Self, f32>, c: Vector<Self, f32>) -> Vector<Self, f32>;
}

/// The floats that are computed with: `f32` and `f64`.
pub trait Real:
    Element<Real = Self>
    + PartialOrd
    + std::fmt::Debug
    + std::ops::Add<Output = Self>
    + std::ops::Sub<Output = Self>
    + std::ops::Mul<Output = Self>
    + std::ops::Div<Output = Self>
    + std::ops::Neg<Output = Self>
{
    /// The signed integer of the same size.
    type Int: Copy + Ord + Send + Sync + std::fmt::Debug + Into<i64> + 'static;
    /// This type's lanes at a level.
    type Lanes<C: Cpu>: Lanes<Scalar = Self>;

    /// 0.
    const ZERO: Self;
    /// 1.
    const ONE: Self;
    /// Minus infinity.
    const NEG_INFINITY: Self;
    /// The smallest normal number.
    const SMALLEST: Self;
    /// The largest finite number.
    const LARGEST: Self;
    /// The constants of the vector functions.
    const MATH: Math<Self>;
    /// All bits but the sign.
    const MAGNITUDE: Self::Int;
    /// The bits of plus infinity: every larger magnitude is a NaN.
    const INFINITY_BITS: Self::Int;
    /// The integer 1.
    const INT_ONE: Self::Int;
    /// The smallest integer.
    const INT_MIN: Self::Int;
    /// The largest integer.
    const INT_MAX: Self::Int;

    /// This type's lanes.
    fn lanes<C: Cpu>(cpu: C) -> Self::Lanes<C>;
    /// Rounds to this type.
    fn from_f64(value: f64) -> Self;
    /// Exact.
    fn to_f64(self) -> f64;
    /// The number that has these bits.
    fn of_bits(bits: Self::Int) -> Self;
    /// An integer that is known to fit.
    fn int(value: i64) -> Self::Int;
    /// [`Dots::dot_pairs`] for float32.
    fn dot_pairs<C: Dots>(cpu: C, a: Vector<C, Self>, b: Vector<C, Self>, c: Vector<C, Self>) -> Vector<C, Self>;
}

/// Constants of `exp` and `tanh`.
#[derive(Debug, Clone, Copy)]
pub struct Math<T: 'static> {
    /// 1 / ln 2.
    pub log2_e: T,
    /// ln 2, leading bits: its product with every exponent is exact.
    pub ln2_high: T,
    /// ln 2, the rest.
    pub ln2_low: T,
    /// Adding it leaves the nearest integer, plus the exponent's bias less one, in the lowest bits.
    pub round: T,
    /// Above it `exp` is infinite.
    pub exp_high: T,
    /// Below it `exp` is 0.
    pub exp_low: T,
    /// Twice the polynomial of `exp` on half a ln 2 either side of 0, highest power first, without the last two terms.
    pub exp: &'static [T],
    /// Numerator of `tanh` near 0, highest power first.
    pub tanh_numerator: &'static [T],
    /// Denominator of `tanh` near 0, highest power first.
    pub tanh_denominator: &'static [T],
}

/// What arrays hold: `f64`, `f32`, `f16`, `bf16`, and nothing else. The 16-bit types are computed as `f32`. Every bit
/// pattern is a value of each of them.
///
/// Pointers to them are aligned to an element, as those of every view and slice are; to a vector they need not be.
pub trait Element: Sealed + Copy + Send + Sync + std::fmt::Debug + 'static {
    /// The type that it is computed in.
    type Real: Real;
    /// 0.
    const NULL: Self;
    /// Whether it is computed in its own type.
    const IS_REAL: bool;
    /// Whether two of them, 16 bits each, are a lane of [`Dots::dot_pairs`].
    const IS_BFLOAT: bool;

    /// Exact.
    fn to_real(self) -> Self::Real;
    /// Rounds to nearest, ties to even.
    fn from_real(value: Self::Real) -> Self;
    /// Loads a vector, converted.
    ///
    /// # Safety
    /// The elements of a whole vector at `from` may be read.
    unsafe fn load<C: Cpu>(cpu: C, from: *const Self) -> Vector<C, Self::Real>;
    /// Loads the first `count` lanes, converted; the others are 0.
    ///
    /// # Safety
    /// `count` elements at `from` may be read; `count` is at most the number of lanes.
    unsafe fn load_first<C: Cpu>(cpu: C, from: *const Self, count: usize) -> Vector<C, Self::Real>;
    /// Stores a vector, converted (nearest, ties to even).
    ///
    /// # Safety
    /// The elements of a whole vector at `to` may be written.
    unsafe fn store<C: Cpu>(cpu: C, to: *mut Self, vector: Vector<C, Self::Real>);
    /// Stores the first `count` lanes, converted.
    ///
    /// # Safety
    /// `count` elements at `to` may be written; `count` is at most the number of lanes.
    unsafe fn store_first<C: Cpu>(cpu: C, to: *mut Self, count: usize, vector: Vector<C, Self::Real>);
    /// Copies a vector bit for bit, or 0 where the mask is not set.
    ///
    /// # Safety
    /// The elements of a whole vector at `from` may be read and at `to` written.
    unsafe fn keep<C: Cpu>(cpu: C, from: *const Self, to: *mut Self, mask: LaneMask<C, Self::Real>);
    /// As [`Element::keep`], but the first `count` lanes only.
    ///
    /// # Safety
    /// `count` elements at `from` may be read and at `to` written; `count` is at most the number of lanes.
    unsafe fn keep_first<C: Cpu>(cpu: C, from: *const Self, to: *mut Self, count: usize, mask: LaneMask<C, Self::Real>);
}

/// A vector of `T` at level `C`.
pub type Vector<C, T> = <<T as Real>::Lanes<C> as Lanes>::V;

/// The most lanes that a vector has: those of float32 in 512 bits.
pub(crate) const WIDEST: usize = 16;

/// One truth value per lane of [`Vector`].
pub type LaneMask<C, T> = <<T as Real>::Lanes<C> as Lanes>::M;

/// Vectors of one float type at one level. The value is a proof of the level, see [`Cpu`].
///
/// Every level means the same by each method; only the number of lanes, and the rounding of `fma` at the scalar level
/// (which rounds twice), differ. Nobody else can implement it.
///
/// Pointers are aligned to a lane; to a vector they need not be, but where a method says so.
pub trait Lanes: Sealed + Copy + Send + Sync + 'static {
    /// The type of a lane.
    type Scalar: Real;
    /// A vector of floats.
    type V: Copy;
    /// A vector of integers of the same size.
    type I: Copy;
    /// One truth value per lane.
    type M: Copy;
    /// Sums in float64, of whatever the lanes are.
    type Wide: Copy;
    /// The number of lanes.
    const N: usize;

    /// All lanes `value`.
    fn splat(self, value: Self::Scalar) -> Self::V;
    /// Loads `N` elements.
    ///
    /// # Safety
    /// `N` elements at `from` may be read.
    unsafe fn load(self, from: *const Self::Scalar) -> Self::V;
    /// Loads `count` elements; the other lanes are 0.
    ///
    /// # Safety
    /// `count` elements at `from` may be read; `count <= N`.
    unsafe fn load_first(self, from: *const Self::Scalar, count: usize) -> Self::V;
    /// Stores `N` elements.
    ///
    /// # Safety
    /// `N` elements at `to` may be written.
    unsafe fn store(self, to: *mut Self::Scalar, vector: Self::V);
    /// Stores the first `count` elements.
    ///
    /// # Safety
    /// `count` elements at `to` may be written; `count <= N`.
    unsafe fn store_first(self, to: *mut Self::Scalar, count: usize, vector: Self::V);
    /// Stores past the caches where the CPU can ([`Cpu::fence`] afterwards).
    ///
    /// # Safety
    /// `N` elements at `to` may be written, and `to` is aligned to the size of the vector.
    unsafe fn stream(self, to: *mut Self::Scalar, vector: Self::V);

    /// `a + b`.
    fn add(self, a: Self::V, b: Self::V) -> Self::V;
    /// `a - b`.
    fn sub(self, a: Self::V, b: Self::V) -> Self::V;
    /// `a * b`.
    fn mul(self, a: Self::V, b: Self::V) -> Self::V;
    /// `a / b`.
    fn div(self, a: Self::V, b: Self::V) -> Self::V;
    /// `a * b + c`.
    fn fma(self, a: Self::V, b: Self::V, c: Self::V) -> Self::V;
    /// `c - a * b`.
    fn fnma(self, a: Self::V, b: Self::V, c: Self::V) -> Self::V;
    /// `a * b + c`, rounded once at every level (slow at the scalar one).
    fn fma_once(self, a: Self::V, b: Self::V, c: Self::V) -> Self::V;
    /// The smaller one; `b` if either is NaN.
    fn min(self, a: Self::V, b: Self::V) -> Self::V;
    /// The larger one; `b` if either is NaN.
    fn max(self, a: Self::V, b: Self::V) -> Self::V;
    /// `a < b`, false for NaN.
    fn lt(self, a: Self::V, b: Self::V) -> Self::M;
    /// `a == b`, false for NaN.
    fn eq(self, a: Self::V, b: Self::V) -> Self::M;
    /// `a` where the mask is set, otherwise `b`.
    fn select(self, mask: Self::M, a: Self::V, b: Self::V) -> Self::V;
    /// The sum of all lanes, in an order that only the level decides.
    fn sum(self, vector: Self::V) -> Self::Scalar;
    /// The largest lane; a NaN may be ignored or may win.
    fn max_lane(self, vector: Self::V) -> Self::Scalar;

    /// Sums of nothing.
    fn wide_zero(self) -> Self::Wide;
    /// Adds each lane to a sum, in float64.
    fn wide_add(self, sums: Self::Wide, vector: Self::V) -> Self::Wide;
    /// The sum of the sums.
    fn wide_sum(self, sums: Self::Wide) -> f64;

    /// The mask of the first `count` lanes; all of them if there are no more.
    fn first(self, count: usize) -> Self::M;
    /// Both.
    fn and(self, a: Self::M, b: Self::M) -> Self::M;
    /// Either.
    fn or(self, a: Self::M, b: Self::M) -> Self::M;
    /// `a` and not `b`.
    fn and_not(self, a: Self::M, b: Self::M) -> Self::M;
    /// Bit `i` is lane `i`.
    fn bits(self, mask: Self::M) -> u32;

    /// The bits of the floats.
    fn int_of(self, vector: Self::V) -> Self::I;
    /// The floats of the bits.
    fn float_of(self, vector: Self::I) -> Self::V;
    /// All lanes `value`.
    fn int_splat(self, value: <Self::Scalar as Real>::Int) -> Self::I;
    /// Loads `N` integers.
    ///
    /// # Safety
    /// `N` integers at `from` may be read.
    unsafe fn int_load(self, from: *const <Self::Scalar as Real>::Int) -> Self::I;
    /// Stores `N` integers.
    ///
    /// # Safety
    /// `N` integers at `to` may be written.
    unsafe fn int_store(self, to: *mut <Self::Scalar as Real>::Int, vector: Self::I);
    /// Stores the lanes that the mask sets, one after the other, and says how many they are. Whatever is behind them,
    /// up to `N` integers from `to`, is overwritten.
    ///
    /// # Safety
    /// `N` integers at `to` may be written, whatever the mask is.
    unsafe fn int_compress(self, to: *mut <Self::Scalar as Real>::Int, mask: Self::M, vector: Self::I) -> usize;
    /// The way back: lanes whose bit is set get one element after the other, the other lanes are 0. Bits beyond the `N`
    /// lowest are 0.
    ///
    /// # Safety
    /// `N` elements at `from` may be read, whatever the bits are.
    unsafe fn expand(self, from: *const Self::Scalar, bits: u32) -> Self::V;
    /// `a + b`, wrapping.
    fn int_add(self, a: Self::I, b: Self::I) -> Self::I;
    /// `a - b`, wrapping.
    fn int_sub(self, a: Self::I, b: Self::I) -> Self::I;
    /// Bitwise and.
    fn int_and(self, a: Self::I, b: Self::I) -> Self::I;
    /// Bitwise exclusive or.
    fn int_xor(self, a: Self::I, b: Self::I) -> Self::I;
    /// -1 for negative lanes, otherwise 0.
    fn int_sign(self, a: Self::I) -> Self::I;
    /// Shifts left by the number of the mantissa's bits: the lowest bits become the exponent.
    fn int_to_exponent(self, a: Self::I) -> Self::I;
    /// The smaller one.
    fn int_min(self, a: Self::I, b: Self::I) -> Self::I;
    /// The larger one.
    fn int_max(self, a: Self::I, b: Self::I) -> Self::I;
    /// `a > b`.
    fn int_gt(self, a: Self::I, b: Self::I) -> Self::M;
    /// `a` where the mask is set, otherwise `b`.
    fn int_select(self, mask: Self::M, a: Self::I, b: Self::I) -> Self::I;
    /// Adds 1 to the lanes of `count` that the mask sets.
    fn count(self, count: Self::I, mask: Self::M) -> Self::I;
    /// The sum of all lanes, which are not negative.
    fn total(self, count: Self::I) -> usize;
    /// The smallest lane.
    fn int_min_lane(self, a: Self::I) -> <Self::Scalar as Real>::Int;
    /// The largest lane.
    fn int_max_lane(self, a: Self::I) -> <Self::Scalar as Real>::Int;
}

/// Lanes of float32 that also read and write 16-bit floats.
pub trait HalfLanes: Lanes<Scalar = f32> {
    /// Converts `N` float16.
    ///
    /// # Safety
    /// `N` elements at `from` may be read.
    unsafe fn load_f16(self, from: *const f16) -> Self::V;
    /// Converts to `N` float16: nearest, ties to even.
    ///
    /// # Safety
    /// `N` elements at `to` may be written.
    unsafe fn store_f16(self, to: *mut f16, vector: Self::V);
    /// Converts `N` bfloat16.
    ///
    /// # Safety
    /// `N` elements at `from` may be read.
    unsafe fn load_bf16(self, from: *const bf16) -> Self::V;
    /// Converts to `N` bfloat16: nearest, ties to even.
    ///
    /// # Safety
    /// `N` elements at `to` may be written.
    unsafe fn store_bf16(self, to: *mut bf16, vector: Self::V);
    /// Copies `N` times 16 bits, or 0 where the mask is not set.
    ///
    /// # Safety
    /// `N` elements at `from` may be read and `N` at `to` written.
    unsafe fn keep_u16(self, from: *const u16, to: *mut u16, mask: Self::M);
}
