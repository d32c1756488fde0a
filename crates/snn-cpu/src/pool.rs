//! Max pooling of spikes and of values, whose gradient goes to the first maximum of a window, row-major; mean pooling of
//! both.

use rayon::prelude::*;
use snn_core::error::{Result, check_len};
use snn_core::{Pool, Spikes};

use crate::memory::{Cpu, PIECE};
use crate::product::add;
use crate::simd;

/// Rows that a task takes: enough that its lists are worth making.
const ROWS: usize = 32;

/// "No window": an input unit of a dropped rest.
const NONE: u32 = u32::MAX;

/// The maxima of one row's windows, and the memory to find them.
#[derive(Debug, Clone)]
struct Windows<'a> {
    /// The window of every input unit.
    of_unit: &'a [u32],
    /// By window: the largest count so far (0 for a silent one), and the unit that attains it first.
    best: Vec<(u32, u32)>,
    /// The windows that hold events, ascending.
    active: Vec<u32>,
}

/// The window of every input unit, by table: the divisions behind it would cost more than the pooling.
fn window_of_unit(pool: &Pool) -> Vec<u32> {
    (0..pool.input.len()).map(|unit| pool.target(unit).map_or(NONE, |(window, _)| window as u32)).collect()
}

impl<'a> Windows<'a> {
    fn new(of_unit: &'a [u32], windows: usize) -> Self {
        Self { of_unit, best: vec![(0, 0); windows], active: Vec::new() }
    }

    /// Looks at a row whose units ascend: that is row-major order, so the first maximum is the one that is kept.
    fn find(&mut self, row: &[u32]) {
        self.active.drain(..).for_each(|w| self.best[w as usize] = (0, 0));
        for same in row.chunk_by(|a, b| a == b) {
            let (unit, count) = (same[0], same.len() as u32);
            let window = self.of_unit[unit as usize];
            let Some(best) = self.best.get_mut(window as usize) else { continue };
            if best.0 == 0 {
                self.active.push(window);
            }
            if count > best.0 {
                *best = (count, unit);
            }
        }
        self.active.sort_unstable();
    }
}

pub(crate) fn forward(cpu: &Cpu, pool: &Pool, spikes: &Spikes, out: &mut Spikes) -> Result<()> {
    let lanes = spikes.lanes();
    check_len("pool", "spikes", lanes.width, pool.input.len())?;
    let windows = pool.output().len();
    let of_unit = window_of_unit(pool);
    // Each task lists the units of its rows one after the other, and how many each row has.
    let lists: Vec<(Vec<usize>, Vec<u32>)> = cpu.install(|| {
        let starts = (0..lanes.rows()).into_par_iter().step_by(ROWS);
        let lists = starts.map_init(
            || Windows::new(&of_unit, windows),
            |found, first| {
                let (mut lengths, mut units) = (Vec::with_capacity(ROWS), Vec::new());
                for row in first..(first + ROWS).min(lanes.rows()) {
                    found.find(spikes.row(row));
                    let before = units.len();
                    for &w in &found.active {
                        units.extend(std::iter::repeat_n(w, found.best[w as usize].0 as usize));
                    }
                    lengths.push(units.len() - before);
                }
                (lengths, units)
            },
        );
        lists.collect()
    });
    let lengths = lists.iter().flat_map(|(lengths, _)| lengths.iter().copied());
    let (_, mut to) = out.reserve(lanes.with_width(windows), lengths);
    for (_, units) in &lists {
        let (now, rest) = to.split_at_mut(units.len());
        now.copy_from_slice(units);
        to = rest;
    }
    Ok(())
}

pub(crate) fn backward(cpu: &Cpu, pool: &Pool, spikes: &Spikes, grad: &[f32], grad_input: &mut [f32]) -> Result<()> {
    let lanes = spikes.lanes();
    let (n_in, n_out) = (pool.input.len(), pool.output().len());
    check_len("pool", "spikes", lanes.width, n_in)?;
    check_len("pool", "grad", grad.len(), lanes.rows() * n_out)?;
    check_len("pool", "grad_input", grad_input.len(), lanes.rows() * n_in)?;
    let (o, channels) = (pool.output(), pool.input.channels);
    let of_unit = window_of_unit(pool);
    let first_of_window: Vec<u32> = (0..n_out).map(|w| pool.source(w, 0) as u32).collect();
    cpu.install(|| {
        let rows = grad_input.par_chunks_mut(n_in.max(1)).zip(grad.par_chunks(n_out.max(1))).enumerate();
        rows.for_each_init(
            || Windows::new(&of_unit, n_out),
            |found, (row, (grad_input, grad))| {
                grad_input.fill(0.0);
                // A silent window's first maximum is its first unit.
                for position in 0..o.height * o.width {
                    let (from, to) = (position * channels, first_of_window[position * channels] as usize);
                    grad_input[to..to + channels].copy_from_slice(&grad[from..from + channels]);
                }
                found.find(spikes.row(row));
                for &window in &found.active {
                    let (_, source) = found.best[window as usize];
                    grad_input[first_of_window[window as usize] as usize] = 0.0;
                    grad_input[source as usize] = grad[window as usize];
                }
            },
        );
    });
    Ok(())
}

/// Calls `visit(offset in the input map, offset in the output map)` for every run of channels that a window holds.
fn each_run(pool: &Pool, mut visit: impl FnMut(usize, usize)) {
    let (m, o) = (pool.input, pool.output());
    for y in 0..o.height * pool.window {
        for x in 0..o.width * pool.window_width {
            let (to, from) = (y / pool.window * o.width + x / pool.window_width, y * m.width + x);
            visit(from * m.channels, to * m.channels);
        }
    }
}

pub(crate) fn mean(cpu: &Cpu, pool: &Pool, rows: usize, x: &[f32], out: &mut [f32]) -> Result<()> {
    let (n_in, n_out, channels) = (pool.input.len(), pool.output().len(), pool.input.channels);
    check_len("pool_mean", "x", x.len(), rows * n_in)?;
    check_len("pool_mean", "out", out.len(), rows * n_out)?;
    let share = 1.0 / pool.size() as f32;
    cpu.install(|| {
        out.par_chunks_mut(n_out).zip(x.par_chunks(n_in)).for_each(|(out, x)| {
            out.fill(0.0);
            each_run(pool, |from, to| add(&x[from..from + channels], &mut out[to..to + channels]));
            out.iter_mut().for_each(|o| *o *= share);
        });
    });
    Ok(())
}

pub(crate) fn spikes_mean(cpu: &Cpu, pool: &Pool, spikes: &Spikes, out: &mut [f32]) -> Result<()> {
    let lanes = spikes.lanes();
    let n_out = pool.output().len();
    check_len("pool_spikes_mean", "spikes", lanes.width, pool.input.len())?;
    check_len("pool_spikes_mean", "out", out.len(), lanes.rows() * n_out)?;
    let of_unit = window_of_unit(pool);
    let share = 1.0 / pool.size() as f32;
    cpu.install(|| {
        out.par_chunks_mut(n_out).enumerate().for_each(|(row, out)| {
            out.fill(0.0);
            for &unit in spikes.row(row) {
                if let Some(out) = out.get_mut(of_unit[unit as usize] as usize) {
                    *out += 1.0;
                }
            }
            out.iter_mut().for_each(|o| *o *= share);
        });
    });
    Ok(())
}

pub(crate) fn mean_grad(cpu: &Cpu, pool: &Pool, rows: usize, grad: &[f32], grad_input: &mut [f32]) -> Result<()> {
    let (n_in, n_out, channels) = (pool.input.len(), pool.output().len(), pool.input.channels);
    check_len("pool_mean", "grad", grad.len(), rows * n_out)?;
    check_len("pool_mean", "grad_input", grad_input.len(), rows * n_in)?;
    let share = 1.0 / pool.size() as f32;
    cpu.install(|| {
        grad_input.par_chunks_mut(n_in).zip(grad.par_chunks(n_out)).for_each(|(grad_input, grad)| {
            grad_input.fill(0.0);
            each_run(pool, |to, from| {
                let pairs = grad_input[to..to + channels].iter_mut().zip(&grad[from..from + channels]);
                pairs.for_each(|(to, g)| *to = g * share);
            });
        });
    });
    Ok(())
}

/// Max pooling of values, with a sign for each channel.
pub(crate) fn max(
    cpu: &Cpu,
    pool: &Pool,
    rows: usize,
    sign: Option<&[f32]>,
    x: &[f32],
    out: &mut [f32],
    at: &mut [u32],
) -> Result<()> {
    const OP: &str = "pool_max";
    let (m, o) = (pool.input, pool.output());
    check_len(OP, "x", x.len(), rows * m.len())?;
    check_len(OP, "out", out.len(), rows * o.len())?;
    check_len(OP, "at", at.len(), rows * o.len())?;
    sign.map_or(Ok(()), |sign| check_len(OP, "sign", sign.len(), m.channels))?;
    let (line, channels) = ((o.width * o.channels).max(1), m.channels.max(1));
    let ones = vec![1.0; if sign.is_some() { 0 } else { m.channels }];
    let sign = sign.unwrap_or(&ones);
    // Some lines of the output at a time.
    let lines = (PIECE / line).max(1);
    cpu.each_piece(out.chunks_mut(lines * line).zip(at.chunks_mut(lines * line)).enumerate(), |(piece, (out, at))| {
        let rows = out.chunks_mut(line).zip(at.chunks_mut(line));
        for (i, (out, at)) in (piece * lines..).zip(rows) {
            let (row, y) = (i / o.height.max(1), i % o.height.max(1));
            let x = &x[row * m.len()..][..m.len()];
            simd::run(
                #[inline(always)]
                || {
                    let columns = out.chunks_exact_mut(channels).zip(at.chunks_exact_mut(channels));
                    for (column, (out, at)) in columns.enumerate() {
                        for rank in 0..pool.size() {
                            let (dy, dx) = (rank / pool.window_width, rank % pool.window_width);
                            let from = (y * pool.window + dy) * m.width + column * pool.window_width + dx;
                            let x = &x[from * channels..][..channels];
                            if rank == 0 {
                                out.copy_from_slice(x);
                                at.fill(0);
                                continue;
                            }
                            for (((out, at), &x), &sign) in out.iter_mut().zip(&mut *at).zip(x).zip(sign) {
                                let better = sign * x > sign * *out;
                                *out = if better { x } else { *out };
                                *at = if better { rank as u32 } else { *at };
                            }
                        }
                    }
                },
            );
        }
    });
    Ok(())
}

/// Adjoint of [`max`].
pub(crate) fn max_grad(
    cpu: &Cpu,
    pool: &Pool,
    rows: usize,
    at: &[u32],
    grad: &[f32],
    grad_input: &mut [f32],
) -> Result<()> {
    const OP: &str = "pool_max_grad";
    let (m, o) = (pool.input, pool.output());
    check_len(OP, "at", at.len(), rows * o.len())?;
    check_len(OP, "grad", grad.len(), rows * o.len())?;
    check_len(OP, "grad_input", grad_input.len(), rows * m.len())?;
    let channels = m.channels.max(1);
    let line = (m.width * channels).max(1);
    let lines = (PIECE / line).max(1);
    cpu.each_piece(grad_input.chunks_mut(lines * line).enumerate(), |(piece, grad_input)| {
        for (i, line) in (piece * lines..).zip(grad_input.chunks_mut(line)) {
            let (row, y) = (i / m.height.max(1), i % m.height.max(1));
            // A rest that fills no window stays 0.
            line.fill(0.0);
            let (oy, dy) = (y / pool.window, y % pool.window);
            if oy >= o.height {
                continue;
            }
            simd::run(
                #[inline(always)]
                || {
                    for (column, line) in line.chunks_exact_mut(channels).enumerate() {
                        let (ox, dx) = (column / pool.window_width, column % pool.window_width);
                        if ox >= o.width {
                            continue;
                        }
                        let rank = (dy * pool.window_width + dx) as u32;
                        let from = row * o.len() + (oy * o.width + ox) * channels;
                        let (at, grad) = (&at[from..][..channels], &grad[from..][..channels]);
                        for ((to, &at), &g) in line.iter_mut().zip(at).zip(grad) {
                            *to = if at == rank { g } else { 0.0 };
                        }
                    }
                },
            );
        }
    });
    Ok(())
}
