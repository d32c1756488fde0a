//! Cells of the lif family; maths in [`snn_core::neurons::lif`].

use snn_core::neurons::lif::{LifKind, LifNeuron};
use snn_core::{Backend, Lanes, Parameter, Pass, Result};

use super::Cell;
use super::decay::Decay;

/// A population of lif neurons with its decay.
#[derive(Debug)]
pub struct LifCell<B: Backend> {
    neuron: LifNeuron,
    decay: Decay<B>,
}

impl<B: Backend> LifCell<B> {
    /// Neurons with the given constants and decay.
    pub fn new(neuron: LifNeuron, decay: Decay<B>) -> Self {
        Self { neuron, decay }
    }
}

impl<B: Backend> Cell<B> for LifCell<B> {
    fn forward(
        &mut self,
        device: &B,
        lanes: Lanes,
        _: Pass,
        state: &mut B::Buffer<B::Real>,
        spikes: &mut B::Spikes,
    ) -> Result<()> {
        device.lif_forward(&self.neuron, lanes, self.decay.leak(), state, spikes)
    }

    fn backward(
        &mut self,
        device: &B,
        lanes: Lanes,
        state: &B::Buffer<B::Real>,
        grad: &mut B::Buffer<B::Real>,
        grad_membrane: Option<&B::Buffer<B::Real>>,
        sums: &mut B::Buffer<B::Real>,
    ) -> Result<()> {
        let neuron = &self.neuron;
        self.decay.backward(device, lanes, grad_membrane, sums, |leak, leak_grad| {
            device.lif_backward(neuron, lanes, leak, state, grad, leak_grad)
        })
    }

    fn repeats(&self) -> bool {
        true
    }

    fn name(&self) -> &str {
        match self.neuron.kind {
            LifKind::Multi { .. } => "multi",
            LifKind::Single { .. } => "single",
            LifKind::Integrator => "integrator",
        }
    }

    fn parameters(&self) -> Vec<&Parameter<B>> {
        vec![self.decay.parameter()]
    }

    fn parameters_mut(&mut self) -> Vec<&mut Parameter<B>> {
        vec![self.decay.parameter_mut()]
    }
}
