//! A small network whose passes are recorded.

use anyhow::Result;
use snn_core::backend::{Memory, SpikeMemory};
use snn_core::{Activity, Kind, Pass, Signal};
use snn_cuda::Cuda;
use snn_data::synth::poisson::{Rate, poisson_spikes};
use snn_train::losses::Loss;
use snn_train::optim::Optimiser;
use snn_train::{Experiment, Stack};

/// A small network in training, without random numbers.
pub(super) struct Steps {
    pub(super) stack: Stack<Cuda>,
    loss: Loss<Cuda>,
    optimiser: Optimiser<Cuda>,
    input: Activity<Cuda>,
}

/// Its layers; thresholds low and weights large enough for all of them to fire.
const NETWORK: &str = "
data = { set = 'yinyang', encode = { kind = 'latency', steps = 20 } }
[model]
layers = [
    { kind = 'dense', width = 40, init = { kind = 'uniform', bound = 1.0 } },
    { kind = 'dense', width = 31, init = { kind = 'uniform', bound = 1.0 }, neuron = { model = 'cuba', recurrent = 'spike' } },
    { kind = 'dense', width = 20, init = { kind = 'uniform', bound = 1.0 }, neuron = { model = 'paralif', mode = 'T' } },
]
";

impl Steps {
    const STEPS: usize = 20;
    const INPUTS: usize = 33;
    const CLASSES: usize = 3;

    pub(super) fn new(device: &Cuda) -> Result<Self> {
        let experiment = Experiment::from_toml("recorded", NETWORK)?;
        let signal = Signal::flat(Kind::Spikes, Self::STEPS, Self::INPUTS);
        let stack = Stack::build(device, &experiment.model, signal, Self::CLASSES, 1)?;
        let optimiser = Optimiser::new(device, experiment.train.optimiser, &stack)?;
        let loss = Loss::new(device, experiment.train.loss)?;
        Ok(Self { stack, loss, optimiser, input: Activity::Spikes(device.spikes()) })
    }

    pub(super) fn step(&mut self, device: &Cuda, batch: usize, seed: u64) -> Result<()> {
        let host = poisson_spikes(batch, Self::STEPS, Self::INPUTS, Rate::Density(0.1), seed);
        if let Activity::Spikes(spikes) = &mut self.input {
            device.upload_spikes(&host, spikes)?;
        }
        let labels: Vec<u32> = (0..batch).map(|b| (b % Self::CLASSES) as u32).collect();
        self.stack.forward(device, &self.input, Pass::train(0))?;
        self.loss.queue(device, self.stack.output(), &labels)?;
        self.stack.backward(device, &self.input, self.loss.grad())?;
        Ok(self.optimiser.update(device, &mut self.stack, 0.01)?)
    }

    pub(super) fn weights(&self, device: &Cuda) -> Result<Vec<f32>> {
        let values = self.stack.parameters().map(|(_, p)| device.to_host(&p.value.data));
        Ok(values.collect::<snn_core::Result<Vec<_>>>()?.concat())
    }
}
