//! Random smooth manifolds (Zenke & Vogels 2021): spike times that vary smoothly with a few hidden coordinates.
//!
//! Each class is a smooth random map from the square `[0, 1]^2` to one firing time per unit. A coordinate of the map is
//!
//! ```text
//! f(x) = prod_d sum_k a[d,k] / (k + 1)^alpha * sin(2 pi (k x_d b[d,k] + c[d,k])),   a[d,0] = 0
//! ```
//!
//! with a, b, c uniform in `[0, 1)` and alpha = 2, scaled so that the class covers `[0, 1]`; the time is that share of 99 ms, so that
//! 100 steps of 1 ms hold all spikes.
//! Every unit fires once, so counts say nothing about the class. The numbers are drawn from our own generator and the
//! extremes found on 256 points per class: the samples are of the published kind, not the published ones.

use std::f64::consts::TAU;
use std::sync::Arc;

use rand::Rng;
use snn_core::random::{Purpose, Stream};

use crate::error::Result;
use crate::source::{Sample, Source, SourceKind, check_index};
use crate::synth::Recipe;

/// Input units.
pub const UNITS: usize = 100;
/// Classes.
pub const CLASSES: usize = 10;
/// Time of the latest spikes, seconds: step 99 of 1 ms.
pub const WINDOW_S: f64 = 0.099;
const DIMENSIONS: usize = 2;
/// Terms beyond have a share below a thousandth.
const TERMS: usize = 32;
const ALPHA: f64 = 2.0;
const PROBES: usize = 256;

#[derive(Debug)]
struct Randman {
    name: String,
    class_names: Vec<String>,
    samples: usize,
    split: u32,
    seed: u64,
    manifolds: Vec<Manifold>,
}

/// The map of one class.
#[derive(Debug)]
struct Manifold {
    // [unit][dimension][term]: amplitude, frequency, phase.
    terms: Vec<[f64; 3]>,
    // Smallest value and span of every unit.
    range: Vec<(f64, f64)>,
}

impl Manifold {
    fn new(seed: u64, class: u32) -> Self {
        let mut random = Stream::new(seed, Purpose::Synthesis, [3, class]);
        let terms = (0..UNITS * DIMENSIONS * TERMS)
            .map(|i| {
                let k = i % TERMS;
                let [a, b, c]: [f64; 3] = random.random();
                [if k == 0 { 0.0 } else { a / ((k + 1) as f64).powf(ALPHA) }, TAU * k as f64 * b, TAU * c]
            })
            .collect();
        let mut this = Self { terms, range: Vec::new() };
        let points: Vec<[f64; DIMENSIONS]> = (0..PROBES).map(|_| random.random()).collect();
        this.range = (0..UNITS)
            .map(|unit| {
                let values = points.iter().map(|x| this.raw(unit, x));
                let (low, high) = values.fold((f64::MAX, f64::MIN), |(l, h), v| (l.min(v), h.max(v)));
                (low, (high - low).max(f64::MIN_POSITIVE))
            })
            .collect();
        this
    }

    fn raw(&self, unit: usize, x: &[f64; DIMENSIONS]) -> f64 {
        let rows = self.terms[unit * DIMENSIONS * TERMS..][..DIMENSIONS * TERMS].chunks_exact(TERMS);
        rows.zip(x).map(|(row, x)| row.iter().map(|[a, w, c]| a * (w * x + c).sin()).sum::<f64>()).product()
    }

    /// The share of the window at which `unit` fires.
    fn at(&self, unit: usize, x: &[f64; DIMENSIONS]) -> f64 {
        let (low, span) = self.range[unit];
        ((self.raw(unit, x) - low) / span).clamp(0.0, 1.0)
    }
}

/// The split that `recipe` describes.
pub(crate) fn source(recipe: Recipe) -> Result<Arc<dyn Source>> {
    let seed = recipe.seed.unwrap_or(0);
    Ok(Arc::new(Randman {
        name: recipe.name("randman"),
        class_names: (0..CLASSES).map(|c| c.to_string()).collect(),
        samples: recipe.samples,
        split: recipe.split(),
        seed,
        manifolds: (0..CLASSES as u32).map(|class| Manifold::new(seed, class)).collect(),
    }))
}

impl Source for Randman {
    fn name(&self) -> &str {
        &self.name
    }

    fn len(&self) -> usize {
        self.samples
    }

    fn class_names(&self) -> &[String] {
        &self.class_names
    }

    fn label(&self) -> Option<&str> {
        None
    }

    fn kind(&self) -> SourceKind {
        SourceKind::Events { units: UNITS, sensor: None }
    }

    fn read(&self, index: usize, into: &mut Sample) -> Result<()> {
        check_index(self, index)?;
        into.clear();
        into.label = (index % CLASSES) as u32;
        let x: [f64; DIMENSIONS] = Stream::new(self.seed, Purpose::Synthesis, [self.split, index as u32]).random();
        let manifold = &self.manifolds[into.label as usize];
        let mut events: Vec<(f32, u32)> =
            (0..UNITS).map(|u| ((manifold.at(u, &x) * WINDOW_S) as f32, u as u32)).collect();
        events.sort_by(|a, b| a.0.total_cmp(&b.0).then(a.1.cmp(&b.1)));
        into.times.extend(events.iter().map(|e| e.0));
        into.units.extend(events.iter().map(|e| e.1));
        Ok(())
    }

    fn memory(&self) -> Option<u64> {
        Some((self.samples * UNITS * 8) as u64)
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn every_unit_fires_once_and_neighbours_fire_alike() {
        let recipe = Recipe { train: true, samples: 40, seed: None };
        let set = source(recipe).unwrap();
        let mut sample = Sample::default();
        set.read(13, &mut sample).unwrap();
        let mut units = sample.units.clone();
        units.sort_unstable();
        assert_eq!(units, (0..UNITS as u32).collect::<Vec<_>>());
        assert_eq!(sample.label, 3);
        assert!(sample.times.is_sorted() && sample.times[UNITS - 1] <= 0.099);

        let manifold = Manifold::new(0, 0);
        for unit in 0..UNITS {
            let step = (manifold.at(unit, &[0.5, 0.5]) - manifold.at(unit, &[0.501, 0.5])).abs();
            assert!(step < 0.05, "unit {unit} jumps by {step}");
        }
    }
}
