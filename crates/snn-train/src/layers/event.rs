//! Layers in continuous time: event-driven neurons, pooling of their spike trains, and what the trains say.

use snn_core::backend::TrainReadout;
use snn_core::neurons::event::{self, EventNeuron};
use snn_core::{
    Activity, Backend, Conv, Kind, Layer, Map, Mode, Parameter, Pass, Pool, Real, Result, Signal, Synapses, Tensor,
    Trains,
};

use super::init;
use crate::config::{EventConfig, Init, ScalingConfig};

/// Bytes of one event: time, slope, unit.
const fn event_bytes<B: Backend>() -> usize {
    2 * size_of::<B::Real>() + size_of::<u32>()
}

/// A layer of event-driven neurons with the weights that reach them.
#[derive(Debug)]
pub struct EventLayer<B: Backend> {
    input: Signal,
    output: Signal,
    synapses: Synapses,
    neuron: EventNeuron,
    scaling: Option<ScalingConfig>,
    weight: Parameter<B>,
    given: Activity<B>,
    slopes: B::Buffer<B::Real>,
    counts: B::Buffer<u32>,
    amounts: B::Buffer<B::Real>,
}

impl<B: Backend> EventLayer<B> {
    /// Every input to every one of `width` neurons; weights `[M, N]`.
    ///
    /// # Errors
    ///
    /// If a constant is out of range or the device has no memory left.
    pub fn dense(
        device: &B,
        input: Signal,
        width: usize,
        config: &EventConfig,
        init: Init,
        id: (u64, usize),
    ) -> Result<Self> {
        let (inputs, outputs) = (input.width(), width);
        let weight = init::weights(device, init, &[inputs, outputs], (inputs, outputs), id)?;
        Self::new(device, input, Map::new(1, 1, width), Synapses::Dense { inputs, outputs }, config, weight)
    }

    /// A convolution of maps; weights `[k, k, c_in, c_out]`.
    ///
    /// # Errors
    ///
    /// As [`EventLayer::dense`].
    pub fn convolution(
        device: &B,
        input: Signal,
        conv: Conv,
        config: &EventConfig,
        init: Init,
        id: (u64, usize),
    ) -> Result<Self> {
        let shape = [conv.kernel, conv.kernel_width, conv.input.channels, conv.channels];
        let fans = (conv.fan_in(), conv.kernel * conv.kernel_width * conv.channels);
        let weight = init::weights(device, init, &shape, fans, id)?;
        Self::new(device, input, conv.output(), Synapses::Conv(conv), config, weight)
    }

    fn new(
        device: &B,
        input: Signal,
        map: Map,
        synapses: Synapses,
        config: &EventConfig,
        weight: Parameter<B>,
    ) -> Result<Self> {
        let neuron = EventNeuron::from(*config);
        neuron.check()?;
        Ok(Self {
            input,
            output: Signal { kind: Kind::Trains, steps: config.spikes as usize, map },
            synapses,
            neuron,
            scaling: config.scaling,
            weight,
            given: Activity::Trains(Trains::empty(device, map.len())?),
            slopes: device.zeros(0)?,
            counts: device.zeros(0)?,
            amounts: device.zeros(0)?,
        })
    }

    /// The slope of the membrane at each spike of the last forward pass, in the order of the events.
    pub fn slopes(&self) -> &B::Buffer<B::Real> {
        &self.slopes
    }

    /// Pulls at the weights of silent neurons.
    fn scale(&mut self, device: &B, scaling: ScalingConfig) -> Result<()> {
        let Activity::Trains(out) = &self.given else { return Ok(()) };
        let width = self.output.width();
        device.resize(&mut self.counts, out.batch(device) * width)?;
        device.count_trains(out, &mut self.counts)?;
        let counts = device.to_host(&self.counts)?;
        let shares = event::silent_shares(&counts, width);
        let amounts = event::scaling_amounts(&counts, &shares, self.synapses.sites(), scaling.silent, scaling.factor);
        let amounts: Vec<B::Real> = amounts.into_iter().map(B::Real::lit).collect();
        device.resize(&mut self.amounts, amounts.len())?;
        device.upload(&amounts, &mut self.amounts)?;
        device.scale_synapses(&self.amounts, &self.weight.value.data, &mut self.weight.grad.data)
    }
}

impl<B: Backend> Layer<B> for EventLayer<B> {
    fn name(&self) -> String {
        match self.synapses {
            Synapses::Dense { inputs, outputs } => format!("event {inputs} -> {outputs}"),
            Synapses::Conv(conv) => {
                format!("event conv {}x{} {} -> {}", conv.kernel, conv.kernel_width, conv.input, conv.output())
            }
        }
    }

    fn input(&self) -> Signal {
        self.input
    }

    fn output_signal(&self) -> Signal {
        self.output
    }

    fn forward(&mut self, device: &B, input: &Activity<B>, _: Pass) -> Result<()> {
        let trains = input.trains("event")?;
        match &mut self.given {
            Activity::Trains(out) => device.event_forward(
                &self.neuron,
                &self.synapses,
                &self.weight.value.data,
                trains,
                out,
                &mut self.slopes,
            ),
            other => Err(other.unwanted("event", Kind::Trains)),
        }
    }

    fn output(&self) -> &Activity<B> {
        &self.given
    }

    fn trains(&self) -> Option<&Trains<B>> {
        match &self.given {
            Activity::Trains(trains) => Some(trains),
            _ => None,
        }
    }

    fn backward(
        &mut self,
        device: &B,
        input: &Activity<B>,
        grad_output: &mut Tensor<B>,
        grad_input: Option<&mut Tensor<B>>,
    ) -> Result<()> {
        device.event_backward(
            &self.neuron,
            &self.synapses,
            &self.weight.value.data,
            input.trains("event")?,
            self.given.trains("event")?,
            &self.slopes,
            &mut grad_output.data,
            &mut self.weight.grad.data,
            grad_input.map(|g| &mut g.data),
        )?;
        self.scaling.map_or(Ok(()), |scaling| self.scale(device, scaling))
    }

    fn parameters(&self) -> Vec<&Parameter<B>> {
        vec![&self.weight]
    }

    fn parameters_mut(&mut self) -> Vec<&mut Parameter<B>> {
        vec![&mut self.weight]
    }

    fn activity_bytes(&self, batch: usize, _: Mode) -> usize {
        // A bound: few neurons fill their buffers.
        self.output.lanes(batch).len() * event_bytes::<B>()
    }
}

/// Pooling of spike trains: a neuron has all spikes of its window. It has no parameters.
#[derive(Debug)]
pub struct MergeLayer<B: Backend> {
    input: Signal,
    pool: Pool,
    given: Activity<B>,
    source: B::Buffer<u32>,
}

impl<B: Backend> MergeLayer<B> {
    /// Pools maps of `input` in windows of `[rows, columns]`.
    ///
    /// # Errors
    ///
    /// If the window does not fit.
    pub fn new(device: &B, input: Signal, window: [usize; 2]) -> Result<Self> {
        let pool = Pool::rectangle(input.map, window)?;
        let given = Activity::Trains(Trains::empty(device, pool.output().len())?);
        Ok(Self { input, pool, given, source: device.zeros(0)? })
    }
}

impl<B: Backend> Layer<B> for MergeLayer<B> {
    fn name(&self) -> String {
        format!("merge {} -> {}", self.input.map, self.pool.output())
    }

    fn input(&self) -> Signal {
        self.input
    }

    fn output_signal(&self) -> Signal {
        Signal { map: self.pool.output(), steps: self.input.steps * self.pool.size(), ..self.input }
    }

    fn forward(&mut self, device: &B, input: &Activity<B>, _: Pass) -> Result<()> {
        match &mut self.given {
            Activity::Trains(out) => device.merge_trains(&self.pool, input.trains("merge")?, out, &mut self.source),
            other => Err(other.unwanted("merge", Kind::Trains)),
        }
    }

    fn output(&self) -> &Activity<B> {
        &self.given
    }

    fn backward(
        &mut self,
        device: &B,
        _: &Activity<B>,
        grad_output: &mut Tensor<B>,
        grad_input: Option<&mut Tensor<B>>,
    ) -> Result<()> {
        grad_input.map_or(Ok(()), |grad_input| {
            device.merge_trains_grad(&self.source, &grad_output.data, &mut grad_input.data)
        })
    }

    fn activity_bytes(&self, batch: usize, _: Mode) -> usize {
        self.output_signal().lanes(batch).len() * event_bytes::<B>()
    }
}

/// The end of a network in continuous time: spike trains in, one value per neuron out.
#[derive(Debug)]
pub struct TrainReader<B: Backend> {
    input: Signal,
    read: TrainReadout,
    given: Activity<B>,
}

impl<B: Backend> TrainReader<B> {
    /// Reads trains of `input`.
    ///
    /// # Errors
    ///
    /// If the device has no memory left.
    pub fn new(device: &B, input: Signal, read: TrainReadout) -> Result<Self> {
        Ok(Self { input, read, given: Activity::Values(Tensor::zeros(device, &[0])?) })
    }
}

impl<B: Backend> Layer<B> for TrainReader<B> {
    fn name(&self) -> String {
        match self.read {
            TrainReadout::FirstSpike { .. } | TrainReadout::FirstTime { .. } => "first spike".into(),
            TrainReadout::Count => "spike count".into(),
            TrainReadout::Decay { .. } => "decaying spike count".into(),
        }
    }

    fn input(&self) -> Signal {
        self.input
    }

    fn output_signal(&self) -> Signal {
        Signal { kind: Kind::Values, steps: 1, map: self.input.map }
    }

    fn forward(&mut self, device: &B, input: &Activity<B>, _: Pass) -> Result<()> {
        let trains = input.trains("readout")?;
        match &mut self.given {
            Activity::Values(values) => {
                values.resize(device, &[trains.batch(device), trains.width])?;
                device.read_trains(&self.read, trains, &mut values.data)
            }
            other => Err(other.unwanted("readout", Kind::Values)),
        }
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
        grad_input.map_or(Ok(()), |grad_input| {
            device.read_trains_grad(&self.read, input.trains("readout")?, &grad_output.data, &mut grad_input.data)
        })
    }

    fn activity_bytes(&self, batch: usize, _: Mode) -> usize {
        batch * self.input.width() * size_of::<B::Real>()
    }
}
