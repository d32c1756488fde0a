//! Current-based neurons as one pass over time, forward and reverse; equations in [`snn_core::neurons::cuba`].
//!
//! A recurrent connection couples the neurons of a sample, never samples: each thread walks its sample through time.

use rayon::prelude::*;
use snn_core::backend::{CubaOps, CubaParameters, FilterGrad};
use snn_core::error::{Error, Result, check_len};
use snn_core::neurons::cuba::{CubaNeuron, Recurrence};
use snn_core::{Lanes, Spikes};

use super::filters::{Decays, LaneGrads, add_product_row, add_row, lane_grads, subtract_row, thresholds};
use super::{pack_row, slope_row, spikes_from_bits, transposed_product, words};
use crate::memory::Cpu;
use crate::simd;

/// A population, checked and spelled out.
#[derive(Debug)]
struct Plan<'a> {
    neuron: &'a CubaNeuron,
    lanes: Lanes,
    decays: Decays,
    /// Of a readout, infinite.
    thresholds: Vec<f32>,
    /// R `[source, target]` and c_r; empty without recurrence.
    weight: &'a [f32],
    bias: &'a [f32],
}

impl<'a> Plan<'a> {
    fn new(
        op: &'static str,
        neuron: &'a CubaNeuron,
        lanes: Lanes,
        parameters: &CubaParameters<'a, Cpu>,
    ) -> Result<Self> {
        let width = lanes.width;
        let (weight, bias): (&[f32], &[f32]) = match (neuron.recurrence, parameters.recurrent) {
            (Recurrence::None, None) => (&[], &[]),
            (Recurrence::Spike | Recurrence::Relu, Some(r)) => (r.weight, r.bias),
            (_, got) => {
                let want = format_args!("weights exactly if the neuron is recurrent ({:?})", neuron.recurrence);
                return Err(Error::shape(op, "recurrent", &[usize::from(got.is_some())], want));
            }
        };
        if neuron.recurrence != Recurrence::None {
            check_len(op, "recurrent weight", weight.len(), width * width)?;
            check_len(op, "recurrent bias", bias.len(), width)?;
        }
        let thresholds = match neuron.fires {
            true => thresholds(op, parameters.threshold, width)?,
            false => vec![f32::INFINITY; width],
        };
        Ok(Self { neuron, lanes, decays: Decays::new(op, &parameters.filters, width)?, thresholds, weight, bias })
    }

    /// Steps that a spike blocks; 0 if the refractory period blocks none.
    fn blocked_steps(&self) -> u32 {
        self.neuron.refractory.saturating_sub(1)
    }

    /// One sample forward.
    #[inline(always)]
    fn forward(&self, state: &mut [f32], mut synaptic: Option<&mut [f32]>, bits: &mut [u32]) {
        let (width, blocked) = (self.lanes.width, self.blocked_steps());
        let zeros = || vec![0.0_f32; width];
        let (mut s, mut v, mut over, mut input) = (zeros(), zeros(), zeros(), zeros());
        let mut wait = vec![0_u32; if blocked > 0 { width } else { 0 }];
        let mut fired = vec![0_u32; words(width)];
        for t in 0..self.lanes.steps {
            let row = &mut state[t * width..(t + 1) * width];
            match self.neuron.recurrence {
                Recurrence::None => {}
                Recurrence::Spike => {
                    add_row(self.bias, row);
                    self.add_fired(&fired, row);
                }
                Recurrence::Relu => {
                    add_row(self.bias, row);
                    for (m, &v) in v.iter().enumerate().filter(|(_, v)| **v > 0.0) {
                        add_scaled_row(v, &self.weight[m * width..(m + 1) * width], row);
                    }
                }
            }
            synapse_row(&self.decays.alpha, row, &mut s);
            if let Some(out) = synaptic.as_deref_mut() {
                out[t * width..(t + 1) * width].copy_from_slice(&s);
            }
            if blocked > 0 {
                gate_row(&mut wait, &s, &mut input);
                membrane_row(&self.decays, &self.thresholds, &input, &mut v, row, &mut over);
                wait.iter_mut().zip(&over).filter(|(_, x)| **x > 0.0).for_each(|(w, _)| *w = blocked);
            } else {
                membrane_row(&self.decays, &self.thresholds, &s, &mut v, row, &mut over);
            }
            if self.neuron.fires {
                pack_row(0.0, &over, &mut fired);
                bits[t * fired.len()..(t + 1) * fired.len()].copy_from_slice(&fired);
            }
        }
    }

    /// Adds the weight rows of the neurons that fired.
    #[inline(always)]
    fn add_fired(&self, fired: &[u32], row: &mut [f32]) {
        let width = self.lanes.width;
        for (w, &word) in fired.iter().enumerate() {
            let mut rest = word;
            while rest != 0 {
                let m = w * 32 + rest.trailing_zeros() as usize;
                add_row(&self.weight[m * width..(m + 1) * width], row);
                rest &= rest - 1;
            }
        }
    }

    /// 1 where the input of a step was taken, 0 in a refractory period, `[T, N]`; empty if nothing blocks.
    #[inline(always)]
    fn gates(&self, state: &[f32]) -> Vec<f32> {
        let (width, blocked) = (self.lanes.width, self.blocked_steps());
        if blocked == 0 {
            return Vec::new();
        }
        let mut gates = vec![1.0; state.len()];
        let (mut wait, ones) = (vec![0_u32; width], vec![1.0; width]);
        for (gates, state) in gates.chunks_mut(width).zip(state.chunks(width)) {
            gate_row(&mut wait, &ones, gates);
            let over = wait.iter_mut().zip(state.iter().zip(&self.thresholds));
            over.filter(|(_, (u, theta))| u > theta).for_each(|(w, _)| *w = blocked);
        }
        gates
    }

    /// One sample backward; `transposed` is R `[target, source]`.
    #[inline(always)]
    fn backward(
        &self,
        transposed: &[f32],
        state: &[f32],
        synaptic: Option<&[f32]>,
        grad_membrane: Option<&[f32]>,
        grad: &mut [f32],
        rows: &mut LaneGrads<'_>,
    ) {
        let width = self.lanes.width;
        let zeros = || vec![0.0_f32; width];
        let (mut gu, mut q, mut back, mut over, mut d, mut gv, mut past) =
            (zeros(), zeros(), zeros(), zeros(), zeros(), zeros(), zeros());
        let gates = self.gates(state);
        for t in (0..self.lanes.steps).rev() {
            let cut = t * width..(t + 1) * width;
            let (u, row) = (&state[cut.clone()], &mut grad[cut.clone()]);
            if t > 0 {
                simd::prefetch(&state[(t - 1) * width..t * width]);
            }
            over_row(u, &self.thresholds, &mut over);
            if let Some(given) = grad_membrane {
                gv.copy_from_slice(&given[cut.clone()]);
            } else if self.neuron.recurrence == Recurrence::Relu {
                gv.fill(0.0);
            }
            if self.neuron.recurrence != Recurrence::None {
                transposed_product(transposed, &q, &mut back);
                match self.neuron.recurrence {
                    Recurrence::Relu => add_where_positive(u, &over, &back, &mut gv),
                    _ => add_row(&back, row),
                }
            }
            if self.neuron.fires {
                slope_row(self.neuron.surrogate, &over, &mut d);
                multiply_row(row, &mut d);
                if let Some(sum) = rows.threshold.as_deref_mut() {
                    subtract_row(&d, sum);
                }
            }
            reset_row(&self.decays.beta, &d, &over, &gv, &mut gu);
            match gates.is_empty() {
                true => synapse_back_row(&self.decays.alpha, &self.decays.gain, &gu, &mut q, row),
                false => {
                    gated_back_row(&self.decays.alpha, &self.decays.gain, &gates[cut.clone()], &gu, &mut q, row);
                }
            }
            if let Some(sum) = rows.sum.as_deref_mut() {
                add_row(&q, sum);
            }
            if let Some(out) = rows.beta.as_deref_mut() {
                match t {
                    0 => past.fill(0.0),
                    t => reset_membrane_row(&state[(t - 1) * width..t * width], &self.thresholds, &mut past),
                }
                beta_row(&self.decays.gain, &gu, u, &past, out);
            }
            if let (Some(out), Some(s), true) = (rows.alpha.as_deref_mut(), synaptic, t > 0) {
                add_product_row(&q, &s[(t - 1) * width..t * width], out);
            }
        }
        rows.finish(Some(&self.decays), &self.thresholds);
    }
}

/// `s = alpha s + x`.
#[inline(always)]
fn synapse_row(alpha: &[f32], x: &[f32], s: &mut [f32]) {
    let n = s.len();
    let (alpha, x) = (&alpha[..n], &x[..n]);
    for k in 0..n {
        s[k] = alpha[k] * s[k] + x[k];
    }
}

/// `out = s`, 0 where a neuron still waits; one step less to wait.
#[inline(always)]
fn gate_row(wait: &mut [u32], s: &[f32], out: &mut [f32]) {
    let n = out.len();
    let (wait, s) = (&mut wait[..n], &s[..n]);
    for k in 0..n {
        out[k] = if wait[k] > 0 { 0.0 } else { s[k] };
        wait[k] = wait[k].saturating_sub(1);
    }
}

#[inline(always)]
fn membrane_row(decays: &Decays, thresholds: &[f32], s: &[f32], v: &mut [f32], u: &mut [f32], over: &mut [f32]) {
    membrane_lanes(&decays.beta, &decays.gain, thresholds, s, v, u, over);
}

/// `u = beta v + gain s; over = u - theta; v = 0 where over is positive, u elsewhere`.
#[inline(always)]
fn membrane_lanes(
    beta: &[f32],
    gain: &[f32],
    thresholds: &[f32],
    s: &[f32],
    v: &mut [f32],
    u: &mut [f32],
    over: &mut [f32],
) {
    let n = u.len();
    let (beta, gain, thresholds, s) = (&beta[..n], &gain[..n], &thresholds[..n], &s[..n]);
    let (v, over) = (&mut v[..n], &mut over[..n]);
    for k in 0..n {
        u[k] = beta[k] * v[k] + gain[k] * s[k];
        over[k] = u[k] - thresholds[k];
        v[k] = if over[k] > 0.0 { 0.0 } else { u[k] };
    }
}

/// `y += a x`.
#[inline(always)]
fn add_scaled_row(a: f32, x: &[f32], y: &mut [f32]) {
    let n = y.len();
    let x = &x[..n];
    for k in 0..n {
        y[k] += a * x[k];
    }
}

/// `y *= x`.
#[inline(always)]
fn multiply_row(x: &[f32], y: &mut [f32]) {
    let n = y.len();
    let x = &x[..n];
    for k in 0..n {
        y[k] *= x[k];
    }
}

#[inline(always)]
fn over_row(u: &[f32], thresholds: &[f32], over: &mut [f32]) {
    let n = over.len();
    let (u, thresholds) = (&u[..n], &thresholds[..n]);
    for k in 0..n {
        over[k] = u[k] - thresholds[k];
    }
}

/// `gv += back` where the membrane after the reset is positive.
#[inline(always)]
fn add_where_positive(u: &[f32], over: &[f32], back: &[f32], gv: &mut [f32]) {
    let n = gv.len();
    let (u, over, back) = (&u[..n], &over[..n], &back[..n]);
    for k in 0..n {
        gv[k] += if u[k] > 0.0 && over[k] <= 0.0 { back[k] } else { 0.0 };
    }
}

/// `gu = d + (gv + beta gu)`, without the second part where the neuron fired.
#[inline(always)]
fn reset_row(beta: &[f32], d: &[f32], over: &[f32], gv: &[f32], gu: &mut [f32]) {
    let n = gu.len();
    let (beta, d, over, gv) = (&beta[..n], &d[..n], &over[..n], &gv[..n]);
    for k in 0..n {
        gu[k] = d[k] + if over[k] > 0.0 { 0.0 } else { gv[k] + beta[k] * gu[k] };
    }
}

/// `q = gain gu + alpha q`, which is also the gradient on the current.
#[inline(always)]
fn synapse_back_row(alpha: &[f32], gain: &[f32], gu: &[f32], q: &mut [f32], out: &mut [f32]) {
    let n = q.len();
    let (alpha, gain, gu, out) = (&alpha[..n], &gain[..n], &gu[..n], &mut out[..n]);
    for k in 0..n {
        q[k] = gain[k] * gu[k] + alpha[k] * q[k];
        out[k] = q[k];
    }
}

#[inline(always)]
fn gated_back_row(alpha: &[f32], gain: &[f32], gates: &[f32], gu: &[f32], q: &mut [f32], out: &mut [f32]) {
    let n = q.len();
    let (alpha, gain, gates, gu, out) = (&alpha[..n], &gain[..n], &gates[..n], &gu[..n], &mut out[..n]);
    for k in 0..n {
        q[k] = gain[k] * gates[k] * gu[k] + alpha[k] * q[k];
        out[k] = q[k];
    }
}

/// The membrane after the reset.
#[inline(always)]
fn reset_membrane_row(u: &[f32], thresholds: &[f32], v: &mut [f32]) {
    let n = v.len();
    let (u, thresholds) = (&u[..n], &thresholds[..n]);
    for k in 0..n {
        v[k] = if u[k] > thresholds[k] { 0.0 } else { u[k] };
    }
}

/// `out += gu (v[t-1] - m s)`, with `v[t-1] - m s = (v[t-1] - u[t]) / (1 - beta)`.
#[inline(always)]
fn beta_row(gain: &[f32], gu: &[f32], u: &[f32], past: &[f32], out: &mut [f32]) {
    let n = out.len();
    let (gain, gu, u, past) = (&gain[..n], &gu[..n], &u[..n], &past[..n]);
    for k in 0..n {
        out[k] += gu[k] * (past[k] - u[k]) / gain[k];
    }
}

impl CubaOps for Cpu {
    fn cuba_forward(
        &self,
        neuron: &CubaNeuron,
        lanes: Lanes,
        parameters: CubaParameters<'_, Self>,
        state: &mut Vec<f32>,
        synaptic: Option<&mut Vec<f32>>,
        spikes: &mut Spikes,
    ) -> Result<()> {
        const OP: &str = "cuba_forward";
        check_len(OP, "state", state.len(), lanes.len())?;
        let plan = Plan::new(OP, neuron, lanes, &parameters)?;
        if let Some(s) = &synaptic {
            check_len(OP, "synaptic", s.len(), lanes.len())?;
        }
        let row_words = if neuron.fires { words(lanes.width) } else { 0 };
        let mut bits = vec![0_u32; lanes.rows() * row_words];
        if !lanes.is_empty() {
            let sample = lanes.steps * lanes.width;
            let mut places: Vec<(Option<&mut [f32]>, &mut [u32])> =
                (0..lanes.batch).map(|_| (None, &mut [][..])).collect();
            if let Some(s) = synaptic {
                places.iter_mut().zip(s.chunks_mut(sample)).for_each(|(place, s)| place.0 = Some(s));
            }
            if row_words > 0 {
                let chunks = bits.chunks_mut(lanes.steps * row_words);
                places.iter_mut().zip(chunks).for_each(|(place, bits)| place.1 = bits);
            }
            self.install(|| {
                state.par_chunks_mut(sample).zip(&mut places).for_each(|(state, (synaptic, bits))| {
                    simd::run(
                        #[inline(always)]
                        || plan.forward(state, synaptic.as_deref_mut(), bits),
                    );
                });
            });
        }
        if neuron.fires {
            spikes_from_bits(self, lanes, &bits, spikes);
        }
        Ok(())
    }

    fn cuba_backward(
        &self,
        neuron: &CubaNeuron,
        lanes: Lanes,
        parameters: CubaParameters<'_, Self>,
        state: &Vec<f32>,
        synaptic: Option<&Vec<f32>>,
        grad: &mut Vec<f32>,
        grads: FilterGrad<'_, Self>,
    ) -> Result<()> {
        const OP: &str = "cuba_backward";
        check_len(OP, "state", state.len(), lanes.len())?;
        check_len(OP, "grad", grad.len(), lanes.len())?;
        let plan = Plan::new(OP, neuron, lanes, &parameters)?;
        if grads.alpha.is_some() {
            check_len(OP, "synaptic", synaptic.map_or(0, Vec::len), lanes.len())?;
        }
        let (grad_membrane, mut rows) = lane_grads(OP, lanes, grads)?;
        if lanes.is_empty() {
            return Ok(());
        }
        let (sample, width) = (lanes.steps * lanes.width, lanes.width);
        let transposed: Vec<f32> = (0..plan.weight.len()).map(|i| plan.weight[i % width * width + i / width]).collect();
        self.install(|| {
            grad.par_chunks_mut(sample).zip(&mut rows).enumerate().for_each(|(b, (grad, rows))| {
                let cut = b * sample..(b + 1) * sample;
                let (state, s) = (&state[cut.clone()], synaptic.map(|s| &s[cut.clone()]));
                let given = grad_membrane.map(|m| &m[cut]);
                simd::run(
                    #[inline(always)]
                    || plan.backward(&transposed, state, s, given, grad, rows),
                );
            });
        });
        Ok(())
    }

    fn cuba_membrane(
        &self,
        neuron: &CubaNeuron,
        lanes: Lanes,
        threshold: &Vec<f32>,
        state: &mut Vec<f32>,
    ) -> Result<()> {
        check_len("cuba_membrane", "state", state.len(), lanes.len())?;
        if !neuron.fires || lanes.is_empty() {
            return Ok(());
        }
        let thresholds = thresholds("cuba_membrane", threshold, lanes.width)?;
        self.install(|| {
            state.par_chunks_mut(lanes.width).with_min_len(64).for_each(|row| {
                row.iter_mut().zip(&thresholds).filter(|(u, theta)| **u > **theta).for_each(|(u, _)| *u = 0.0);
            });
        });
        Ok(())
    }
}
