//! The behaviour suite of all backends, with kernels that run on the CPU.

mod common;

snn_core::backend_suite!(common::device());
