//! Current-based leaky integrate-and-fire neurons: the sequential baseline of SPSN and ParaLIF.
//!
//! A synaptic and a membrane filter, reset to zero, optional refractory period and recurrence (arXiv 2306.12666,
//! eqs. 3, 5, 6; recurrence eq. 20 of the ParaLIF paper):
//!
//! ```text
//! s[t] = alpha s[t-1] + X[t] + (R r[t-1] + c_r)                                            (CUB-1)
//! u[t] = beta v[t-1] + (1 - beta) m[t] s[t]                                               (CUB-2)
//! z[t] = 1 if u[t] > theta else 0;   v[t] = u[t] (1 - z[t])                               (CUB-3)
//! ```
//!
//! The reset takes no part in the backward pass. `r` is `z` or `max(v, 0)`; `c_r` acts from step 0. `m` is 0 for the
//! steps of the refractory period after a spike, in which the leak and the synaptic filter go on: a period of `k` steps
//! blocks `k - 1` of them, as published. A readout never fires: `z = 0`.
//!
//! Backward, `t` falling, with `g_z` and `g_v` the incoming gradients and `back[t] = R^T q[t+1]`:
//!
//! ```text
//! gv = g_v[t] + beta gu[t+1] (+ back [v > 0] if r = max(v, 0));   d = (g_z[t] (+ back if r = z)) S'(u[t] - theta)
//! gu[t] = d + gv (1 - z[t]);   q[t] = (1 - beta) m[t] gu[t] + alpha q[t+1];   dL/dX = q
//! dL/dtheta = -sum d;   dL/dalpha = sum q[t] s[t-1];   dL/dbeta = sum gu[t] (v[t-1] - m[t] s[t])
//! dL/dR = sum q[t] r[t-1];   dL/dc_r = sum q[t]
//! ```

use crate::real::Real;
use crate::surrogate::Surrogate;

/// What a recurrent connection carries.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub enum Recurrence {
    /// There is none.
    None,
    /// Spikes.
    Spike,
    /// The rectified membrane, after the reset.
    Relu,
}

/// The constants of a current-based neuron.
#[derive(Debug, Clone, Copy, PartialEq)]
pub struct CubaNeuron {
    /// Slope of the spike function in the backward pass.
    pub surrogate: Surrogate,
    /// Refractory period in steps; a period of `k` blocks the input of `k - 1` steps, so 0 and 1 block none.
    pub refractory: u32,
    /// Whether the neuron fires; a readout does not.
    pub fires: bool,
    /// What the recurrent connection carries.
    pub recurrence: Recurrence,
}

impl CubaNeuron {
    /// Whether step `t` lies in the refractory period after a spike at `last`.
    #[inline(always)]
    #[must_use]
    pub const fn blocks(&self, t: u32, last: Option<u32>) -> bool {
        match last {
            Some(last) => t - last < self.refractory,
            None => false,
        }
    }
}

/// One sample of a forward pass, each field `[T, N]`.
#[derive(Debug, Clone, PartialEq)]
pub struct Trace<R> {
    /// u, before the reset: what the adjoint needs.
    pub state: Vec<R>,
    /// s; the gradient on a learned alpha needs it.
    pub synaptic: Vec<R>,
    /// z.
    pub spikes: Vec<R>,
}

/// What the neurons of a layer share or own: slices of N entries, or `[N, N]` by source and target.
#[derive(Debug, Clone, Copy)]
pub struct Constants<'a, R> {
    /// alpha of each neuron.
    pub alpha: &'a [R],
    /// beta of each neuron.
    pub beta: &'a [R],
    /// theta of each neuron, not negative.
    pub threshold: &'a [R],
    /// R, `[source, target]`, with a recurrence.
    pub weight: &'a [R],
    /// c_r, with a recurrence.
    pub bias: &'a [R],
}

/// v after the reset and what the recurrence carries, from u.
fn after<R: Real>(neuron: &CubaNeuron, threshold: R, u: R) -> (R, R, R) {
    let z = if neuron.fires { u.spike(threshold, &neuron.surrogate) } else { R::ZERO };
    let v = u * (R::ONE - z.detach());
    let r = match neuron.recurrence {
        Recurrence::None => R::ZERO,
        Recurrence::Spike => z,
        Recurrence::Relu if v > R::ZERO => v,
        Recurrence::Relu => R::ZERO,
    };
    (z, v, r)
}

/// Runs one sample; the recurrence couples its neurons. `current` is `[T, N]`.
///
/// ```
/// use snn_core::Surrogate;
/// use snn_core::neurons::cuba::{Constants, CubaNeuron, Recurrence, trace};
/// let surrogate = Surrogate::FastSigmoid { scale: 100.0 };
/// let neuron = CubaNeuron { surrogate, refractory: 0, fires: true, recurrence: Recurrence::None };
/// let c = Constants { alpha: &[0.0], beta: &[0.5], threshold: &[1.0], weight: &[], bias: &[] };
/// assert_eq!(trace(&neuron, &c, &[2.0_f64, 2.0, 2.0, 2.0]).state, [1.0, 1.5, 1.0, 1.5]);
/// ```
pub fn trace<R: Real>(neuron: &CubaNeuron, c: &Constants<'_, R>, current: &[R]) -> Trace<R> {
    let width = c.beta.len();
    let zeros = || vec![R::ZERO; width];
    let (mut s, mut v, mut r, mut last) = (zeros(), zeros(), zeros(), vec![None; width]);
    let mut out = Trace { state: vec![], synaptic: vec![], spikes: vec![] };
    for (t, row) in (0_u32..).zip(current.chunks(width.max(1))) {
        let fed = std::mem::replace(&mut r, zeros());
        for n in 0..width {
            s[n] = c.alpha[n] * s[n] + row[n];
            if neuron.recurrence != Recurrence::None {
                s[n] += c.bias[n];
                for (m, &r) in fed.iter().enumerate() {
                    s[n] += r * c.weight[m * width + n];
                }
            }
            let input = if neuron.blocks(t, last[n]) { R::ZERO } else { (R::ONE - c.beta[n]) * s[n] };
            let u = c.beta[n] * v[n] + input;
            let z;
            (z, v[n], r[n]) = after(neuron, c.threshold[n], u);
            if z.value() > 0.0 {
                last[n] = Some(t);
            }
            out.state.push(u);
            out.synaptic.push(s[n]);
            out.spikes.push(z);
        }
    }
    out
}

/// The gradients that the adjoint gives for one sample.
#[derive(Debug, Clone, PartialEq)]
pub struct Adjoint<R> {
    /// On the current, `[T, N]`; summed over time it is the gradient on `c_r`.
    pub current: Vec<R>,
    /// On alpha, `[N]`.
    pub alpha: Vec<R>,
    /// On beta, `[N]`.
    pub beta: Vec<R>,
    /// On theta, `[N]`.
    pub threshold: Vec<R>,
    /// On R, `[source, target]`.
    pub weight: Vec<R>,
}

/// The adjoint for one sample; incoming gradients `[T, N]`.
pub fn adjoint<R: Real>(
    neuron: &CubaNeuron,
    c: &Constants<'_, R>,
    trace: &Trace<R>,
    grad_spikes: &[R],
    grad_membrane: Option<&[R]>,
) -> Adjoint<R> {
    let width = c.beta.len();
    let steps = trace.state.len() / width.max(1);
    let zeros = |len: usize| vec![R::ZERO; len];
    let mut out = Adjoint {
        current: zeros(steps * width),
        alpha: zeros(width),
        beta: zeros(width),
        threshold: zeros(width),
        weight: zeros(c.weight.len()),
    };
    let parts = |t: usize, n: usize| after(neuron, c.threshold[n], trace.state[t * width + n]);
    let blocked = |t: usize, n: usize| {
        let last = (0..t).rev().find(|&t| parts(t, n).0.value() > 0.0);
        neuron.blocks(t as u32, last.map(|t| t as u32))
    };
    let (mut gu, mut q) = (zeros(width), zeros(width));
    for t in (0..steps).rev() {
        let back: Vec<R> = (0..width)
            .map(|m| match neuron.recurrence {
                Recurrence::None => R::ZERO,
                _ => (0..width).fold(R::ZERO, |sum, n| sum + q[n] * c.weight[m * width + n]),
            })
            .collect();
        for n in 0..width {
            let i = t * width + n;
            let (z, v, _) = parts(t, n);
            let (mut gz, mut gv) = (grad_spikes[i], grad_membrane.map_or(R::ZERO, |g| g[i]) + c.beta[n] * gu[n]);
            match neuron.recurrence {
                Recurrence::None => {}
                Recurrence::Spike => gz += back[n],
                Recurrence::Relu if v > R::ZERO => gv += back[n],
                Recurrence::Relu => {}
            }
            let d = match neuron.fires {
                true => gz * neuron.surrogate.slope(trace.state[i] - c.threshold[n]),
                false => R::ZERO,
            };
            gu[n] = d + gv * (R::ONE - R::lit(z.value()));
            let input = if blocked(t, n) { R::ZERO } else { (R::ONE - c.beta[n]) * gu[n] };
            q[n] = input + c.alpha[n] * q[n];
            out.current[i] = q[n];
            out.threshold[n] -= d;
            let before = t.checked_sub(1).map(|t| t * width + n);
            let v_before = t.checked_sub(1).map_or(R::ZERO, |t| parts(t, n).1);
            out.alpha[n] += q[n] * before.map_or(R::ZERO, |i| trace.synaptic[i]);
            let taken = if blocked(t, n) { R::ZERO } else { trace.synaptic[i] };
            out.beta[n] += gu[n] * (v_before - taken);
        }
        if neuron.recurrence != Recurrence::None && t > 0 {
            for m in 0..width {
                let r = parts(t - 1, m).2;
                for (n, &q) in q.iter().enumerate() {
                    out.weight[m * width + n] += r * q;
                }
            }
        }
    }
    out
}
