//! Spikes in the device's memory: bits.
//!
//! `[planes, B * T, words]` words of 32 bits; the count of a unit is the sum over planes `p` of `2^p` times its bit, so
//! that spikes of 0 and 1 take one bit each, and any scan writes them by a ballot of its warp. How many planes there are
//! is known without a look at the device. Bits past the last unit are 0.

use snn_core::backend::{Memory, SpikeMemory};
use snn_core::error::{Error, Result};
use snn_core::{Lanes, Spikes};

use crate::device::Cuda;
use crate::kernels::SPIKES;
use crate::memory::Buffer;
use crate::sparse::is_dense;

/// Words of the spikes of one step.
pub(crate) const fn words_of(width: usize) -> usize {
    width.div_ceil(32)
}

/// Planes that counts can have: the largest is that of [`Spikes::from_dense`], and sums of it.
const MOST_PLANES: usize = 24;

/// Spikes or event counts `[B, T, N]` on the device.
#[derive(Debug)]
pub struct CudaSpikes {
    lanes: Lanes,
    planes: usize,
    words: Buffer<u32>,
    /// Events per entry, where the host knows: of spikes that it uploaded.
    density: Option<f64>,
}

impl CudaSpikes {
    pub(crate) fn lanes(&self) -> Lanes {
        self.lanes
    }

    /// Planes of bits.
    pub(crate) fn planes(&self) -> i32 {
        self.planes as i32
    }

    /// Rows of a plane, `B * T`.
    pub(crate) fn rows(&self) -> i64 {
        self.lanes.rows() as i64
    }

    /// Words of a row.
    pub(crate) fn words_per_row(&self) -> i32 {
        words_of(self.lanes.width) as i32
    }

    /// All planes.
    pub(crate) fn words(&self) -> &Buffer<u32> {
        &self.words
    }

    /// Events per entry, if that is known without a look at the device.
    pub(crate) fn density(&self) -> Option<f64> {
        self.density
    }

    /// The words to be overwritten, every one, with spikes of another size.
    pub(crate) fn overwrite(&mut self, device: &Cuda, lanes: Lanes, planes: usize) -> Result<&mut Buffer<u32>> {
        device.resize(&mut self.words, planes * lanes.rows() * words_of(lanes.width))?;
        (self.lanes, self.planes, self.density) = (lanes, planes, None);
        Ok(&mut self.words)
    }
}

impl Cuda {
    /// The counts as a dense array `[B, T, N]`.
    pub(crate) fn dense_spikes(&self, spikes: &CudaSpikes) -> Result<Buffer<f32>> {
        let lanes = spikes.lanes();
        let mut dense = self.scratch(lanes.len())?;
        self.launch(&SPIKES, "dense_spikes")
            .threads(lanes.len())
            .arg(spikes.words())
            .arg(spikes.planes())
            .arg(spikes.rows())
            .arg(lanes.width as i32)
            .arg(&mut dense)
            .run()?;
        Ok(dense)
    }
}

impl SpikeMemory for Cuda {
    type Spikes = CudaSpikes;

    fn spikes(&self) -> CudaSpikes {
        CudaSpikes { lanes: Lanes::new(0, 0, 0), planes: 1, words: self.empty(), density: None }
    }

    fn upload_spikes(&self, host: &Spikes, device: &mut CudaSpikes) -> Result<()> {
        let lanes = host.lanes();
        let largest = (0..lanes.rows()).map(|row| longest_run(host.row(row))).max().unwrap_or(0);
        let planes = (usize::BITS - largest.leading_zeros()).max(1) as usize;
        // Offsets and units travel as one array.
        let mut lists = Vec::with_capacity(lanes.rows() + 1 + host.events());
        for &offset in host.offsets() {
            let offset =
                u32::try_from(offset).map_err(|_| self.error("upload_spikes: more than 2^32 events in a batch"))?;
            lists.push(offset);
        }
        lists.extend_from_slice(host.units());
        let mut packed = self.scratch(lists.len())?;
        self.upload(&lists, &mut packed)?;
        let words = device.overwrite(self, lanes, planes)?;
        self.clear_buffer(words)?;
        self.launch(&SPIKES, "scatter_spikes")
            .threads(host.events())
            .arg(&packed)
            .arg(planes as i32)
            .arg(lanes.rows() as i64)
            .arg(words_of(lanes.width) as i32)
            .arg(host.events() as i64)
            .arg(words)
            .run()?;
        device.density = Some(host.density());
        Ok(())
    }

    fn download_spikes(&self, device: &CudaSpikes) -> Result<Spikes> {
        let (lanes, per_row) = (device.lanes, words_of(device.lanes.width));
        let words = self.to_host(&device.words)?;
        let mut spikes = Spikes::new();
        spikes.start(lanes.steps, lanes.width);
        let mut units = Vec::new();
        for row in 0..lanes.rows() {
            units.clear();
            for word in 0..per_row {
                let planes: Vec<u32> =
                    (0..device.planes).map(|p| words[(p * lanes.rows() + row) * per_row + word]).collect();
                let mut any = planes.iter().fold(0, |any, plane| any | plane);
                while any != 0 {
                    let bit = any.trailing_zeros();
                    any &= any - 1;
                    let count: u32 = planes.iter().enumerate().map(|(p, plane)| (plane >> bit & 1) << p).sum();
                    units.extend(std::iter::repeat_n(32 * word as u32 + bit, count as usize));
                }
            }
            spikes.push_row(&units);
        }
        spikes.finish(lanes.batch)?;
        Ok(spikes)
    }

    fn spike_lanes(&self, spikes: &CudaSpikes) -> Lanes {
        spikes.lanes
    }

    fn events_per_sample(&self, spikes: &CudaSpikes) -> Result<Vec<u32>> {
        let lanes = spikes.lanes;
        let mut counts = self.scratch::<u32>(lanes.batch)?;
        self.launch(&SPIKES, "events_per_sample")
            .grid(lanes.batch, 1, 1)
            .block(256, 1)
            .arg(spikes.words())
            .arg(spikes.planes())
            .arg(spikes.rows())
            .arg((lanes.steps * words_of(lanes.width)) as i64)
            .arg(spikes.words_per_row())
            .arg(&mut counts)
            .run()?;
        self.to_host(&counts)
    }

    fn place_of_spikes(&self, spikes: &CudaSpikes) -> Vec<u64> {
        let Lanes { batch, steps, width } = spikes.lanes;
        let form = [batch, steps, width, spikes.planes, usize::from(is_dense(spikes))].map(|n| n as u64);
        [&form[..], &[self.place(&spikes.words)]].concat()
    }

    fn add_spikes(&self, a: &CudaSpikes, b: &CudaSpikes, out: &mut CudaSpikes) -> Result<()> {
        if a.lanes != b.lanes {
            let Lanes { batch, steps, width } = a.lanes;
            let got = [b.lanes.batch, b.lanes.steps, b.lanes.width];
            return Err(Error::shape("add_spikes", "b", &got, format_args!("{:?}", [batch, steps, width])));
        }
        let planes = a.planes.max(b.planes) + 1;
        if planes > MOST_PLANES {
            return Err(self.error(format!("add_spikes: counts of more than {} events", 1_u32 << MOST_PLANES)));
        }
        let words = out.overwrite(self, a.lanes, planes)?;
        let plane = words.len() / planes;
        self.launch(&SPIKES, "add_spikes")
            .threads(plane)
            .arg(a.words())
            .arg(a.planes())
            .arg(b.words())
            .arg(b.planes())
            .arg(plane as i64)
            .arg(words)
            .run()
    }

    fn delay_spikes(&self, spikes: &CudaSpikes, late: usize, out: &mut CudaSpikes) -> Result<()> {
        let lanes = spikes.lanes;
        let words = out.overwrite(self, lanes, spikes.planes)?;
        self.launch(&SPIKES, "delay_spikes")
            .threads(words.len())
            .arg(spikes.words())
            .arg(lanes.steps as i32)
            .arg(late.min(lanes.steps) as i32)
            .arg(words_of(lanes.width) as i32)
            .arg(words.len() as i64)
            .arg(words)
            .run()
    }
}

/// The most times that a unit is listed in a row; equal units lie together.
fn longest_run(units: &[u32]) -> usize {
    units.chunk_by(|a, b| a == b).map(<[u32]>::len).max().unwrap_or(0)
}
