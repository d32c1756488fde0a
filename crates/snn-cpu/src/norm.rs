//! Normalisation of channels: moments, the map and its adjoint over channel-last rows.
//!
//! Sums are formed over parts of fixed size and joined in order in double precision, so the bits do not depend on the
//! number of threads and long columns lose nothing.

use rayon::prelude::*;
use snn_core::backend::ChannelNorm;
use snn_core::error::{Result, check_len};

use crate::memory::{Cpu, PIECE};
use crate::simd;

/// Entries of a part, about: whole rows, so that every channel begins where a row does.
fn part(channels: usize) -> usize {
    (PIECE / channels).max(1) * channels
}

/// Sums over the rows by channel; `row(part, sums)` adds the rows of one part to its sums.
fn sum(cpu: &Cpu, len: usize, sums: usize, channels: usize, add: impl Fn(usize, &mut [f32]) + Sync) -> Vec<f64> {
    let parts: Vec<Vec<f32>> = cpu.install(|| {
        (0..len.div_ceil(part(channels)))
            .into_par_iter()
            .map(|p| {
                let mut sum = vec![0.0; sums];
                add(p * part(channels), &mut sum);
                sum
            })
            .collect()
    });
    let mut total = vec![0.0; sums];
    for part in &parts {
        total.iter_mut().zip(part).for_each(|(t, &x)| *t += f64::from(x));
    }
    total
}

pub(crate) fn moments(cpu: &Cpu, x: &[f32], mean: &mut [f32], variance: &mut [f32]) -> Result<()> {
    const OP: &str = "channel_moments";
    let channels = mean.len();
    check_len(OP, "variance", variance.len(), channels)?;
    check_len(OP, "x", x.len(), x.len() / channels.max(1) * channels)?;
    if channels == 0 {
        return Ok(());
    }
    let share = channels as f64 / x.len() as f64;
    let rows = |from: usize| x[from..(from + part(channels)).min(x.len())].chunks_exact(channels);
    let first = sum(cpu, x.len(), channels, channels, |from, sum| {
        simd::run(
            #[inline(always)]
            || rows(from).for_each(|row| sum.iter_mut().zip(row).for_each(|(s, &x)| *s += x)),
        );
    });
    mean.iter_mut().zip(first).for_each(|(m, s)| *m = (s * share) as f32);
    let mean = &*mean;
    let second = sum(cpu, x.len(), channels, channels, |from, sum| {
        simd::run(
            #[inline(always)]
            || {
                for row in rows(from) {
                    for ((s, &x), &m) in sum.iter_mut().zip(row).zip(mean) {
                        *s += (x - m) * (x - m);
                    }
                }
            },
        );
    });
    variance.iter_mut().zip(second).for_each(|(v, s)| *v = (s * share) as f32);
    Ok(())
}

/// Checks the sizes; gives the channels and the inverse deviations.
fn prepare(op: &'static str, norm: &ChannelNorm<'_, Cpu>, len: usize) -> Result<(usize, Vec<f32>)> {
    let channels = norm.mean.len();
    for (arg, list) in [("variance", norm.variance), ("gain", norm.gain), ("offset", norm.offset)] {
        check_len(op, arg, list.len(), channels)?;
    }
    check_len(op, "x", len, len / channels.max(1) * channels)?;
    Ok((channels, norm.variance.iter().map(|&v| (1.0 / (f64::from(v) + norm.eps).sqrt()) as f32).collect()))
}

pub(crate) fn forward(
    cpu: &Cpu,
    norm: &ChannelNorm<'_, Cpu>,
    x: &mut [f32],
    normalised: Option<&mut Vec<f32>>,
) -> Result<()> {
    const OP: &str = "normalise_channels";
    let (channels, inverse) = prepare(OP, norm, x.len())?;
    if let Some(out) = &normalised {
        check_len(OP, "normalised", out.len(), x.len())?;
    }
    if channels == 0 {
        return Ok(());
    }
    let (mean, gain, offset) = (norm.mean.as_slice(), norm.gain.as_slice(), norm.offset.as_slice());
    let size = part(channels);
    cpu.install(|| match normalised {
        Some(out) => x.par_chunks_mut(size).zip(out.par_chunks_mut(size)).for_each(|(x, out)| {
            simd::run(
                #[inline(always)]
                || {
                    for (x, out) in x.chunks_exact_mut(channels).zip(out.chunks_exact_mut(channels)) {
                        for c in 0..channels {
                            out[c] = (x[c] - mean[c]) * inverse[c];
                            x[c] = gain[c] * out[c] + offset[c];
                        }
                    }
                },
            );
        }),
        None => x.par_chunks_mut(size).for_each(|x| {
            simd::run(
                #[inline(always)]
                || {
                    for x in x.chunks_exact_mut(channels) {
                        for c in 0..channels {
                            x[c] = gain[c] * ((x[c] - mean[c]) * inverse[c]) + offset[c];
                        }
                    }
                },
            );
        }),
    });
    Ok(())
}

pub(crate) fn backward(
    cpu: &Cpu,
    norm: &ChannelNorm<'_, Cpu>,
    grad: &[f32],
    normalised: &mut [f32],
    grad_gain: &mut [f32],
    grad_offset: &mut [f32],
) -> Result<()> {
    const OP: &str = "normalise_channels_grad";
    let (channels, inverse) = prepare(OP, norm, grad.len())?;
    check_len(OP, "normalised", normalised.len(), grad.len())?;
    check_len(OP, "grad_gain", grad_gain.len(), channels)?;
    check_len(OP, "grad_offset", grad_offset.len(), channels)?;
    if channels == 0 {
        return Ok(());
    }
    let size = part(channels);
    let given = &*normalised;
    let sums = sum(cpu, grad.len(), 2 * channels, channels, |from, sums| {
        let range = from..(from + size).min(grad.len());
        let (on_gain, on_offset) = sums.split_at_mut(channels);
        simd::run(
            #[inline(always)]
            || {
                let rows = grad[range.clone()].chunks_exact(channels).zip(given[range].chunks_exact(channels));
                for (g, h) in rows {
                    for c in 0..channels {
                        on_gain[c] += g[c] * h[c];
                        on_offset[c] += g[c];
                    }
                }
            },
        );
    });
    let share = channels as f64 / grad.len() as f64;
    let mut terms = Vec::with_capacity(channels);
    for c in 0..channels {
        let (on_gain, on_offset) = (sums[c], sums[channels + c]);
        (grad_gain[c], grad_offset[c]) = (on_gain as f32, on_offset as f32);
        terms.push([norm.gain[c] * inverse[c], (on_offset * share) as f32, (on_gain * share) as f32]);
    }
    let factor: Vec<f32> = terms.iter().map(|t| t[0]).collect();
    let level: Vec<f32> = terms.iter().map(|t| t[1]).collect();
    let slope: Vec<f32> = terms.iter().map(|t| t[2]).collect();
    cpu.install(|| {
        normalised.par_chunks_mut(size).zip(grad.par_chunks(size)).for_each(|(h, g)| {
            simd::run(
                #[inline(always)]
                || {
                    for (h, g) in h.chunks_exact_mut(channels).zip(g.chunks_exact(channels)) {
                        for c in 0..channels {
                            h[c] = factor[c] * (g[c] - level[c] - h[c] * slope[c]);
                        }
                    }
                },
            );
        });
    });
    Ok(())
}
