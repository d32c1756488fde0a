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

use super::{Row, SILENT, TILE, Tile, decays, reverse_tiles, spikes_from_times, two_rows, with_slope};
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
            let (past, now) = two_rows(state, width, t, at, end);
            forward_row(threshold, t as u32, beta, past, now, times);
        }
    }
}

/// One step of one tile. A function of its own: its arguments cannot overlap, which the compiler would otherwise try
/// to check for all steps at once, in vain.
#[inline(always)]
fn forward_row(threshold: f32, step: u32, beta: &[f32], past: &[f32], now: &mut [f32], times: &mut [u32]) {
    let n = now.len();
    let (beta, past, times) = (&beta[..n], &past[..n], &mut times[..n]);
    for k in 0..n {
        now[k] += beta[k] * past[k];
        times[k] = times[k].min(if now[k] > threshold { step } else { SILENT });
    }
}

/// One tile of one sample, backwards in time.
#[inline(always)]
fn reverse(threshold: f32, slope: impl Fn(f32) -> f32 + Copy, tile: Tile<'_>) {
    let (mut single, mut double) = ([0.0_f32; TILE], [0.0_f32; TILE]);
    tile.walk_back(
        #[inline(always)]
        |r| {
            let Row { beta, state, before, grad_membrane, grad, lam, sum, grad_beta, .. } = r;
            reverse_row(
                threshold,
                slope,
                beta,
                state,
                before,
                grad_membrane,
                grad,
                lam,
                sum,
                grad_beta,
                &mut single,
                &mut double,
            );
        },
    );
}

/// One step of one tile; see [`forward_row`] for why it is a function.
#[expect(clippy::too_many_arguments, reason = "only arguments are known not to overlap")]
#[inline(always)]
fn reverse_row(
    threshold: f32,
    slope: impl Fn(f32) -> f32,
    beta: &[f32],
    state: &[f32],
    before: &[f32],
    grad_membrane: &[f32],
    grad: &mut [f32],
    lam: &mut [f32],
    sum: &mut [f32],
    grad_beta: &mut [f32],
    single: &mut [f32],
    double: &mut [f32],
) {
    let n = beta.len();
    let (state, before, grad_membrane) = (&state[..n], &before[..n], &grad_membrane[..n]);
    let (grad, lam, sum, grad_beta) = (&mut grad[..n], &mut lam[..n], &mut sum[..n], &mut grad_beta[..n]);
    let (single, double) = (&mut single[..n], &mut double[..n]);
    for k in 0..n {
        single[k] += grad[k];
        double[k] += single[k];
        lam[k] = double[k] * slope(state[k] - threshold) + grad_membrane[k] + beta[k] * lam[k];
        grad[k] = lam[k];
        sum[k] += lam[k];
        grad_beta[k] += lam[k] * before[k];
    }
}
