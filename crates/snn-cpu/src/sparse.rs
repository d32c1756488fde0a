//! Products of sparse spikes with a weight matrix, and the weight gradient.
//!
//! Rows (`B * T` of them) are taken in chunks of [`CHUNK`]. A chunk whose density is below [`DENSE_ABOVE`] costs
//! events: forward, each row gathers the weight rows of its events into sums that stay in registers; the weight
//! gradient scatters the row's gradient over the rows of its events. Both work on one tile of columns at a time, in a
//! packed copy where the tile is contiguous: 64 columns of a wide matrix would lie on as many memory pages as there
//! are units, and the translation of addresses would cost more than the sums. Where a row has many events, units are
//! taken in parts of [`PART`], so that a part of a tile stays in the first-level cache.
//! A denser chunk is expanded to counts and multiplied by the dense kernel.
//!
//! Chunks, and the choice between the two ways, depend on the data alone, and the order in which a sum is formed on
//! nothing else, so the bits do not depend on the number of threads.

use std::ops::Range;

use pulp::{Simd, WithSimd};
use rayon::prelude::*;
use snn_core::Spikes;
use snn_core::error::{Result, check_len};

use crate::linalg::{Strides, sgemm};
use crate::memory::Cpu;
use crate::simd;

/// Rows taken together.
const CHUNK: usize = 512;

/// Density above which a chunk is multiplied densely. Measured (see docs/benchmarks.md): the two ways cost the same at
/// about this share of active inputs.
pub const DENSE_ABOVE: f64 = 0.42;

/// Narrow layers cannot use the dense kernel's full width, so for them the gather always wins.
const DENSE_MIN_WIDTH: usize = 32;

/// Columns of a full tile: their sums fill a part of the registers that leaves room for the loads.
const LANES: usize = 64;

/// Units of a part: with a full tile's 64 columns, 32 KB.
const PART: usize = 128;

/// Events per row and part from which parts pay: below, walking the row lists costs more than it saves.
const PART_EVENTS: f64 = 6.0;

fn is_dense(events: usize, rows: usize, inputs: usize, width: usize) -> bool {
    width >= DENSE_MIN_WIDTH && events as f64 > DENSE_ABOVE * (rows * inputs) as f64
}

/// A tile of columns: `real` of them from `at` on, padded to `lanes` (16, 32, 48 or 64).
#[derive(Debug, Clone, Copy)]
struct Tile {
    at: usize,
    real: usize,
    lanes: usize,
}

fn tiles(width: usize) -> Vec<Tile> {
    let tile = |at: usize| {
        let real = LANES.min(width - at);
        Tile { at, real, lanes: real.next_multiple_of(16) }
    };
    (0..width).step_by(LANES).map(tile).collect()
}

/// A cache line of values: buffers made of it begin at one, so that no vector straddles two.
#[derive(Debug, Clone, Copy, bytemuck::Pod, bytemuck::Zeroable)]
#[repr(C, align(64))]
struct Line([f32; 16]);

/// `len` zeros that begin at a cache line; `len` is a multiple of a line.
fn aligned(len: usize) -> Vec<Line> {
    vec![Line([0.0; 16]); len.div_ceil(16)]
}

/// Runs a kernel with the number of vector registers of a tile as a constant: then the sums stay in registers.
macro_rules! with_registers {
    ($simd:ident, $instance:ident, $lanes:expr, $kernel:expr) => {
        match $lanes / $simd::F32_LANES {
            1 => $kernel.run::<_, 1>($instance),
            2 => $kernel.run::<_, 2>($instance),
            3 => $kernel.run::<_, 3>($instance),
            4 => $kernel.run::<_, 4>($instance),
            6 => $kernel.run::<_, 6>($instance),
            8 => $kernel.run::<_, 8>($instance),
            12 => $kernel.run::<_, 12>($instance),
            16 => $kernel.run::<_, 16>($instance),
            32 => $kernel.run::<_, 32>($instance),
            48 => $kernel.run::<_, 48>($instance),
            _ => $kernel.run::<_, 64>($instance),
        }
    };
}

/// Where each part of the units begins in every row.
struct Parts {
    count: usize,
    size: usize,
    // `count + 1` entries per row; empty for a single part, whose bounds are those of the row.
    bounds: Vec<usize>,
}

impl Parts {
    /// Parts of [`PART`] units if there are events enough, all units in one part otherwise.
    fn new(cpu: &Cpu, spikes: &Spikes) -> Self {
        let lanes = spikes.lanes();
        let count = lanes.width.div_ceil(PART);
        if spikes.events() as f64 <= PART_EVENTS * (lanes.rows() * count) as f64 || count == 1 {
            return Self { count: 1, size: lanes.width, bounds: Vec::new() };
        }
        let mut bounds = vec![0; lanes.rows() * (count + 1)];
        cpu.install(|| {
            bounds.par_chunks_mut(count + 1).enumerate().with_min_len(64).for_each(|(row, bounds)| {
                let (units, base) = (spikes.row(row), spikes.offsets()[row]);
                let mut next = 0;
                for (p, bound) in bounds.iter_mut().enumerate() {
                    let limit = (p * PART) as u32;
                    // Parts hold few events each, so a walk is shorter than a search.
                    while next < units.len() && units[next] < limit {
                        next += 1;
                    }
                    *bound = base + next;
                }
            });
        });
        Self { count, size: PART, bounds }
    }

    /// The units of row `row` that lie in part `part`.
    #[inline(always)]
    fn units<'a>(&self, spikes: &'a Spikes, row: usize, part: usize) -> &'a [u32] {
        if self.count == 1 {
            return spikes.row(row);
        }
        let bounds = &self.bounds[row * (self.count + 1) + part..][..2];
        &spikes.units()[bounds[0]..bounds[1]]
    }
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
    let tiles = tiles(width);
    let packed = pack(cpu, lanes.width, width, &tiles, weight);
    let parts = Parts::new(cpu, spikes);
    cpu.install(|| {
        let chunks = out.par_chunks_mut(CHUNK * width).enumerate();
        let scratches = || (Vec::new(), aligned(CHUNK * LANES));
        chunks.for_each_init(scratches, |(expanded, sums), (c, out)| {
            let first = c * CHUNK;
            let rows = first..first + out.len() / width;
            let events = spikes.offsets()[rows.end] - spikes.offsets()[rows.start];
            if is_dense(events, rows.len(), lanes.width, width) {
                expand(spikes, rows.clone(), expanded);
                out.chunks_mut(width).for_each(|row| row.copy_from_slice(bias));
                let (x, w) = (Strides::rows(lanes.width), Strides::rows(width));
                sgemm(rows.len(), width, lanes.width, (expanded, x), (weight, w), (out, w), true);
                return;
            }
            let mut weight: &[f32] = bytemuck::cast_slice(&packed);
            for &tile in &tiles {
                let (now, rest) = weight.split_at(lanes.width * tile.lanes);
                weight = rest;
                let (rows, parts, sums) = (rows.clone(), &parts, bytemuck::cast_slice_mut(sums));
                simd::vectorise(Gather { spikes, parts, rows, tile, width, weight: now, bias, sums, out });
            }
        });
    });
    Ok(())
}

/// A copy of the weights with every tile contiguous, `[units, lanes]`, padded with zeros.
fn pack(cpu: &Cpu, units: usize, width: usize, tiles: &[Tile], weight: &[f32]) -> Vec<Line> {
    let mut packed = aligned(units * tiles.iter().map(|t| t.lanes).sum::<usize>());
    let mut rest: &mut [f32] = bytemuck::cast_slice_mut(&mut packed);
    let mut pieces = Vec::new();
    for &tile in tiles {
        let (now, later) = rest.split_at_mut(units * tile.lanes);
        rest = later;
        pieces.push((tile, now));
    }
    cpu.install(|| {
        pieces.into_par_iter().for_each(|(tile, packed)| {
            for (to, from) in packed.chunks_exact_mut(tile.lanes).zip(weight.chunks_exact(width)) {
                to[..tile.real].copy_from_slice(&from[tile.at..tile.at + tile.real]);
            }
        });
    });
    packed
}

/// Forward for one sparse chunk of rows and one tile of columns.
struct Gather<'a> {
    spikes: &'a Spikes,
    parts: &'a Parts,
    rows: Range<usize>,
    tile: Tile,
    width: usize,
    /// The packed tile, `[units, lanes]`.
    weight: &'a [f32],
    bias: &'a [f32],
    /// Scratch for the sums of a chunk.
    sums: &'a mut [f32],
    out: &'a mut [f32],
}

impl WithSimd for Gather<'_> {
    type Output = ();

    #[inline(always)]
    fn with_simd<S: Simd>(self, simd: S) {
        with_registers!(S, simd, self.tile.lanes, self);
    }
}

impl Gather<'_> {
    #[inline(always)]
    fn run<S: Simd, const R: usize>(self, simd: S) {
        let Self { spikes, parts, rows, tile, width, weight, bias, sums, out } = self;
        let (weight, _) = S::as_simd_f32s(weight).0.as_chunks::<R>();
        // Sums of the whole chunk; a single part needs those of one row only.
        let used = if parts.count == 1 { 1 } else { rows.len() };
        let sums = &mut sums[..used * tile.lanes];
        let start = |sums: &mut [f32]| sums[..tile.real].copy_from_slice(&bias[tile.at..tile.at + tile.real]);
        let out = out.chunks_exact_mut(width).map(|row| &mut row[tile.at..tile.at + tile.real]);
        if parts.count == 1 {
            for (row, out) in rows.zip(out) {
                start(sums);
                for sums in S::as_mut_simd_f32s(sums).0.as_chunks_mut::<R>().0 {
                    *sums = add_rows(simd, weight, *sums, spikes.row(row));
                }
                out.copy_from_slice(&sums[..tile.real]);
            }
            return;
        }
        sums.chunks_exact_mut(tile.lanes).for_each(start);
        for part in 0..parts.count {
            let sums = S::as_mut_simd_f32s(sums).0.as_chunks_mut::<R>().0;
            for (row, sums) in rows.clone().zip(sums) {
                *sums = add_rows(simd, weight, *sums, parts.units(spikes, row, part));
            }
        }
        for (sums, out) in sums.chunks_exact(tile.lanes).zip(out) {
            out.copy_from_slice(&sums[..tile.real]);
        }
    }
}

/// `sums` plus the weight rows of the given units, in order.
#[inline(always)]
fn add_rows<S: Simd, const R: usize>(
    simd: S,
    weight: &[[S::f32s; R]],
    mut sums: [S::f32s; R],
    units: &[u32],
) -> [S::f32s; R] {
    for &unit in units {
        let row = &weight[unit as usize];
        for k in 0..R {
            sums[k] = simd.add_f32s(sums[k], row[k]);
        }
    }
    sums
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
    let chunk_rows = |first: usize| first..(first + CHUNK).min(lanes.rows());
    let (dense, sparse): (Vec<_>, Vec<_>) = (0..lanes.rows()).step_by(CHUNK).map(chunk_rows).partition(|rows| {
        let events = spikes.offsets()[rows.end] - spikes.offsets()[rows.start];
        is_dense(events, rows.len(), lanes.width, width)
    });
    scatter_chunks(cpu, spikes, width, &sparse, grad, grad_weight);
    multiply_chunks(cpu, spikes, width, &dense, grad, grad_weight);
    Ok(())
}

/// The weight gradient of all sparse chunks; overwrites.
///
/// A task owns some parts of one tile and walks all rows in order, so no partial sums have to be joined.
fn scatter_chunks(
    cpu: &Cpu,
    spikes: &Spikes,
    width: usize,
    chunks: &[Range<usize>],
    grad: &[f32],
    grad_weight: &mut [f32],
) {
    if chunks.is_empty() {
        grad_weight.fill(0.0);
        return;
    }
    let units = spikes.lanes().width;
    let parts = Parts::new(cpu, spikes);
    let tasks: Vec<(Tile, Range<usize>)> = tiles(width)
        .into_iter()
        .flat_map(|tile| {
            // Few tiles are cut along the units as well, so that every thread has work.
            let group = if tiles(width).len() >= 8 { parts.count } else { parts.count.div_ceil(4) };
            (0..parts.count).step_by(group).map(move |p| (tile, p..(p + group).min(parts.count)))
        })
        .collect();
    let results: Vec<Vec<Line>> = cpu.install(|| {
        tasks
            .par_iter()
            .map(|(tile, group)| {
                let first = group.start * parts.size;
                let mut sums = aligned(((group.end * parts.size).min(units) - first) * tile.lanes);
                let (group, parts, tile) = (group.clone(), &parts, *tile);
                let sums_of = bytemuck::cast_slice_mut(&mut sums);
                simd::vectorise(Scatter { spikes, parts, group, chunks, tile, width, grad, sums: sums_of });
                sums
            })
            .collect()
    });
    for ((tile, group), sums) in tasks.iter().zip(results) {
        let rows = grad_weight[group.start * parts.size * width..].chunks_exact_mut(width);
        let sums: &[f32] = bytemuck::cast_slice(&sums);
        for (row, sums) in rows.zip(sums.chunks_exact(tile.lanes)) {
            row[tile.at..tile.at + tile.real].copy_from_slice(&sums[..tile.real]);
        }
    }
}

/// The weight gradient of some sparse chunks for some parts of the units and one tile of columns.
struct Scatter<'a> {
    spikes: &'a Spikes,
    parts: &'a Parts,
    group: Range<usize>,
    chunks: &'a [Range<usize>],
    tile: Tile,
    width: usize,
    grad: &'a [f32],
    /// `[units of the group, lanes]`.
    sums: &'a mut [f32],
}

impl WithSimd for Scatter<'_> {
    type Output = ();

    #[inline(always)]
    fn with_simd<S: Simd>(self, simd: S) {
        with_registers!(S, simd, self.tile.lanes, self);
    }
}

impl Scatter<'_> {
    #[inline(always)]
    fn run<S: Simd, const R: usize>(self, simd: S) {
        let Self { spikes, parts, group, chunks, tile, width, grad, sums } = self;
        let first = group.start * parts.size;
        let (sums, _) = S::as_mut_simd_f32s(sums).0.as_chunks_mut::<R>();
        let mut padded = [0.0; LANES];
        for rows in chunks {
            for part in group.clone() {
                for row in rows.clone() {
                    let units = parts.units(spikes, row, part);
                    if units.is_empty() {
                        continue;
                    }
                    padded[..tile.real].copy_from_slice(&grad[row * width + tile.at..][..tile.real]);
                    let [g] = S::as_simd_f32s(&padded[..tile.lanes]).0.as_chunks::<R>().0 else { return };
                    let g = *g;
                    for &unit in units {
                        let sum = &mut sums[unit as usize - first];
                        for k in 0..R {
                            sum[k] = simd.add_f32s(sum[k], g[k]);
                        }
                    }
                }
            }
        }
    }
}

/// The weight gradient of all dense chunks; adds.
fn multiply_chunks(
    cpu: &Cpu,
    spikes: &Spikes,
    width: usize,
    chunks: &[Range<usize>],
    grad: &[f32],
    grad_weight: &mut [f32],
) {
    /// Chunks expanded at a time: long inner products, and a bounded copy.
    const TOGETHER: usize = 4;
    let units = spikes.lanes().width;
    // A fixed cut: rows of the result for every thread, but not so few that packing the gradient dominates.
    let block = units.div_ceil(4).next_multiple_of(16).clamp(64, 512);
    let mut expanded: Vec<Vec<f32>> = vec![Vec::new(); TOGETHER.min(chunks.len())];
    for chunks in chunks.chunks(TOGETHER) {
        cpu.install(|| {
            expanded.par_iter_mut().zip(chunks).for_each(|(x, rows)| expand(spikes, rows.clone(), x));
            grad_weight.par_chunks_mut(block * width).enumerate().for_each(|(i, grad_weight)| {
                let at = i * block;
                let (x, y) = (Strides { row: 1, column: units }, Strides::rows(width));
                for (expanded, rows) in expanded.iter().zip(chunks) {
                    let grad = &grad[rows.start * width..rows.end * width];
                    let m = grad_weight.len() / width;
                    sgemm(m, width, rows.len(), (&expanded[at..], x), (grad, y), (grad_weight, y), true);
                }
            });
        });
    }
}

/// Writes the counts of some rows as a dense row-major array.
fn expand(spikes: &Spikes, rows: Range<usize>, out: &mut Vec<f32>) {
    let width = spikes.lanes().width;
    out.clear();
    out.resize(rows.len() * width, 0.0);
    for (out, row) in out.chunks_mut(width).zip(rows) {
        spikes.row(row).iter().for_each(|&unit| out[unit as usize] += 1.0);
    }
}
