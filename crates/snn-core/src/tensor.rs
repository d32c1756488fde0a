//! Arrays on a device.

use crate::backend::Memory;
use crate::error::Result;

/// An array on a device: its axes and its entries, last axis contiguous.
#[derive(Debug)]
pub struct Tensor<M: Memory> {
    /// Axes.
    pub shape: Vec<usize>,
    /// Entries.
    pub data: M::Buffer<M::Real>,
}

impl<M: Memory> Tensor<M> {
    /// Zeros of the given shape.
    ///
    /// # Errors
    ///
    /// If the device has no memory left.
    pub fn zeros(device: &M, shape: &[usize]) -> Result<Self> {
        Ok(Self { shape: shape.to_vec(), data: device.zeros(shape.iter().product())? })
    }

    /// Entries.
    #[must_use]
    pub fn len(&self) -> usize {
        self.shape.iter().product()
    }

    /// Whether there is no entry.
    #[must_use]
    pub fn is_empty(&self) -> bool {
        self.len() == 0
    }

    /// Gives the tensor another shape; the buffer is replaced only when it is too small, and its contents are
    /// then zeros.
    ///
    /// # Errors
    ///
    /// If the device has no memory left.
    pub fn resize(&mut self, device: &M, shape: &[usize]) -> Result<()> {
        if self.shape != shape {
            device.resize(&mut self.data, shape.iter().product())?;
            self.shape.clear();
            self.shape.extend_from_slice(shape);
        }
        Ok(())
    }
}
