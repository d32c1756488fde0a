//! Cells of the cuba family; maths in [`snn_core::neurons::cuba`].

use snn_core::backend::{CubaParameters, FilterGrad};
use snn_core::neurons::cuba::{CubaNeuron, Recurrence};
use snn_core::{Backend, Lanes, Mode, Parameter, Pass, Result};

use super::Cell;
use super::filtered::{Collect, Filtered};
use super::recurrent::{Carried, RecurrentWeights};
use crate::config::{CubaConfig, Init};

/// A population of current-based neurons.
#[derive(Debug)]
pub struct CubaCell<B: Backend> {
    neuron: CubaNeuron,
    parameters: Filtered<B>,
    weights: Option<RecurrentWeights<B>>,
    synaptic: B::Buffer<B::Real>,
    // What the recurrent connection carried, one step late.
    late: B::Spikes,
    late_values: B::Buffer<B::Real>,
    scratch: B::Buffer<B::Real>,
}

impl<B: Backend> CubaCell<B> {
    /// `width` neurons of layer `seed.1` of a run with seed `seed.0`.
    ///
    /// # Errors
    ///
    /// If the device has no memory left.
    pub fn new(device: &B, config: &CubaConfig, width: usize, seed: (u64, usize)) -> Result<Self> {
        let recurrence = config.recurrent.into();
        let weights = match recurrence {
            Recurrence::None => None,
            _ => Some(RecurrentWeights::new(device, width, Init::KAIMING, seed)?),
        };
        let threshold = Some((&config.threshold, config.learn_threshold));
        Ok(Self {
            neuron: CubaNeuron {
                surrogate: config.surrogate.into(),
                refractory: config.refractory,
                fires: true,
                recurrence,
            },
            parameters: Filtered::new(device, &config.filter, threshold)?,
            weights,
            synaptic: device.zeros(0)?,
            late: device.spikes(),
            late_values: device.zeros(0)?,
            scratch: device.zeros(0)?,
        })
    }

    /// The same neurons without firing: a readout.
    #[must_use]
    pub fn without_firing(mut self) -> Self {
        self.neuron.fires = false;
        self
    }

    /// Turns the layer's state into the membrane after the reset.
    ///
    /// # Errors
    ///
    /// If the device fails.
    pub fn membrane(&self, device: &B, lanes: Lanes, state: &mut B::Buffer<B::Real>) -> Result<()> {
        device.cuba_membrane(&self.neuron, lanes, self.parameters.threshold(), state)
    }
}

impl<B: Backend> Cell<B> for CubaCell<B> {
    fn forward(
        &mut self,
        device: &B,
        lanes: Lanes,
        pass: Pass,
        state: &mut B::Buffer<B::Real>,
        spikes: &mut B::Spikes,
    ) -> Result<()> {
        let training = pass.mode == Mode::Train;
        let traced = training && self.parameters.learns_alpha();
        if traced {
            device.resize(&mut self.synaptic, lanes.len())?;
        }
        let parameters = CubaParameters {
            filters: self.parameters.filters(),
            threshold: self.parameters.threshold(),
            recurrent: self.weights.as_ref().map(RecurrentWeights::view),
        };
        let synaptic = traced.then_some(&mut self.synaptic);
        device.cuba_forward(&self.neuron, lanes, parameters, state, synaptic, spikes)?;
        match self.neuron.recurrence {
            Recurrence::Spike if training => device.delay_spikes(spikes, 1, &mut self.late),
            Recurrence::Relu if training => {
                device.resize(&mut self.scratch, lanes.len())?;
                device.resize(&mut self.late_values, lanes.len())?;
                device.copy(state, &mut self.scratch)?;
                device.cuba_membrane(&self.neuron, lanes, self.parameters.threshold(), &mut self.scratch)?;
                device.delay(lanes, &self.scratch, &mut self.late_values)?;
                device.relu(&mut self.late_values)
            }
            _ => Ok(()),
        }
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
        let Self { neuron, parameters, weights, synaptic, late, late_values, .. } = self;
        let traced = parameters.learns_alpha().then_some(&*synaptic);
        let recurrent = weights.as_ref().map(RecurrentWeights::view);
        let grads = FilterGrad { membrane: grad_membrane, current_sum: Some(&mut *sums), ..FilterGrad::default() };
        parameters.backward(device, lanes, Collect::Set, grads, |filters, threshold, grads| {
            let parameters = CubaParameters { filters, threshold, recurrent };
            device.cuba_backward(neuron, lanes, parameters, state, traced, grad, grads)
        })?;
        match weights {
            None => Ok(()),
            Some(weights) => {
                let carried = match neuron.recurrence {
                    Recurrence::Relu => Carried::Values(late_values),
                    _ => Carried::Spikes(late),
                };
                weights.weight_grad(device, lanes, carried, grad, sums)
            }
        }
    }

    fn repeats(&self) -> bool {
        true
    }

    fn name(&self) -> &str {
        if self.weights.is_some() { "recurrent cuba" } else { "cuba" }
    }

    fn parameters(&self) -> Vec<&Parameter<B>> {
        let recurrent = self.weights.iter().flat_map(RecurrentWeights::parameters);
        self.parameters.parameters().into_iter().chain(recurrent).collect()
    }

    fn parameters_mut(&mut self) -> Vec<&mut Parameter<B>> {
        let recurrent = self.weights.iter_mut().flat_map(RecurrentWeights::parameters_mut);
        self.parameters.parameters_mut().into_iter().chain(recurrent).collect()
    }

    fn extra_bytes(&self, lanes: Lanes, mode: Mode) -> usize {
        if mode == Mode::Evaluate {
            return 0;
        }
        let traced = usize::from(self.parameters.learns_alpha());
        let late = if self.neuron.recurrence == Recurrence::Relu { 2 } else { 0 };
        (traced + late) * lanes.len() * size_of::<B::Real>()
    }
}
