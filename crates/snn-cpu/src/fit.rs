//! What fitting recorded neurons needs; equations in [`snn_core::fit`].
//!
//! Neurons lie side by side, so every loop goes over a row of them; samples are the threads' work.

use rayon::prelude::*;
use snn_core::backend::FitOps;
use snn_core::error::{Result, check_len};
use snn_core::fit::{Raster, VanRossum, taps};
use snn_core::{Lanes, Spikes};

use crate::memory::Cpu;
use crate::simd;

/// `y += a b`.
#[inline(always)]
fn add_product(a: &[f32], b: &[f32], y: &mut [f32]) {
    let n = y.len();
    let (a, b) = (&a[..n], &b[..n]);
    for k in 0..n {
        y[k] += a[k] * b[k];
    }
}

/// `y = decay y + x`, also to `x`.
#[inline(always)]
fn filter_row(decay: f32, x: &mut [f32], y: &mut [f32]) {
    let n = y.len();
    let x = &mut x[..n];
    for k in 0..n {
        y[k] = decay * y[k] + x[k];
        x[k] = y[k];
    }
}

impl FitOps for Cpu {
    fn own_current(
        &self,
        lanes: Lanes,
        x: &Vec<f32>,
        weight: &Vec<f32>,
        bias: &Vec<f32>,
        out: &mut Vec<f32>,
    ) -> Result<()> {
        const OP: &str = "own_current";
        let taps = taps(OP, lanes, weight.len(), bias.len())?;
        check_len(OP, "x", x.len(), lanes.len())?;
        check_len(OP, "out", out.len(), lanes.len())?;
        let (sample, width) = ((lanes.steps * lanes.width).max(1), lanes.width.max(1));
        let work = |x: &[f32], out: &mut [f32]| {
            for (t, out) in out.chunks_mut(width).enumerate() {
                out.copy_from_slice(bias);
                for d in 0..taps.min(t + 1) {
                    let x = &x[(t - d) * width..(t - d + 1) * width];
                    add_product(&weight[d * width..(d + 1) * width], x, out);
                }
            }
        };
        self.install(|| {
            out.par_chunks_mut(sample).zip(x.par_chunks(sample)).for_each(|(out, x)| {
                simd::run(
                    #[inline(always)]
                    || work(x, out),
                );
            });
        });
        Ok(())
    }

    fn own_current_grad(
        &self,
        lanes: Lanes,
        x: &Vec<f32>,
        grad: &Vec<f32>,
        grad_weight: &mut Vec<f32>,
        grad_bias: &mut Vec<f32>,
    ) -> Result<()> {
        const OP: &str = "own_current_grad";
        let taps = taps(OP, lanes, grad_weight.len(), grad_bias.len())?;
        check_len(OP, "x", x.len(), lanes.len())?;
        check_len(OP, "grad", grad.len(), lanes.len())?;
        let (sample, width) = ((lanes.steps * lanes.width).max(1), lanes.width.max(1));
        let ones = vec![1.0; width];
        // A row for each tap, and one for the bias.
        let work = |x: &[f32], grad: &[f32]| {
            let mut sums = vec![0.0; (taps + 1) * width];
            for (t, grad) in grad.chunks(width).enumerate() {
                for d in 0..taps.min(t + 1) {
                    let x = &x[(t - d) * width..(t - d + 1) * width];
                    add_product(grad, x, &mut sums[d * width..(d + 1) * width]);
                }
                add_product(grad, &ones, &mut sums[taps * width..]);
            }
            sums
        };
        let per_sample: Vec<Vec<f32>> = self.install(|| {
            let samples = grad.par_chunks(sample).zip(x.par_chunks(sample));
            samples
                .map(|(grad, x)| {
                    simd::run(
                        #[inline(always)]
                        || work(x, grad),
                    )
                })
                .collect()
        });
        let total = |i: usize| per_sample.iter().map(|s| s[i]).sum();
        grad_weight.iter_mut().enumerate().for_each(|(i, out)| *out = total(i));
        grad_bias.iter_mut().enumerate().for_each(|(n, out)| *out = total(taps * width + n));
        Ok(())
    }

    fn van_rossum(
        &self,
        filter: &VanRossum,
        raster: Raster,
        spikes: &Spikes,
        target: &Spikes,
        distance: &mut Vec<f32>,
        grad: &mut Vec<f32>,
    ) -> Result<()> {
        const OP: &str = "van_rossum";
        let (lanes, grid) = (spikes.lanes(), target.lanes());
        raster.check(OP, lanes, grid)?;
        check_len(OP, "distance", distance.len(), lanes.width)?;
        check_len(OP, "grad", grad.len(), lanes.len())?;
        let (decay, width) = (filter.decay() as f32, lanes.width.max(1));
        let work = |b: usize, y: &mut [f32]| {
            y.fill(0.0);
            lay(raster, spikes, b, grid.steps, y);
            for (t, row) in y.chunks_mut(width).enumerate() {
                target.row(b * grid.steps + t).iter().for_each(|&n| row[n as usize] -= 1.0);
            }
            let (mut held, mut squares) = (vec![0.0_f32; width], vec![0.0_f64; width]);
            for row in y.chunks_mut(width) {
                filter_row(decay, row, &mut held);
                squares.iter_mut().zip(&held).for_each(|(s, &y)| *s += f64::from(y) * f64::from(y));
            }
            held.fill(0.0);
            y.chunks_mut(width).rev().for_each(|row| filter_row(decay, row, &mut held));
            squares
        };
        let per_sample: Vec<(Vec<f64>, Vec<f32>)> = self.install(|| {
            (0..lanes.batch)
                .into_par_iter()
                .map(|b| {
                    let mut y = vec![0.0; grid.steps * width];
                    let squares = simd::run(
                        #[inline(always)]
                        || work(b, &mut y),
                    );
                    (squares, y)
                })
                .collect()
        });
        let scale = filter.dt / filter.tau;
        let mut factors = vec![0.0_f32; lanes.width];
        for (n, (out, factor)) in distance.iter_mut().zip(&mut factors).enumerate() {
            let root = (scale * per_sample.iter().map(|(squares, _)| squares[n]).sum::<f64>()).sqrt();
            *out = root as f32;
            *factor = if root > 0.0 { (scale / root) as f32 } else { 0.0 };
        }
        let sample = (lanes.steps * lanes.width).max(1);
        self.install(|| {
            let samples = grad.par_chunks_mut(sample).zip(per_sample.par_iter().enumerate());
            samples.for_each(|(grad, (b, (_, y)))| lift(raster, spikes, b, &factors, y, grad));
        });
        Ok(())
    }
}

/// Lays the spikes of sample `b` on the grid, `[steps, N]`.
fn lay(raster: Raster, spikes: &Spikes, b: usize, steps: usize, y: &mut [f32]) {
    let Lanes { steps: own, width, .. } = spikes.lanes();
    match raster {
        Raster::Spread(window) => {
            for t in 0..own {
                spikes.row(b * own + t).iter().for_each(|&n| y[t * window * width + n as usize] += 1.0);
            }
        }
        Raster::Pool(window) => {
            for t in 0..steps * window {
                let row = &mut y[t / window * width..(t / window + 1) * width];
                for (n, count) in runs(spikes.row(b * own + t)) {
                    row[n as usize] = row[n as usize].max(count as f32);
                }
            }
        }
    }
}

/// The gradient on the steps of sample `b` from that on the grid.
fn lift(raster: Raster, spikes: &Spikes, b: usize, factors: &[f32], y: &[f32], grad: &mut [f32]) {
    let Lanes { steps: own, width, .. } = spikes.lanes();
    match raster {
        Raster::Spread(window) => {
            let rows = grad.chunks_mut(width.max(1)).zip(y.chunks(width.max(1)).step_by(window));
            rows.for_each(|(out, y)| {
                out.iter_mut().zip(y.iter().zip(factors)).for_each(|(out, (y, f))| *out = y * f);
            });
        }
        Raster::Pool(window) => {
            grad.fill(0.0);
            let counts: Vec<Vec<(u32, usize)>> = (0..own).map(|t| runs(spikes.row(b * own + t))).collect();
            for (o, y) in y.chunks(width.max(1)).enumerate() {
                for (n, (y, f)) in y.iter().zip(factors).enumerate() {
                    let count =
                        |t: usize| counts[t].binary_search_by_key(&(n as u32), |r| r.0).map_or(0, |i| counts[t][i].1);
                    let first = (o * window..(o + 1) * window).rev().max_by_key(|&t| count(t));
                    if let Some(t) = first {
                        grad[t * width + n] = y * f;
                    }
                }
            }
        }
    }
}

/// The units of a row and how often each is listed.
fn runs(mut row: &[u32]) -> Vec<(u32, usize)> {
    let mut out = Vec::new();
    while let Some(&n) = row.first() {
        let count = row.iter().take_while(|&&m| m == n).count();
        out.push((n, count));
        row = &row[count..];
    }
    out
}
