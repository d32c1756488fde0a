//! The emulated device.

use std::path::Path;

use snn_cuda::{Cuda, Options};

/// A device whose kernels run on the CPU.
pub(crate) fn device() -> Cuda {
    snn_cuda::libraries::load_from([snn_cuda_emulator::directory().to_owned()]);
    let cache_dir = Some(Path::new(env!("CARGO_TARGET_TMPDIR")).join("kernels"));
    Cuda::open(0, &Options { cache_dir, ..Options::default() }).unwrap()
}
