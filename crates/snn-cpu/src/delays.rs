//! Projections with delays; definitions in [`snn_core::backend::DelayOps`].
//!
//! The kernel of one input lies together, `[D, N]`, and so do the steps that an event reaches: an event adds one run of
//! `D N` values to another. Where events are many, a sample is expanded to counts with `D - 1` rows of zeros before its
//! first step; the rows that a step sees then lie together too, so the whole projection is a single matrix product per
//! sample on a matrix whose rows overlap. The choice depends on the data alone.

use rayon::prelude::*;
use snn_core::backend::{DelayKernel, DelayOps, Delays};
use snn_core::error::{Error, Result, check_len};
use snn_core::{Lanes, Spikes};

use crate::math;
use crate::memory::{Cpu, PIECE};
use crate::product::{Strides, sgemm};
use crate::simd;

/// Share of active inputs above which a product of matrices is faster than adding events, forward and for the gradient on
/// the kernel. Measured with 2 threads, 140 and 256 inputs, 256 outputs, 25 delays.
const DENSE_ABOVE: [f64; 2] = [0.18, 0.28];

/// Checks weights and positions; gives the number of inputs.
fn check_kernel(op: &'static str, delays: Delays, parameters: &DelayKernel<'_, Cpu>, kernel: &[f32]) -> Result<usize> {
    let inputs = parameters.weight.len() / delays.width.max(1);
    check_len(op, "weight", parameters.weight.len(), inputs * delays.width)?;
    check_len(op, "position", parameters.position.len(), inputs * delays.width)?;
    check_len(op, "kernel", kernel.len(), inputs * delays.delays * delays.width)?;
    parameters.sigma.map_or(Ok(()), |sigma| check_len(op, "sigma", sigma.len(), 1))?;
    Ok(inputs)
}

fn check_product(op: &'static str, delays: Delays, lanes: Lanes, kernel: &[f32], out: &[f32]) -> Result<()> {
    check_len(op, "kernel", kernel.len(), lanes.width * delays.delays * delays.width)?;
    check_len(op, "out", out.len(), lanes.rows() * delays.width)
}

/// The shares of all delays of one input, `[D, N]`, and their sums by output.
#[inline(always)]
fn shares(position: &[f32], sigma: f32, out: &mut [f32], sums: &mut [f32]) {
    let n = position.len();
    // The nearest whole delay has the largest share; measured from there, no exponent is above 0 and one is 0.
    sums.fill(0.0);
    let factor = -0.5 / (sigma * sigma);
    for (d, row) in out.chunks_exact_mut(n).enumerate() {
        for k in 0..n {
            let (far, near) = (d as f32 - position[k], (position[k] + 0.5).floor() - position[k]);
            row[k] = math::exp(factor * (far * far - near * near));
            sums[k] += row[k];
        }
    }
    for row in out.chunks_exact_mut(n) {
        for k in 0..n {
            row[k] /= sums[k];
        }
    }
}

/// The counts of one sample after `before` rows of zeros, `[before + T, M]`.
fn expand(spikes: &Spikes, sample: usize, before: usize, out: &mut [f32]) {
    let lanes = spikes.lanes();
    out.fill(0.0);
    for (t, out) in out.chunks_exact_mut(lanes.width).skip(before).enumerate() {
        spikes.row(sample * lanes.steps + t).iter().for_each(|&unit| out[unit as usize] += 1.0);
    }
}

/// The kernel by falling delay, `[D, M, N]`: as the rows that a step sees lie in an expanded sample.
fn by_delay(cpu: &Cpu, delays: Delays, kernel: &[f32]) -> Vec<f32> {
    let Delays { width, delays } = delays;
    let inputs = kernel.len() / (delays * width);
    let mut out = vec![0.0; kernel.len()];
    cpu.install(|| {
        out.par_chunks_mut(inputs * width).enumerate().for_each(|(j, out)| {
            let d = delays - 1 - j;
            for (i, row) in out.chunks_exact_mut(width).enumerate() {
                row.copy_from_slice(&kernel[(i * delays + d) * width..][..width]);
            }
        });
    });
    out
}

impl DelayOps for Cpu {
    fn delay_kernel(&self, delays: Delays, parameters: DelayKernel<'_, Self>, kernel: &mut Vec<f32>) -> Result<()> {
        let inputs = check_kernel("delay_kernel", delays, &parameters, kernel)?;
        let n = delays.width;
        if inputs * n * delays.delays == 0 {
            return Ok(());
        }
        let sigma = parameters.sigma.map(|s| s[0]);
        self.install(|| {
            let rows = kernel.par_chunks_mut(delays.delays * n).zip(parameters.position.par_chunks(n));
            rows.zip(parameters.weight.par_chunks(n)).for_each_init(
                || vec![0.0; n],
                |sums, ((kernel, position), weight)| {
                    simd::run(
                        #[inline(always)]
                        || {
                            match sigma {
                                Some(sigma) => shares(position, sigma, kernel, sums),
                                None => {
                                    for (d, row) in kernel.chunks_exact_mut(n).enumerate() {
                                        for k in 0..n {
                                            row[k] = f32::from((position[k] + 0.5).floor() == d as f32);
                                        }
                                    }
                                }
                            }
                            for row in kernel.chunks_exact_mut(n) {
                                for k in 0..n {
                                    row[k] *= weight[k];
                                }
                            }
                        },
                    );
                },
            );
        });
        Ok(())
    }

    fn delay_kernel_grad(
        &self,
        delays: Delays,
        parameters: DelayKernel<'_, Self>,
        grad_kernel: &Vec<f32>,
        grad_weight: &mut Vec<f32>,
        grad_position: &mut Vec<f32>,
    ) -> Result<()> {
        const OP: &str = "delay_kernel_grad";
        let inputs = check_kernel(OP, delays, &parameters, grad_kernel)?;
        let n = delays.width;
        check_len(OP, "grad_weight", grad_weight.len(), inputs * n)?;
        check_len(OP, "grad_position", grad_position.len(), inputs * n)?;
        let Some(sigma) = parameters.sigma else { return Err(Error::shape(OP, "sigma", &[0], "[1]")) };
        if inputs * n * delays.delays == 0 {
            return Ok(());
        }
        let sigma = sigma[0];
        let scale = 1.0 / (sigma * sigma);
        self.install(|| {
            let given = grad_kernel.par_chunks(delays.delays * n).zip(parameters.position.par_chunks(n));
            let grads = grad_weight.par_chunks_mut(n).zip(grad_position.par_chunks_mut(n));
            given.zip(parameters.weight.par_chunks(n)).zip(grads).for_each_init(
                || (vec![0.0; delays.delays * n], vec![0.0; n], vec![0.0; n]),
                |(share, sums, centre), (((grad, position), weight), (on_weight, on_position))| {
                    simd::run(
                        #[inline(always)]
                        || {
                            shares(position, sigma, share, sums);
                            centre.fill(0.0);
                            for (d, share) in share.chunks_exact(n).enumerate() {
                                for k in 0..n {
                                    centre[k] += share[k] * d as f32;
                                }
                            }
                            on_weight.fill(0.0);
                            on_position.fill(0.0);
                            for (d, (share, grad)) in share.chunks_exact(n).zip(grad.chunks_exact(n)).enumerate() {
                                for k in 0..n {
                                    let g = grad[k] * share[k];
                                    on_weight[k] += g;
                                    on_position[k] += g * (d as f32 - centre[k]);
                                }
                            }
                            for k in 0..n {
                                on_position[k] *= weight[k] * scale;
                            }
                        },
                    );
                },
            );
        });
        Ok(())
    }

    fn delay_forward(&self, delays: Delays, spikes: &Spikes, kernel: &Vec<f32>, out: &mut Vec<f32>) -> Result<()> {
        let lanes = spikes.lanes();
        check_product("delay_forward", delays, lanes, kernel, out)?;
        let (m, n, steps) = (lanes.width, delays.width, lanes.steps);
        if out.is_empty() || kernel.is_empty() {
            out.fill(0.0);
            return Ok(());
        }
        let run = delays.delays * n;
        if spikes.density() > DENSE_ABOVE[0] {
            let kernel = by_delay(self, delays, kernel);
            let before = delays.delays - 1;
            self.install(|| {
                out.par_chunks_mut(steps * n).enumerate().for_each_init(
                    || vec![0.0; (before + steps) * m],
                    |x, (b, out)| {
                        expand(spikes, b, before, x);
                        let (w, o) = (Strides::rows(n), Strides::rows(n));
                        sgemm(steps, n, delays.delays * m, (x, Strides::rows(m)), (&kernel, w), (out, o), false);
                    },
                );
            });
            return Ok(());
        }
        self.install(|| {
            out.par_chunks_mut(steps * n).enumerate().for_each(|(b, out)| {
                out.fill(0.0);
                simd::run(
                    #[inline(always)]
                    || {
                        for t in 0..steps {
                            let reach = run.min((steps - t) * n);
                            for &unit in spikes.row(b * steps + t) {
                                let kernel = &kernel[unit as usize * run..][..reach];
                                let out = &mut out[t * n..][..reach];
                                out.iter_mut().zip(kernel).for_each(|(o, &k)| *o += k);
                            }
                        }
                    },
                );
            });
        });
        Ok(())
    }

    fn delay_weight_grad(
        &self,
        delays: Delays,
        spikes: &Spikes,
        grad: &Vec<f32>,
        grad_kernel: &mut Vec<f32>,
    ) -> Result<()> {
        let lanes = spikes.lanes();
        check_product("delay_weight_grad", delays, lanes, grad_kernel, grad)?;
        let (m, n, steps) = (lanes.width, delays.width, lanes.steps);
        if grad.is_empty() || grad_kernel.is_empty() {
            grad_kernel.fill(0.0);
            return Ok(());
        }
        let run = delays.delays * n;
        if spikes.density() > DENSE_ABOVE[1] {
            dense_weight_grad(self, delays, spikes, grad, grad_kernel);
            return Ok(());
        }
        // A task owns some inputs and walks all rows in order, so no partial sums have to be joined.
        let group = m.div_ceil(16).max(1);
        self.install(|| {
            grad_kernel.par_chunks_mut(group * run).enumerate().for_each(|(g, sums)| {
                sums.fill(0.0);
                let first = (g * group) as u32;
                let last = first + (sums.len() / run) as u32;
                simd::run(
                    #[inline(always)]
                    || {
                        for row in 0..lanes.rows() {
                            let units = spikes.row(row);
                            let from = units.partition_point(|&u| u < first);
                            let reach = run.min((steps - row % steps) * n);
                            for &unit in units[from..].iter().take_while(|&&u| u < last) {
                                let sums = &mut sums[(unit - first) as usize * run..][..reach];
                                let grad = &grad[row * n..][..reach];
                                sums.iter_mut().zip(grad).for_each(|(s, &g)| *s += g);
                            }
                        }
                    },
                );
            });
        });
        Ok(())
    }

    fn delay_input_grad(
        &self,
        delays: Delays,
        lanes: Lanes,
        grad: &Vec<f32>,
        kernel: &Vec<f32>,
        grad_input: &mut Vec<f32>,
    ) -> Result<()> {
        check_product("delay_input_grad", delays, lanes, kernel, grad)?;
        check_len("delay_input_grad", "grad_input", grad_input.len(), lanes.len())?;
        let (m, n, steps) = (lanes.width, delays.width, lanes.steps);
        if grad_input.is_empty() || grad.is_empty() {
            grad_input.fill(0.0);
            return Ok(());
        }
        // The gradients that reach a step are those of D steps from it on; behind the last step there are zeros.
        let run = delays.delays * n;
        self.install(|| {
            grad_input.par_chunks_mut(steps * m).zip(grad.par_chunks(steps * n)).for_each_init(
                || vec![0.0; (steps + delays.delays - 1) * n],
                |g, (grad_input, grad)| {
                    g[..steps * n].copy_from_slice(grad);
                    let k = Strides { row: 1, column: run };
                    sgemm(steps, m, run, (g, Strides::rows(n)), (kernel, k), (grad_input, Strides::rows(m)), false);
                },
            );
        });
        Ok(())
    }

    fn clamp(&self, low: f64, high: f64, x: &mut Vec<f32>) -> Result<()> {
        let (low, high) = (low as f32, high as f32);
        self.install(|| {
            x.par_chunks_mut(PIECE).for_each(|piece| piece.iter_mut().for_each(|x| *x = x.clamp(low, high)));
        });
        Ok(())
    }
}

/// The gradient on the kernel from expanded samples, one matrix product for each delay and group of samples.
fn dense_weight_grad(cpu: &Cpu, delays: Delays, spikes: &Spikes, grad: &[f32], grad_kernel: &mut [f32]) {
    /// Samples expanded at a time.
    const TOGETHER: usize = 32;
    let lanes = spikes.lanes();
    let (m, n, steps, before) = (lanes.width, delays.width, lanes.steps, delays.delays - 1);
    let (x_size, g_size) = ((before + steps) * m, (before + steps) * n);
    let together = TOGETHER.min(lanes.batch);
    let (mut x, mut g) = (vec![0.0; together * x_size], vec![0.0; together * g_size]);
    let mut sums = vec![0.0; grad_kernel.len()];
    for first in (0..lanes.batch).step_by(together) {
        let count = together.min(lanes.batch - first);
        cpu.install(|| {
            x[..count * x_size].par_chunks_mut(x_size).enumerate().for_each(|(b, x)| {
                expand(spikes, first + b, before, x);
            });
            g[..count * g_size].par_chunks_mut(g_size).enumerate().for_each(|(b, g)| {
                g[before * n..].copy_from_slice(&grad[(first + b) * steps * n..][..steps * n]);
            });
            // Gradients of the zero rows are zeros, so that one sample's inputs never meet the gradients of another.
            sums.par_chunks_mut(m * n).enumerate().for_each(|(d, sums)| {
                let rows = count * (before + steps) - d;
                let (x, g) = (&x[..rows * m], &g[d * n..][..rows * n]);
                let turned = Strides { row: 1, column: m };
                sgemm(m, n, rows, (x, turned), (g, Strides::rows(n)), (sums, Strides::rows(n)), true);
            });
        });
    }
    cpu.install(|| {
        grad_kernel.par_chunks_mut(delays.delays * n).enumerate().for_each(|(i, out)| {
            for (d, out) in out.chunks_exact_mut(n).enumerate() {
                out.copy_from_slice(&sums[(d * m + i) * n..][..n]);
            }
        });
    });
}
