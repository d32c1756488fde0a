//! Sequential LIF neurons as one pass over time, forward and reverse; equations in [`snn_core::neurons::lif`].

use rayon::prelude::*;
use snn_core::backend::{Leak, LeakGrad, LifOps};
use snn_core::error::{Result, check_len};
use snn_core::neurons::lif::{LifKind, LifNeuron, Path};
use snn_core::{Lanes, Spikes};

use super::{
    Row, SILENT, TILE, Tile, decays, pack_row, reverse_tiles, spikes_from_bits, spikes_from_times, two_rows,
    with_slope, words,
};
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

/// One sample of the integrator: the current `[T, N]` becomes the membrane.
#[inline(always)]
fn integrate(beta: &[f32], state: &mut [f32]) {
    let width = beta.len();
    for t in 1..state.len() / width {
        let (past, now) = two_rows(state, width, t, 0, width);
        integrate_row(beta, past, now);
    }
}

/// One step; a function of its own because its arguments cannot overlap, which the compiler would otherwise try to
/// check for all steps at once, in vain. So are all row functions below.
#[inline(always)]
fn integrate_row(beta: &[f32], past: &[f32], now: &mut [f32]) {
    let n = now.len();
    let (beta, past) = (&beta[..n], &past[..n]);
    for k in 0..n {
        now[k] += beta[k] * past[k];
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
                multi_row(threshold, &beta[at..end], past, now);
            }
            let row = &state[t * width + at..t * width + end];
            let bits = &mut bits[t * words(width) + at / 32..];
            pack_row(threshold, row, bits);
        }
    }
}

#[inline(always)]
fn multi_row(threshold: f32, beta: &[f32], past: &[f32], now: &mut [f32]) {
    let n = now.len();
    let (beta, past) = (&beta[..n], &past[..n]);
    for k in 0..n {
        now[k] += beta[k] * if past[k] > threshold { past[k] - threshold } else { past[k] };
    }
}

/// One sample of the single-spike neuron: the current becomes `u`, `times` the step of the spike.
#[inline(always)]
fn single(threshold: f32, beta: &[f32], state: &mut [f32], times: &mut [u32]) {
    let width = beta.len();
    for at in (0..width).step_by(TILE) {
        let end = (at + TILE).min(width);
        let (beta, times) = (&beta[at..end], &mut times[at..end]);
        first_crossings(threshold, 0, &state[at..end], times);
        for t in 1..state.len() / width {
            let (past, now) = two_rows(state, width, t, at, end);
            single_row(threshold, t as u32, beta, past, now, times);
        }
    }
}

#[inline(always)]
fn single_row(threshold: f32, step: u32, beta: &[f32], past: &[f32], now: &mut [f32], times: &mut [u32]) {
    let n = now.len();
    let (beta, past, times) = (&beta[..n], &past[..n], &mut times[..n]);
    for k in 0..n {
        // The membrane keeps its value at the spike and is 0 afterwards.
        let v = if times[k] < step - 1 { 0.0 } else { past[k] };
        now[k] += beta[k] * v;
        times[k] = times[k].min(if now[k] > threshold { step } else { SILENT });
    }
}

/// Lowers `times` to `step` where a lane lies above the threshold and had not done so before.
#[inline(always)]
fn first_crossings(threshold: f32, step: u32, row: &[f32], times: &mut [u32]) {
    for (time, &u) in times.iter_mut().zip(row) {
        *time = (*time).min(if u > threshold { step } else { SILENT });
    }
}

#[inline(always)]
fn integrate_reverse(tile: Tile<'_>) {
    tile.walk_back(
        #[inline(always)]
        |r| integrate_reverse_row(r.beta, r.before, r.grad_membrane, r.grad, r.lam, r.sum, r.grad_beta),
    );
}

#[inline(always)]
fn integrate_reverse_row(
    beta: &[f32],
    before: &[f32],
    grad_membrane: &[f32],
    grad: &mut [f32],
    lam: &mut [f32],
    sum: &mut [f32],
    grad_beta: &mut [f32],
) {
    let n = beta.len();
    let (before, grad_membrane) = (&before[..n], &grad_membrane[..n]);
    let (grad, lam, sum, grad_beta) = (&mut grad[..n], &mut lam[..n], &mut sum[..n], &mut grad_beta[..n]);
    for k in 0..n {
        lam[k] = grad_membrane[k] + beta[k] * lam[k];
        grad[k] = lam[k];
        sum[k] += lam[k];
        grad_beta[k] += lam[k] * before[k];
    }
}

#[inline(always)]
fn multi_reverse(threshold: f32, through: f32, slope: impl Fn(f32) -> f32 + Copy, tile: Tile<'_>) {
    tile.walk_back(
        #[inline(always)]
        |r| {
            let Row { beta, state, before, grad_membrane, grad, lam, sum, grad_beta, .. } = r;
            multi_reverse_row(threshold, through, slope, beta, state, before, grad_membrane, grad, lam, sum, grad_beta);
        },
    );
}

#[expect(clippy::too_many_arguments, reason = "only arguments are known not to overlap")]
#[inline(always)]
fn multi_reverse_row(
    threshold: f32,
    through: f32,
    slope: impl Fn(f32) -> f32,
    beta: &[f32],
    state: &[f32],
    before: &[f32],
    grad_membrane: &[f32],
    grad: &mut [f32],
    lam: &mut [f32],
    sum: &mut [f32],
    grad_beta: &mut [f32],
) {
    let n = beta.len();
    let (state, before, grad_membrane) = (&state[..n], &before[..n], &grad_membrane[..n]);
    let (grad, lam, sum, grad_beta) = (&mut grad[..n], &mut lam[..n], &mut sum[..n], &mut grad_beta[..n]);
    for k in 0..n {
        let carried = beta[k] * lam[k];
        lam[k] = grad_membrane[k] + carried + (grad[k] - through * carried) * slope(state[k] - threshold);
        grad[k] = lam[k];
        sum[k] += lam[k];
        grad_beta[k] += lam[k] * if before[k] > threshold { before[k] - threshold } else { before[k] };
    }
}

#[inline(always)]
fn single_reverse(threshold: f32, mask: Path, slope: impl Fn(f32) -> f32 + Copy, tile: Tile<'_>) {
    // The spike time comes from the state once more: cheaper than keeping it for every layer.
    let mut times = [SILENT; TILE];
    let times = &mut times[..tile.beta.len()];
    for t in 0..tile.steps {
        let row = t * tile.stride + tile.at;
        first_crossings(threshold, t as u32, &tile.state[row..row + times.len()], times);
    }
    let attached = if mask == Path::Attached { 1.0 } else { 0.0 };
    let mut grad_mask = [0.0_f32; TILE];
    tile.walk_back(
        #[inline(always)]
        |r| {
            let Row { step, beta, state, before, grad_membrane, grad, lam, sum, grad_beta } = r;
            single_reverse_row(
                threshold,
                attached,
                step as u32,
                slope,
                beta,
                state,
                before,
                grad_membrane,
                times,
                grad,
                lam,
                sum,
                grad_beta,
                &mut grad_mask,
            );
        },
    );
}

#[expect(clippy::too_many_arguments, reason = "only arguments are known not to overlap")]
#[inline(always)]
fn single_reverse_row(
    threshold: f32,
    attached: f32,
    step: u32,
    slope: impl Fn(f32) -> f32,
    beta: &[f32],
    state: &[f32],
    before: &[f32],
    grad_membrane: &[f32],
    times: &[u32],
    grad: &mut [f32],
    lam: &mut [f32],
    sum: &mut [f32],
    grad_beta: &mut [f32],
    grad_mask: &mut [f32],
) {
    let n = beta.len();
    let (state, before, grad_membrane, times) = (&state[..n], &before[..n], &grad_membrane[..n], &times[..n]);
    let (grad, lam, sum, grad_beta) = (&mut grad[..n], &mut lam[..n], &mut sum[..n], &mut grad_beta[..n]);
    let grad_mask = &mut grad_mask[..n];
    for k in 0..n {
        let (time, u) = (times[k], state[k]);
        // S against the mask before it: equal before the spike, above at it, below after it.
        let w = if step < time {
            0.5
        } else if step == time {
            1.0
        } else {
            0.0
        };
        let alive = if step <= time { 1.0 } else { 0.0 };
        let h = if u > threshold { 1.0 } else { 0.0 };
        let gs = grad[k] + w * grad_mask[k];
        let gv = grad_membrane[k] + beta[k] * lam[k];
        grad_mask[k] = attached * ((1.0 - w) * grad_mask[k] - gs * h - gv * u);
        lam[k] = alive * (gv + gs * slope(u - threshold));
        grad[k] = lam[k];
        sum[k] += lam[k];
        grad_beta[k] += lam[k] * if step > time.saturating_add(1) { 0.0 } else { before[k] };
    }
}
