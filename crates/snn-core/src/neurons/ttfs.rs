//! Neurons that spike at most once, in networks that equal networks of rectifiers.
//!
//! Stanojevic et al. (2024), Nature Communications 15, 6793; arXiv 2306.08744. Layer n has a window `[t_min, t_max]`
//! that begins where that of the layer before ends. Inputs that come at `t_j` before `t_min` each start a constant
//! current; from `t_min` on the membrane rises with slope 1, whatever the input, and the neuron fires when it reaches
//! its threshold:
//!
//! ```text
//! dV_i/dt = sum of J_ij over inputs j with t_j < t    before t_min,     dV_i/dt = 1    from t_min to t_max    (TTFS-1)
//! threshold_i = t_max - t_min - D_i,     t_i = t_min + threshold_i - V_i(t_min),     silent if t_i >= t_max   (TTFS-2)
//! ```
//!
//! Everything here is in *earliness*, how long before the end of its window a spike comes, 0 for a neuron that is
//! silent: `x_j = t_min - t_j` of the inputs and `x_i = t_max - t_i`. In it (TTFS-2) is a rectifier, the length of the
//! window drops out, and single precision is exact at any depth:
//!
//! ```text
//! x_i = max(0, sum over j of x_j J_ij + D_i)                                                               (TTFS-3)
//! ```
//!
//! Nothing keeps `t_i` from lying before `t_min` where an activation exceeds the window's length `L`. That is no spike
//! of a neuron any more, so it is counted, and windows grow with what they must hold, after every training step:
//! `L = max(L, growth * largest x of the batch)`. A *limited* neuron fires at `t_min` instead: `x <= L`.
//!
//! The older neuron whose currents stay on, with a constant current 1 beside them, reaches its threshold with the slope
//! `B_i = 1 + sum over j of J_ij`, and its effective weights are `J_ij / B_i`; see [`slope`].

use crate::error::{Error, Result};
use crate::real::Real;

/// The length of the input's window.
pub const INPUT_WINDOW: f64 = 1.0;

/// What is constant about a population.
#[derive(Debug, Clone, Copy, Default, PartialEq, Eq)]
pub struct TtfsNeuron {
    /// A neuron that would fire before its window fires at the window's start.
    pub limited: bool,
}

impl TtfsNeuron {
    /// The earliness (TTFS-3) from the sum of the inputs and the shift; `window` is the window's length.
    #[inline(always)]
    pub fn earliness<R: Real>(&self, potential: R, window: R) -> R {
        let x = if potential > R::ZERO { potential } else { R::ZERO };
        if self.limited && x > window { window } else { x }
    }

    /// Whether the gradient on an earliness reaches the potential: not through silent neurons, nor through those that
    /// were held at the window's start.
    #[inline(always)]
    pub fn passes<R: Real>(&self, earliness: R, window: R) -> bool {
        earliness > R::ZERO && !(self.limited && earliness >= window)
    }
}

/// What spike times go through on their way to the next layer.
#[derive(Debug, Clone, Copy, Default, PartialEq)]
pub struct Perturbation {
    /// Standard deviation of noise on every time, silent neurons included.
    pub noise: f64,
    /// Times take `2^bits` evenly spaced values of the window, its end among them; 0 for any value.
    pub bits: u32,
    /// No time lies before the window.
    pub limited: bool,
}

impl Perturbation {
    /// The most bits of a time or a weight.
    pub const MOST_BITS: u32 = 16;

    /// Whether times stay as they are.
    #[must_use]
    pub fn is_none(&self) -> bool {
        self.noise == 0.0 && self.bits == 0
    }

    /// Checks both numbers.
    ///
    /// # Errors
    ///
    /// [`Error::Domain`] naming the one that is out of range.
    pub fn check(&self) -> Result<()> {
        if !(self.noise >= 0.0 && self.noise.is_finite()) {
            return Err(Error::Domain { op: "ttfs", param: "noise", value: self.noise, range: "[0, inf)" });
        }
        if self.bits > Self::MOST_BITS {
            let value = f64::from(self.bits);
            return Err(Error::Domain { op: "ttfs", param: "time_bits", value, range: "[0, 16]" });
        }
        Ok(())
    }

    /// The earliness that arrives, with `draw` from the standard normal distribution.
    #[inline(always)]
    pub fn apply<R: Real>(&self, x: R, draw: f32, window: R) -> R {
        let there = self.disturbed(x, draw);
        let held = if self.limited && there > window { window } else { there };
        if self.bits == 0 {
            return held;
        }
        let level = f64::from(self.level(held.value() as f32, window.value() as f32));
        if self.passes(x, draw, window) { held.straight_through(level) } else { R::lit(level) }
    }

    /// Whether the gradient on what arrives reaches the earliness: not from beyond the outermost values of the grid.
    #[inline(always)]
    pub fn passes<R: Real>(&self, x: R, draw: f32, window: R) -> bool {
        let x = self.disturbed(x, draw);
        let below = self.bits > 0 && x < R::ZERO;
        let above = (self.bits > 0 || self.limited) && x > window;
        !below && !above
    }

    // Noise that makes a spike later makes it less early.
    #[inline(always)]
    fn disturbed<R: Real>(&self, x: R, draw: f32) -> R {
        if self.noise == 0.0 { x } else { x - R::lit(self.noise * f64::from(draw)) }
    }

    /// The nearest value of the grid; the middle between two goes up. In single precision on every device.
    #[inline(always)]
    #[must_use]
    pub fn level(&self, x: f32, window: f32) -> f32 {
        let step = window / ((1_u32 << self.bits) - 1) as f32;
        if step > 0.0 { (x.clamp(0.0, window) / step + 0.5).floor() * step } else { 0.0 }
    }
}

/// The values that a quantised weight can take: `(k - zero) step` for k from 0 to `levels - 1`, of which 0 is one.
#[derive(Debug, Clone, Copy, PartialEq)]
pub struct Grid {
    /// Between neighbours.
    pub step: f32,
    /// Which of the values is 0.
    pub zero: f32,
    /// How many there are.
    pub levels: u32,
}

impl Grid {
    /// `2^bits` values from about `low` to about `high`: the range is shifted by at most half a step so that 0 is exact.
    ///
    /// All in single precision, as published: where `-low / step` lies between two whole numbers, rounding decides.
    ///
    /// # Errors
    ///
    /// [`Error::Domain`] if there is no bit or too many, or the range does not hold 0.
    pub fn new(bits: u32, low: f64, high: f64) -> Result<Self> {
        let fail = |param, value, range| Err(Error::Domain { op: "quantised weights", param, value, range });
        if !(1..=Perturbation::MOST_BITS).contains(&bits) {
            return fail("bits", f64::from(bits), "[1, 16]");
        }
        if !(low <= 0.0 && low.is_finite()) {
            return fail("low", low, "(-inf, 0]");
        }
        if !(high >= 0.0 && high > low && high.is_finite()) {
            return fail("high", high, "[0, inf) and above low");
        }
        let levels = 1_u32 << bits;
        let last = (levels - 1) as f32;
        let step = (high as f32 - low as f32) / last;
        let zero = (-(low as f32) / step + 0.5).floor().clamp(0.0, last);
        Ok(Self { step, zero, levels })
    }

    /// The smallest value.
    #[inline(always)]
    #[must_use]
    pub fn low(&self) -> f32 {
        -self.zero * self.step
    }

    /// The largest value.
    #[inline(always)]
    #[must_use]
    pub fn high(&self) -> f32 {
        ((self.levels - 1) as f32 - self.zero) * self.step
    }

    /// The nearest value; the middle between two goes up.
    #[inline(always)]
    #[must_use]
    pub fn level(&self, x: f32) -> f32 {
        (((x.clamp(self.low(), self.high()) - self.low()) / self.step + 0.5).floor() - self.zero) * self.step
    }

    /// Whether the gradient passes: straight through inside the range, not at all beyond.
    #[inline(always)]
    #[must_use]
    pub fn passes(&self, x: f32) -> bool {
        (self.low()..=self.high()).contains(&x)
    }
}

/// The slope `B = 1 + sum of J` with which the membrane of a neuron whose currents stay on meets its threshold.
pub fn slope<R: Real>(currents: impl Iterator<Item = R>) -> R {
    currents.fold(R::ONE, |sum, j| sum + j)
}

/// The effective weight `J / B`; 0 if the membrane does not rise, where the neuron never reaches its threshold.
#[inline(always)]
pub fn effective_weight<R: Real>(current: R, slope: R) -> R {
    if slope > R::ZERO { current / slope } else { R::ZERO }
}

/// The current whose effective weight is `weight`, if those of the neuron add up to `sum` below 1.
#[inline(always)]
#[must_use]
pub fn current_of(weight: f64, sum: f64) -> f64 {
    weight / (1.0 - sum)
}

/// The absolute windows `[start of the input window, t_min, t_max]` of layers whose windows have the given lengths.
///
/// ```
/// use snn_core::neurons::ttfs::windows;
/// assert_eq!(windows(&[1500.0, 3.0]), [[0.0, 1.0, 1501.0], [1.0, 1501.0, 1504.0]]);
/// ```
#[must_use]
pub fn windows(lengths: &[f64]) -> Vec<[f64; 3]> {
    let (mut before, mut start) = (0.0, INPUT_WINDOW);
    let window = |&length: &f64| {
        let window = [before, start, start + length];
        (before, start) = (start, start + length);
        window
    };
    lengths.iter().map(window).collect()
}

#[cfg(test)]
mod tests {
    use super::*;
    use proptest::prelude::*;

    /// (TTFS-2) in absolute times, as the paper simulates it: one neuron, its inputs at `times` in `[before, start]`.
    fn fire(times: &[f64], weights: &[f64], shift: f64, start: f64, end: f64) -> f64 {
        let membrane: f64 = times.iter().zip(weights).map(|(t, j)| (start - t) * j).sum();
        (start + (end - start - shift) - membrane).min(end)
    }

    proptest! {
        #[test]
        fn earliness_is_the_spike_time_seen_from_the_end_of_the_window(
            inputs in prop::collection::vec((0.0..2.0_f64, -1.0..1.0_f64), 1..20),
            shift in -1.0..1.0_f64,
            length in 0.5..40.0_f64,
        ) {
            let (start, end) = (2.0, 2.0 + length);
            let (times, weights): (Vec<f64>, Vec<f64>) = inputs.iter().copied().unzip();
            let potential = times.iter().zip(&weights).map(|(t, j)| (start - t) * j).sum::<f64>() + shift;
            let x = TtfsNeuron::default().earliness(potential, length);
            prop_assert!((end - x - fire(&times, &weights, shift, start, end)).abs() < 1e-12);
            let held = TtfsNeuron { limited: true }.earliness(potential, length);
            prop_assert_eq!(held, x.min(length));
        }

        #[test]
        fn levels_are_levels_and_near(bits in 1_u32..9, x in -0.5..3.0_f32, window in 0.1..2.0_f32) {
            let p = Perturbation { bits, ..Perturbation::default() };
            let (got, step) = (p.level(x, window), window / ((1 << bits) - 1) as f32);
            prop_assert!((got - x.clamp(0.0, window)).abs() <= 0.5001 * step);
            prop_assert!((p.level(got, window) - got).abs() <= 1e-6 * window);
            prop_assert_eq!(p.level(0.0, window), 0.0, "a silent neuron stays silent");
        }

        #[test]
        fn weights_keep_zero(bits in 1_u32..=16, low in -3.0..=0.0_f64, high in 0.01..3.0_f64, x in -4.0..4.0_f32) {
            let grid = Grid::new(bits, low, high).unwrap();
            prop_assert_eq!(grid.level(0.0), 0.0);
            let near = (grid.level(x) - x.clamp(grid.low(), grid.high())).abs();
            prop_assert!(near <= 0.51 * grid.step, "{near} of {}", grid.step);
        }
    }

    #[test]
    fn a_tie_of_the_zero_point_is_broken_as_published() {
        let four = Grid::new(4, -1.0, 1.0).unwrap();
        assert!((four.low() + 0.933_33).abs() < 1e-4 && (four.high() - 1.066_67).abs() < 1e-4);
        let two = Grid::new(2, -1.0, 1.0).unwrap();
        assert!((two.low() + 1.333_33).abs() < 1e-4, "{two:?}");
    }

    #[test]
    fn grids_without_a_bit_or_without_zero_are_refused() {
        for (bits, low, high, want) in [(0, -1.0, 1.0, "bits = 0"), (17, -1.0, 1.0, "bits = 17"), (4, 0.5, 1.0, "low")]
        {
            let message = Grid::new(bits, low, high).unwrap_err().to_string();
            assert!(message.contains(want), "{message}");
        }
        assert!(Grid::new(4, 0.0, 0.0).is_err() && Grid::new(4, -1.0, -0.5).is_err());
    }
}
