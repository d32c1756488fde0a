//! Products of sparse spikes with a weight matrix, and the weight gradient.
//!
//! Rows (`B * T` of them) are taken in chunks. A chunk of low density costs events: forward, each row gathers the weight
//! rows of its events into sums that stay in registers; for the weight gradient the lists are turned round, and each
//! unit gathers the gradient rows of its events in the same way. One tile of columns is in work at a time, in a packed
//! copy where the tile is contiguous: the columns of a wide matrix would lie on as many memory pages as there are rows,
//! and the translation of addresses would cost more than the sums. What is gathered from is cut into parts of
//! `PART` rows, which stay in the first-level cache, where there are events enough.
//! A denser chunk is expanded to counts and multiplied by the dense kernel.
//!
//! Chunks, and the choice between the two ways, depend on the data alone, and the order in which a sum is formed on
//! nothing else, so the bits do not depend on the number of threads.

use std::ops::Range;

use pulp::{Simd, WithSimd};
use rayon::prelude::*;
use snn_core::Spikes;
use snn_core::error::{Result, check_len};

use crate::memory::Cpu;
use crate::product::{Strides, sgemm};
use crate::simd;

/// Rows taken together, at most.
const CHUNK: usize = 512;

/// Rows taken together for a layer of `width` neurons: many where the weights are large, because the dense kernel packs
/// them anew for every chunk; few where they are small, so that the expanded inputs stay in the second-level cache.
const fn chunk(width: usize) -> usize {
    if width > 256 { CHUNK } else { CHUNK / 4 }
}

/// Density above which a chunk is multiplied densely. Measured (see docs/benchmarks.md): the two ways cost the same at
/// about this share of active inputs; narrow layers spend more of a gather on walking its lists.
pub const fn dense_above(width: usize) -> f64 {
    if width > 256 { 0.4 } else { 0.3 }
}

/// Narrow layers cannot use the dense kernel's full width, so for them the gather always wins.
const DENSE_MIN_WIDTH: usize = 32;

/// Columns of a full tile: their sums fill all vector registers but one or two where those hold 8 values, and leave room
/// where they hold 16. The wider a tile, the fewer walks along the lists.
const LANES: usize = 112;

/// Columns of the last tile, at most: a walk along the lists for one cache line of columns would cost more than the
/// registers that are short.
const MOST_LANES: usize = LANES + 16;

/// Rows of a part of what is gathered from: with a full tile's columns, 28 KB.
const PART: usize = 64;

/// Events per row and part from which parts pay: below, walking the row lists costs more than it saves.
const PART_EVENTS: f64 = 6.0;

fn is_dense(events: usize, rows: usize, inputs: usize, width: usize) -> bool {
    width >= DENSE_MIN_WIDTH && events as f64 > dense_above(width) * (rows * inputs) as f64
}

/// A tile of columns: `real` of them from `at` on, padded to `lanes`, whole cache lines.
#[derive(Debug, Clone, Copy)]
struct Tile {
    at: usize,
    real: usize,
    lanes: usize,
}

fn tiles(width: usize) -> Vec<Tile> {
    let mut tiles = Vec::new();
    let mut at = 0;
    while at < width {
        let real = if width - at <= MOST_LANES { width - at } else { LANES };
        tiles.push(Tile { at, real, lanes: real.next_multiple_of(16) });
        at += real;
    }
    tiles
}

/// A cache line of values: buffers made of it begin at one, so that no vector straddles two.
#[derive(Debug, Clone, Copy, bytemuck::Pod, bytemuck::Zeroable)]
#[repr(C, align(64))]
struct Line([f32; 16]);

impl Line {
    /// One tile of values, filled up with zeros.
    fn padded(values: &[f32]) -> [Self; MOST_LANES / 16] {
        let mut lines = [Self([0.0; 16]); MOST_LANES / 16];
        bytemuck::cast_slice_mut::<Self, f32>(&mut lines)[..values.len()].copy_from_slice(values);
        lines
    }
}

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
            5 => $kernel.run::<_, 5>($instance),
            6 => $kernel.run::<_, 6>($instance),
            7 => $kernel.run::<_, 7>($instance),
            8 => $kernel.run::<_, 8>($instance),
            10 => $kernel.run::<_, 10>($instance),
            12 => $kernel.run::<_, 12>($instance),
            14 => $kernel.run::<_, 14>($instance),
            16 => $kernel.run::<_, 16>($instance),
            20 => $kernel.run::<_, 20>($instance),
            24 => $kernel.run::<_, 24>($instance),
            28 => $kernel.run::<_, 28>($instance),
            32 => $kernel.run::<_, 32>($instance),
            48 => $kernel.run::<_, 48>($instance),
            64 => $kernel.run::<_, 64>($instance),
            80 => $kernel.run::<_, 80>($instance),
            96 => $kernel.run::<_, 96>($instance),
            112 => $kernel.run::<_, 112>($instance),
            _ => $kernel.run::<_, 128>($instance),
        }
    };
}

/// Where each part of the units begins in every row.
struct Parts {
    count: usize,
    // `count + 1` entries per row; empty for a single part, whose bounds are those of the row.
    bounds: Vec<usize>,
}

impl Parts {
    /// Parts of [`PART`] units if there are events enough and tiles enough to make up for finding the bounds, all
    /// units in one part otherwise.
    fn new(cpu: &Cpu, spikes: &Spikes, tiles: usize) -> Self {
        let lanes = spikes.lanes();
        let count = lanes.width.div_ceil(PART);
        if tiles < 3 || spikes.events() as f64 <= PART_EVENTS * (lanes.rows() * count) as f64 {
            return Self { count: 1, bounds: Vec::new() };
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
        Self { count, bounds }
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
    let parts = Parts::new(cpu, spikes, tiles.len());
    cpu.install(|| {
        let chunks = out.par_chunks_mut(chunk(width) * width).enumerate();
        let scratches = || (Vec::new(), aligned(CHUNK * MOST_LANES));
        chunks.for_each_init(scratches, |(expanded, sums), (c, out)| {
            let first = c * chunk(width);
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
        let mut start = Line::padded(&bias[tile.at..tile.at + tile.real]);
        let start = first_registers::<S, R>(bytemuck::cast_slice_mut(&mut start));
        let out = out.chunks_exact_mut(width).map(|row| &mut row[tile.at..tile.at + tile.real]);
        if parts.count == 1 {
            for (row, out) in rows.zip(out) {
                store::<S, R>(add_rows(simd, weight, start, spikes.row(row)), out);
            }
            return;
        }
        let sums = &mut S::as_mut_simd_f32s(sums).0.as_chunks_mut::<R>().0[..rows.len()];
        sums.fill(start);
        for part in 0..parts.count {
            for (row, sums) in rows.clone().zip(sums.iter_mut()) {
                *sums = add_rows(simd, weight, *sums, parts.units(spikes, row, part));
            }
        }
        for (sums, out) in sums.iter().zip(out) {
            store::<S, R>(*sums, out);
        }
    }
}

/// The first registers' worth of a buffer.
#[inline(always)]
fn first_registers<S: Simd, const R: usize>(buffer: &mut [f32]) -> [S::f32s; R] {
    S::as_mut_simd_f32s(buffer).0.as_chunks::<R>().0[0]
}

/// Writes a tile's sums to the real columns.
#[inline(always)]
fn store<S: Simd, const R: usize>(sums: [S::f32s; R], out: &mut [f32]) {
    let (full, _) = S::as_mut_simd_f32s(&mut *out).0.as_chunks_mut::<R>();
    match full {
        [full] => *full = sums,
        _ => {
            let sums = [sums];
            let flat: &[f32] = bytemuck::cast_slice(sums.as_flattened());
            out.copy_from_slice(&flat[..out.len()]);
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
    let cut = |size: usize| (0..lanes.rows()).step_by(size).map(move |first| first..(first + size).min(lanes.rows()));
    let (dense, sparse): (Vec<_>, Vec<_>) = cut(chunk(width)).partition(|rows| {
        let events = spikes.offsets()[rows.end] - spikes.offsets()[rows.start];
        is_dense(events, rows.len(), lanes.width, width)
    });
    gather_chunks(cpu, spikes, width, &sparse, grad, grad_weight);
    multiply_chunks(cpu, spikes, width, &dense, grad, grad_weight);
    Ok(())
}

/// The events of some rows, listed by unit.
struct Turned {
    rows: Range<usize>,
    /// Where the list of each unit begins.
    offsets: Vec<u32>,
    /// Rows, counted from the first.
    lists: Vec<u32>,
}

impl Turned {
    /// A counting sort by unit; the rows of a unit ascend, because they are met in that order.
    fn new(spikes: &Spikes, rows: Range<usize>) -> Self {
        let units = &spikes.units()[spikes.offsets()[rows.start]..spikes.offsets()[rows.end]];
        let mut offsets = vec![0_u32; spikes.lanes().width + 1];
        units.iter().for_each(|&unit| offsets[unit as usize + 1] += 1);
        let mut sum = 0;
        offsets.iter_mut().for_each(|offset| {
            sum += *offset;
            *offset = sum;
        });
        let mut next = offsets.clone();
        let mut lists = vec![0; units.len()];
        for (local, row) in rows.clone().enumerate() {
            for &unit in spikes.row(row) {
                let at = &mut next[unit as usize];
                lists[*at as usize] = local as u32;
                *at += 1;
            }
        }
        Self { rows, offsets, lists }
    }
}

/// The weight gradient of all sparse chunks; overwrites.
///
/// A task owns some units and one tile of columns and walks all rows in order, so no partial sums have to be joined.
fn gather_chunks(
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
    // A unit should have a few events in every part: where events are rare, parts are longer.
    let size = if spikes.density() * (PART as f64) < 4.0 { CHUNK } else { PART };
    let parts: Vec<Range<usize>> = chunks
        .iter()
        .flat_map(|rows| rows.clone().step_by(size).map(move |first| first..(first + size).min(rows.end)))
        .collect();
    let tiles = tiles(width);
    // Few tiles are cut along the units as well, so that every thread has work.
    let group = if tiles.len() >= 8 { units } else { units.div_ceil(4).max(1) };
    let tasks: Vec<(Tile, Range<usize>)> = tiles
        .into_iter()
        .flat_map(|tile| (0..units).step_by(group).map(move |u| (tile, u..(u + group).min(units))))
        .collect();
    let results: Vec<Vec<Line>> = cpu.install(|| {
        let turned: Vec<Turned> = parts.into_par_iter().map(|rows| Turned::new(spikes, rows)).collect();
        tasks
            .par_iter()
            .map(|(tile, units)| {
                let mut sums = aligned(units.len() * tile.lanes);
                simd::vectorise(GatherGradient {
                    turned: &turned,
                    units: units.clone(),
                    tile: *tile,
                    width,
                    grad,
                    packed: bytemuck::cast_slice_mut(&mut aligned(size * tile.lanes)),
                    sums: bytemuck::cast_slice_mut(&mut sums),
                });
                sums
            })
            .collect()
    });
    for ((tile, units), sums) in tasks.iter().zip(results) {
        let rows = grad_weight[units.start * width..].chunks_exact_mut(width);
        let sums: &[f32] = bytemuck::cast_slice(&sums);
        for (row, sums) in rows.zip(sums.chunks_exact(tile.lanes)) {
            row[tile.at..tile.at + tile.real].copy_from_slice(&sums[..tile.real]);
        }
    }
}

/// The weight gradient of all sparse chunks for some units and one tile of columns.
struct GatherGradient<'a> {
    turned: &'a [Turned],
    units: Range<usize>,
    tile: Tile,
    width: usize,
    grad: &'a [f32],
    /// Scratch for the tile of a part's gradient rows.
    packed: &'a mut [f32],
    /// `[units, lanes]`.
    sums: &'a mut [f32],
}

impl WithSimd for GatherGradient<'_> {
    type Output = ();

    #[inline(always)]
    fn with_simd<S: Simd>(self, simd: S) {
        with_registers!(S, simd, self.tile.lanes, self);
    }
}

impl GatherGradient<'_> {
    #[inline(always)]
    fn run<S: Simd, const R: usize>(self, simd: S) {
        let Self { turned, units, tile, width, grad, packed, sums } = self;
        let (sums, _) = S::as_mut_simd_f32s(sums).0.as_chunks_mut::<R>();
        for part in turned {
            if part.lists.is_empty() {
                continue;
            }
            let rows = grad[part.rows.start * width..part.rows.end * width].chunks_exact(width);
            for (to, row) in packed.chunks_exact_mut(tile.lanes).zip(rows) {
                to[..tile.real].copy_from_slice(&row[tile.at..tile.at + tile.real]);
            }
            let (gradient, _) = S::as_simd_f32s(packed).0.as_chunks::<R>();
            for (sums, bounds) in sums.iter_mut().zip(part.offsets[units.start..].windows(2)) {
                let list = &part.lists[bounds[0] as usize..bounds[1] as usize];
                if !list.is_empty() {
                    *sums = add_rows(simd, gradient, *sums, list);
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
    /// Chunks expanded at a time: work for every thread, and a bounded copy.
    const TOGETHER: usize = 8;
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
