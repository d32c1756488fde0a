//! The Yin-Yang set, bit for bit as the block model's authors generate it.
//!
//! A point of the square `[0, 2 r_big]^2` with `r_big = 0.5` belongs to the yin (0), the yang (1) or one of the two dots
//! (2, `r_small = 0.1`). A class is drawn first, then points until one is of that class. The input is
//! `(x, y, 1 - x, 1 - y)`. The random numbers are those of a Mersenne twister with the legacy rules of NumPy's
//! `RandomState`; the training split has seed 42, the test split seed 0, and 40 as the authors of ParaLIF take it.

use std::sync::Arc;

use crate::error::Result;
use crate::source::{InMemory, Sample, Source, SourceKind};
use crate::synth::Recipe;

const R_SMALL: f64 = 0.1;
const R_BIG: f64 = 0.5;

/// Generates the first `count` samples of a seed: inputs `[count, 4]` and classes `[count]`.
///
/// ```
/// let (x, labels) = snn_data::synth::yinyang::samples(42, 3);
/// assert_eq!(labels, [2, 1, 2]);
/// assert_eq!(x[0], [0.680_307_57, 0.450_499_27, 0.319_692_46, 0.549_500_76]);
/// ```
#[must_use]
pub fn samples(seed: u32, count: usize) -> (Vec<[f32; 4]>, Vec<u32>) {
    let mut random = Mersenne::new(seed);
    let mut draw = || {
        let goal = loop {
            let word = random.next() & 3;
            if word < 3 {
                break word;
            }
        };
        loop {
            let (x, y) = (2.0 * R_BIG * random.unit(), 2.0 * R_BIG * random.unit());
            if (x - R_BIG).hypot(y - R_BIG) <= R_BIG && class(x, y) == goal {
                return ([x, y, 1.0 - x, 1.0 - y].map(|v| v as f32), goal);
            }
        }
    };
    (0..count).map(|_| draw()).unzip()
}

/// The class of a point inside the circle.
fn class(x: f64, y: f64) -> u32 {
    let right = (x - 1.5 * R_BIG).hypot(y - R_BIG);
    let left = (x - 0.5 * R_BIG).hypot(y - R_BIG);
    if right < R_SMALL || left < R_SMALL {
        return 2;
    }
    let yang = right <= R_SMALL || (left > R_SMALL && left <= 0.5 * R_BIG) || (y > R_BIG && right > 0.5 * R_BIG);
    u32::from(yang)
}

/// The split that `recipe` describes.
pub(crate) fn source(recipe: Recipe) -> Result<Arc<dyn Source>> {
    Ok(split("yinyang", recipe, 0))
}

/// As [`source`], with the seeds of ParaLIF.
pub(crate) fn paralif(recipe: Recipe) -> Result<Arc<dyn Source>> {
    Ok(split("yinyang-paralif", recipe, 40))
}

fn split(set: &str, recipe: Recipe, test_seed: u32) -> Arc<dyn Source> {
    let own = if recipe.train { 42 } else { test_seed };
    let seed = recipe.seed.map_or(own, |s| s as u32);
    let names = ["yin", "yang", "dot"].map(str::to_owned).to_vec();
    let mut set = InMemory::empty(&recipe.name(set), SourceKind::Vectors(4), names);
    let mut sample = Sample::default();
    let (inputs, labels) = samples(seed, recipe.samples);
    for (x, label) in inputs.iter().zip(labels) {
        sample.values.clear();
        sample.values.extend_from_slice(x);
        sample.label = label;
        set.push(&sample);
    }
    Arc::new(set)
}

/// MT19937, seeded as NumPy's legacy `RandomState(seed)` does.
struct Mersenne {
    state: [u32; 624],
    used: usize,
}

impl Mersenne {
    fn new(seed: u32) -> Self {
        let mut state = [0; 624];
        let mut word = seed;
        for (i, s) in state.iter_mut().enumerate() {
            *s = word;
            word = 1_812_433_253_u32.wrapping_mul(word ^ (word >> 30)).wrapping_add(i as u32 + 1);
        }
        Self { state, used: 624 }
    }

    fn next(&mut self) -> u32 {
        if self.used == 624 {
            for i in 0..624 {
                let y = (self.state[i] & 0x8000_0000) | (self.state[(i + 1) % 624] & 0x7FFF_FFFF);
                let twist = if y & 1 == 1 { 0x9908_B0DF } else { 0 };
                self.state[i] = self.state[(i + 397) % 624] ^ (y >> 1) ^ twist;
            }
            self.used = 0;
        }
        let mut y = self.state[self.used];
        self.used += 1;
        y ^= y >> 11;
        y ^= (y << 7) & 0x9D2C_5680;
        y ^= (y << 15) & 0xEFC6_0000;
        y ^ (y >> 18)
    }

    /// Uniform in `[0, 1)` with 53 bits.
    fn unit(&mut self) -> f64 {
        let (a, b) = (f64::from(self.next() >> 5), f64::from(self.next() >> 6));
        (a * 67_108_864.0 + b) / 9_007_199_254_740_992.0
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn twister_gives_the_published_numbers() {
        // First output of MT19937 with the reference seed 5489.
        assert_eq!(Mersenne::new(5489).next(), 3_499_211_612);
    }

    #[test]
    fn samples_are_those_of_the_original() {
        let (x, labels) = samples(42, 20);
        assert_eq!(labels, [2, 1, 2, 1, 1, 1, 0, 2, 2, 0, 1, 1, 1, 2, 1, 2, 2, 1, 1, 0]);
        assert_eq!(x[1], [0.097_672_11, 0.684_233, 0.902_327_9, 0.315_766_96]);
        assert_eq!(x[2], [0.755_361_44, 0.425_155_88, 0.244_638_59, 0.574_844_1]);
        let (x, labels) = samples(0, 300);
        assert_eq!(labels[..12], [0, 2, 2, 1, 1, 1, 1, 2, 2, 0, 0, 1]);
        assert_eq!(x[0], [0.623_563_7, 0.384_381_7, 0.376_436_3, 0.615_618_3]);
        assert_eq!(x[299], [0.262_823_82, 0.924_871_2, 0.737_176_2, 0.075_128_79]);
    }

    #[test]
    fn classes_come_equally_often() {
        let (_, labels) = samples(1, 3000);
        for class in 0..3 {
            let count = labels.iter().filter(|&&l| l == class).count();
            assert!((900..1100).contains(&count), "class {class}: {count}");
        }
    }
}
