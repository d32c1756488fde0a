//! The device itself: host memory and a pool of threads.

use std::convert::Infallible;
use std::sync::atomic::{AtomicUsize, Ordering};
use std::sync::{Arc, Mutex, MutexGuard, PoisonError};

use ndarray::{ArrayView, ArrayViewD, Dimension};
use rayon::ThreadPool;
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
    /// Scratch that no operation holds at the moment.
    shelf: Arc<Mutex<Vec<Vec<f32>>>>,
}

/// Rounds for which a caller looks whether its helpers are done before it goes to sleep: about 50 microseconds, the
/// time that sleeping and waking would take.
const SPINS: usize = 2000;

/// Entries of a cache line.
const LINE: usize = 16;

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
        Ok(Self { pool: Arc::new(pool), shelf: Arc::default() })
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

    /// Does `work` for every piece, on the calling thread and on threads of the pool.
    ///
    /// Threads take the next piece when they have done one, so `work` must not depend on who does it. A single piece
    /// never leaves the calling thread, and the caller works while the pool's threads wake up, which takes
    /// [`Cpu::install`] about 20 microseconds each time.
    pub(crate) fn each_piece<I>(&self, pieces: I, work: impl Fn(I::Item) + Sync)
    where
        I: ExactSizeIterator<Item: Send> + Send,
    {
        let helpers = self.threads().min(pieces.len()).saturating_sub(1);
        if helpers == 0 {
            pieces.for_each(work);
            return;
        }
        let (pieces, running) = (Mutex::new(pieces), AtomicUsize::new(helpers));
        let next = || lock(&pieces).next();
        let all = || {
            while let Some(piece) = next() {
                work(piece);
            }
        };
        self.pool.in_place_scope(|scope| {
            for _ in 0..helpers {
                scope.spawn(|_| {
                    all();
                    running.fetch_sub(1, Ordering::Release);
                });
            }
            all();
            // The end of the scope waits, but it would sleep at once.
            for _ in 0..SPINS {
                if running.load(Ordering::Acquire) == 0 {
                    break;
                }
                std::hint::spin_loop();
            }
        });
    }

    /// Calls `work` with scratch of `len` entries that begin at a cache line; their contents are unspecified.
    ///
    /// It is kept for the next time, because fresh memory costs a page fault every 4 KiB.
    pub(crate) fn with_scratch<R>(&self, len: usize, work: impl FnOnce(&mut [f32]) -> R) -> R {
        let mut shelf = lock(&self.shelf);
        // The smallest that is large enough, or else the largest.
        let fits = |buffer: &Vec<f32>| (buffer.len() < len + LINE, buffer.len().abs_diff(len));
        let found = (0..shelf.len()).min_by_key(|&i| fits(&shelf[i]));
        let mut buffer = found.map_or_else(Vec::new, |i| shelf.swap_remove(i));
        drop(shelf);
        if buffer.len() < len + LINE {
            buffer.resize(len + LINE, 0.0);
        }
        let first = buffer.as_ptr().align_offset(LINE * size_of::<f32>()).min(LINE);
        let result = work(&mut buffer[first..first + len]);
        lock(&self.shelf).push(buffer);
        result
    }
}

/// The value behind a lock; a panic elsewhere does not make it unusable.
pub(crate) fn lock<T: ?Sized>(mutex: &Mutex<T>) -> MutexGuard<'_, T> {
    mutex.lock().unwrap_or_else(PoisonError::into_inner)
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
    type Recording = Infallible;

    fn describe(&self) -> String {
        let threads = self.threads();
        format!("cpu, {threads} thread{}, {}", if threads == 1 { "" } else { "s" }, simd::name())
    }
    fn replay(&self, recording: &Infallible) -> Result<()> {
        match *recording {}
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
        self.each_piece(to.chunks_mut(PIECE).zip(from.chunks(PIECE)), |(to, from)| to.copy_from_slice(from));
        Ok(())
    }
    fn fill<T: Element>(&self, buffer: &mut Vec<T>, value: T) -> Result<()> {
        self.each_piece(buffer.chunks_mut(PIECE), |piece| piece.fill(value));
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
    fn delay_spikes(&self, spikes: &Spikes, late: usize, out: &mut Spikes) -> Result<()> {
        let lanes = spikes.lanes();
        let late = late.min(lanes.steps);
        let kept = |row: usize| row % lanes.steps >= late;
        let lengths = (0..lanes.rows()).map(|row| if kept(row) { spikes.row(row - late).len() } else { 0 });
        let (_, mut units) = out.reserve(lanes, lengths);
        // The rows of a sample, all but the last ones, lie together.
        for rows in (0..lanes.rows()).step_by(lanes.steps.max(1)) {
            let from = spikes.offsets()[rows]..spikes.offsets()[rows + lanes.steps - late];
            let (head, tail) = units.split_at_mut(from.len());
            head.copy_from_slice(&spikes.units()[from]);
            units = tail;
        }
        Ok(())
    }
}
