//! The functions between the linear layers of an encoder.

use super::operands::{check_matrix, vector};
use crate::arch::{Cpu, Lanes, Level, Task, tanh};
use crate::view::{Rows, RowsMut, View, ViewMut};
use crate::{Error, Result, parallel};

/// Below this many elements the calling thread is done before others have woken up.
const PARALLEL_ELEMENTS: usize = 1 << 15;
/// Rows that one thread takes at a time.
const BLOCK: usize = 64;

/// What a linear layer applies to its result.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub enum Activation {
    /// Nothing.
    Identity,
    /// `x Φ(x)` with the error function (Hendrycks and Gimpel 2016, arXiv:1606.08415).
    Gelu,
    /// The same with tanh in place of the error function (section 2 of the same paper).
    GeluTanh,
    /// `max(x, 0)`.
    Relu,
}

impl Activation {
    /// The activation that is called `name`: "none", "gelu", "gelu_tanh" or "relu".
    pub fn named(name: &str) -> Result<Self> {
        match name {
            "none" => Ok(Self::Identity),
            "gelu" => Ok(Self::Gelu),
            "gelu_tanh" => Ok(Self::GeluTanh),
            "relu" => Ok(Self::Relu),
            _ => Err(Error::name("activation", name, "\"none\", \"gelu\", \"gelu_tanh\" or \"relu\"")),
        }
    }

    /// The activation of each lane.
    #[inline(always)]
    pub(super) fn apply<L: Lanes<Scalar = f32>>(self, lanes: L, x: L::V) -> L::V {
        match self {
            Self::Identity => x,
            Self::Gelu => half_of_one_plus(lanes, x, erf(lanes, lanes.mul(x, lanes.splat(FRAC_1_SQRT_2)))),
            Self::GeluTanh => {
                let cube = lanes.mul(lanes.mul(x, x), x);
                let inner = lanes.fma(cube, lanes.splat(0.044_715), x);
                half_of_one_plus(lanes, x, tanh(lanes, lanes.mul(inner, lanes.splat(SQRT_2_OVER_PI))))
            }
            // The second argument where either is NaN.
            Self::Relu => lanes.max(lanes.splat(0.0), x),
        }
    }
}

use std::f32::consts::FRAC_1_SQRT_2;
const SQRT_2_OVER_PI: f32 = 0.797_884_6;

/// `x (1 + y) / 2`, with one rounding less than written.
#[inline(always)]
fn half_of_one_plus<L: Lanes<Scalar = f32>>(lanes: L, x: L::V, y: L::V) -> L::V {
    let half = lanes.mul(x, lanes.splat(0.5));
    lanes.fma(half, y, half)
}

/// The error function of each lane, within 5e-7. NaN stays NaN.
///
/// Numerator and denominator are those of Eigen's float32 erf, a minimax quotient on ±4; beyond it erf is ±1 in float32.
#[inline(always)]
pub(super) fn erf<L: Lanes<Scalar = f32>>(lanes: L, x: L::V) -> L::V {
    // The bounds come first: `min` and `max` give their second argument where either is NaN.
    let x = lanes.max(lanes.splat(-4.0), lanes.min(lanes.splat(4.0), x));
    let square = lanes.mul(x, x);
    let numerator = polynomial(lanes, square, &NUMERATOR);
    let denominator = polynomial(lanes, square, &DENOMINATOR);
    lanes.div(lanes.mul(x, numerator), denominator)
}

const NUMERATOR: [f32; 7] =
    [-2.726_142_3e-10, 2.770_681_4e-8, -2.101_024e-6, -5.692_506_4e-5, -7.349_906_3e-4, -2.954_6e-3, -1.609_603_3e-2];
const DENOMINATOR: [f32; 5] = [-1.456_607_2e-5, -2.133_740_6e-4, -1.682_827e-3, -7.373_329_2e-3, -1.426_473_9e-2];

#[inline(always)]
fn polynomial<L: Lanes<Scalar = f32>, const N: usize>(lanes: L, x: L::V, coefficients: &[f32; N]) -> L::V {
    let mut sum = lanes.splat(coefficients[0]);
    for &coefficient in &coefficients[1..] {
        sum = lanes.fma(sum, x, lanes.splat(coefficient));
    }
    sum
}

impl Activation {
    /// Applies the activation to `tensor [n, d] + bias [d]`, in place; rows and bias are contiguous.
    ///
    /// For products that were made elsewhere: [`Linear`](super::Linear) does the same while its sums are still in the cache.
    pub fn run(self, bias: &View<'_, f32>, tensor: &mut ViewMut<'_, f32>) -> Result<()> {
        let level = Level::current()?;
        check_matrix("tensor", tensor.layout())?;
        let row = vector("bias", bias, tensor.shape()[1])?;
        tensor.check_overlap("tensor", bias, false)?;
        let rows = tensor.matrix();
        let is_parallel = rows.count().saturating_mul(rows.columns()) >= PARALLEL_ELEMENTS;
        let mut blocks = rows.blocks(BLOCK)?;
        parallel::for_each_mut(&mut blocks, is_parallel, |_, out| {
            level.run(BiasAndActivation { activation: self, bias: row, out })
        });
        Ok(())
    }
}

/// Bias and activation, over sums. Panics unless the bias is a row as long as those of `out`, all contiguous.
pub(super) struct BiasAndActivation<'a, 'b> {
    pub(super) activation: Activation,
    pub(super) bias: Rows<'a, f32>,
    pub(super) out: &'a mut RowsMut<'b, f32>,
}

impl Task for BiasAndActivation<'_, '_> {
    type Output = ();

    #[inline(always)]
    fn run<C: Cpu>(mut self, cpu: C) {
        // A loop for each, so that the choice is not made for every vector.
        match self.activation {
            Activation::Identity => self.rows(cpu, Activation::Identity),
            Activation::Gelu => self.rows(cpu, Activation::Gelu),
            Activation::GeluTanh => self.rows(cpu, Activation::GeluTanh),
            Activation::Relu => self.rows(cpu, Activation::Relu),
        }
    }
}

impl BiasAndActivation<'_, '_> {
    #[inline(always)]
    fn rows<C: Cpu>(&mut self, cpu: C, activation: Activation) {
        let lanes = cpu.f32();
        let (n, width) = (C::F32::N, self.out.columns());
        assert!(self.bias.columns() == width && self.bias.is_contiguous() && self.out.is_contiguous());
        let whole = width - width % n;
        for row in 0..self.out.count() {
            let (out, bias) = (self.out.row(row), self.bias.row(0));
            // SAFETY: `row` has checked both rows, which have `width` contiguous elements; `whole` and the rest are within.
            unsafe {
                for column in (0..whole).step_by(n) {
                    let sum = lanes.add(lanes.load(out.add(column)), lanes.load(bias.add(column)));
                    lanes.store(out.add(column), activation.apply(lanes, sum));
                }
                let rest = width - whole;
                if rest > 0 {
                    let (out, bias) = (out.add(whole), bias.add(whole));
                    let sum = lanes.add(lanes.load_first(out, rest), lanes.load_first(bias, rest));
                    lanes.store_first(out, rest, activation.apply(lanes, sum));
                }
            }
        }
    }
}
