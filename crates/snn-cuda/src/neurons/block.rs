//! The block model as one pass over time, forward and reverse; equations in [`snn_core::neurons::block`].

use snn_core::Lanes;
use snn_core::backend::{BlockOps, Leak, LeakGrad};
use snn_core::error::Result;
use snn_core::neurons::block::{BlockNeuron, Start};

use super::{Split, check_leak, check_leak_grad, forward_scan, leak_arguments, scan, size, surrogate, wide_scan};
use crate::device::Cuda;
use crate::kernels::BLOCK;
use crate::memory::Buffer;
use crate::spikes::CudaSpikes;

/// [`BlockOps::block_forward`] with the split given.
///
/// # Errors
///
/// As there.
pub fn forward(
    device: &Cuda,
    split: Split,
    neuron: &BlockNeuron,
    lanes: Lanes,
    leak: Leak<'_, Cuda>,
    state: &mut Buffer<f32>,
    spikes: &mut CudaSpikes,
) -> Result<()> {
    let stride = check_leak("block_forward", lanes, &leak, state)?;
    forward_scan(device, &BLOCK, ["block_forward", "block_forward_relay"], lanes, split)
        .arg(state)
        .arg(leak.beta_raw)
        .arg(stride)
        .arg(leak.initial)
        .arg(spikes.overwrite(device, lanes, 1)?)
        .arg(size(device, lanes)?)
        .arg(neuron.threshold as f32)
        .arg(i32::from(neuron.start == Start::Decayed))
        .run()
}

/// [`BlockOps::block_backward`] with the split given.
///
/// # Errors
///
/// As there.
#[expect(clippy::too_many_arguments, reason = "those of the operation, and the split")]
pub fn backward(
    device: &Cuda,
    split: Split,
    neuron: &BlockNeuron,
    lanes: Lanes,
    leak: Leak<'_, Cuda>,
    state: &Buffer<f32>,
    grad: &mut Buffer<f32>,
    leak_grad: LeakGrad<'_, Cuda>,
) -> Result<()> {
    let stride = check_leak_grad("block_backward", lanes, &leak, state, grad, &leak_grad)?;
    let launch = match split {
        Split::Lanes => scan(device, &BLOCK, "block_backward", lanes),
        Split::Time => wide_scan(device, &BLOCK, "block_backward", lanes),
    };
    leak_arguments(launch, leak, stride, state, grad, leak_grad)
        .arg(size(device, lanes)?)
        .arg(neuron.threshold as f32)
        .arg(i32::from(neuron.start == Start::Decayed))
        .arg(surrogate(neuron.surrogate))
        .arg(i32::from(split == Split::Time))
        .run()
}

impl BlockOps for Cuda {
    fn block_forward(
        &self,
        neuron: &BlockNeuron,
        lanes: Lanes,
        leak: Leak<'_, Self>,
        state: &mut Buffer<f32>,
        spikes: &mut CudaSpikes,
    ) -> Result<()> {
        forward(self, self.split(lanes), neuron, lanes, leak, state, spikes)
    }

    fn block_backward(
        &self,
        neuron: &BlockNeuron,
        lanes: Lanes,
        leak: Leak<'_, Self>,
        state: &Buffer<f32>,
        grad: &mut Buffer<f32>,
        leak_grad: LeakGrad<'_, Self>,
    ) -> Result<()> {
        backward(self, self.split(lanes), neuron, lanes, leak, state, grad, leak_grad)
    }
}
