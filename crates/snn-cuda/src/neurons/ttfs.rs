//! Neurons that spike at most once: rectifiers with a shift for each region, what happens to their times on the way, and
//! what a layer came to.

use snn_core::Borders;
use snn_core::backend::{Census, LinAlg, Memory, TtfsOps};
use snn_core::error::{Result, check_len};
use snn_core::neurons::ttfs::{Grid, Perturbation, TtfsNeuron};
use snn_core::random::SpikeDraws;

use crate::device::Cuda;
use crate::kernels::TTFS;
use crate::launch::{Fields, Launch};
use crate::memory::Buffer;

/// Pairs of regions that an argument holds.
const PAIRS: usize = 960;

/// Channels of a layer, from its shift `[R, C]`, after checking it, the window, and the samples in `len` entries.
fn channels(op: &'static str, borders: &Borders, shift: usize, window: &Buffer<f32>, len: usize) -> Result<usize> {
    check_len(op, "window", window.len(), 1)?;
    let channels = shift / borders.regions();
    check_len(op, "shift", shift, channels * borders.regions())?;
    let width = (channels * borders.positions()).max(1);
    check_len(op, "x", len, len / width * width)?;
    Ok(channels)
}

/// Entries of a row, after checking the window and that `len` is `rows` of them.
fn row_width(op: &'static str, rows: usize, window: &Buffer<f32>, len: usize) -> Result<usize> {
    check_len(op, "window", window.len(), 1)?;
    let width = len / rows.max(1);
    check_len(op, "x", len, rows * width)?;
    Ok(width)
}

fn grid_fields(grid: &Grid) -> Fields {
    [grid.step, grid.zero, grid.low(), grid.high()].into_iter().fold(Fields::new("Grid"), |f, x| f.float(x.into()))
}

impl Cuda {
    /// The region of each position, if there is more than one.
    fn regions(&self, borders: &Borders) -> Result<Option<Buffer<u32>>> {
        if borders.regions() == 1 {
            return Ok(None);
        }
        let positions = borders.positions();
        let mut regions = self.scratch(positions)?;
        for from in (0..positions).step_by(2 * PAIRS) {
            let region = |position: usize| if position < positions { borders.region(position) as u32 } else { 0 };
            let pair = |i: usize| region(from + 2 * i) | region(from + 2 * i + 1) << 16;
            let count = positions.min(from + 2 * PAIRS) - from;
            self.launch(&TTFS, "ttfs_regions")
                .threads(count)
                .arg((0..PAIRS).map(pair).fold(Fields::new("Regions"), Fields::unsigned))
                .arg(&mut regions)
                .arg(from as i32)
                .arg(count as i32)
                .run()?;
        }
        Ok(Some(regions))
    }

    /// A perturbation, or its adjoint, about to be given its buffers: a thread for each block of random words.
    fn perturbation(
        &self,
        kernel: &'static str,
        perturbation: &Perturbation,
        draws: SpikeDraws,
        (rows, width): (usize, usize),
    ) -> Launch<'_> {
        let [low, high] = draws.key();
        let Perturbation { noise, bits, limited } = *perturbation;
        self.launch(&TTFS, kernel)
            .threads(rows * SpikeDraws::blocks(width))
            .arg(Fields::new("Perturbation").int(bits as i32).int(limited.into()))
            .arg(noise)
            .arg(Fields::new("Draws").unsigned(low).unsigned(high).unsigned(draws.pass).unsigned(draws.population))
    }
}

impl TtfsOps for Cuda {
    fn ttfs_forward(
        &self,
        neuron: &TtfsNeuron,
        borders: &Borders,
        shift: &Buffer<f32>,
        slope: Option<&Buffer<f32>>,
        window: &Buffer<f32>,
        x: &mut Buffer<f32>,
    ) -> Result<()> {
        const OP: &str = "ttfs_forward";
        let channels = channels(OP, borders, shift.len(), window, x.len())?;
        slope.map_or(Ok(()), |slope| check_len(OP, "slope", slope.len(), channels))?;
        let (regions, len) = (self.regions(borders)?, x.len());
        self.launch(&TTFS, OP)
            .threads(len)
            .arg(shift)
            .arg(regions.as_ref())
            .arg(slope)
            .arg(window)
            .arg(x)
            .arg(len as i64)
            .arg(borders.positions() as i32)
            .arg(channels as i32)
            .arg(i32::from(neuron.limited))
            .run()
    }

    fn ttfs_backward(
        &self,
        neuron: &TtfsNeuron,
        borders: &Borders,
        window: &Buffer<f32>,
        x: &Buffer<f32>,
        grad: &mut Buffer<f32>,
        grad_shift: &mut Buffer<f32>,
    ) -> Result<()> {
        const OP: &str = "ttfs_backward";
        let channels = channels(OP, borders, grad_shift.len(), window, x.len())?;
        check_len(OP, "grad", grad.len(), x.len())?;
        let len = x.len();
        self.launch(&TTFS, OP)
            .threads(len)
            .arg(window)
            .arg(x)
            .arg(&mut *grad)
            .arg(len as i64)
            .arg(i32::from(neuron.limited))
            .run()?;
        let Some(regions) = self.regions(borders)? else {
            return self.sum_all_rows(len / channels.max(1), channels, grad, grad_shift);
        };
        // Over the samples, then over the positions of each region.
        let width = channels * borders.positions();
        let mut sums = self.scratch(width)?;
        self.sum_all_rows(len / width.max(1), width, grad, &mut sums)?;
        self.sum_regions(channels, &regions, &sums, grad_shift)
    }

    fn ttfs_perturb(
        &self,
        perturbation: &Perturbation,
        draws: SpikeDraws,
        rows: usize,
        window: &Buffer<f32>,
        x: &Buffer<f32>,
        out: &mut Buffer<f32>,
    ) -> Result<()> {
        const OP: &str = "ttfs_perturb";
        let width = row_width(OP, rows, window, x.len())?;
        check_len(OP, "out", out.len(), x.len())?;
        let launch = self.perturbation(OP, perturbation, draws, (rows, width));
        launch.arg(window).arg(x).arg(out).arg(rows as i64).arg(width as i32).run()
    }

    fn ttfs_perturb_grad(
        &self,
        perturbation: &Perturbation,
        draws: SpikeDraws,
        rows: usize,
        window: &Buffer<f32>,
        x: &Buffer<f32>,
        grad: &mut Buffer<f32>,
    ) -> Result<()> {
        const OP: &str = "ttfs_perturb_grad";
        let width = row_width(OP, rows, window, x.len())?;
        check_len(OP, "grad", grad.len(), x.len())?;
        let launch = self.perturbation(OP, perturbation, draws, (rows, width));
        launch.arg(window).arg(x).arg(grad).arg(rows as i64).arg(width as i32).run()
    }

    fn ttfs_census(&self, rows: usize, window: &Buffer<f32>, x: &Buffer<f32>, census: &mut Census<Self>) -> Result<()> {
        const OP: &str = "ttfs_census";
        let width = row_width(OP, rows, window, x.len())?;
        let Census { peaks, fired, early } = census;
        self.resize(peaks, rows)?;
        self.resize(fired, rows)?;
        self.resize(early, rows)?;
        self.launch(&TTFS, OP)
            .grid(rows, 1, 1)
            .block(256, 1)
            .arg(window)
            .arg(x)
            .arg(peaks)
            .arg(fired)
            .arg(early)
            .arg(width as i32)
            .run()
    }

    fn ttfs_grow(&self, growth: f64, peaks: &Buffer<f32>, window: &mut Buffer<f32>) -> Result<()> {
        check_len("ttfs_grow", "window", window.len(), 1)?;
        let launch = self.launch(&TTFS, "ttfs_grow").block(256, 1).arg(growth as f32).arg(peaks).arg(window);
        launch.arg(peaks.len() as i32).run()
    }

    fn ttfs_slope(&self, current: &Buffer<f32>, slope: &mut Buffer<f32>, weight: &mut Buffer<f32>) -> Result<()> {
        const OP: &str = "ttfs_slope";
        let width = slope.len();
        let rows = current.len() / width.max(1);
        check_len(OP, "current", current.len(), rows * width)?;
        check_len(OP, "weight", weight.len(), current.len())?;
        self.sum_all_rows(rows, width, current, slope)?;
        self.add_constant(1.0, slope)?;
        self.launch(&TTFS, OP)
            .threads(current.len())
            .arg(current)
            .arg(&*slope)
            .arg(weight)
            .arg(current.len() as i64)
            .arg(width as i32)
            .run()
    }

    fn ttfs_slope_grad(&self, slope: &Buffer<f32>, weight: &Buffer<f32>, grad: &mut Buffer<f32>) -> Result<()> {
        const OP: &str = "ttfs_slope_grad";
        let width = slope.len();
        let rows = weight.len() / width.max(1);
        check_len(OP, "weight", weight.len(), rows * width)?;
        check_len(OP, "grad", grad.len(), weight.len())?;
        let mut common = self.scratch(width)?;
        self.sum_all_products(rows, weight, grad, &mut common)?;
        self.launch(&TTFS, OP)
            .threads(weight.len())
            .arg(slope)
            .arg(&common)
            .arg(grad)
            .arg(weight.len() as i64)
            .arg(width as i32)
            .run()
    }

    fn quantise(&self, grid: &Grid, x: &Buffer<f32>, out: &mut Buffer<f32>) -> Result<()> {
        check_len("quantise", "out", out.len(), x.len())?;
        let launch = self.launch(&TTFS, "quantise").threads(x.len()).arg(grid_fields(grid));
        launch.arg(x).arg(out).arg(x.len() as i64).run()
    }

    fn quantise_grad(&self, grid: &Grid, x: &Buffer<f32>, grad: &mut Buffer<f32>) -> Result<()> {
        check_len("quantise_grad", "grad", grad.len(), x.len())?;
        let launch = self.launch(&TTFS, "quantise_grad").threads(x.len()).arg(grid_fields(grid));
        launch.arg(x).arg(grad).arg(x.len() as i64).run()
    }
}
