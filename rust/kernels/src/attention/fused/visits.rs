//! Which keys and values a call reads: those of the blocks that the band touches, and no others.

use std::ops::Range;

use super::call::{Call, Output, Scale, Span};
use super::item::{Blocks, Item, MakeScratch, Sums};
use super::options::Attention;
use super::pack::{Block, KEYS};
use super::work::ItemLimits;
use crate::arch::{Cpu, Level, Task};
use crate::attention::{Window, WindowSize};
use crate::reference;
use crate::view::{Layout, View, ViewMut};

const D: usize = 4;

fn numbers(count: usize, seed: usize) -> Vec<f32> {
    (0..count).map(|i| ((i + seed) * 7919 % 1013) as f32 / 1013.0 - 0.5).collect()
}

fn assert_close(given: &[f32], expected: &[f32]) {
    assert_eq!(given.len(), expected.len());
    assert!(given.iter().zip(expected).all(|(a, b)| (a - b).abs() <= 2e-6), "{given:?}, not {expected:?}");
}

/// An item that is given the blocks of `needed` and would panic if it went to another one.
struct Only<'a> {
    call: &'a Call<'a, f32>,
    queries: Range<usize>,
    needed: Range<usize>,
}

impl Task for Only<'_> {
    type Output = ();

    #[inline(always)]
    fn run<C: Cpu>(self, cpu: C) {
        let (keys, values) = self.call.keys_and_values(0, 0);
        let pack = |start: usize| {
            let mut block = Block::new::<C>(KEYS, [D, D], false).unwrap();
            block.pack(cpu, (&keys, &values), start, KEYS);
            block
        };
        let blocks: Vec<_> = self.needed.clone().step_by(KEYS).map(pack).collect();
        let (rows, n_k) = (self.queries.len(), self.call.checked.problem.n_k);
        let limits = ItemLimits { rows, keys: n_k, packs: true };
        let mut scratch = MakeScratch { call: self.call, limits, shares: true }.run(cpu).unwrap();
        let span = Span { batch: 0, kv: 0, heads: 0..1, queries: self.queries };
        let blocks = Blocks::Shared(&blocks, self.needed.start);
        Item { scratch: &mut scratch, span, keys: 0..n_k, blocks, sums: Sums::Whole }.run(cpu);
    }
}

#[test]
fn an_item_goes_to_no_block_outside_of_the_band() {
    let (n, queries) = (1024, 500..540);
    let inputs = [numbers(n * D, 0), numbers(n * D, 1), numbers(n * D, 2)];
    let [query, key, value] = inputs.each_ref().map(|input| View::from_slice("input", input, &[n, D]).unwrap());
    for (window_size, is_causal, needed) in [
        (WindowSize::Pair(3, 3), false, 384..640),
        (WindowSize::Pair(3, 3), true, 384..640),
        (WindowSize::Pair(116, 100), false, 384..640),
        (WindowSize::Pair(-1, 3), false, 0..640),
        (WindowSize::Unbounded, true, 0..640),
    ] {
        for sparsity_ratio in [None, Some(0.998)] {
            let window = Window::new(window_size, is_causal).unwrap();
            let attention = Attention { window, sparsity_ratio, ..Attention::default() };
            let checked = attention.check(&query, &key, &value).unwrap();
            let expected = reference::attention(&attention, &query, &key, &value);
            let expected: Vec<f32> =
                expected[queries.clone()].iter().flat_map(|row| row.output.iter().map(|&e| e as f32)).collect();
            for level in Level::available() {
                let mut out = vec![f32::NAN; n * D];
                let operand = checked.problem.output(&Layout::contiguous("out", &[n, D], 4).unwrap()).unwrap();
                let output = Output { first: out.as_mut_ptr(), operand };
                let (query, key, value) = (&query, &key, &value);
                let (scale, pairs) = (Scale::new(checked.scale), false);
                let (attention, checked) = (&attention, &checked);
                let call = Call { attention, checked, query, key, value, out: output, scale, pairs };
                level.run(Only { call: &call, queries: queries.clone(), needed: needed.clone() });
                assert_close(&out[queries.start * D..queries.end * D], &expected);
            }
        }
    }
}

#[test]
fn of_2_to_the_33_keys_only_those_in_the_window_are_read() {
    // The last few are in memory; of the others not even the addresses are mapped.
    let (n_k, held, dead) = (1usize << 33, 512, 512 - 202);
    let window = Window { left: Some(2), right: Some(0) };
    for n_q in [1, 64, 200] {
        let query = numbers(n_q * D, 0);
        let query = View::from_slice("query", &query, &[n_q, D]).unwrap();
        // The output comes last: it must not lie where the keys would be.
        let mut memory: Vec<f32> = [numbers(held * D, 1), numbers(held * D, 2), vec![f32::NAN; n_q * D]].concat();
        memory[..dead * D].fill(f32::NAN);
        memory[held * D..(held + dead) * D].fill(f32::NAN);
        let (inputs, out) = memory.split_at_mut(2 * held * D);
        let slice = |argument, of: Range<usize>| View::from_slice(argument, &inputs[of], &[held, D]).unwrap();
        let (value, key) = (slice("value", 0..held * D), slice("key", held * D..2 * held * D));
        let long = |short: &View<'_, f32>| {
            let layout = Layout::contiguous("a", &[n_k, D], 4).unwrap();
            // SAFETY: the kernel reads the last rows only; that this is so is what the test is about.
            unsafe { View::from_raw(short.as_ptr().wrapping_sub((n_k - held) * D), layout) }
        };
        for sparsity_ratio in [None, Some(0.5)] {
            let attention = Attention { window, sparsity_ratio, ..Attention::default() };
            for level in Level::available() {
                let mut expected = vec![f32::NAN; n_q * D];
                let mut view = ViewMut::from_slice("out", &mut expected, &[n_q, D]).unwrap();
                attention.run_at(level, &query, &key, &value, &mut view).unwrap();
                let mut view = ViewMut::from_slice("out", out, &[n_q, D]).unwrap();
                attention.run_at(level, &query, &long(&key), &long(&value), &mut view).unwrap();
                assert!(expected.iter().all(|e| e.is_finite()));
                assert_close(out, &expected);
            }
        }
    }
}
