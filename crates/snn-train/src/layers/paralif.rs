//! Cells of the paralif family; maths in [`snn_core::neurons::paralif`].

use snn_core::backend::{FilterGrad, Fire, Noise};
use snn_core::neurons::cuba::Recurrence;
use snn_core::neurons::paralif::{Firing, Generator, Normaliser};
use snn_core::random::SpikeDraws;
use snn_core::{Backend, Lanes, Mode, Parameter, Pass, Real, Result};

use super::Cell;
use super::filtered::{Collect, Filtered};
use super::recurrent::{Carried, RecurrentWeights};
use crate::config::{EvaluateConfig, FilterConfig, Init, ParaLifConfig, PerNeuron};

/// Noise that is given instead of drawn, for comparisons: uniforms, or logistics for Gumbel-Softmax, `[B, T, N]`.
#[derive(Debug)]
pub struct GivenNoise<B: Backend> {
    /// Of the spikes.
    pub out: B::Buffer<B::Real>,
    /// Of the hidden state of the recurrent variant.
    pub hidden: Option<B::Buffer<B::Real>>,
}

/// How the cell fires.
#[derive(Debug)]
struct Firings<B: Backend> {
    firing: Firing,
    draws: SpikeDraws,
    given: Option<GivenNoise<B>>,
    /// In evaluation, instead of drawing: fire above this value of the normalised membrane.
    majority: Option<B::Buffer<B::Real>>,
    evaluating: bool,
}

impl<B: Backend> Firings<B> {
    /// Firing of the spikes, or of the hidden state.
    fn fire<'a>(&'a self, threshold: &'a B::Buffer<B::Real>, hidden: bool) -> Fire<'a, B> {
        let firing = Firing { delayed: hidden, ..self.firing };
        // Two populations for each layer.
        let population = self.draws.population * 2 + u32::from(hidden);
        let drawn = Noise::Drawn(SpikeDraws { population, ..self.draws });
        if let (true, Some(level)) = (self.evaluating, &self.majority) {
            let generator = Generator::Threshold { surrogate: snn_core::Surrogate::BOXCAR };
            return Fire { firing: Firing { generator, ..firing }, threshold: level, noise: drawn };
        }
        let given = self.given.as_ref().and_then(|g| if hidden { g.hidden.as_ref() } else { Some(&g.out) });
        Fire { firing, threshold, noise: given.map_or(drawn, Noise::Given) }
    }
}

/// The recurrent variant: a hidden state from the membrane of the current alone, one step late, drives a second pair
/// of filters.
#[derive(Debug)]
struct Recurring<B: Backend> {
    weights: RecurrentWeights<B>,
    carries: Recurrence,
    hidden: B::Spikes,
    hidden_values: B::Buffer<B::Real>,
    /// The membrane that fires, `[B, T, N]`.
    total: B::Buffer<B::Real>,
    /// The gradient on the recurrent current.
    grad: B::Buffer<B::Real>,
    scratch: B::Buffer<B::Real>,
    sums: B::Buffer<B::Real>,
    rate_gradient: f64,
}

/// What the recurrent connection carried: spikes or the rectified membrane.
fn carried<'a, B: Backend>(
    carries: Recurrence,
    spikes: &'a B::Spikes,
    values: &'a B::Buffer<B::Real>,
) -> Carried<'a, B> {
    match carries {
        Recurrence::Relu => Carried::Values(values),
        _ => Carried::Spikes(spikes),
    }
}

/// A population of parallel neurons.
#[derive(Debug)]
pub struct ParaLifCell<B: Backend> {
    name: String,
    parameters: Filtered<B>,
    firings: Option<Firings<B>>,
    fires: bool,
    recurring: Option<Recurring<B>>,
    no_spikes: B::Spikes,
}

impl<B: Backend> ParaLifCell<B> {
    /// `width` neurons of layer `seed.1` of a run with seed `seed.0`.
    ///
    /// # Errors
    ///
    /// If the mode is unknown or the device has no memory left.
    pub fn new(device: &B, config: &ParaLifConfig, width: usize, seed: (u64, usize)) -> Result<Self> {
        let mode: snn_core::neurons::paralif::FiringMode = config.mode.parse()?;
        let mut firing = mode.firing(config.surrogate.into());
        firing.generator = match firing.generator {
            Generator::Bernoulli(_) => Generator::Bernoulli(config.bernoulli_gradient.into()),
            Generator::Gumbel { .. } => Generator::Gumbel { temperature: config.temperature },
            Generator::Delta { surrogate, .. } => Generator::Delta { surrogate, pad_normalised: config.pad_normalised },
            Generator::Threshold { surrogate } => Generator::Threshold { surrogate },
        };
        let default = PerNeuron::Shared(mode.default_threshold());
        let threshold =
            (!mode.is_stochastic()).then(|| (config.threshold.as_ref().unwrap_or(&default), config.learn_threshold));
        let majority = match (config.evaluate, mode.is_stochastic()) {
            (EvaluateConfig::Majority, true) => {
                let level = if firing.normaliser == Normaliser::Identity { 0.0 } else { 0.5 };
                Some(device.buffer_from(&[B::Real::lit(level)])?)
            }
            _ => None,
        };
        let recurring = match config.recurrent.into() {
            Recurrence::None => None,
            carries => Some(Recurring {
                weights: RecurrentWeights::new(device, width, Init::KAIMING, seed)?,
                carries,
                hidden: device.spikes(),
                hidden_values: device.zeros(0)?,
                total: device.zeros(0)?,
                grad: device.zeros(0)?,
                scratch: device.zeros(0)?,
                sums: device.zeros(0)?,
                rate_gradient: 0.0,
            }),
        };
        Ok(Self {
            name: format!("{}paralif-{mode}", if recurring.is_some() { "recurrent " } else { "" }),
            parameters: Filtered::new(device, &config.filter, threshold)?,
            firings: Some(Firings {
                firing,
                draws: SpikeDraws { seed: seed.0, pass: 0, population: seed.1 as u32 },
                given: None,
                majority,
                evaluating: false,
            }),
            fires: true,
            recurring,
            no_spikes: device.spikes(),
        })
    }

    /// Filters that do not fire: the neurons of a readout.
    ///
    /// # Errors
    ///
    /// If the device has no memory left.
    pub fn readout(device: &B, filter: &FilterConfig) -> Result<Self> {
        Ok(Self {
            name: "filter".into(),
            parameters: Filtered::new(device, filter, None)?,
            firings: None,
            fires: false,
            recurring: None,
            no_spikes: device.spikes(),
        })
    }

    /// The same neurons without output spikes: a readout. A recurrent one still fires its hidden state.
    #[must_use]
    pub fn without_firing(self) -> Self {
        Self { fires: false, ..self }
    }

    /// Uses the given noise instead of drawing.
    pub fn give_noise(&mut self, noise: GivenNoise<B>) {
        if let Some(firings) = &mut self.firings {
            firings.given = Some(noise);
        }
    }

    /// The membrane that fires, if it is not the layer's state: that of the recurrent variant, `[B, T, N]`.
    pub fn recurrent_membrane(&self) -> Option<&B::Buffer<B::Real>> {
        self.recurring.as_ref().map(|r| &r.total)
    }

    /// The rectified hidden state, `[B, T, N]`, of a recurrent variant that carries it.
    pub fn hidden_values(&self) -> Option<&B::Buffer<B::Real>> {
        self.recurring.as_ref().filter(|r| r.carries == Recurrence::Relu).map(|r| &r.hidden_values)
    }
}

impl<B: Backend> Cell<B> for ParaLifCell<B> {
    fn forward(
        &mut self,
        device: &B,
        lanes: Lanes,
        pass: Pass,
        state: &mut B::Buffer<B::Real>,
        spikes: &mut B::Spikes,
    ) -> Result<()> {
        if let Some(firings) = &mut self.firings {
            firings.draws.pass = pass.draw;
            firings.evaluating = pass.mode == Mode::Evaluate;
        }
        let Self { parameters, firings, fires, recurring, no_spikes, .. } = self;
        let (filters, threshold) = (parameters.filters(), parameters.threshold());
        let fire = |hidden| firings.as_ref().filter(|_| *fires || hidden).map(|f| f.fire(threshold, hidden));
        let Some(r) = recurring else {
            return device.paralif_forward(lanes, Some(filters), fire(false), state, spikes);
        };
        if r.carries == Recurrence::Spike {
            device.paralif_forward(lanes, Some(filters), fire(true), state, &mut r.hidden)?;
        } else {
            device.paralif_forward(lanes, Some(filters), None, state, no_spikes)?;
            device.resize(&mut r.hidden_values, lanes.len())?;
            device.delay(lanes, state, &mut r.hidden_values)?;
            device.relu(&mut r.hidden_values)?;
        }
        // With v1 the filtered current: v = v1 + filter(X + R h + c) = 2 v1 + filter(R h + c).
        device.resize(&mut r.total, lanes.len())?;
        let sent = carried::<B>(r.carries, &r.hidden, &r.hidden_values);
        r.weights.forward(device, lanes, sent, &mut r.total)?;
        device.paralif_forward(lanes, Some(filters), None, &mut r.total, no_spikes)?;
        device.add_scaled(2.0, state, &mut r.total)?;
        device.paralif_forward(lanes, None, fire(false), &mut r.total, spikes)
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
        let Self { parameters, firings, fires, recurring, .. } = self;
        let (firings, fires) = (&*firings, *fires);
        let Some(r) = recurring else {
            let grads = FilterGrad { membrane: grad_membrane, current_sum: Some(sums), ..FilterGrad::default() };
            return parameters.backward(device, lanes, Collect::Set, grads, |filters, threshold, grads| {
                let fire = firings.as_ref().filter(|_| fires).map(|f| f.fire(threshold, false));
                device.paralif_backward(lanes, Some(filters), fire, state, grad, grads)
            });
        };
        for buffer in [&mut r.grad, &mut r.scratch] {
            device.resize(buffer, lanes.len())?;
        }
        device.resize(&mut r.sums, lanes.batch * lanes.width)?;
        // Through firing to the membrane.
        let grads = FilterGrad { membrane: grad_membrane, ..FilterGrad::default() };
        parameters.backward(device, lanes, Collect::Set, grads, |_, threshold, grads| {
            let fire = firings.as_ref().filter(|_| fires).map(|f| f.fire(threshold, false));
            device.paralif_backward(lanes, None, fire, &r.total, grad, grads)
        })?;
        // Through the filters of the recurrent current to its weights and to what it carried.
        device.copy(grad, &mut r.grad)?;
        if parameters.learns_tau() {
            // The membrane of the recurrent current alone; nothing else reads it.
            device.copy(&r.total, &mut r.scratch)?;
            device.add_scaled(-2.0, state, &mut r.scratch)?;
        }
        let grads = FilterGrad { current_sum: Some(&mut r.sums), ..FilterGrad::default() };
        parameters.backward(device, lanes, Collect::Add, grads, |filters, _, grads| {
            device.paralif_backward(lanes, Some(filters), None, &r.scratch, &mut r.grad, grads)
        })?;
        let sent = carried::<B>(r.carries, &r.hidden, &r.hidden_values);
        r.weights.weight_grad(device, lanes, sent, &r.grad, &r.sums)?;
        r.weights.carried_grad(device, lanes, &r.grad, &mut r.scratch)?;
        if r.carries == Recurrence::Spike {
            if r.rate_gradient != 0.0 {
                device.add_constant(r.rate_gradient, &mut r.scratch)?;
            }
            parameters.backward(device, lanes, Collect::Add, FilterGrad::default(), |_, threshold, grads| {
                let fire = firings.as_ref().map(|f| f.fire(threshold, true));
                device.paralif_backward(lanes, None, fire, state, &mut r.scratch, grads)
            })?;
        } else {
            device.relu_grad(&r.hidden_values, &mut r.scratch)?;
            device.advance(lanes, &mut r.scratch)?;
        }
        // Through the filters of the current.
        device.scale(2.0, grad)?;
        device.add_assign(&r.scratch, grad)?;
        let grads = FilterGrad { current_sum: Some(sums), ..FilterGrad::default() };
        parameters.backward(device, lanes, Collect::Add, grads, |filters, _, grads| {
            device.paralif_backward(lanes, Some(filters), None, state, grad, grads)
        })
    }

    fn repeats(&self) -> bool {
        // Random numbers are other ones in every pass.
        self.firings.as_ref().is_none_or(|f| !f.firing.generator.is_stochastic())
    }

    fn name(&self) -> &str {
        &self.name
    }

    fn parameters(&self) -> Vec<&Parameter<B>> {
        let recurrent = self.recurring.iter().flat_map(|r| r.weights.parameters());
        self.parameters.parameters().into_iter().chain(recurrent).collect()
    }

    fn parameters_mut(&mut self) -> Vec<&mut Parameter<B>> {
        let recurrent = self.recurring.iter_mut().flat_map(|r| r.weights.parameters_mut());
        self.parameters.parameters_mut().into_iter().chain(recurrent).collect()
    }

    fn recurrent_spikes(&self) -> Option<&B::Spikes> {
        self.recurring.as_ref().filter(|r| r.carries == Recurrence::Spike).map(|r| &r.hidden)
    }

    fn set_recurrent_rate_gradient(&mut self, gradient: f64) {
        if let Some(r) = &mut self.recurring {
            r.rate_gradient = gradient;
        }
    }

    fn extra_bytes(&self, lanes: Lanes, mode: Mode) -> usize {
        let real = size_of::<B::Real>();
        match &self.recurring {
            None => 0,
            Some(r) => {
                let hidden = if r.carries == Recurrence::Relu { real } else { size_of::<u32>() };
                let backward = if mode == Mode::Train { 2 * real } else { 0 };
                lanes.len() * (real + hidden + backward)
            }
        }
    }
}
