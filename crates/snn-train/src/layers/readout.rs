//! The readout of clocked models: a dense projection, leaky integrators, and a reduction over time.

use snn_core::backend::TimeReduction;
use snn_core::neurons::lif::LifNeuron;
use snn_core::{Activity, Backend, Kind, Lanes, Layer, Mode, Parameter, Real, Result, Signal, Tensor};

use super::decay::Decay;
use super::dense::Dense;
use super::lif::LifCell;
use super::{Cell, Projection};
use crate::config::{ReadoutConfig, Reduce};

/// Spikes or currents in, one logit per class out.
#[derive(Debug)]
pub struct Readout<B: Backend> {
    input: Signal,
    classes: usize,
    reduction: TimeReduction,
    dense: Dense<B>,
    cell: LifCell<B>,
    state: Tensor<B>,
    grad: Tensor<B>,
    grad_membrane: Tensor<B>,
    sums: B::Buffer<B::Real>,
    at: B::Buffer<u32>,
    no_spikes: B::Spikes,
    given: Activity<B>,
}

impl<B: Backend> Readout<B> {
    /// A readout of `classes` logits.
    ///
    /// # Errors
    ///
    /// If the device has no memory left.
    pub fn new(device: &B, input: Signal, classes: usize, config: &ReadoutConfig, seed: (u64, usize)) -> Result<Self> {
        let decay = Decay::new(device, classes, config.beta, config.shared_beta, config.learn_beta)?;
        let empty = || Tensor::zeros(device, &[0]);
        Ok(Self {
            input,
            classes,
            reduction: match config.reduce {
                Reduce::Sum => TimeReduction::Sum,
                Reduce::Max => TimeReduction::Max,
            },
            dense: Dense::new(device, input.width(), classes, config.init, seed)?,
            cell: LifCell::new(LifNeuron::INTEGRATOR, decay),
            state: empty()?,
            grad: empty()?,
            grad_membrane: empty()?,
            sums: device.zeros(0)?,
            at: device.zeros(0)?,
            no_spikes: device.spikes(),
            given: Activity::Values(empty()?),
        })
    }

    /// The membrane of the last forward pass, `[B, T, K]`.
    pub fn membrane(&self) -> &Tensor<B> {
        &self.state
    }

    /// The step of the maximum of every logit in the last forward pass, `[B, K]`; zeros for the sum.
    pub fn step_of_maximum(&self) -> &B::Buffer<u32> {
        &self.at
    }

    fn lanes(&self, device: &B, input: &Activity<B>) -> Result<Lanes> {
        let batch = match input {
            Activity::Spikes(s) => device.spike_lanes(s).batch,
            Activity::Sequence(x) => x.shape[0],
            other => return Err(other.unwanted("readout", Kind::Spikes)),
        };
        Ok(Lanes::new(batch, self.input.steps, self.classes))
    }
}

impl<B: Backend> Layer<B> for Readout<B> {
    fn name(&self) -> String {
        let reduce = if self.reduction == TimeReduction::Sum { "sum" } else { "max" };
        format!("readout {} -> {} ({reduce})", self.input.width(), self.classes)
    }

    fn input(&self) -> Signal {
        self.input
    }

    fn output_signal(&self) -> Signal {
        Signal::flat(Kind::Values, 1, self.classes)
    }

    fn forward(&mut self, device: &B, input: &Activity<B>, _: Mode) -> Result<()> {
        let lanes = self.lanes(device, input)?;
        self.state.resize(device, &[lanes.batch, lanes.steps, lanes.width])?;
        device.resize(&mut self.at, lanes.batch * lanes.width)?;
        self.dense.forward(device, input, lanes.rows(), &mut self.state.data)?;
        self.cell.forward(device, lanes, &mut self.state.data, &mut self.no_spikes)?;
        let Activity::Values(logits) = &mut self.given else {
            return Err(self.given.unwanted("the readout's output", Kind::Values));
        };
        logits.resize(device, &[lanes.batch, lanes.width])?;
        device.reduce_time(self.reduction, lanes, &self.state.data, &mut logits.data, &mut self.at)
    }

    fn output(&self) -> &Activity<B> {
        &self.given
    }

    fn backward(
        &mut self,
        device: &B,
        input: &Activity<B>,
        grad_output: &mut Tensor<B>,
        grad_input: Option<&mut Tensor<B>>,
    ) -> Result<()> {
        let lanes = self.lanes(device, input)?;
        let shape = [lanes.batch, lanes.steps, lanes.width];
        self.grad.resize(device, &shape)?;
        self.grad_membrane.resize(device, &shape)?;
        device.resize(&mut self.sums, lanes.batch * lanes.width)?;
        device.reduce_time_grad(self.reduction, lanes, &grad_output.data, &self.at, &mut self.grad_membrane.data)?;
        device.fill(&mut self.grad.data, B::Real::ZERO)?;
        let membrane = Some(&self.grad_membrane.data);
        self.cell.backward(device, lanes, &self.state.data, &mut self.grad.data, membrane, &mut self.sums)?;
        self.dense.backward(device, input, lanes.rows(), &self.grad.data, &self.sums, grad_input)
    }

    fn parameters(&self) -> Vec<&Parameter<B>> {
        let mut all: Vec<_> = self.dense.parameters().into();
        all.extend(self.cell.parameters());
        all
    }

    fn parameters_mut(&mut self) -> Vec<&mut Parameter<B>> {
        let mut all: Vec<_> = self.dense.parameters_mut().into();
        all.extend(self.cell.parameters_mut());
        all
    }

    fn activity_bytes(&self, batch: usize, mode: Mode) -> usize {
        let lanes = Lanes::new(batch, self.input.steps, self.classes);
        let arrays = if mode == Mode::Train { 3 } else { 1 };
        arrays * lanes.len() * size_of::<B::Real>()
    }
}
