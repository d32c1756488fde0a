//! Neurons that spike at most once: rectifiers with a shift for each region, what happens to their times on the way, and
//! what a layer came to.

use snn_core::Borders;
use snn_core::backend::{Census, TtfsOps};
use snn_core::error::{Result, check_len};
use snn_core::neurons::ttfs::{self, Grid, Perturbation, TtfsNeuron};
use snn_core::random::{SpikeDraws, normal_f32, philox};

use crate::memory::{Cpu, PIECE};
use crate::product::add;
use crate::simd;

/// Parts of the samples whose gradients on the shift are summed one after the other, at most: their number depends on
/// sizes alone, so the order of the sum does.
const PARTS: usize = 8;

/// Entries of whole rows of `width` that make a piece of work.
fn piece(width: usize) -> usize {
    (PIECE / width.max(1)).max(1) * width.max(1)
}

/// Channels and neurons of a layer, from its shift `[R, C]`, after checking it and the samples in `len` entries.
fn sizes(op: &'static str, borders: &Borders, shift: usize, len: usize) -> Result<(usize, usize)> {
    let channels = shift / borders.regions();
    check_len(op, "shift", shift, channels * borders.regions())?;
    let width = (channels * borders.positions()).max(1);
    check_len(op, "x", len, len / width * width)?;
    Ok((channels, width))
}

/// Entries of a row, after checking that `len` is `rows` of them.
fn row_width(op: &'static str, rows: usize, len: usize) -> Result<usize> {
    let width = len / rows.max(1);
    check_len(op, "x", len, rows * width)?;
    Ok(width)
}

/// One normal draw for each neuron of a sample, in the order of [`SpikeDraws::normal`].
fn normals(draws: &SpikeDraws, sample: usize, out: &mut [f32]) {
    let width = out.len();
    let blocks = SpikeDraws::blocks(width);
    let (radius, angle) = (draws.counter(sample, 0, width), draws.counter(sample, 1, width));
    for block in 0..blocks {
        let words = |counter: [u32; 4]| {
            philox([counter[0].wrapping_add(block as u32), counter[1], counter[2], counter[3]], draws.key())
        };
        let (radius, angle) = (words(radius), words(angle));
        for word in 0..4 {
            if let Some(out) = out.get_mut(word * blocks + block) {
                *out = normal_f32([radius[word], angle[word]]);
            }
        }
    }
}

impl Cpu {
    /// Calls `work(sample, draws)` for every sample with its row of `rows`; draws are 0 without noise.
    fn with_draws(
        &self,
        noise: f64,
        draws: &SpikeDraws,
        width: usize,
        rows: &mut [f32],
        work: impl Fn(usize, &mut [f32], &[f32]) + Sync,
    ) {
        let piece = piece(width);
        self.each_piece(rows.chunks_mut(piece).enumerate(), |(i, rows)| {
            let mut normal = vec![0.0; width];
            for (sample, row) in (i * (piece / width)..).zip(rows.chunks_mut(width)) {
                if noise > 0.0 {
                    normals(draws, sample, &mut normal);
                }
                work(sample, row, &normal);
            }
        });
    }
}

impl TtfsOps for Cpu {
    fn ttfs_forward(
        &self,
        neuron: &TtfsNeuron,
        borders: &Borders,
        shift: &Vec<f32>,
        slope: Option<&Vec<f32>>,
        window: &Vec<f32>,
        x: &mut Vec<f32>,
    ) -> Result<()> {
        const OP: &str = "ttfs_forward";
        check_len(OP, "window", window.len(), 1)?;
        let (channels, width) = sizes(OP, borders, shift.len(), x.len())?;
        slope.map_or(Ok(()), |slope| check_len(OP, "slope", slope.len(), channels))?;
        // An activation that is not held fits any window.
        let most = if neuron.limited { window[0] } else { f32::INFINITY };
        self.each_piece(x.chunks_mut(piece(width)), |x| {
            simd::run(
                #[inline(always)]
                || {
                    for x in x.chunks_exact_mut(width) {
                        for (position, x) in x.chunks_exact_mut(channels.max(1)).enumerate() {
                            let shift = &shift[borders.region(position) * channels..][..channels];
                            x.iter_mut().zip(shift).for_each(|(x, &d)| {
                                let potential = *x + d;
                                let fired = if potential > 0.0 { potential } else { 0.0 };
                                *x = if fired > most { most } else { fired };
                            });
                            if let Some(slope) = slope {
                                x.iter_mut().zip(slope).for_each(|(x, &b)| *x = if b > 0.0 { *x } else { 0.0 });
                            }
                        }
                    }
                },
            );
        });
        Ok(())
    }

    fn ttfs_backward(
        &self,
        neuron: &TtfsNeuron,
        borders: &Borders,
        window: &Vec<f32>,
        x: &Vec<f32>,
        grad: &mut Vec<f32>,
        grad_shift: &mut Vec<f32>,
    ) -> Result<()> {
        const OP: &str = "ttfs_backward";
        check_len(OP, "window", window.len(), 1)?;
        let (channels, width) = sizes(OP, borders, grad_shift.len(), x.len())?;
        check_len(OP, "grad", grad.len(), x.len())?;
        let most = if neuron.limited { window[0] } else { f32::INFINITY };
        let part = ((x.len() / width).div_ceil(PARTS) * width).max(piece(width));
        let mut sums = vec![0.0; x.len().div_ceil(part) * grad_shift.len()];
        let parts = grad.chunks_mut(part).zip(x.chunks(part)).zip(sums.chunks_mut(grad_shift.len().max(1)));
        self.each_piece(parts, |((grad, x), sums)| {
            simd::run(
                #[inline(always)]
                || {
                    let positions = grad.chunks_exact_mut(channels.max(1)).zip(x.chunks_exact(channels.max(1)));
                    for (at, (grad, x)) in positions.enumerate() {
                        let region = borders.region(at % borders.positions());
                        let sum = &mut sums[region * channels..][..channels];
                        grad.iter_mut().zip(x).zip(sum).for_each(|((grad, &x), sum)| {
                            *grad = if x > 0.0 && x < most { *grad } else { 0.0 };
                            *sum += *grad;
                        });
                    }
                },
            );
        });
        grad_shift.fill(0.0);
        sums.chunks_exact(grad_shift.len().max(1)).for_each(|sum| add(sum, grad_shift));
        Ok(())
    }

    fn ttfs_perturb(
        &self,
        perturbation: &Perturbation,
        draws: SpikeDraws,
        rows: usize,
        window: &Vec<f32>,
        x: &Vec<f32>,
        out: &mut Vec<f32>,
    ) -> Result<()> {
        const OP: &str = "ttfs_perturb";
        check_len(OP, "window", window.len(), 1)?;
        let width = row_width(OP, rows, x.len())?;
        check_len(OP, "out", out.len(), x.len())?;
        self.with_draws(perturbation.noise, &draws, width, out, |sample, out, normal| {
            let x = &x[sample * width..][..width];
            for ((out, &x), &normal) in out.iter_mut().zip(x).zip(normal) {
                *out = perturbation.apply(x, normal, window[0]);
            }
        });
        Ok(())
    }

    fn ttfs_perturb_grad(
        &self,
        perturbation: &Perturbation,
        draws: SpikeDraws,
        rows: usize,
        window: &Vec<f32>,
        x: &Vec<f32>,
        grad: &mut Vec<f32>,
    ) -> Result<()> {
        const OP: &str = "ttfs_perturb_grad";
        check_len(OP, "window", window.len(), 1)?;
        let width = row_width(OP, rows, x.len())?;
        check_len(OP, "grad", grad.len(), x.len())?;
        self.with_draws(perturbation.noise, &draws, width, grad, |sample, grad, normal| {
            let x = &x[sample * width..][..width];
            for ((grad, &x), &normal) in grad.iter_mut().zip(x).zip(normal) {
                if !perturbation.passes(x, normal, window[0]) {
                    *grad = 0.0;
                }
            }
        });
        Ok(())
    }

    fn ttfs_census(&self, rows: usize, window: &Vec<f32>, x: &Vec<f32>, census: &mut Census<Self>) -> Result<()> {
        const OP: &str = "ttfs_census";
        check_len(OP, "window", window.len(), 1)?;
        let (width, window) = (row_width(OP, rows, x.len())?, window[0]);
        let Census { peaks, fired, early } = census;
        peaks.clear();
        peaks.resize(rows, 0.0);
        for counts in [&mut *fired, &mut *early] {
            counts.clear();
            counts.resize(rows, 0);
        }
        let samples = piece(width) / width.max(1);
        let counts = fired.chunks_mut(samples).zip(early.chunks_mut(samples));
        let pieces = peaks.chunks_mut(samples).zip(counts).zip(x.chunks(samples * width.max(1)));
        self.each_piece(pieces, |((peaks, (fired, early)), x)| {
            let rows = peaks.iter_mut().zip(fired.iter_mut().zip(early));
            for ((peak, (fired, early)), x) in rows.zip(x.chunks(width)) {
                (*peak, *fired, *early) = simd::run(
                    #[inline(always)]
                    || count(x, window),
                );
            }
        });
        Ok(())
    }

    fn ttfs_grow(&self, growth: f64, peaks: &Vec<f32>, window: &mut Vec<f32>) -> Result<()> {
        check_len("ttfs_grow", "window", window.len(), 1)?;
        window[0] = peaks.iter().fold(window[0], |length, &peak| length.max(growth as f32 * peak));
        Ok(())
    }

    fn ttfs_slope(&self, current: &Vec<f32>, slope: &mut Vec<f32>, weight: &mut Vec<f32>) -> Result<()> {
        const OP: &str = "ttfs_slope";
        let width = slope.len().max(1);
        check_len(OP, "current", current.len(), current.len() / width * slope.len())?;
        check_len(OP, "weight", weight.len(), current.len())?;
        slope.fill(1.0);
        current.chunks_exact(width).for_each(|row| add(row, slope));
        for (weight, current) in weight.chunks_exact_mut(width).zip(current.chunks_exact(width)) {
            for ((weight, &current), &slope) in weight.iter_mut().zip(current).zip(&*slope) {
                *weight = ttfs::effective_weight(current, slope);
            }
        }
        Ok(())
    }

    fn ttfs_slope_grad(&self, slope: &Vec<f32>, weight: &Vec<f32>, grad: &mut Vec<f32>) -> Result<()> {
        const OP: &str = "ttfs_slope_grad";
        let width = slope.len().max(1);
        check_len(OP, "weight", weight.len(), weight.len() / width * slope.len())?;
        check_len(OP, "grad", grad.len(), weight.len())?;
        let mut common = vec![0.0; slope.len()];
        for (weight, grad) in weight.chunks_exact(width).zip(grad.chunks_exact(width)) {
            common.iter_mut().zip(weight).zip(grad).for_each(|((sum, &w), &g)| *sum += w * g);
        }
        for grad in grad.chunks_exact_mut(width) {
            for ((grad, &common), &slope) in grad.iter_mut().zip(&common).zip(slope) {
                *grad = if slope > 0.0 { (*grad - common) / slope } else { 0.0 };
            }
        }
        Ok(())
    }

    fn quantise(&self, grid: &Grid, x: &Vec<f32>, out: &mut Vec<f32>) -> Result<()> {
        check_len("quantise", "out", out.len(), x.len())?;
        let level = |(out, x): (&mut [f32], &[f32])| {
            simd::run(
                #[inline(always)]
                || out.iter_mut().zip(x).for_each(|(out, &x)| *out = grid.level(x)),
            );
        };
        self.each_piece(out.chunks_mut(PIECE).zip(x.chunks(PIECE)), level);
        Ok(())
    }

    fn quantise_grad(&self, grid: &Grid, x: &Vec<f32>, grad: &mut Vec<f32>) -> Result<()> {
        check_len("quantise_grad", "grad", grad.len(), x.len())?;
        let mask = |(grad, x): (&mut [f32], &[f32])| {
            grad.iter_mut().zip(x).for_each(|(grad, &x)| *grad = if grid.passes(x) { *grad } else { 0.0 });
        };
        self.each_piece(grad.chunks_mut(PIECE).zip(x.chunks(PIECE)), mask);
        Ok(())
    }
}

/// The largest entry, how many are above 0, and how many above the window.
#[inline(always)]
fn count(x: &[f32], window: f32) -> (f32, u32, u32) {
    const LANES: usize = 16;
    let (mut peak, mut fired, mut early) = ([0.0_f32; LANES], [0_u32; LANES], [0_u32; LANES]);
    let mut look = |lane: usize, x: f32| {
        peak[lane] = if x > peak[lane] { x } else { peak[lane] };
        fired[lane] += u32::from(x > 0.0);
        early[lane] += u32::from(x > window);
    };
    let pieces = x.chunks_exact(LANES);
    pieces.remainder().iter().for_each(|&x| look(0, x));
    for piece in pieces {
        piece.iter().enumerate().for_each(|(lane, &x)| look(lane, x));
    }
    (peak.into_iter().fold(0.0, f32::max), fired.iter().sum(), early.iter().sum())
}
