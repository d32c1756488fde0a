//! Surrogate derivatives of the spike function.
//!
//! Forward, every clocked neuron uses the strict Heaviside step `H(u) = 1 if u > 0 else 0` of the distance
//! `u = v - threshold`. Backward, its derivative is replaced by one of
//!
//! ```text
//! fast sigmoid     s(u) = 1 / (k |u| + 1)^2                                              (SUR-1)
//! boxcar           s(u) = 1 if -w < u <= w else 0                                        (SUR-2)
//! multi-Gaussian   s(u) = g [ (1 + h) G(u; 0, c) - h G(u; c, 6c) - h G(u; -c, 6c) ]      (SUR-3)
//!                  G(u; m, d) = exp(-(u - m)^2 / (2 d^2)) / (sqrt(2 pi) d)
//! arctan           s(u) = (a/2) / (1 + (pi a u / 2)^2)                                   (SUR-4)
//! ```
//!
//! Sources: SUR-1 as in the block model (k = 10 in its layers, 1 in its CIFAR-10 convolutions, 100 in the bare
//! class) and SPSN (k = 100); SUR-2 and SUR-3 as in the adaptive block simulation (w = 0.5; h = 0.15, c = 0.5,
//! side width factor 6, g = 0.5); SUR-4 as in ParaLIF (a = 2).

use crate::real::Real;

/// A surrogate derivative; see the module for the formulae.
#[derive(Debug, Clone, Copy, PartialEq)]
pub enum Surrogate {
    /// SUR-1 with steepness `scale` = k.
    FastSigmoid {
        /// Steepness k, larger is narrower.
        scale: f64,
    },
    /// SUR-2 with half width `half_width` = w.
    Boxcar {
        /// Half width w in threshold units.
        half_width: f64,
    },
    /// SUR-3.
    MultiGaussian {
        /// Height h of the two side lobes.
        height: f64,
        /// Width c of the centre; the side lobes sit at `+-c` and are six times as wide.
        width: f64,
        /// Overall factor g.
        gain: f64,
    },
    /// SUR-4 with `alpha` = a.
    Arctan {
        /// Steepness a.
        alpha: f64,
    },
}

impl Surrogate {
    /// The fast sigmoid of the block model's layers, k = 10.
    pub const BLOCK: Self = Self::FastSigmoid { scale: 10.0 };
    /// The boxcar of the adaptive block simulation.
    pub const BOXCAR: Self = Self::Boxcar { half_width: 0.5 };
    /// The multi-Gaussian of the adaptive block simulation.
    pub const MULTI_GAUSSIAN: Self = Self::MultiGaussian { height: 0.15, width: 0.5, gain: 0.5 };
    /// The arctan of ParaLIF, a = 2.
    pub const ARCTAN: Self = Self::Arctan { alpha: 2.0 };

    /// The slope at distance `u` from the threshold.
    ///
    /// ```
    /// use snn_core::Surrogate;
    /// assert_eq!(Surrogate::BLOCK.slope(0.0_f64), 1.0);
    /// assert_eq!(Surrogate::BLOCK.slope(0.1_f64), 0.25);
    /// ```
    #[inline(always)]
    pub fn slope<R: Real>(&self, u: R) -> R {
        match *self {
            Self::FastSigmoid { scale } => {
                let d = R::lit(scale) * u.abs() + R::ONE;
                R::ONE / (d * d)
            }
            Self::Boxcar { half_width } => {
                let w = R::lit(half_width);
                if u > -w && u <= w { R::ONE } else { R::ZERO }
            }
            Self::MultiGaussian { height, width, gain } => {
                let gauss = |mean: f64, deviation: f64| {
                    let d = (u - R::lit(mean)) / R::lit(deviation);
                    (-(d * d) * R::lit(0.5)).exp() * R::lit(1.0 / ((2.0 * std::f64::consts::PI).sqrt() * deviation))
                };
                let sides = gauss(width, 6.0 * width) + gauss(-width, 6.0 * width);
                R::lit(gain) * (R::lit(1.0 + height) * gauss(0.0, width) - R::lit(height) * sides)
            }
            Self::Arctan { alpha } => {
                let d = R::lit(std::f64::consts::FRAC_PI_2 * alpha) * u;
                R::lit(0.5 * alpha) / (R::ONE + d * d)
            }
        }
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn multi_gaussian_peaks_as_published() {
        assert!((Surrogate::MULTI_GAUSSIAN.slope(0.0_f64) - 0.439_11).abs() < 5e-6);
        assert!(Surrogate::MULTI_GAUSSIAN.slope(3.0_f64) < 0.0);
    }

    #[test]
    fn boxcar_is_open_below_and_closed_above() {
        let s = Surrogate::BOXCAR;
        assert_eq!([-0.5, -0.499, 0.5, 0.501].map(|u: f64| s.slope(u)), [0.0, 1.0, 1.0, 0.0]);
    }

    #[test]
    fn arctan_has_unit_peak_and_unit_area() {
        let s = Surrogate::ARCTAN;
        assert_eq!(s.slope(0.0_f64), 1.0);
        let area: f64 = (-4_000_000..4_000_000).map(|i| s.slope((f64::from(i) + 0.5) * 1e-4) * 1e-4).sum();
        assert!((area - 1.0).abs() < 1e-3);
    }
}
