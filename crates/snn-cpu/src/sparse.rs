//! Products of sparse spikes with a weight matrix, and the weight gradient.
//!
//! Rows (`B * T` of them) are taken in chunks of [`CHUNK`]. A chunk whose density is below [`DENSE_ABOVE`] costs
//! events: forward, each row gathers the weight rows of its events into accumulators that stay in registers, one
//! tile of [`TILE`] columns at a time, so that the weight tile stays in the second-level cache; the weight gradient
//! scatters the row's gradient, one block of units at a time, so that the block stays in the first-level cache.
//! A denser chunk is expanded to 0/1 and multiplied by the dense kernel. Chunk borders and the choice depend on the
//! data alone, so the bits do not depend on the number of threads.

use rayon::prelude::*;
use snn_core::Spikes;
use snn_core::error::{Result, check_len};

use crate::linalg::{Strides, sgemm};
use crate::memory::Cpu;
use crate::simd;

/// Rows taken together.
const CHUNK: usize = 512;

/// Columns whose sums are kept in registers.
const TILE: usize = 64;

/// Density above which a chunk is multiplied densely. Measured (see docs/benchmarks.md): the dense kernel and the gather
/// cost the same at about this share of active inputs.
pub const DENSE_ABOVE: f64 = 0.42;

/// Narrow layers cannot use the dense kernel's full width, so for them the gather always wins.
const DENSE_MIN_WIDTH: usize = 32;

fn is_dense(events: usize, rows: usize, inputs: usize, width: usize) -> bool {
    width >= DENSE_MIN_WIDTH && events as f64 > DENSE_ABOVE * (rows * inputs) as f64
}

/// `out[r, :] = bias + sum over events (r, i) of weight[i, :]`.
pub(crate) fn forward(
    cpu: &Cpu,
    spikes: &Spikes,
    width: usize,
    weight: &[f32],
    bias: Option<&[f32]>,
    out: &mut [f32],
) -> Result<()> {
    const OP: &str = "spikes_gemm";
    let lanes = spikes.lanes();
    check_len(OP, "weight", weight.len(), lanes.width * width)?;
    check_len(OP, "out", out.len(), lanes.rows() * width)?;
    if let Some(bias) = bias {
        check_len(OP, "bias", bias.len(), width)?;
    }
    if width == 0 {
        return Ok(());
    }
    let zeros = vec![0.0; if bias.is_some() { 0 } else { width }];
    let bias = bias.unwrap_or(&zeros);
    cpu.install(|| {
        let chunks = out.par_chunks_mut(CHUNK * width).enumerate();
        chunks.for_each_init(Vec::new, |expanded, (c, out)| {
            let first = c * CHUNK;
            let rows = out.len() / width;
            let events = spikes.offsets()[first + rows] - spikes.offsets()[first];
            if is_dense(events, rows, lanes.width, width) {
                expand(spikes, first..first + rows, 0..lanes.width, expanded);
                out.chunks_mut(width).for_each(|row| row.copy_from_slice(bias));
                let (x, w, y) = (Strides::rows(lanes.width), Strides::rows(width), Strides::rows(width));
                sgemm(rows, width, lanes.width, (expanded, x), (weight, w), (out, y), true);
            } else {
                simd::run(
                    #[inline(always)]
                    || gather(spikes, first, width, weight, bias, out),
                );
            }
        });
    });
    Ok(())
}

/// Forward for one sparse chunk of rows.
#[inline(always)]
fn gather(spikes: &Spikes, first: usize, width: usize, weight: &[f32], bias: &[f32], out: &mut [f32]) {
    let mut at = 0;
    while width - at >= TILE {
        gather_tile::<TILE>(spikes, first, width, at, weight, bias, out);
        at += TILE;
    }
    macro_rules! rest {
        ($($size:literal)*) => {$(
            if width - at >= $size {
                gather_tile::<$size>(spikes, first, width, at, weight, bias, out);
                at += $size;
            }
        )*};
    }
    rest!(32 16 8 4 2 1);
}

#[inline(always)]
fn gather_tile<const W: usize>(
    spikes: &Spikes,
    first: usize,
    width: usize,
    at: usize,
    weight: &[f32],
    bias: &[f32],
    out: &mut [f32],
) {
    let bias: &[f32; W] = bias[at..at + W].try_into().expect("a tile of W columns");
    for (r, out) in out.chunks_exact_mut(width).enumerate() {
        let mut sums = *bias;
        for &unit in spikes.row(first + r) {
            let from = unit as usize * width + at;
            let row: &[f32; W] = weight[from..from + W].try_into().expect("a tile of W columns");
            for k in 0..W {
                sums[k] += row[k];
            }
        }
        out[at..at + W].copy_from_slice(&sums);
    }
}

/// `grad_weight[i, :] = sum over events (r, i) of grad[r, :]`.
pub(crate) fn weight_grad(
    cpu: &Cpu,
    spikes: &Spikes,
    width: usize,
    grad: &[f32],
    grad_weight: &mut [f32],
) -> Result<()> {
    const OP: &str = "spikes_gemm_weight_grad";
    let lanes = spikes.lanes();
    check_len(OP, "grad", grad.len(), lanes.rows() * width)?;
    check_len(OP, "grad_weight", grad_weight.len(), lanes.width * width)?;
    if width == 0 || lanes.width == 0 {
        return Ok(());
    }
    // Units are cut into parts; each part walks all rows in order, so no partial sums have to be joined. A part
    // of 32 KB and a tile of columns stay in the first-level cache; with few events per row larger parts save
    // walking the row lists. The cut never changes a sum.
    let per_row = spikes.events() as f64 / lanes.rows().max(1) as f64;
    let part = if per_row / (lanes.width as f64 / 128.0) < 4.0 { 512 } else { 128 };
    let parts = lanes.width.div_ceil(part);
    let bounds = if parts > 1 { part_bounds(cpu, spikes, part, parts) } else { spikes.offsets().to_vec() };
    let chunks: Vec<(usize, usize, bool)> = (0..lanes.rows())
        .step_by(CHUNK)
        .map(|first| {
            let last = (first + CHUNK).min(lanes.rows());
            let events = spikes.offsets()[last] - spikes.offsets()[first];
            (first, last, is_dense(events, last - first, lanes.width, width))
        })
        .collect();
    cpu.install(|| {
        grad_weight.par_chunks_mut(part * width).enumerate().for_each_init(Vec::new, |expanded, (p, grad_weight)| {
            grad_weight.fill(0.0);
            let units = p * part..p * part + grad_weight.len() / width;
            for &(first, last, dense) in &chunks {
                if dense {
                    expand(spikes, first..last, units.clone(), expanded);
                    let (x, y) = (Strides { row: 1, column: units.len() }, Strides::rows(width));
                    let grad = &grad[first * width..last * width];
                    sgemm(units.len(), width, last - first, (expanded, x), (grad, y), (grad_weight, y), true);
                } else {
                    let events = |row: usize| &spikes.units()[bounds[row * parts + p]..bounds[row * parts + p + 1]];
                    simd::run(
                        #[inline(always)]
                        || scatter(first..last, units.start, width, events, grad, grad_weight),
                    );
                }
            }
        });
    });
    Ok(())
}

/// For every row, where each part of its (ascending) unit list starts: `rows * parts + 1` entries.
fn part_bounds(cpu: &Cpu, spikes: &Spikes, part: usize, parts: usize) -> Vec<usize> {
    let rows = spikes.lanes().rows();
    let mut bounds = vec![spikes.events(); rows * parts + 1];
    let (inner, _) = bounds.split_at_mut(rows * parts);
    cpu.install(|| {
        inner.par_chunks_mut(parts).enumerate().for_each(|(row, bounds)| {
            let (units, base) = (spikes.row(row), spikes.offsets()[row]);
            for (p, bound) in bounds.iter_mut().enumerate() {
                *bound = base + units.partition_point(|&u| (u as usize) < p * part);
            }
        });
    });
    bounds
}

/// Weight gradient of one sparse chunk of rows for one part of the units.
#[inline(always)]
fn scatter<'a>(
    rows: std::ops::Range<usize>,
    first_unit: usize,
    width: usize,
    events: impl Fn(usize) -> &'a [u32],
    grad: &[f32],
    grad_weight: &mut [f32],
) {
    let mut at = 0;
    while width - at >= TILE {
        scatter_tile::<TILE>(rows.clone(), first_unit, width, at, &events, grad, grad_weight);
        at += TILE;
    }
    macro_rules! rest {
        ($($size:literal)*) => {$(
            if width - at >= $size {
                scatter_tile::<$size>(rows.clone(), first_unit, width, at, &events, grad, grad_weight);
                at += $size;
            }
        )*};
    }
    rest!(32 16 8 4 2 1);
}

#[inline(always)]
fn scatter_tile<'a, const W: usize>(
    rows: std::ops::Range<usize>,
    first_unit: usize,
    width: usize,
    at: usize,
    events: &impl Fn(usize) -> &'a [u32],
    grad: &[f32],
    grad_weight: &mut [f32],
) {
    for row in rows {
        let units = events(row);
        if units.is_empty() {
            continue;
        }
        let from = row * width + at;
        let g: [f32; W] = grad[from..from + W].try_into().expect("a tile of W columns");
        for &unit in units {
            let to = (unit as usize - first_unit) * width + at;
            let out: &mut [f32; W] = (&mut grad_weight[to..to + W]).try_into().expect("a tile of W columns");
            for k in 0..W {
                out[k] += g[k];
            }
        }
    }
}

/// Writes the counts of `rows x units` as a dense row-major array.
fn expand(spikes: &Spikes, rows: std::ops::Range<usize>, units: std::ops::Range<usize>, out: &mut Vec<f32>) {
    let (low, width) = (units.start as u32, units.len());
    out.clear();
    out.resize(rows.len() * width, 0.0);
    for (out, row) in out.chunks_mut(width).zip(rows) {
        let list = spikes.row(row);
        let from = list.partition_point(|&u| u < low);
        for &unit in &list[from..] {
            match out.get_mut((unit - low) as usize) {
                Some(count) => *count += 1.0,
                None => break,
            }
        }
    }
}
