//! The readout: a projection, neurons that do not fire, and a reduction over time.

use snn_core::backend::TimeReduction;
use snn_core::neurons::lif::LifNeuron;
use snn_core::{Activity, Backend, Kind, Lanes, Layer, Mode, Parameter, Pass, Real, Result, Signal, Tensor};

use super::decay::Decay;
use super::lif::LifCell;
use super::paralif::ParaLifCell;
use super::{Cell, Projection, project};
use crate::config::{ReadoutConfig, ReadoutNeuron};

/// The neurons of a readout.
#[derive(Debug)]
enum Neurons<B: Backend> {
    Integrator(LifCell<B>),
    Filter(Box<ParaLifCell<B>>),
    None,
}

impl<B: Backend> Neurons<B> {
    fn cell(&self) -> Option<&dyn Cell<B>> {
        match self {
            Self::Integrator(cell) => Some(cell),
            Self::Filter(cell) => Some(&**cell),
            Self::None => None,
        }
    }

    fn cell_mut(&mut self) -> Option<&mut dyn Cell<B>> {
        match self {
            Self::Integrator(cell) => Some(cell),
            Self::Filter(cell) => Some(&mut **cell),
            Self::None => None,
        }
    }
}

/// Spikes or currents in, one logit per class out.
#[derive(Debug)]
pub struct Readout<B: Backend> {
    input: Signal,
    classes: usize,
    reduction: TimeReduction,
    projection: Box<dyn Projection<B>>,
    neurons: Neurons<B>,
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
        let projection = project::readout(device, input, classes, config, 1.0, seed)?;
        Self::with_projection(device, input, classes, config, projection)
    }

    /// A readout of `classes` logits from the current of a given projection.
    ///
    /// # Errors
    ///
    /// If the device has no memory left.
    pub fn with_projection(
        device: &B,
        input: Signal,
        classes: usize,
        config: &ReadoutConfig,
        projection: Box<dyn Projection<B>>,
    ) -> Result<Self> {
        let neurons = match &config.neuron {
            ReadoutNeuron::Integrator(c) => {
                let decay = Decay::new(device, classes, c.beta, c.shared_beta, c.learn_beta)?;
                Neurons::Integrator(LifCell::new(LifNeuron::INTEGRATOR, decay))
            }
            ReadoutNeuron::Filter(filter) => Neurons::Filter(Box::new(ParaLifCell::readout(device, filter)?)),
            ReadoutNeuron::None(_) | ReadoutNeuron::Vote(_) => Neurons::None,
            ReadoutNeuron::Event(_) => {
                let [layer, got, want] = ["readout", "event-driven neurons", "neurons in time steps"].map(String::from);
                return Err(snn_core::Error::Kind { layer, got, want });
            }
        };
        let empty = || Tensor::zeros(device, &[0]);
        Ok(Self {
            input,
            classes,
            reduction: config.reduce.into(),
            projection,
            neurons,
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
        match input {
            Activity::Spikes(_) | Activity::Sequence(_) | Activity::Values(_) | Activity::Times(_) => {
                Ok(input.lanes(device, self.input.steps, self.classes))
            }
            other => Err(other.unwanted("readout", Kind::Spikes)),
        }
    }
}

impl<B: Backend> Layer<B> for Readout<B> {
    fn name(&self) -> String {
        let reduce = match self.reduction {
            TimeReduction::Sum => "sum",
            TimeReduction::Max => "max",
            TimeReduction::Mean => "mean",
            TimeReduction::Last => "last",
            TimeReduction::SoftmaxSum => "softmax sum",
        };
        format!("readout {} -> {} ({reduce})", self.input.width(), self.classes)
    }

    fn input(&self) -> Signal {
        self.input
    }

    fn output_signal(&self) -> Signal {
        Signal::flat(Kind::Values, 1, self.classes)
    }

    fn forward(&mut self, device: &B, input: &Activity<B>, pass: Pass) -> Result<()> {
        let lanes = self.lanes(device, input)?;
        self.state.resize(device, &[lanes.batch, lanes.steps, lanes.width])?;
        device.resize(&mut self.at, lanes.batch * lanes.width)?;
        self.projection.forward(device, input, lanes.rows(), pass, &mut self.state.data)?;
        if let Some(cell) = self.neurons.cell_mut() {
            cell.forward(device, lanes, pass, &mut self.state.data, &mut self.no_spikes)?;
        }
        let Activity::Values(logits) = &mut self.given else {
            return Err(self.given.unwanted("the readout's output", Kind::Values));
        };
        logits.resize(device, &[lanes.batch, lanes.width])?;
        device.reduce_time(self.reduction, lanes, &self.state.data, &mut logits.data, &mut self.at)
    }

    fn output(&self) -> &Activity<B> {
        &self.given
    }

    fn set_epoch(&mut self, device: &B, finished: u32, epochs: u32) -> Result<()> {
        self.projection.set_epoch(device, finished, epochs)
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
        device.resize(&mut self.sums, lanes.batch * lanes.width)?;
        let Self { reduction, neurons, state, grad, grad_membrane, sums, at, .. } = self;
        let incoming = &grad_output.data;
        match neurons {
            Neurons::Integrator(cell) => {
                grad_membrane.resize(device, &shape)?;
                device.reduce_time_grad(*reduction, lanes, &state.data, incoming, at, &mut grad_membrane.data)?;
                device.fill(&mut grad.data, B::Real::ZERO)?;
                cell.backward(device, lanes, &state.data, &mut grad.data, Some(&grad_membrane.data), sums)?;
            }
            Neurons::Filter(cell) => {
                device.reduce_time_grad(*reduction, lanes, &state.data, incoming, at, &mut grad.data)?;
                cell.backward(device, lanes, &state.data, &mut grad.data, None, sums)?;
            }
            Neurons::None => {
                device.reduce_time_grad(*reduction, lanes, &state.data, incoming, at, &mut grad.data)?;
                device.sum_steps(lanes, &grad.data, sums)?;
            }
        }
        self.projection.backward(device, input, lanes.rows(), &self.grad.data, &self.sums, grad_input)
    }

    fn parameters(&self) -> Vec<&Parameter<B>> {
        let mut all = self.projection.parameters();
        all.extend(self.neurons.cell().into_iter().flat_map(Cell::parameters));
        all
    }

    fn parameters_mut(&mut self) -> Vec<&mut Parameter<B>> {
        let mut all = self.projection.parameters_mut();
        all.extend(self.neurons.cell_mut().into_iter().flat_map(Cell::parameters_mut));
        all
    }

    fn repeats(&self) -> bool {
        self.projection.repeats() && self.neurons.cell().is_none_or(Cell::repeats)
    }

    fn activity_bytes(&self, batch: usize, mode: Mode) -> usize {
        let lanes = Lanes::new(batch, self.input.steps, self.classes);
        let arrays = match (mode, &self.neurons) {
            (Mode::Evaluate, _) => 1,
            (Mode::Train, Neurons::Integrator(_)) => 3,
            (Mode::Train, _) => 2,
        };
        arrays * lanes.len() * size_of::<B::Real>() + self.projection.extra_bytes(lanes, mode)
    }
}
