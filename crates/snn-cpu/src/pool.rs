//! Max pooling of spikes; the gradient goes to the first maximum of a window, row-major.

use rayon::prelude::*;
use snn_core::error::{Result, check_len};
use snn_core::{Pool, Spikes};

use crate::memory::Cpu;

/// The units of one row with their counts, ascending.
fn counts(row: &[u32], sorted: &mut Vec<(u32, u32)>) {
    sorted.clear();
    sorted.extend(row.iter().map(|&u| (u, 1)));
    sorted.sort_unstable();
    sorted.dedup_by(|later, kept| {
        let same = later.0 == kept.0;
        kept.1 += u32::from(same) * later.1;
        same
    });
}

/// For each window that holds events: output unit, largest count, input unit of the first maximum.
fn maxima(pool: &Pool, row: &[u32], scratch: &mut Vec<(u32, u32)>, out: &mut Vec<(u32, u32, u32)>) {
    counts(row, scratch);
    out.clear();
    for &(unit, count) in &*scratch {
        if let Some((target, rank)) = pool.target(unit as usize) {
            out.push((target as u32, u32::MAX - count, rank as u32));
        }
    }
    // Largest count first, then row-major rank; one entry per window stays.
    out.sort_unstable();
    out.dedup_by_key(|m| m.0);
    for m in out.iter_mut() {
        *m = (m.0, u32::MAX - m.1, pool.source(m.0 as usize, m.2 as usize) as u32);
    }
}

pub(crate) fn forward(cpu: &Cpu, pool: &Pool, spikes: &Spikes, out: &mut Spikes) -> Result<()> {
    let lanes = spikes.lanes();
    check_len("pool", "spikes", lanes.width, pool.input.len())?;
    let rows: Vec<Vec<u32>> = cpu.install(|| {
        (0..lanes.rows())
            .into_par_iter()
            .map_init(Default::default, |(scratch, found), row| {
                maxima(pool, spikes.row(row), scratch, found);
                found.iter().flat_map(|&(target, count, _)| std::iter::repeat_n(target, count as usize)).collect()
            })
            .collect()
    });
    out.start(lanes.steps, pool.output().len());
    rows.iter().for_each(|row| out.push_row(row));
    out.finish(lanes.batch)
}

pub(crate) fn backward(cpu: &Cpu, pool: &Pool, spikes: &Spikes, grad: &[f32], grad_input: &mut [f32]) -> Result<()> {
    let lanes = spikes.lanes();
    let (n_in, n_out) = (pool.input.len(), pool.output().len());
    check_len("pool", "spikes", lanes.width, n_in)?;
    check_len("pool", "grad", grad.len(), lanes.rows() * n_out)?;
    check_len("pool", "grad_input", grad_input.len(), lanes.rows() * n_in)?;
    let (o, channels) = (pool.output(), pool.input.channels);
    cpu.install(|| {
        let rows = grad_input.par_chunks_mut(n_in.max(1)).zip(grad.par_chunks(n_out.max(1))).enumerate();
        rows.for_each_init(Default::default, |(scratch, found), (row, (grad_input, grad))| {
            grad_input.fill(0.0);
            // A silent window's first maximum is its first unit.
            for y in 0..o.height {
                for x in 0..o.width {
                    let (from, to) = ((y * o.width + x) * channels, pool.source((y * o.width + x) * channels, 0));
                    grad_input[to..to + channels].copy_from_slice(&grad[from..from + channels]);
                }
            }
            maxima(pool, spikes.row(row), scratch, found);
            for &(target, _, source) in &*found {
                grad_input[pool.source(target as usize, 0)] = 0.0;
                grad_input[source as usize] = grad[target as usize];
            }
        });
    });
    Ok(())
}
