//! Every kernel on arrays that end, and begin, at a page that nobody may touch: an access outside ends the process.
//!
//! Nothing is compared but what stands beside the arrays. Each CPU level of this machine is a process of its own, since
//! `ZEROCOST_CPU` is read once; it names each call on stderr before it makes it, so the last line is the culprit.
#![cfg(unix)]

use std::process::Command;
use std::ptr::null_mut;

use half::{bf16, f16};
use zerocost_kernels::arch::{Element, Level, Real};
use zerocost_kernels::attention::{Align, Attention, Before, Mask, MatrixAttention, Normalization, Window, WindowSize};
use zerocost_kernels::layers::{Activation, LayerNorm, Linear};
use zerocost_kernels::parallel;
use zerocost_kernels::split::{Mode, ShardedLinear};
use zerocost_kernels::view::{Layout, View, ViewMut};

/// What a page holds that belongs to no array.
const CANARY: u8 = 0xA5;

/// Which end of an array touches its guard page; beside the other one there is less than a page of [`CANARY`].
#[derive(Debug, Clone, Copy, PartialEq)]
enum Flush {
    Start,
    End,
}

/// How the axes of an array lie in memory.
#[derive(Debug, Clone, Copy, PartialEq)]
enum Storage {
    /// C-contiguous.
    Plain,
    /// The last two axes the other way round.
    Transposed,
    /// All axes from their ends.
    Reversed,
    /// A hole behind each element.
    Gaps,
    /// Rows further apart than they are long; elements next to each other.
    Padded,
    /// One row that is all rows. For inputs only.
    Broadcast,
}

/// The strides of such an array, in elements.
fn strides(shape: &[usize], storage: Storage) -> Vec<isize> {
    let mut order: Vec<usize> = (0..shape.len()).collect();
    if storage == Storage::Transposed && shape.len() > 1 {
        order.swap(shape.len() - 1, shape.len() - 2);
    }
    let mut strides = vec![0; shape.len()];
    let mut step = if storage == Storage::Gaps { 2 } else { 1 };
    for (place, &axis) in order.iter().enumerate().rev() {
        let is_row = storage == Storage::Broadcast && place + 2 == shape.len();
        strides[axis] = if is_row { 0 } else { step };
        if !is_row {
            step *= shape[axis] as isize;
        }
        if storage == Storage::Padded && place + 1 == shape.len() {
            step += 3;
        }
        if storage == Storage::Reversed {
            strides[axis] = -strides[axis];
        }
    }
    strides
}

/// An array between two guard pages.
struct Array<T> {
    pages: *mut u8,
    len: usize,
    /// The bytes of the array, counted from the first page.
    bytes: std::ops::Range<usize>,
    first: *mut T,
    layout: Layout,
}

impl<T: Copy> Array<T> {
    fn new(shape: &[usize], storage: Storage, flush: Flush, mut element: impl FnMut() -> T) -> Self {
        let layout = Layout::new("array", shape, &strides(shape, storage), size_of::<T>()).unwrap();
        let (low, high) = if layout.is_empty() { (0, -1) } else { layout.bounds() };
        let elements = (high - low + 1) as usize;
        // SAFETY: asks for a number.
        let page = unsafe { libc::sysconf(libc::_SC_PAGESIZE) } as usize;
        let size = elements * size_of::<T>();
        let len = size.next_multiple_of(page).max(page);
        // SAFETY: fresh pages of our own, of which the first and the last may not be touched.
        let pages = unsafe {
            let (access, kind) = (libc::PROT_READ | libc::PROT_WRITE, libc::MAP_PRIVATE | libc::MAP_ANONYMOUS);
            let start = libc::mmap(null_mut(), len + 2 * page, access, kind, -1, 0).cast::<u8>();
            assert!(!std::ptr::eq(start.cast(), libc::MAP_FAILED));
            assert_eq!(libc::mprotect(start.cast(), page, libc::PROT_NONE), 0);
            assert_eq!(libc::mprotect(start.add(page + len).cast(), page, libc::PROT_NONE), 0);
            start.add(page).write_bytes(CANARY, len);
            start.add(page)
        };
        let start = if flush == Flush::End { len - size } else { 0 };
        // SAFETY: `elements` of T, aligned (a page is a multiple of their size), are there, and no reference to them.
        let first = unsafe {
            let lowest = pages.add(start).cast::<T>();
            (0..elements).for_each(|index| lowest.add(index).write(element()));
            lowest.offset(-low)
        };
        Self { pages, len, bytes: start..start + size, first, layout }
    }

    fn view(&self) -> View<'_, T> {
        // SAFETY: `new` made memory for every offset of the layout from `first` on.
        unsafe { View::from_raw(self.first, self.layout.clone()) }
    }

    fn view_mut(&mut self) -> ViewMut<'_, T> {
        // SAFETY: as in `view`, and the array is borrowed mutably.
        unsafe { ViewMut::from_raw("out", self.first, self.layout.clone()) }.unwrap()
    }

    /// The same elements to read and to write, for a kernel that reads each before it writes it.
    fn both(&mut self) -> (View<'_, T>, ViewMut<'_, T>) {
        // SAFETY: as in `view`; who asks for both hands them to such a kernel.
        let view = unsafe { View::from_raw(self.first.cast_const(), self.layout.clone()) };
        (view, self.view_mut())
    }
}

impl<T> Drop for Array<T> {
    fn drop(&mut self) {
        // SAFETY: the pages are ours, and nobody borrows them any more.
        unsafe {
            let pages = std::slice::from_raw_parts(self.pages, self.len);
            let beside = pages[..self.bytes.start].iter().chain(&pages[self.bytes.end..]);
            let untouched = beside.copied().all(|byte| byte == CANARY);
            let page = libc::sysconf(libc::_SC_PAGESIZE) as usize;
            libc::munmap(self.pages.sub(page).cast(), self.len + 2 * page);
            assert!(untouched || std::thread::panicking(), "something was written beside an array");
        }
    }
}

/// Numbers of all kinds, ties among them; the same ones in each run.
struct Numbers(u64);

impl Numbers {
    fn next<T: Element>(&mut self) -> T {
        self.0 = self.0.wrapping_mul(6_364_136_223_846_793_005).wrapping_add(1_442_695_040_888_963_407);
        let number = match self.0 >> 58 {
            0 => f64::NAN,
            1 => -f64::NAN,
            2 => f64::INFINITY,
            3 => f64::NEG_INFINITY,
            4 => -0.0,
            5..=20 => 1.0,
            _ => (self.0 >> 20) as f64 / (1u64 << 43) as f64 - 1.0,
        };
        T::from_real(T::Real::from_f64(number))
    }
}

/// Lengths around those of vectors, blocks and pieces.
const LENGTHS: [usize; 18] = [1, 2, 3, 4, 5, 7, 8, 9, 15, 16, 17, 31, 33, 63, 65, 127, 130, 515];
const FLUSHES: [Flush; 2] = [Flush::Start, Flush::End];
const FLOATS: [&str; 4] = ["f32", "f64", "f16", "bf16"];

/// Says what comes next. Not through the test harness, which keeps it to itself until the test ends.
fn say(what: std::fmt::Arguments<'_>) {
    eprintln!("{what}");
}

fn matrix<T: Element>(numbers: &mut Numbers) {
    use Storage::{Gaps, Padded, Plain, Reversed, Transposed};
    let level = Level::current().unwrap();
    let kinds = [Normalization::None, Normalization::Softmax, Normalization::Sum];
    let ways = [
        (Some(0.0), WindowSize::Unbounded, false),
        (Some(0.8), WindowSize::Unbounded, false),
        (Some(0.5), WindowSize::Unbounded, true),
        (None, WindowSize::Pair(3, 1), false),
        (None, WindowSize::Keys(64), true),
        (Some(0.5), WindowSize::Pair(40, 2), false),
    ];
    for (turn, &n_k) in LENGTHS.iter().enumerate() {
        for (way, &(sparsity_ratio, window_size, is_causal)) in ways.iter().enumerate() {
            for storage in [(Plain, Plain), (Reversed, Plain), (Padded, Padded), (Gaps, Transposed)] {
                for flush in FLUSHES {
                    let normalization = kinds[(turn + way) % kinds.len()];
                    let options =
                        MatrixAttention { sparsity_ratio, window_size, is_causal, normalization, ..Default::default() };
                    let shape = [2, [1, 3, 18][turn % 3], n_k];
                    say(format_args!("{options:?} {shape:?} {storage:?} {flush:?}"));
                    let mut given = Array::<T>::new(&shape, storage.0, flush, || numbers.next());
                    let mut out = Array::<T>::new(&shape, storage.1, flush, || T::NULL);
                    options.run(level, &given.view(), &mut out.view_mut(), Before::Anything).unwrap();
                    let mut out = Array::<T>::new(&shape, storage.1, flush, || T::NULL);
                    options.run(level, &given.view(), &mut out.view_mut(), Before::Zeros).unwrap();
                    let (view, mut out) = given.both();
                    options.run(level, &view, &mut out, Before::Anything).unwrap();
                }
            }
        }
    }
}

/// Shapes that pass every threshold: several threads, and what is written past the caches.
fn large_matrix<T: Element>(numbers: &mut Numbers) {
    let level = Level::current().unwrap();
    for (shape, sparsity_ratio, window_size) in [
        ([70, 2051], Some(0.8), WindowSize::Unbounded),
        ([2100, 2051], None, WindowSize::Keys(129)),
        ([2, 70_001], Some(0.9), WindowSize::Unbounded),
    ] {
        for normalization in [Normalization::None, Normalization::Softmax] {
            let options = MatrixAttention { sparsity_ratio, window_size, normalization, ..Default::default() };
            say(format_args!("{options:?} {shape:?}"));
            let given = Array::<T>::new(&shape, Storage::Plain, Flush::End, || numbers.next());
            for flush in FLUSHES {
                let mut out = Array::<T>::new(&shape, Storage::Plain, flush, || T::NULL);
                options.run(level, &given.view(), &mut out.view_mut(), Before::Anything).unwrap();
            }
        }
    }
}

fn fused<T: Element>(numbers: &mut Numbers) {
    use Storage::{Broadcast, Gaps, Padded, Plain, Reversed, Transposed};
    let sizes = [
        (1, 1, 1, 1),
        (3, 17, 16, 5),
        (1, 65, 7, 17),
        (2, 130, 33, 8),
        (70, 63, 5, 31),
        (97, 130, 64, 64),
        (3, 17, 0, 5),
    ];
    let long = [(1, 1100, 16, 9), (5, 1025, 17, 3), (70, 1030, 4, 4)];
    for (turn, &(n_q, n_k, d, d_v)) in sizes.iter().chain(&long).enumerate() {
        for (way, storage) in [Plain, Transposed, Reversed, Gaps, Padded, Broadcast].into_iter().enumerate() {
            for masked in 0..3 {
                let flush = FLUSHES[(turn + way + masked) % 2];
                let (h_q, h_kv) = [(2, 1), (2, 2), (3, 1)][(turn + way) % 3];
                let query = Array::<T>::new(&[h_q, n_q, d], storage, flush, || numbers.next());
                let key = Array::<T>::new(&[h_kv, n_k, d], storage, flush, || numbers.next());
                let value = Array::<T>::new(&[h_kv, n_k, d_v], storage, flush, || numbers.next());
                let sinks = Array::<T>::new(&[h_q], if way % 2 == 0 { Plain } else { Gaps }, flush, || numbers.next());
                let bits = Array::<u8>::new(&[n_q, n_k], storage, flush, || numbers.next::<f32>().to_bits() as u8 & 3);
                let floats = Array::<T>::new(&[h_q, n_q, n_k], storage, flush, || numbers.next());
                let mask = [None, Some(Mask::Bool(bits.view())), Some(Mask::Float(floats.view()))];
                let attention = Attention {
                    window: [
                        Window::default(),
                        Window { left: None, right: Some(0) },
                        Window { left: Some(9), right: Some(2) },
                    ][(turn + masked) % 3],
                    align: [Align::BottomRight, Align::TopLeft][way % 2],
                    softcap: [0.0, 5.0][(turn + way) % 2],
                    sparsity_ratio: [None, Some(0.7)][(turn + way + masked) % 2],
                    mask: mask[masked].clone(),
                    sinks: (way % 3 == 0).then(|| sinks.view()),
                    ..Attention::default()
                };
                let target = [Plain, Reversed, Padded][way % 3];
                let mut out = Array::<T>::new(&[h_q, n_q, d_v], target, flush, || T::NULL);
                say(format_args!(
                    "fused {h_q}/{h_kv} heads, {n_q} queries, {n_k} keys, d {d}, d_v {d_v}, {storage:?} to {target:?}, {flush:?}, \
                     mask {masked}, {:?}, softcap {}, ratio {:?}",
                    attention.window, attention.softcap, attention.sparsity_ratio
                ));
                attention.run(&query.view(), &key.view(), &value.view(), &mut out.view_mut()).unwrap();
            }
        }
    }
}

fn sharded<T: Element>(numbers: &mut Numbers) {
    use Storage::{Broadcast, Gaps, Padded, Plain, Reversed, Transposed};
    let sizes = [(1, 1, 1), (1, 17, 33), (3, 65, 16), (8, 9, 130), (9, 31, 15), (40, 130, 67), (2, 3, 17_000)];
    for (turn, &(rows, d_in, d_out)) in sizes.iter().enumerate() {
        for (way, storage) in [Plain, Transposed, Reversed, Gaps, Padded, Broadcast].into_iter().enumerate() {
            for mode in [Mode::Column, Mode::Row] {
                let flush = FLUSHES[(turn + way) % 2];
                say(format_args!("{mode:?} shards, {rows} rows, [{d_in}, {d_out}], {storage:?}, {flush:?}"));
                let tensor = Array::<T>::new(&[rows, d_in], storage, flush, || numbers.next());
                let weight = Array::<T>::new(&[d_in, d_out], storage, flush, || numbers.next());
                let bias = Array::<T>::new(&[d_out], if way % 2 == 0 { Plain } else { Gaps }, flush, || numbers.next());
                let target = [Plain, Transposed, Reversed, Gaps][way % 4];
                let mut out = Array::<T>::new(&[rows, d_out], target, flush, || T::NULL);
                let layer = ShardedLinear { shards: [1, 3][turn % 2], mode };
                layer.run(&tensor.view(), &weight.view(), Some(&bias.view()), &mut out.view_mut()).unwrap();
            }
        }
    }
}

fn layers(numbers: &mut Numbers) {
    use Storage::{Gaps, Padded, Plain, Reversed, Transposed};
    let kinds = [Activation::Identity, Activation::Gelu, Activation::GeluTanh, Activation::Relu];
    for (turn, &columns) in LENGTHS.iter().enumerate() {
        for (way, &rows) in [1, 3, 16, 65].iter().enumerate() {
            for flush in FLUSHES {
                let (activation, storage) = (kinds[(turn + way) % 4], [Plain, Padded][way % 2]);
                let d_in = LENGTHS[(3 * turn + way) % LENGTHS.len()];
                say(format_args!("{activation:?}, {rows} rows, [{d_in}, {columns}], {storage:?}, {flush:?}"));
                let laid_out = [Plain, Transposed, Reversed, Gaps][turn % 4];
                let weight = Array::<f32>::new(&[d_in, columns], laid_out, flush, || numbers.next());
                let bias = Array::<f32>::new(&[columns], Plain, flush, || numbers.next());
                let tensor = Array::<f32>::new(&[rows, d_in], storage, flush, || numbers.next());
                let mut out = Array::<f32>::new(&[rows, columns], storage, flush, || 0.0);
                let layer = Linear::new(&weight.view(), &bias.view()).unwrap();
                layer.run(&tensor.view(), activation, &mut out.view_mut()).unwrap();

                say(format_args!("{activation:?} and norm, [{rows}, {columns}], {storage:?}, {flush:?}"));
                let mut tensor = Array::<f32>::new(&[rows, columns], storage, flush, || numbers.next());
                activation.run(&bias.view(), &mut tensor.view_mut()).unwrap();
                let residual = Array::<f32>::new(&[rows, columns], storage, flush, || numbers.next());
                let weight = Array::<f32>::new(&[columns], Plain, flush, || numbers.next());
                let (norm, residual) = (LayerNorm { epsilon: 1e-5 }, residual.view());
                norm.run(&tensor.view(), &residual, &weight.view(), &bias.view(), &mut out.view_mut()).unwrap();
                let (view, mut out) = tensor.both();
                norm.run(&view, &residual, &weight.view(), &bias.view(), &mut out).unwrap();
            }
        }
    }
}

/// One level, one type: what the parent process asked for.
fn run(float: &str) {
    fn all<T: Element>(numbers: &mut Numbers) {
        matrix::<T>(numbers);
        large_matrix::<T>(numbers);
        fused::<T>(numbers);
        sharded::<T>(numbers);
    }
    let numbers = &mut Numbers(1);
    for threads in [1, 2] {
        parallel::set_num_threads(threads).unwrap();
        match float {
            "f32" => {
                all::<f32>(numbers);
                layers(numbers);
            }
            "f64" => all::<f64>(numbers),
            "f16" => all::<f16>(numbers),
            _ => all::<bf16>(numbers),
        }
    }
}

/// What a child process is asked to do.
const ASKED: &str = "ZEROCOST_GUARDED";

#[test]
fn no_kernel_leaves_its_arrays() {
    if let Ok(float) = std::env::var(ASKED) {
        return run(&float);
    }
    let (mut ran, mut missing) = (Vec::new(), Vec::new());
    for level in Level::ALL {
        if !level.is_available() {
            missing.push(level.name());
            continue;
        }
        ran.push(level.name());
        for float in FLOATS {
            let child = Command::new(std::env::current_exe().unwrap())
                .args(["--exact", "--nocapture", "no_kernel_leaves_its_arrays"])
                .envs([(ASKED, float), ("ZEROCOST_CPU", level.name())])
                .output()
                .unwrap();
            let said = String::from_utf8_lossy(&child.stderr);
            let last: Vec<&str> = said.lines().rev().take(8).collect();
            let last = last.into_iter().rev().collect::<Vec<_>>().join("\n");
            assert!(child.status.success(), "{} of {float} at {}:\n{last}", child.status, level.name());
        }
    }
    // For `make sanitize` and `make valgrind`, which can run no more than what the CPU says it has.
    say(format_args!("Levels that ran between guard pages: {}; not here: {}", ran.join(", "), missing.join(", ")));
}

/// What a process says that has survived.
const BEYOND: &str = "found beyond the array";

#[test]
fn a_touched_guard_page_ends_the_process() {
    if std::env::var(ASKED).is_ok_and(|asked| asked == "touch") {
        let array = Array::<f32>::new(&[5], Storage::Plain, Flush::End, || 0.0);
        // SAFETY: it is none; that this ends the process is what is tested.
        let beyond = unsafe { array.first.add(5).read_volatile() };
        panic!("{BEYOND}: {beyond}");
    }
    if std::env::var(ASKED).is_ok() {
        return;
    }
    let child = Command::new(std::env::current_exe().unwrap())
        .args(["--exact", "--nocapture", "a_touched_guard_page_ends_the_process"])
        .env(ASKED, "touch")
        .output()
        .unwrap();
    assert!(!child.status.success() && !String::from_utf8_lossy(&child.stderr).contains(BEYOND));
}
