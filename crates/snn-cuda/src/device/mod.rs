//! The device itself, and every call of CUDA that is not safe by itself.
//!
//! | file | holds |
//! |---|---|
//! | `mod.rs` | opening a device, its queue and its memory |
//! | `gangway.rs` | copies from the host |
//! | `products.rs` | cuBLAS |
//! | `compiler.rs` | NVRTC |
//! | `module.rs` | loaded kernels |
//! | `recording.rs` | recorded work |

#![expect(
    unsafe_code,
    reason = "the driver, its compiler and cuBLAS are C libraries; all calls of them are in this module"
)]

mod compiler;
mod gangway;
mod module;
mod products;
mod recording;

use std::collections::HashMap;
use std::ffi::{CStr, c_void};
use std::fmt;
use std::path::PathBuf;
use std::sync::atomic::{AtomicBool, AtomicU64};
use std::sync::{Arc, Mutex, MutexGuard, PoisonError};

use cudarc::driver::{CudaContext, CudaStream, DriverError, result as driver, sys};
use snn_core::error::{Error, Result};

pub use compiler::Compiler;
use gangway::{Gangway, LARGEST};
use module::Module;
pub(crate) use module::{Function, Kernel};
pub(crate) use products::Matrix;
use products::Products;
pub use recording::Recording;

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
            self.products.release(self.stream.cu_stream());
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
        if let Some(image) = self.inner.cache.get(&key)
            && let Ok(module) = Module::new(&image, source)
        {
            return Ok(module);
        }
        let image = compiler.compile(source).map_err(|reason| self.error(reason))?;
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
        unsafe { driver::launch_kernel(function.handle(), grid.into(), block.into(), shared, stream, arguments) }
            .map_err(|e| self.failed("cannot start a kernel", e))
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
