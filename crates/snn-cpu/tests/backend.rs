//! The behaviour suite of all backends on the CPU, and bit equality over thread counts.

use snn_cpu::Cpu;

snn_core::backend_suite!(Cpu::new(2).unwrap());
