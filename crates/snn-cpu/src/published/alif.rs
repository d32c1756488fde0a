//! The adaptive neuron with a refractory period of L steps (arXiv 2311.11390), in the two forms that its paper times.
//!
//! [`alif_stepwise_forward`] and [`alif_stepwise_backward`] run one whole-array operation per line of the model and
//! step. [`alif_blocks_forward`] and [`alif_blocks_backward`] take K = L + 1 steps at a time: of N neurons, a block is
//! a product with the recurrent weights and two convolutions with K taps, so that T steps cost O(T K) and there are
//! only T / K rounds. As published, the block form carries the adaptation over a spike as `p^d (a + 1 / p)`: where p
//! is exactly 0 thresholds are not numbers, and spikes are lost without a word.
//!
//! The gradient on beta takes the shorter way, `du[j]` times `u[j-1]`, in place of a convolution of its own; all
//! gradients are those of the constants as used, without the derivative of their clips. Equations are those of
//! [`snn_core::neurons::alif`].

use rayon::prelude::*;
use snn_core::backend::{Gemm, LinAlg};
use snn_core::error::{Result, check_len};
use snn_core::neurons::alif::{AlifGradient, AlifNeuron, Constants};
use snn_core::neurons::lif::Path;
use snn_core::{Lanes, Surrogate};

use super::{correlate, kernels, map3, slice_step, store_step};
use crate::memory::Cpu;
use crate::{math, neurons, simd};

/// Everything that the step-by-step forward pass keeps, `[T][B * N]` each.
#[derive(Debug, Default)]
pub struct AlifStepwiseTape {
    v: Vec<Vec<f32>>,
    over: Vec<Vec<f32>>,
    adaptation: Vec<Vec<f32>>,
    wait: Vec<Vec<f32>>,
    spikes: Vec<Vec<f32>>,
}

/// Gradients of a layer of adaptive neurons; those of parameters are sums over the batch.
#[derive(Debug, Clone, Default, PartialEq)]
pub struct AlifGradients {
    /// On the current, `[B, T, N]`.
    pub current: Vec<f32>,
    /// On beta, `[N]`.
    pub beta: Vec<f32>,
    /// On p, `[N]`.
    pub decay: Vec<f32>,
    /// On b, `[N]`.
    pub strength: Vec<f32>,
    /// On the recurrent weights, `[source, target]`; empty without them.
    pub weight: Vec<f32>,
}

/// Checks what both forms share.
fn check(op: &'static str, lanes: Lanes, neuron: &AlifNeuron, c: &Constants<'_, f32>) -> Result<()> {
    for (arg, constant) in [("beta", c.beta), ("decay", c.decay), ("strength", c.strength)] {
        check_len(op, arg, constant.len(), lanes.width)?;
    }
    check_len(op, "weight", c.weight.len(), if neuron.recurrent { lanes.width * lanes.width } else { 0 })
}

/// `S'(x)`, whole array.
fn slopes(cpu: &Cpu, surrogate: Surrogate, x: &[f32]) -> Vec<f32> {
    let mut out = vec![0.0; x.len()];
    cpu.install(|| {
        let pieces = out.par_chunks_mut(1 << 14).zip(x.par_chunks(1 << 14));
        pieces.for_each(|(out, x)| slope_row(surrogate, x, out));
    });
    out
}

/// `out = S'(x)`; the exponentials of the multi-Gaussian without calls.
fn slope_row(surrogate: Surrogate, x: &[f32], out: &mut [f32]) {
    simd::run(
        #[inline(always)]
        || {
            let Surrogate::MultiGaussian { height, width, gain } = surrogate else {
                return neurons::slope_row(surrogate, x, out);
            };
            let area = |deviation: f64| 1.0 / ((2.0 * std::f64::consts::PI).sqrt() * deviation);
            let (centre, side) = (gain * (1.0 + height) * area(width), gain * height * area(6.0 * width));
            let (centre, side, mean, narrow, wide) =
                (centre as f32, side as f32, width as f32, (1.0 / width) as f32, (1.0 / (6.0 * width)) as f32);
            let bell = |d: f32| math::exp(-0.5 * d * d);
            for (out, &u) in out.iter_mut().zip(x) {
                let sides = bell((u - mean) * wide) + bell((u + mean) * wide);
                *out = centre * bell(u * narrow) - side * sides;
            }
        },
    );
}

/// One entry per lane, from one per neuron.
fn per_lane(lanes: Lanes, x: &[f32]) -> Vec<f32> {
    x.iter().copied().cycle().take(lanes.batch * lanes.width).collect()
}

/// The neurons one step after the other; gives the spikes `[B, T, N]`.
///
/// # Errors
///
/// [`snn_core::Error::Shape`] if a buffer does not fit.
pub fn alif_stepwise_forward(
    cpu: &Cpu,
    lanes: Lanes,
    neuron: &AlifNeuron,
    constants: &Constants<'_, f32>,
    current: &[f32],
    tape: &mut AlifStepwiseTape,
) -> Result<Vec<f32>> {
    const OP: &str = "alif_stepwise_forward";
    check(OP, lanes, neuron, constants)?;
    check_len(OP, "current", current.len(), lanes.len())?;
    *tape = AlifStepwiseTape::default();
    let mut out = vec![0.0; lanes.len()];
    if lanes.is_empty() {
        return Ok(out);
    }
    let [beta, decay, strength] =
        [constants.beta, constants.decay, constants.strength].map(|constant| per_lane(lanes, constant));
    let weight = constants.weight.to_vec();
    let (mut rest, mut adaptation, mut wait) = (vec![0.0; beta.len()], vec![0.0; beta.len()], vec![0.0; beta.len()]);
    let mut threshold = vec![1.0; beta.len()];
    let period = neuron.refractory as f32;
    for t in 0..lanes.steps {
        let mut drive = slice_step(lanes, current, t);
        if neuron.recurrent && t >= neuron.block() {
            let gemm = Gemm::new(lanes.batch, lanes.width, lanes.width).accumulating();
            cpu.gemm(gemm, &tape.spikes[t - neuron.block()], &weight, &mut drive)?;
        }
        let drive = map3(cpu, &drive, &wait, &wait, |q, wait, _| if wait > 0.0 { 0.0 } else { q });
        let leaked = map3(cpu, &beta, &rest, &rest, |beta, r, _| beta * r);
        let v = map3(cpu, &leaked, &drive, &drive, |leaked, q, _| leaked + q);
        let over = map3(cpu, &v, &threshold, &threshold, |v, theta, _| v - theta);
        let s = map3(cpu, &over, &over, &over, |over, _, _| if over > 0.0 { 1.0 } else { 0.0 });
        rest = map3(cpu, &v, &s, &s, |v, s, _| v * (1.0 - s));
        let next_wait = map3(cpu, &wait, &s, &s, |wait, s, _| if s > 0.0 { period } else { wait - 1.0 });
        let mut next_adaptation = adaptation.clone();
        if neuron.adapts {
            let decayed = map3(cpu, &decay, &adaptation, &adaptation, |p, a, _| p * a);
            next_adaptation = map3(cpu, &decayed, &s, &s, |pa, s, _| pa + s);
            let raised = map3(cpu, &strength, &next_adaptation, &next_adaptation, |b, a, _| b * a);
            threshold = map3(cpu, &raised, &raised, &raised, |raised, _, _| 1.0 + raised);
        }
        store_step(lanes, &s, t, &mut out);
        tape.v.push(v);
        tape.over.push(over);
        tape.spikes.push(s);
        tape.adaptation.push(std::mem::replace(&mut adaptation, next_adaptation));
        tape.wait.push(std::mem::replace(&mut wait, next_wait));
    }
    Ok(out)
}

/// Whether spikes are attached where they feed other neurons, and whether where they raise thresholds.
fn paths(neuron: &AlifNeuron) -> (bool, bool) {
    match neuron.gradient {
        AlifGradient::Steps { spikes, adaptation } => (spikes == Path::Attached, adaptation == Path::Attached),
        AlifGradient::Blocks { spikes } => (spikes == Path::Attached, spikes == Path::Attached),
    }
}

/// Sums `[B, N]` over the batch.
fn over_batch(cpu: &Cpu, lanes: Lanes, lane: &Vec<f32>) -> Result<Vec<f32>> {
    let mut sum = vec![0.0; lanes.width];
    cpu.sum_rows(lanes.batch, lanes.width, lane, &mut sum)?;
    Ok(sum)
}

/// The backward pass of [`alif_stepwise_forward`], with the paths of [`AlifGradient::Steps`].
///
/// # Errors
///
/// [`snn_core::Error::Shape`] if a buffer does not fit.
pub fn alif_stepwise_backward(
    cpu: &Cpu,
    lanes: Lanes,
    neuron: &AlifNeuron,
    constants: &Constants<'_, f32>,
    grad_spikes: &[f32],
    tape: &AlifStepwiseTape,
) -> Result<AlifGradients> {
    const OP: &str = "alif_stepwise_backward";
    check(OP, lanes, neuron, constants)?;
    check_len(OP, "grad_spikes", grad_spikes.len(), lanes.len())?;
    let mut out = AlifGradients { current: vec![0.0; lanes.len()], ..AlifGradients::default() };
    if !lanes.is_empty() {
        check_len(OP, "tape", tape.v.len(), lanes.steps)?;
    }
    let [beta, decay, strength] =
        [constants.beta, constants.decay, constants.strength].map(|constant| per_lane(lanes, constant));
    let weight = constants.weight.to_vec();
    let (spikes_attached, adaptation_attached) = paths(neuron);
    let zeros = vec![0.0; beta.len()];
    let [mut dr, mut da, mut grad_beta, mut grad_decay, mut grad_strength] = std::array::from_fn(|_| zeros.clone());
    let mut grad_weight = vec![0.0; weight.len()];
    let mut later: Vec<Vec<f32>> = vec![Vec::new(); lanes.steps];
    let square = Gemm::new(lanes.batch, lanes.width, lanes.width).accumulating();
    let steps = if lanes.is_empty() { 0 } else { lanes.steps };
    for t in (0..steps).rev() {
        let (v, s, wait) = (&tape.v[t], &tape.spikes[t], &tape.wait[t]);
        let mut ds = slice_step(lanes, grad_spikes, t);
        if neuron.adapts && adaptation_attached {
            ds = map3(cpu, &ds, &da, &da, |ds, da, _| ds + da);
        }
        if spikes_attached {
            ds = map3(cpu, &ds, v, &dr, |ds, v, dr| ds - v * dr);
            if neuron.recurrent && t + neuron.block() < steps {
                cpu.gemm(square.b_transposed(), &later[t + neuron.block()], &weight, &mut ds)?;
            }
        }
        let slope = slopes(cpu, neuron.surrogate, &tape.over[t]);
        let e = map3(cpu, &ds, &slope, &slope, |ds, slope, _| ds * slope);
        let dv = map3(cpu, &e, s, &dr, |e, s, dr| e + (1.0 - s) * dr);
        if t > 0 {
            let rest = map3(cpu, &tape.v[t - 1], &tape.spikes[t - 1], &zeros, |v, s, _| v * (1.0 - s));
            grad_beta = map3(cpu, &grad_beta, &dv, &rest, |g, dv, r| g + dv * r);
        }
        if neuron.adapts {
            let a = &tape.adaptation[t];
            grad_decay = map3(cpu, &grad_decay, &da, a, |g, da, a| g + da * a);
            grad_strength = map3(cpu, &grad_strength, &e, a, |g, e, a| g - e * a);
            let raised = map3(cpu, &strength, &e, &e, |b, e, _| b * e);
            da = map3(cpu, &decay, &da, &raised, |p, da, raised| p * da - raised);
        }
        let dq = map3(cpu, &dv, wait, wait, |dv, wait, _| if wait > 0.0 { 0.0 } else { dv });
        dr = map3(cpu, &beta, &dv, &dv, |beta, dv, _| beta * dv);
        if neuron.recurrent && t >= neuron.block() {
            let gemm = Gemm::new(lanes.width, lanes.width, lanes.batch).a_transposed().accumulating();
            cpu.gemm(gemm, &tape.spikes[t - neuron.block()], &dq, &mut grad_weight)?;
        }
        store_step(lanes, &dq, t, &mut out.current);
        later[t] = dq;
        if let Some(done) = later.get_mut(t + neuron.block()) {
            *done = Vec::new();
        }
    }
    out.beta = over_batch(cpu, lanes, &grad_beta)?;
    out.decay = over_batch(cpu, lanes, &grad_decay)?;
    out.strength = over_batch(cpu, lanes, &grad_strength)?;
    out.weight = grad_weight;
    Ok(out)
}

/// What the block form keeps of each block.
#[derive(Debug, Default)]
pub struct AlifBlocksTape {
    blocks: Vec<Block>,
}

/// One block: arrays `[B, K, N]`, and what it began with, `[B, N]`.
#[derive(Debug)]
struct Block {
    /// The membrane without a reset.
    u: Vec<f32>,
    /// Double cumulative sum of all crossings of the threshold; 1 at the first one.
    z: Vec<f32>,
    /// The adaptation without this block's spike.
    al: Vec<f32>,
    spikes: Vec<f32>,
    /// The adaptation that came in, A.
    start: Vec<f32>,
    /// 1 for neurons that fire in this block.
    fired: Vec<f32>,
}

impl AlifBlocksTape {
    /// `[B, T, N]` from an array of every block.
    fn whole(&self, lanes: Lanes, of: impl Fn(&Block) -> &[f32]) -> Vec<f32> {
        let mut out = vec![0.0; lanes.len()];
        let mut first = 0;
        for block in &self.blocks {
            let block = of(block);
            let length = block.len() / (lanes.batch * lanes.width);
            put_block(lanes, first, block, &mut out);
            first += length;
        }
        out
    }

    /// The membrane, not reset inside a block, `[B, T, N]`.
    #[must_use]
    pub fn membrane(&self, lanes: Lanes) -> Vec<f32> {
        self.whole(lanes, |block| &block.u)
    }

    /// The double cumulative sum of all crossings of the threshold in a block, `[B, T, N]`.
    #[must_use]
    pub fn crossings(&self, lanes: Lanes) -> Vec<f32> {
        self.whole(lanes, |block| &block.z)
    }
}

/// The steps from `first` on of every sample, `[B, K, N]`, zeros behind the end.
fn take_block(lanes: Lanes, first: usize, length: usize, x: &[f32]) -> Vec<f32> {
    let mut out = vec![0.0; lanes.batch * length * lanes.width];
    let cut = length.min(lanes.steps - first) * lanes.width;
    let samples = out.chunks_mut(length * lanes.width).zip(x.chunks(lanes.steps * lanes.width));
    for (out, x) in samples {
        out[..cut].copy_from_slice(&x[first * lanes.width..first * lanes.width + cut]);
    }
    out
}

/// Puts a block into its place; what lies behind the end is dropped.
fn put_block(lanes: Lanes, first: usize, block: &[f32], out: &mut [f32]) {
    let length = block.len() / lanes.batch;
    let samples = out.chunks_mut(lanes.steps * lanes.width).zip(block.chunks(length));
    for (out, block) in samples {
        let out = &mut out[first * lanes.width..];
        let cut = length.min(out.len());
        out[..cut].copy_from_slice(&block[..cut]);
    }
}

/// What both directions of the block form know of a layer.
struct Kernels<'a> {
    width: usize,
    length: usize,
    neuron: &'a AlifNeuron,
    constants: &'a Constants<'a, f32>,
    /// Powers of beta and the weights of the double sum, `[K, N]`, age first.
    powers: Vec<f32>,
    phi: Vec<f32>,
    /// `p^(j + 1)`, `[K, N]`.
    growth: Vec<f32>,
}

impl<'a> Kernels<'a> {
    fn new(lanes: Lanes, neuron: &'a AlifNeuron, constants: &'a Constants<'a, f32>) -> Self {
        let length = neuron.block();
        let (powers, phi) = kernels(length, constants.beta);
        let growth = (1..=length).flat_map(|j| constants.decay.iter().map(move |p| p.powi(j as i32))).collect();
        Self { width: lanes.width, length, neuron, constants, powers, phi, growth }
    }

    /// `x[j, n] = f(n, j, x[j, n])` over a block of one sample.
    fn each(&self, x: &mut [f32], f: impl Fn(usize, usize, f32) -> f32) {
        for (j, row) in x.chunks_mut(self.width).enumerate() {
            for (n, x) in row.iter_mut().enumerate() {
                *x = f(n, j * self.width + n, *x);
            }
        }
    }

    /// How many steps of the block come after each neuron's spike, d.
    fn after(&self, z: &[f32]) -> Vec<i32> {
        let mut out = vec![0; self.width];
        for row in z.chunks(self.width) {
            out.iter_mut().zip(row).for_each(|(d, &z)| *d += i32::from(z > 1.0));
        }
        out
    }

    /// The adaptation at each neuron's spike, 0 without one.
    fn at_spike(&self, al: &[f32], spikes: &[f32]) -> Vec<f32> {
        let mut out = vec![0.0; self.width];
        for (al, s) in al.chunks(self.width).zip(spikes.chunks(self.width)) {
            out.iter_mut().zip(al).zip(s).for_each(|((out, al), s)| *out += al * s);
        }
        out
    }

    /// The threshold less 1 at one place.
    fn raise(&self, n: usize, al: f32) -> f32 {
        if self.neuron.adapts { self.constants.strength[n] * al } else { 0.0 }
    }
}

/// The arrays of one sample and block, as slices.
struct Sample<'a> {
    u: &'a [f32],
    z: &'a [f32],
    al: &'a [f32],
    spikes: &'a [f32],
    start: &'a [f32],
    fired: &'a [f32],
}

impl Block {
    fn sample(&self, b: usize, batch: usize) -> Sample<'_> {
        let rows = self.u.len() / batch;
        let width = self.start.len() / batch;
        let (block, lane) = (b * rows..(b + 1) * rows, b * width..(b + 1) * width);
        Sample {
            u: &self.u[block.clone()],
            z: &self.z[block.clone()],
            al: &self.al[block.clone()],
            spikes: &self.spikes[block],
            start: &self.start[lane.clone()],
            fired: &self.fired[lane],
        }
    }
}

/// The neurons one refractory period and a step at a time; gives the spikes `[B, T, N]`.
///
/// # Errors
///
/// [`snn_core::Error::Shape`] if a buffer does not fit.
pub fn alif_blocks_forward(
    cpu: &Cpu,
    lanes: Lanes,
    neuron: &AlifNeuron,
    constants: &Constants<'_, f32>,
    current: &[f32],
    tape: &mut AlifBlocksTape,
) -> Result<Vec<f32>> {
    const OP: &str = "alif_blocks_forward";
    check(OP, lanes, neuron, constants)?;
    check_len(OP, "current", current.len(), lanes.len())?;
    tape.blocks.clear();
    let mut out = vec![0.0; lanes.len()];
    if lanes.is_empty() {
        return Ok(out);
    }
    let kernels = Kernels::new(lanes, neuron, constants);
    let (length, width) = (kernels.length, lanes.width);
    let weight = constants.weight.to_vec();
    let sample = length * width;
    for first in (0..lanes.steps).step_by(length) {
        let mut drive = take_block(lanes, first, length, current);
        let past = tape.blocks.last();
        if let Some(past) = past.filter(|_| neuron.recurrent) {
            let gemm = Gemm::new(lanes.batch * length, width, width).accumulating();
            cpu.gemm(gemm, &past.spikes, &weight, &mut drive)?;
        }
        let array = || vec![0.0; drive.len()];
        let (mut u, mut z, mut al, mut spikes) = (array(), array(), array(), array());
        let lane = || vec![0.0; lanes.batch * width];
        let (mut start, mut fired) = (lane(), lane());
        cpu.install(|| {
            let arrays = (drive.par_chunks_mut(sample), u.par_chunks_mut(sample), z.par_chunks_mut(sample));
            let arrays = (arrays.0.zip(arrays.1)).zip(arrays.2.zip(al.par_chunks_mut(sample)));
            let lanes_of =
                spikes.par_chunks_mut(sample).zip(start.par_chunks_mut(width).zip(fired.par_chunks_mut(width)));
            arrays.zip(lanes_of).enumerate().for_each(|(b, (((drive, u), (z, al)), (spikes, (start, fired))))| {
                if let Some(past) = past.map(|past| past.sample(b, lanes.batch)) {
                    begin(&kernels, &past, drive, start);
                    kernels.each(al, |n, at, _| kernels.growth[at] * start[n]);
                }
                correlate(width, &kernels.powers, drive, u, false);
                let mut over = u.to_vec();
                kernels.each(&mut over, |n, at, u| if u - (1.0 + kernels.raise(n, al[at])) > 0.0 { 1.0 } else { 0.0 });
                correlate(width, &kernels.phi, &over, z, false);
                kernels.each(spikes, |_, at, _| if z[at] == 1.0 { 1.0 } else { 0.0 });
                for row in spikes.chunks(width) {
                    fired.iter_mut().zip(row).for_each(|(fired, &s)| *fired = fired.max(s));
                }
            });
        });
        put_block(lanes, first, &spikes, &mut out);
        tape.blocks.push(Block { u, z, al, spikes, start, fired });
    }
    Ok(out)
}

/// Lets the block before act on the drive of this one, and gives the adaptation that it hands on.
fn begin(kernels: &Kernels<'_>, past: &Sample<'_>, drive: &mut [f32], start: &mut [f32]) {
    let (width, last) = (kernels.width, (kernels.length - 1) * kernels.width);
    kernels.each(drive, |n, at, q| if past.z[at] < past.fired[n] { 0.0 } else { q });
    for (n, q) in drive[..width].iter_mut().enumerate() {
        *q += kernels.constants.beta[n] * past.u[last + n] * (1.0 - past.fired[n]);
    }
    if kernels.neuron.adapts {
        let (after, at_spike) = (kernels.after(past.z), kernels.at_spike(past.al, past.spikes));
        for n in 0..width {
            let p = kernels.constants.decay[n];
            let with_spike = p.powi(after[n]) * (at_spike[n] + 1.0 / p);
            start[n] = if past.fired[n] > 0.0 { with_spike } else { past.al[last + n] };
        }
    }
}

/// The backward pass of [`alif_blocks_forward`], with the path of [`AlifGradient::Blocks`].
///
/// # Errors
///
/// [`snn_core::Error::Shape`] if a buffer does not fit.
pub fn alif_blocks_backward(
    cpu: &Cpu,
    lanes: Lanes,
    neuron: &AlifNeuron,
    constants: &Constants<'_, f32>,
    grad_spikes: &[f32],
    tape: &AlifBlocksTape,
) -> Result<AlifGradients> {
    const OP: &str = "alif_blocks_backward";
    check(OP, lanes, neuron, constants)?;
    check_len(OP, "grad_spikes", grad_spikes.len(), lanes.len())?;
    let width = lanes.width;
    let mut out = AlifGradients { current: vec![0.0; lanes.len()], ..AlifGradients::default() };
    let lane_len = lanes.batch * width;
    let [mut d_membrane, mut d_adaptation, mut grad_beta, mut grad_decay, mut grad_strength] =
        std::array::from_fn(|_| vec![0.0; lane_len]);
    out.weight = vec![0.0; constants.weight.len()];
    let weight = constants.weight.to_vec();
    let (attached, _) = paths(neuron);
    if !lanes.is_empty() {
        check_len(OP, "tape", tape.blocks.len(), lanes.steps.div_ceil(neuron.block()))?;
        let kernels = Kernels::new(lanes, neuron, constants);
        let length = kernels.length;
        let (sample, rows) = (length * width, lanes.batch * length);
        let mut later: Option<Vec<f32>> = None;
        for (i, block) in tape.blocks.iter().enumerate().rev() {
            let mut g = take_block(lanes, i * length, length, grad_spikes);
            if let Some(later) = later.as_ref().filter(|_| attached && neuron.recurrent) {
                cpu.gemm(Gemm::new(rows, width, width).b_transposed().accumulating(), later, &weight, &mut g)?;
            }
            let past = i.checked_sub(1).map(|before| &tape.blocks[before]);
            let mut d_drive = vec![0.0; g.len()];
            cpu.install(|| {
                let arrays = g.par_chunks_mut(sample).zip(d_drive.par_chunks_mut(sample));
                let carries = d_membrane.par_chunks_mut(width).zip(d_adaptation.par_chunks_mut(width));
                let grads = grad_beta.par_chunks_mut(width);
                let grads = grads.zip(grad_decay.par_chunks_mut(width)).zip(grad_strength.par_chunks_mut(width));
                let all = arrays.zip(carries).zip(grads).enumerate();
                all.for_each(|(b, (((g, d_drive), (d_membrane, d_adaptation)), ((beta, decay), strength)))| {
                    let carry = Carry { membrane: d_membrane, adaptation: d_adaptation };
                    let grads = Grads { beta, decay, strength };
                    let past = past.map(|past| past.sample(b, lanes.batch));
                    back(&kernels, &block.sample(b, lanes.batch), past.as_ref(), attached, g, d_drive, carry, grads);
                });
            });
            if let Some(past) = past.filter(|_| neuron.recurrent) {
                let gemm = Gemm::new(width, width, rows).a_transposed().accumulating();
                cpu.gemm(gemm, &past.spikes, &d_drive, &mut out.weight)?;
            }
            put_block(lanes, i * length, &d_drive, &mut out.current);
            later = Some(d_drive);
        }
    }
    out.beta = over_batch(cpu, lanes, &grad_beta)?;
    out.decay = over_batch(cpu, lanes, &grad_decay)?;
    out.strength = over_batch(cpu, lanes, &grad_strength)?;
    Ok(out)
}

/// Gradients on what a block hands on, `[N]`: in, those of the block after; out, those of the block before.
struct Carry<'a> {
    membrane: &'a mut [f32],
    adaptation: &'a mut [f32],
}

/// Gradients on constants, `[N]`, summed over blocks.
struct Grads<'a> {
    beta: &'a mut [f32],
    decay: &'a mut [f32],
    strength: &'a mut [f32],
}

/// One block of one sample backwards: from `g` on its spikes to `d_drive` on its current.
#[expect(clippy::too_many_arguments, reason = "a block, the one before, what comes in and what goes out")]
fn back(
    kernels: &Kernels<'_>,
    now: &Sample<'_>,
    past: Option<&Sample<'_>>,
    attached: bool,
    g: &mut [f32],
    d_drive: &mut [f32],
    carry: Carry<'_>,
    grads: Grads<'_>,
) {
    let (width, c, adapts) = (kernels.width, kernels.constants, kernels.neuron.adapts);
    let last = (kernels.length - 1) * width;
    let after = kernels.after(now.z);
    // p^d of neurons that fire: how the spike's adaptation reaches the block's end.
    let passed: Vec<f32> = (0..width).map(|n| now.fired[n] * c.decay[n].powi(after[n])).collect();
    if attached && adapts {
        kernels.each(g, |n, at, g| g + passed[n] * now.al[at] * carry.adaptation[n]);
    }
    let mut e = g.to_vec();
    correlate(width, &kernels.phi, g, &mut e, true);
    let mut distance = now.u.to_vec();
    kernels.each(&mut distance, |n, at, u| u - (1.0 + kernels.raise(n, now.al[at])));
    let mut slope = distance.clone();
    slope_row(kernels.neuron.surrogate, &distance, &mut slope);
    kernels.each(&mut e, |_, at, e| e * slope[at]);

    let mut d_u = e.clone();
    for n in 0..width {
        d_u[last + n] += (1.0 - now.fired[n]) * carry.membrane[n];
    }
    correlate(width, &kernels.powers, &d_u, d_drive, true);
    for (j, row) in d_drive.chunks(width).enumerate() {
        for (n, &d) in row.iter().enumerate() {
            let before = match (j, past) {
                (0, Some(past)) => past.u[last + n] * (1.0 - past.fired[n]),
                (0, None) => 0.0,
                _ => now.u[(j - 1) * width + n],
            };
            grads.beta[n] += d * before;
        }
    }
    for (out, (beta, d)) in carry.membrane.iter_mut().zip(c.beta.iter().zip(&d_drive[..width])) {
        *out = beta * d;
    }

    if adapts {
        let at_spike = kernels.at_spike(now.al, now.spikes);
        let mut d_al = e;
        for (j, row) in d_al.chunks_mut(width).enumerate() {
            for (n, d) in row.iter_mut().enumerate() {
                let at = j * width + n;
                grads.strength[n] -= *d * now.al[at];
                let kept = if at >= last { 1.0 - now.fired[n] } else { 0.0 };
                *d = (passed[n] * now.spikes[at] + kept) * carry.adaptation[n] - c.strength[n] * *d;
            }
        }
        for n in 0..width {
            let (p, d) = (c.decay[n], after[n]);
            if now.fired[n] > 0.0 {
                let through = if d > 0 { d as f32 * p.powi(d - 1) * (at_spike[n] + 1.0 / p) } else { 0.0 };
                grads.decay[n] += carry.adaptation[n] * (through - p.powi(d) / (p * p));
            }
        }
        carry.adaptation.fill(0.0);
        for (j, row) in d_al.chunks(width).enumerate() {
            for (n, &d) in row.iter().enumerate() {
                carry.adaptation[n] += kernels.growth[j * width + n] * d;
                grads.decay[n] += (j + 1) as f32 * c.decay[n].powi(j as i32) * now.start[n] * d;
            }
        }
    }
    if let Some(past) = past {
        kernels.each(d_drive, |n, at, d| if past.z[at] < past.fired[n] { 0.0 } else { d });
    }
}
