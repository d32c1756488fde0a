//! What tests of every crate share: closeness, random inputs, a behaviour suite for backends, golden files.

pub mod agreement;
pub mod golden;
pub mod suite;

use rand::RngCore;

use crate::random::{Purpose, Stream, unit_f32};
use crate::{Lanes, Spikes};

/// The largest difference of two arrays relative to the largest absolute entry of the second (absolute where that
/// entry is 0); infinite if a length differs or an entry is not finite.
#[must_use]
pub fn relative_difference(got: &[f64], want: &[f64]) -> f64 {
    if got.len() != want.len() {
        return f64::INFINITY;
    }
    let scale = want.iter().fold(0.0_f64, |m, x| m.max(x.abs()));
    let worst = got.iter().zip(want).fold(0.0_f64, |m, (g, w)| {
        let d = (g - w).abs();
        // A NaN compares false with everything, so it is caught here and not by `max`.
        if d.is_finite() { m.max(d) } else { f64::INFINITY }
    });
    if scale > 0.0 { worst / scale } else { worst }
}

/// Asserts that two arrays agree within `tolerance`, see [`relative_difference`].
///
/// # Panics
///
/// If they do not.
pub fn assert_close(what: &str, got: &[f64], want: &[f64], tolerance: f64) {
    let difference = relative_difference(got, want);
    assert!(
        difference <= tolerance,
        "{what}: relative difference {difference:.3e}, allowed {tolerance:.1e} ({} against {} entries)",
        got.len(),
        want.len()
    );
}

/// Random test inputs from a seed.
#[derive(Debug)]
pub struct Inputs(Stream);

impl Inputs {
    /// Inputs of `seed`.
    #[must_use]
    pub fn new(seed: u64) -> Self {
        Self(Stream::new(seed, Purpose::Test, [0, 0]))
    }

    /// Uniform numbers in `[low, high)`, exact in `f32`.
    pub fn uniform(&mut self, len: usize, low: f32, high: f32) -> Vec<f32> {
        (0..len).map(|_| low + (high - low) * unit_f32(self.0.next_u32())).collect()
    }

    /// Spikes with the given share of active entries; some of them count two.
    pub fn spikes(&mut self, lanes: Lanes, density: f32) -> Spikes {
        let mut spikes = Spikes::new();
        spikes.start(lanes.steps, lanes.width);
        let mut row = Vec::new();
        for _ in 0..lanes.rows() {
            row.clear();
            for unit in 0..lanes.width as u32 {
                let u = unit_f32(self.0.next_u32());
                let count = usize::from(u < density) + usize::from(u < density * 0.1);
                row.extend(std::iter::repeat_n(unit, count));
            }
            spikes.push_row(&row);
        }
        spikes.finish(lanes.batch).expect("units lie below the width");
        spikes
    }
}

/// Widens to `f64`.
#[must_use]
pub fn wide(x: &[f32]) -> Vec<f64> {
    x.iter().map(|&v| f64::from(v)).collect()
}
