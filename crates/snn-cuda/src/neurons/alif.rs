//! Adaptive neurons as one pass over time, forward and reverse; equations in [`snn_core::neurons::alif`].
//!
//! The forward pass keeps the membrane alone. A reverse pass replays adaptation and refractory periods from it, once
//! forward over all steps, keeping little, and then backward chunk by chunk. Neurons that feed each other are one block
//! of threads for each sample.

use snn_core::Lanes;
use snn_core::backend::{AlifGrad, AlifOps, AlifParameters};
use snn_core::error::{Error, Result, check_len};
use snn_core::neurons::alif::{AlifGradient, AlifNeuron, LimitGradient};
use snn_core::neurons::lif::Path;

use super::{
    CHUNK, Split, Workspace, check_membrane, check_places, forward_scan, recurrent_block, scan, size, surrogate,
};
use crate::device::Cuda;
use crate::kernels::ALIF;
use crate::launch::{BLOCK, Fields, Launch};
use crate::memory::Buffer;
use crate::spikes::{CudaSpikes, words_of};

/// A population, checked.
struct Plan<'a> {
    neuron: &'a AlifNeuron,
    lanes: Lanes,
    parameters: AlifParameters<'a, Cuda>,
}

/// What a reverse pass needs of a replay, at the first step of every `chunk` steps.
struct Held {
    chunk: usize,
    adaptation: Buffer<f32>,
    marks: Buffer<u32>,
}

impl<'a> Plan<'a> {
    fn new(
        op: &'static str,
        neuron: &'a AlifNeuron,
        lanes: Lanes,
        parameters: AlifParameters<'a, Cuda>,
    ) -> Result<Self> {
        let width = lanes.width;
        for (name, list) in [("beta", parameters.beta), ("decay", parameters.decay), ("strength", parameters.strength)]
        {
            check_len(op, name, list.len(), width)?;
        }
        match (neuron.recurrent, parameters.recurrent) {
            (false, None) => {}
            (true, Some(weight)) => check_len(op, "recurrent weight", weight.len(), width * width)?,
            (_, got) => {
                let want = "weights exactly if the neuron is recurrent";
                return Err(Error::shape(op, "recurrent", &[usize::from(got.is_some())], want));
            }
        }
        Ok(Self { neuron, lanes, parameters })
    }

    /// The refractory period; a longer one than the whole run is as long.
    fn refractory(&self) -> usize {
        (self.neuron.refractory as usize).min(self.lanes.steps)
    }

    /// Steps of a block, 0 of the steps.
    fn block(&self) -> i32 {
        if self.neuron.in_blocks() { self.refractory() as i32 + 1 } else { 0 }
    }

    fn limits(&self) -> Fields {
        let limits = self.neuron.limits;
        let ranges = [limits.beta, limits.decay, limits.strength];
        let fields = ranges.into_iter().flatten().fold(Fields::new("Limits"), Fields::float);
        fields.int(i32::from(limits.gradient == LimitGradient::Inward)).int(i32::from(self.neuron.adapts))
    }

    fn paths(&self) -> Fields {
        let open = |path| if path == Path::Attached { 1.0 } else { 0.0 };
        let (reset, adaptation) = match self.neuron.gradient {
            AlifGradient::Steps { spikes, adaptation } => (open(spikes), open(adaptation)),
            AlifGradient::Blocks { spikes } => (0.0, open(spikes)),
        };
        Fields::new("Paths").float(reset).float(adaptation)
    }

    fn with_constants<'d>(&self, launch: Launch<'d>) -> Launch<'d> {
        let AlifParameters { beta, decay, strength, .. } = self.parameters;
        launch.arg(beta).arg(decay).arg(strength)
    }

    /// The weights, if gradients flow back over them.
    fn coupling(&self) -> Option<&'a Buffer<f32>> {
        let (AlifGradient::Steps { spikes, .. } | AlifGradient::Blocks { spikes }) = self.neuron.gradient;
        self.parameters.recurrent.filter(|_| spikes == Path::Attached)
    }

    fn feed(
        &self,
        device: &Cuda,
        weight: &Buffer<f32>,
        state: &mut Buffer<f32>,
        words: &mut Buffer<u32>,
    ) -> Result<()> {
        let Lanes { batch, steps, width } = self.lanes;
        let ring = (self.refractory() + 1).min(steps);
        let kept = if width > BLOCK as usize { 5 * width } else { 0 };
        let mut work = Workspace::<u32>::new(device, batch, 2 * ring * words_of(width) + kept)?;
        let launch = device
            .launch(&ALIF, "alif_recurrent_forward")
            .grid(if self.lanes.is_empty() { 0 } else { batch }, 1, 1)
            .block(recurrent_block(width).0 as u32, 1)
            .shared(work.shared)
            .arg(state);
        self.with_constants(launch)
            .arg(weight)
            .arg(words)
            .arg(work.scratch.as_mut())
            .arg(work.length as i64)
            .arg(ring as i32)
            .arg(size(device, self.lanes)?)
            .arg(self.limits())
            .arg(self.refractory() as i32)
            .arg(i32::from(self.neuron.in_blocks()))
            .run()
    }

    /// Replays all steps, to keep what a reverse pass needs or to fill thresholds.
    fn replay(
        &self,
        device: &Cuda,
        state: &Buffer<f32>,
        held: Option<&mut Held>,
        thresholds: Option<&mut Buffer<f32>>,
    ) -> Result<()> {
        let (chunk, adaptation, marks) = match held {
            Some(Held { chunk, adaptation, marks }) => (*chunk, Some(adaptation), Some(marks)),
            None => (1, None, None),
        };
        self.with_constants(scan(device, &ALIF, "alif_replay", self.lanes).arg(state))
            .arg(adaptation)
            .arg(marks)
            .arg(thresholds)
            .arg(size(device, self.lanes)?)
            .arg(self.limits())
            .arg(self.refractory() as i32)
            .arg(self.block())
            .arg(chunk as i32)
            .run()
    }

    fn hold(&self, device: &Cuda, state: &Buffer<f32>, chunk: usize) -> Result<Held> {
        let places = self.lanes.steps.div_ceil(chunk) * self.lanes.batch * self.lanes.width;
        let rows = if self.neuron.in_blocks() { 2 } else { 1 };
        let mut held = Held { chunk, adaptation: device.scratch(rows * places)?, marks: device.scratch(2 * places)? };
        self.replay(device, state, Some(&mut held), None)?;
        Ok(held)
    }

    /// The gradient on the current; `sums` receives those on the constants as used, of each lane.
    fn back(
        &self,
        device: &Cuda,
        state: &Buffer<f32>,
        membrane: Option<&Buffer<f32>>,
        grad: &mut Buffer<f32>,
        current_sum: Option<&mut Buffer<f32>>,
        sums: &mut Buffer<f32>,
    ) -> Result<()> {
        let Some(weight) = self.coupling() else {
            let held = self.hold(device, state, CHUNK)?;
            return self
                .with_constants(scan(device, &ALIF, "alif_backward", self.lanes).arg(state))
                .arg(&held.adaptation)
                .arg(&held.marks)
                .arg(membrane)
                .arg(grad)
                .arg(current_sum)
                .arg(sums)
                .arg(size(device, self.lanes)?)
                .arg(self.limits())
                .arg(self.refractory() as i32)
                .arg(self.block())
                .arg(self.paths())
                .arg(surrogate(self.neuron.surrogate))
                .run();
        };
        let Lanes { batch, width, .. } = self.lanes;
        // What a chunk receives comes from later ones alone.
        let chunk = (self.refractory() + 1).min(CHUNK);
        let rows = if chunk == 1 { 1 } else { CHUNK };
        let held = self.hold(device, state, chunk)?;
        let transposed = device.transposed(weight, width)?;
        let kept = if width > BLOCK as usize { 12 * width } else { 0 };
        let mut work = Workspace::<f32>::new(device, batch, rows * width + kept)?;
        let (neurons, parts) = recurrent_block(width);
        let launch = device
            .launch(&ALIF, "alif_recurrent_backward")
            .grid(if width == 0 { 0 } else { batch }, 1, 1)
            .block(neurons as u32, parts as u32)
            .shared(work.shared)
            .arg(state);
        self.with_constants(launch)
            .arg(&transposed)
            .arg(&held.adaptation)
            .arg(&held.marks)
            .arg(membrane)
            .arg(grad)
            .arg(current_sum)
            .arg(sums)
            .arg(work.scratch.as_mut())
            .arg(work.length as i64)
            .arg(size(device, self.lanes)?)
            .arg(self.limits())
            .arg(self.refractory() as i32)
            .arg(i32::from(self.neuron.in_blocks()))
            .arg(self.paths())
            .arg(surrogate(self.neuron.surrogate))
            .run()
    }
}

/// [`AlifOps::alif_forward`] with the split given; neurons that feed each other have none.
///
/// # Errors
///
/// As there.
pub fn forward(
    device: &Cuda,
    split: Split,
    neuron: &AlifNeuron,
    lanes: Lanes,
    parameters: AlifParameters<'_, Cuda>,
    state: &mut Buffer<f32>,
    spikes: &mut CudaSpikes,
) -> Result<()> {
    const OP: &str = "alif_forward";
    check_len(OP, "state", state.len(), lanes.len())?;
    let plan = Plan::new(OP, neuron, lanes, parameters)?;
    let words = spikes.overwrite(device, lanes, 1)?;
    if let Some(weight) = parameters.recurrent {
        return plan.feed(device, weight, state, words);
    }
    let launch = forward_scan(device, &ALIF, ["alif_forward", "alif_forward_relay"], lanes, split).arg(state);
    plan.with_constants(launch)
        .arg(words)
        .arg(size(device, lanes)?)
        .arg(plan.limits())
        .arg(plan.refractory() as i32)
        .arg(plan.block())
        .run()
}

impl AlifOps for Cuda {
    fn alif_forward(
        &self,
        neuron: &AlifNeuron,
        lanes: Lanes,
        parameters: AlifParameters<'_, Self>,
        state: &mut Buffer<f32>,
        spikes: &mut CudaSpikes,
    ) -> Result<()> {
        forward(self, self.split(lanes), neuron, lanes, parameters, state, spikes)
    }

    fn alif_backward(
        &self,
        neuron: &AlifNeuron,
        lanes: Lanes,
        parameters: AlifParameters<'_, Self>,
        state: &Buffer<f32>,
        grad: &mut Buffer<f32>,
        grads: AlifGrad<'_, Self>,
    ) -> Result<()> {
        const OP: &str = "alif_backward";
        check_len(OP, "state", state.len(), lanes.len())?;
        check_len(OP, "grad", grad.len(), lanes.len())?;
        let plan = Plan::new(OP, neuron, lanes, parameters)?;
        let AlifGrad { membrane, current_sum, beta, decay, strength } = grads;
        check_membrane(OP, lanes, membrane)?;
        check_places(OP, lanes.batch * lanes.width, &[("current_sum", &current_sum)])?;
        let places = [("grad_beta", &beta), ("grad_decay", &decay), ("grad_strength", &strength)];
        check_places(OP, lanes.width, &places)?;
        let mut sums = self.scratch(3 * lanes.batch * lanes.width)?;
        plan.back(self, state, membrane, grad, current_sum, &mut sums)?;
        let launch = self.launch(&ALIF, "alif_constants_grad").grid(lanes.width.div_ceil(32), 3, 1).block(32, 8);
        plan.with_constants(launch.arg(&sums))
            .arg(beta)
            .arg(decay)
            .arg(strength)
            .arg(size(self, lanes)?)
            .arg(plan.limits())
            .run()
    }

    fn alif_thresholds(
        &self,
        neuron: &AlifNeuron,
        lanes: Lanes,
        parameters: AlifParameters<'_, Self>,
        state: &Buffer<f32>,
        thresholds: &mut Buffer<f32>,
    ) -> Result<()> {
        const OP: &str = "alif_thresholds";
        check_len(OP, "state", state.len(), lanes.len())?;
        check_len(OP, "thresholds", thresholds.len(), lanes.len())?;
        Plan::new(OP, neuron, lanes, parameters)?.replay(self, state, None, Some(thresholds))
    }
}
