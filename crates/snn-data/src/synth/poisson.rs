//! Poisson spikes for speed benchmarks.
//!
//! The published benchmark draws a rate r per sample, uniform in `[0, 200)`, and lets every unit spike in every step with a
//! Poisson count of mean r / T, clipped to 1: r is the expected number of events of a unit per sequence, not a
//! frequency.

use std::sync::Arc;

use rand_distr::{Distribution, Exp1};
use snn_core::Spikes;
use snn_core::random::{Purpose, Stream};

use crate::error::Result;
use crate::source::{Sample, Source, SourceKind, check_index};
use crate::synth::Recipe;

/// How many spikes there are.
#[derive(Debug, Clone, Copy, PartialEq)]
pub enum Rate {
    /// Each sample draws its expected events per unit and sequence from `[0, this)`; the published benchmark has 200.
    UpTo(f64),
    /// Each entry of `[B, T, N]` is a spike with this probability, in `[0, 1)`.
    Density(f64),
}

/// Random spikes `[batch, steps, width]`; every sample is a function of the seed and its index alone.
///
/// ```
/// use snn_data::synth::poisson::{Rate, poisson_spikes};
/// let spikes = poisson_spikes(2, 50, 100, Rate::Density(0.1), 7);
/// assert!((0.08..0.12).contains(&spikes.density()));
/// ```
#[must_use]
pub fn poisson_spikes(batch: usize, steps: usize, width: usize, rate: Rate, seed: u64) -> Spikes {
    let (mut units, mut offsets) = (Vec::new(), vec![0]);
    for sample in 0..batch {
        draw(steps, width, rate, Stream::new(seed, Purpose::Synthesis, [2, sample as u32]), &mut units, &mut offsets);
    }
    Spikes::from_parts(batch, steps, width, offsets, units).expect("rows are complete and units below the width")
}

/// Appends one sample: its units row by row, and where each row ends.
fn draw(steps: usize, width: usize, rate: Rate, mut random: Stream, units: &mut Vec<u32>, offsets: &mut Vec<usize>) {
    // A Poisson count of mean m is not zero with probability 1 - exp(-m), so the distance to the next spike is
    // geometric: the floor of an exponential variable divided by m. That costs one draw per spike, not per entry.
    let mean = match rate {
        Rate::UpTo(most) => most * f64::from(random.unit()) / steps as f64,
        Rate::Density(p) => -(-p.clamp(0.0, 1.0 - 1e-9)).ln_1p(),
    };
    let total = (steps * width) as f64;
    let mut gap = || {
        let e: f64 = Exp1.sample(&mut random);
        if mean > 0.0 { (e / mean).floor().min(total) as usize } else { steps * width }
    };
    let mut at = gap();
    for row in 0..steps {
        while at < (row + 1) * width {
            units.push((at - row * width) as u32);
            at += 1 + gap();
        }
        offsets.push(units.len());
    }
}

#[derive(Debug)]
struct Poisson {
    name: String,
    classes: Vec<String>,
    samples: usize,
    split: u32,
    seed: u64,
}

/// Time steps of the data set.
pub const STEPS: usize = 100;
/// Input units of the data set.
pub const WIDTH: usize = 1000;

/// The split that `recipe` describes: 1000 units over 100 steps; the labels, of 10 classes, mean nothing.
pub(crate) fn source(recipe: Recipe) -> Result<Arc<dyn Source>> {
    Ok(Arc::new(Poisson {
        name: recipe.name("synthetic-poisson"),
        classes: (0..10).map(|c| c.to_string()).collect(),
        samples: recipe.samples,
        split: recipe.split(),
        seed: recipe.seed.unwrap_or(0),
    }))
}

impl Source for Poisson {
    fn name(&self) -> &str {
        &self.name
    }

    fn len(&self) -> usize {
        self.samples
    }

    fn class_names(&self) -> &[String] {
        &self.classes
    }

    fn label(&self) -> Option<&str> {
        None
    }

    fn kind(&self) -> SourceKind {
        SourceKind::Spikes { steps: STEPS, width: WIDTH }
    }

    fn read(&self, index: usize, into: &mut Sample) -> Result<()> {
        check_index(self, index)?;
        into.clear();
        let mut random = Stream::new(self.seed, Purpose::Synthesis, [self.split, index as u32]);
        into.label = random.below(10);
        into.offsets.push(0);
        draw(STEPS, WIDTH, Rate::UpTo(200.0), random, &mut into.units, &mut into.offsets);
        Ok(())
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn density_is_met_and_no_unit_spikes_twice_in_a_step() {
        for p in [0.0, 0.02, 0.5] {
            let spikes = poisson_spikes(4, 100, 200, Rate::Density(p), 3);
            assert!((spikes.density() - p).abs() < 0.01, "{} for {p}", spikes.density());
            assert!((0..400).all(|r| spikes.row(r).is_sorted_by(|a, b| a < b)));
        }
    }

    #[test]
    fn published_rates_are_uniform_per_sample() {
        let spikes = poisson_spikes(200, 1000, 20, Rate::UpTo(200.0), 5);
        let per_unit: Vec<f64> = spikes.events_per_sample().map(|e| e as f64 / 20.0).collect();
        let mean = per_unit.iter().sum::<f64>() / 200.0;
        // 1 - exp(-r/T) is a little below r/T.
        assert!((80.0..105.0).contains(&mean), "{mean}");
        assert!(per_unit.iter().any(|&r| r < 20.0) && per_unit.iter().any(|&r| r > 165.0));
    }

    #[test]
    fn a_sample_does_not_depend_on_the_batch() {
        let all = poisson_spikes(3, 10, 50, Rate::UpTo(5.0), 1);
        let first = poisson_spikes(1, 10, 50, Rate::UpTo(5.0), 1);
        assert!((0..10).all(|r| all.row(r) == first.row(r)));
    }
}
