//! Sums over rows, and the normalisation of channels that needs them.
//!
//! Rows are summed in parts, and the parts joined in order: what a part is depends on sizes alone, so the bits are the same
//! every time. Parts are joined in double precision, so long columns lose nothing.

use snn_core::Lanes;
use snn_core::backend::ChannelNorm;
use snn_core::error::{Result, check_len};

use crate::device::Cuda;
use crate::kernels::NORM;
use crate::launch::Launch;
use crate::memory::Buffer;

/// Threads of a block, which share its rows and columns.
const BLOCK: usize = 256;

/// Columns of a block, at most: a warp's.
const COLUMNS: usize = 32;

/// Blocks that a long sum is cut into, about: some for each multiprocessor of a large device.
const BLOCKS: usize = 1024;

/// Parts of a sum, at most: they are joined by a single block for each of its columns.
const PARTS: usize = 512;

/// Rows that a thread of a part adds up, at least.
const ROWS: usize = 4;

/// Neighbouring columns of a block.
pub(crate) fn columns(width: usize) -> usize {
    width.clamp(1, COLUMNS)
}

/// Blocks across the columns.
pub(crate) fn across(width: usize) -> usize {
    width.div_ceil(columns(width))
}

/// How a sum over rows is cut.
#[derive(Clone, Copy)]
struct Cut {
    rows: usize,
    width: usize,
    /// Rows of a part.
    per_part: usize,
    parts: usize,
}

impl Cut {
    /// For a sum over all rows.
    fn new(rows: usize, width: usize) -> Self {
        let parts = (BLOCKS / across(width).max(1)).clamp(1, PARTS);
        Self::each(rows, width, rows.div_ceil(parts).max(ROWS * BLOCK / columns(width)))
    }

    /// For sums over every so many rows.
    fn each(rows: usize, width: usize, per_part: usize) -> Self {
        Self { rows, width, per_part, parts: rows.div_ceil(per_part.max(1)).max(1) }
    }
}

impl Cuda {
    /// The sums of all parts, `[parts, width]`: the kernel's inputs, then its output, then what the cut is.
    fn sum_parts<'a>(
        &'a self,
        kernel: &'static str,
        cut: Cut,
        buffers: impl FnOnce(Launch<'a>) -> Launch<'a>,
    ) -> Launch<'a> {
        let launch = self.launch(&NORM, kernel).grid(cut.parts * across(cut.width), 1, 1).block(BLOCK as u32, 1);
        buffers(launch)
            .arg(cut.rows as i64)
            .arg(cut.per_part as i64)
            .arg(cut.width as i32)
            .arg(columns(cut.width) as i32)
    }

    /// `out = factor * the sum of all parts`.
    fn join_sums(&self, parts: &Buffer<f32>, width: usize, factor: f64, out: &mut Buffer<f32>) -> Result<()> {
        self.launch(&NORM, "join_sums")
            .grid(across(width), 1, 1)
            .block(BLOCK as u32, 1)
            .arg(parts)
            .arg(out)
            .arg((parts.len() / width.max(1)) as i64)
            .arg(width as i32)
            .arg(columns(width) as i32)
            .arg(factor)
            .run()
    }

    /// `out[n] = sum over rows of x[r, n]`; the lengths have been checked.
    pub(crate) fn sum_all_rows(&self, rows: usize, width: usize, x: &Buffer<f32>, out: &mut Buffer<f32>) -> Result<()> {
        let cut = Cut::new(rows, width);
        let sum = |out: &mut Buffer<f32>| self.sum_parts("sum_rows", cut, |l| l.arg(x).arg(out)).arg(1.0_f32).run();
        if cut.parts == 1 {
            return sum(out);
        }
        let mut parts = self.scratch(cut.parts * width)?;
        sum(&mut parts)?;
        self.join_sums(&parts, width, 1.0, out)
    }

    /// `out[n] = sum over rows of x[r, n] y[r, n]`; the lengths have been checked.
    pub(crate) fn sum_all_products(
        &self,
        rows: usize,
        x: &Buffer<f32>,
        y: &Buffer<f32>,
        out: &mut Buffer<f32>,
    ) -> Result<()> {
        let cut = Cut::new(rows, out.len());
        let mut parts = self.scratch(cut.parts * cut.width)?;
        self.sum_parts("sum_products", cut, |l| l.arg(x).arg(y).arg(&mut parts)).run()?;
        self.join_sums(&parts, cut.width, 1.0, out)
    }

    /// `out[b, :] = factor * sum over t of x[b, t, :]`; the lengths have been checked.
    pub(crate) fn sum_each_sample(
        &self,
        lanes: Lanes,
        factor: f32,
        x: &Buffer<f32>,
        out: &mut Buffer<f32>,
    ) -> Result<()> {
        if lanes.is_empty() {
            return self.clear_buffer(out);
        }
        let cut = Cut::each(lanes.rows(), lanes.width, lanes.steps);
        self.sum_parts("sum_rows", cut, |l| l.arg(x).arg(out)).arg(factor).run()
    }

    /// `out[b, :] = sum over t of the softmax of x[b, t, :]`, from the maximum of each row and its sum of exponentials.
    pub(crate) fn sum_softmax(
        &self,
        lanes: Lanes,
        x: &Buffer<f32>,
        [top, sum]: [&Buffer<f32>; 2],
        out: &mut Buffer<f32>,
    ) -> Result<()> {
        let cut = Cut::each(lanes.rows(), lanes.width, lanes.steps);
        self.sum_parts("sum_softmax", cut, |l| l.arg(x).arg(top).arg(sum).arg(out)).run()
    }

    /// `out[r, :] = sum over the rows of region r`, from `x[rows, width]` and the region of each row.
    pub(crate) fn sum_regions(
        &self,
        width: usize,
        region: &Buffer<u32>,
        x: &Buffer<f32>,
        out: &mut Buffer<f32>,
    ) -> Result<()> {
        self.launch(&NORM, "sum_regions")
            .grid(out.len() / width.max(1) * across(width), 1, 1)
            .block(BLOCK as u32, 1)
            .arg(x)
            .arg(region)
            .arg(out)
            .arg(region.len() as i64)
            .arg(width as i32)
            .arg(columns(width) as i32)
            .run()
    }

    pub(crate) fn moments(&self, x: &Buffer<f32>, mean: &mut Buffer<f32>, variance: &mut Buffer<f32>) -> Result<()> {
        const OP: &str = "channel_moments";
        let channels = mean.len();
        check_len(OP, "variance", variance.len(), channels)?;
        check_len(OP, "x", x.len(), x.len() / channels.max(1) * channels)?;
        if channels == 0 {
            return Ok(());
        }
        let cut = Cut::new(x.len() / channels, channels);
        let share = channels as f64 / x.len() as f64;
        let mut parts = self.scratch(cut.parts * channels)?;
        self.sum_parts("sum_rows", cut, |l| l.arg(x).arg(&mut parts)).arg(1.0_f32).run()?;
        self.join_sums(&parts, channels, share, mean)?;
        self.sum_parts("sum_squares", cut, |l| l.arg(x).arg(&*mean).arg(&mut parts)).run()?;
        self.join_sums(&parts, channels, share, variance)
    }

    /// Checks the sizes of a normalisation; gives one over the deviation of each channel.
    fn inverse_deviations(&self, op: &'static str, norm: &ChannelNorm<'_, Self>, len: usize) -> Result<Buffer<f32>> {
        let channels = norm.mean.len();
        for (arg, list) in [("variance", norm.variance), ("gain", norm.gain), ("offset", norm.offset)] {
            check_len(op, arg, list.len(), channels)?;
        }
        check_len(op, "x", len, len / channels.max(1) * channels)?;
        let mut inverse = self.scratch(channels)?;
        self.launch(&NORM, "inverse_deviations")
            .threads(channels)
            .arg(norm.variance)
            .arg(&mut inverse)
            .arg(channels as i32)
            .arg(norm.eps)
            .run()?;
        Ok(inverse)
    }

    pub(crate) fn normalise(
        &self,
        norm: &ChannelNorm<'_, Self>,
        x: &mut Buffer<f32>,
        normalised: Option<&mut Buffer<f32>>,
    ) -> Result<()> {
        const OP: &str = "normalise_channels";
        let inverse = self.inverse_deviations(OP, norm, x.len())?;
        if let Some(out) = &normalised {
            check_len(OP, "normalised", out.len(), x.len())?;
        }
        let len = x.len();
        self.launch(&NORM, "normalise_channels")
            .threads(len)
            .arg(norm.mean)
            .arg(&inverse)
            .arg(norm.gain)
            .arg(norm.offset)
            .arg(x)
            .arg(normalised)
            .arg(len as i64)
            .arg(inverse.len() as i32)
            .run()
    }

    pub(crate) fn normalise_grad(
        &self,
        norm: &ChannelNorm<'_, Self>,
        grad: &Buffer<f32>,
        normalised: &mut Buffer<f32>,
        grad_gain: &mut Buffer<f32>,
        grad_offset: &mut Buffer<f32>,
    ) -> Result<()> {
        const OP: &str = "normalise_channels_grad";
        let inverse = self.inverse_deviations(OP, norm, grad.len())?;
        let channels = inverse.len();
        check_len(OP, "normalised", normalised.len(), grad.len())?;
        check_len(OP, "grad_gain", grad_gain.len(), channels)?;
        check_len(OP, "grad_offset", grad_offset.len(), channels)?;
        if channels == 0 {
            return Ok(());
        }
        let rows = grad.len() / channels;
        self.sum_all_products(rows, grad, normalised, grad_gain)?;
        self.sum_all_rows(rows, channels, grad, grad_offset)?;
        self.launch(&NORM, "normalise_channels_grad")
            .threads(grad.len())
            .arg(norm.gain)
            .arg(&inverse)
            .arg(&*grad_gain)
            .arg(&*grad_offset)
            .arg(grad)
            .arg(normalised)
            .arg(grad.len() as i64)
            .arg(channels as i32)
            .arg(channels as f64 / grad.len() as f64)
            .run()
    }
}
