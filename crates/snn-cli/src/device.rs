//! The device that `--device` names: chosen once, at the top.

use anyhow::{Context, Result};
use snn_cpu::Cpu;
use snn_cuda::{Cuda, Options, Precision};

use crate::args::Place;
use crate::usage;

/// A device of any kind; [`on_device!`] runs generic code on it.
pub(crate) enum Device {
    /// The processor.
    Cpu(Cpu),
    /// An NVIDIA GPU.
    Cuda(Cuda),
}

/// Runs an expression with the device as a variable of its own type.
macro_rules! on_device {
    ($chosen:expr, $device:ident => $work:expr) => {
        match $chosen {
            $crate::device::Device::Cpu($device) => $work,
            $crate::device::Device::Cuda($device) => $work,
        }
    };
}
pub(crate) use on_device;

/// What a name of a device says.
enum Kind {
    Cpu,
    Cuda(usize, Precision),
}

fn parse(name: &str) -> Result<Kind> {
    let wrong = || usage(format!("--device {name}: expected `cpu` or `cuda[:N][,tf32]`"));
    let (place, precision) = match name.split_once(',') {
        None => (name, Precision::Single),
        Some((place, "tf32")) => (place, Precision::Tensor),
        Some(_) => return Err(wrong()),
    };
    match place.split_once(':') {
        None if name == "cpu" => Ok(Kind::Cpu),
        None if place == "cuda" => Ok(Kind::Cuda(0, precision)),
        Some(("cuda", index)) => Ok(Kind::Cuda(index.parse().map_err(|_| wrong())?, precision)),
        _ => Err(wrong()),
    }
}

impl Device {
    /// The device of that name; `threads` are for the processor.
    pub(crate) fn open(name: &str, threads: usize) -> Result<Self> {
        Ok(match parse(name)? {
            Kind::Cpu => Self::Cpu(Cpu::new(threads)?),
            Kind::Cuda(index, precision) => {
                let options = Options { precision, ..Options::default() };
                let device = Cuda::open(index, &options);
                Self::Cuda(device.with_context(|| format!("--device {name} cannot be used here"))?)
            }
        })
    }

    /// The processor, for what runs there alone.
    pub(crate) fn processor(name: &str, threads: usize) -> Result<Cpu> {
        match parse(name)? {
            Kind::Cpu => Ok(Cpu::new(threads)?),
            Kind::Cuda(..) => Err(usage(format!("--device {name}: this runs on the processor alone; use `cpu`"))),
        }
    }
}

/// A device that may be absent, as the reason why; an error if it must be there, because `SNN_REQUIRE_CUDA` is 1.
pub(crate) fn required<T>(device: snn_core::Result<T>) -> Result<Result<T, String>> {
    let must = std::env::var_os("SNN_REQUIRE_CUDA").is_some_and(|value| value == "1");
    match device {
        Err(error) if must => Err(anyhow::Error::new(error).context("SNN_REQUIRE_CUDA is 1")),
        other => Ok(other.map_err(|error| error.to_string())),
    }
}

impl Place {
    /// The device.
    pub(crate) fn device(&self) -> Result<Device> {
        Device::open(&self.device, self.threads)
    }

    /// The processor, for what runs there alone.
    pub(crate) fn processor(&self) -> Result<Cpu> {
        Device::processor(&self.device, self.threads)
    }
}
