//! Sequential LIF neurons as one pass over time, forward and reverse; equations in [`snn_core::neurons::lif`].

use rayon::prelude::*;
use snn_core::backend::{Leak, LeakGrad, LifOps};
use snn_core::error::{Result, check_len};
use snn_core::neurons::lif::{LifKind, LifNeuron, Path};
use snn_core::{Lanes, Spikes};

use super::{SILENT, TILE, Tile, decays, reverse_tiles, spikes_from_bits, spikes_from_times, with_slope, words};
use crate::memory::Cpu;
use crate::simd;

impl LifOps for Cpu {
    fn lif_forward(
        &self,
        neuron: &LifNeuron,
        lanes: Lanes,
        leak: Leak<'_, Self>,
        state: &mut Vec<f32>,
        spikes: &mut Spikes,
    ) -> Result<()> {
        let beta = decays("lif_forward", lanes, &leak, state.len())?;
        let threshold = neuron.threshold as f32;
        let width = lanes.width;
        let (per_time, per_word) = match neuron.kind {
            LifKind::Single { .. } => (lanes.batch * width, 0),
            LifKind::Multi { .. } => (0, lanes.rows() * words(width)),
            LifKind::Integrator => (0, 0),
        };
        let (mut times, mut bits) = (vec![SILENT; per_time], vec![0_u32; per_word]);
        if !lanes.is_empty() {
            let start = |b: usize, state: &mut [f32]| {
                if let Some(v) = leak.initial {
                    let initial = &v[b * width..(b + 1) * width];
                    state.iter_mut().zip(initial).zip(&beta).for_each(|((i, &v), &beta)| *i += beta * v);
                }
            };
            self.install(|| {
                let samples = state.par_chunks_mut(lanes.steps * width).enumerate();
                match neuron.kind {
                    LifKind::Multi { .. } => {
                        let bits = bits.par_chunks_mut(lanes.steps * words(width));
                        samples.zip(bits).for_each(|((b, state), bits)| {
                            start(b, state);
                            simd::run(
                                #[inline(always)]
                                || multi(threshold, &beta, state, bits),
                            );
                        });
                    }
                    LifKind::Single { .. } => {
                        samples.zip(times.par_chunks_mut(width)).for_each(|((b, state), times)| {
                            start(b, state);
                            simd::run(
                                #[inline(always)]
                                || single(threshold, &beta, state, times),
                            );
                        });
                    }
                    LifKind::Integrator => samples.for_each(|(b, state)| {
                        start(b, state);
                        simd::run(
                            #[inline(always)]
                            || integrate(&beta, state),
                        );
                    }),
                }
            });
        }
        match neuron.kind {
            LifKind::Multi { .. } => spikes_from_bits(self, lanes, &bits, spikes),
            LifKind::Single { .. } => spikes_from_times(self, lanes, &times, spikes),
            LifKind::Integrator => {}
        }
        Ok(())
    }

    fn lif_backward(
        &self,
        neuron: &LifNeuron,
        lanes: Lanes,
        leak: Leak<'_, Self>,
        state: &Vec<f32>,
        grad: &mut Vec<f32>,
        leak_grad: LeakGrad<'_, Self>,
    ) -> Result<()> {
        const OP: &str = "lif_backward";
        let threshold = neuron.threshold as f32;
        match neuron.kind {
            LifKind::Integrator => reverse_tiles(OP, self, lanes, &leak, state, grad, leak_grad, true, |tile| {
                simd::run(
                    #[inline(always)]
                    || integrate_reverse(tile),
                );
            }),
            LifKind::Multi { reset } => {
                // Detached, the reset's slope is multiplied by zero: one loop serves both.
                let through = if reset == Path::Attached { threshold } else { 0.0 };
                with_slope!(neuron.surrogate, slope => reverse_tiles(
                    OP, self, lanes, &leak, state, grad, leak_grad, true,
                    |tile| simd::run(#[inline(always)] || multi_reverse(threshold, through, slope, tile)),
                ))
            }
            LifKind::Single { mask } => with_slope!(neuron.surrogate, slope => reverse_tiles(
                OP, self, lanes, &leak, state, grad, leak_grad, true,
                |tile| simd::run(#[inline(always)] || single_reverse(threshold, mask, slope, tile)),
            )),
        }
    }

    fn lif_membrane(&self, neuron: &LifNeuron, lanes: Lanes, state: &mut Vec<f32>) -> Result<()> {
        check_len("lif_membrane", "state", state.len(), lanes.len())?;
        if !matches!(neuron.kind, LifKind::Single { .. }) || lanes.is_empty() {
            return Ok(());
        }
        let (threshold, width) = (neuron.threshold as f32, lanes.width);
        self.install(|| {
            state.par_chunks_mut(lanes.steps * width).for_each(|state| {
                let mut spent = vec![false; width];
                for row in state.chunks_mut(width) {
                    for (u, spent) in row.iter_mut().zip(&mut spent) {
                        let fires = *u > threshold;
                        if *spent {
                            *u = 0.0;
                        }
                        *spent |= fires;
                    }
                }
            });
        });
        Ok(())
    }
}

/// The row of step `t - 1` and the row of step `t`, cut to a tile.
#[inline(always)]
fn two_rows(state: &mut [f32], width: usize, t: usize, at: usize, end: usize) -> (&[f32], &mut [f32]) {
    let (past, now) = state.split_at_mut(t * width);
    (&past[(t - 1) * width + at..(t - 1) * width + end], &mut now[at..end])
}

/// One sample of the integrator: the current `[T, N]` becomes the membrane.
#[inline(always)]
fn integrate(beta: &[f32], state: &mut [f32]) {
    let width = beta.len();
    for t in 1..state.len() / width {
        let (past, now) = two_rows(state, width, t, 0, width);
        for ((v, &before), &beta) in now.iter_mut().zip(past).zip(beta) {
            *v += beta * before;
        }
    }
}

/// One sample of the multi-spike neuron: the current becomes `u`, spikes go to `bits`.
#[inline(always)]
fn multi(threshold: f32, beta: &[f32], state: &mut [f32], bits: &mut [u32]) {
    let width = beta.len();
    for at in (0..width).step_by(TILE) {
        let end = (at + TILE).min(width);
        for t in 0..state.len() / width {
            if t > 0 {
                let (past, now) = two_rows(state, width, t, at, end);
                for ((u, &before), &beta) in now.iter_mut().zip(past).zip(&beta[at..end]) {
                    let v = if before > threshold { before - threshold } else { before };
                    *u += beta * v;
                }
            }
            let row = &state[t * width + at..t * width + end];
            let bits = &mut bits[t * words(width) + at / 32..];
            for (word, lanes) in bits.iter_mut().zip(row.chunks(32)) {
                *word = pack(threshold, lanes);
            }
        }
    }
}

/// One bit per lane above the threshold.
#[inline(always)]
fn pack(threshold: f32, lanes: &[f32]) -> u32 {
    if let Ok(lanes) = <&[f32; 32]>::try_from(lanes) {
        let mut word = 0;
        for (k, &u) in lanes.iter().enumerate() {
            word |= u32::from(u > threshold) << k;
        }
        word
    } else {
        lanes.iter().enumerate().fold(0, |word, (k, &u)| word | u32::from(u > threshold) << k)
    }
}

/// One sample of the single-spike neuron: the current becomes `u`, `times` the step of the spike.
#[inline(always)]
fn single(threshold: f32, beta: &[f32], state: &mut [f32], times: &mut [u32]) {
    let width = beta.len();
    for at in (0..width).step_by(TILE) {
        let end = (at + TILE).min(width);
        let (beta, times) = (&beta[at..end], &mut times[at..end]);
        for (u, time) in state[at..end].iter().zip(&mut *times) {
            *time = if *u > threshold { 0 } else { SILENT };
        }
        for t in 1..state.len() / width {
            let (past, now) = two_rows(state, width, t, at, end);
            let step = t as u32;
            for (((u, &before), &beta), time) in now.iter_mut().zip(past).zip(beta).zip(&mut *times) {
                // The membrane keeps its value at the spike and is 0 afterwards.
                let v = if *time < step - 1 { 0.0 } else { before };
                *u += beta * v;
                *time = (*time).min(if *u > threshold { step } else { SILENT });
            }
        }
    }
}

#[inline(always)]
fn integrate_reverse(tile: Tile<'_>) {
    let width = tile.width();
    let mut lam = [0.0_f32; TILE];
    let lam = &mut lam[..width];
    let (beta, grad_beta, sum) = (&tile.beta[..width], &mut tile.grad_beta[..width], &mut tile.sum[..width]);
    grad_beta.fill(0.0);
    sum.fill(0.0);
    let zeros = [0.0_f32; TILE];
    for t in (0..tile.steps).rev() {
        let row = t * tile.stride + tile.at;
        let grad = &mut tile.grad[row..row + width];
        let before = if t > 0 { &tile.state[row - tile.stride..row - tile.stride + width] } else { &zeros[..width] };
        let gm = tile.grad_membrane.map_or(&zeros[..width], |g| &g[row..row + width]);
        for n in 0..width {
            lam[n] = gm[n] + beta[n] * lam[n];
            grad[n] = lam[n];
            sum[n] += lam[n];
            grad_beta[n] += lam[n] * before[n];
        }
    }
    tile.first.copy_from_slice(lam);
}

#[inline(always)]
fn multi_reverse(threshold: f32, through: f32, slope: impl Fn(f32) -> f32, tile: Tile<'_>) {
    let width = tile.width();
    let mut lam = [0.0_f32; TILE];
    let lam = &mut lam[..width];
    let (beta, grad_beta, sum) = (&tile.beta[..width], &mut tile.grad_beta[..width], &mut tile.sum[..width]);
    grad_beta.fill(0.0);
    sum.fill(0.0);
    let zeros = [0.0_f32; TILE];
    for t in (0..tile.steps).rev() {
        let row = t * tile.stride + tile.at;
        let grad = &mut tile.grad[row..row + width];
        let u = &tile.state[row..row + width];
        let before = if t > 0 { &tile.state[row - tile.stride..row - tile.stride + width] } else { &zeros[..width] };
        let gm = tile.grad_membrane.map_or(&zeros[..width], |g| &g[row..row + width]);
        for n in 0..width {
            let carried = beta[n] * lam[n];
            lam[n] = gm[n] + carried + (grad[n] - through * carried) * slope(u[n] - threshold);
            grad[n] = lam[n];
            sum[n] += lam[n];
            let v = if before[n] > threshold { before[n] - threshold } else { before[n] };
            grad_beta[n] += lam[n] * v;
        }
    }
    tile.first.copy_from_slice(lam);
}

#[inline(always)]
fn single_reverse(threshold: f32, mask: Path, slope: impl Fn(f32) -> f32, tile: Tile<'_>) {
    let width = tile.width();
    let mut rows = [[0.0_f32; TILE]; 2];
    let [lam, grad_mask] = &mut rows;
    let (lam, grad_mask) = (&mut lam[..width], &mut grad_mask[..width]);
    let (beta, grad_beta, sum) = (&tile.beta[..width], &mut tile.grad_beta[..width], &mut tile.sum[..width]);
    grad_beta.fill(0.0);
    sum.fill(0.0);
    // The spike time comes from the state once more: cheaper than keeping it for every layer.
    let mut times = [SILENT; TILE];
    let times = &mut times[..width];
    for t in 0..tile.steps {
        let row = t * tile.stride + tile.at;
        for (time, &u) in times.iter_mut().zip(&tile.state[row..row + width]) {
            *time = (*time).min(if u > threshold { t as u32 } else { SILENT });
        }
    }
    let attached = if mask == Path::Attached { 1.0 } else { 0.0 };
    let zeros = [0.0_f32; TILE];
    for t in (0..tile.steps).rev() {
        let row = t * tile.stride + tile.at;
        let step = t as u32;
        let grad = &mut tile.grad[row..row + width];
        let u = &tile.state[row..row + width];
        let before = if t > 0 { &tile.state[row - tile.stride..row - tile.stride + width] } else { &zeros[..width] };
        let gm = tile.grad_membrane.map_or(&zeros[..width], |g| &g[row..row + width]);
        for n in 0..width {
            let time = times[n];
            // S against the mask before it: equal before the spike, above at it, below after it.
            let w = if step < time { 0.5 } else if step == time { 1.0 } else { 0.0 };
            let alive = if step <= time { 1.0 } else { 0.0 };
            let h = if u[n] > threshold { 1.0 } else { 0.0 };
            let gs = grad[n] + w * grad_mask[n];
            let gv = gm[n] + beta[n] * lam[n];
            grad_mask[n] = attached * ((1.0 - w) * grad_mask[n] - gs * h - gv * u[n]);
            lam[n] = alive * (gv + gs * slope(u[n] - threshold));
            grad[n] = lam[n];
            sum[n] += lam[n];
            let v = if step > time.saturating_add(1) { 0.0 } else { before[n] };
            grad_beta[n] += lam[n] * v;
        }
    }
    tile.first.copy_from_slice(lam);
}
