//! The algorithms as the block paper timed them, for the comparison benchmark alone.
//!
//! [`stepwise_forward`] and [`stepwise_backward`] are the sequential single-spike neuron with one whole-array
//! operation per line of the model and time step, intermediate arrays kept for the backward pass: what a framework
//! does. [`convolution_forward`] and [`convolution_backward`] are the block model with its two long convolutions,
//! quadratic in T. Training never calls them; tests hold them against the fused scans.

use rayon::prelude::*;
use snn_core::Lanes;
use snn_core::error::{Result, check_len};

use crate::memory::Cpu;
use crate::simd;

/// Everything that the step-by-step forward pass keeps, `[T][B * N]` each.
#[derive(Debug, Default)]
pub struct StepwiseTape {
    u: Vec<Vec<f32>>,
    h: Vec<Vec<f32>>,
    mask: Vec<Vec<f32>>,
    v: Vec<Vec<f32>>,
}

/// One whole-array operation of three arrays, in pieces over the threads.
fn map3(cpu: &Cpu, a: &[f32], b: &[f32], c: &[f32], f: impl Fn(f32, f32, f32) -> f32 + Sync) -> Vec<f32> {
    const STEP: usize = 1 << 14;
    let mut out = vec![0.0; a.len()];
    cpu.install(|| {
        let pieces = out.par_chunks_mut(STEP).zip(a.par_chunks(STEP)).zip(b.par_chunks(STEP).zip(c.par_chunks(STEP)));
        pieces.for_each(|((out, a), (b, c))| {
            simd::run(
                #[inline(always)]
                || {
                    for (((o, &a), &b), &c) in out.iter_mut().zip(a).zip(b).zip(c) {
                        *o = f(a, b, c);
                    }
                },
            );
        });
    });
    out
}

/// The current of step `t` of every sample, `[B * N]`.
fn slice_step(lanes: Lanes, x: &[f32], t: usize) -> Vec<f32> {
    let rows = x.chunks(lanes.width).skip(t).step_by(lanes.steps);
    rows.flatten().copied().collect()
}

/// The sequential single-spike neuron, one operation at a time; gives the spikes `[B, T, N]`.
///
/// # Errors
///
/// [`snn_core::Error::Shape`] if a buffer does not fit.
pub fn stepwise_forward(
    cpu: &Cpu,
    lanes: Lanes,
    beta: &[f32],
    current: &[f32],
    tape: &mut StepwiseTape,
) -> Result<Vec<f32>> {
    check_len("stepwise_forward", "current", current.len(), lanes.len())?;
    check_len("stepwise_forward", "beta", beta.len(), lanes.width)?;
    let beta: Vec<f32> = beta.iter().copied().cycle().take(lanes.batch * lanes.width).collect();
    let mut v = vec![0.0; beta.len()];
    let mut mask = v.clone();
    let mut spikes = vec![0.0; lanes.len()];
    *tape = StepwiseTape::default();
    for t in 0..lanes.steps {
        let i = slice_step(lanes, current, t);
        let leaked = map3(cpu, &beta, &v, &v, |beta, v, _| beta * v);
        let u = map3(cpu, &leaked, &i, &i, |a, b, _| a + b);
        let h = map3(cpu, &u, &u, &u, |u, _, _| if u > 1.0 { 1.0 } else { 0.0 });
        let s = map3(cpu, &h, &mask, &mask, |h, m, _| h * (1.0 - m));
        v = map3(cpu, &u, &mask, &mask, |u, m, _| u * (1.0 - m));
        let next = map3(cpu, &mask, &s, &s, |m, s, _| m.max(s));
        for (b, row) in s.chunks(lanes.width).enumerate() {
            let at = (b * lanes.steps + t) * lanes.width;
            spikes[at..at + lanes.width].copy_from_slice(row);
        }
        tape.u.push(u);
        tape.h.push(h);
        tape.v.push(v.clone());
        tape.mask.push(std::mem::replace(&mut mask, next));
    }
    Ok(spikes)
}

/// The backward pass of [`stepwise_forward`]: gradient on the current `[B, T, N]` and on the decay of each lane.
///
/// # Errors
///
/// [`snn_core::Error::Shape`] if a buffer does not fit.
pub fn stepwise_backward(
    cpu: &Cpu,
    lanes: Lanes,
    beta: &[f32],
    scale: f32,
    grad_spikes: &[f32],
    tape: &StepwiseTape,
) -> Result<(Vec<f32>, Vec<f32>)> {
    check_len("stepwise_backward", "grad_spikes", grad_spikes.len(), lanes.len())?;
    check_len("stepwise_backward", "tape", tape.u.len(), lanes.steps)?;
    let beta: Vec<f32> = beta.iter().copied().cycle().take(lanes.batch * lanes.width).collect();
    let zeros = vec![0.0; beta.len()];
    let (mut lam, mut grad_mask, mut grad_beta) = (zeros.clone(), zeros.clone(), zeros.clone());
    let mut grad_current = vec![0.0; lanes.len()];
    for t in (0..lanes.steps).rev() {
        let (u, h, mask) = (&tape.u[t], &tape.h[t], &tape.mask[t]);
        let s = map3(cpu, h, mask, mask, |h, m, _| h * (1.0 - m));
        let w = map3(cpu, &s, mask, mask, |s, m, _| {
            if s > m {
                1.0
            } else if s == m {
                0.5
            } else {
                0.0
            }
        });
        let gs = map3(cpu, &slice_step(lanes, grad_spikes, t), &w, &grad_mask, |g, w, gm| g + w * gm);
        let gv = map3(cpu, &beta, &lam, &lam, |beta, lam, _| beta * lam);
        let slope =
            map3(cpu, u, u, u, |u, _, _| 1.0 / ((scale * (u - 1.0).abs() + 1.0) * (scale * (u - 1.0).abs() + 1.0)));
        let through = map3(cpu, &gs, &slope, &gv, |gs, slope, gv| gv + gs * slope);
        lam = map3(cpu, &through, mask, mask, |x, m, _| (1.0 - m) * x);
        let kept = map3(cpu, &w, &grad_mask, &grad_mask, |w, gm, _| (1.0 - w) * gm);
        let less = map3(cpu, &kept, &gs, h, |kept, gs, h| kept - gs * h);
        grad_mask = map3(cpu, &less, &gv, u, |x, gv, u| x - gv * u);
        let before = if t > 0 { &tape.v[t - 1] } else { &zeros };
        grad_beta = map3(cpu, &grad_beta, &lam, before, |g, lam, v| g + lam * v);
        for (b, row) in lam.chunks(lanes.width).enumerate() {
            let at = (b * lanes.steps + t) * lanes.width;
            grad_current[at..at + lanes.width].copy_from_slice(row);
        }
    }
    Ok((grad_current, grad_beta))
}

/// What the convolutional forward pass keeps, `[B, T, N]` each.
#[derive(Debug, Default)]
pub struct ConvolutionTape {
    membrane: Vec<f32>,
}

/// `out[t, n] = sum over j <= t of kernel[t - j][n] * x[j, n]` for one sample, or its adjoint (`j >= t`).
fn correlate(width: usize, kernel: &[f32], x: &[f32], out: &mut [f32], reverse: bool) {
    let steps = x.len() / width;
    simd::run(
        #[inline(always)]
        || {
            for t in 0..steps {
                let out = &mut out[t * width..(t + 1) * width];
                out.fill(0.0);
                let span = if reverse { t..steps } else { 0..t + 1 };
                for j in span {
                    let kernel = &kernel[t.abs_diff(j) * width..][..width];
                    let x = &x[j * width..(j + 1) * width];
                    for ((o, &k), &x) in out.iter_mut().zip(kernel).zip(x) {
                        *o += k * x;
                    }
                }
            }
        },
    );
}

/// The powers of the decay and the latency kernel, `[T, N]` each, age first.
fn kernels(lanes: Lanes, beta: &[f32]) -> (Vec<f32>, Vec<f32>) {
    let powers = (0..lanes.steps).flat_map(|age| beta.iter().map(move |b| b.powi(age as i32))).collect();
    let phi = (0..lanes.steps).flat_map(|age| std::iter::repeat_n(age as f32 + 1.0, lanes.width)).collect();
    (powers, phi)
}

/// The block model by convolution over all steps; gives the spikes `[B, T, N]`.
///
/// # Errors
///
/// [`snn_core::Error::Shape`] if a buffer does not fit.
pub fn convolution_forward(
    cpu: &Cpu,
    lanes: Lanes,
    beta: &[f32],
    current: &[f32],
    tape: &mut ConvolutionTape,
) -> Result<Vec<f32>> {
    check_len("convolution_forward", "current", current.len(), lanes.len())?;
    check_len("convolution_forward", "beta", beta.len(), lanes.width)?;
    let (powers, phi) = kernels(lanes, beta);
    let sample = lanes.steps * lanes.width;
    tape.membrane.resize(lanes.len(), 0.0);
    let mut spikes = vec![0.0; lanes.len()];
    cpu.install(|| {
        let samples =
            current.par_chunks(sample).zip(tape.membrane.par_chunks_mut(sample)).zip(spikes.par_chunks_mut(sample));
        samples.for_each(|((current, membrane), spikes)| {
            correlate(lanes.width, &powers, current, membrane, false);
            let faulty: Vec<f32> = membrane.iter().map(|&v| if v > 1.0 { 1.0 } else { 0.0 }).collect();
            correlate(lanes.width, &phi, &faulty, spikes, false);
            spikes.iter_mut().for_each(|z| *z = if *z == 1.0 { 1.0 } else { 0.0 });
        });
    });
    Ok(spikes)
}

/// The backward pass of [`convolution_forward`]: gradient on the current `[B, T, N]` and on the decay of each lane.
///
/// # Errors
///
/// [`snn_core::Error::Shape`] if a buffer does not fit.
pub fn convolution_backward(
    cpu: &Cpu,
    lanes: Lanes,
    beta: &[f32],
    scale: f32,
    grad_spikes: &[f32],
    tape: &ConvolutionTape,
) -> Result<(Vec<f32>, Vec<f32>)> {
    check_len("convolution_backward", "grad_spikes", grad_spikes.len(), lanes.len())?;
    check_len("convolution_backward", "tape", tape.membrane.len(), lanes.len())?;
    let (powers, phi) = kernels(lanes, beta);
    let sample = lanes.steps * lanes.width;
    let mut grad_current = vec![0.0; lanes.len()];
    let mut grad_beta = vec![0.0; lanes.batch * lanes.width];
    cpu.install(|| {
        let samples = grad_current.par_chunks_mut(sample).zip(grad_beta.par_chunks_mut(lanes.width));
        let inputs = grad_spikes.par_chunks(sample).zip(tape.membrane.par_chunks(sample));
        samples.zip(inputs).for_each(|((grad_current, grad_beta), (grad, membrane))| {
            let mut local = vec![0.0; sample];
            correlate(lanes.width, &phi, grad, &mut local, true);
            for (g, &v) in local.iter_mut().zip(membrane) {
                let d = scale * (v - 1.0).abs() + 1.0;
                *g /= d * d;
            }
            correlate(lanes.width, &powers, &local, grad_current, true);
            for t in 1..lanes.steps {
                let now = &grad_current[t * lanes.width..(t + 1) * lanes.width];
                let before = &membrane[(t - 1) * lanes.width..t * lanes.width];
                grad_beta.iter_mut().zip(now).zip(before).for_each(|((g, &l), &v)| *g += l * v);
            }
        });
    });
    Ok((grad_current, grad_beta))
}
