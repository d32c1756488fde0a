//! Convolution with a 3x3 kernel and stride 1 by tiles of 2x2 outputs, in 16 products of matrices where patches take
//! 36 multiplications for each channel: the minimal filtering of Winograd, as described by Lavin & Gray, "Fast
//! algorithms for convolutional neural networks", CVPR 2016.
//!
//! ```text
//! V = B^T d B   (4x4 inputs d of a tile, per channel)      B^T = [1 0 -1 0; 0 1 1 0; 0 -1 1 0; 0 1 0 -1]
//! U = G g G^T   (kernel g, per pair of channels)           G   = [1 0 0; 1/2 1/2 1/2; 1/2 -1/2 1/2; 0 0 1]
//! Y = A^T M A   (M = V U summed over input channels)       A^T = [1 1 1 0; 0 1 -1 -1]
//! dL/dU = V^T (A dL/dY A^T) summed over tiles,   dL/dg = G^T dL/dU G
//! ```
//!
//! It is used where the kernels are not so large, nor the tiles so few, that making `U` would cost more than is saved.
//! The error is that of a sum over patches within a factor of two: below 1e-6 of the largest output.

use pulp::{Simd, WithSimd};
use snn_core::Conv;

use crate::memory::Cpu;
use crate::product::{Strides, sgemm};
use crate::simd;

/// Entries of the transformed tiles of a piece: 512 KiB.
const BLOCK: usize = 1 << 17;

/// Fewest channels on either side: below, the products are too small to pay for the transformations.
const MIN_CHANNELS: usize = 64;

/// Largest product of the channels of both sides.
const MAX_KERNELS: usize = 1 << 16;

/// Fewest tiles.
const MIN_TILES: usize = 64;

/// Channels are taken in whole vectors, of 16 at most.
const VECTOR: usize = 16;

/// Pieces whose tiles are transformed before their products are added to the weight gradient: a bounded copy.
const GROUP: usize = 8;

/// Between the 16 matrices, so that their beginnings do not compete for the same places in a cache.
const GAP: usize = 3 * VECTOR;

/// `G`.
const KERNEL: [[f32; 3]; 4] = [[1.0, 0.0, 0.0], [0.5, 0.5, 0.5], [0.5, -0.5, 0.5], [0.0, 0.0, 1.0]];

/// Whether a convolution of `rows` maps is done in this way: by its sizes alone.
pub(crate) fn suits(conv: &Conv, rows: usize) -> bool {
    let (o, c_in, c_out) = (conv.output(), conv.input.channels, conv.channels);
    (conv.kernel, conv.kernel_width, conv.stride) == (3, 3, 1)
        && o.height.is_multiple_of(2)
        && o.width.is_multiple_of(2)
        && c_in.is_multiple_of(VECTOR)
        && c_out.is_multiple_of(VECTOR)
        && c_in.min(c_out) >= MIN_CHANNELS
        && c_in * c_out <= MAX_KERNELS
        && rows * o.height * o.width / 4 >= MIN_TILES
}

/// The forward pass, for sizes that suit.
pub(crate) fn convolve(cpu: &Cpu, conv: &Conv, input: &[f32], weight: &[f32], bias: Option<&[f32]>, out: &mut [f32]) {
    let (o, c_in, c_out) = (conv.output(), conv.input.channels, conv.channels);
    let (zeros, pair) = (vec![0.0; c_in.max(c_out)], c_in * c_out);
    let bias = bias.unwrap_or(&zeros[..c_out]);
    // Two rows of outputs are a strip of tiles; a piece has several strips.
    let (wide, strip) = (o.width / 2, 2 * o.width * c_out);
    let strips = (BLOCK / (16 * c_in.max(c_out) * wide)).max(1);
    cpu.with_scratch(16 * pair, |kernels| {
        cpu.each_piece(kernels.chunks_exact_mut(pair).enumerate(), |(at, kernel)| {
            transform_kernel(KERNEL[at / 4], KERNEL[at % 4], weight, kernel);
        });
        cpu.each_piece(out.chunks_mut(strips * strip).enumerate(), |(piece, out)| {
            let tiles = Tiles { conv, first: piece * strips * wide, count: out.len() / strip * wide };
            let (gap_in, gap_out) = (tiles.count * c_in + GAP, tiles.count * c_out + GAP);
            cpu.with_scratch(16 * (gap_in + gap_out), |scratch| {
                let (spread, sums) = scratch.split_at_mut(16 * gap_in);
                simd::vectorise(Spread { tiles, input, zeros: &zeros[..c_in], spread });
                for at in 0..16 {
                    let (v, u) = (&spread[at * gap_in..], &kernels[at * pair..]);
                    let (v, u) = ((v, Strides::rows(c_in)), (u, Strides::rows(c_out)));
                    let m = (&mut sums[at * gap_out..], Strides::rows(c_out));
                    sgemm(tiles.count, c_out, c_in, v, u, m, false);
                }
                simd::vectorise(Join { tiles, sums, bias, out });
            });
        });
    });
}

/// The weight gradient, for sizes that suit.
pub(crate) fn weight_grad(cpu: &Cpu, conv: &Conv, input: &[f32], grad: &[f32], grad_weight: &mut [f32]) {
    let (o, c_in, c_out) = (conv.output(), conv.input.channels, conv.channels);
    let (zeros, pair) = (vec![0.0; c_in], c_in * c_out);
    let (wide, strip) = (o.width / 2, 2 * o.width * c_out);
    let strips = (BLOCK / (16 * c_in.max(c_out) * wide)).max(1);
    let gaps = |count: usize| (count * c_in + GAP, count * c_out + GAP);
    let (gap_in, gap_out) = gaps(strips * wide);
    let size = 16 * (gap_in + gap_out);
    cpu.with_scratch(16 * pair + GROUP * size, |scratch| {
        let (kernels, scratch) = scratch.split_at_mut(16 * pair);
        for (group, grad) in grad.chunks(GROUP * strips * strip).enumerate() {
            let pieces = || grad.chunks(strips * strip).map(|grad| grad.len() / strip * wide);
            let transform = |(piece, (grad, scratch)): (usize, (&[f32], &mut [f32]))| {
                let first = (group * GROUP + piece) * strips * wide;
                let tiles = Tiles { conv, first, count: grad.len() / strip * wide };
                let (gap_in, gap_out) = gaps(tiles.count);
                let (spread, part) = scratch.split_at_mut(16 * gap_in);
                simd::vectorise(Spread { tiles, input, zeros: &zeros, spread });
                simd::vectorise(Part { tiles, grad, part: &mut part[..16 * gap_out] });
            };
            cpu.each_piece(grad.chunks(strips * strip).zip(scratch.chunks_mut(size)).enumerate(), transform);
            cpu.each_piece(kernels.chunks_exact_mut(pair).enumerate(), |(at, kernel)| {
                for (piece, (count, scratch)) in pieces().zip(scratch.chunks(size)).enumerate() {
                    let (gap_in, gap_out) = gaps(count);
                    let v = (&scratch[at * gap_in..], Strides { row: 1, column: c_in });
                    let y = (&scratch[16 * gap_in + at * gap_out..], Strides::rows(c_out));
                    let accumulate = group + piece > 0;
                    sgemm(c_in, c_out, count, v, y, (kernel, Strides::rows(c_out)), accumulate);
                }
            });
        }
        // Four pieces of every tap.
        cpu.each_piece(grad_weight.chunks_exact_mut(pair / 4).enumerate(), |(piece, grad_weight)| {
            let (tap, at) = (piece / 4, piece % 4 * (pair / 4));
            transform_kernel_grad(tap, kernels.chunks_exact(pair).map(|kernel| &kernel[at..][..pair / 4]), grad_weight);
        });
    });
}

/// The gradient of one tap from those of the 16 matrices `U`.
fn transform_kernel_grad<'a>(tap: usize, kernels: impl Iterator<Item = &'a [f32]>, grad: &mut [f32]) {
    simd::run(
        #[inline(always)]
        || {
            grad.fill(0.0);
            for (at, kernel) in kernels.enumerate() {
                let factor = KERNEL[at / 4][tap / 3] * KERNEL[at % 4][tap % 3];
                if factor != 0.0 {
                    grad.iter_mut().zip(kernel).for_each(|(g, &k)| *g += factor * k);
                }
            }
        },
    );
}

/// One of the 16 matrices `U`: the sum of the nine matrices of the kernel's taps, weighted by a row of `G` for each
/// axis.
fn transform_kernel(rows: [f32; 3], columns: [f32; 3], weight: &[f32], kernel: &mut [f32]) {
    simd::run(
        #[inline(always)]
        || {
            let mut fresh = true;
            for (tap, weight) in weight.chunks_exact(kernel.len()).enumerate() {
                let factor = rows[tap / 3] * columns[tap % 3];
                if factor == 0.0 {
                    continue;
                }
                if fresh {
                    kernel.iter_mut().zip(weight).for_each(|(k, &w)| *k = factor * w);
                    fresh = false;
                } else {
                    kernel.iter_mut().zip(weight).for_each(|(k, &w)| *k += factor * w);
                }
            }
        },
    );
}

/// Some tiles of all maps, counted row by row.
#[derive(Debug, Clone, Copy)]
struct Tiles<'a> {
    conv: &'a Conv,
    first: usize,
    count: usize,
}

impl Tiles<'_> {
    /// The map of a tile and its place there.
    #[inline(always)]
    fn place(&self, tile: usize) -> (usize, usize, usize) {
        let o = self.conv.output();
        let (high, wide, tile) = (o.height / 2, o.width / 2, self.first + tile);
        (tile / (high * wide), tile / wide % high, tile % wide)
    }
}

/// `V` of some tiles: 16 matrices `[tiles, c_in]`.
struct Spread<'a> {
    tiles: Tiles<'a>,
    input: &'a [f32],
    zeros: &'a [f32],
    spread: &'a mut [f32],
}

impl WithSimd for Spread<'_> {
    type Output = ();

    #[inline(always)]
    fn with_simd<S: Simd>(self, simd: S) {
        let Self { tiles, input, zeros, spread } = self;
        let (conv, m, c) = (tiles.conv, tiles.conv.input, tiles.conv.input.channels);
        let (vectors, gap) = (c / S::F32_LANES, (tiles.count * c + GAP) / S::F32_LANES);
        let spread = S::as_mut_simd_f32s(spread).0;
        for tile in 0..tiles.count {
            let (map, ty, tx) = tiles.place(tile);
            let input = &input[map * m.len()..][..m.len()];
            let from: [&[S::f32s]; 16] = std::array::from_fn(|i| {
                let (y, x) = (2 * ty + i / 4, 2 * tx + i % 4);
                let inside = y >= conv.padding
                    && x >= conv.padding_width
                    && y - conv.padding < m.height
                    && x - conv.padding_width < m.width;
                let values = if inside {
                    &input[((y - conv.padding) * m.width + x - conv.padding_width) * c..][..c]
                } else {
                    zeros
                };
                &S::as_simd_f32s(values).0[..vectors]
            });
            for j in 0..vectors {
                let mut d: [S::f32s; 16] = std::array::from_fn(|i| from[i][j]);
                for row in 0..4 {
                    let i = 4 * row;
                    [d[i], d[i + 1], d[i + 2], d[i + 3]] = spread_line(simd, [d[i], d[i + 1], d[i + 2], d[i + 3]]);
                }
                for i in 0..4 {
                    [d[i], d[i + 4], d[i + 8], d[i + 12]] = spread_line(simd, [d[i], d[i + 4], d[i + 8], d[i + 12]]);
                }
                for (i, d) in d.into_iter().enumerate() {
                    spread[i * gap + tile * vectors + j] = d;
                }
            }
        }
    }
}

/// `B^T` times four values.
#[inline(always)]
fn spread_line<S: Simd>(simd: S, [a, b, c, d]: [S::f32s; 4]) -> [S::f32s; 4] {
    [simd.sub_f32s(a, c), simd.add_f32s(b, c), simd.sub_f32s(c, b), simd.sub_f32s(b, d)]
}

/// Outputs of some tiles from `M`, 16 matrices `[tiles, c_out]`.
struct Join<'a> {
    tiles: Tiles<'a>,
    sums: &'a [f32],
    bias: &'a [f32],
    out: &'a mut [f32],
}

impl WithSimd for Join<'_> {
    type Output = ();

    #[inline(always)]
    fn with_simd<S: Simd>(self, simd: S) {
        let Self { tiles, sums, bias, out } = self;
        let (o, c) = (tiles.conv.output(), tiles.conv.channels);
        let (vectors, gap) = (c / S::F32_LANES, (tiles.count * c + GAP) / S::F32_LANES);
        let (sums, bias) = (S::as_simd_f32s(sums).0, S::as_simd_f32s(bias).0);
        let out = S::as_mut_simd_f32s(out).0;
        for tile in 0..tiles.count {
            let (strip, tx) = (tile / (o.width / 2), tile % (o.width / 2));
            let at = (2 * strip * o.width + 2 * tx) * vectors;
            for j in 0..vectors {
                let m: [S::f32s; 16] = std::array::from_fn(|i| sums[i * gap + tile * vectors + j]);
                let columns: [[S::f32s; 2]; 4] =
                    std::array::from_fn(|i| join_line(simd, [m[i], m[i + 4], m[i + 8], m[i + 12]]));
                for row in 0..2 {
                    let pair = join_line(simd, columns.map(|column| column[row]));
                    for (column, y) in pair.into_iter().enumerate() {
                        out[at + (row * o.width + column) * vectors + j] = simd.add_f32s(y, bias[j]);
                    }
                }
            }
        }
    }
}

/// `A^T` times four values.
#[inline(always)]
fn join_line<S: Simd>(simd: S, [a, b, c, d]: [S::f32s; 4]) -> [S::f32s; 2] {
    [simd.add_f32s(simd.add_f32s(a, b), c), simd.sub_f32s(simd.sub_f32s(b, c), d)]
}

/// `A dL/dY A^T` of some tiles: 16 matrices `[tiles, c_out]`.
struct Part<'a> {
    tiles: Tiles<'a>,
    grad: &'a [f32],
    part: &'a mut [f32],
}

impl WithSimd for Part<'_> {
    type Output = ();

    #[inline(always)]
    fn with_simd<S: Simd>(self, simd: S) {
        let Self { tiles, grad, part } = self;
        let (o, c) = (tiles.conv.output(), tiles.conv.channels);
        let (vectors, gap) = (c / S::F32_LANES, (tiles.count * c + GAP) / S::F32_LANES);
        let (grad, part) = (S::as_simd_f32s(grad).0, S::as_mut_simd_f32s(part).0);
        for tile in 0..tiles.count {
            let (strip, tx) = (tile / (o.width / 2), tile % (o.width / 2));
            let at = (2 * strip * o.width + 2 * tx) * vectors;
            for j in 0..vectors {
                let rows: [[S::f32s; 4]; 2] = std::array::from_fn(|row| {
                    let at = at + row * o.width * vectors + j;
                    part_line(simd, [grad[at], grad[at + vectors]])
                });
                for column in 0..4 {
                    let line = part_line(simd, [rows[0][column], rows[1][column]]);
                    for (row, y) in line.into_iter().enumerate() {
                        part[(4 * row + column) * gap + tile * vectors + j] = y;
                    }
                }
            }
        }
    }
}

/// `A` times two values.
#[inline(always)]
fn part_line<S: Simd>(simd: S, [a, b]: [S::f32s; 2]) -> [S::f32s; 4] {
    [a, simd.add_f32s(a, b), simd.sub_f32s(a, b), simd.neg_f32s(b)]
}
