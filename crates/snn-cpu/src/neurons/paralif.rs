//! Parallel leaky neurons as one pass over time, forward and reverse; equations in [`snn_core::neurons::paralif`].
//!
//! A sample's rows of N neurons go through several short loops while they lie in the first-level cache: that costs
//! little beside reading them, and keeps the number of compiled combinations to a sum instead of a product.

use rayon::prelude::*;
use snn_core::backend::{FilterGrad, Filters, Fire, Noise, ParaLifOps};
use snn_core::error::{Result, check_len};
use snn_core::neurons::paralif::{BernoulliGradient, Firing, Generator, Normaliser};
use snn_core::random::{SpikeDraws, open_unit_f32, unit_f32};
use snn_core::{Lanes, Spikes, Surrogate};

use super::filters::{Decays, LaneGrads, add_row, filter_row, lane_grads, subtract_row, thresholds};
use super::{pack_row, slope_row, spikes_from_bits, words};
use crate::math::{draw_row, exp, sigmoid, tanh};
use crate::memory::Cpu;
use crate::simd;

/// The noise of a population, as given or to be drawn.
#[derive(Debug, Clone, Copy)]
enum Source<'a> {
    Drawn(SpikeDraws),
    Given(&'a [f32]),
}

/// Firing, checked and spelled out.
#[derive(Debug)]
struct Plan<'a> {
    firing: Firing,
    thresholds: Vec<f32>,
    source: Source<'a>,
}

impl<'a> Plan<'a> {
    fn new(op: &'static str, lanes: Lanes, fire: &Fire<'a, Cpu>) -> Result<Self> {
        let source = match fire.noise {
            Noise::Drawn(draws) => Source::Drawn(draws),
            Noise::Given(noise) => Source::Given(noise),
        };
        let stochastic = fire.firing.generator.is_stochastic();
        if let (true, Source::Given(noise)) = (stochastic, source) {
            check_len(op, "noise", noise.len(), lanes.len())?;
        }
        let thresholds = if stochastic { vec![0.0; lanes.width] } else { thresholds(op, fire.threshold, lanes.width)? };
        Ok(Self { firing: fire.firing, thresholds, source })
    }

    /// What stands for `p` before step 0.
    fn padding(&self) -> f32 {
        match (self.firing.generator, self.firing.normaliser) {
            (Generator::Delta { pad_normalised: true, .. }, Normaliser::Sigmoid) => 0.5,
            _ => 0.0,
        }
    }
}

/// The noise of one step: the uniforms of Bernoulli modes; for Gumbel-Softmax what [`odds_row`] makes of them.
#[inline(always)]
fn noise_row(plan: &Plan<'_>, lanes: Lanes, b: usize, t: usize, bits: &mut [u32], noise: &mut [f32]) {
    let row = (b * lanes.steps + t) * lanes.width;
    match (plan.source, plan.firing.generator) {
        (Source::Given(given), _) => noise.copy_from_slice(&given[row..row + lanes.width]),
        (Source::Drawn(draws), Generator::Bernoulli(_)) => {
            draw_row(&draws, b, t, lanes.width, bits);
            noise.iter_mut().zip(&*bits).for_each(|(u, &bits)| *u = unit_f32(bits));
        }
        (Source::Drawn(draws), _) => {
            draw_row(&draws, b, t, lanes.width, bits);
            noise.iter_mut().zip(&*bits).for_each(|(u, &bits)| *u = open_unit_f32(bits));
        }
    }
}

/// `p = N(v)`.
#[inline(always)]
fn normalise_row(normaliser: Normaliser, v: &[f32], p: &mut [f32]) {
    match normaliser {
        Normaliser::Identity => p.copy_from_slice(v),
        Normaliser::Sigmoid => map_row(v, p, sigmoid),
        Normaliser::Tanh => map_row(v, p, tanh),
        Normaliser::ReluTanh => map_row(v, p, |v| if v > 0.0 { tanh(v) } else { 0.0 }),
    }
}

#[inline(always)]
fn map_row(x: &[f32], y: &mut [f32], f: impl Fn(f32) -> f32) {
    let n = y.len();
    let x = &x[..n];
    for k in 0..n {
        y[k] = f(x[k]);
    }
}

/// `y *= N'(v)`, from `p = N(v)`.
#[inline(always)]
fn times_slope(normaliser: Normaliser, p: &[f32], y: &mut [f32]) {
    match normaliser {
        Normaliser::Identity => {}
        Normaliser::Sigmoid => times(p, y, |p| p * (1.0 - p)),
        Normaliser::Tanh => times(p, y, |p| 1.0 - p * p),
        // p is 0 exactly where v is not positive.
        Normaliser::ReluTanh => times(p, y, |p| if p > 0.0 { 1.0 - p * p } else { 0.0 }),
    }
}

#[inline(always)]
fn times(p: &[f32], y: &mut [f32], f: impl Fn(f32) -> f32) {
    let n = y.len();
    let p = &p[..n];
    for k in 0..n {
        y[k] *= f(p[k]);
    }
}

/// `out = a - b`.
#[inline(always)]
fn difference_row(a: &[f32], b: &[f32], out: &mut [f32]) {
    let n = out.len();
    let (a, b) = (&a[..n], &b[..n]);
    for k in 0..n {
        out[k] = a[k] - b[k];
    }
}

/// `out = a - b - c`.
#[inline(always)]
fn excess_row(a: &[f32], b: &[f32], c: &[f32], out: &mut [f32]) {
    let n = out.len();
    let (a, b, c) = (&a[..n], &b[..n], &c[..n]);
    for k in 0..n {
        out[k] = a[k] - b[k] - c[k];
    }
}

/// Positive where Gumbel-Softmax fires: from logistics `2 v + L`, from uniforms `U - (1 - U) exp(-2 v)`, which has the
/// same sign and needs no logarithm.
#[inline(always)]
fn gumbel_scores(source: Source<'_>, v: &[f32], noise: &[f32], out: &mut [f32]) {
    let n = out.len();
    let (v, noise) = (&v[..n], &noise[..n]);
    match source {
        Source::Given(_) => (0..n).for_each(|k| out[k] = v[k] + v[k] + noise[k]),
        Source::Drawn(_) => (0..n).for_each(|k| out[k] = noise[k] - (1.0 - noise[k]) * exp(-(v[k] + v[k]))),
    }
}

/// `out = g (2 / tau) y (1 - y)` with the soft spike `y`.
#[inline(always)]
fn gumbel_slopes(source: Source<'_>, temperature: f32, v: &[f32], noise: &[f32], g: &[f32], out: &mut [f32]) {
    let n = out.len();
    let (v, noise, g, inverse) = (&v[..n], &noise[..n], &g[..n], 1.0 / temperature);
    match source {
        Source::Drawn(_) if temperature == 1.0 => {
            for k in 0..n {
                let y = noise[k] / (noise[k] + (1.0 - noise[k]) * exp(-(v[k] + v[k])));
                out[k] = g[k] * 2.0 * y * (1.0 - y);
            }
        }
        Source::Drawn(_) => {
            for k in 0..n {
                let logistic = (noise[k] / (1.0 - noise[k])).ln();
                let y = sigmoid((v[k] + v[k] + logistic) * inverse);
                out[k] = g[k] * 2.0 * inverse * y * (1.0 - y);
            }
        }
        Source::Given(_) => {
            for k in 0..n {
                let y = sigmoid((v[k] + v[k] + noise[k]) * inverse);
                out[k] = g[k] * 2.0 * inverse * y * (1.0 - y);
            }
        }
    }
}

/// Rows to work in.
#[derive(Debug)]
struct Scratch {
    /// Random bits; four entries for each block.
    bits: Vec<u32>,
    noise: Vec<f32>,
    p: Vec<f32>,
    before: Vec<f32>,
    x: Vec<f32>,
    zeros: Vec<f32>,
}

impl Scratch {
    fn new(width: usize) -> Self {
        let row = || vec![0.0; width];
        let bits = vec![0; 4 * SpikeDraws::blocks(width)];
        Self { bits, noise: row(), p: row(), before: row(), x: row(), zeros: row() }
    }
}

/// One sample forward: `state` `[T, N]`, `bits` `[T, words(N)]`.
#[inline(always)]
fn forward(
    lanes: Lanes,
    b: usize,
    decays: Option<&Decays>,
    plan: Option<&Plan<'_>>,
    state: &mut [f32],
    bits: &mut [u32],
) {
    let width = lanes.width;
    let (mut s, mut scratch) = (vec![0.0; width], Scratch::new(width));
    scratch.before.fill(plan.map_or(0.0, Plan::padding));
    for t in 0..lanes.steps {
        if let Some(decays) = decays {
            let (past, now) = state.split_at_mut(t * width);
            let past = (t > 0).then(|| &past[(t - 1) * width..]);
            filter_row(decays, &mut s, past, &mut now[..width]);
        }
        let Some(plan) = plan else { continue };
        let Scratch { bits: random, noise, p, before, x, zeros } = &mut scratch;
        let v = seen(plan, width, t, state, zeros);
        match plan.firing.generator {
            Generator::Threshold { .. } => {
                normalise_row(plan.firing.normaliser, v, p);
                difference_row(p, &plan.thresholds, x);
            }
            Generator::Delta { .. } => {
                normalise_row(plan.firing.normaliser, v, p);
                excess_row(p, before, &plan.thresholds, x);
                std::mem::swap(p, before);
            }
            Generator::Bernoulli(_) => {
                noise_row(plan, lanes, b, t, random, noise);
                normalise_row(plan.firing.normaliser, v, p);
                difference_row(p, noise, x);
            }
            Generator::Gumbel { .. } => {
                noise_row(plan, lanes, b, t, random, noise);
                gumbel_scores(plan.source, v, noise, x);
            }
        }
        pack_row(0.0, x, &mut bits[t * words(width)..(t + 1) * words(width)]);
    }
}

/// The membrane that firing sees at step `t`.
#[inline(always)]
fn seen<'a>(plan: &Plan<'_>, width: usize, t: usize, state: &'a [f32], zeros: &'a [f32]) -> &'a [f32] {
    match (plan.firing.delayed, t) {
        (false, t) => &state[t * width..(t + 1) * width],
        (true, 0) => zeros,
        (true, t) => &state[(t - 1) * width..t * width],
    }
}

/// The reverse pass of firing over one sample, one step at a time.
#[derive(Debug)]
struct FireBack {
    scratch: Scratch,
    /// d of the step after.
    after: Vec<f32>,
    /// The gradient on the membrane that this step saw.
    grad: Vec<f32>,
}

impl FireBack {
    #[inline(always)]
    fn new(plan: &Plan<'_>, lanes: Lanes, membrane: &[f32]) -> Self {
        let (width, last) = (lanes.width, lanes.steps - 1);
        let mut scratch = Scratch::new(width);
        if let Generator::Delta { .. } = plan.firing.generator {
            // The loop finds N(v) of its step in `p`, where the step after has left it.
            let v = seen(plan, width, last, membrane, &scratch.zeros);
            normalise_row(plan.firing.normaliser, v, &mut scratch.p);
        }
        Self { scratch, after: vec![0.0; width], grad: vec![0.0; width] }
    }

    /// From the gradient `g` on the spikes of step `t` to `self.grad`.
    #[inline(always)]
    fn step(
        &mut self,
        plan: &Plan<'_>,
        lanes: Lanes,
        (b, t): (usize, usize),
        membrane: &[f32],
        g: &[f32],
        grad_threshold: Option<&mut [f32]>,
    ) {
        let Self { scratch, after, grad } = self;
        let Scratch { bits, noise, p, before, x, zeros } = scratch;
        let normaliser = plan.firing.normaliser;
        let v = seen(plan, lanes.width, t, membrane, zeros);
        match plan.firing.generator {
            Generator::Threshold { surrogate } => {
                normalise_row(normaliser, v, p);
                difference_row(p, &plan.thresholds, x);
                slopes(surrogate, x, g, grad);
                grad_threshold.into_iter().for_each(|sum| subtract_row(grad, sum));
                times_slope(normaliser, p, grad);
            }
            Generator::Delta { surrogate, .. } => {
                match t {
                    0 => before.fill(plan.padding()),
                    t => normalise_row(normaliser, seen(plan, lanes.width, t - 1, membrane, zeros), before),
                }
                excess_row(p, before, &plan.thresholds, x);
                slopes(surrogate, x, g, grad);
                grad_threshold.into_iter().for_each(|sum| subtract_row(grad, sum));
                // x keeps d for the step before.
                x.copy_from_slice(grad);
                subtract_row(after, grad);
                times_slope(normaliser, p, grad);
                std::mem::swap(x, after);
                std::mem::swap(p, before);
            }
            Generator::Bernoulli(gradient) => {
                normalise_row(normaliser, v, p);
                grad.copy_from_slice(g);
                if gradient == BernoulliGradient::ProbabilityWeighted {
                    times(p, grad, |p| p);
                }
                times_slope(normaliser, p, grad);
            }
            Generator::Gumbel { temperature } => {
                noise_row(plan, lanes, b, t, bits, noise);
                gumbel_slopes(plan.source, temperature as f32, v, noise, g, grad);
            }
        }
    }
}

/// `out = g S'(x)`.
#[inline(always)]
fn slopes(surrogate: Surrogate, x: &[f32], g: &[f32], out: &mut [f32]) {
    slope_row(surrogate, x, out);
    times(g, out, |g| g);
}

/// The reverse pass of the filters over one sample, one step at a time.
#[derive(Debug)]
struct FilterBack {
    p: Vec<f32>,
    q: Vec<f32>,
    zeros: Vec<f32>,
}

impl FilterBack {
    /// From the gradient `g` on the membrane of step `t` to that on the current, in `self.q`.
    #[inline(always)]
    fn step(&mut self, d: &Decays, t: usize, membrane: &[f32], g: &[f32], rows: &mut LaneGrads<'_>) {
        let Self { p, q, zeros } = self;
        let width = p.len();
        filter_back_row(&d.alpha, &d.beta, &d.gain, g, p, q);
        let at = |back: usize| t.checked_sub(back).map_or(&zeros[..], |t| &membrane[t * width..(t + 1) * width]);
        if let Some(out) = rows.beta.as_deref_mut() {
            beta_row(&d.gain, p, at(0), at(1), out);
        }
        if let Some(out) = rows.alpha.as_deref_mut() {
            alpha_row(&d.gain, q, at(1), at(2), out);
        }
        if let Some(sum) = rows.sum.as_deref_mut() {
            add_row(q, sum);
        }
    }
}

#[inline(always)]
fn filter_back_row(alpha: &[f32], beta: &[f32], gain: &[f32], g: &[f32], p: &mut [f32], q: &mut [f32]) {
    let n = q.len();
    let (alpha, beta, gain, g, p) = (&alpha[..n], &beta[..n], &gain[..n], &g[..n], &mut p[..n]);
    for k in 0..n {
        p[k] = g[k] + beta[k] * p[k];
        q[k] = gain[k] * p[k] + alpha[k] * q[k];
    }
}

/// `out += p[t] (v[t-1] - s[t])`, with `v[t-1] - s[t] = (v[t-1] - v[t]) / (1 - beta)`.
#[inline(always)]
fn beta_row(gain: &[f32], p: &[f32], now: &[f32], past: &[f32], out: &mut [f32]) {
    let n = out.len();
    let (gain, p, now, past) = (&gain[..n], &p[..n], &now[..n], &past[..n]);
    for k in 0..n {
        out[k] += p[k] * (past[k] - now[k]) / gain[k];
    }
}

/// `out += q[t] s[t-1]`, with `s[t-1] = v[t-2] + (v[t-1] - v[t-2]) / (1 - beta)`.
#[inline(always)]
fn alpha_row(gain: &[f32], q: &[f32], past: &[f32], earlier: &[f32], out: &mut [f32]) {
    let n = out.len();
    let (gain, q, past, earlier) = (&gain[..n], &q[..n], &past[..n], &earlier[..n]);
    for k in 0..n {
        out[k] += q[k] * (earlier[k] + (past[k] - earlier[k]) / gain[k]);
    }
}

/// One sample of the reverse pass.
struct Back<'a> {
    lanes: Lanes,
    b: usize,
    decays: Option<&'a Decays>,
    plan: Option<&'a Plan<'a>>,
    membrane: &'a [f32],
    grad_membrane: Option<&'a [f32]>,
}

impl Back<'_> {
    #[inline(always)]
    fn run(&self, grad: &mut [f32], rows: &mut LaneGrads<'_>) {
        let Self { lanes, b, decays, plan, membrane, grad_membrane } = *self;
        let width = lanes.width;
        let mut plan = plan;
        if let Some(delayed) = plan.take_if(|p| p.firing.delayed) {
            // What a step saw is the membrane of the step before, whose own incoming gradient has not been read yet:
            // firing goes first, on its own.
            let mut fire = FireBack::new(delayed, lanes, membrane);
            for t in (0..lanes.steps).rev() {
                let row = &mut grad[t * width..(t + 1) * width];
                fire.step(delayed, lanes, (b, t), membrane, row, rows.threshold.as_deref_mut());
                row.copy_from_slice(&fire.grad);
            }
            grad.copy_within(width.., 0);
            grad[(lanes.steps - 1) * width..].fill(0.0);
        }
        let mut fire = plan.map(|plan| FireBack::new(plan, lanes, membrane));
        let zeros = || vec![0.0; width];
        let mut filter = FilterBack { p: zeros(), q: zeros(), zeros: zeros() };
        for t in (0..lanes.steps).rev() {
            let cut = t * width..(t + 1) * width;
            let row = &mut grad[cut.clone()];
            if t > 1 {
                simd::prefetch(&membrane[(t - 2) * width..(t - 1) * width]);
            }
            if let (Some(fire), Some(plan)) = (&mut fire, plan) {
                fire.step(plan, lanes, (b, t), membrane, row, rows.threshold.as_deref_mut());
                row.copy_from_slice(&fire.grad);
            }
            if let Some(given) = grad_membrane {
                add_row(&given[cut], row);
            }
            match decays {
                Some(d) => {
                    filter.step(d, t, membrane, row, rows);
                    row.copy_from_slice(&filter.q);
                }
                None => rows.sum.as_deref_mut().into_iter().for_each(|sum| add_row(row, sum)),
            }
        }
        rows.finish(decays, self.plan.map_or(&[], |p| &p.thresholds));
    }
}

impl ParaLifOps for Cpu {
    fn paralif_forward(
        &self,
        lanes: Lanes,
        filters: Option<Filters<'_, Self>>,
        fire: Option<Fire<'_, Self>>,
        state: &mut Vec<f32>,
        spikes: &mut Spikes,
    ) -> Result<()> {
        const OP: &str = "paralif_forward";
        check_len(OP, "state", state.len(), lanes.len())?;
        let decays = filters.map(|f| Decays::new(OP, &f, lanes.width)).transpose()?;
        let plan = fire.map(|f| Plan::new(OP, lanes, &f)).transpose()?;
        let row_words = if plan.is_some() { words(lanes.width) } else { 0 };
        let mut bits = vec![0_u32; lanes.rows() * row_words];
        if !lanes.is_empty() {
            let mut of_samples: Vec<&mut [u32]> = match row_words {
                0 => (0..lanes.batch).map(|_| &mut [][..]).collect(),
                _ => bits.chunks_mut(lanes.steps * row_words).collect(),
            };
            self.install(|| {
                let samples = state.par_chunks_mut(lanes.steps * lanes.width).zip(&mut of_samples);
                samples.enumerate().for_each(|(b, (state, bits))| {
                    simd::run(
                        #[inline(always)]
                        || forward(lanes, b, decays.as_ref(), plan.as_ref(), state, bits),
                    );
                });
            });
        }
        if plan.is_some() {
            spikes_from_bits(self, lanes, &bits, spikes);
        }
        Ok(())
    }

    fn paralif_backward(
        &self,
        lanes: Lanes,
        filters: Option<Filters<'_, Self>>,
        fire: Option<Fire<'_, Self>>,
        membrane: &Vec<f32>,
        grad: &mut Vec<f32>,
        grads: FilterGrad<'_, Self>,
    ) -> Result<()> {
        const OP: &str = "paralif_backward";
        check_len(OP, "membrane", membrane.len(), lanes.len())?;
        check_len(OP, "grad", grad.len(), lanes.len())?;
        let decays = filters.map(|f| Decays::new(OP, &f, lanes.width)).transpose()?;
        let plan = fire.map(|f| Plan::new(OP, lanes, &f)).transpose()?;
        let (grad_membrane, mut rows) = lane_grads(OP, lanes, grads)?;
        if lanes.is_empty() {
            return Ok(());
        }
        let sample = lanes.steps * lanes.width;
        self.install(|| {
            grad.par_chunks_mut(sample).zip(&mut rows).enumerate().for_each(|(b, (grad, rows))| {
                let cut = b * sample..(b + 1) * sample;
                let back = Back {
                    lanes,
                    b,
                    decays: decays.as_ref(),
                    plan: plan.as_ref(),
                    membrane: &membrane[cut.clone()],
                    grad_membrane: grad_membrane.map(|m| &m[cut]),
                };
                simd::run(
                    #[inline(always)]
                    || back.run(grad, rows),
                );
            });
        });
        Ok(())
    }
}
