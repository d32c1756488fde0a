//! The NVIDIA GPU backend: the operations of [`snn_core::backend`] through CUDA.
//!
//! Nothing of CUDA is needed to build: driver, compiler (NVRTC) and cuBLAS are loaded when a device is opened, and
//! [`Cuda::new`] says which of them is missing.
//!
//! * Kernels are CUDA C++ in `src/kernels`, one file for each Rust file of the same name; [`kernels`] compiles a file
//!   for the device at hand when it is first used and keeps the result on disk.
//! * Spikes are one bit each, see [`spikes`]; scans write them by ballot, products walk them.
//! * Reductions have a fixed order and there are no floating-point atomics: the same run gives the same bits.
//! * Work is queued on one stream; only downloads and what needs a number on the host wait.

mod conv;
mod delays;
pub mod device;
mod fit;
pub mod kernels;
mod launch;
pub mod libraries;
pub mod limits;
pub mod linalg;
mod losses;
pub mod memory;
pub mod neurons;
mod norm;
mod optimise;
mod pool;
mod sparse;
pub mod spikes;

pub use device::{Compiler, Cuda, DeviceInfo, Options, Precision, Recording, devices};
