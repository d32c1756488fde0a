//! Queuing a kernel: its name, its threads, its arguments.
//!
//! Number and types of the arguments are compared with the kernel's declaration, so that a launch cannot read
//! something else than what it was given.

use std::ffi::c_void;

use snn_core::Element;
use snn_core::error::Result;

use crate::device::Cuda;
use crate::kernels::Source;
use crate::memory::Buffer;

/// Threads of a block, at most.
pub(crate) const BLOCK: u32 = 256;

/// A kernel about to be queued.
pub(crate) struct Launch<'a> {
    device: &'a Cuda,
    source: &'static Source,
    kernel: &'static str,
    grid: [u32; 3],
    block: [u32; 3],
    shared: usize,
    types: Vec<String>,
    /// The arguments one after the other, each from a multiple of 8 bytes on, and where.
    words: Vec<u64>,
    at: Vec<usize>,
}

/// What a kernel can be given.
pub(crate) trait Argument {
    /// Its type as kernels write it.
    fn c_type(&self) -> String;
    /// Its bytes, in words of 8.
    fn words(&self) -> Vec<u64>;
}

macro_rules! scalar {
    ($($rust:ty = $c:literal as $bits:expr),* $(,)?) => {
        $(impl Argument for $rust {
            fn c_type(&self) -> String {
                $c.into()
            }
            fn words(&self) -> Vec<u64> {
                let bits: fn($rust) -> u64 = $bits;
                vec![bits(*self)]
            }
        })*
    };
}

scalar! {
    i32 = "int" as |x| u64::from(x as u32),
    u32 = "u32" as u64::from,
    i64 = "i64" as |x| x as u64,
    u64 = "u64" as |x| x,
    f32 = "float" as |x| u64::from(x.to_bits()),
    f64 = "double" as f64::to_bits,
}

/// A struct of 4-byte fields, as kernels name it.
#[derive(Debug, Clone)]
pub(crate) struct Fields {
    name: &'static str,
    fields: Vec<u32>,
}

impl Fields {
    /// No field yet.
    pub(crate) fn new(name: &'static str) -> Self {
        Self { name, fields: Vec::new() }
    }

    /// The next field.
    pub(crate) fn float(mut self, value: f64) -> Self {
        self.fields.push((value as f32).to_bits());
        self
    }

    /// The next field.
    pub(crate) fn int(mut self, value: i32) -> Self {
        self.fields.push(value as u32);
        self
    }

    /// The next field.
    pub(crate) fn unsigned(mut self, value: u32) -> Self {
        self.fields.push(value);
        self
    }

    /// Zeros up to that many fields.
    pub(crate) fn padded(mut self, fields: usize) -> Self {
        self.fields.resize(fields, 0);
        self
    }
}

impl Argument for Fields {
    fn c_type(&self) -> String {
        self.name.into()
    }
    fn words(&self) -> Vec<u64> {
        self.fields.chunks(2).map(|pair| u64::from(pair[0]) | u64::from(*pair.get(1).unwrap_or(&0)) << 32).collect()
    }
}

/// What kernels call a type of entries.
fn element<T: Element>() -> &'static str {
    match std::any::type_name::<T>() {
        "f32" => "float",
        "f64" => "double",
        other => other,
    }
}

impl<T: Element> Argument for &Buffer<T> {
    fn c_type(&self) -> String {
        format!("In<{}>", element::<T>())
    }
    fn words(&self) -> Vec<u64> {
        vec![self.address()]
    }
}

impl<T: Element> Argument for &mut Buffer<T> {
    fn c_type(&self) -> String {
        format!("Out<{}>", element::<T>())
    }
    fn words(&self) -> Vec<u64> {
        vec![self.address()]
    }
}

impl<T: Element> Argument for Option<&Buffer<T>> {
    fn c_type(&self) -> String {
        format!("In<{}>", element::<T>())
    }
    fn words(&self) -> Vec<u64> {
        vec![self.map_or(0, Buffer::address)]
    }
}

impl<T: Element> Argument for Option<&mut Buffer<T>> {
    fn c_type(&self) -> String {
        format!("Out<{}>", element::<T>())
    }
    fn words(&self) -> Vec<u64> {
        vec![self.as_ref().map_or(0, |buffer| buffer.address())]
    }
}

impl Cuda {
    /// A kernel of a file, with one block of one thread until told otherwise.
    pub(crate) fn launch(&self, source: &'static Source, kernel: &'static str) -> Launch<'_> {
        Launch {
            device: self,
            source,
            kernel,
            grid: [1; 3],
            block: [1; 3],
            shared: 0,
            types: Vec::new(),
            words: Vec::new(),
            at: Vec::new(),
        }
    }
}

impl Launch<'_> {
    /// At least `threads` threads in blocks of 256.
    pub(crate) fn threads(self, threads: usize) -> Self {
        self.grid(threads.div_ceil(BLOCK as usize), 1, 1).block(BLOCK, 1)
    }

    /// At least `warps` warps of 32 threads in blocks of 256.
    pub(crate) fn warps(self, warps: usize) -> Self {
        self.threads(32 * warps)
    }

    /// That many blocks, at most 65535 along the second and third axis; with none, nothing is queued.
    pub(crate) fn grid(mut self, x: usize, y: usize, z: usize) -> Self {
        // What does not fit is refused by the driver.
        self.grid = [x, y, z].map(|n| u32::try_from(n).unwrap_or(u32::MAX));
        self
    }

    /// Threads of a block, at most 256 in all.
    pub(crate) fn block(mut self, x: u32, y: u32) -> Self {
        self.block = [x, y, 1];
        self
    }

    /// Bytes of shared memory beside what the kernel declares.
    pub(crate) fn shared(mut self, bytes: usize) -> Self {
        self.shared = bytes;
        self
    }

    /// The next argument.
    pub(crate) fn arg(mut self, argument: impl Argument) -> Self {
        self.types.push(argument.c_type());
        self.at.push(self.words.len());
        self.words.extend(argument.words());
        self
    }

    /// Queues the kernel.
    pub(crate) fn run(mut self) -> Result<()> {
        let Self { device, source, kernel, .. } = self;
        let declared = source.parameters(kernel);
        if declared.as_ref().is_none_or(|declared| *declared != self.types) {
            let (wants, gets) = (declared.unwrap_or_default().join(", "), self.types.join(", "));
            return Err(
                device.error(format!("kernel {}::{kernel} takes ({wants}), but is given ({gets})", source.name))
            );
        }
        if self.grid.contains(&0) {
            return Ok(());
        }
        let function = device.module(source)?.function(device, kernel)?;
        let words = self.words.as_mut_ptr();
        let mut arguments: Vec<*mut c_void> = self.at.iter().map(|&at| words.wrapping_add(at).cast()).collect();
        device.queue(function, self.grid, self.block, self.shared as u32, &mut arguments)
    }
}
