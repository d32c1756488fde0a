//! Optimisers: moments and step counts; the update itself is the backend's.

use snn_core::backend::{Update, UpdateRule, UpdateSlot};
use snn_core::{Backend, Parameter, Real};

use crate::config::{OptimiserConfig, OptimiserKind};
use crate::error::Result;
use crate::stack::Stack;

/// The state of an optimiser over the learnable parameters of a stack.
#[derive(Debug)]
pub struct Optimiser<B: Backend> {
    config: OptimiserConfig,
    step: u64,
    moments: Vec<Moments<B>>,
}

/// The two moments of one parameter.
#[derive(Debug)]
pub struct Moments<B: Backend> {
    /// First moment or velocity.
    pub first: B::Buffer<B::Real>,
    /// Second moment or infinity norm.
    pub second: B::Buffer<B::Real>,
}

impl<B: Backend> Optimiser<B> {
    /// A fresh optimiser for the learnable parameters of `stack`.
    ///
    /// # Errors
    ///
    /// If the device has no memory left.
    pub fn new(device: &B, config: OptimiserConfig, stack: &Stack<B>) -> Result<Self> {
        Self::over(device, config, stack.parameters().map(|(_, p)| p))
    }

    /// A fresh optimiser for the learnable ones of some parameters.
    ///
    /// # Errors
    ///
    /// If the device has no memory left.
    pub fn over<'a>(
        device: &B,
        config: OptimiserConfig,
        parameters: impl Iterator<Item = &'a Parameter<B>>,
    ) -> Result<Self>
    where
        B: 'a,
    {
        let moments = parameters
            .filter(|p| p.learnable)
            .map(|p| Ok(Moments { first: device.zeros(p.value.len())?, second: device.zeros(p.value.len())? }))
            .collect::<Result<_>>()?;
        Ok(Self { config, step: 0, moments })
    }

    /// Forgets moments and steps.
    ///
    /// # Errors
    ///
    /// If the device fails.
    pub fn reset(&mut self, device: &B) -> Result<()> {
        self.step = 0;
        for m in &mut self.moments {
            device.fill(&mut m.first, Default::default())?;
            device.fill(&mut m.second, Default::default())?;
        }
        Ok(())
    }

    /// Steps taken.
    #[must_use]
    pub fn step(&self) -> u64 {
        self.step
    }

    /// Continues at a step, for resuming.
    pub fn set_step(&mut self, step: u64) {
        self.step = step;
    }

    /// The moments, in the order of the learnable parameters.
    #[must_use]
    pub fn moments(&self) -> &[Moments<B>] {
        &self.moments
    }

    /// The moments, to be restored.
    pub fn moments_mut(&mut self) -> &mut [Moments<B>] {
        &mut self.moments
    }

    /// Takes one step with the gradients that the stack holds.
    ///
    /// # Errors
    ///
    /// If the device fails.
    pub fn update(&mut self, device: &B, stack: &mut Stack<B>, learning_rate: f64) -> Result<()> {
        self.step_over(device, stack.parameters_mut(), learning_rate)
    }

    /// Takes one step with the gradients of the parameters that the optimiser was made for.
    ///
    /// # Errors
    ///
    /// If the device fails.
    pub fn step_over<'a>(
        &mut self,
        device: &B,
        parameters: impl Iterator<Item = &'a mut Parameter<B>>,
        learning_rate: f64,
    ) -> Result<()>
    where
        B: 'a,
    {
        self.step += 1;
        let c = &self.config;
        let rule = match c.kind {
            OptimiserKind::Sgd => UpdateRule::Sgd { momentum: c.momentum, nesterov: c.nesterov },
            OptimiserKind::Adam => UpdateRule::Adam { beta1: c.beta1, beta2: c.beta2, eps: c.eps, decoupled: false },
            OptimiserKind::KerasAdam => {
                // m / (sqrt(v) + eps) is the usual form with an epsilon that is divided by the root of the correction.
                let correction = 1.0 - c.beta2.powf(self.step as f64);
                let eps = c.eps / correction.sqrt();
                UpdateRule::Adam { beta1: c.beta1, beta2: c.beta2, eps, decoupled: false }
            }
            OptimiserKind::AdamW => UpdateRule::Adam { beta1: c.beta1, beta2: c.beta2, eps: c.eps, decoupled: true },
            OptimiserKind::NAdam => UpdateRule::NAdam { beta1: c.beta1, beta2: c.beta2, eps: c.eps },
            OptimiserKind::Adamax => UpdateRule::Adamax { beta1: c.beta1, beta2: c.beta2, eps: c.eps },
        };
        let slots = parameters.filter(|p| p.learnable).zip(&mut self.moments).map(|(p, m)| {
            let slot = UpdateSlot {
                value: &mut p.value.data,
                grad: &p.grad.data,
                first: &mut m.first,
                second: &mut m.second,
                decays: p.decays,
            };
            (p.rate, slot)
        });
        // Parameters that share a learning rate are updated together.
        let mut groups: Vec<(f64, Vec<UpdateSlot<'_, B>>)> = Vec::new();
        for (rate, slot) in slots {
            match groups.iter_mut().find(|(r, _)| *r == rate) {
                Some((_, group)) => group.push(slot),
                None => groups.push((rate, vec![slot])),
            }
        }
        for (rate, mut slots) in groups {
            let learning_rate = learning_rate * rate;
            let update = Update { rule, learning_rate, weight_decay: c.weight_decay, step: self.step };
            device.update(&update, &mut slots)?;
        }
        Ok(())
    }
}

/// Scales the gradients of all learnable parameters down to a common norm of `limit`; gives their norm before.
///
/// # Errors
///
/// If the device fails.
pub fn clip_norm<B: Backend>(device: &B, stack: &mut Stack<B>, limit: f64) -> Result<f64> {
    let norm = gradient_norm(device, stack)?;
    if norm > limit {
        for p in stack.parameters_mut().filter(|p| p.learnable) {
            device.scale(limit / norm, &mut p.grad.data)?;
        }
    }
    Ok(norm)
}

/// Synaptic scaling of output neurons in continuous time: for every sample whose class did not fire, the gradients on the
/// weights of that neuron fall by `factor` over the batch size times the weights' magnitudes.
///
/// # Errors
///
/// If the device fails.
pub fn wake_labels<B: Backend>(device: &B, stack: &mut Stack<B>, labels: &[u32], factor: f64) -> Result<()> {
    let Some(trains) = stack.output_trains() else { return Ok(()) };
    let width = trains.width;
    let mut counts = device.zeros::<u32>(labels.len() * width)?;
    device.count_trains(trains, &mut counts)?;
    let counts = device.to_host(&counts)?;
    let mut amounts = vec![0.0; width];
    for (sample, &label) in counts.chunks(width.max(1)).zip(labels) {
        if sample.get(label as usize) == Some(&0) {
            amounts[label as usize] += factor / labels.len() as f64;
        }
    }
    if amounts.iter().all(|amount| *amount == 0.0) {
        return Ok(());
    }
    let amounts = device.buffer_from(&amounts.into_iter().map(B::Real::lit).collect::<Vec<_>>())?;
    // The output neurons' weights are the last ones: what reads their spikes has none.
    if let Some(weight) = stack.parameters_mut().last() {
        device.scale_synapses(&amounts, &weight.value.data, &mut weight.grad.data)?;
    }
    Ok(())
}

/// The common norm of the gradients of all learnable parameters.
///
/// # Errors
///
/// If the device fails.
pub fn gradient_norm<B: Backend>(device: &B, stack: &Stack<B>) -> Result<f64> {
    let mut sum = 0.0;
    for (_, p) in stack.parameters().filter(|(_, p)| p.learnable) {
        sum += device.sum_of_squares(&p.grad.data)?;
    }
    Ok(sum.sqrt())
}
