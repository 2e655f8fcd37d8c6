//! What the benches share: seeded random input.
//!
//! Each bench is `benches/benches/<kernel>.rs`; its lines are named kernel/shape/variant.

/// A small seeded generator (SplitMix64), so that every run of a bench sees the same numbers.
#[derive(Debug)]
pub struct Seeded(u64);

impl Seeded {
    /// A generator that always yields the same sequence for the same seed.
    pub fn new(seed: u64) -> Self {
        Self(seed)
    }

    /// The next 64 random bits.
    pub fn bits(&mut self) -> u64 {
        self.0 = self.0.wrapping_add(0x9e37_79b9_7f4a_7c15);
        let mut z = self.0;
        z = (z ^ (z >> 30)).wrapping_mul(0xbf58_476d_1ce4_e5b9);
        z = (z ^ (z >> 27)).wrapping_mul(0x94d0_49bb_1331_11eb);
        z ^ (z >> 31)
    }

    /// A number with a bell-shaped distribution around 0 (the sum of four uniform ones), variance 1.
    pub fn normal(&mut self) -> f32 {
        let sum: f32 = (0..4).map(|_| (self.bits() >> 40) as f32 / (1u32 << 24) as f32 - 0.5).sum();
        sum * 3.0f32.sqrt()
    }

    /// `len` numbers of [`Seeded::normal`].
    pub fn normals(&mut self, len: usize) -> Vec<f32> {
        (0..len).map(|_| self.normal()).collect()
    }
}
