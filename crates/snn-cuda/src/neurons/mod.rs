//! Scans of the neuron families: one file each, as in [`snn_core::neurons`].
//!
//! A thread has a lane, one neuron of one sample, keeps its state in registers and walks through time; a warp has 32
//! neighbouring neurons. Recurrent neurons of a sample are one block of threads.

pub mod alif;
pub mod block;
pub mod cuba;
pub mod event;
pub mod lif;
pub mod paralif;
pub mod ttfs;

use snn_core::backend::{FilterGrad, Filters, Leak, LeakGrad};
use snn_core::error::{Result, check_len};
use snn_core::{Element, Lanes, Surrogate};

use crate::device::Cuda;
use crate::kernels::Source;
use crate::launch::{BLOCK, Fields, Launch};
use crate::memory::Buffer;
use crate::spikes::words_of;

/// How lanes go over threads.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub enum Split {
    /// A thread walks a lane from end to end.
    Lanes,
    /// A block of threads has 32 lanes, for few and long ones. Forward, one warp takes the steps in the same order while
    /// the others load and finish them, and the bits are the same. The adjoints of linear steps are cut in time, which
    /// costs a second pass and other roundings.
    Time,
}

impl Split {
    /// The choice for a size: whether a thread for each lane keeps every multiprocessor busy. Counted, not measured.
    #[must_use]
    pub const fn of(lanes: Lanes, multiprocessors: u32) -> Self {
        let few = lanes.batch * words_of(lanes.width) < 8 * multiprocessors as usize;
        if few && lanes.steps >= 256 { Self::Time } else { Self::Lanes }
    }
}

impl Cuda {
    /// The choice for a size on this device.
    fn split(&self, lanes: Lanes) -> Split {
        Split::of(lanes, self.info().multiprocessors)
    }
}

/// Steps that a scan takes at a time, as in the kernels.
const CHUNK: usize = 8;

/// Warps of a block that has 32 lanes, as in the kernels.
const CUTS: usize = 8;

/// Most threads of a block of a scan.
const SCAN_BLOCK: usize = 128;

/// A size as kernels take it.
pub(crate) fn size(device: &Cuda, lanes: Lanes) -> Result<Fields> {
    let int =
        |n: usize| i32::try_from(n).map_err(|_| device.error(format!("{lanes:?}: an axis of more than 2^31 entries")));
    Ok(Fields::new("Lanes").int(int(lanes.batch)?).int(int(lanes.steps)?).int(int(lanes.width)?))
}

/// A scan with a thread for each lane. Blocks are small while there are few, so that they lie on all multiprocessors.
pub(crate) fn scan<'a>(device: &'a Cuda, source: &'static Source, kernel: &'static str, lanes: Lanes) -> Launch<'a> {
    let warps = lanes.batch * words_of(lanes.width);
    let share = warps.div_ceil(device.info().multiprocessors.max(1) as usize);
    let block = (32 * share.max(1).next_power_of_two()).min(SCAN_BLOCK);
    device.launch(source, kernel).grid((32 * warps).div_ceil(block), 1, 1).block(block as u32, 1)
}

/// A scan with a block for every 32 lanes.
fn wide_scan<'a>(device: &'a Cuda, source: &'static Source, kernel: &'static str, lanes: Lanes) -> Launch<'a> {
    let blocks = lanes.batch * words_of(lanes.width);
    device.launch(source, kernel).grid(blocks, 1, 1).block(32 * CUTS as u32, 1)
}

/// The kernel of a forward scan with one thread for each lane, or its relay.
fn forward_scan<'a>(
    device: &'a Cuda,
    source: &'static Source,
    [walk, relay]: [&'static str; 2],
    lanes: Lanes,
    split: Split,
) -> Launch<'a> {
    match split {
        Split::Lanes => scan(device, source, walk, lanes),
        Split::Time => wide_scan(device, source, relay, lanes),
    }
}

/// Shared memory that a block of a recurrent scan may ask for, bytes; the rest of the 48 KiB is for what kernels declare.
const SHARED: usize = 38 * 1024;

/// Memory for a block of a recurrent scan: shared memory if `length` entries of 4 bytes fit, otherwise that of the device.
#[derive(Debug)]
struct Workspace<T> {
    shared: usize,
    scratch: Option<Buffer<T>>,
    length: usize,
}

impl<T: Element> Workspace<T> {
    fn new(device: &Cuda, batch: usize, length: usize) -> Result<Self> {
        match size_of::<T>() * length {
            shared if shared <= SHARED => Ok(Self { shared, scratch: None, length: 0 }),
            _ => Ok(Self { shared: 0, scratch: Some(device.scratch(batch * length)?), length }),
        }
    }
}

/// Threads of a block of a recurrent scan: neurons along the first axis, and with few of them several threads for each.
fn recurrent_block(width: usize) -> (usize, usize) {
    let neurons = (32 * words_of(width)).clamp(32, BLOCK as usize);
    (neurons, BLOCK as usize / neurons)
}

/// What the adjoints of leaky scans are given first.
fn leak_arguments<'a>(
    launch: Launch<'a>,
    leak: Leak<'_, Cuda>,
    stride: i32,
    state: &Buffer<f32>,
    grad: &mut Buffer<f32>,
    leak_grad: LeakGrad<'_, Cuda>,
) -> Launch<'a> {
    launch
        .arg(state)
        .arg(leak.beta_raw)
        .arg(stride)
        .arg(leak.initial)
        .arg(leak_grad.membrane)
        .arg(grad)
        .arg(leak_grad.beta)
        .arg(leak_grad.initial)
        .arg(leak_grad.current_sum)
}

/// A surrogate as kernels take it.
pub(crate) fn surrogate(surrogate: Surrogate) -> Fields {
    let fields = |kind, values: [f64; 5]| values.into_iter().fold(Fields::new("Surrogate").int(kind), Fields::float);
    match surrogate {
        Surrogate::FastSigmoid { scale } => fields(0, [scale, 0.0, 0.0, 0.0, 0.0]),
        Surrogate::Boxcar { half_width } => fields(1, [half_width, 0.0, 0.0, 0.0, 0.0]),
        Surrogate::MultiGaussian { height, width, gain } => {
            let (side, root) = (6.0 * width, (2.0 * std::f64::consts::PI).sqrt());
            let factors = [gain * (1.0 + height) / (root * width), gain * height / (root * side)];
            fields(2, [width, 1.0 / width, 1.0 / side, factors[0], factors[1]])
        }
        Surrogate::Arctan { alpha } => fields(3, [std::f64::consts::FRAC_PI_2 * alpha, 0.5 * alpha, 0.0, 0.0, 0.0]),
    }
}

/// How far apart the entries of neighbouring neurons lie in a list of one for all or one each.
pub(crate) fn stride(op: &'static str, arg: &'static str, list: &Buffer<f32>, width: usize) -> Result<i32> {
    if list.len() == 1 {
        return Ok(0);
    }
    check_len(op, arg, list.len(), width)?;
    Ok(1)
}

/// Checks that places hold `len` entries if they are there.
pub(crate) fn check_places(
    op: &'static str,
    len: usize,
    places: &[(&'static str, &Option<&mut Buffer<f32>>)],
) -> Result<()> {
    for (arg, place) in places {
        if let Some(buffer) = place {
            check_len(op, arg, buffer.len(), len)?;
        }
    }
    Ok(())
}

/// Checks the incoming gradient on the membrane.
pub(crate) fn check_membrane(op: &'static str, lanes: Lanes, membrane: Option<&Buffer<f32>>) -> Result<()> {
    membrane.map_or(Ok(()), |m| check_len(op, "grad_membrane", m.len(), lanes.len()))
}

/// Checks the buffers that all leaky scans share and gives the stride of the decays.
fn check_leak(op: &'static str, lanes: Lanes, leak: &Leak<'_, Cuda>, state: &Buffer<f32>) -> Result<i32> {
    check_len(op, "state", state.len(), lanes.len())?;
    if let Some(v) = leak.initial {
        check_len(op, "initial", v.len(), lanes.batch * lanes.width)?;
    }
    stride(op, "beta", leak.beta_raw, lanes.width)
}

/// The same of their adjoints.
fn check_leak_grad(
    op: &'static str,
    lanes: Lanes,
    leak: &Leak<'_, Cuda>,
    state: &Buffer<f32>,
    grad: &Buffer<f32>,
    leak_grad: &LeakGrad<'_, Cuda>,
) -> Result<i32> {
    let stride = check_leak(op, lanes, leak, state)?;
    check_len(op, "grad", grad.len(), lanes.len())?;
    check_membrane(op, lanes, leak_grad.membrane)?;
    let LeakGrad { beta, initial, current_sum, .. } = leak_grad;
    let places = [("grad_beta", beta), ("grad_initial", initial), ("current_sum", current_sum)];
    check_places(op, lanes.batch * lanes.width, &places)?;
    Ok(stride)
}

/// The strides of the decays of both filters, alpha first.
fn check_filters(op: &'static str, filters: &Filters<'_, Cuda>, width: usize) -> Result<[i32; 2]> {
    let beta = stride(op, "beta", filters.beta, width)?;
    Ok([filters.alpha.map_or(Ok(0), |alpha| stride(op, "alpha", alpha, width))?, beta])
}

/// Checks the places for gradients of filtered neurons.
fn check_filter_grad(op: &'static str, lanes: Lanes, grads: &FilterGrad<'_, Cuda>) -> Result<()> {
    check_membrane(op, lanes, grads.membrane)?;
    let FilterGrad { alpha, beta, threshold, current_sum, .. } = grads;
    let places =
        [("grad_alpha", alpha), ("grad_beta", beta), ("grad_threshold", threshold), ("current_sum", current_sum)];
    check_places(op, lanes.batch * lanes.width, &places)
}
