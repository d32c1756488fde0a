//! Queuing a kernel: its name, its threads, its arguments.
//!
//! Number and types of the arguments are compared with the kernel's declaration, so that a launch cannot read
//! something else than what it was given.

use std::ffi::c_void;

use snn_core::Element;
use snn_core::error::Result;

use crate::device::{Cuda, Kernel};
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
    types: Vec<&'static str>,
    /// The arguments one after the other, each from a multiple of 8 bytes on, and where.
    words: Vec<u64>,
    at: Vec<usize>,
}

/// What a kernel can be given.
pub(crate) trait Argument {
    /// Its type as kernels write it.
    fn c_type(&self) -> &'static str;
    /// Appends its bytes, in words of 8.
    fn push(&self, words: &mut Vec<u64>);
}

macro_rules! scalar {
    ($($rust:ty = $c:literal as $bits:expr),* $(,)?) => {
        $(impl Argument for $rust {
            fn c_type(&self) -> &'static str {
                $c
            }
            fn push(&self, words: &mut Vec<u64>) {
                let bits: fn($rust) -> u64 = $bits;
                words.push(bits(*self));
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
    fn c_type(&self) -> &'static str {
        self.name
    }
    fn push(&self, words: &mut Vec<u64>) {
        let pair = |pair: &[u32]| u64::from(pair[0]) | u64::from(pair.get(1).copied().unwrap_or_default()) << 32;
        words.extend(self.fields.chunks(2).map(pair));
    }
}

/// What kernels call arrays of a type, to be read and to be written.
fn array<T: Element>() -> [&'static str; 2] {
    match std::any::type_name::<T>() {
        "f32" => ["In<float>", "Out<float>"],
        "f64" => ["In<double>", "Out<double>"],
        "u32" => ["In<u32>", "Out<u32>"],
        "u8" => ["In<u8>", "Out<u8>"],
        other => [other, other],
    }
}

macro_rules! buffer {
    ($($kind:ty, $which:literal, $buffer:ident => $address:expr);* $(;)?) => {
        $(impl<T: Element> Argument for $kind {
            fn c_type(&self) -> &'static str {
                array::<T>()[$which]
            }
            fn push(&self, words: &mut Vec<u64>) {
                let $buffer = self;
                words.push($address);
            }
        })*
    };
}

buffer! {
    &Buffer<T>, 0, buffer => buffer.address();
    &mut Buffer<T>, 1, buffer => buffer.address();
    Option<&Buffer<T>>, 0, buffer => buffer.map_or(0, Buffer::address);
    Option<&mut Buffer<T>>, 1, buffer => buffer.as_ref().map_or(0, |buffer| buffer.address());
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
        argument.push(&mut self.words);
        self
    }

    /// Queues the kernel.
    pub(crate) fn run(mut self) -> Result<()> {
        let Self { device, source, kernel, .. } = self;
        if self.grid.contains(&0) {
            return Ok(());
        }
        let Kernel { function, parameters } = device.module(source)?.kernel(device, kernel)?;
        if *parameters != self.types {
            let (wants, gets) = (parameters.join(", "), self.types.join(", "));
            let reason = format!("kernel {}::{kernel} takes ({wants}), but is given ({gets})", source.name);
            return Err(device.error(reason));
        }
        let words = self.words.as_mut_ptr();
        let mut arguments: Vec<*mut c_void> = self.at.iter().map(|&at| words.wrapping_add(at).cast()).collect();
        device.queue(function, self.grid, self.block, self.shared as u32, &mut arguments)
    }
}
