//! The way from the host's memory to the device's.

use std::ffi::c_void;
use std::sync::Arc;

use cudarc::driver::{CudaContext, CudaEvent, CudaStream, DriverError, result as driver, sys};

use super::Inner;

/// The way from the host's memory to the device's: places that are used in turn, so that the host goes on at once and
/// large copies run beside the work that was queued before.
pub(super) struct Gangway {
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
pub(super) const LARGEST: usize = 1 << 26;

impl Gangway {
    pub(super) fn new(context: &Arc<CudaContext>) -> Result<Self, DriverError> {
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
    pub(super) unsafe fn copy<T: Copy>(
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
    pub(super) fn release(&mut self, stream: sys::CUstream) {
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
