//! Current-based neurons as one pass over time, forward and reverse; equations in [`snn_core::neurons::cuba`].
//!
//! Neurons that feed each other are one block of threads for each sample, which goes from step to step together.

use snn_core::Lanes;
use snn_core::backend::{CubaOps, CubaParameters, FilterGrad, Recurrent};
use snn_core::error::{Error, Result, check_len};
use snn_core::neurons::cuba::{CubaNeuron, Recurrence};

use super::paralif::map;
use super::{
    Split, Workspace, check_filter_grad, check_filters, forward_scan, recurrent_block, scan, size, stride, surrogate,
};
use crate::device::Cuda;
use crate::kernels::CUBA;
use crate::launch::{BLOCK, Launch};
use crate::memory::Buffer;
use crate::spikes::{CudaSpikes, words_of};

/// A population, checked.
struct Plan<'a> {
    neuron: &'a CubaNeuron,
    lanes: Lanes,
    parameters: CubaParameters<'a, Cuda>,
    strides: [i32; 2],
    threshold_stride: i32,
}

impl<'a> Plan<'a> {
    fn new(
        op: &'static str,
        neuron: &'a CubaNeuron,
        lanes: Lanes,
        parameters: CubaParameters<'a, Cuda>,
    ) -> Result<Self> {
        match (neuron.recurrence, parameters.recurrent) {
            (Recurrence::None, None) => {}
            (Recurrence::Spike | Recurrence::Relu, Some(r)) => {
                check_len(op, "recurrent weight", r.weight.len(), lanes.width * lanes.width)?;
                check_len(op, "recurrent bias", r.bias.len(), lanes.width)?;
            }
            (_, got) => {
                let want = format_args!("weights exactly if the neuron is recurrent ({:?})", neuron.recurrence);
                return Err(Error::shape(op, "recurrent", &[usize::from(got.is_some())], want));
            }
        }
        let threshold_stride =
            if neuron.fires { stride(op, "threshold", parameters.threshold, lanes.width)? } else { 0 };
        let strides = check_filters(op, &parameters.filters, lanes.width)?;
        Ok(Self { neuron, lanes, parameters, strides, threshold_stride })
    }

    /// Steps that a spike blocks; 0 if the refractory period blocks none.
    fn blocked(&self) -> i32 {
        i32::try_from(self.neuron.refractory.saturating_sub(1)).unwrap_or(i32::MAX)
    }

    fn relu(&self) -> i32 {
        i32::from(self.neuron.recurrence == Recurrence::Relu)
    }

    /// Absent of a readout.
    fn threshold(&self) -> Option<&'a Buffer<f32>> {
        self.neuron.fires.then_some(self.parameters.threshold)
    }

    fn with_filters<'d>(&self, launch: Launch<'d>) -> Launch<'d> {
        let filters = &self.parameters.filters;
        launch.arg(filters.alpha).arg(self.strides[0]).arg(filters.beta).arg(self.strides[1]).arg(map(filters.map))
    }

    fn with_threshold<'d>(&self, launch: Launch<'d>) -> Launch<'d> {
        launch.arg(self.threshold()).arg(self.threshold_stride)
    }

    /// The constants of every neuron, for recurrent scans.
    fn constants(&self, device: &Cuda) -> Result<Buffer<f32>> {
        let width = self.lanes.width;
        let mut constants = device.scratch(5 * width)?;
        let launch = self.with_filters(device.launch(&CUBA, "cuba_constants").threads(width));
        self.with_threshold(launch).arg(width as i32).arg(&mut constants).run()?;
        Ok(constants)
    }

    /// A bit for each step whose input was taken, if spikes block any.
    fn gates(&self, device: &Cuda, state: &Buffer<f32>) -> Result<Option<Buffer<u32>>> {
        if self.blocked() == 0 || !self.neuron.fires {
            return Ok(None);
        }
        let mut gates = device.scratch(self.lanes.rows() * words_of(self.lanes.width))?;
        self.with_threshold(scan(device, &CUBA, "cuba_gates", self.lanes).arg(state))
            .arg(&mut gates)
            .arg(size(device, self.lanes)?)
            .arg(self.blocked())
            .run()?;
        Ok(Some(gates))
    }

    fn feed(
        &self,
        device: &Cuda,
        recurrent: Recurrent<'_, Cuda>,
        state: &mut Buffer<f32>,
        synaptic: Option<&mut Buffer<f32>>,
        words: Option<&mut Buffer<u32>>,
    ) -> Result<()> {
        let Lanes { batch, width, .. } = self.lanes;
        let constants = self.constants(device)?;
        let values = if self.relu() == 1 { 2 * width } else { 0 };
        let kept = if width > BLOCK as usize { 3 * width } else { 0 };
        let mut work = Workspace::<u32>::new(device, batch, 2 * words_of(width) + values + kept)?;
        device
            .launch(&CUBA, "cuba_recurrent_forward")
            .grid(if self.lanes.is_empty() { 0 } else { batch }, 1, 1)
            .block(recurrent_block(width).0 as u32, 1)
            .shared(work.shared)
            .arg(state)
            .arg(&constants)
            .arg(recurrent.weight)
            .arg(recurrent.bias)
            .arg(synaptic)
            .arg(words)
            .arg(work.scratch.as_mut())
            .arg(work.length as i64)
            .arg(size(device, self.lanes)?)
            .arg(self.blocked())
            .arg(self.relu())
            .run()
    }

    fn feed_back(
        &self,
        device: &Cuda,
        recurrent: Recurrent<'_, Cuda>,
        state: &Buffer<f32>,
        synaptic: Option<&Buffer<f32>>,
        grad: &mut Buffer<f32>,
        grads: FilterGrad<'_, Cuda>,
    ) -> Result<()> {
        let Lanes { batch, width, .. } = self.lanes;
        let constants = self.constants(device)?;
        let gates = self.gates(device, state)?;
        let transposed = device.transposed(recurrent.weight, width)?;
        let kept = if width > BLOCK as usize { 6 * width } else { 0 };
        let mut work = Workspace::<f32>::new(device, batch, 2 * width + kept)?;
        let (neurons, parts) = recurrent_block(width);
        let launch = device
            .launch(&CUBA, "cuba_recurrent_backward")
            .grid(if width == 0 { 0 } else { batch }, 1, 1)
            .block(neurons as u32, parts as u32)
            .shared(work.shared)
            .arg(state)
            .arg(&constants)
            .arg(&transposed);
        with_gradients(self.with_filters(launch), synaptic, gates.as_ref(), grad, grads)
            .arg(work.scratch.as_mut())
            .arg(work.length as i64)
            .arg(size(device, self.lanes)?)
            .arg(i32::from(self.neuron.fires))
            .arg(self.relu())
            .arg(surrogate(self.neuron.surrogate))
            .run()
    }
}

/// What both adjoints are given after their constants.
fn with_gradients<'a>(
    launch: Launch<'a>,
    synaptic: Option<&Buffer<f32>>,
    gates: Option<&Buffer<u32>>,
    grad: &mut Buffer<f32>,
    grads: FilterGrad<'_, Cuda>,
) -> Launch<'a> {
    launch
        .arg(synaptic)
        .arg(gates)
        .arg(grads.membrane)
        .arg(grad)
        .arg(grads.alpha)
        .arg(grads.beta)
        .arg(grads.threshold)
        .arg(grads.current_sum)
}

/// [`CubaOps::cuba_forward`] with the split given; neurons that feed each other have none.
///
/// # Errors
///
/// As there.
#[expect(clippy::too_many_arguments, reason = "those of the operation, and the split")]
pub fn forward(
    device: &Cuda,
    split: Split,
    neuron: &CubaNeuron,
    lanes: Lanes,
    parameters: CubaParameters<'_, Cuda>,
    state: &mut Buffer<f32>,
    synaptic: Option<&mut Buffer<f32>>,
    spikes: &mut CudaSpikes,
) -> Result<()> {
    const OP: &str = "cuba_forward";
    check_len(OP, "state", state.len(), lanes.len())?;
    let plan = Plan::new(OP, neuron, lanes, parameters)?;
    if let Some(s) = &synaptic {
        check_len(OP, "synaptic", s.len(), lanes.len())?;
    }
    let words = if neuron.fires { Some(spikes.overwrite(device, lanes, 1)?) } else { None };
    if let Some(recurrent) = parameters.recurrent {
        return plan.feed(device, recurrent, state, synaptic, words);
    }
    let launch = forward_scan(device, &CUBA, ["cuba_forward", "cuba_forward_relay"], lanes, split).arg(state);
    plan.with_threshold(plan.with_filters(launch))
        .arg(synaptic)
        .arg(words)
        .arg(size(device, lanes)?)
        .arg(plan.blocked())
        .run()
}

impl CubaOps for Cuda {
    fn cuba_forward(
        &self,
        neuron: &CubaNeuron,
        lanes: Lanes,
        parameters: CubaParameters<'_, Self>,
        state: &mut Buffer<f32>,
        synaptic: Option<&mut Buffer<f32>>,
        spikes: &mut CudaSpikes,
    ) -> Result<()> {
        forward(self, self.split(lanes), neuron, lanes, parameters, state, synaptic, spikes)
    }

    fn cuba_backward(
        &self,
        neuron: &CubaNeuron,
        lanes: Lanes,
        parameters: CubaParameters<'_, Self>,
        state: &Buffer<f32>,
        synaptic: Option<&Buffer<f32>>,
        grad: &mut Buffer<f32>,
        grads: FilterGrad<'_, Self>,
    ) -> Result<()> {
        const OP: &str = "cuba_backward";
        check_len(OP, "state", state.len(), lanes.len())?;
        check_len(OP, "grad", grad.len(), lanes.len())?;
        let plan = Plan::new(OP, neuron, lanes, parameters)?;
        if grads.alpha.is_some() {
            check_len(OP, "synaptic", synaptic.map_or(0, Buffer::len), lanes.len())?;
        }
        // Nothing else reads the trace.
        let synaptic = synaptic.filter(|_| grads.alpha.is_some());
        check_filter_grad(OP, lanes, &grads)?;
        if let Some(recurrent) = parameters.recurrent {
            return plan.feed_back(self, recurrent, state, synaptic, grad, grads);
        }
        let gates = plan.gates(self, state)?;
        let launch = plan.with_filters(scan(self, &CUBA, "cuba_backward", lanes).arg(state));
        with_gradients(plan.with_threshold(launch), synaptic, gates.as_ref(), grad, grads)
            .arg(size(self, lanes)?)
            .arg(surrogate(neuron.surrogate))
            .run()
    }

    fn cuba_membrane(
        &self,
        neuron: &CubaNeuron,
        lanes: Lanes,
        threshold: &Buffer<f32>,
        state: &mut Buffer<f32>,
    ) -> Result<()> {
        const OP: &str = "cuba_membrane";
        check_len(OP, "state", state.len(), lanes.len())?;
        if !neuron.fires {
            return Ok(());
        }
        let stride = stride(OP, "threshold", threshold, lanes.width)?;
        self.launch(&CUBA, "cuba_membrane")
            .threads(lanes.len())
            .arg(state)
            .arg(threshold)
            .arg(stride)
            .arg(lanes.width as i32)
            .arg(lanes.len() as i64)
            .run()
    }
}
