//! The tile product: a few rows of a row-major matrix times packed vectors, with all the sums in registers.
//!
//! Both products of attention are this one ([`Product`]): scores are queries times packed keys, and the output is weights
//! times packed values. So are those of linear layers ([`PanelProduct`]).

use std::marker::PhantomData;

use crate::arch::{Cpu, Dots, DotsTask, Lanes, Level, Real, Task};
use crate::view::{Rows, RowsMut};

/// Rows of a tile of attention. Six rows of four vectors are 24 sums, which with four vectors of b and one of a fill 32 registers;
/// six rows of two vectors fill 16.
pub(crate) const ROWS: usize = 6;

/// `a [rows, depth]`, its rows `a_row` elements apart, times `b`, whose vector `v` of step `k` begins at
/// `k * b_step + v * b_vector`, into the first vectors of each row of `out`, `out_row` elements apart.
#[derive(Debug, Clone, Copy)]
pub(crate) struct Shape {
    pub(crate) rows: usize,
    pub(crate) vectors: usize,
    pub(crate) depth: usize,
    pub(crate) a_row: usize,
    pub(crate) b_step: usize,
    pub(crate) b_vector: usize,
    pub(crate) out_row: usize,
}

/// What becomes of a finished sum.
pub(crate) trait Finish<R: Real>: Copy {
    /// Stores what becomes of the sum of a row and a vector of the tile in its place in the output.
    ///
    /// # Safety
    /// The vector at `place`, or of it what the type says to be within the output, may be read and written.
    unsafe fn store<L: Lanes<Scalar = R>>(self, lanes: L, row: usize, vector: usize, sum: L::V, place: *mut R);
}

/// Overwrites the output with the sum times a factor.
#[derive(Debug, Clone, Copy)]
pub(crate) struct Scaled<R>(pub(crate) R);

impl<R: Real> Finish<R> for Scaled<R> {
    #[inline(always)]
    unsafe fn store<L: Lanes<Scalar = R>>(self, lanes: L, _: usize, _: usize, sum: L::V, place: *mut R) {
        // SAFETY: the caller's promise.
        unsafe { lanes.store(place, lanes.mul(sum, lanes.splat(self.0))) }
    }
}

/// Multiplies each row of the output by its factor and adds the sum.
#[derive(Debug, Clone, Copy)]
pub(crate) struct Onto<R>(pub(crate) [R; ROWS]);

impl<R: Real> Finish<R> for Onto<R> {
    #[inline(always)]
    unsafe fn store<L: Lanes<Scalar = R>>(self, lanes: L, row: usize, _: usize, sum: L::V, place: *mut R) {
        // SAFETY: the caller's promise.
        unsafe { lanes.store(place, lanes.fma(lanes.load(place), lanes.splat(self.0[row]), sum)) }
    }
}

/// Overwrites the first `columns` of the output with the sums, or adds them.
#[derive(Debug, Clone, Copy)]
struct Columns {
    columns: usize,
    adds: bool,
}

impl<R: Real> Finish<R> for Columns {
    #[inline(always)]
    unsafe fn store<L: Lanes<Scalar = R>>(self, lanes: L, _: usize, vector: usize, sum: L::V, place: *mut R) {
        let left = self.columns.saturating_sub(vector * L::N);
        // SAFETY: the caller's promise, for the columns that are left.
        unsafe {
            if left >= L::N {
                lanes.store(place, if self.adds { lanes.add(lanes.load(place), sum) } else { sum });
            } else if left > 0 {
                let sum = if self.adds { lanes.add(lanes.load_first(place, left), sum) } else { sum };
                lanes.store_first(place, left, sum);
            }
        }
    }
}

/// How a step is added to a sum.
trait Multiply<L: Lanes>: Copy {
    fn onto(self, a: L::V, b: L::V, sum: L::V) -> L::V;
}

/// A step is one column: `a * b`.
#[derive(Debug, Clone, Copy)]
struct Singles<L>(L);

impl<L: Lanes> Multiply<L> for Singles<L> {
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
pub(crate) struct Product<'a, R, F> {
    pub(crate) shape: Shape,
    pub(crate) a: &'a [R],
    pub(crate) b: &'a [R],
    pub(crate) out: &'a mut [R],
    pub(crate) finish: F,
}

impl<R: Real, F: Finish<R>> Task for Product<'_, R, F> {
    type Output = ();

    #[inline(always)]
    fn run<C: Cpu>(self, cpu: C) {
        self.with(cpu, Singles(R::lanes(cpu)));
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
        let (a_row, out_row) = (a_row as isize, out_row as isize);
        let mut first = 0;
        // Equal widths: five vectors are three and two, not four and one, which would wait for its own sums.
        for left in (1..=vectors.div_ceil(widest)).rev() {
            let width = (vectors - first).div_ceil(left);
            // SAFETY: vectors `first` to `first + width` are among those whose elements were asserted to be there.
            unsafe {
                let (b, out) = (b.as_ptr().wrapping_add(first * b_vector), out.as_mut_ptr().add(first * n));
                let a = a.as_ptr();
                let tile = Tile { lanes, multiply, finish, depth, a, a_row, b, b_step, b_vector, out, out_row };
                match (width, widest) {
                    (1, _) => tile.of_rows::<C, 1>(cpu, rows),
                    (2, _) => tile.of_rows::<C, 2>(cpu, rows),
                    (3, 4) => tile.of_rows::<C, 3>(cpu, rows),
                    (_, 4) => tile.of_rows::<C, 4>(cpu, rows),
                    _ => unreachable!("no chunk is wider than the widest"),
                }
            }
            first += width;
        }
    }
}

/// Vectors in a row of a panel of a linear layer.
pub(crate) const VECTORS: usize = 3;

/// How many columns a panel has at a level.
pub(crate) fn panel_width<R: Real>(level: Level) -> usize {
    level.run(PanelWidth(PhantomData::<R>))
}

struct PanelWidth<R>(PhantomData<R>);

impl<R: Real> Task for PanelWidth<R> {
    type Output = usize;

    #[inline(always)]
    fn run<C: Cpu>(self, _: C) -> usize {
        VECTORS * R::Lanes::<C>::N
    }
}

/// Rows of a tile of a linear layer. Eight rows of three vectors are 24 sums, which with three vectors of the weight and
/// one of the tensor are 28 registers; four rows fill 16.
const fn panel_rows<C: Cpu>() -> usize {
    if C::REGISTERS >= 32 { 8 } else { 4 }
}

/// Steps by which a panel, which comes from the second level of cache, is asked for ahead.
const AHEAD: usize = 8;

/// `a [rows, depth]`, any number of rows, times a panel `[depth, VECTORS vectors]`, of which `out [rows, columns]` gets the
/// first columns: overwritten, or added to.
///
/// Every sum is taken in the order of the depth. Panics if shapes do not fit, or neighbours in a row are none in memory.
#[derive(Debug)]
pub(crate) struct PanelProduct<'a, R> {
    pub(crate) a: Rows<'a, R>,
    pub(crate) panel: &'a [R],
    pub(crate) out: RowsMut<'a, R>,
    pub(crate) adds: bool,
}

impl<R: Real> Task for PanelProduct<'_, R> {
    type Output = ();

    #[inline(always)]
    fn run<C: Cpu>(self, cpu: C) {
        let Self { a, panel, mut out, adds } = self;
        let (lanes, n) = (R::lanes(cpu), R::Lanes::<C>::N);
        let (rows, columns, depth) = (a.count(), out.columns(), a.columns());
        assert!(out.count() == rows && columns <= VECTORS * n && panel.len() == depth * VECTORS * n);
        assert!(a.is_contiguous() && out.is_contiguous());
        let most = panel_rows::<C>();
        let mut first = 0;
        // Equal heights: nine rows are five and four, not eight and one, which would wait for its own sums.
        for left in (1..=rows.div_ceil(most)).rev() {
            let height = (rows - first).div_ceil(left);
            let tile = Tile {
                lanes,
                multiply: Singles(lanes),
                finish: Columns { columns, adds },
                depth,
                a: a.row(first),
                a_row: a.row_stride(),
                b: panel.as_ptr(),
                b_step: VECTORS * n,
                b_vector: n,
                out: out.row(first),
                out_row: out.row_stride(),
            };
            // SAFETY: `first + height` is at most the number of rows of both, whose columns lie beside each other, and the
            // panel has whole vectors for each step, asserted above.
            unsafe {
                match (height, most) {
                    (1, _) => tile.run::<C, 1, VECTORS, AHEAD>(cpu),
                    (2, _) => tile.run::<C, 2, VECTORS, AHEAD>(cpu),
                    (3, _) => tile.run::<C, 3, VECTORS, AHEAD>(cpu),
                    (4, _) => tile.run::<C, 4, VECTORS, AHEAD>(cpu),
                    (5, 8) => tile.run::<C, 5, VECTORS, AHEAD>(cpu),
                    (6, 8) => tile.run::<C, 6, VECTORS, AHEAD>(cpu),
                    (7, 8) => tile.run::<C, 7, VECTORS, AHEAD>(cpu),
                    (8, 8) => tile.run::<C, 8, VECTORS, AHEAD>(cpu),
                    _ => unreachable!("no tile is higher than the highest"),
                }
            }
            first += height;
        }
    }
}

/// Some rows times some vectors, whose sums fit the registers.
struct Tile<L: Lanes, M, F> {
    lanes: L,
    multiply: M,
    finish: F,
    depth: usize,
    a: *const L::Scalar,
    a_row: isize,
    b: *const L::Scalar,
    b_step: usize,
    b_vector: usize,
    out: *mut L::Scalar,
    out_row: isize,
}

impl<L: Lanes, M: Multiply<L>, F: Finish<L::Scalar>> Tile<L, M, F> {
    /// # Safety
    /// As for [`Tile::run`], with `rows` rows, at most [`ROWS`].
    #[inline(always)]
    unsafe fn of_rows<C: Cpu, const WIDTH: usize>(self, cpu: C, rows: usize) {
        // SAFETY: the caller's promise, for the number of rows that is matched.
        unsafe {
            match rows {
                1 => self.run::<C, 1, WIDTH, 0>(cpu),
                2 => self.run::<C, 2, WIDTH, 0>(cpu),
                3 => self.run::<C, 3, WIDTH, 0>(cpu),
                4 => self.run::<C, 4, WIDTH, 0>(cpu),
                5 => self.run::<C, 5, WIDTH, 0>(cpu),
                _ => self.run::<C, ROWS, WIDTH, 0>(cpu),
            }
        }
    }

    /// Asks for vectors `AHEAD` steps ahead, unless that is 0.
    ///
    /// # Safety
    /// `a` has `HEIGHT` rows of `depth` elements `a_row` apart, `b` has `WIDTH` whole vectors `b_vector` apart for each of
    /// `depth` steps `b_step` apart, and `out` has `WIDTH` vectors, as far as `finish` uses them, in each of `HEIGHT` rows
    /// `out_row` apart.
    #[inline(always)]
    unsafe fn run<C: Cpu, const HEIGHT: usize, const WIDTH: usize, const AHEAD: usize>(self, cpu: C) {
        let Self { lanes, multiply, finish, depth, a, a_row, b, b_step, b_vector, out, out_row } = self;
        let zero = lanes.splat(L::Scalar::ZERO);
        let mut sums = [[zero; WIDTH]; HEIGHT];
        let mut step = b;
        for k in 0..depth {
            let mut columns = [zero; WIDTH];
            for (v, column) in columns.iter_mut().enumerate() {
                // SAFETY: step k < depth and vector v < WIDTH are there, as the caller promises.
                *column = unsafe { lanes.load(step.add(v * b_vector)) };
                if AHEAD > 0 {
                    cpu.prefetch(step.wrapping_add(AHEAD * b_step + v * b_vector));
                }
            }
            for (row, sums) in sums.iter_mut().enumerate() {
                // SAFETY: row < HEIGHT and k < depth, as the caller promises.
                let weight = lanes.splat(unsafe { *a.offset(row as isize * a_row).add(k) });
                // Not `zip`: what it calls is not inlined into functions with other instructions than its own.
                for v in 0..WIDTH {
                    sums[v] = multiply.onto(weight, columns[v], sums[v]);
                }
            }
            // The pointer behind the last step is never read.
            step = step.wrapping_add(b_step);
        }
        for (row, sums) in sums.iter().enumerate() {
            for (v, &sum) in sums.iter().enumerate() {
                // SAFETY: row < HEIGHT and v < WIDTH, as the caller promises; a place that is not in the output is not
                // touched.
                unsafe {
                    let place = out.offset(row as isize * out_row).wrapping_add(v * L::N);
                    finish.store(lanes, row, v, sum, place);
                }
            }
        }
    }
}
