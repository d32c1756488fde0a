//! The device itself: host memory and a pool of threads.

use std::sync::Arc;

use ndarray::{ArrayView, ArrayViewD, Dimension};
use rayon::ThreadPool;
use rayon::prelude::*;
use snn_core::backend::{Memory, SpikeMemory};
use snn_core::error::{Error, Result, check_len};
use snn_core::{Element, Lanes, Spikes, Tensor};

use crate::simd;

/// The CPU as a device: a number of threads, buffers in host memory, `f32`.
///
/// Results do not depend on the number of threads.
#[derive(Debug, Clone)]
pub struct Cpu {
    pool: Arc<ThreadPool>,
}

impl Cpu {
    /// A device with `threads` threads; 0 takes one per core.
    ///
    /// # Errors
    ///
    /// [`Error::Device`] if the threads cannot be started.
    pub fn new(threads: usize) -> Result<Self> {
        let pool = rayon::ThreadPoolBuilder::new()
            .num_threads(threads)
            .thread_name(|i| format!("snn-cpu-{i}"))
            .build()
            .map_err(|e| Error::Device {
                device: "cpu".into(),
                reason: format!("cannot start {threads} threads: {e}"),
            })?;
        Ok(Self { pool: Arc::new(pool) })
    }

    /// Threads of the device.
    #[must_use]
    pub fn threads(&self) -> usize {
        self.pool.current_num_threads()
    }

    /// Runs `work` on the pool; parallel iterators inside use its threads.
    pub(crate) fn install<R: Send>(&self, work: impl FnOnce() -> R + Send) -> R {
        self.pool.install(work)
    }
}

/// Arrays in and out, for programs that use `ndarray`.
///
/// ```
/// use ndarray::arr2;
/// let x = arr2(&[[1.0, 2.0], [3.0, 4.0]]);
/// // A transposed view is copied into row-major order.
/// let tensor = snn_cpu::Cpu::tensor(x.t());
/// assert_eq!(tensor.data, [1.0, 3.0, 2.0, 4.0]);
/// assert_eq!(snn_cpu::Cpu::array(&tensor), x.t().into_dyn());
/// ```
impl Cpu {
    /// A tensor with the values of an array, in row-major order.
    pub fn tensor<D: Dimension>(array: ArrayView<'_, f32, D>) -> Tensor<Self> {
        Tensor { shape: array.shape().to_vec(), data: array.iter().copied().collect() }
    }

    /// A tensor's values as an array that borrows them.
    ///
    /// # Panics
    ///
    /// If the tensor's shape was changed by hand so that it no longer fits its data.
    #[must_use]
    pub fn array(tensor: &Tensor<Self>) -> ArrayViewD<'_, f32> {
        ArrayViewD::from_shape(tensor.shape.clone(), &tensor.data)
            .expect("a tensor holds as many values as its shape says")
    }
}

/// Elements per piece of an elementwise operation.
pub(crate) const PIECE: usize = 1 << 15;

impl Memory for Cpu {
    type Real = f32;
    type Buffer<T: Element> = Vec<T>;

    fn describe(&self) -> String {
        let threads = self.threads();
        format!("cpu, {threads} thread{}, {}", if threads == 1 { "" } else { "s" }, simd::name())
    }
    fn zeros<T: Element>(&self, len: usize) -> Result<Vec<T>> {
        let mut buffer = Vec::new();
        self.resize(&mut buffer, len)?;
        Ok(buffer)
    }
    fn len<T: Element>(&self, buffer: &Vec<T>) -> usize {
        buffer.len()
    }
    fn resize<T: Element>(&self, buffer: &mut Vec<T>, len: usize) -> Result<()> {
        let extra = len.saturating_sub(buffer.len());
        buffer.try_reserve_exact(extra).map_err(|e| Error::Device {
            device: "cpu".into(),
            reason: format!("no memory for {} bytes: {e}", len.saturating_mul(size_of::<T>())),
        })?;
        buffer.resize(len, T::default());
        Ok(())
    }
    fn upload<T: Element>(&self, host: &[T], device: &mut Vec<T>) -> Result<()> {
        check_len("upload", "device", device.len(), host.len())?;
        device.copy_from_slice(host);
        Ok(())
    }
    fn download<T: Element>(&self, device: &Vec<T>, host: &mut [T]) -> Result<()> {
        check_len("download", "host", host.len(), device.len())?;
        host.copy_from_slice(device);
        Ok(())
    }
    fn copy<T: Element>(&self, from: &Vec<T>, to: &mut Vec<T>) -> Result<()> {
        check_len("copy", "to", to.len(), from.len())?;
        self.install(|| {
            to.par_chunks_mut(PIECE).zip(from.par_chunks(PIECE)).for_each(|(to, from)| to.copy_from_slice(from));
        });
        Ok(())
    }
    fn fill<T: Element>(&self, buffer: &mut Vec<T>, value: T) -> Result<()> {
        self.install(|| buffer.par_chunks_mut(PIECE).for_each(|piece| piece.fill(value)));
        Ok(())
    }
    fn synchronise(&self) -> Result<()> {
        Ok(())
    }
}

impl SpikeMemory for Cpu {
    type Spikes = Spikes;

    fn spikes(&self) -> Spikes {
        Spikes::new()
    }
    fn upload_spikes(&self, host: &Spikes, device: &mut Spikes) -> Result<()> {
        device.clone_from(host);
        Ok(())
    }
    fn download_spikes(&self, device: &Spikes) -> Result<Spikes> {
        Ok(device.clone())
    }
    fn spike_lanes(&self, spikes: &Spikes) -> Lanes {
        spikes.lanes()
    }
    fn events_per_sample(&self, spikes: &Spikes) -> Result<Vec<u32>> {
        Ok(spikes.events_per_sample().map(|n| n as u32).collect())
    }
    fn add_spikes(&self, a: &Spikes, b: &Spikes, out: &mut Spikes) -> Result<()> {
        out.merge(a, b)
    }
    fn delay_spikes(&self, spikes: &Spikes, out: &mut Spikes) -> Result<()> {
        let lanes = spikes.lanes();
        let kept = |row: usize| !row.is_multiple_of(lanes.steps);
        let lengths = (0..lanes.rows()).map(|row| if kept(row) { spikes.row(row - 1).len() } else { 0 });
        let (_, mut units) = out.reserve(lanes, lengths);
        // The rows of a sample, all but the last, lie together.
        for rows in (0..lanes.rows()).step_by(lanes.steps.max(1)) {
            let from = spikes.offsets()[rows]..spikes.offsets()[rows + lanes.steps - 1];
            let (head, tail) = units.split_at_mut(from.len());
            head.copy_from_slice(&spikes.units()[from]);
            units = tail;
        }
        Ok(())
    }
}
