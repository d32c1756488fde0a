//! CUDA's libraries for tests on machines without a GPU.
//!
//! [`directory`] holds a `libcuda`, a `libnvrtc` and a `libcublas` that stand in for NVIDIA's. The backend loads them like
//! the real ones and does not know the difference: the same Rust code queues the same kernels with the same arguments,
//! graphs are captured and replayed. Behind them, the unchanged `.cu` files run on the CPU:
//!
//! * Threads of a block are fibers. A barrier waits for all of them, a shuffle or ballot for all lanes of the warp; one
//!   that not everybody reaches is an error, and so is one in a kernel that says it has none.
//! * Every access through an argument is checked: out of bounds, freed, never allocated. Fresh memory is full of NaN.
//! * Blocks, and threads between barriers, run in ascending order in one launch and in descending order in the next,
//!   so that what depends on the order shows.
//!
//! An error makes the launch fail with `CUDA_ERROR_ILLEGAL_ADDRESS` and is printed. What the emulator cannot show: the
//! speed of a GPU, races inside a warp, limits of registers, the last bits of `expf` and its like.

use std::path::Path;

/// The directory of the libraries; its place is for `SNN_CUDA_LIB_DIR`.
///
/// `SNN_EMULATOR_DEVICES` says how many devices they find, 1 without it.
#[must_use]
pub fn directory() -> &'static Path {
    Path::new(concat!(env!("OUT_DIR"), "/lib"))
}
