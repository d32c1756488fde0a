//! What fitting recorded neurons needs; equations in [`snn_core::fit`].

use snn_core::Lanes;
use snn_core::backend::FitOps;
use snn_core::error::{Result, check_len};
use snn_core::fit::{Raster, VanRossum, taps};

use crate::device::Cuda;
use crate::kernels::FIT;
use crate::launch::Fields;
use crate::memory::Buffer;
use crate::neurons::{scan, size};
use crate::spikes::{CudaSpikes, words_of};

/// Steps, or taps, that a block has: eight groups of eight.
const BLOCK_STEPS: usize = 64;

/// Steps of a tile of sums over time, and the most chunks that tiles are distributed over.
const TILE: usize = 256;
const CHUNKS: usize = 512;

impl FitOps for Cuda {
    fn own_current(
        &self,
        lanes: Lanes,
        x: &Buffer<f32>,
        weight: &Buffer<f32>,
        bias: &Buffer<f32>,
        out: &mut Buffer<f32>,
    ) -> Result<()> {
        const OP: &str = "own_current";
        let taps = taps(OP, lanes, weight.len(), bias.len())?;
        check_len(OP, "x", x.len(), lanes.len())?;
        check_len(OP, "out", out.len(), lanes.len())?;
        self.launch(&FIT, "own_current")
            .grid(lanes.batch * lanes.steps.div_ceil(BLOCK_STEPS) * words_of(lanes.width), 1, 1)
            .block(32, 8)
            .arg(x)
            .arg(weight)
            .arg(bias)
            .arg(out)
            .arg(size(self, lanes)?)
            .arg(taps as i32)
            .run()
    }

    fn own_current_grad(
        &self,
        lanes: Lanes,
        x: &Buffer<f32>,
        grad: &Buffer<f32>,
        grad_weight: &mut Buffer<f32>,
        grad_bias: &mut Buffer<f32>,
    ) -> Result<()> {
        const OP: &str = "own_current_grad";
        let taps = taps(OP, lanes, grad_weight.len(), grad_bias.len())?;
        check_len(OP, "x", x.len(), lanes.len())?;
        check_len(OP, "grad", grad.len(), lanes.len())?;
        let tiles = lanes.batch * lanes.steps.div_ceil(TILE);
        let share = tiles.div_ceil(CHUNKS).max(1);
        let chunks = tiles.div_ceil(share);
        let mut parts = self.scratch::<f32>(chunks * (taps + 1) * lanes.width)?;
        self.launch(&FIT, "own_current_grad")
            .grid(chunks * taps.div_ceil(BLOCK_STEPS) * words_of(lanes.width), 1, 1)
            .block(32, 8)
            .arg(x)
            .arg(grad)
            .arg(&mut parts)
            .arg(size(self, lanes)?)
            .arg(taps as i32)
            .arg(TILE as i32)
            .arg(share as i32)
            .run()?;
        self.launch(&FIT, "own_current_sum")
            .threads((taps + 1) * lanes.width)
            .arg(&parts)
            .arg(grad_weight)
            .arg(grad_bias)
            .arg(chunks as i64)
            .arg((taps * lanes.width) as i64)
            .arg(lanes.width as i32)
            .run()
    }

    fn van_rossum(
        &self,
        filter: &VanRossum,
        raster: Raster,
        spikes: &CudaSpikes,
        target: &CudaSpikes,
        distance: &mut Buffer<f32>,
        grad: &mut Buffer<f32>,
    ) -> Result<()> {
        const OP: &str = "van_rossum";
        let (lanes, grid) = (spikes.lanes(), target.lanes());
        raster.check(OP, lanes, grid)?;
        check_len(OP, "distance", distance.len(), lanes.width)?;
        check_len(OP, "grad", grad.len(), lanes.len())?;
        let (pool, window) = match raster {
            Raster::Spread(window) => (0, window),
            Raster::Pool(window) => (1, window),
        };
        // No window is longer than what it covers.
        let window = i32::try_from(window).unwrap_or(i32::MAX);
        let mut y = self.scratch::<f32>(grid.len())?;
        let mut squares = self.scratch::<f64>(lanes.batch * lanes.width)?;
        let mut factors = self.scratch::<f32>(lanes.width)?;
        size(self, grid)?;
        scan(self, &FIT, "van_rossum_filter", lanes)
            .arg(spikes.words())
            .arg(spikes.planes())
            .arg(target.words())
            .arg(target.planes())
            .arg(&mut y)
            .arg(&mut squares)
            .arg(&mut *grad)
            .arg(size(self, lanes)?)
            .arg(grid.steps as i32)
            .arg(Fields::new("Raster").int(pool).int(window))
            .arg(filter.decay() as f32)
            .run()?;
        self.launch(&FIT, "van_rossum_distance")
            .grid(lanes.width.div_ceil(32), 1, 1)
            .block(32, 8)
            .arg(&squares)
            .arg(filter.dt / filter.tau)
            .arg(lanes.batch as i32)
            .arg(lanes.width as i32)
            .arg(distance)
            .arg(&mut factors)
            .run()?;
        self.launch(&FIT, "van_rossum_scale")
            .threads(lanes.len())
            .arg(&factors)
            .arg(grad)
            .arg(lanes.width as i32)
            .arg(lanes.len() as i64)
            .run()
    }
}
