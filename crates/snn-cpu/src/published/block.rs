//! The block paper: its sequential single-spike neuron and the block model.
//!
//! [`stepwise_forward`] and [`stepwise_backward`] are the sequential neuron, one operation at a time;
//! [`convolution_forward`] and [`convolution_backward`] are the block model with its two long convolutions, quadratic
//! in T.

use rayon::prelude::*;
use snn_core::Lanes;
use snn_core::error::{Result, check_len};

use super::{correlate, kernels, map3, slice_step, store_step};
use crate::memory::Cpu;

/// Everything that the step-by-step forward pass keeps, `[T][B * N]` each.
#[derive(Debug, Default)]
pub struct StepwiseTape {
    u: Vec<Vec<f32>>,
    h: Vec<Vec<f32>>,
    mask: Vec<Vec<f32>>,
    v: Vec<Vec<f32>>,
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
        store_step(lanes, &s, t, &mut spikes);
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
        store_step(lanes, &lam, t, &mut grad_current);
    }
    Ok((grad_current, grad_beta))
}

/// What the convolutional forward pass keeps, `[B, T, N]` each.
#[derive(Debug, Default)]
pub struct ConvolutionTape {
    membrane: Vec<f32>,
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
    let (powers, phi) = kernels(lanes.steps, beta);
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
    let (powers, phi) = kernels(lanes.steps, beta);
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
