//! Buffers in the device's memory.

use std::marker::PhantomData;

use snn_core::Element;
use snn_core::backend::Memory;
use snn_core::error::{Result, check_len};

use crate::device::{Allocation, Cuda, Precision, Recording};

/// A flat array in the device's memory. It keeps its memory when it becomes shorter.
#[derive(Debug)]
pub struct Buffer<T> {
    memory: Option<Allocation>,
    capacity: usize,
    len: usize,
    of: PhantomData<T>,
}

impl<T> Buffer<T> {
    /// Where it begins; 0 if it never had memory.
    pub(crate) fn address(&self) -> u64 {
        self.memory.as_ref().map_or(0, Allocation::address)
    }

    /// Entries.
    pub(crate) fn len(&self) -> usize {
        self.len
    }

    fn bytes(&self) -> usize {
        self.len * size_of::<T>()
    }
}

impl Cuda {
    /// An array whose contents are unspecified.
    pub(crate) fn scratch<T: Element>(&self, len: usize) -> Result<Buffer<T>> {
        let mut buffer = self.empty();
        self.resize(&mut buffer, len)?;
        Ok(buffer)
    }

    /// An array of no entry.
    pub(crate) fn empty<T: Element>(&self) -> Buffer<T> {
        Buffer { memory: None, capacity: 0, len: 0, of: PhantomData }
    }

    /// Queues setting all bytes to 0.
    pub(crate) fn clear_buffer<T: Element>(&self, buffer: &mut Buffer<T>) -> Result<()> {
        let bytes = buffer.bytes();
        match &mut buffer.memory {
            Some(memory) if bytes > 0 => self.clear(memory, bytes),
            _ => Ok(()),
        }
    }
}

impl Memory for Cuda {
    type Real = f32;
    type Buffer<T: Element> = Buffer<T>;
    type Recording = Recording;

    fn describe(&self) -> String {
        let info = self.info();
        let products = match self.precision() {
            Precision::Single => "f32",
            Precision::Tensor => "TF32 products",
        };
        format!("cuda:{}, {}, sm_{}{}, {products}", info.index, info.name, info.capability.0, info.capability.1)
    }
    fn zeros<T: Element>(&self, len: usize) -> Result<Buffer<T>> {
        let mut buffer = self.scratch(len)?;
        // The zero of every element is made of zero bits.
        self.clear_buffer(&mut buffer)?;
        Ok(buffer)
    }
    fn len<T: Element>(&self, buffer: &Buffer<T>) -> usize {
        buffer.len
    }
    fn resize<T: Element>(&self, buffer: &mut Buffer<T>, len: usize) -> Result<()> {
        if len > buffer.capacity {
            let bytes =
                len.checked_mul(size_of::<T>()).ok_or_else(|| self.error(format!("no memory for {len} entries")))?;
            if buffer.memory.is_some() {
                self.not_recording("a buffer that grows")?;
                self.count_moves(1);
            }
            buffer.memory = None;
            (buffer.capacity, buffer.len) = (0, 0);
            buffer.memory = Some(self.allocate(bytes)?);
            buffer.capacity = len;
        }
        buffer.len = len;
        Ok(())
    }
    fn upload<T: Element>(&self, host: &[T], device: &mut Buffer<T>) -> Result<()> {
        check_len("upload", "device", device.len, host.len())?;
        match &mut device.memory {
            Some(memory) if !host.is_empty() => self.copy_in(host, memory),
            _ => Ok(()),
        }
    }
    fn download<T: Element>(&self, device: &Buffer<T>, host: &mut [T]) -> Result<()> {
        check_len("download", "host", host.len(), device.len)?;
        match &device.memory {
            Some(memory) if !host.is_empty() => self.copy_out(memory, host),
            _ => Ok(()),
        }
    }
    fn copy<T: Element>(&self, from: &Buffer<T>, to: &mut Buffer<T>) -> Result<()> {
        check_len("copy", "to", to.len, from.len)?;
        match (&from.memory, &mut to.memory) {
            (Some(source), Some(memory)) if from.len > 0 => self.copy_within(source, memory, from.bytes()),
            _ => Ok(()),
        }
    }
    fn fill<T: Element>(&self, buffer: &mut Buffer<T>, value: T) -> Result<()> {
        let len = buffer.len;
        match &mut buffer.memory {
            Some(memory) if len > 0 => self.set(memory, value, len),
            _ => Ok(()),
        }
    }
    fn record(&self, work: &mut dyn FnMut() -> Result<()>) -> Result<Option<Recording>> {
        self.recorded(work).map(Some)
    }
    fn replay(&self, recording: &Recording) -> Result<()> {
        self.queue_again(recording)
    }
    fn place<T: Element>(&self, buffer: &Buffer<T>) -> u64 {
        buffer.address()
    }
    fn moves(&self) -> u64 {
        self.count_moves(0)
    }
    fn synchronise(&self) -> Result<()> {
        self.wait()
    }
}
