//! The tile product: a few rows of a row-major matrix times packed vectors, with all the sums in registers.
//!
//! Both products of attention are this one: scores are queries times packed keys, and the output is weights times
//! packed values.

use std::marker::PhantomData;

use crate::arch::{Cpu, Dots, DotsTask, Lanes, Real, Task};

/// Rows of a tile. Six rows of four vectors are 24 sums, which with four vectors of b and one of a fill 32 registers;
/// six rows of two vectors fill 16.
pub(super) const ROWS: usize = 6;

/// `a [rows, depth]`, its rows `a_row` elements apart, times `b`, whose vector `v` of step `k` begins at
/// `k * b_step + v * b_vector`, into the first vectors of each row of `out`, `out_row` elements apart.
#[derive(Debug, Clone, Copy)]
pub(super) struct Shape {
    pub(super) rows: usize,
    pub(super) vectors: usize,
    pub(super) depth: usize,
    pub(super) a_row: usize,
    pub(super) b_step: usize,
    pub(super) b_vector: usize,
    pub(super) out_row: usize,
}

/// What becomes of a finished sum.
pub(super) trait Finish<R: Real>: Copy {
    /// The value to store.
    ///
    /// # Safety
    /// The vector at `old`, what the output holds in that place, may be read.
    unsafe fn finish<L: Lanes<Scalar = R>>(self, lanes: L, row: usize, sum: L::V, old: *const R) -> L::V;
}

/// Overwrites the output with the sum times a factor.
#[derive(Debug, Clone, Copy)]
pub(super) struct Scaled<R>(pub(super) R);

impl<R: Real> Finish<R> for Scaled<R> {
    #[inline(always)]
    unsafe fn finish<L: Lanes<Scalar = R>>(self, lanes: L, _: usize, sum: L::V, _: *const R) -> L::V {
        lanes.mul(sum, lanes.splat(self.0))
    }
}

/// Multiplies each row of the output by its factor and adds the sum.
#[derive(Debug, Clone, Copy)]
pub(super) struct Onto<R>(pub(super) [R; ROWS]);

impl<R: Real> Finish<R> for Onto<R> {
    #[inline(always)]
    unsafe fn finish<L: Lanes<Scalar = R>>(self, lanes: L, row: usize, sum: L::V, old: *const R) -> L::V {
        // SAFETY: the caller's promise.
        lanes.fma(unsafe { lanes.load(old) }, lanes.splat(self.0[row]), sum)
    }
}

/// How a step is added to a sum.
trait Multiply<L: Lanes>: Copy {
    fn onto(self, a: L::V, b: L::V, sum: L::V) -> L::V;
}

/// A step is one column: `a * b`.
#[derive(Debug, Clone, Copy)]
struct Floats<L>(L);

impl<L: Lanes> Multiply<L> for Floats<L> {
    #[inline(always)]
    fn onto(self, a: L::V, b: L::V, sum: L::V) -> L::V {
        self.0.fma(a, b, sum)
    }
}

/// A step is two columns, of bfloat16.
#[derive(Debug, Clone, Copy)]
struct Pairs<C, R>(C, PhantomData<R>);

impl<C: Dots, R: Real> Multiply<R::Lanes<C>> for Pairs<C, R> {
    #[inline(always)]
    fn onto(
        self,
        a: <R::Lanes<C> as Lanes>::V,
        b: <R::Lanes<C> as Lanes>::V,
        sum: <R::Lanes<C> as Lanes>::V,
    ) -> <R::Lanes<C> as Lanes>::V {
        R::dot_pairs(self.0, a, b, sum)
    }
}

/// The product, see [`Shape`]. As a [`DotsTask`] every element of `a` and `b` is a pair of bfloat16.
/// Every sum is taken in the order of the steps. Panics if a slice is shorter than the shape
/// says.
#[derive(Debug)]
pub(super) struct Product<'a, R, F> {
    pub(super) shape: Shape,
    pub(super) a: &'a [R],
    pub(super) b: &'a [R],
    pub(super) out: &'a mut [R],
    pub(super) finish: F,
}

impl<R: Real, F: Finish<R>> Task for Product<'_, R, F> {
    type Output = ();

    #[inline(always)]
    fn run<C: Cpu>(self, cpu: C) {
        self.with(cpu, Floats(R::lanes(cpu)));
    }
}

impl<R: Real, F: Finish<R>> DotsTask for Product<'_, R, F> {
    type Output = ();

    #[inline(always)]
    fn run<C: Dots>(self, cpu: C) {
        self.with(cpu, Pairs(cpu, PhantomData::<R>));
    }
}

impl<R: Real, F: Finish<R>> Product<'_, R, F> {
    #[inline(always)]
    fn with<C: Cpu, M: Multiply<R::Lanes<C>>>(self, cpu: C, multiply: M) {
        let Self { shape, a, b, out, finish } = self;
        let Shape { rows, vectors, depth, a_row, b_step, b_vector, out_row } = shape;
        let n = R::Lanes::<C>::N;
        if rows == 0 || vectors == 0 {
            return;
        }
        assert!(rows <= ROWS && out.len() >= (rows - 1) * out_row + vectors * n);
        assert!(depth == 0 || a.len() >= (rows - 1) * a_row + depth);
        assert!(depth == 0 || b.len() >= (depth - 1) * b_step + (vectors - 1) * b_vector + n);
        let lanes = R::lanes(cpu);
        let widest = if C::REGISTERS >= 32 { 4 } else { 2 };
        let mut first = 0;
        // Equal widths: five vectors are three and two, not four and one, which would wait for its own sums.
        for left in (1..=vectors.div_ceil(widest)).rev() {
            let width = (vectors - first).div_ceil(left);
            // SAFETY: vectors `first` to `first + width` are among those whose elements were asserted to be there.
            unsafe {
                let (b, out) = (b.as_ptr().wrapping_add(first * b_vector), out.as_mut_ptr().add(first * n));
                let run = Run { lanes, multiply, finish, shape, a: a.as_ptr(), b, out };
                match (width, widest) {
                    (1, _) => run.tile_rows::<1>(),
                    (2, _) => run.tile_rows::<2>(),
                    (3, 4) => run.tile_rows::<3>(),
                    (_, 4) => run.tile_rows::<4>(),
                    _ => unreachable!("no chunk is wider than the widest"),
                }
            }
            first += width;
        }
    }
}

/// Some vectors of a product.
struct Run<L: Lanes, M, F> {
    lanes: L,
    multiply: M,
    finish: F,
    shape: Shape,
    a: *const L::Scalar,
    b: *const L::Scalar,
    out: *mut L::Scalar,
}

impl<L: Lanes, M: Multiply<L>, F: Finish<L::Scalar>> Run<L, M, F> {
    /// # Safety
    /// As for [`Run::tile`], with `shape.rows` rows, at most [`ROWS`].
    #[inline(always)]
    unsafe fn tile_rows<const VECTORS: usize>(self) {
        // SAFETY: the caller's promise, for the number of rows that is matched.
        unsafe {
            match self.shape.rows {
                1 => self.tile::<1, VECTORS>(),
                2 => self.tile::<2, VECTORS>(),
                3 => self.tile::<3, VECTORS>(),
                4 => self.tile::<4, VECTORS>(),
                5 => self.tile::<5, VECTORS>(),
                _ => self.tile::<ROWS, VECTORS>(),
            }
        }
    }

    /// # Safety
    /// `a` has `rows` rows of `depth` elements `a_row` apart, `b` has `VECTORS` whole vectors `b_vector` apart for each
    /// of `depth` steps `b_step` apart, and `out` has `VECTORS` whole vectors in each of `rows` rows `out_row` apart.
    #[inline(always)]
    unsafe fn tile<const RUN: usize, const VECTORS: usize>(self) {
        let Self { lanes, multiply, finish, shape, a, b, out } = self;
        let zero = lanes.splat(L::Scalar::ZERO);
        let mut sums = [[zero; VECTORS]; RUN];
        let mut step = b;
        for k in 0..shape.depth {
            let mut columns = [zero; VECTORS];
            for (v, column) in columns.iter_mut().enumerate() {
                // SAFETY: step k < depth and vector v < VECTORS are there, as the caller promises.
                *column = unsafe { lanes.load(step.add(v * shape.b_vector)) };
            }
            for (row, sums) in sums.iter_mut().enumerate() {
                // SAFETY: row < rows and k < depth, as the caller promises.
                let weight = lanes.splat(unsafe { *a.add(row * shape.a_row + k) });
                for (sum, &column) in sums.iter_mut().zip(&columns) {
                    *sum = multiply.onto(weight, column, *sum);
                }
            }
            // The pointer behind the last step is never read.
            step = step.wrapping_add(shape.b_step);
        }
        for (row, sums) in sums.iter().enumerate() {
            for (v, &sum) in sums.iter().enumerate() {
                // SAFETY: row < rows and v < VECTORS, as the caller promises.
                unsafe {
                    let place = out.add(row * shape.out_row + v * L::N);
                    lanes.store(place, finish.finish(lanes, row, sum, place));
                }
            }
        }
    }
}
