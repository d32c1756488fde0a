//! The algorithms as the papers timed them, for the comparison benchmarks alone.
//!
//! | file | holds |
//! |---|---|
//! | `block.rs` | the sequential single-spike neuron and the block model with its two long convolutions |
//! | `alif.rs` | the sequential adaptive neuron and its simulation one refractory period at a time |
//!
//! Sequential neurons run one whole-array operation per line of the model and time step, intermediate arrays kept for
//! the backward pass: what a framework does. Training never calls any of this; tests hold it against the fused scans.

mod alif;
mod block;

use rayon::prelude::*;
use snn_core::Lanes;

use crate::memory::Cpu;
use crate::simd;

pub use alif::{
    AlifBlocksTape, AlifGradients, AlifStepwiseTape, alif_blocks_backward, alif_blocks_forward, alif_stepwise_backward,
    alif_stepwise_forward,
};
pub use block::{
    ConvolutionTape, StepwiseTape, convolution_backward, convolution_forward, stepwise_backward, stepwise_forward,
};

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

/// Puts step `t` of every sample, `[B * N]`, into its place.
fn store_step(lanes: Lanes, step: &[f32], t: usize, out: &mut [f32]) {
    for (b, row) in step.chunks(lanes.width).enumerate() {
        let at = (b * lanes.steps + t) * lanes.width;
        out[at..at + lanes.width].copy_from_slice(row);
    }
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

/// The powers of the decay and the latency kernel, `[steps, N]` each, age first.
fn kernels(steps: usize, beta: &[f32]) -> (Vec<f32>, Vec<f32>) {
    let powers = (0..steps).flat_map(|age| beta.iter().map(move |b| b.powi(age as i32))).collect();
    let phi = (0..steps).flat_map(|age| std::iter::repeat_n(age as f32 + 1.0, beta.len())).collect();
    (powers, phi)
}
