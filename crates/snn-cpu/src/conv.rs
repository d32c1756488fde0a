//! Convolution of channel-last maps, every step for itself.
//!
//! Spikes cost events: each adds (or reads) one row of output channels per kernel tap.
//!
//! Dense maps are matrix products over patches, `[positions of all maps, taps and channels]`, of which a block at a
//! time is gathered:
//!
//! * forward, `out = patches weight`: in blocks of positions; where the weights are large, in columns of a few large
//!   blocks, so that they are read once;
//! * input gradient: for stride 1 the forward product of the turned kernel on the gradient; else `gradient weight^T`,
//!   map by map, added to where the patches lie;
//! * weight gradient, `patches^T gradient`: in rows of the weights, or in parts of the positions where the weights are
//!   small.
//!
//! Kernels of 3x3 with many channels on even maps need fewer multiplications (`winograd.rs`). All cuts and choices
//! depend on sizes alone, and every sum is formed in a fixed order.

use std::ops::Range;
use std::sync::Mutex;

use rayon::prelude::*;
use snn_core::error::{Result, check_len};
use snn_core::{Conv, Spikes};

use crate::memory::{Cpu, PIECE, lock};
use crate::product::{Strides, add, sgemm};
use crate::{simd, winograd};

/// Parts into which rows are cut for a weight gradient: fixed, so the order of the sum is.
const PARTS: usize = 8;

/// Entries of a block of patches: 512 KiB, half of a second-level cache of today.
const PATCHES: usize = 1 << 17;

/// Entries of weights from which they are read once for many positions, and not for each block of them.
const LARGE: usize = 1 << 18;

/// Positions of a block where the weights are large.
const TOGETHER: usize = 256;

/// Columns of a piece where the weights are large.
const COLUMNS: usize = 64;

/// Entries of weights up to which a weight gradient is summed in parts of the positions.
const SMALL: usize = 1 << 18;

/// Side of the squares in which weights are turned round.
const SQUARE: usize = 16;

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
    check(conv, "weight", weight, bias)?;
    check_len("conv_dense", "input", input.len(), rows * conv.input.len())?;
    check_len("conv_dense", "out", out.len(), rows * conv.output().len())?;
    convolve(cpu, conv, input, weight, bias, out);
    Ok(())
}

/// The forward pass, sizes checked.
fn convolve(cpu: &Cpu, conv: &Conv, input: &[f32], weight: &[f32], bias: Option<&[f32]>, out: &mut [f32]) {
    let (fan, c_out) = (conv.fan_in(), conv.channels);
    if winograd::suits(conv, input.len() / conv.input.len()) {
        winograd::convolve(cpu, conv, input, weight, bias, out);
        return;
    }
    let patches = Patches { conv, input };
    if weight.len() <= LARGE || c_out <= COLUMNS {
        let block = (PATCHES / fan).clamp(32, 256);
        cpu.each_piece(out.chunks_mut(block * c_out).enumerate(), |(i, out)| {
            let rows = i * block..i * block + out.len() / c_out;
            cpu.with_scratch(rows.len() * fan, |gathered| {
                patches.gather(rows.clone(), 0..fan, gathered);
                start(bias, out);
                let (p, w) = ((&*gathered, Strides::rows(fan)), (weight, Strides::rows(c_out)));
                sgemm(rows.len(), c_out, fan, p, w, (out, Strides::rows(c_out)), true);
            });
        });
        return;
    }
    for (i, out) in out.chunks_mut(TOGETHER * c_out).enumerate() {
        let (first, rows) = (i * TOGETHER, out.len() / c_out);
        cpu.with_scratch(rows * fan, |gathered| {
            let few = 16;
            cpu.each_piece(gathered.chunks_mut(few * fan).enumerate(), |(i, gathered)| {
                let at = first + i * few;
                patches.gather(at..at + gathered.len() / fan, 0..fan, gathered);
            });
            let (p, out) = ((&*gathered, Strides::rows(fan)), Mutex::new(out));
            cpu.each_piece((0..c_out.div_ceil(COLUMNS)).map(|piece| piece * COLUMNS), |from| {
                let width = COLUMNS.min(c_out - from);
                cpu.with_scratch(rows * width, |sums| {
                    start(bias.map(|bias| &bias[from..from + width]), sums);
                    let w = (&weight[from..], Strides::rows(c_out));
                    sgemm(rows, width, fan, p, w, (sums, Strides::rows(width)), true);
                    let mut out = lock(&out);
                    for (out, sums) in out.chunks_exact_mut(c_out).zip(sums.chunks_exact(width)) {
                        out[from..from + width].copy_from_slice(sums);
                    }
                });
            });
        });
    }
}

pub(crate) fn dense_weight_grad(
    cpu: &Cpu,
    conv: &Conv,
    rows: usize,
    input: &[f32],
    grad: &[f32],
    grad_weight: &mut [f32],
) -> Result<()> {
    let (fan, c_out, size) = (conv.fan_in(), conv.channels, grad_weight.len());
    check(conv, "grad_weight", grad_weight, None)?;
    check_len("conv_dense", "input", input.len(), rows * conv.input.len())?;
    check_len("conv_dense", "grad", grad.len(), rows * conv.output().len())?;
    if winograd::suits(conv, rows) {
        winograd::weight_grad(cpu, conv, input, grad, grad_weight);
        return Ok(());
    }
    let (patches, positions) = (Patches { conv, input }, grad.len() / c_out);
    // The sum over some positions of some rows of the gradient; overwrites.
    let sum = |positions: Range<usize>, columns: Range<usize>, sum: &mut [f32]| {
        let block = (PATCHES / columns.len()).clamp(32, 256);
        cpu.with_scratch(block * columns.len(), |gathered| {
            if positions.is_empty() {
                sum.fill(0.0);
            }
            for at in positions.clone().step_by(block) {
                let rows = at..(at + block).min(positions.end);
                patches.gather(rows.clone(), columns.clone(), gathered);
                let p = (&*gathered, Strides { row: 1, column: columns.len() });
                let g = (&grad[rows.start * c_out..rows.end * c_out], Strides::rows(c_out));
                let accumulate = at > positions.start;
                sgemm(columns.len(), c_out, rows.len(), p, g, (sum, Strides::rows(c_out)), accumulate);
            }
        });
    };
    if size > SMALL {
        let columns = fan.div_ceil(16).next_multiple_of(16).clamp(96, 512);
        cpu.each_piece(grad_weight.chunks_mut(columns * c_out).enumerate(), |(i, grad_weight)| {
            let from = i * columns;
            sum(0..positions, from..from + grad_weight.len() / c_out, grad_weight);
        });
        return Ok(());
    }
    let part = positions.div_ceil(PARTS).next_multiple_of(8).max(64);
    if positions <= part {
        sum(0..positions, 0..fan, grad_weight);
        return Ok(());
    }
    cpu.with_scratch(positions.div_ceil(part) * size, |parts| {
        cpu.each_piece(parts.chunks_exact_mut(size).enumerate(), |(i, out)| {
            sum(i * part..((i + 1) * part).min(positions), 0..fan, out);
        });
        cpu.each_piece(grad_weight.chunks_mut(PIECE / 4).enumerate(), |(i, out)| {
            let at = i * PIECE / 4;
            for (i, part) in parts.chunks_exact(size).enumerate() {
                let part = &part[at..at + out.len()];
                if i == 0 { out.copy_from_slice(part) } else { add(part, out) }
            }
        });
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
    if rows == 0 {
        return Ok(());
    }
    if let Some(turned) = turned(conv) {
        if weight.len() > LARGE && grad_input.len() / conv.input.channels * 2 <= conv.input.channels {
            few_positions(cpu, conv, &turned, grad, weight, grad_input);
            return Ok(());
        }
        cpu.with_scratch(weight.len(), |turned_weight| {
            turn(cpu, conv, weight, turned_weight);
            convolve(cpu, &turned, grad, turned_weight, None, grad_input);
        });
        return Ok(());
    }
    let (fan, positions) = (conv.fan_in(), n_out / c_out);
    cpu.each_piece(grad_input.chunks_mut(n_in).zip(grad.chunks(n_out)), |(grad_input, grad)| {
        cpu.with_scratch(positions * fan, |patches| {
            let (g, w) = ((grad, Strides::rows(c_out)), (weight, Strides { row: 1, column: c_out }));
            sgemm(positions, fan, c_out, g, w, (patches, Strides::rows(fan)), false);
            grad_input.fill(0.0);
            let o = conv.output();
            for (position, patch) in patches.chunks_exact(fan).enumerate() {
                runs(conv, position / o.width, position % o.width, |_, inside, from| {
                    let len = inside.len();
                    add(&patch[inside], &mut grad_input[from..from + len]);
                });
            }
        });
    });
    Ok(())
}

/// The convolution that takes gradients on outputs to those on inputs, if there is one.
fn turned(conv: &Conv) -> Option<Conv> {
    let padding = (conv.kernel - 1).checked_sub(conv.padding)?;
    let padding_width = (conv.kernel_width - 1).checked_sub(conv.padding_width)?;
    let (input, channels) = (conv.output(), conv.input.channels);
    (conv.stride == 1).then_some(Conv { input, channels, padding, padding_width, ..*conv })
}

/// The input gradient where there are more channels than positions, so that turning the weights round would cost as
/// much as the product: `grad_input^T`, the sum over taps of `weight patches^T`.
fn few_positions(cpu: &Cpu, conv: &Conv, turned: &Conv, grad: &[f32], weight: &[f32], grad_input: &mut [f32]) {
    let (c_in, c_out, fan) = (conv.input.channels, conv.channels, turned.fan_in());
    let (rows, taps) = (grad_input.len() / c_in, conv.kernel * conv.kernel_width);
    cpu.with_scratch(rows * fan, |gathered| {
        cpu.each_piece(gathered.chunks_exact_mut(c_out * rows).enumerate(), |(tap, gathered)| {
            cpu.with_scratch(c_out * rows, |patches| {
                let columns = tap * c_out..(tap + 1) * c_out;
                Patches { conv: turned, input: grad }.gather(0..rows, columns, patches);
                transpose((patches, c_out), 0, gathered, rows);
            });
        });
        let (gathered, grad_input) = (&*gathered, Mutex::new(grad_input));
        cpu.each_piece((0..c_in.div_ceil(COLUMNS)).map(|piece| piece * COLUMNS), |from| {
            let width = COLUMNS.min(c_in - from);
            cpu.with_scratch(rows * width, |sums| {
                for tap in 0..taps {
                    let w = (&weight[((taps - 1 - tap) * c_in + from) * c_out..], Strides::rows(c_out));
                    let p = (&gathered[tap * c_out * rows..], Strides::rows(rows));
                    sgemm(width, rows, c_out, w, p, (sums, Strides::rows(rows)), tap > 0);
                }
                let mut grad_input = lock(&grad_input);
                for (row, grad_input) in grad_input.chunks_exact_mut(c_in).enumerate() {
                    let sums = sums.chunks_exact(rows);
                    grad_input[from..from + width].iter_mut().zip(sums).for_each(|(to, sums)| *to = sums[row]);
                }
            });
        });
    });
}

/// The weights of the turned convolution: taps in the opposite order, each tap `[c_out, c_in]`.
fn turn(cpu: &Cpu, conv: &Conv, weight: &[f32], turned: &mut [f32]) {
    let (c_in, c_out, taps) = (conv.input.channels, conv.channels, conv.kernel * conv.kernel_width);
    let mut pieces = Vec::new();
    for (tap, turned) in turned.chunks_exact_mut(c_in * c_out).enumerate() {
        let weight = &weight[(taps - 1 - tap) * c_in * c_out..][..c_in * c_out];
        let rows = (PIECE / c_in).next_multiple_of(SQUARE);
        pieces.extend(turned.chunks_mut(rows * c_in).enumerate().map(|(i, turned)| (weight, i * rows, turned)));
    }
    cpu.each_piece(pieces.into_iter(), |(weight, from, turned)| transpose((weight, c_out), from, turned, c_in));
}

/// Writes some columns of a matrix, `from` and those after it, as rows of `to`, which has `height` entries in each row.
///
/// It is done in squares, so that neither side jumps from page to page.
fn transpose((matrix, width): (&[f32], usize), from: usize, to: &mut [f32], height: usize) {
    simd::run(
        #[inline(always)]
        || {
            for (i, to) in to.chunks_mut(SQUARE * height).enumerate() {
                let (column, wide) = (from + i * SQUARE, to.len() / height);
                for row in (0..height).step_by(SQUARE) {
                    let high = SQUARE.min(height - row);
                    if (wide, high) == (SQUARE, SQUARE) {
                        let mut square = [[0.0; SQUARE]; SQUARE];
                        for (r, square) in square.iter_mut().enumerate() {
                            square.copy_from_slice(&matrix[(row + r) * width + column..][..SQUARE]);
                        }
                        for (c, to) in to.chunks_exact_mut(height).enumerate() {
                            let line: [f32; SQUARE] = std::array::from_fn(|r| square[r][c]);
                            to[row..row + SQUARE].copy_from_slice(&line);
                        }
                        continue;
                    }
                    for (c, to) in to.chunks_exact_mut(height).enumerate() {
                        for (r, value) in to[row..row + high].iter_mut().enumerate() {
                            *value = matrix[(row + r) * width + column + c];
                        }
                    }
                }
            }
        },
    );
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

/// Calls `visit(line, inside, from)` for every row of the kernel at output position `(y, x)`: the columns of the patch
/// that belong to it, those of them that lie inside of the map, and where in the map these begin.
#[inline(always)]
fn runs(conv: &Conv, y: usize, x: usize, mut visit: impl FnMut(Range<usize>, Range<usize>, usize)) {
    let (m, k, c) = (conv.input, conv.kernel_width, conv.input.channels);
    let left = x * conv.stride;
    let first = conv.padding_width.saturating_sub(left).min(k);
    let last = (m.width + conv.padding_width).saturating_sub(left).clamp(first, k);
    for ky in 0..conv.kernel {
        let line = ky * k * c;
        let (inside, from) = match conv.source(y, ky, m.height) {
            Some(row) if first < last => {
                (line + first * c..line + last * c, (row * m.width + left + first - conv.padding_width) * c)
            }
            _ => (line..line, 0),
        };
        visit(line..line + k * c, inside, from);
    }
}

/// The patches of all maps, one row for every output position.
#[derive(Clone, Copy)]
struct Patches<'a> {
    conv: &'a Conv,
    input: &'a [f32],
}

impl Patches<'_> {
    /// Writes some columns of some rows, `[rows, columns]`.
    fn gather(&self, rows: Range<usize>, columns: Range<usize>, out: &mut [f32]) {
        let (conv, o, n_in) = (self.conv, self.conv.output(), self.conv.input.len());
        let clip = |range: Range<usize>| {
            let from = range.start.clamp(columns.start, columns.end);
            from..range.end.clamp(from, columns.end)
        };
        for (row, out) in rows.zip(out.chunks_exact_mut(columns.len())) {
            let (map, position) = (row / (o.height * o.width), row % (o.height * o.width));
            let input = &self.input[map * n_in..][..n_in];
            runs(conv, position / o.width, position % o.width, |line, inside, from| {
                let (line, cut) = (clip(line), clip(inside.clone()));
                let at = |column: usize| column - columns.start;
                out[at(line.start)..at(cut.start)].fill(0.0);
                out[at(cut.end)..at(line.end)].fill(0.0);
                if !cut.is_empty() {
                    let from = from + cut.start - inside.start;
                    out[at(cut.start)..at(cut.end)].copy_from_slice(&input[from..from + cut.len()]);
                }
            });
        }
    }
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
