//! How far a spike train is from a recorded one, and on which grid the two are compared.
//!
//! The van Rossum distance of trains `s` and `r`, with the time constant `tau` in steps of their common grid
//! (arXiv 2311.11390):
//!
//! ```text
//! y[t] = e^(-1/tau) y[t-1] + s[t] - r[t];   D = sqrt(dt / tau * sum over samples and t of y[t]^2)        (VRD-1)
//! x[t] = y[t] + e^(-1/tau) x[t+1];          dD/ds[t] = (dt / tau) x[t] / D                               (VRD-2)
//! ```
//!
//! The root has no slope at 0; there the gradient is taken as 0.

use crate::error::{Error, Result, check_len};
use crate::real::Real;
use crate::shape::Lanes;

/// The steps of their own input that neurons see, by the sizes of their weights `[taps, N]` and biases `[N]`.
///
/// # Errors
///
/// [`Error::Shape`] if these are the sizes of none.
pub fn taps(op: &'static str, lanes: Lanes, weight: usize, bias: usize) -> Result<usize> {
    check_len(op, "bias", bias, lanes.width)?;
    let taps = weight / lanes.width.max(1);
    check_len(op, "weight", weight, taps.max(1) * lanes.width)?;
    Ok(taps)
}

/// How the steps of a model lie on the grid of a recording.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub enum Raster {
    /// A step is as long as so many of the grid, and a spike lies on the first of them.
    Spread(usize),
    /// So many steps are one of the grid, which has a spike if one of them has; the gradient goes to the first of the
    /// largest.
    Pool(usize),
}

impl Raster {
    /// Steps of the grid that `steps` of the model are.
    #[must_use]
    pub const fn grid_steps(self, steps: usize) -> usize {
        match self {
            Self::Spread(window) => steps * window,
            Self::Pool(window) => steps / if window == 0 { 1 } else { window },
        }
    }

    /// Checks that neurons of the size `lanes` have targets of the size `grid`.
    ///
    /// # Errors
    ///
    /// [`Error::Shape`] if they have not.
    pub fn check(self, op: &'static str, lanes: Lanes, grid: Lanes) -> Result<()> {
        let fits = match self {
            Self::Spread(window) => window > 0 && lanes.steps * window == grid.steps,
            Self::Pool(window) => window > 0 && grid.steps * window == lanes.steps,
        };
        if !fits {
            let want = format_args!("{} steps of the model, {self:?}", lanes.steps);
            return Err(Error::shape(op, "target steps", &[grid.steps], want));
        }
        if (grid.batch, grid.width) != (lanes.batch, lanes.width) {
            let got = [grid.batch, grid.width];
            return Err(Error::shape(op, "target", &got, format_args!("{:?}", [lanes.batch, lanes.width])));
        }
        Ok(())
    }

    /// Lays one train on the grid.
    fn lay<R: Real>(self, spikes: &[R]) -> Vec<R> {
        match self {
            Self::Spread(window) => {
                let mut grid = vec![R::ZERO; spikes.len() * window];
                grid.iter_mut().step_by(window.max(1)).zip(spikes).for_each(|(g, &s)| *g = s);
                grid
            }
            Self::Pool(window) => spikes.chunks(window.max(1)).map(|w| w[first_maximum(w)]).collect(),
        }
    }

    /// The adjoint of `lay`.
    fn lift<R: Real>(self, spikes: &[R], grad: &[R]) -> Vec<R> {
        match self {
            Self::Spread(window) => grad.iter().step_by(window.max(1)).copied().collect(),
            Self::Pool(window) => {
                let mut out = vec![R::ZERO; spikes.len()];
                let windows = spikes.chunks(window.max(1)).zip(out.chunks_mut(window.max(1)));
                windows.zip(grad).for_each(|((w, out), &g)| out[first_maximum(w)] = g);
                out
            }
        }
    }
}

fn first_maximum<R: Real>(values: &[R]) -> usize {
    (1..values.len()).fold(0, |best, i| if values[i] > values[best] { i } else { best })
}

/// The constants of the distance.
#[derive(Debug, Clone, Copy, PartialEq)]
pub struct VanRossum {
    /// Time constant, steps of the grid, above 0.
    pub tau: f64,
    /// Length of a step: a factor on the squared distance.
    pub dt: f64,
}

impl VanRossum {
    /// What is left of a difference after a step.
    #[must_use]
    pub fn decay(&self) -> f64 {
        (-1.0 / self.tau).exp()
    }

    /// The distance of one neuron's trains, a slice for each sample, and its gradient on each of `spikes`.
    ///
    /// ```
    /// use snn_core::fit::{Raster, VanRossum};
    /// let filter = VanRossum { tau: 2.0, dt: 1.0 };
    /// let (same, _) = filter.distance(Raster::Spread(1), &[vec![0.0, 1.0]], &[vec![0.0, 1.0]]);
    /// let (near, grad) = filter.distance(Raster::Spread(2), &[vec![1.0, 0.0]], &[vec![0.0, 1.0, 0.0, 0.0]]);
    /// assert!(same == 0.0 && near > 0.5 && grad[0][0] > 0.0);
    /// ```
    pub fn distance<R: Real>(&self, raster: Raster, spikes: &[Vec<R>], target: &[Vec<R>]) -> (R, Vec<Vec<R>>) {
        let (decay, scale) = (R::lit(self.decay()), R::lit(self.dt / self.tau));
        let filtered: Vec<Vec<R>> = spikes
            .iter()
            .zip(target)
            .map(|(s, r)| {
                let mut y = R::ZERO;
                let step = |(s, r): (&R, &R)| {
                    y = decay * y + *s - *r;
                    y
                };
                raster.lay(s).iter().zip(r).map(step).collect()
            })
            .collect();
        let sum = filtered.iter().flatten().fold(R::ZERO, |sum, &y| sum + y * y);
        let distance = if sum > R::ZERO { (scale * sum).sqrt() } else { R::ZERO };
        let factor = if sum > R::ZERO { scale / distance } else { R::ZERO };
        let grads = spikes.iter().zip(filtered).map(|(s, mut y)| {
            let mut x = R::ZERO;
            for y in y.iter_mut().rev() {
                x = *y + decay * x;
                *y = factor * x;
            }
            raster.lift(s, &y)
        });
        (distance, grads.collect())
    }
}
