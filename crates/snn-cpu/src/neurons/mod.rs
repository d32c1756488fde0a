//! Fused linear-time scans of the neuron families, forward and reverse: one file each, as in [`snn_core::neurons`].

pub mod alif;
pub mod block;
pub mod cuba;
pub mod event;
mod filters;
pub mod lif;
pub mod paralif;
pub mod ttfs;

use rayon::prelude::*;
use snn_core::backend::{Leak, LeakGrad};
use snn_core::error::{Result, check_len};
use snn_core::{Lanes, Spikes, Surrogate};

use crate::memory::Cpu;
use crate::simd;

/// Neurons that a scan takes at a time: all rows of its state stay in the first-level cache.
pub(crate) const TILE: usize = 512;

/// "No spike yet" in the spike times of a scan; larger than every step.
pub(crate) const SILENT: u32 = u32::MAX;

/// Checks the buffers that all scans share and gives the clamped decay of every neuron.
pub(crate) fn decays(op: &'static str, lanes: Lanes, leak: &Leak<'_, Cpu>, state: usize) -> Result<Vec<f32>> {
    check_len(op, "state", state, lanes.len())?;
    if let Some(v) = leak.initial {
        check_len(op, "initial", v.len(), lanes.batch * lanes.width)?;
    }
    if leak.beta_raw.len() == 1 {
        return Ok(vec![leak.beta_raw[0].clamp(0.0, 1.0); lanes.width]);
    }
    check_len(op, "beta", leak.beta_raw.len(), lanes.width)?;
    Ok(leak.beta_raw.iter().map(|b| b.clamp(0.0, 1.0)).collect())
}

/// What a scan's reverse pass sees of one sample and one tile of neurons.
///
/// Rows of `state` and `grad` are `stride` apart; all other slices hold one entry per neuron of the tile.
#[derive(Debug)]
pub(crate) struct Tile<'a> {
    pub(crate) steps: usize,
    pub(crate) stride: usize,
    /// Offset of the tile in a row.
    pub(crate) at: usize,
    pub(crate) beta: &'a [f32],
    pub(crate) state: &'a [f32],
    pub(crate) grad: &'a mut [f32],
    pub(crate) grad_membrane: Option<&'a [f32]>,
    /// Receives the gradient on the decay, before the clamp mask.
    pub(crate) grad_beta: &'a mut [f32],
    /// Receives the gradient on the current at step 0.
    pub(crate) first: &'a mut [f32],
    /// Receives the gradient on the current summed over time.
    pub(crate) sum: &'a mut [f32],
}

/// One step of a reverse pass over a tile: rows of equal length.
pub(crate) struct Row<'a> {
    pub(crate) step: usize,
    pub(crate) beta: &'a [f32],
    pub(crate) state: &'a [f32],
    /// The state of the step before; zeros before step 0.
    pub(crate) before: &'a [f32],
    /// The incoming gradient on the membrane; zeros if there is none.
    pub(crate) grad_membrane: &'a [f32],
    pub(crate) grad: &'a mut [f32],
    /// The gradient on the current of the step after, to be replaced by this step's.
    pub(crate) lam: &'a mut [f32],
    pub(crate) sum: &'a mut [f32],
    pub(crate) grad_beta: &'a mut [f32],
}

impl Tile<'_> {
    /// Calls `visit` for every step, last to first.
    #[inline(always)]
    pub(crate) fn walk_back(self, mut visit: impl FnMut(Row<'_>)) {
        let width = self.beta.len();
        let (zeros, mut lam) = ([0.0_f32; TILE], [0.0_f32; TILE]);
        let (zeros, lam) = (&zeros[..width], &mut lam[..width]);
        self.grad_beta.fill(0.0);
        self.sum.fill(0.0);
        for step in (0..self.steps).rev() {
            let row = step * self.stride + self.at;
            // Rows come in falling order, which hardware does not foresee: ask for the next ones now.
            if step > 2 {
                let ahead = row - 2 * self.stride;
                simd::prefetch(&self.grad[ahead..ahead + width]);
                simd::prefetch(&self.state[ahead - self.stride..ahead - self.stride + width]);
            }
            visit(Row {
                step,
                beta: self.beta,
                state: &self.state[row..row + width],
                before: if step > 0 { &self.state[row - self.stride..row - self.stride + width] } else { zeros },
                grad_membrane: self.grad_membrane.map_or(zeros, |g| &g[row..row + width]),
                grad: &mut self.grad[row..row + width],
                lam,
                sum: self.sum,
                grad_beta: self.grad_beta,
            });
        }
        self.first.copy_from_slice(lam);
    }
}

/// Cuts a reverse pass into samples and tiles, runs `scan` on each, and writes the gradients of the leak.
///
/// `scan` fills `grad_beta` without the term of the initial membrane, `first` and `sum`; `first_decays` says whether
/// the initial membrane enters step 0 multiplied by the decay.
#[expect(clippy::too_many_arguments, reason = "the arguments of every `family_backward`, and what to do with them")]
pub(crate) fn reverse_tiles(
    op: &'static str,
    cpu: &Cpu,
    lanes: Lanes,
    leak: &Leak<'_, Cpu>,
    state: &[f32],
    grad: &mut [f32],
    leak_grad: LeakGrad<'_, Cpu>,
    first_decays: bool,
    scan: impl Fn(Tile<'_>) + Sync,
) -> Result<()> {
    let betas = decays(op, lanes, leak, state.len())?;
    check_len(op, "grad", grad.len(), lanes.len())?;
    let LeakGrad { membrane, beta, initial, current_sum } = leak_grad;
    if let Some(m) = membrane {
        check_len(op, "grad_membrane", m.len(), lanes.len())?;
    }
    let lane_count = lanes.batch * lanes.width;
    for (arg, buffer) in [("grad_beta", &beta), ("grad_initial", &initial), ("current_sum", &current_sum)] {
        if let Some(b) = buffer {
            check_len(op, arg, b.len(), lane_count)?;
        }
    }
    if lanes.is_empty() {
        return Ok(());
    }
    let (mut no_beta, mut no_first, mut no_sum) = (Vec::new(), Vec::new(), Vec::new());
    let or_scratch = |wanted: Option<&mut Vec<f32>>, own: &mut Vec<f32>| match wanted {
        Some(buffer) => std::mem::take(buffer),
        None => {
            own.resize(lane_count, 0.0);
            std::mem::take(own)
        }
    };
    let (mut beta, mut initial, mut current_sum) = (beta, initial, current_sum);
    let mut grad_beta = or_scratch(beta.as_deref_mut(), &mut no_beta);
    let mut first = or_scratch(initial.as_deref_mut(), &mut no_first);
    let mut sum = or_scratch(current_sum.as_deref_mut(), &mut no_sum);

    let (sample, width) = (lanes.steps * lanes.width, lanes.width);
    let raw = |n: usize| if leak.beta_raw.len() == 1 { leak.beta_raw[0] } else { leak.beta_raw[n] };
    cpu.install(|| {
        let per_sample = grad
            .par_chunks_mut(sample)
            .zip(grad_beta.par_chunks_mut(width))
            .zip(first.par_chunks_mut(width).zip(sum.par_chunks_mut(width)));
        per_sample.enumerate().for_each(|(b, ((grad, grad_beta), (first, sum)))| {
            let start = leak.initial.map(|v| &v[b * width..(b + 1) * width]);
            for at in (0..width).step_by(TILE) {
                let cut = at..(at + TILE).min(width);
                scan(Tile {
                    steps: lanes.steps,
                    stride: width,
                    at,
                    beta: &betas[cut.clone()],
                    state: &state[b * sample..(b + 1) * sample],
                    grad,
                    grad_membrane: membrane.map(|m| &m[b * sample..(b + 1) * sample]),
                    grad_beta: &mut grad_beta[cut.clone()],
                    first: &mut first[cut.clone()],
                    sum: &mut sum[cut],
                });
            }
            for n in 0..width {
                if let (true, Some(v)) = (first_decays, start) {
                    grad_beta[n] += first[n] * v[n];
                }
                grad_beta[n] *= snn_core::neurons::clamp_mask(raw(n));
                if first_decays {
                    first[n] *= betas[n];
                }
            }
        });
    });
    for (wanted, got) in [(beta, grad_beta), (initial, first), (current_sum, sum)] {
        if let Some(buffer) = wanted {
            *buffer = got;
        }
    }
    Ok(())
}

/// The row of step `t - 1` and the row of step `t`, cut to a tile.
#[inline(always)]
pub(crate) fn two_rows(state: &mut [f32], width: usize, t: usize, at: usize, end: usize) -> (&[f32], &mut [f32]) {
    let (past, now) = state.split_at_mut(t * width);
    (&past[(t - 1) * width + at..(t - 1) * width + end], &mut now[at..end])
}

/// Runs `$body` with the surrogate's slope as a closure, so that each surrogate gets its own vectorised loop.
///
/// Every arm names its variant anew inside the closure: a variant that came in by a capture would be looked up in the
/// loop, and no loop with that branch in it is vectorised. The Gaussians go without the library's exponential, which is
/// a call.
macro_rules! with_slope {
    ($surrogate:expr, $slope:ident => $body:expr) => {
        with_slope!(@arms $surrogate, $slope => $body,
            FastSigmoid { scale }, Boxcar { half_width }, Arctan { alpha })
    };
    (@arms $surrogate:expr, $slope:ident => $body:expr, $($variant:ident { $($field:ident),* }),*) => {
        match $surrogate {
            snn_core::Surrogate::MultiGaussian { height, width, gain } => {
                let $slope = $crate::neurons::slope_fn(
                    #[inline(always)]
                    move |u| $crate::math::multi_gaussian(height, width, gain, u),
                );
                $body
            }
            $(snn_core::Surrogate::$variant { $($field),* } => {
                let $slope = $crate::neurons::slope_fn(
                    #[inline(always)]
                    move |u| snn_core::Surrogate::$variant { $($field),* }.slope(u),
                );
                $body
            })*
        }
    };
}
pub(crate) use with_slope;

/// Gives a closure back: a place for its `#[inline(always)]`, which `let` does not take.
pub(crate) fn slope_fn<F: Fn(f32) -> f32 + Copy + Sync>(slope: F) -> F {
    slope
}

/// Turns the spike time of every lane, `[B, N]` with [`SILENT`] for none, into row lists.
pub(crate) fn spikes_from_times(cpu: &Cpu, lanes: Lanes, times: &[u32], out: &mut Spikes) {
    let mut lengths = vec![0_u32; lanes.rows()];
    cpu.install(|| {
        let per_sample = lengths.par_chunks_mut(lanes.steps.max(1)).zip(times.par_chunks(lanes.width.max(1)));
        per_sample.for_each(|(lengths, times)| {
            times.iter().filter(|&&t| t != SILENT).for_each(|&t| lengths[t as usize] += 1);
        });
    });
    fill_rows(cpu, lanes, &lengths, out, |b, offsets, units| {
        let mut next: Vec<usize> = offsets[..lanes.steps].iter().map(|o| o - offsets[0]).collect();
        for (n, &t) in times[b * lanes.width..(b + 1) * lanes.width].iter().enumerate() {
            if t != SILENT {
                units[next[t as usize]] = n as u32;
                next[t as usize] += 1;
            }
        }
    });
}

/// Sources that a column of the transposed product takes at a time: its sums stay in registers.
const COLUMN: usize = 64;

/// `out[m] = sum over n of q[n] rows[n, m]`, a column of sums at a time.
#[inline(always)]
pub(crate) fn transposed_product(rows: &[f32], q: &[f32], out: &mut [f32]) {
    let width = q.len();
    for (at, out) in (0..width).step_by(COLUMN).zip(out.chunks_mut(COLUMN)) {
        let mut sums = [0.0_f32; COLUMN];
        if out.len() == COLUMN {
            for (n, &q) in q.iter().enumerate() {
                let row = &rows[n * width + at..][..COLUMN];
                for k in 0..COLUMN {
                    sums[k] += q * row[k];
                }
            }
        } else {
            for (n, &q) in q.iter().enumerate() {
                let row = &rows[n * width + at..][..out.len()];
                sums.iter_mut().zip(row).for_each(|(sum, w)| *sum += q * w);
            }
        }
        out.copy_from_slice(&sums[..out.len()]);
    }
}

/// Words of one row of spike bits.
pub(crate) const fn words(width: usize) -> usize {
    width.div_ceil(32)
}

/// One bit per lane above the threshold; a row of lanes fills its words from the lowest bit on.
#[inline(always)]
pub(crate) fn pack_row(threshold: f32, row: &[f32], bits: &mut [u32]) {
    for (word, lanes) in bits.iter_mut().zip(row.chunks(32)) {
        *word = pack(threshold, lanes);
    }
}

/// One bit per lane above the threshold, at most 32 lanes.
#[inline(always)]
fn pack(threshold: f32, lanes: &[f32]) -> u32 {
    let mut bytes = [0_u8; 32];
    if let Ok(lanes) = <&[f32; 32]>::try_from(lanes) {
        bytes = lanes.map(|u| u8::from(u > threshold));
    } else {
        bytes.iter_mut().zip(lanes).for_each(|(b, &u)| *b = u8::from(u > threshold));
    }
    // Eight bytes of 0 or 1 become eight bits of one byte by a multiplication that gathers them at the top.
    const GATHER: u64 = 0x0102_0408_1020_4080;
    bytes.chunks_exact(8).rev().fold(0, |word, eight| {
        let eight =
            u64::from_le_bytes([eight[0], eight[1], eight[2], eight[3], eight[4], eight[5], eight[6], eight[7]]);
        word << 8 | (eight.wrapping_mul(GATHER) >> 56) as u32
    })
}

/// `out = S'(x)`.
#[inline(always)]
pub(crate) fn slope_row(surrogate: Surrogate, x: &[f32], out: &mut [f32]) {
    with_slope!(surrogate, slope => map_slope(slope, x, out));
}

#[inline(always)]
fn map_slope(slope: impl Fn(f32) -> f32, x: &[f32], out: &mut [f32]) {
    let n = out.len();
    let x = &x[..n];
    for k in 0..n {
        out[k] = slope(x[k]);
    }
}

/// Turns spike bits `[B, T, words(N)]` into row lists.
pub(crate) fn spikes_from_bits(cpu: &Cpu, lanes: Lanes, bits: &[u32], out: &mut Spikes) {
    let row_words = words(lanes.width);
    let mut lengths = vec![0_u32; lanes.rows()];
    cpu.install(|| {
        let rows = lengths.par_iter_mut().with_min_len(64).zip(bits.par_chunks(row_words.max(1)));
        rows.for_each(|(length, row)| *length = row.iter().map(|w| w.count_ones()).sum());
    });
    fill_rows(cpu, lanes, &lengths, out, |b, _, units| {
        let mut units = units.iter_mut();
        let sample = &bits[b * lanes.steps * row_words..(b + 1) * lanes.steps * row_words];
        for row in sample.chunks(row_words.max(1)) {
            for (w, &word) in row.iter().enumerate() {
                let mut rest = word;
                while rest != 0 {
                    if let Some(unit) = units.next() {
                        *unit = (w * 32) as u32 + rest.trailing_zeros();
                    }
                    rest &= rest - 1;
                }
            }
        }
    });
}

/// Lays the rows out by their lengths and lets `fill(sample, offsets, units)` write each sample's units.
fn fill_rows(
    cpu: &Cpu,
    lanes: Lanes,
    lengths: &[u32],
    out: &mut Spikes,
    fill: impl Fn(usize, &[usize], &mut [u32]) + Sync,
) {
    let (offsets, mut units) = out.reserve(lanes, lengths.iter().map(|&n| n as usize));
    let mut samples = Vec::with_capacity(lanes.batch);
    for b in 0..lanes.batch {
        let bounds = &offsets[b * lanes.steps..=(b + 1) * lanes.steps];
        let (head, tail) = units.split_at_mut(bounds[lanes.steps] - bounds[0]);
        units = tail;
        samples.push((b, bounds, head));
    }
    cpu.install(|| samples.into_par_iter().for_each(|(b, bounds, units)| fill(b, bounds, units)));
}
