use proptest::prelude::*;

use super::options::{Attention, Mask};
use crate::arch::{Element, Level, Real, force_dots};
use crate::attention::{Align, Window, WindowSize};
use crate::reference;
use crate::view::{Layout, View, ViewMut};

/// An array with memory of its own and any strides.
#[derive(Debug, Clone)]
struct Array<T> {
    memory: Vec<T>,
    first: usize,
    layout: Layout,
}

impl<T: Element> Array<T> {
    /// `order` permutes the axes in memory, `gap` leaves elements unused between those of the innermost axis, and bit i
    /// of `reversed` turns axis i around. What is not part of the array is NaN.
    fn new(shape: &[usize], order: &[usize], gap: usize, reversed: u8, mut element: impl FnMut() -> f64) -> Self {
        let mut strides = vec![0isize; shape.len()];
        let mut step = gap;
        for &axis in order {
            strides[axis] = step as isize;
            step *= shape[axis].max(1);
        }
        let mut first = 0;
        for (axis, stride) in strides.iter_mut().enumerate() {
            if reversed >> axis & 1 == 1 && shape[axis] > 0 {
                first += *stride as usize * (shape[axis] - 1);
                *stride = -*stride;
            }
        }
        let layout = Layout::new("a", shape, &strides, size_of::<T>()).unwrap();
        let nan = T::from_real(T::Real::from_f64(f64::NAN));
        let mut array = Self { memory: vec![nan; step + 1], first, layout };
        for index in 0..array.layout.len() {
            let offset = array.offset(index);
            array.memory[offset] = T::from_real(T::Real::from_f64(element()));
        }
        array
    }

    /// Where element number `index` (in C order) is in the memory.
    fn offset(&self, mut index: usize) -> usize {
        let mut offset = self.first as isize;
        for (&length, &stride) in self.layout.shape().iter().zip(self.layout.strides()).rev() {
            offset += (index % length) as isize * stride;
            index /= length;
        }
        offset as usize
    }

    fn view(&self) -> View<'_, T> {
        // SAFETY: `new` made memory for every offset of the layout from `first` on.
        unsafe { View::from_raw(self.memory.as_ptr().add(self.first), self.layout.clone()) }
    }

    fn view_mut(&mut self) -> ViewMut<'_, T> {
        let layout = self.layout.clone();
        // SAFETY: as in `view`, and the memory is borrowed mutably.
        unsafe { ViewMut::from_raw("out", self.memory.as_mut_ptr().add(self.first), layout) }.unwrap()
    }

    fn elements(&self) -> Vec<f64> {
        (0..self.layout.len()).map(|index| self.memory[self.offset(index)].to_real().to_f64()).collect()
    }
}

/// The error that "Numerics" allows: absolute, given sharpness and the largest value.
trait Tolerance: Element {
    fn tolerance(sharpness: f64, largest: f64) -> f64;
}

impl Tolerance for f32 {
    fn tolerance(sharpness: f64, largest: f64) -> f64 {
        (2e-6 + 4.0 * 2f64.powi(-24) * sharpness) * largest
    }
}

impl Tolerance for f64 {
    fn tolerance(sharpness: f64, largest: f64) -> f64 {
        (1e-14 + 4.0 * 2f64.powi(-53) * sharpness) * largest
    }
}

impl Tolerance for half::f16 {
    fn tolerance(sharpness: f64, largest: f64) -> f64 {
        1e-3 * largest + f32::tolerance(sharpness, largest)
    }
}

impl Tolerance for half::bf16 {
    fn tolerance(sharpness: f64, largest: f64) -> f64 {
        1e-2 * largest + f32::tolerance(sharpness, largest)
    }
}

#[derive(Debug, Clone, Copy, PartialEq)]
enum MaskKind {
    None,
    Bool,
    Float,
}

/// One call: everything that it depends on but the element type and the level.
#[derive(Debug, Clone)]
struct Case {
    leading: Vec<usize>,
    group: usize,
    h_kv: usize,
    n_q: usize,
    n_k: usize,
    d: usize,
    d_v: usize,
    is_causal: bool,
    window_size: WindowSize,
    align: Align,
    softcap: f64,
    sparsity_ratio: Option<f64>,
    mask: MaskKind,
    /// Bit i: axis i of the mask (from the last) is broadcast.
    mask_broadcast: u8,
    sinks: bool,
    /// Poisons keys and values that take no part in any row.
    poison: bool,
    layout: (usize, u8, bool),
    seed: u64,
}

fn case() -> impl Strategy<Value = Case> {
    let sizes = (
        prop_oneof![Just(vec![]), Just(vec![2]), Just(vec![2, 1])],
        1usize..4,
        1usize..3,
        prop_oneof![4 => 0usize..20, 1 => 60usize..140],
        prop_oneof![4 => 0usize..40, 2 => 100usize..300, 1 => 1000usize..1300],
        prop_oneof![8 => 1usize..20, 1 => 0usize..1, 1 => 30usize..70],
        prop_oneof![8 => 1usize..20, 1 => 0usize..1, 1 => 30usize..90],
    );
    let edge = -1i64..40;
    let window_size = prop_oneof![
        2 => Just(WindowSize::Unbounded),
        1 => (1i64..60).prop_map(WindowSize::Keys),
        1 => (edge.clone(), edge).prop_map(|(left, right)| WindowSize::Pair(left, right)),
    ];
    let options = (
        any::<bool>(),
        window_size,
        prop_oneof![Just(Align::BottomRight), Just(Align::TopLeft)],
        prop_oneof![3 => Just(0.0), 1 => 0.5f64..20.0],
        prop_oneof![3 => Just(None), 1 => (0.0f64..0.99).prop_map(Some)],
        prop_oneof![Just(MaskKind::None), Just(MaskKind::Bool), Just(MaskKind::Float)],
        any::<u8>(),
        any::<bool>(),
        any::<bool>(),
    );
    let rest = ((1usize..3, any::<u8>(), any::<bool>()), any::<u64>());
    (sizes, options, rest).prop_map(|(sizes, options, (layout, seed))| {
        let (leading, group, h_kv, n_q, n_k, d, d_v) = sizes;
        let (is_causal, window_size, align, softcap, sparsity_ratio, mask, mask_broadcast, sinks, poison) = options;
        Case {
            leading,
            group,
            h_kv,
            n_q,
            n_k,
            d,
            d_v,
            is_causal,
            window_size,
            align,
            softcap,
            sparsity_ratio,
            mask,
            mask_broadcast,
            sinks,
            poison,
            layout,
            seed,
        }
    })
}

/// The inputs of a case in one element type.
struct Inputs<T> {
    query: Array<T>,
    key: Array<T>,
    value: Array<T>,
    bool_mask: Array<f32>,
    bytes: Vec<u8>,
    float_mask: Array<T>,
    sinks: Array<T>,
    out: Array<T>,
}

fn random(seed: &mut u64) -> f64 {
    *seed = seed.wrapping_add(0x9e37_79b9_7f4a_7c15);
    let mut z = *seed;
    z = (z ^ (z >> 30)).wrapping_mul(0xbf58_476d_1ce4_e5b9);
    z = (z ^ (z >> 27)).wrapping_mul(0x94d0_49bb_1331_11eb);
    ((z ^ (z >> 31)) >> 11) as f64 / (1u64 << 53) as f64
}

impl Case {
    fn shape(&self, heads: usize, n: usize, d: usize) -> Vec<usize> {
        self.leading.iter().copied().chain([heads, n, d]).collect()
    }

    fn inputs<T: Element>(&self) -> Inputs<T> {
        let (gap, reversed, transposed) = self.layout;
        let mut seed = self.seed;
        let array = |shape: &[usize], seed: &mut u64, draw: &dyn Fn(f64) -> f64| {
            let mut order: Vec<usize> = (0..shape.len()).rev().collect();
            if transposed && order.len() > 1 {
                order.swap(0, 1);
            }
            Array::<T>::new(shape, &order, gap, reversed, || draw(random(seed)))
        };
        let normal = |u: f64| 4.0 * u - 2.0;
        let h_q = self.h_kv * self.group;
        let query = array(&self.shape(h_q, self.n_q, self.d), &mut seed, &normal);
        let key = array(&self.shape(self.h_kv, self.n_k, self.d), &mut seed, &normal);
        let value = array(&self.shape(self.h_kv, self.n_k, self.d_v), &mut seed, &normal);
        let mut mask_shape = self.shape(h_q, self.n_q, self.n_k);
        for (axis, length) in mask_shape.iter_mut().rev().enumerate() {
            if self.mask_broadcast >> axis & 1 == 1 {
                *length = 1;
            }
        }
        let order: Vec<usize> = (0..mask_shape.len()).rev().collect();
        let bool_mask = Array::<f32>::new(&mask_shape, &order, 1, 0, || f64::from(random(&mut seed) < 0.7));
        let bytes = bool_mask.memory.iter().map(|&byte| u8::from(byte == 1.0) * 3).collect();
        let float_mask = array(&mask_shape, &mut seed, &|u| if u < 0.3 { f64::NEG_INFINITY } else { 3.0 * u });
        let sinks = array(&[h_q], &mut seed, &normal);
        let out = array(&self.shape(h_q, self.n_q, self.d_v), &mut seed, &|_| f64::NAN);
        Inputs { query, key, value, bool_mask, bytes, float_mask, sinks, out }
    }

    fn attention<'a, T: Element>(&self, inputs: &'a Inputs<T>) -> Attention<'a, T> {
        let mask = match self.mask {
            MaskKind::None => None,
            // SAFETY: the bytes are laid out as the array that they were made from.
            MaskKind::Bool => Some(Mask::Bool(unsafe {
                View::from_raw(inputs.bytes.as_ptr().add(inputs.bool_mask.first), inputs.bool_mask.layout.clone())
            })),
            MaskKind::Float => Some(Mask::Float(inputs.float_mask.view())),
        };
        Attention {
            scale: None,
            window: Window::new(self.window_size, self.is_causal).unwrap(),
            align: self.align,
            softcap: self.softcap,
            sparsity_ratio: self.sparsity_ratio,
            mask,
            sinks: self.sinks.then(|| inputs.sinks.view()),
        }
    }

    /// Compares with the twin at every level.
    fn check<T: Tolerance>(&self) {
        let mut inputs = self.inputs::<T>();
        if self.poison {
            self.poison(&mut inputs);
        }
        let mut out = inputs.out.clone();
        let attention = self.attention(&inputs);
        let (query, key, value) = (inputs.query.view(), inputs.key.view(), inputs.value.view());
        let expected = reference::attention(&attention, &query, &key, &value).unwrap();
        for level in Level::available() {
            attention.run_at(level, &query, &key, &value, &mut out.view_mut()).unwrap();
            let elements = out.elements();
            assert_eq!(elements.len(), expected.len() * self.d_v);
            if self.d_v == 0 {
                continue;
            }
            for (row, (given, expected)) in elements.chunks(self.d_v).zip(&expected).enumerate() {
                if expected.margin < 1e-5 * (1.0 + expected.sharpness) {
                    // Rounding decides which of two keys is kept.
                    continue;
                }
                let tolerance = T::tolerance(expected.sharpness, expected.largest);
                for (column, (&given, &wanted)) in given.iter().zip(&expected.output).enumerate() {
                    assert!(
                        (given - wanted).abs() <= tolerance,
                        "{level:?}: row {row}, column {column}: {given}, not {wanted} (within {tolerance:e})"
                    );
                }
            }
        }
    }

    /// Puts NaN and infinity into keys and values of a head that no query of it may look at.
    fn poison<T: Element>(&self, inputs: &mut Inputs<T>) {
        let attention = self.attention(inputs);
        let checked = attention.check(&inputs.query.view(), &inputs.key.view(), &inputs.value.view()).unwrap();
        let problem = &checked.problem;
        let mut dead = Vec::new();
        for batch in 0..problem.batches() {
            for kv in 0..problem.h_kv {
                for j in 0..problem.n_k {
                    let seen = (0..problem.group() * problem.n_q).any(|row| {
                        let (head, i) = (kv * problem.group() + row / problem.n_q, row % problem.n_q);
                        checked.band.keys(i).contains(&j)
                            && reference::mask_bias(&attention, &checked, batch, head, i, j) != f64::NEG_INFINITY
                    });
                    if !seen {
                        dead.push((batch * problem.h_kv + kv) * problem.n_k + j);
                    }
                }
            }
        }
        for index in dead {
            for c in 0..self.d {
                let offset = inputs.key.offset(index * self.d + c);
                inputs.key.memory[offset] = T::from_real(T::Real::from_f64([f64::NAN, f64::INFINITY][c % 2]));
            }
            for c in 0..self.d_v {
                let offset = inputs.value.offset(index * self.d_v + c);
                inputs.value.memory[offset] = T::from_real(T::Real::from_f64([f64::INFINITY, f64::NAN][c % 2]));
            }
        }
    }
}

proptest! {
    #[test]
    fn float32_is_within_the_bound(case in case()) {
        case.check::<f32>();
    }

    #[test]
    fn float64_is_within_the_bound(case in case()) {
        case.check::<f64>();
    }

    #[test]
    fn float16_is_within_the_bound(case in case()) {
        case.check::<half::f16>();
    }

    #[test]
    fn bfloat16_is_within_the_bound(case in case()) {
        for gain in [false, true] {
            force_dots(gain, || case.check::<half::bf16>());
        }
    }
}
