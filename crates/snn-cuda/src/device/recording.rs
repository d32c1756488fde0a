//! Recorded work: CUDA graphs.

use std::fmt;
use std::sync::atomic::Ordering;

use cudarc::driver::{result as driver, sys};
use snn_core::error::Result;

use super::Cuda;

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
            let executable =
                done.and_then(|()| graph.and_then(|graph| driver::graph::instantiate(graph, flags)).map_err(failed));
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
