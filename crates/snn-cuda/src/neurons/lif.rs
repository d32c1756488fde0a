//! Sequential LIF neurons as one pass over time, forward and reverse; equations in [`snn_core::neurons::lif`].

use snn_core::Lanes;
use snn_core::backend::{Leak, LeakGrad, LifOps};
use snn_core::error::{Result, check_len};
use snn_core::neurons::lif::{LifKind, LifNeuron, Path};

use super::{Split, check_leak, check_leak_grad, forward_scan, leak_arguments, scan, size, surrogate, wide_scan};
use crate::device::Cuda;
use crate::kernels::LIF;
use crate::memory::Buffer;
use crate::spikes::CudaSpikes;

/// A kind as the kernels number it.
const fn number(kind: LifKind) -> i32 {
    match kind {
        LifKind::Integrator => 0,
        LifKind::Multi { .. } => 1,
        LifKind::Single { .. } => 2,
    }
}

/// [`LifOps::lif_forward`] with the split given.
///
/// # Errors
///
/// As there.
pub fn forward(
    device: &Cuda,
    split: Split,
    neuron: &LifNeuron,
    lanes: Lanes,
    leak: Leak<'_, Cuda>,
    state: &mut Buffer<f32>,
    spikes: &mut CudaSpikes,
) -> Result<()> {
    let stride = check_leak("lif_forward", lanes, &leak, state)?;
    let words = match neuron.kind {
        LifKind::Integrator => None,
        _ => Some(spikes.overwrite(device, lanes, 1)?),
    };
    forward_scan(device, &LIF, ["lif_forward", "lif_forward_relay"], lanes, split)
        .arg(state)
        .arg(leak.beta_raw)
        .arg(stride)
        .arg(leak.initial)
        .arg(words)
        .arg(size(device, lanes)?)
        .arg(number(neuron.kind))
        .arg(neuron.threshold as f32)
        .run()
}

/// [`LifOps::lif_backward`] with the split given; of the integrator alone are lanes cut in time.
///
/// # Errors
///
/// As there.
#[expect(clippy::too_many_arguments, reason = "those of the operation, and the split")]
pub fn backward(
    device: &Cuda,
    split: Split,
    neuron: &LifNeuron,
    lanes: Lanes,
    leak: Leak<'_, Cuda>,
    state: &Buffer<f32>,
    grad: &mut Buffer<f32>,
    leak_grad: LeakGrad<'_, Cuda>,
) -> Result<()> {
    let stride = check_leak_grad("lif_backward", lanes, &leak, state, grad, &leak_grad)?;
    let cut = split == Split::Time && neuron.kind == LifKind::Integrator;
    let launch = match cut {
        true => wide_scan(device, &LIF, "integrator_backward", lanes),
        false => scan(device, &LIF, "lif_backward", lanes),
    };
    let launch = leak_arguments(launch, leak, stride, state, grad, leak_grad)
        .arg(size(device, lanes)?)
        .arg(surrogate(neuron.surrogate));
    if cut {
        return launch.run();
    }
    // Detached, what flows through the reset or the mask is multiplied by zero.
    let through = match neuron.kind {
        LifKind::Multi { reset: Path::Attached } => neuron.threshold,
        LifKind::Single { mask: Path::Attached } => 1.0,
        _ => 0.0,
    };
    launch.arg(number(neuron.kind)).arg(neuron.threshold as f32).arg(through as f32).run()
}

impl LifOps for Cuda {
    fn lif_forward(
        &self,
        neuron: &LifNeuron,
        lanes: Lanes,
        leak: Leak<'_, Self>,
        state: &mut Buffer<f32>,
        spikes: &mut CudaSpikes,
    ) -> Result<()> {
        forward(self, self.split(lanes), neuron, lanes, leak, state, spikes)
    }

    fn lif_backward(
        &self,
        neuron: &LifNeuron,
        lanes: Lanes,
        leak: Leak<'_, Self>,
        state: &Buffer<f32>,
        grad: &mut Buffer<f32>,
        leak_grad: LeakGrad<'_, Self>,
    ) -> Result<()> {
        backward(self, self.split(lanes), neuron, lanes, leak, state, grad, leak_grad)
    }

    fn lif_membrane(&self, neuron: &LifNeuron, lanes: Lanes, state: &mut Buffer<f32>) -> Result<()> {
        check_len("lif_membrane", "state", state.len(), lanes.len())?;
        if !matches!(neuron.kind, LifKind::Single { .. }) {
            return Ok(());
        }
        scan(self, &LIF, "lif_membrane", lanes).arg(state).arg(size(self, lanes)?).arg(neuron.threshold as f32).run()
    }
}
