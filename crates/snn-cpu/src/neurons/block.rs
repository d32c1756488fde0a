//! The block model as one pass over time, forward and reverse; equations in [`snn_core::neurons::block`].
//!
//! The spike time is all that the forward pass keeps beside the membrane: the faulty spikes and their double sum
//! are never formed. Reverse, the double sum and the decay's adjoint are three running rows.

use rayon::prelude::*;
use snn_core::Lanes;
use snn_core::Spikes;
use snn_core::backend::{BlockOps, Leak, LeakGrad};
use snn_core::error::Result;
use snn_core::neurons::block::{BlockNeuron, Start};

use super::{SILENT, TILE, Tile, decays, reverse_tiles, spikes_from_times, with_slope};
use crate::memory::Cpu;
use crate::simd;

impl BlockOps for Cpu {
    fn block_forward(
        &self,
        neuron: &BlockNeuron,
        lanes: Lanes,
        leak: Leak<'_, Self>,
        state: &mut Vec<f32>,
        spikes: &mut Spikes,
    ) -> Result<()> {
        let beta = decays("block_forward", lanes, &leak, state.len())?;
        let mut times = vec![SILENT; lanes.batch * lanes.width];
        if !lanes.is_empty() {
            let threshold = neuron.threshold as f32;
            let width = lanes.width;
            self.install(|| {
                let per_sample = state.par_chunks_mut(lanes.steps * width).zip(times.par_chunks_mut(width));
                per_sample.enumerate().for_each(|(b, (state, times))| {
                    if let Some(v) = leak.initial {
                        let start = &v[b * width..(b + 1) * width];
                        for ((i, &v), &beta) in state[..width].iter_mut().zip(start).zip(&beta) {
                            *i += if neuron.start == Start::Decayed { beta * v } else { v };
                        }
                    }
                    simd::run(
                        #[inline(always)]
                        || forward(threshold, &beta, state, times),
                    );
                });
            });
        }
        spikes_from_times(self, lanes, &times, spikes);
        Ok(())
    }

    fn block_backward(
        &self,
        neuron: &BlockNeuron,
        lanes: Lanes,
        leak: Leak<'_, Self>,
        state: &Vec<f32>,
        grad: &mut Vec<f32>,
        leak_grad: LeakGrad<'_, Self>,
    ) -> Result<()> {
        let decayed = neuron.start == Start::Decayed;
        let threshold = neuron.threshold as f32;
        with_slope!(neuron.surrogate, slope => reverse_tiles(
            "block_backward", self, lanes, &leak, state, grad, leak_grad, decayed,
            |tile| simd::run(#[inline(always)] || reverse(threshold, slope, tile)),
        ))
    }
}

/// One sample: the current `[T, N]` becomes the membrane, `times` the step of the first crossing.
#[inline(always)]
fn forward(threshold: f32, beta: &[f32], state: &mut [f32], times: &mut [u32]) {
    let width = beta.len();
    for at in (0..width).step_by(TILE) {
        let end = (at + TILE).min(width);
        let (beta, times) = (&beta[at..end], &mut times[at..end]);
        for (v, time) in state[at..end].iter().zip(&mut *times) {
            *time = if *v > threshold { 0 } else { SILENT };
        }
        for t in 1..state.len() / width {
            let (past, now) = state.split_at_mut(t * width);
            let (past, now) = (&past[(t - 1) * width + at..(t - 1) * width + end], &mut now[at..end]);
            let now = &mut now[..beta.len()];
            for (((v, &before), &beta), time) in now.iter_mut().zip(past).zip(beta).zip(&mut *times) {
                *v += beta * before;
                *time = (*time).min(if *v > threshold { t as u32 } else { SILENT });
            }
        }
    }
}

/// One tile of one sample, backwards in time.
#[inline(always)]
fn reverse(threshold: f32, slope: impl Fn(f32) -> f32, tile: Tile<'_>) {
    let width = tile.width();
    let mut rows = [[0.0_f32; TILE]; 3];
    let [single, double, lam] = &mut rows;
    let (single, double, lam) = (&mut single[..width], &mut double[..width], &mut lam[..width]);
    let (beta, grad_beta, sum) = (&tile.beta[..width], &mut tile.grad_beta[..width], &mut tile.sum[..width]);
    grad_beta.fill(0.0);
    sum.fill(0.0);
    for t in (0..tile.steps).rev() {
        let row = t * tile.stride + tile.at;
        let grad = &mut tile.grad[row..row + width];
        let v = &tile.state[row..row + width];
        // Before step 0 there is no membrane: `lam` of step 0 meets zeros there.
        let zeros = [0.0_f32; TILE];
        let before = if t > 0 { &tile.state[row - tile.stride..row - tile.stride + width] } else { &zeros[..width] };
        if let Some(gm) = tile.grad_membrane {
            let gm = &gm[row..row + width];
            for n in 0..width {
                single[n] += grad[n];
                double[n] += single[n];
                lam[n] = double[n] * slope(v[n] - threshold) + gm[n] + beta[n] * lam[n];
                grad[n] = lam[n];
                sum[n] += lam[n];
                grad_beta[n] += lam[n] * before[n];
            }
        } else {
            for n in 0..width {
                single[n] += grad[n];
                double[n] += single[n];
                lam[n] = double[n] * slope(v[n] - threshold) + beta[n] * lam[n];
                grad[n] = lam[n];
                sum[n] += lam[n];
                grad_beta[n] += lam[n] * before[n];
            }
        }
    }
    tile.first.copy_from_slice(lam);
}
