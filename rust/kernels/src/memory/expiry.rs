//! When entries end: a time to live from the put, a time to idle from the last use, whichever is earlier.
//!
//! Times are nanoseconds of any clock that the caller reads. One binary heap holds the slots that can end. A use only
//! moves an entry's own deadline; its key in the heap stays behind (it is never later than the deadline) and is
//! corrected when it comes to the top.

use super::slab::NIL;

/// A moment that does not come.
pub const NEVER: i64 = i64::MAX;

/// How long the entries of a cache live unless their put says otherwise; nanoseconds.
#[derive(Debug, Clone, Copy, Default, PartialEq)]
pub struct Timing {
    /// From the put.
    pub ttl: Option<i64>,
    /// From the last use.
    pub tti: Option<i64>,
    /// A time to live `t` is drawn from `[t * (1 - jitter), t]`.
    pub jitter: f64,
}

/// The time to live that a put asks for.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub enum Ttl {
    /// The cache's.
    Default,
    /// None, whatever the cache's is.
    Never,
    /// This many nanoseconds, with the cache's jitter.
    For(i64),
    /// Exactly what remained of a stored entry's life.
    Remaining(Lifetime),
}

/// What remains of an entry's life; nanoseconds, [`NEVER`] for no end.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub struct Lifetime {
    /// Until its time to live is over.
    pub live: i64,
    /// Until it has idled too long.
    pub idle: i64,
}

#[derive(Debug, Clone, Copy)]
struct End {
    live: i64,
    idle: i64,
    /// Where the slot stands in the heap; `NIL` if it cannot end.
    place: u32,
}

const ENDLESS: End = End { live: NEVER, idle: NEVER, place: NIL };

impl End {
    fn at(&self) -> i64 {
        self.live.min(self.idle)
    }
}

#[derive(Debug)]
pub(super) struct Expiry {
    timing: Timing,
    ends: Vec<End>,
    heap: Vec<(i64, u32)>,
    now: i64,
    random: u64,
}

impl Expiry {
    pub(super) fn new(timing: Timing, seed: u64) -> Self {
        Self { timing, ends: Vec::new(), heap: Vec::new(), now: i64::MIN, random: seed }
    }

    /// False while nothing can end: no time is set, and no entry has one of its own.
    pub(super) fn is_needed(&self) -> bool {
        self.timing.ttl.is_some() || self.timing.tti.is_some() || !self.heap.is_empty()
    }

    pub(super) fn clear(&mut self) {
        self.ends.clear();
        self.heap.clear();
    }

    /// Takes the caller's time; one that goes back stands still instead, so that order stays order.
    pub(super) fn advance(&mut self, now: i64) -> i64 {
        self.now = self.now.max(now);
        self.now
    }

    /// A slot that has ended by now.
    pub(super) fn ended(&mut self) -> Option<u32> {
        while let Some(&(key, slot)) = self.heap.first() {
            if key > self.now {
                return None;
            }
            let at = self.ends[slot as usize].at();
            if at <= self.now {
                return Some(slot);
            }
            self.heap[0].0 = at;
            self.sink(0);
        }
        None
    }

    pub(super) fn start(&mut self, slot: u32, ttl: Ttl) {
        let live = match ttl {
            Ttl::Default => self.timing.ttl.map_or(NEVER, |ttl| self.draw(ttl)),
            Ttl::Never => NEVER,
            Ttl::For(ttl) => self.draw(ttl),
            Ttl::Remaining(rest) => self.now.saturating_add(rest.live),
        };
        let idle = match (self.timing.tti, ttl) {
            (None, _) => NEVER,
            (Some(tti), Ttl::Remaining(rest)) => self.now.saturating_add(rest.idle.min(tti)),
            (Some(tti), _) => self.now.saturating_add(tti),
        };
        self.stop(slot);
        let end = End { live, idle, place: NIL };
        if end.at() == NEVER {
            return;
        }
        if self.ends.len() <= slot as usize {
            self.ends.resize(slot as usize + 1, ENDLESS);
        }
        self.ends[slot as usize] = end;
        self.heap.push((end.at(), slot));
        self.rise(self.heap.len() - 1);
    }

    /// The slot was used.
    pub(super) fn renew(&mut self, slot: u32) {
        if let (Some(tti), Some(end)) = (self.timing.tti, self.ends.get_mut(slot as usize)) {
            end.idle = self.now.saturating_add(tti);
        }
    }

    pub(super) fn stop(&mut self, slot: u32) {
        let Some(end) = self.ends.get_mut(slot as usize) else { return };
        let place = std::mem::replace(end, ENDLESS).place;
        if place == NIL {
            return;
        }
        let place = place as usize;
        let last = self.heap.pop().expect("a placed slot is in the heap");
        if place < self.heap.len() {
            self.heap[place] = last;
            self.rise(place);
            self.sink(self.ends[last.1 as usize].place as usize);
        }
    }

    pub(super) fn remaining(&self, slot: u32) -> Lifetime {
        let end = self.ends.get(slot as usize).unwrap_or(&ENDLESS);
        let until = |moment: i64| if moment == NEVER { NEVER } else { moment.saturating_sub(self.now) };
        Lifetime { live: until(end.live), idle: until(end.idle) }
    }

    fn draw(&mut self, ttl: i64) -> i64 {
        let mut ttl = ttl;
        if self.timing.jitter > 0.0 {
            // SplitMix64; 53 bits make a fraction in [0, 1).
            self.random = self.random.wrapping_add(0x9e37_79b9_7f4a_7c15);
            let mut bits = (self.random ^ (self.random >> 30)).wrapping_mul(0xbf58_476d_1ce4_e5b9);
            bits = (bits ^ (bits >> 27)).wrapping_mul(0x94d0_49bb_1331_11eb);
            let fraction = ((bits ^ (bits >> 31)) >> 11) as f64 / (1u64 << 53) as f64;
            ttl -= (ttl as f64 * self.timing.jitter * fraction) as i64;
        }
        self.now.saturating_add(ttl.max(1))
    }

    fn rise(&mut self, mut place: usize) {
        let item = self.heap[place];
        while place > 0 {
            let parent = (place - 1) / 2;
            if self.heap[parent].0 <= item.0 {
                break;
            }
            self.set(place, self.heap[parent]);
            place = parent;
        }
        self.set(place, item);
    }

    fn sink(&mut self, mut place: usize) {
        let item = self.heap[place];
        loop {
            let mut child = 2 * place + 1;
            if child >= self.heap.len() {
                break;
            }
            if child + 1 < self.heap.len() && self.heap[child + 1].0 < self.heap[child].0 {
                child += 1;
            }
            if item.0 <= self.heap[child].0 {
                break;
            }
            self.set(place, self.heap[child]);
            place = child;
        }
        self.set(place, item);
    }

    fn set(&mut self, place: usize, item: (i64, u32)) {
        self.heap[place] = item;
        self.ends[item.1 as usize].place = place as u32;
    }
}
