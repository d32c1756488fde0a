//! What this GPU can do at best, measured by fixed work: the yardsticks of the speed benchmarks.
//!
//! | limit | work |
//! |---|---|
//! | copy bandwidth | copies on the device between two arrays far larger than its caches; bytes read plus bytes written |
//! | products | a product of square matrices in the precision that the device was opened with; two operations per term |
//! | row adds | a product of spikes, 1 % active, with weights that fit the second-level cache; elements added |
//!
//! Each is the best of several rounds of several repeats, with one wait per round.

use std::time::Instant;

use snn_core::backend::{Gemm, Memory, SpikeMemory};
use snn_core::error::Result;
use snn_core::random::{Purpose, Stream};
use snn_core::{Lanes, Spikes};

use crate::device::Cuda;

/// How large the work is.
#[derive(Debug, Clone, Copy)]
pub struct Sizes {
    /// Entries of each of the two arrays that are copied.
    pub copy: usize,
    /// Rows and columns of the matrices.
    pub side: usize,
    /// Samples of 250 steps whose spikes are multiplied.
    pub samples: usize,
}

impl Sizes {
    /// What a GPU needs to show its rates: 2 GiB, or less on one with little memory.
    #[must_use]
    pub fn full(device: &Cuda) -> Self {
        let entries = device.info().memory / size_of::<f32>();
        Self { copy: (1 << 28).min(entries / 8), side: 8192.min((entries / 32).isqrt()), samples: 64 }
    }

    /// Only whether everything runs.
    pub const SMALL: Self = Self { copy: 1 << 10, side: 32, samples: 1 };
}

/// Repeats of a round, and rounds of which the best counts.
const REPEATS: usize = 10;
const ROUNDS: usize = 5;

/// The measured limits of a GPU.
#[derive(Debug, Clone, Copy, PartialEq)]
pub struct Limits {
    /// Bytes per second of a copy, read and written bytes both counted.
    pub copy: f64,
    /// Floating point operations per second of dense products.
    pub products: f64,
    /// Elements per second that products of spikes add.
    pub row_adds: f64,
}

/// Measures all of them; takes about a second at full size.
///
/// # Errors
///
/// If the device fails or has no memory left.
pub fn measure(device: &Cuda, sizes: Sizes) -> Result<Limits> {
    let (len, side) = (sizes.copy, sizes.side);
    let (from, mut to) = (device.zeros::<f32>(len)?, device.zeros::<f32>(len)?);
    let copy = 2.0 * (len * size_of::<f32>()) as f64 / best(device, || device.copy(&from, &mut to))?;
    drop((from, to));

    let (a, mut c) = (device.zeros::<f32>(side * side)?, device.zeros::<f32>(side * side)?);
    let products =
        2.0 * (side as f64).powi(3) / best(device, || device.product(Gemm::new(side, side, side), &a, &a, &mut c))?;
    drop((a, c));

    let (lanes, width) = (Lanes::new(sizes.samples, 250, 1000), 512);
    let host = sparse(lanes)?;
    let mut spikes = device.spikes();
    device.upload_spikes(&host, &mut spikes)?;
    let (weight, mut out) = (device.zeros(lanes.width * width)?, device.zeros(lanes.rows() * width)?);
    let seconds = best(device, || device.spikes_product(&spikes, width, &weight, None, &mut out))?;
    Ok(Limits { copy, products, row_adds: (host.events() * width) as f64 / seconds })
}

/// Spikes of which a hundredth is active.
fn sparse(lanes: Lanes) -> Result<Spikes> {
    let mut draws = Stream::new(1, Purpose::Test, [0, 0]);
    let events = lanes.width / 100;
    let rows = (0..lanes.rows()).map(|_| (0..events).map(|_| draws.below(lanes.width as u32)).collect::<Vec<_>>());
    Spikes::from_rows(lanes.batch, lanes.steps, lanes.width, rows.collect::<Vec<_>>())
}

/// Seconds of one repeat in the best round.
fn best(device: &Cuda, mut work: impl FnMut() -> Result<()>) -> Result<f64> {
    work()?;
    let mut best = f64::INFINITY;
    for _ in 0..ROUNDS {
        device.synchronise()?;
        let start = Instant::now();
        for _ in 0..REPEATS {
            work()?;
        }
        device.synchronise()?;
        best = best.min(start.elapsed().as_secs_f64() / REPEATS as f64);
    }
    Ok(best)
}
