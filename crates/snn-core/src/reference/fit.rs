//! What fitting recorded neurons needs, on the reference backend.

use super::{DenseSpikes, Reference};
use crate::backend::FitOps;
use crate::error::{Result, check_len};
use crate::fit::{Raster, VanRossum, taps};
use crate::real::Real;
use crate::shape::Lanes;

/// The train of neuron `n` in every sample.
fn trains<R: Real>(spikes: &DenseSpikes<R>, n: usize) -> Vec<Vec<R>> {
    let (sample, width) = ((spikes.lanes.steps * spikes.lanes.width).max(1), spikes.lanes.width);
    spikes.values.chunks(sample).map(|s| s.iter().skip(n).step_by(width).copied().collect()).collect()
}

impl<R: Real> FitOps for Reference<R> {
    fn own_current(&self, lanes: Lanes, x: &Vec<R>, weight: &Vec<R>, bias: &Vec<R>, out: &mut Vec<R>) -> Result<()> {
        const OP: &str = "own_current";
        let taps = taps(OP, lanes, weight.len(), bias.len())?;
        check_len(OP, "x", x.len(), lanes.len())?;
        check_len(OP, "out", out.len(), lanes.len())?;
        for (i, out) in out.iter_mut().enumerate() {
            let (n, t) = (i % lanes.width, i / lanes.width % lanes.steps);
            let past = (0..taps.min(t + 1)).map(|d| weight[d * lanes.width + n] * x[i - d * lanes.width]);
            *out = past.fold(bias[n], |sum, x| sum + x);
        }
        Ok(())
    }

    fn own_current_grad(
        &self,
        lanes: Lanes,
        x: &Vec<R>,
        grad: &Vec<R>,
        grad_weight: &mut Vec<R>,
        grad_bias: &mut Vec<R>,
    ) -> Result<()> {
        const OP: &str = "own_current_grad";
        let taps = taps(OP, lanes, grad_weight.len(), grad_bias.len())?;
        check_len(OP, "x", x.len(), lanes.len())?;
        check_len(OP, "grad", grad.len(), lanes.len())?;
        grad_weight.fill(R::ZERO);
        grad_bias.fill(R::ZERO);
        for (i, &g) in grad.iter().enumerate() {
            let (n, t) = (i % lanes.width, i / lanes.width % lanes.steps);
            grad_bias[n] += g;
            for d in 0..taps.min(t + 1) {
                grad_weight[d * lanes.width + n] += g * x[i - d * lanes.width];
            }
        }
        Ok(())
    }

    fn van_rossum(
        &self,
        filter: &VanRossum,
        raster: Raster,
        spikes: &DenseSpikes<R>,
        target: &DenseSpikes<R>,
        distance: &mut Vec<R>,
        grad: &mut Vec<R>,
    ) -> Result<()> {
        const OP: &str = "van_rossum";
        let lanes = spikes.lanes;
        raster.check(OP, lanes, target.lanes)?;
        check_len(OP, "distance", distance.len(), lanes.width)?;
        check_len(OP, "grad", grad.len(), lanes.len())?;
        for (n, distance) in distance.iter_mut().enumerate() {
            let (value, grads) = filter.distance(raster, &trains(spikes, n), &trains(target, n));
            *distance = value;
            let flat = grads.into_iter().flatten();
            grad.iter_mut().skip(n).step_by(lanes.width).zip(flat).for_each(|(out, g)| *out = g);
        }
        Ok(())
    }
}
