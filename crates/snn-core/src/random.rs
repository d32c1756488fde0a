//! Counter-based random numbers: Philox-4x32-10 (Salmon et al., SC 2011).
//!
//! A draw is a pure function of *what it is for*: the seed, a [`Purpose`], and up to three coordinates such as
//! epoch, sample and step. Nothing has to be drawn in order, threads and devices agree to the bit, and a run
//! that is resumed draws what it would have drawn.
//!
//! ```
//! use rand::Rng;
//! use snn_core::random::{Purpose, Stream};
//!
//! let mut noise = Stream::new(7, Purpose::Augment, [0, 41]);   // epoch 0, sample 41
//! let again = Stream::new(7, Purpose::Augment, [0, 41]).random::<f32>();
//! assert_eq!(noise.random::<f32>(), again);
//! ```

use rand::RngCore;

/// What a stream of random numbers is for; streams of different purposes never overlap.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Hash)]
#[repr(u32)]
#[non_exhaustive]
pub enum Purpose {
    /// Initial values of parameters.
    Init = 1,
    /// The order of samples in an epoch.
    Shuffle = 2,
    /// Augmentation of inputs.
    Augment = 3,
    /// Generated data sets.
    Synthesis = 4,
    /// Dropout masks.
    Dropout = 5,
    /// Stochastic spikes.
    Spike = 6,
    /// Noise added for robustness studies.
    Noise = 7,
    /// Test inputs.
    Test = 8,
}

/// The two multipliers of a round of [`philox`].
pub const MULTIPLIERS: [u32; 2] = [0xD251_1F53, 0xCD9E_8D57];
/// What the key grows by in every round of [`philox`].
pub const WEYL: [u32; 2] = [0x9E37_79B9, 0xBB67_AE85];

/// The Philox-4x32-10 bijection: 128 random bits from a 128-bit counter and a 64-bit key.
#[inline]
#[must_use]
pub fn philox(mut counter: [u32; 4], mut key: [u32; 2]) -> [u32; 4] {
    for _ in 0..10 {
        let a = u64::from(MULTIPLIERS[0]) * u64::from(counter[0]);
        let b = u64::from(MULTIPLIERS[1]) * u64::from(counter[2]);
        counter = [(b >> 32) as u32 ^ counter[1] ^ key[0], b as u32, (a >> 32) as u32 ^ counter[3] ^ key[1], a as u32];
        key = [key[0].wrapping_add(WEYL[0]), key[1].wrapping_add(WEYL[1])];
    }
    counter
}

/// A uniform number in `[0, 1)` from 32 random bits: the upper 24 bits, exact in `f32`.
#[inline(always)]
#[must_use]
pub fn unit_f32(bits: u32) -> f32 {
    (bits >> 8) as f32 * (1.0 / 16_777_216.0)
}

/// A uniform number inside `(0, 1)` from 32 random bits: the middle of one of 2^23 equal intervals, exact in `f32`.
#[inline(always)]
#[must_use]
pub fn open_unit_f32(bits: u32) -> f32 {
    ((bits >> 9) as f32 + 0.5) * (1.0 / 8_388_608.0)
}

/// The draws of a population of stochastic neurons in one forward pass, a number for each sample, step and neuron.
///
/// One Philox block serves four neurons that lie a quarter of the layer apart, so that neighbouring neurons are
/// neighbouring lanes of a vector.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub struct SpikeDraws {
    /// The run's seed.
    pub seed: u64,
    /// Which pass: every pass has its own numbers.
    pub pass: u32,
    /// Which population, 24 bits.
    pub population: u32,
}

impl SpikeDraws {
    /// Blocks of one step: the neurons of a word.
    #[inline(always)]
    #[must_use]
    pub const fn blocks(width: usize) -> usize {
        width.div_ceil(4)
    }

    /// The key of the generator.
    #[inline(always)]
    #[must_use]
    pub const fn key(&self) -> [u32; 2] {
        [self.seed as u32, (self.seed >> 32) as u32]
    }

    /// The counter of the first block of a step; those of the others follow in the first word.
    #[inline(always)]
    #[must_use]
    pub const fn counter(&self, sample: usize, step: usize, width: usize) -> [u32; 4] {
        let first = (step * Self::blocks(width)) as u32;
        let tag = (Purpose::Spike as u32) << 24 | (self.population & 0x00FF_FFFF);
        [first, sample as u32, self.pass, tag]
    }

    /// The 32 bits of one neuron.
    #[must_use]
    pub fn bits(&self, sample: usize, step: usize, neuron: usize, width: usize) -> u32 {
        let (block, word) = (neuron % Self::blocks(width), neuron / Self::blocks(width));
        let mut counter = self.counter(sample, step, width);
        counter[0] = counter[0].wrapping_add(block as u32);
        philox(counter, self.key())[word]
    }

    /// The draw of one neuron from the standard normal distribution, of the two words of steps 0 and 1.
    #[must_use]
    pub fn normal(&self, sample: usize, neuron: usize, width: usize) -> f32 {
        normal_f32([0, 1].map(|step| self.bits(sample, step, neuron, width)))
    }
}

/// A draw from the standard normal distribution made of 64 random bits (Box and Muller).
#[must_use]
pub fn normal_f32([radius, angle]: [u32; 2]) -> f32 {
    let radius = (-2.0 * f64::from(open_unit_f32(radius)).ln()).sqrt();
    (radius * (std::f64::consts::TAU * f64::from(unit_f32(angle))).cos()) as f32
}

/// A stream of random numbers named by seed, purpose and two coordinates.
///
/// It implements [`rand::RngCore`], so every distribution of `rand`, `rand_distr` and `ndarray-rand` can draw
/// from it.
#[derive(Debug, Clone)]
pub struct Stream {
    key: [u32; 2],
    counter: [u32; 4],
    block: [u32; 4],
    used: usize,
}

impl Stream {
    /// The stream of `seed` and `purpose` at the given coordinates, for example `[epoch, sample]`.
    #[must_use]
    pub fn new(seed: u64, purpose: Purpose, at: [u32; 2]) -> Self {
        // The purpose sits in the upper byte of the counter's last word; the lower 24 bits of it and the first
        // word count blocks.
        let key = [seed as u32, (seed >> 32) as u32];
        Self { key, counter: [0, at[0], at[1], (purpose as u32) << 24], block: [0; 4], used: 4 }
    }

    /// A uniform number in `[0, 1)` with 24 bits.
    pub fn unit(&mut self) -> f32 {
        unit_f32(self.next_u32())
    }

    /// A uniform integer in `0..bound`, without bias.
    ///
    /// # Panics
    ///
    /// If `bound` is zero.
    pub fn below(&mut self, bound: u32) -> u32 {
        assert!(bound > 0, "no integer lies below zero");
        // Lemire's method: the upper half of a product, rejecting the short first interval.
        loop {
            let wide = u64::from(self.next_u32()) * u64::from(bound);
            if (wide as u32) >= bound.wrapping_neg() % bound {
                return (wide >> 32) as u32;
            }
        }
    }
}

impl RngCore for Stream {
    fn next_u32(&mut self) -> u32 {
        if self.used == 4 {
            self.block = philox(self.counter, self.key);
            self.counter[0] = self.counter[0].wrapping_add(1);
            if self.counter[0] == 0 {
                self.counter[3] = (self.counter[3] & 0xFF00_0000) | (self.counter[3].wrapping_add(1) & 0x00FF_FFFF);
            }
            self.used = 0;
        }
        self.used += 1;
        self.block[self.used - 1]
    }

    fn next_u64(&mut self) -> u64 {
        u64::from(self.next_u32()) | u64::from(self.next_u32()) << 32
    }

    fn fill_bytes(&mut self, out: &mut [u8]) {
        for chunk in out.chunks_mut(4) {
            chunk.copy_from_slice(&self.next_u32().to_le_bytes()[..chunk.len()]);
        }
    }
}

/// A keyed permutation of `0..len`: position `i` of the shuffled order, computed without a table.
///
/// A Feistel network over the smallest even number of bits that holds `len`, walked until it lands inside
/// (cycle walking). Every epoch's order is a function of seed and epoch alone.
///
/// ```
/// use snn_core::random::Permutation;
/// let order = Permutation::new(10, 1, 0);
/// let mut seen: Vec<_> = (0..10).map(|i| order.at(i)).collect();
/// seen.sort();
/// assert_eq!(seen, (0..10).collect::<Vec<_>>());
/// ```
#[derive(Debug, Clone, Copy)]
pub struct Permutation {
    len: u32,
    half_bits: u32,
    key: [u32; 2],
    epoch: u32,
}

impl Permutation {
    /// The order of `len` samples in `epoch`.
    #[must_use]
    pub fn new(len: u32, seed: u64, epoch: u32) -> Self {
        let bits = 32 - len.saturating_sub(1).leading_zeros();
        Self { len, half_bits: bits.div_ceil(2).max(1), key: [seed as u32, (seed >> 32) as u32], epoch }
    }

    /// The sample at `position`.
    ///
    /// # Panics
    ///
    /// If `position` is not below `len`.
    #[must_use]
    pub fn at(&self, position: u32) -> u32 {
        assert!(position < self.len, "position {position} of {} samples", self.len);
        let mask = (1_u32 << self.half_bits) - 1;
        let mut x = position;
        loop {
            let (mut left, mut right) = (x >> self.half_bits, x & mask);
            for round in 0..6 {
                let f = philox([right, round, self.epoch, (Purpose::Shuffle as u32) << 24], self.key)[0] & mask;
                (left, right) = (right, left ^ f);
            }
            x = left << self.half_bits | right;
            if x < self.len {
                return x;
            }
        }
    }
}

#[cfg(test)]
mod tests {
    use proptest::prelude::{any, prop_assert, proptest};

    use super::*;

    /// The known-answer vectors published with the generator's reference library (Random123).
    #[test]
    fn normal_draws_have_the_moments_of_the_distribution() {
        let draws = SpikeDraws { seed: 3, pass: 1, population: 2 };
        let (samples, width) = (200, 100);
        let all = (0..samples * width).map(|i| f64::from(draws.normal(i / width, i % width, width)));
        let mean = |power: i32| all.clone().map(|x| x.powi(power)).sum::<f64>() / (samples * width) as f64;
        for (power, want, tolerance) in [(1, 0.0, 0.03), (2, 1.0, 0.05), (3, 0.0, 0.15), (4, 3.0, 0.3)] {
            assert!((mean(power) - want).abs() < tolerance, "moment {power}: {}", mean(power));
        }
    }

    #[test]
    fn philox_gives_the_published_answers() {
        assert_eq!(philox([0; 4], [0; 2]), [0x6627_e8d5, 0xe169_c58d, 0xbc57_ac4c, 0x9b00_dbd8]);
        assert_eq!(philox([u32::MAX; 4], [u32::MAX; 2]), [0x408f_276d, 0x41c8_3b0e, 0xa20b_c7c6, 0x6d54_51fd]);
        assert_eq!(
            philox([0x243f_6a88, 0x85a3_08d3, 0x1319_8a2e, 0x0370_7344], [0xa409_3822, 0x299f_31d0]),
            [0xd16c_fe09, 0x94fd_cceb, 0x5001_e420, 0x2412_6ea1]
        );
    }

    #[test]
    fn streams_of_other_coordinates_differ() {
        let first = |seed, purpose, at| Stream::new(seed, purpose, at).next_u64();
        let base = first(1, Purpose::Init, [0, 0]);
        for other in
            [first(2, Purpose::Init, [0, 0]), first(1, Purpose::Spike, [0, 0]), first(1, Purpose::Init, [1, 0])]
        {
            assert_ne!(base, other);
        }
    }

    #[test]
    fn ndarray_rand_draws_from_a_stream() {
        use ndarray_rand::{RandomExt, rand_distr::Normal};
        let mut stream = Stream::new(3, Purpose::Test, [0, 0]);
        let x = ndarray::Array1::random_using(10_000, Normal::new(0.0_f64, 1.0).unwrap(), &mut stream);
        assert!(x.mean().unwrap().abs() < 0.05 && (x.std(0.0) - 1.0).abs() < 0.05);
    }

    proptest! {
        #[test]
        fn permutation_hits_every_sample_once(len in 1_u32..2000, seed in any::<u64>(), epoch in 0_u32..100) {
            let order = Permutation::new(len, seed, epoch);
            let mut seen = vec![false; len as usize];
            for i in 0..len {
                let x = order.at(i) as usize;
                prop_assert!(!seen[x]);
                seen[x] = true;
            }
        }

        #[test]
        fn below_stays_below(bound in 1_u32.., seed in any::<u64>()) {
            let mut s = Stream::new(seed, Purpose::Test, [0, 0]);
            for _ in 0..16 { prop_assert!(s.below(bound) < bound); }
        }
    }
}
