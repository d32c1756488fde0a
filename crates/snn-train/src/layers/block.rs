//! Cells of the block family; maths in [`snn_core::neurons::block`].

use snn_core::neurons::block::BlockNeuron;
use snn_core::{Backend, Lanes, Parameter, Pass, Result};

use super::Cell;
use super::decay::Decay;

/// A population of block neurons with its decay.
#[derive(Debug)]
pub struct BlockCell<B: Backend> {
    neuron: BlockNeuron,
    decay: Decay<B>,
}

impl<B: Backend> BlockCell<B> {
    /// Neurons with the given constants and decay.
    pub fn new(neuron: BlockNeuron, decay: Decay<B>) -> Self {
        Self { neuron, decay }
    }
}

impl<B: Backend> Cell<B> for BlockCell<B> {
    fn forward(
        &mut self,
        device: &B,
        lanes: Lanes,
        _: Pass,
        state: &mut B::Buffer<B::Real>,
        spikes: &mut B::Spikes,
    ) -> Result<()> {
        device.block_forward(&self.neuron, lanes, self.decay.leak(), state, spikes)
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
            device.block_backward(neuron, lanes, leak, state, grad, leak_grad)
        })
    }

    fn repeats(&self) -> bool {
        true
    }

    fn name(&self) -> &str {
        "block"
    }

    fn parameters(&self) -> Vec<&Parameter<B>> {
        vec![self.decay.parameter()]
    }

    fn parameters_mut(&mut self) -> Vec<&mut Parameter<B>> {
        vec![self.decay.parameter_mut()]
    }
}
