//! What vectors touch, next to memory that cannot be touched.

use half::{bf16, f16};

use super::*;

/// A page between two that nobody may touch.
struct Page(*mut u8);

impl Page {
    /// More than a vector of any level, and a multiple of every page size there is.
    const SIZE: usize = 1 << 16;

    fn new() -> Self {
        // SAFETY: fresh memory, of which the middle is made accessible; where it is, the system decides.
        unsafe {
            let (none, both) = (libc::PROT_NONE, libc::PROT_READ | libc::PROT_WRITE);
            let flags = libc::MAP_PRIVATE | libc::MAP_ANONYMOUS;
            let start = libc::mmap(std::ptr::null_mut(), 3 * Self::SIZE, none, flags, -1, 0);
            assert_ne!(start, libc::MAP_FAILED);
            assert_eq!(libc::mprotect(start.byte_add(Self::SIZE), Self::SIZE, both), 0);
            Self(start.cast::<u8>().add(Self::SIZE))
        }
    }

    /// The first or the last elements of the page, filled. The next one, before or behind them, cannot be touched.
    fn fill<T: Copy>(&self, at_end: bool, elements: &[T]) -> *mut T {
        assert!(size_of_val(elements) <= Self::SIZE);
        let first = if at_end { Self::SIZE - size_of_val(elements) } else { 0 };
        // SAFETY: these elements are within the page.
        unsafe {
            let to = self.0.add(first).cast::<T>();
            to.copy_from_nonoverlapping(elements.as_ptr(), elements.len());
            to
        }
    }
}

impl Drop for Page {
    fn drop(&mut self) {
        // SAFETY: what `new` mapped, to which nothing points any more.
        unsafe { libc::munmap(self.0.sub(Self::SIZE).cast(), 3 * Self::SIZE) };
    }
}

/// Every method that reads or writes memory, next to memory that cannot be touched: with every count of elements, and
/// with every mask.
struct Bounds<T> {
    at_end: bool,
    element: std::marker::PhantomData<T>,
}

impl<T: Element> Task for Bounds<T> {
    type Output = ();

    #[inline(always)]
    fn run<C: Cpu>(self, cpu: C) {
        let l = T::Real::lanes(cpu);
        let (from, to, n) = (Page::new(), Page::new(), <T::Real as Real>::Lanes::<C>::N);
        let numbers: Vec<T> = (0..n).map(|i| T::from_real(T::Real::from_f64(i as f64 + 1.0))).collect();
        let read = |at: *const T, count: usize| -> Vec<f64> {
            // SAFETY: whoever calls it has filled so many elements.
            unsafe { std::slice::from_raw_parts(at, count) }.iter().map(|x| x.to_real().to_f64()).collect()
        };
        let wanted: Vec<f64> = numbers.iter().map(|x| x.to_real().to_f64()).collect();
        for count in 0..=n {
            let (from, to) = (from.fill(self.at_end, &numbers[..count]), to.fill(self.at_end, &vec![T::NULL; count]));
            // SAFETY: both have `count` elements.
            unsafe {
                T::store_first(cpu, to, count, T::load_first(cpu, from, count));
                assert_eq!(read(to, count), wanted[..count]);
                T::keep_first(cpu, from, to, count, l.first(1));
                assert_eq!(read(to, count.min(1)), wanted[..count.min(1)]);
                assert!(read(to, count).iter().skip(1).all(|&x| x == 0.0));
            }
        }
        let (first, second) = (from.fill(self.at_end, &numbers), to.fill(self.at_end, &vec![T::NULL; n]));
        // SAFETY: both have N elements.
        unsafe {
            T::store(cpu, second, T::load(cpu, first));
            assert_eq!(read(second, n), wanted);
            T::keep(cpu, first, second, l.first(n - 1));
            assert_eq!(read(second, n), [&wanted[..n - 1], &[0.0]].concat());
        }
        let numbers: Vec<T::Real> = numbers.iter().map(|x| x.to_real()).collect();
        let int = |i: usize| <T::Real as Real>::int(i as i64);
        let ints: Vec<_> = (0..n).map(int).collect();
        for mask in 0..1usize << n {
            let set: Vec<usize> = (0..n).filter(|i| mask >> i & 1 == 1).collect();
            let marks: Vec<_> = (0..n).map(|i| int(mask >> i & 1)).collect();
            let marks = from.fill(self.at_end, &marks);
            let to = to.fill(self.at_end, &vec![int(0); n]);
            // SAFETY: both have N integers.
            unsafe {
                let marks = l.int_gt(l.int_load(marks), l.int_splat(int(0)));
                assert_eq!(l.bits(marks) as usize, mask);
                let count = l.int_compress(to, marks, l.int_load(from.fill(self.at_end, &ints)));
                let kept: Vec<i64> = std::slice::from_raw_parts(to, count).iter().map(|&i| i.into()).collect();
                assert_eq!(kept, set.iter().map(|&i| i as i64).collect::<Vec<_>>());
            }
            let mut expanded = vec![T::Real::ZERO; n];
            // SAFETY: both have N elements.
            unsafe { l.store(expanded.as_mut_ptr(), l.expand(from.fill(self.at_end, &numbers), mask as u32)) };
            let mut next = numbers.iter();
            let wanted = (0..n).map(|i| if mask >> i & 1 == 1 { *next.next().unwrap() } else { T::Real::ZERO });
            assert!(wanted.eq(expanded.iter().copied()), "{mask:b}: {expanded:?}");
        }
    }
}

#[test]
fn nothing_is_touched_but_what_the_contract_names() {
    fn check<T: Element>() {
        for level in Level::available() {
            for at_end in [false, true] {
                level.run(Bounds { at_end, element: std::marker::PhantomData::<T> });
            }
        }
    }
    check::<f64>();
    check::<f32>();
    check::<f16>();
    check::<bf16>();
}
