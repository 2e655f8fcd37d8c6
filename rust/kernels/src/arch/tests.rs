//! Every method of the lanes against plain Rust, at every level that this machine has.

use half::{bf16, f16};
use proptest::prelude::*;

use super::*;

#[test]
fn the_portable_level_is_always_there() {
    assert!(Level::available().any(|level| level == Level::Scalar));
    assert_eq!(Level::named("scalar"), Ok(Level::Scalar));
    assert!(Level::named("sse9").is_err());
}

/// Compiles as long as each trait that unsafe code trusts has the bound that nobody outside of this crate can have.
#[test]
fn traits_that_unsafe_code_trusts_are_sealed() {
    fn is_sealed<T: sealed::Sealed>() {}
    #[expect(dead_code, reason = "compiling it is the test")]
    fn all<E: Element, R: Real, L: Lanes, H: HalfLanes, C: Cpu, D: Dots>() {
        is_sealed::<E>();
        is_sealed::<R>();
        is_sealed::<L>();
        is_sealed::<H>();
        is_sealed::<C>();
        is_sealed::<D>();
    }
}

#[test]
fn a_level_that_the_cpu_does_not_have_is_refused() {
    let missing = if cfg!(target_arch = "x86_64") { Level::Neon } else { Level::Avx2 };
    let missing = std::panic::catch_unwind(|| missing.run(Unary { function: Function::Exp, values: &mut [0.0f32] }));
    assert!(missing.is_err());
}

/// A function of one vector, applied to a slice in whole and partial vectors.
struct Unary<'a, T> {
    function: Function,
    values: &'a mut [T],
}

#[derive(Debug, Clone, Copy, PartialEq)]
enum Function {
    Same,
    Exp,
    ExpBelow,
    Tanh,
}

impl<T: Element> Task for Unary<'_, T> {
    type Output = ();

    #[inline(always)]
    fn run<C: Cpu>(self, cpu: C) {
        let lanes = T::Real::lanes(cpu);
        for chunk in self.values.chunks_mut(<T::Real as Real>::Lanes::<C>::N) {
            let whole = chunk.len() == <T::Real as Real>::Lanes::<C>::N;
            // SAFETY: a chunk has `chunk.len()` elements, at most N.
            unsafe {
                let x =
                    if whole { T::load(cpu, chunk.as_ptr()) } else { T::load_first(cpu, chunk.as_ptr(), chunk.len()) };
                let y = match self.function {
                    Function::Same => x,
                    Function::Exp => exp(lanes, x),
                    Function::ExpBelow => exp_below(lanes, x),
                    Function::Tanh => tanh(lanes, x),
                };
                if whole {
                    T::store(cpu, chunk.as_mut_ptr(), y);
                } else {
                    T::store_first(cpu, chunk.as_mut_ptr(), chunk.len(), y);
                }
            }
        }
    }
}

fn unary<T: Element>(level: Level, function: Function, values: &[T]) -> Vec<T> {
    let mut values = values.to_vec();
    level.run(Unary { function, values: &mut values });
    values
}

/// The distance from the exact result, in units of the last place of the result.
fn ulp_f32(given: f32, exact: f64) -> f64 {
    let near = exact as f32;
    let unit = f64::from(f32::from_bits(near.abs().to_bits() + 1)) - f64::from(near.abs());
    (f64::from(given) - exact).abs() / unit
}

#[test]
fn exp_of_float32_is_within_2_ulp() {
    let x: Vec<f32> = (0..2_000_000).map(|i| -86.9 + i as f32 * (175.6 / 2e6)).collect();
    let tiny: Vec<f32> = (0..100_000).map(|i| (i as f32 - 5e4) * 1e-7).collect();
    for level in Level::available() {
        for x in [&x, &tiny] {
            let y = unary(level, Function::Exp, x);
            let worst = x.iter().zip(&y).map(|(&x, &y)| ulp_f32(y, f64::from(x).exp())).fold(0.0, f64::max);
            assert!(worst <= 2.0, "{level:?}: {worst} ULP");
        }
    }
}

#[test]
fn exp_of_float64_is_within_2_ulp() {
    // The standard library's own is within 1.
    let x: Vec<f64> = (0..1_000_000).map(|i| -708.0 + f64::from(i) * (1417.7 / 1e6)).collect();
    for level in Level::available() {
        let y = unary(level, Function::Exp, &x);
        for (&x, &y) in x.iter().zip(&y) {
            let unit = f64::from_bits(x.exp().to_bits() + 1) - x.exp();
            assert!((y - x.exp()).abs() <= 2.0 * unit, "{level:?}: exp({x}) = {y}");
        }
    }
}

#[test]
fn exp_at_the_ends() {
    for level in Level::available() {
        let x = [f32::NEG_INFINITY, -1e30, -104.0, -0.0, 0.0, 88.7, 88.8, 1e30, f32::INFINITY, f32::NAN];
        let y = unary(level, Function::Exp, &x);
        assert_eq!(&y[..5], &[0.0, 0.0, 0.0, 1.0, 1.0], "{level:?}");
        assert!(y[..3].iter().all(|y| y.is_sign_positive()));
        assert!(y[5].is_finite() && y[6..9].iter().all(|&y| y == f32::INFINITY), "{level:?}: {y:?}");
        assert!(y[9].is_nan());
        let x = [f64::NEG_INFINITY, -1e300, -746.0, 0.0, 709.7, 709.8, f64::INFINITY, f64::NAN];
        let y = unary(level, Function::Exp, &x);
        assert_eq!(&y[..4], &[0.0, 0.0, 0.0, 1.0], "{level:?}");
        assert!(y[4].is_finite() && y[5..7].iter().all(|&y| y == f64::INFINITY), "{level:?}: {y:?}");
        assert!(y[7].is_nan());
        let y = unary(level, Function::ExpBelow, &[f32::NEG_INFINITY, 0.0, f32::NAN]);
        assert!(y[0] == 0.0 && y[1] == 1.0 && y[2].is_nan());
    }
}

#[test]
fn tanh_is_within_4_ulp() {
    let x: Vec<f32> = (0..1_000_000).map(|i| -12.0 + i as f32 * 2.4e-5).collect();
    let wide: Vec<f64> = x.iter().map(|&x| f64::from(x)).collect();
    for level in Level::available() {
        let y = unary(level, Function::Tanh, &x);
        let worst = x.iter().zip(&y).map(|(&x, &y)| ulp_f32(y, f64::from(x).tanh())).fold(0.0, f64::max);
        assert!(worst <= 4.0, "{level:?}: {worst} ULP");
        for (&x, &y) in wide.iter().zip(&unary(level, Function::Tanh, &wide)) {
            assert!((y - x.tanh()).abs() <= 4.0 * f64::EPSILON * x.tanh().abs(), "{level:?}: tanh({x}) = {y}");
        }
        let ends = unary(level, Function::Tanh, &[f32::NEG_INFINITY, f32::INFINITY, f32::NAN, -0.0]);
        assert!(ends[0] == -1.0 && ends[1] == 1.0 && ends[2].is_nan() && ends[3] == 0.0, "{level:?}: {ends:?}");
    }
}

#[test]
fn every_16_bit_float_survives_the_way_to_float32_and_back() {
    let f16s: Vec<f16> = (0..=u16::MAX).map(f16::from_bits).collect();
    let bf16s: Vec<bf16> = (0..=u16::MAX).map(bf16::from_bits).collect();
    for level in Level::available() {
        for (given, back) in f16s.iter().zip(unary(level, Function::Same, &f16s)) {
            assert!(given.to_bits() == back.to_bits() || given.is_nan() && back.is_nan(), "{level:?} {given:?}");
        }
        for (given, back) in bf16s.iter().zip(unary(level, Function::Same, &bf16s)) {
            assert!(given.to_bits() == back.to_bits() || given.is_nan() && back.is_nan(), "{level:?} {given:?}");
        }
    }
}

/// Rounds a slice to a 16-bit type.
struct Round<'a, T> {
    from: &'a [f32],
    to: &'a mut [T],
}

impl<T: Element<Real = f32>> Task for Round<'_, T> {
    type Output = ();

    #[inline(always)]
    fn run<C: Cpu>(self, cpu: C) {
        let n = C::F32::N;
        for (from, to) in self.from.chunks(n).zip(self.to.chunks_mut(n)) {
            // SAFETY: both chunks have `to.len()` elements, at most N.
            unsafe { T::store_first(cpu, to.as_mut_ptr(), to.len(), cpu.f32().load_first(from.as_ptr(), from.len())) };
        }
    }
}

/// Reductions, masks, integers: each compared with plain Rust, lane by lane.
struct Lanewise<'a, T: Real> {
    a: &'a [T],
    b: &'a [T],
    count: usize,
}

impl<T: Real> Task for Lanewise<'_, T> {
    type Output = ();

    #[inline(always)]
    fn run<C: Cpu>(self, cpu: C) {
        let l = T::lanes(cpu);
        let n = <T::Lanes<C> as Lanes>::N;
        let (a, b) = (&self.a[..n], &self.b[..n]);
        let mut got = vec![T::ZERO; n];
        let mut ints = vec![T::INT_MIN; n];
        // SAFETY: all slices have N elements.
        let (x, y) = unsafe { (T::load(cpu, a.as_ptr()), T::load(cpu, b.as_ptr())) };
        let is = |got: T, wanted: T| got == wanted || (got.to_f64().is_nan() && wanted.to_f64().is_nan());
        macro_rules! check {
            ($vector:expr, |$a:ident, $b:ident| $wanted:expr) => {
                // SAFETY: `got` has N elements.
                unsafe { T::store(cpu, got.as_mut_ptr(), $vector) };
                for ((&$a, &$b), &got) in a.iter().zip(b).zip(&got) {
                    assert!(is(got, $wanted), "{}: {:?} {:?} gave {got:?}", stringify!($vector), $a, $b);
                }
            };
        }
        check!(l.add(x, y), |a, b| a + b);
        check!(l.sub(x, y), |a, b| a - b);
        check!(l.mul(x, y), |a, b| a * b);
        check!(l.div(x, y), |a, b| a / b);
        check!(l.min(x, y), |a, b| if a < b { a } else { b });
        check!(l.max(x, y), |a, b| if a > b { a } else { b });
        check!(l.select(l.lt(x, y), x, y), |a, b| if a < b { a } else { b });
        check!(l.select(l.eq(x, y), l.splat(T::ONE), y), |a, b| if a == b { T::ONE } else { b });
        check!(l.float_of(l.int_of(x)), |a, _b| a);
        check!(l.fma(x, l.splat(T::ONE), y), |a, b| a + b);
        check!(l.fnma(x, l.splat(T::ONE), y), |a, b| b - a);

        let first = l.first(self.count);
        let wanted_first = if self.count >= n { (1u32 << n) - 1 } else { (1 << self.count) - 1 };
        assert_eq!(l.bits(first), wanted_first);
        let less: u32 = (0..n).map(|i| u32::from(a[i] < b[i]) << i).sum();
        assert_eq!(l.bits(l.lt(x, y)), less);
        assert_eq!(l.bits(l.and(l.lt(x, y), first)), less & wanted_first);
        assert_eq!(l.bits(l.or(l.lt(x, y), first)), less | wanted_first);
        assert_eq!(l.bits(l.and_not(l.lt(x, y), first)), less & !wanted_first);

        // SAFETY: `ints` has N elements.
        unsafe { l.int_store(ints.as_mut_ptr(), l.int_of(x)) };
        let xs: Vec<i64> = ints.iter().map(|&i| i.into()).collect();
        // SAFETY: as above.
        unsafe { l.int_store(ints.as_mut_ptr(), l.int_of(y)) };
        let ys: Vec<i64> = ints.iter().map(|&i| i.into()).collect();
        let (xi, yi) = (l.int_of(x), l.int_of(y));
        macro_rules! check_int {
            ($vector:expr, |$a:ident, $b:ident| $wanted:expr) => {
                // SAFETY: `ints` has N elements.
                unsafe { l.int_store(ints.as_mut_ptr(), $vector) };
                for ((&$a, &$b), &got) in xs.iter().zip(&ys).zip(&ints) {
                    assert_eq!(got, T::int($wanted), "{}: {} {}", stringify!($vector), $a, $b);
                }
            };
        }
        check_int!(l.int_add(xi, yi), |a, b| a.wrapping_add(b));
        check_int!(l.int_sub(xi, yi), |a, b| a.wrapping_sub(b));
        check_int!(l.int_and(xi, yi), |a, b| a & b);
        check_int!(l.int_xor(xi, yi), |a, b| a ^ b);
        check_int!(l.int_sign(xi), |a, _b| if a < 0 { -1 } else { 0 });
        check_int!(l.int_min(xi, yi), |a, b| a.min(b));
        check_int!(l.int_max(xi, yi), |a, b| a.max(b));
        check_int!(l.int_select(l.int_gt(xi, yi), yi, xi), |a, b| if a > b { b } else { a });
        check_int!(l.int_to_exponent(l.int_and(xi, l.int_splat(T::int(255)))), |a, _b| (a & 255)
            << if size_of::<T>() == 4 { 23 } else { 52 });
        let greater = l.int_gt(xi, yi);
        let wanted = (0..n).filter(|&i| xs[i] > ys[i]).count();
        assert_eq!(l.total(l.count(l.int_splat(T::int(0)), greater)), wanted);
        assert_eq!(l.bits(greater).count_ones() as usize, wanted);
        assert_eq!(l.int_min_lane(xi).into(), *xs.iter().min().unwrap());
        assert_eq!(l.int_max_lane(xi).into(), *xs.iter().max().unwrap());
        // SAFETY: `ints` has N elements.
        let kept = unsafe { l.int_compress(ints.as_mut_ptr(), greater, xi) };
        let kept: Vec<i64> = ints[..kept].iter().map(|&i| i.into()).collect();
        assert_eq!(kept, (0..n).filter(|&i| xs[i] > ys[i]).map(|i| xs[i]).collect::<Vec<_>>());
        // SAFETY: `b` has N elements, and `ints` too.
        unsafe { l.int_store(ints.as_mut_ptr(), l.int_of(l.expand(b.as_ptr(), l.bits(greater)))) };
        let mut next = ys.iter();
        let wanted: Vec<i64> = (0..n).map(|i| if xs[i] > ys[i] { *next.next().unwrap() } else { 0 }).collect();
        assert_eq!(ints.iter().map(|&i| i.into()).collect::<Vec<i64>>(), wanted);

        let finite: Vec<T> = (0..n).map(|i| T::from_f64(i as f64 + 1.0)).collect();
        // SAFETY: `finite` has N elements.
        let vector = unsafe { T::load(cpu, finite.as_ptr()) };
        assert_eq!(l.sum(vector).to_f64(), (n * (n + 1) / 2) as f64);
        assert_eq!(l.max_lane(vector).to_f64(), n as f64);
        // SAFETY: `a` has N elements; `got` too.
        unsafe {
            got.fill(T::ONE);
            l.store_first(got.as_mut_ptr(), self.count.min(n), l.load_first(a.as_ptr(), self.count.min(n)));
        }
        for i in 0..n {
            assert!(is(got[i], if i < self.count { a[i] } else { T::ONE }));
        }
    }
}

#[test]
fn a_forced_choice_ends_with_the_work_for_which_it_was_made() {
    let chosen = Level::ALL.map(Level::gains_by_dots);
    assert_eq!(force_dots(true, || Level::ALL.map(Level::gains_by_dots)), Level::ALL.map(Level::has_dots));
    assert_eq!(force_dots(false, || Level::ALL.map(Level::gains_by_dots)), [false; 4]);
    assert_eq!(Level::ALL.map(Level::gains_by_dots), chosen);
}

fn special_f32() -> impl Strategy<Value = f32> {
    prop_oneof![any::<u32>().prop_map(f32::from_bits), -2.0f32..2.0, prop::sample::select(vec![0.0, -0.0, 1.0])]
}

fn special_f64() -> impl Strategy<Value = f64> {
    prop_oneof![any::<u64>().prop_map(f64::from_bits), -2.0f64..2.0, prop::sample::select(vec![0.0, -0.0, 1.0])]
}

proptest! {
    #[test]
    fn lanes_do_what_scalars_do(
        a in prop::collection::vec(special_f32(), 16), b in prop::collection::vec(special_f32(), 16),
        c in prop::collection::vec(special_f64(), 8), d in prop::collection::vec(special_f64(), 8), count in 0usize..18,
    ) {
        for level in Level::available() {
            level.run(Lanewise { a: &a, b: &b, count });
            level.run(Lanewise { a: &c, b: &d, count });
        }
    }

    #[test]
    fn narrowing_rounds_to_nearest_even(values in prop::collection::vec(special_f32(), 1..40)) {
        for level in Level::available() {
            let (mut halves, mut brains) = (vec![f16::ZERO; values.len()], vec![bf16::ZERO; values.len()]);
            level.run(Round { from: &values, to: &mut halves });
            level.run(Round { from: &values, to: &mut brains });
            for ((&value, half), brain) in values.iter().zip(halves).zip(brains) {
                let (h, b) = (f16::from_f32(value), bf16::from_f32(value));
                prop_assert!(half.to_bits() == h.to_bits() || value.is_nan() && half.is_nan(), "{level:?} {value}");
                prop_assert!(brain.to_bits() == b.to_bits() || value.is_nan() && brain.is_nan(), "{level:?} {value}");
            }
        }
    }
}
