//! What benchmarks ask of a device beside its operations.

use anyhow::Result;
use snn_core::Backend;
use snn_cpu::Cpu;
use snn_cpu::limits::{Limits, Rate};
use snn_cuda::Cuda;
use snn_cuda::limits::Sizes;

use super::alif;
use super::layer::{LayerCell, Published, Timed};
use crate::usage;

/// A device that can be timed.
pub(crate) trait Timeable: Backend {
    /// What PyTorch calls this kind of device.
    const PEER: &'static str;

    /// What it can do at best, measured now.
    ///
    /// # Errors
    ///
    /// If the device fails.
    fn limits(&self) -> Result<Limits>;

    /// Threads of a processor, for peers; 0 elsewhere.
    fn threads(&self) -> usize;

    /// The layers of an algorithm as published.
    ///
    /// # Errors
    ///
    /// Where there are none for this device.
    fn published(&self, cell: &LayerCell) -> Result<Box<dyn Timed<Self>>>;
}

impl Timeable for Cpu {
    const PEER: &'static str = "cpu";

    fn limits(&self) -> Result<Limits> {
        Ok(Limits::measure(self))
    }
    fn threads(&self) -> usize {
        Self::threads(self)
    }
    fn published(&self, cell: &LayerCell) -> Result<Box<dyn Timed<Self>>> {
        Ok(if cell.model.is_alif() {
            Box::new(alif::Published::new(self, cell)?)
        } else {
            Box::new(Published::new(self, cell)?)
        })
    }
}

/// The limits of a GPU in the form that benchmarks use; it has no threads of its own.
pub(crate) fn gpu_limits(device: &Cuda, sizes: Sizes) -> Result<Limits> {
    let measured = snn_cuda::limits::measure(device, sizes)?;
    let rate = |all: f64| Rate { one: all, all };
    Ok(Limits { threads: 0, copy: rate(measured.copy), fma: rate(measured.products), row_add: rate(measured.row_adds) })
}

impl Timeable for Cuda {
    const PEER: &'static str = "cuda";

    fn limits(&self) -> Result<Limits> {
        gpu_limits(self, Sizes::full(self))
    }
    fn threads(&self) -> usize {
        0
    }
    fn published(&self, cell: &LayerCell) -> Result<Box<dyn Timed<Self>>> {
        let model = cell.model.name();
        Err(usage(format!("{model}: algorithms as published run on the processor alone; use `--device cpu`")))
    }
}
