//! Convolution of channel-last maps, every step for itself.
//!
//! Spikes cost events: each adds (or reads) one row of output channels per kernel tap. Dense inputs and input
//! gradients are matrix products over patches. Weight gradients are summed in a fixed number of parts of the rows.

use rayon::prelude::*;
use snn_core::error::{Result, check_len};
use snn_core::{Conv, Spikes};

use crate::linalg::{Strides, add, sgemm};
use crate::memory::Cpu;
use crate::simd;

/// Parts into which rows are cut for a weight gradient: fixed, so the order of the sum is.
const PARTS: usize = 8;

/// Calls `visit(weight row, output position)` for every kernel tap that unit `unit` reaches; weight rows are those of
/// `[k * k * c_in, c_out]`.
#[inline(always)]
fn taps(conv: &Conv, unit: usize, mut visit: impl FnMut(usize, usize)) {
    let (m, o) = (conv.input, conv.output());
    let (c, x, y) = (unit % m.channels, unit / m.channels % m.width, unit / (m.channels * m.width));
    for ky in 0..conv.kernel {
        let Some(oy) = position(y + conv.padding, ky, conv.stride, o.height) else { continue };
        for kx in 0..conv.kernel_width {
            if let Some(ox) = position(x + conv.padding_width, kx, conv.stride, o.width) {
                visit((ky * conv.kernel_width + kx) * m.channels + c, oy * o.width + ox);
            }
        }
    }
}

/// The output position whose tap `k` lies on padded input position `at`.
#[inline(always)]
fn position(at: usize, k: usize, stride: usize, side: usize) -> Option<usize> {
    let offset = at.checked_sub(k)?;
    (offset % stride == 0 && offset / stride < side).then_some(offset / stride)
}

pub(crate) fn spikes_forward(
    cpu: &Cpu,
    conv: &Conv,
    spikes: &Spikes,
    weight: &[f32],
    bias: Option<&[f32]>,
    out: &mut [f32],
) -> Result<()> {
    let n_out = conv.output().len();
    check(conv, "weight", weight, bias)?;
    check_len("conv_spikes", "spikes", spikes.lanes().width, conv.input.len())?;
    check_len("conv_spikes", "out", out.len(), spikes.lanes().rows() * n_out)?;
    let c_out = conv.channels;
    cpu.install(|| {
        out.par_chunks_mut(n_out).enumerate().for_each(|(row, out)| {
            start(bias, out);
            simd::run(
                #[inline(always)]
                || {
                    for &unit in spikes.row(row) {
                        taps(conv, unit as usize, |weight_row, position| {
                            let weight = &weight[weight_row * c_out..][..c_out];
                            let out = &mut out[position * c_out..][..c_out];
                            out.iter_mut().zip(weight).for_each(|(o, &w)| *o += w);
                        });
                    }
                },
            );
        });
    });
    Ok(())
}

pub(crate) fn spikes_weight_grad(
    cpu: &Cpu,
    conv: &Conv,
    spikes: &Spikes,
    grad: &[f32],
    grad_weight: &mut [f32],
) -> Result<()> {
    let n_out = conv.output().len();
    check(conv, "grad_weight", grad_weight, None)?;
    check_len("conv_spikes", "spikes", spikes.lanes().width, conv.input.len())?;
    check_len("conv_spikes", "grad", grad.len(), spikes.lanes().rows() * n_out)?;
    let c_out = conv.channels;
    sum_parts(cpu, spikes.lanes().rows(), grad_weight, |rows, sum| {
        simd::run(
            #[inline(always)]
            || {
                for row in rows {
                    let grad = &grad[row * n_out..(row + 1) * n_out];
                    for &unit in spikes.row(row) {
                        taps(conv, unit as usize, |weight_row, position| {
                            let grad = &grad[position * c_out..][..c_out];
                            let sum = &mut sum[weight_row * c_out..][..c_out];
                            sum.iter_mut().zip(grad).for_each(|(s, &g)| *s += g);
                        });
                    }
                }
            },
        );
    });
    Ok(())
}

pub(crate) fn dense_forward(
    cpu: &Cpu,
    conv: &Conv,
    rows: usize,
    input: &[f32],
    weight: &[f32],
    bias: Option<&[f32]>,
    out: &mut [f32],
) -> Result<()> {
    let (n_in, n_out, c_out) = (conv.input.len(), conv.output().len(), conv.channels);
    check(conv, "weight", weight, bias)?;
    check_len("conv_dense", "input", input.len(), rows * n_in)?;
    check_len("conv_dense", "out", out.len(), rows * n_out)?;
    cpu.install(|| {
        out.par_chunks_mut(n_out).zip(input.par_chunks(n_in)).for_each_init(Vec::new, |patches, (out, input)| {
            start(bias, out);
            gather_patches(conv, input, patches);
            let fan = conv.fan_in();
            let (p, w) = ((&**patches, Strides::rows(fan)), (weight, Strides::rows(c_out)));
            sgemm(n_out / c_out, c_out, fan, p, w, (out, Strides::rows(c_out)), true);
        });
    });
    Ok(())
}

pub(crate) fn dense_weight_grad(
    cpu: &Cpu,
    conv: &Conv,
    rows: usize,
    input: &[f32],
    grad: &[f32],
    grad_weight: &mut [f32],
) -> Result<()> {
    let (n_in, n_out, c_out) = (conv.input.len(), conv.output().len(), conv.channels);
    check(conv, "grad_weight", grad_weight, None)?;
    check_len("conv_dense", "input", input.len(), rows * n_in)?;
    check_len("conv_dense", "grad", grad.len(), rows * n_out)?;
    sum_parts(cpu, rows, grad_weight, |rows, sum| {
        let mut patches = Vec::new();
        for row in rows {
            gather_patches(conv, &input[row * n_in..(row + 1) * n_in], &mut patches);
            let (fan, positions) = (conv.fan_in(), n_out / c_out);
            let p = (patches.as_slice(), Strides { row: 1, column: fan });
            let g = (&grad[row * n_out..(row + 1) * n_out], Strides::rows(c_out));
            sgemm(fan, c_out, positions, p, g, (sum, Strides::rows(c_out)), true);
        }
    });
    Ok(())
}

pub(crate) fn input_grad(
    cpu: &Cpu,
    conv: &Conv,
    rows: usize,
    grad: &[f32],
    weight: &[f32],
    grad_input: &mut [f32],
) -> Result<()> {
    let (n_in, n_out, c_out) = (conv.input.len(), conv.output().len(), conv.channels);
    check(conv, "weight", weight, None)?;
    check_len("conv", "grad", grad.len(), rows * n_out)?;
    check_len("conv", "grad_input", grad_input.len(), rows * n_in)?;
    let (fan, positions) = (conv.fan_in(), n_out / c_out);
    cpu.install(|| {
        grad_input.par_chunks_mut(n_in).zip(grad.par_chunks(n_out)).for_each_init(
            Vec::new,
            |patches, (grad_input, grad)| {
                patches.resize(positions * fan, 0.0);
                let (g, w) = ((grad, Strides::rows(c_out)), (weight, Strides { row: 1, column: c_out }));
                sgemm(positions, fan, c_out, g, w, (patches, Strides::rows(fan)), false);
                grad_input.fill(0.0);
                each_patch_row(conv, |patch, from, len| {
                    add(&patches[patch..patch + len], &mut grad_input[from..from + len])
                });
            },
        );
    });
    Ok(())
}

fn check(conv: &Conv, arg: &'static str, weight: &[f32], bias: Option<&[f32]>) -> Result<()> {
    check_len("conv", arg, weight.len(), conv.fan_in() * conv.channels)?;
    bias.map_or(Ok(()), |b| check_len("conv", "bias", b.len(), conv.channels))
}

/// Sets an output map to the bias.
fn start(bias: Option<&[f32]>, out: &mut [f32]) {
    match bias {
        Some(bias) => out.chunks_mut(bias.len().max(1)).for_each(|o| o.copy_from_slice(bias)),
        None => out.fill(0.0),
    }
}

/// Calls `visit(offset in the patch matrix, offset in the map, length)` for every run of channels that lies inside.
fn each_patch_row(conv: &Conv, mut visit: impl FnMut(usize, usize, usize)) {
    let (m, o, k, c) = (conv.input, conv.output(), conv.kernel_width, conv.input.channels);
    for y in 0..o.height {
        for x in 0..o.width {
            let patch = (y * o.width + x) * conv.fan_in();
            for ky in 0..conv.kernel {
                let Some(row) = conv.source(y, ky, m.height) else { continue };
                for kx in 0..k {
                    if let Some(column) = conv.source_column(x, kx, m.width) {
                        visit(patch + (ky * k + kx) * c, (row * m.width + column) * c, c);
                    }
                }
            }
        }
    }
}

/// The patch matrix `[positions, fan_in]` of one map.
fn gather_patches(conv: &Conv, input: &[f32], patches: &mut Vec<f32>) {
    patches.clear();
    patches.resize(conv.output().len() / conv.channels * conv.fan_in(), 0.0);
    each_patch_row(conv, |patch, from, len| patches[patch..patch + len].copy_from_slice(&input[from..from + len]));
}

/// Sums `work(rows, sum)` over fixed parts of the rows, in order.
fn sum_parts(cpu: &Cpu, rows: usize, out: &mut [f32], work: impl Fn(std::ops::Range<usize>, &mut [f32]) + Sync) {
    let size = rows.div_ceil(PARTS).max(1);
    let parts: Vec<Vec<f32>> = cpu.install(|| {
        (0..rows)
            .into_par_iter()
            .step_by(size)
            .map(|from| {
                let mut sum = vec![0.0; out.len()];
                work(from..(from + size).min(rows), &mut sum);
                sum
            })
            .collect()
    });
    out.fill(0.0);
    parts.iter().for_each(|part| add(part, out));
}
