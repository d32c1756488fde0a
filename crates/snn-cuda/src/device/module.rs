//! Loaded kernels.

use std::collections::HashMap;
use std::ffi::CString;
use std::sync::{Arc, Mutex};

use cudarc::driver::{DriverError, result as driver, sys};
use snn_core::error::Result;

use super::{Cuda, describe, lock};
use crate::kernels::Source;

/// Loaded kernels of one file.
pub(crate) struct Module {
    handle: sys::CUmodule,
    source: &'static Source,
    kernels: Mutex<HashMap<&'static str, Kernel>>,
}

// SAFETY: module handles may be used from any thread.
unsafe impl Send for Module {}
// SAFETY: as above.
unsafe impl Sync for Module {}

/// A kernel that can be queued; lives as long as its module, and modules as long as the device.
#[derive(Clone, Copy)]
pub(crate) struct Function(sys::CUfunction);

impl Function {
    pub(super) fn handle(self) -> sys::CUfunction {
        self.0
    }
}

// SAFETY: function handles may be used from any thread.
unsafe impl Send for Function {}

impl Module {
    pub(super) fn new(image: &[u8], source: &'static Source) -> Result<Self, DriverError> {
        // The driver reads text up to a zero; a binary knows its own end.
        let image: Vec<u8> = image.iter().copied().chain([0]).collect();
        // SAFETY: the image ends in a zero; damaged ones are the driver's to refuse.
        let handle = unsafe { driver::module::load_data(image.as_ptr().cast()) }?;
        Ok(Self { handle, source, kernels: Mutex::default() })
    }

    /// The kernel of that name.
    pub(crate) fn kernel(&self, device: &Cuda, name: &'static str) -> Result<Kernel> {
        let mut kernels = lock(&self.kernels);
        if let Some(kernel) = kernels.get(name) {
            return Ok(kernel.clone());
        }
        let missing = |reason: String| device.error(format!("kernel {}::{name}: {reason}", self.source.name));
        let parameters = self.source.parameters(name).ok_or_else(|| missing("is not declared".into()))?;
        let c_name = CString::new(name).map_err(|e| missing(e.to_string()))?;
        // SAFETY: the module is loaded and never unloaded before the device is gone.
        let function =
            unsafe { driver::module::get_function(self.handle, c_name) }.map_err(|e| missing(describe(e)))?;
        let kernel = Kernel { function: Function(function), parameters: parameters.into() };
        kernels.insert(name, kernel.clone());
        Ok(kernel)
    }
}

/// A kernel with the types of its parameters.
#[derive(Clone)]
pub(crate) struct Kernel {
    pub(crate) function: Function,
    pub(crate) parameters: Arc<[&'static str]>,
}
