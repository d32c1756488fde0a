//! Products: dense ones by cuBLAS, those of spikes by walking their bits.
//!
//! A warp adds up the weight rows of one step's events for 128 columns at a time. Spikes that are known to be dense,
//! because the host uploaded them, become a matrix instead. How dense those of a layer are only the device knows, and
//! asking would make the host wait, so they are always walked.

use snn_core::Lanes;
use snn_core::backend::{Gemm, LinAlg};
use snn_core::error::Result;

use crate::device::{Cuda, Matrix};
use crate::kernels::SPARSE;
use crate::launch::{BLOCK, Launch};
use crate::memory::Buffer;
use crate::spikes::{CudaSpikes, words_of};

/// Events per entry from which on a dense product takes less time: a choice by counting operations, not measured. An
/// event costs a row of weights from the second-level cache and an addition for each column, an entry of a dense product
/// a fused multiplication and addition.
const DENSE: f64 = 0.25;

/// Columns of a warp that adds up the weights of a row's events.
const COLUMNS: usize = 128;

/// Rows of a block of such warps, a warp for each.
const ROWS: usize = 8;

/// Entries of the partial sums of a weight gradient, at most: 64 MiB.
const PARTIAL: usize = 1 << 24;

/// Chunks of rows, at most: blocks along the second axis of a grid.
const MOST_CHUNKS: usize = 4096;

/// Rows whose gradients are summed together, at least.
const MIN_ROWS: usize = 64;

impl Launch<'_> {
    /// A warp for each row and 128 columns.
    pub(crate) fn rows_of_events(self, rows: usize, width: usize) -> Self {
        self.grid(rows.div_ceil(ROWS), width.div_ceil(COLUMNS), 1).block(BLOCK, 1)
    }
}

impl Cuda {
    /// A dense product; the lengths have been checked.
    pub(crate) fn product(&self, g: Gemm, a: &Buffer<f32>, b: &Buffer<f32>, c: &mut Buffer<f32>) -> Result<()> {
        if g.m == 0 || g.n == 0 {
            return Ok(());
        }
        if g.k == 0 {
            return if g.accumulate { Ok(()) } else { self.clear_buffer(c) };
        }
        let matrix = |address, row| Matrix { address, row, step: 0 };
        let a = matrix(a.address(), if g.transpose_a { g.m } else { g.k });
        let b = matrix(b.address(), if g.transpose_b { g.k } else { g.n });
        self.queue_products(g, [a, b, matrix(c.address(), g.n)], 1)
    }

    /// `out[r, :] = bias + sum over events (r, i) of weight[i, :]`; the lengths have been checked.
    pub(crate) fn spikes_product(
        &self,
        spikes: &CudaSpikes,
        width: usize,
        weight: &Buffer<f32>,
        bias: Option<&Buffer<f32>>,
        out: &mut Buffer<f32>,
    ) -> Result<()> {
        let lanes = spikes.lanes();
        if is_dense(spikes) {
            let dense = self.dense_spikes(spikes)?;
            self.product(Gemm::new(lanes.rows(), width, lanes.width), &dense, weight, out)?;
            return bias.map_or(Ok(()), |bias| self.add_bias(lanes.rows(), bias, out));
        }
        self.launch(&SPARSE, "spikes_product")
            .rows_of_events(lanes.rows(), width)
            .arg(spikes.words())
            .arg(spikes.planes())
            .arg(spikes.rows())
            .arg(spikes.words_per_row())
            .arg(width as i32)
            .arg(weight)
            .arg(bias)
            .arg(out)
            .run()
    }

    /// `grad_weight[i, :] = sum over events (r, i) of grad[r, :]`; the lengths have been checked.
    pub(crate) fn spikes_weight_grad(
        &self,
        spikes: &CudaSpikes,
        width: usize,
        grad: &Buffer<f32>,
        grad_weight: &mut Buffer<f32>,
    ) -> Result<()> {
        let Lanes { width: inputs, .. } = spikes.lanes();
        let rows = spikes.lanes().rows();
        if is_dense(spikes) {
            let dense = self.dense_spikes(spikes)?;
            return self.product(Gemm::new(inputs, width, rows).a_transposed(), &dense, grad, grad_weight);
        }
        self.late_weight_grad(spikes, 1, width, grad, grad_weight)
    }

    /// The same for inputs that arrive up to `delays - 1` steps later: `grad_weight[i, d, :]` is the sum over events
    /// `(b, t, i)` of `grad[b, t + d, :]`; the lengths have been checked.
    pub(crate) fn late_weight_grad(
        &self,
        spikes: &CudaSpikes,
        delays: usize,
        width: usize,
        grad: &Buffer<f32>,
        grad_weight: &mut Buffer<f32>,
    ) -> Result<()> {
        let Lanes { steps, width: inputs, .. } = spikes.lanes();
        let rows = spikes.lanes().rows();
        // The chunks depend on sizes alone, and so does the order of the sum.
        let entries = inputs * delays * width;
        let chunks = rows.div_ceil(MIN_ROWS).min(PARTIAL / entries.max(1)).clamp(1, MOST_CHUNKS);
        let chunk = rows.div_ceil(chunks).next_multiple_of(32).max(32);
        let chunks = rows.div_ceil(chunk).max(1);
        let warps = words_of(inputs) * width.div_ceil(32);
        let sum = |target: &mut Buffer<f32>| {
            self.launch(&SPARSE, "spikes_weight_grad")
                .grid(warps.div_ceil(8), chunks, delays)
                .block(256, 1)
                .arg(spikes.words())
                .arg(spikes.planes())
                .arg(spikes.rows())
                .arg(steps as i32)
                .arg(inputs as i32)
                .arg(width as i32)
                .arg(chunk as i64)
                .arg(grad)
                .arg(target)
                .run()
        };
        if chunks == 1 {
            return sum(grad_weight);
        }
        let mut partial = self.scratch(chunks * entries)?;
        sum(&mut partial)?;
        self.sum_all_rows(chunks, entries, &partial, grad_weight)
    }
}

/// Whether products take these spikes as a matrix.
pub(crate) fn is_dense(spikes: &CudaSpikes) -> bool {
    spikes.density().is_some_and(|density| density > DENSE)
}
