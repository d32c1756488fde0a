//! The device itself, and every call of CUDA that is not safe by itself.

#![expect(
    unsafe_code,
    reason = "the driver, its compiler and cuBLAS are C libraries; all calls of them are in this file"
)]

use std::collections::HashMap;
use std::ffi::{CStr, CString, c_void};
use std::fmt;
use std::path::PathBuf;
use std::sync::atomic::{AtomicBool, AtomicU64, Ordering};
use std::sync::{Arc, Mutex, MutexGuard, PoisonError};

use cudarc::cublas::{result as blas, sys as blas_sys};
use cudarc::driver::{CudaContext, CudaEvent, CudaStream, DriverError, result as driver, sys};
use cudarc::nvrtc::{result as nvrtc, sys as nvrtc_sys};
use snn_core::backend::Gemm;
use snn_core::error::{Error, Result};

use crate::kernels::{Source, cache::Cache};
use crate::libraries::Needed;

/// What a device is, for lists and reports.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct DeviceInfo {
    /// The number in `cuda:N`.
    pub index: usize,
    /// What the maker calls it.
    pub name: String,
    /// Compute capability: `(9, 0)` for Hopper.
    pub capability: (u32, u32),
    /// Memory, bytes.
    pub memory: usize,
    /// Multiprocessors.
    pub multiprocessors: u32,
}

impl fmt::Display for DeviceInfo {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        let (major, minor) = self.capability;
        let gib = self.memory as f64 / f64::from(1 << 30);
        write!(
            f,
            "cuda:{}  {}, compute capability {major}.{minor}, {} multiprocessors, {gib:.1} GiB",
            self.index, self.name, self.multiprocessors
        )
    }
}

/// The devices that there are.
///
/// # Errors
///
/// [`Error::Device`] saying what is missing.
pub fn devices() -> Result<Vec<DeviceInfo>> {
    let named = |reason: String| Error::Device { device: "cuda".into(), reason };
    Needed::all_present(&[Needed::Driver]).map_err(named)?;
    let count = match CudaContext::device_count() {
        Ok(count) => count as usize,
        Err(DriverError(sys::CUresult::CUDA_ERROR_NO_DEVICE)) => 0,
        Err(error) => return Err(named(format!("the driver does not start: {}", describe(error)))),
    };
    (0..count).map(|index| info(index).map_err(|e| named(describe(e)))).collect()
}

fn info(index: usize) -> Result<DeviceInfo, DriverError> {
    use sys::CUdevice_attribute as Attribute;
    let device = driver::device::get(index as i32)?;
    // SAFETY: the driver has just named the device.
    let attribute = |which| unsafe { driver::device::get_attribute(device, which) }.map(|value| value as u32);
    Ok(DeviceInfo {
        index,
        name: driver::device::get_name(device)?,
        capability: (
            attribute(Attribute::CU_DEVICE_ATTRIBUTE_COMPUTE_CAPABILITY_MAJOR)?,
            attribute(Attribute::CU_DEVICE_ATTRIBUTE_COMPUTE_CAPABILITY_MINOR)?,
        ),
        // SAFETY: as above.
        memory: unsafe { driver::device::total_mem(device) }?,
        multiprocessors: attribute(Attribute::CU_DEVICE_ATTRIBUTE_MULTIPROCESSOR_COUNT)?,
    })
}

/// A driver's error in words.
fn describe(error: DriverError) -> String {
    let name = error.error_name().map_or_else(|_| "unknown error".into(), CStr::to_string_lossy);
    let words = error.error_string().map_or_else(|_| "no description".into(), CStr::to_string_lossy);
    format!("{words} ({name})")
}

/// How dense products are computed.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Default)]
pub enum Precision {
    /// In single precision.
    #[default]
    Single,
    /// On tensor cores with factors of ten mantissa bits (TF32): faster, and less exact.
    Tensor,
}

/// How a device is opened.
#[derive(Debug, Clone, Default)]
pub struct Options {
    /// How dense products are computed.
    pub precision: Precision,
    /// Where compiled kernels are kept: `$SNN_CACHE_DIR`, or else `snn` in the user's directory of caches.
    pub cache_dir: Option<PathBuf>,
}

/// An NVIDIA GPU as a device: buffers in its memory, `f32`, one queue of work.
#[derive(Clone)]
pub struct Cuda {
    inner: Arc<Inner>,
}

struct Inner {
    info: DeviceInfo,
    precision: Precision,
    context: Arc<CudaContext>,
    stream: Arc<CudaStream>,
    products: Products,
    cache: Cache,
    gangway: Mutex<Gangway>,
    recording: AtomicBool,
    moves: AtomicU64,
    modules: Mutex<HashMap<&'static str, Arc<Module>>>,
}

/// cuBLAS at work on the device's queue.
struct Products {
    handle: blas_sys::cublasHandle_t,
    /// Scratch of fixed size: with it the library chooses the same algorithm every time.
    workspace: u64,
}

/// Bytes of that scratch, as NVIDIA advises for Hopper.
const WORKSPACE: usize = 32 << 20;

// SAFETY: CUDA's handles may be used from any thread once its context is bound there, which `Cuda::bind` does; the
// calls on one queue are ordered by it. cuBLAS may be called from several threads if they do not change its settings,
// which happens in `Cuda::open` alone.
unsafe impl Send for Inner {}
// SAFETY: as above.
unsafe impl Sync for Inner {}

impl Drop for Inner {
    fn drop(&mut self) {
        // SAFETY: nothing else uses the handle; the queue finishes first. Errors at the end have nobody to go to.
        unsafe {
            let _ = self.context.bind_to_thread();
            let _ = self.stream.synchronize();
            lock(&self.gangway).release(self.stream.cu_stream());
            let _ = blas::destroy_handle(self.products.handle);
            let _ = driver::free_async(self.products.workspace, self.stream.cu_stream());
            let _ = self.stream.synchronize();
        }
    }
}

impl fmt::Debug for Cuda {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.debug_struct("Cuda").field("info", &self.inner.info).finish_non_exhaustive()
    }
}

fn lock<T: ?Sized>(mutex: &Mutex<T>) -> MutexGuard<'_, T> {
    mutex.lock().unwrap_or_else(PoisonError::into_inner)
}

impl Cuda {
    /// The device of that number, with products in single precision.
    ///
    /// # Errors
    ///
    /// As [`Cuda::open`].
    pub fn new(index: usize) -> Result<Self> {
        Self::open(index, &Options::default())
    }

    /// The device of that number.
    ///
    /// # Errors
    ///
    /// [`Error::Device`] saying what is missing: the driver, the compiler, cuBLAS, or the device.
    pub fn open(index: usize, options: &Options) -> Result<Self> {
        let precision = options.precision;
        let named = |reason: String| Error::Device { device: format!("cuda:{index}"), reason };
        Needed::all_present(&Needed::ALL).map_err(named)?;
        let mut present = devices()?;
        if index >= present.len() {
            let list: Vec<String> =
                present.iter().map(|device| format!("cuda:{} {}", device.index, device.name)).collect();
            return Err(named(match list.len() {
                0 => "the driver finds no GPU".into(),
                1 => format!("no such GPU; there is {}", list[0]),
                _ => format!("no such GPU; there are {}", list.join(", ")),
            }));
        }
        let info = present.swap_remove(index);
        let failed = |error| named(describe(error));
        let context = CudaContext::new(index).map_err(failed)?;
        // SAFETY: all work is on one queue, so nothing has to be tracked between queues.
        unsafe { context.disable_event_tracking() };
        let stream = context.new_stream().map_err(failed)?;
        keep_freed_memory(&context).map_err(failed)?;
        let products = Products::new(&stream, precision).map_err(named)?;
        let cache = Cache::new(options.cache_dir.as_deref());
        let gangway = Mutex::new(Gangway::new(&context).map_err(failed)?);
        let inner = Inner {
            info,
            precision,
            context,
            stream,
            products,
            cache,
            gangway,
            recording: AtomicBool::new(false),
            moves: AtomicU64::new(0),
            modules: Mutex::default(),
        };
        Ok(Self { inner: Arc::new(inner) })
    }

    /// What the device is.
    #[must_use]
    pub fn info(&self) -> &DeviceInfo {
        &self.inner.info
    }

    /// How dense products are computed.
    #[must_use]
    pub fn precision(&self) -> Precision {
        self.inner.precision
    }

    /// The directory of compiled kernels, if there is one.
    #[must_use]
    pub fn cache_dir(&self) -> Option<PathBuf> {
        self.inner.cache.directory().map(PathBuf::from)
    }

    /// An error of this device.
    pub(crate) fn error(&self, reason: impl Into<String>) -> Error {
        Error::Device { device: format!("cuda:{}", self.inner.info.index), reason: reason.into() }
    }

    fn failed(&self, doing: &str, error: DriverError) -> Error {
        self.error(format!("{doing}: {}", describe(error)))
    }

    /// Makes the device's context that of the calling thread, and gives the queue.
    fn bind(&self) -> Result<sys::CUstream> {
        self.inner.context.bind_to_thread().map_err(|e| self.failed("cannot use the context", e))?;
        Ok(self.inner.stream.cu_stream())
    }

    /// Waits for all queued work.
    pub(crate) fn wait(&self) -> Result<()> {
        self.bind()?;
        self.inner.stream.synchronize().map_err(|e| self.failed("queued work failed", e))
    }

    /// Memory whose contents are unspecified.
    pub(crate) fn allocate(&self, bytes: usize) -> Result<Allocation> {
        let stream = self.bind()?;
        // SAFETY: the queue is alive; what is in the memory is the caller's business.
        let address = unsafe { driver::malloc_async(stream, bytes) }.map_err(|e| match e.0 {
            sys::CUresult::CUDA_ERROR_OUT_OF_MEMORY => self.error(format!("no memory for {bytes} bytes")),
            _ => self.failed("cannot get memory", e),
        })?;
        Ok(Allocation { device: self.clone(), address })
    }

    /// Queues setting `bytes` bytes to 0.
    pub(crate) fn clear(&self, to: &mut Allocation, bytes: usize) -> Result<()> {
        let stream = self.bind()?;
        // SAFETY: callers keep within what they allocated.
        unsafe { driver::memset_d8_async(to.address, 0, bytes, stream) }
            .map_err(|e| self.failed("cannot clear memory", e))
    }

    /// Sets `len` entries to a value.
    pub(crate) fn set<T: Copy>(&self, to: &mut Allocation, value: T, len: usize) -> Result<()> {
        let stream = self.bind()?;
        // SAFETY: callers keep within what they allocated; a value of 1 or 4 bytes without padding is as many bits.
        let done = unsafe {
            match size_of::<T>() {
                1 => driver::memset_d8_async(to.address, std::mem::transmute_copy(&value), len, stream),
                4 => sys::cuMemsetD32Async(to.address, std::mem::transmute_copy(&value), len, stream).result(),
                _ => return self.copy_in(&vec![value; len], to),
            }
        };
        done.map_err(|e| self.failed("cannot set memory", e))
    }

    /// Copies from the host; on return the host's memory may be used again, and the copy is queued.
    pub(crate) fn copy_in<T: Copy>(&self, from: &[T], to: &mut Allocation) -> Result<()> {
        self.not_recording("a copy from or to the host")?;
        let stream = self.bind()?;
        let mut gangway = lock(&self.inner.gangway);
        let mut address = to.address;
        for part in from.chunks(LARGEST / size_of::<T>().max(1)) {
            // SAFETY: callers keep within what they allocated.
            unsafe { gangway.copy(&self.inner, stream, part, address) }
                .map_err(|e| self.failed("cannot copy to the device", e))?;
            address += size_of_val(part) as u64;
        }
        Ok(())
    }

    /// Copies to the host, after all work queued before.
    pub(crate) fn copy_out<T: Copy>(&self, from: &Allocation, to: &mut [T]) -> Result<()> {
        self.not_recording("a copy from or to the host")?;
        let stream = self.bind()?;
        // SAFETY: callers keep within what they allocated, and any bytes the device wrote are values of `T`; the copy is
        // awaited before the borrow ends.
        unsafe { driver::memcpy_dtoh_async(to, from.address, stream) }
            .map_err(|e| self.failed("cannot copy from the device", e))?;
        self.wait()
    }

    /// Queues a copy on the device, of `bytes` bytes.
    pub(crate) fn copy_within(&self, from: &Allocation, to: &mut Allocation, bytes: usize) -> Result<()> {
        let stream = self.bind()?;
        // SAFETY: callers keep within what they allocated.
        unsafe { driver::memcpy_dtod_async(to.address, from.address, bytes, stream) }
            .map_err(|e| self.failed("cannot copy on the device", e))
    }

    /// The compiled kernels of a file.
    pub(crate) fn module(&self, source: &'static Source) -> Result<Arc<Module>> {
        let mut modules = lock(&self.inner.modules);
        if let Some(module) = modules.get(source.name) {
            return Ok(Arc::clone(module));
        }
        let module = Arc::new(self.load(source)?);
        modules.insert(source.name, Arc::clone(&module));
        Ok(module)
    }

    fn load(&self, source: &'static Source) -> Result<Module> {
        self.bind()?;
        let (major, minor) = self.inner.info.capability;
        let compiler = Compiler::for_capability(major, minor).map_err(|reason| self.error(reason))?;
        let key = Cache::key(&[source.name, &source.text(), &compiler.options().join(" "), &compiler.version]);
        let build = || compiler.compile(source).map_err(|reason| self.error(reason));
        if let Some(image) = self.inner.cache.get(&key)
            && let Ok(module) = Module::new(&image, source)
        {
            return Ok(module);
        }
        let image = build()?;
        let module =
            Module::new(&image, source).map_err(|e| self.failed(&format!("kernels {} do not load", source.name), e))?;
        self.inner.cache.put(&key, &image);
        Ok(module)
    }

    /// Queues a kernel. The arguments have been checked against the kernel's own parameters.
    pub(crate) fn queue(
        &self,
        function: Function,
        grid: [u32; 3],
        block: [u32; 3],
        shared: u32,
        arguments: &mut [*mut c_void],
    ) -> Result<()> {
        let stream = self.bind()?;
        // SAFETY: `Launch` has compared number and types of the arguments with the kernel's declaration; addresses are of
        // buffers that outlive their place in the queue, because freeing memory is queued as well.
        unsafe { driver::launch_kernel(function.0, grid.into(), block.into(), shared, stream, arguments) }
            .map_err(|e| self.failed("cannot start a kernel", e))
    }

    /// Queues dense products of row-major matrices, `c = op(a) op(b) (+ c)`.
    pub(crate) fn queue_products(&self, g: Gemm, [a, b, c]: [Matrix; 3], batch: usize) -> Result<()> {
        self.bind()?;
        let operation = |transposed| {
            if transposed { blas_sys::cublasOperation_t::CUBLAS_OP_T } else { blas_sys::cublasOperation_t::CUBLAS_OP_N }
        };
        let size = |len: usize| {
            i32::try_from(len)
                .map_err(|_| self.error(format!("gemm: {len} entries of one axis are too many for cuBLAS")))
        };
        let (one, beta) = (1.0_f32, if g.accumulate { 1.0_f32 } else { 0.0 });
        let (m, n, k, batch) = (size(g.m)?, size(g.n)?, size(g.k)?, size(batch)?);
        let row = [size(a.row)?, size(b.row)?, size(c.row)?];
        let handle = self.inner.products.handle;
        let (op_a, op_b) = (operation(g.transpose_a), operation(g.transpose_b));
        let at = [a.address as *const f32, b.address as *const f32, c.address as *const f32];
        // cuBLAS stores columns: seen so, our c is its own transpose, (a b)^T = b^T a^T.
        // SAFETY: callers have checked the lengths of all three buffers; the scalars are read before the call returns.
        let done = unsafe {
            if batch == 1 {
                let c = at[2].cast_mut();
                blas::sgemm(handle, op_b, op_a, n, m, k, &one, at[1], row[1], at[0], row[0], &beta, c, row[2])
            } else {
                let step = [a.step as i64, b.step as i64, c.step as i64];
                blas::sgemm_strided_batched(
                    handle,
                    op_b,
                    op_a,
                    n,
                    m,
                    k,
                    &one,
                    at[1],
                    row[1],
                    step[1],
                    at[0],
                    row[0],
                    step[0],
                    &beta,
                    at[2].cast_mut(),
                    row[2],
                    step[2],
                    batch,
                )
            }
        };
        done.map_err(|e| self.error(format!("cuBLAS: {e:?}")))
    }
}

/// A row-major matrix in the device's memory, or several at equal distances.
#[derive(Debug, Clone, Copy)]
pub(crate) struct Matrix {
    /// Where the first begins.
    pub(crate) address: u64,
    /// Entries from one row to the next.
    pub(crate) row: usize,
    /// Entries from one matrix to the next.
    pub(crate) step: usize,
}

/// Queued work as a whole, to be queued again at once.
///
/// Arguments are those of the recording: the same buffers, the same numbers.
pub struct Recording {
    device: Cuda,
    graph: sys::CUgraphExec,
}

// SAFETY: handles of graphs may be used from any thread, from one at a time.
unsafe impl Send for Recording {}

impl Cuda {
    /// Records the work that a function queues, see [`snn_core::backend::Memory::record`].
    pub(crate) fn recorded(&self, work: &mut dyn FnMut() -> Result<()>) -> Result<Recording> {
        let stream = self.bind()?;
        let failed = |e| self.failed("cannot record", e);
        let mode = sys::CUstreamCaptureMode::CU_STREAM_CAPTURE_MODE_THREAD_LOCAL;
        // SAFETY: the queue is our own, and the graph lives as long as its executable form is made.
        unsafe {
            driver::stream::begin_capture(stream, mode).map_err(failed)?;
            self.inner.recording.store(true, Ordering::SeqCst);
            let done = work();
            self.inner.recording.store(false, Ordering::SeqCst);
            let graph = driver::stream::end_capture(stream);
            let flags = sys::CUgraphInstantiate_flags::CUDA_GRAPH_INSTANTIATE_FLAG_AUTO_FREE_ON_LAUNCH;
            let executable = done
                .and_then(|()| graph.and_then(|graph| driver::graph::instantiate(graph, flags)).map_err(failed));
            if let Ok(graph) = graph {
                let _ = driver::graph::destroy(graph);
            }
            Ok(Recording { device: self.clone(), graph: executable? })
        }
    }

    /// Queues recorded work.
    pub(crate) fn queue_again(&self, recording: &Recording) -> Result<()> {
        let stream = self.bind()?;
        // SAFETY: the graph exists; that its buffers do is what `Memory::moves` and `Memory::place` are for.
        unsafe { driver::graph::launch(recording.graph, stream) }.map_err(|e| self.failed("cannot replay", e))
    }

    /// An error if work is being recorded, which can hold neither what the host takes part in nor the freeing of memory
    /// from before.
    pub(crate) fn not_recording(&self, what: &str) -> Result<()> {
        match self.inner.recording.load(Ordering::SeqCst) {
            true => Err(self.error(format!("cannot record {what}"))),
            false => Ok(()),
        }
    }

    /// Adds to the number of buffers that grew out of their memory, and gives it.
    pub(crate) fn count_moves(&self, more: u64) -> u64 {
        self.inner.moves.fetch_add(more, Ordering::Relaxed) + more
    }
}

impl fmt::Debug for Recording {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.debug_struct("Recording").field("device", &self.device).finish_non_exhaustive()
    }
}

impl Drop for Recording {
    fn drop(&mut self) {
        if self.device.wait().is_ok() {
            // SAFETY: the graph exists and does not run any more.
            let _ = unsafe { driver::graph::exec_destroy(self.graph) };
        }
    }
}

/// Lets the pool keep what is freed, so that the next step takes it from there.
fn keep_freed_memory(context: &CudaContext) -> Result<(), DriverError> {
    let mut everything = u64::MAX;
    // SAFETY: the pool is the device's own, and the attribute is a 64-bit number.
    unsafe {
        let pool = driver::device::get_default_mem_pool(context.cu_device())?;
        let attribute = sys::CUmemPool_attribute::CU_MEMPOOL_ATTR_RELEASE_THRESHOLD;
        driver::mem_pool::set_attribute(pool, attribute, (&raw mut everything).cast())
    }
}

impl Products {
    fn new(stream: &CudaStream, precision: Precision) -> Result<Self, String> {
        let failed = |e| format!("cuBLAS does not start: {e:?}");
        let mode = match precision {
            Precision::Single => blas_sys::cublasMath_t::CUBLAS_PEDANTIC_MATH,
            Precision::Tensor => blas_sys::cublasMath_t::CUBLAS_TF32_TENSOR_OP_MATH,
        };
        let handle = blas::create_handle().map_err(failed)?;
        // SAFETY: the handle was created just now, the queue is alive as long as the device, and so is the scratch.
        unsafe {
            let workspace = driver::malloc_async(stream.cu_stream(), WORKSPACE).map_err(describe)?;
            blas::set_stream(handle, stream.cu_stream() as blas_sys::cudaStream_t).map_err(failed)?;
            blas_sys::cublasSetWorkspace_v2(handle, workspace as *mut c_void, WORKSPACE).result().map_err(failed)?;
            blas_sys::cublasSetMathMode(handle, mode).result().map_err(failed)?;
            Ok(Self { handle, workspace })
        }
    }
}

/// The way from the host's memory to the device's: places that are used in turn, so that the host goes on at once and
/// large copies run beside the work that was queued before.
struct Gangway {
    stream: Arc<CudaStream>,
    places: [Place; 4],
    next: usize,
}

/// Memory of the host that the device reads by itself, and as much of the device's.
struct Place {
    host: *mut c_void,
    device: u64,
    capacity: usize,
    /// The device has read the host's part, or the device's part has been copied on.
    arrived: CudaEvent,
    left: CudaEvent,
}

/// Bytes from which on a copy has a queue of its own.
const LARGE: usize = 1 << 16;

/// Bytes of a copy at most; larger ones go in parts, so that places stay small.
const LARGEST: usize = 1 << 26;

impl Gangway {
    fn new(context: &Arc<CudaContext>) -> Result<Self, DriverError> {
        let place = || {
            let (arrived, left) = (context.new_event(None)?, context.new_event(None)?);
            Ok(Place { host: std::ptr::null_mut(), device: 0, capacity: 0, arrived, left })
        };
        let places = [place()?, place()?, place()?, place()?];
        Ok(Self { stream: context.new_stream()?, places, next: 0 })
    }

    /// Copies `from` to an address in the device's memory, behind the work on `stream`.
    ///
    /// # Safety
    ///
    /// There is that much memory at the address, and the context is that of the thread.
    unsafe fn copy<T: Copy>(
        &mut self,
        inner: &Inner,
        stream: sys::CUstream,
        from: &[T],
        to: u64,
    ) -> Result<(), DriverError> {
        let bytes = size_of_val(from);
        let place = &mut self.places[self.next];
        self.next = (self.next + 1) % 4;
        // What the place held before must have gone; four copies ago, it mostly has.
        place.arrived.synchronize()?;
        let large = bytes >= LARGE;
        // SAFETY: the host's part is not read by any copy any more, and holds `bytes` bytes once `reserve` has run; its
        // contents are copied as bytes. The device's part is freed behind its last use and written behind it.
        unsafe {
            place.reserve(bytes, stream)?;
            std::ptr::copy_nonoverlapping(from.as_ptr().cast::<u8>(), place.host.cast::<u8>(), bytes);
            let staged = std::slice::from_raw_parts(place.host.cast::<u8>(), bytes);
            if !large {
                driver::memcpy_htod_async(to, staged, stream)?;
                return place.arrived.record(&inner.stream);
            }
            self.stream.wait(&place.left)?;
            driver::memcpy_htod_async(place.device, staged, self.stream.cu_stream())?;
            place.arrived.record(&self.stream)?;
            inner.stream.wait(&place.arrived)?;
            driver::memcpy_dtod_async(to, place.device, bytes, stream)?;
            place.left.record(&inner.stream)
        }
    }

    /// Gives back all memory, behind the work on `stream`.
    fn release(&mut self, stream: sys::CUstream) {
        let _ = self.stream.synchronize();
        for place in &mut self.places {
            // SAFETY: both queues have finished.
            let _ = unsafe { place.free(stream) };
        }
    }
}

impl Place {
    /// Makes room for `bytes` bytes on both sides.
    ///
    /// # Safety
    ///
    /// No copy reads the host's part.
    unsafe fn reserve(&mut self, bytes: usize, stream: sys::CUstream) -> Result<(), DriverError> {
        if bytes <= self.capacity {
            return Ok(());
        }
        // SAFETY: the caller's promise. The device's part is taken and freed on the queue that reads it; the queue that
        // writes it waits for the event behind both.
        unsafe {
            self.left.synchronize()?;
            self.free(stream)?;
            let capacity = bytes.next_power_of_two();
            self.host = driver::malloc_host(capacity, 0)?;
            self.device = driver::malloc_async(stream, capacity)?;
            driver::stream::synchronize(stream)?;
            self.capacity = capacity;
        }
        Ok(())
    }

    /// Gives the memory back.
    ///
    /// # Safety
    ///
    /// No copy uses it.
    unsafe fn free(&mut self, stream: sys::CUstream) -> Result<(), DriverError> {
        if self.capacity > 0 {
            self.capacity = 0;
            // SAFETY: the caller's promise; both were allocated in `reserve`.
            unsafe {
                driver::free_host(self.host)?;
                driver::free_async(self.device, stream)?;
            }
        }
        Ok(())
    }
}

/// Memory of a device; freed behind the work that was queued before.
pub(crate) struct Allocation {
    device: Cuda,
    address: u64,
}

impl Allocation {
    /// Where it begins.
    pub(crate) fn address(&self) -> u64 {
        self.address
    }
}

impl fmt::Debug for Allocation {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        write!(f, "{:#x}", self.address)
    }
}

impl Drop for Allocation {
    fn drop(&mut self) {
        if let Ok(stream) = self.device.bind() {
            // SAFETY: the address came from the same queue's allocation and is freed here alone.
            let _ = unsafe { driver::free_async(self.address, stream) };
        }
    }
}

/// Loaded kernels of one file.
pub(crate) struct Module {
    handle: sys::CUmodule,
    source: &'static Source,
    kernels: Mutex<HashMap<&'static str, Kernel>>,
}

// SAFETY: module handles may be used from any thread.
unsafe impl Send for Module {}
// SAFETY: as above.
unsafe impl Sync for Module {}

/// A kernel that can be queued; lives as long as its module, and modules as long as the device.
#[derive(Clone, Copy)]
pub(crate) struct Function(sys::CUfunction);

// SAFETY: function handles may be used from any thread.
unsafe impl Send for Function {}

impl Module {
    fn new(image: &[u8], source: &'static Source) -> Result<Self, DriverError> {
        // The driver reads text up to a zero; a binary knows its own end.
        let image: Vec<u8> = image.iter().copied().chain([0]).collect();
        // SAFETY: the image ends in a zero; damaged ones are the driver's to refuse.
        let handle = unsafe { driver::module::load_data(image.as_ptr().cast()) }?;
        Ok(Self { handle, source, kernels: Mutex::default() })
    }

    /// The kernel of that name.
    pub(crate) fn kernel(&self, device: &Cuda, name: &'static str) -> Result<Kernel> {
        let mut kernels = lock(&self.kernels);
        if let Some(kernel) = kernels.get(name) {
            return Ok(kernel.clone());
        }
        let missing = |reason: String| device.error(format!("kernel {}::{name}: {reason}", self.source.name));
        let parameters = self.source.parameters(name).ok_or_else(|| missing("is not declared".into()))?;
        let c_name = CString::new(name).map_err(|e| missing(e.to_string()))?;
        // SAFETY: the module is loaded and never unloaded before the device is gone.
        let function =
            unsafe { driver::module::get_function(self.handle, c_name) }.map_err(|e| missing(describe(e)))?;
        let kernel = Kernel { function: Function(function), parameters: parameters.into() };
        kernels.insert(name, kernel.clone());
        Ok(kernel)
    }
}

/// A kernel with the types of its parameters.
#[derive(Clone)]
pub(crate) struct Kernel {
    pub(crate) function: Function,
    pub(crate) parameters: Arc<[&'static str]>,
}

/// NVRTC, for one architecture.
#[derive(Debug)]
pub struct Compiler {
    /// `sm_90` for machine code, `compute_90` for PTX, which any driver at least as new as the compiler can load.
    architecture: String,
    /// The compiler's version.
    version: String,
}

impl Compiler {
    /// For an architecture: PTX for one such as `compute_80`, machine code for one such as `sm_80`.
    ///
    /// # Errors
    ///
    /// What is missing.
    pub fn for_architecture(architecture: &str) -> Result<Self, String> {
        Needed::all_present(&[Needed::Compiler])?;
        let (mut major, mut minor) = (0, 0);
        // SAFETY: both pointers are to numbers of the right size.
        unsafe { nvrtc_sys::nvrtcVersion(&raw mut major, &raw mut minor) }
            .result()
            .map_err(|e| format!("NVRTC: {e}"))?;
        Ok(Self { architecture: architecture.into(), version: format!("{major}.{minor}") })
    }

    /// Machine code for a device; PTX of the newest architecture that the compiler knows for a device that is newer.
    fn for_capability(major: u32, minor: u32) -> Result<Self, String> {
        let compiler = Self::for_architecture("")?;
        let known = architectures()?;
        let wanted = (10 * major + minor) as i32;
        let architecture = if known.contains(&wanted) {
            format!("sm_{wanted}")
        } else {
            let newest = known.iter().filter(|&&arch| arch <= wanted).max();
            let newest = newest.ok_or_else(|| {
                format!(
                    "NVRTC {} compiles for none of the architectures of this GPU ({major}.{minor})",
                    compiler.version
                )
            })?;
            format!("compute_{newest}")
        };
        Ok(Self { architecture, ..compiler })
    }

    /// What the compiler is told. Products and sums are not fused, so that scans round as on the CPU; a kernel that
    /// wants it writes `fmaf`.
    fn options(&self) -> Vec<String> {
        let mut options = vec!["--std=c++17".into(), "--fmad=false".into()];
        options.push(format!("--gpu-architecture={}", self.architecture));
        options
    }

    /// A file's kernels as machine code or PTX.
    ///
    /// # Errors
    ///
    /// What the compiler says.
    pub fn compile(&self, source: &Source) -> Result<Vec<u8>, String> {
        let text = CString::new(source.text()).map_err(|e| e.to_string())?;
        let name = CString::new(format!("{}.cu", source.name)).map_err(|e| e.to_string())?;
        let program = nvrtc::create_program(&text, Some(&name)).map_err(|e| format!("NVRTC: {e:?}"))?;
        // SAFETY: the program was created just now and is destroyed here, once.
        unsafe {
            let image = nvrtc::compile_program(program, &self.options())
                .and_then(|()| image(program, self.architecture.starts_with("sm_")));
            let log = nvrtc::get_program_log(program).unwrap_or_default();
            let _ = nvrtc::destroy_program(program);
            let log: Vec<u8> = log.iter().map(|&c| c as u8).take_while(|&c| c != 0).collect();
            image.map_err(|e| {
                let log = String::from_utf8_lossy(&log).into_owned();
                format!("kernels {} do not compile for {}: {e:?}\n{}", source.name, self.architecture, log.trim_end())
            })
        }
    }
}

/// What a compiled program came to.
///
/// # Safety
///
/// The program exists.
unsafe fn image(program: nvrtc_sys::nvrtcProgram, machine_code: bool) -> Result<Vec<u8>, nvrtc::NvrtcError> {
    if !machine_code {
        // SAFETY: the caller's promise.
        let ptx = unsafe { nvrtc::get_ptx(program) }?;
        return Ok(ptx.iter().map(|&c| c as u8).take_while(|&c| c != 0).collect());
    }
    let mut bytes = 0;
    // SAFETY: the caller's promise; the compiler says how many bytes it writes.
    unsafe {
        nvrtc_sys::nvrtcGetCUBINSize(program, &raw mut bytes).result()?;
        let mut code = vec![0_u8; bytes];
        nvrtc_sys::nvrtcGetCUBIN(program, code.as_mut_ptr().cast()).result()?;
        Ok(code)
    }
}

/// The architectures that the compiler knows, as numbers such as 90.
fn architectures() -> Result<Vec<i32>, String> {
    let failed = |e| format!("NVRTC: {e:?}");
    let mut count = 0;
    // SAFETY: the compiler says how many numbers it writes.
    unsafe {
        nvrtc_sys::nvrtcGetNumSupportedArchs(&raw mut count).result().map_err(failed)?;
        let mut known = vec![0; count as usize];
        nvrtc_sys::nvrtcGetSupportedArchs(known.as_mut_ptr()).result().map_err(failed)?;
        Ok(known)
    }
}
